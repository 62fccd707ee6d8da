"""How good predictions are, and whether one set is better than another. Plain functions of arrays.

scipy takes about a second to import: the functions that need it import it.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

BINS = 15  # of the calibration table
COVERAGES = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0)


def wilson_interval(hits: int, n: int) -> tuple[float, float]:
    """95 % interval of a share of `hits` among `n` (Wilson 1927); (nan, nan) when n is 0."""
    if n == 0:
        return math.nan, math.nan
    from scipy.stats import binomtest

    low, high = binomtest(int(hits), int(n)).proportion_ci(method="wilson")
    return float(low), float(high)


def accuracy_of(correct: np.ndarray) -> dict[str, float]:
    """n and accuracy of bool [N] with its 95 % Wilson interval, `ci_low` and `ci_high`; nan where N is 0."""
    n, hits = len(correct), int(correct.sum())
    low, high = wilson_interval(hits, n)
    return {"n": n, "accuracy": hits / n if n else math.nan, "ci_low": low, "ci_high": high}


def evaluate(probs: np.ndarray, labels: np.ndarray, class_names: tuple[str, ...]) -> dict[str, Any]:
    """All scores of class probabilities [N, C] against labels [N].

    Returns:
        n, accuracy with its 95 % Wilson interval, macro F1 (over the classes that occur or are predicted),
        balanced accuracy (mean recall of the classes that occur), log loss, expected calibration error, the
        confusion counts [true][predicted] and, per class, precision, recall, F1 and n.
    """
    preds, classes = probs.argmax(1), len(class_names)
    confusion = np.bincount(labels * classes + preds, minlength=classes**2).reshape(classes, classes)
    hits, support, predicted = confusion.diagonal(), confusion.sum(1), confusion.sum(0)
    # 0 where nothing is counted. By hand: scikit-learn would delay the end of every training by a second.
    parts = ((hits, predicted), (hits, support), (2 * hits, support + predicted))
    precision, recall, f1 = (counted / np.maximum(of, 1) for counted, of in parts)
    return accuracy_of(preds == labels) | {
        "macro_f1": float(f1[support + predicted > 0].mean()),
        "balanced_accuracy": float(recall[support > 0].mean()),
        "log_loss": log_loss(probs, labels),
        "calibration_error": calibration_error(probs, labels),
        "confusion": confusion.tolist(),
        "per_class": {
            name: {"precision": float(p), "recall": float(r), "f1": float(f), "n": int(n)}
            for name, p, r, f, n in zip(class_names, precision, recall, f1, support, strict=True)
        },
    }


def calibration_table(probs: np.ndarray, labels: np.ndarray) -> pd.DataFrame:
    """Mean confidence, accuracy and n in 15 equal-width bins of confidence; empty bins are left out."""
    frame = pd.DataFrame({"confidence": probs.max(1), "accuracy": probs.argmax(1) == labels, "n": 1})
    bin_of = (frame.confidence * BINS).astype(int).clip(upper=BINS - 1).rename("bin")
    return frame.groupby(bin_of).agg({"confidence": "mean", "accuracy": "mean", "n": "sum"})


def calibration_error(probs: np.ndarray, labels: np.ndarray) -> float:
    """Expected calibration error: mean gap of confidence and accuracy, weighted by n (Guo et al. 2017)."""
    table = calibration_table(probs, labels)
    return float(((table.confidence - table.accuracy).abs() * table.n).sum() / table.n.sum())


def _fit_sharpness(probs: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """The inverse of the temperature that minimizes the log loss of [N, C], and that loss. One more image,
    of a class by chance, counts too: without an error among them, confidence would grow without end."""
    from scipy.optimize import minimize_scalar
    from scipy.special import logsumexp

    logits = np.log(probs.clip(1e-12)).astype(np.float64)
    rows = np.arange(len(labels))

    def loss(sharpness: float) -> float:
        scaled = logits * sharpness
        totals = logsumexp(scaled, axis=1)
        by_chance = (totals[:, None] - scaled).mean()
        return float(((totals - scaled[rows, labels]).sum() + by_chance) / (len(rows) + 1))

    sharpness = float(minimize_scalar(loss, bounds=(0.1, 10), method="bounded").x)
    scaled = logits * sharpness
    return sharpness, float((logsumexp(scaled, axis=1) - scaled[rows, labels]).mean())


def fit_temperature(probs: np.ndarray, labels: np.ndarray) -> float:
    """The temperature that minimizes the log loss of [N, C] (Guo et al. 2017)."""
    return 1 / _fit_sharpness(probs, labels)[0]


def at_temperature(probs: np.ndarray, temperature: float) -> np.ndarray:
    """Probabilities [N, C], more confident (temperature below 1) or less (above 1), in the same order."""
    from scipy.special import softmax

    return softmax(np.log(probs.clip(1e-12)).astype(np.float64) / temperature, axis=1)


def log_loss(probs: np.ndarray, labels: np.ndarray) -> float:
    """Mean negative log probability of the true class, from [N, C]."""
    return float(losses(probs, labels).mean())


def losses(probs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The negative log probability of the true class [N], from [N, C]."""
    return -np.log(probs[np.arange(len(labels)), labels].clip(1e-12))


def calibrated_log_loss(probs: np.ndarray, labels: np.ndarray) -> float:
    """Log loss of [N, C] at the best temperature: how well the classes are separated, whatever the
    confidence, which label smoothing and averaging lower."""
    return _fit_sharpness(probs, labels)[1]


def cross_calibrated(probs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Probabilities [N, C], each half at the temperature fitted to the other half, so that scores on them are
    independent of the fit."""
    half = np.random.default_rng(0).permutation(len(labels)) < len(labels) // 2
    calibrated = np.empty(probs.shape)
    for fitted, other in ((half, ~half), (~half, half)):
        calibrated[other] = at_temperature(probs[other], fit_temperature(probs[fitted], labels[fitted]))
    return calibrated


def calibration_report(probs: np.ndarray, labels: np.ndarray) -> pd.DataFrame:
    """Calibration error and log loss of [N, C] as it is and cross-calibrated, and the temperature fitted to
    all images."""
    rows = {
        name: {"calibration_error": calibration_error(some, labels), "log_loss": log_loss(some, labels)}
        for name, some in (("as it is", probs), ("calibrated", cross_calibrated(probs, labels)))
    }
    return pd.DataFrame(rows).T.assign(temperature=[1.0, fit_temperature(probs, labels)], n=len(labels))


def coverage_table(probs: np.ndarray, labels: np.ndarray) -> pd.DataFrame:
    """Accuracy if only the most confident share of the predictions [N, C] is kept (selective prediction,
    Geifman and El-Yaniv 2017).

    Returns:
        A row for each of `COVERAGES`: `coverage`, `n`, `accuracy` with its 95 % interval, `threshold`
        (confidence of the last image kept).
    """
    confidence, hit = probs.max(1), probs.argmax(1) == labels
    order, rows = np.argsort(-confidence, kind="stable"), []
    for share in COVERAGES:
        kept = order[: max(1, round(share * len(order)))]
        rows.append({"coverage": share, **accuracy_of(hit[kept]), "threshold": confidence[kept[-1]]})
    return pd.DataFrame(rows)


def paired_test(preds: np.ndarray, other: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Whether `preds` [N] beat `other` [N] on the same images: McNemar's exact test (McNemar 1947).

    Returns:
        gained and lost (images that only one of the two gets right), difference in accuracy with its 95 %
        interval (normal approximation for paired shares), two-sided p, n.
    """
    from scipy.stats import binomtest

    right, other_right = preds == labels, other == labels
    gained, lost, n = int((right & ~other_right).sum()), int((~right & other_right).sum()), len(labels)
    difference = (gained - lost) / n
    spread = 1.96 * math.sqrt(max(gained + lost - (gained - lost) ** 2 / n, 0)) / n
    p = float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0
    interval = {"difference": difference, "ci_low": difference - spread, "ci_high": difference + spread}
    return {"gained": gained, "lost": lost, **interval, "p": p, "n": n}


def holm(p: np.ndarray) -> np.ndarray:
    """p values [N] corrected for their number (Holm 1979)."""
    order = np.argsort(p)
    corrected = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)).clip(max=1)
    return corrected[np.argsort(order)]


def describe(scores: dict[str, Any]) -> str:
    """Accuracy as people read it: '70.1 % (95 % interval 68.6 to 71.6, n = 3,589)'."""
    return (
        f"{100 * scores['accuracy']:.1f} % "
        f"(95 % interval {100 * scores['ci_low']:.1f} to {100 * scores['ci_high']:.1f}, n = {scores['n']:,})"
    )


def describe_gain(test: dict[str, float]) -> str:
    """The outcome of `paired_test` in words: the difference, its 95 % interval, p and what that means."""
    points, low, high = (100 * test[key] for key in ("difference", "ci_low", "ci_high"))
    verdict = "no evidence of a difference"
    if test["p"] < 0.05:
        verdict = "evidence of a gain" if test["difference"] > 0 else "evidence of a loss"
    return f"{points:+.2f} points ({low:+.2f} to {high:+.2f}), exact McNemar p = {test['p']:.3g}: {verdict}"


def per_class_table(scores: dict[str, Any]) -> pd.DataFrame:
    """The per-class scores of `evaluate` with 95 % intervals of precision and recall; the weakest F1 first,
    absent classes last. A class that is never predicted has no precision (nan)."""
    table = pd.DataFrame(scores["per_class"]).T.astype({"n": int})
    confusion = np.array(scores["confusion"])
    for name, totals in (("recall", confusion.sum(1)), ("precision", confusion.sum(0))):
        bounds = [wilson_interval(hits, n) for hits, n in zip(confusion.diagonal(), totals, strict=True)]
        table[f"{name}_low"], table[f"{name}_high"] = zip(*bounds, strict=True)
    table["n_predicted"] = confusion.sum(0)
    table["precision"] = table.precision.where(table.n_predicted > 0)
    return table.sort_values("f1").sort_values("n", key=lambda n: n == 0, kind="stable")
