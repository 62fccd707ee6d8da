"""What to do next: possible changes, ranked by their estimated gain in accuracy.

Most gains are measured between two small trainings that differ in one thing (`small_trainings.variant_runs`);
they may differ for a large network that is trained for long.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from fer_utils.analysis.predictions import hardest_class
from fer_utils.config import AUGMENTATION, Config
from fer_utils.learning.metrics import calibration_report, holm, paired_test
from fer_utils.run.finished_run import Run


def changes_table(
    run: Run, labels: np.ndarray, slices: pd.DataFrame, variants: Mapping[str, Run] | None = None
) -> pd.DataFrame:
    """Possible changes: those measured, the highest gain first; then upper bounds; then those not measured.

    Args:
        labels: int64 [N], of the validation split.
        slices: `slices.score_slices` of the run.
        variants: from `small_trainings.variant_runs`; without them only the run itself is examined.

    Returns:
        A row per change: `gain` in points of validation accuracy with its 95 % interval `low` and `high` over
        pictures (nan where unknown); `significant`, whether p, corrected for the number of changes measured
        (Holm 1979), is below 0.05; `basis`. The variation between seeds is in neither.
    """
    has_it = all(getattr(run.config, name) >= getattr(Config(), name) for name in AUGMENTATION)
    default_strengths = "default strengths instead of light ones" + "; this run has them already" * has_it
    doubling = "estimated: the error falls by the same factor as from half to all"
    changes = [
        ("correct the doubtful labels", "fixed", "trained on the clear suggestions"),
        ("stronger augmentation", "augmented", default_strengths),
        ("longer training", "longer", f"twice the epochs; this run had {run.config.epochs}"),
        ("average two seeds", "seed", "against one of them"),
        ("twice the pictures", "half", doubling),
        # Without that half, the class is also rarer in training than in validation.
        (f"more of {run.class_names[hardest_class(run)]}", "rarer", "at most: the loss without half of it"),
    ]
    variants = variants or {}
    measured, bounds, unmeasured = [], [], []
    for change, name, basis in changes:
        row = {"change": change, "significant": False}
        if name in variants:
            row |= _gain_of(name, variants, labels) | {"basis": f"{basis}; on {_describe_network(variants)}"}
            (bounds if name == "rarer" else measured).append(row)
        else:
            reason = "see the small trainings" if variants else "switch studies on"
            unmeasured.append(row | {"basis": f"not measured: {reason}"})
    for row, p in zip(measured, holm(np.array([row["p"] for row in measured])), strict=True):
        row["significant"] = bool(p < 0.05)
    measured.sort(key=lambda row: -row["gain"])
    bounds += [_weak_slices(slices, len(labels)), _calibration(run, labels)]
    columns = ["change", "gain", "low", "high", "significant", "basis"]
    return pd.DataFrame([*measured, *bounds, *unmeasured], columns=columns)


def _gain_of(name: str, variants: Mapping[str, Run], labels: np.ndarray) -> dict[str, float]:
    """The gain of a change in points, measured with the variant `name`, with its interval and p."""
    new, old = variants[name].saved_probs(), variants["base"].saved_probs()
    if name == "half":
        test = next_doubling(new.argmax(1) == labels, old.argmax(1) == labels)
    else:
        if name == "seed":
            new = (new + old) / 2
        elif name == "rarer":
            new, old = old, new
        test = paired_test(new.argmax(1), old.argmax(1), labels)
    points = {"gain": "difference", "low": "ci_low", "high": "ci_high"}
    return {key: 100 * test[value] for key, value in points.items()} | {"p": test["p"]}


def _describe_network(variants: Mapping[str, Run]) -> str:
    training = variants["base"].metrics["training"]
    return f"a network of {training['parameters'] / 1e6:.2f} M parameters, {training['epochs']} epochs"


def next_doubling(half: np.ndarray, whole: np.ndarray) -> dict[str, float]:
    """The gain of twice the pictures, if the error falls by the same factor as from half of them to all.

    (Error falls as a power of the number of pictures, Hestness et al. 2017: by the same factor each time.)

    Args:
        half, whole: bool [N], the correct predictions after training on half and on all of the pictures.

    Returns:
        `difference` in accuracy, its interval `ci_low`, `ci_high` and `p` (two-sided) from a bootstrap over
        pictures.
    """

    def gain(rows: np.ndarray) -> float:
        before, now = 1 - half[rows].mean(), 1 - whole[rows].mean()
        return now * (1 - now / before) if before > 0 else 0.0

    rng, n = np.random.default_rng(0), len(half)
    samples = np.array([gain(rng.integers(n, size=n)) for _ in range(2000)])
    low, high = np.quantile(samples, [0.025, 0.975])
    p = min(1.0, 2 * (1 + min((samples <= 0).sum(), (samples >= 0).sum())) / (1 + len(samples)))
    return {"difference": gain(np.arange(n)), "ci_low": float(low), "ci_high": float(high), "p": float(p)}


def learning_curve_table(variants: Mapping[str, Run], labels: np.ndarray, n_train: int) -> pd.DataFrame:
    """The learning curve of the small network: `n` training pictures, `accuracy` with its 95 % interval `low`
    and `high`; the last row, twice the pictures, is estimated by `next_doubling`."""
    rows = []
    for name, share in (("quarter", 4), ("half", 2), ("base", 1)):
        scores = variants[name].metrics["valid"]["views"]
        rows.append((n_train // share, *(scores[key] for key in ("accuracy", "ci_low", "ci_high"))))
    gain, now = _gain_of("half", variants, labels), rows[-1][1]
    rows.append((2 * n_train, *(now + gain[key] / 100 for key in ("gain", "low", "high"))))
    return pd.DataFrame(rows, columns=["n", "accuracy", "low", "high"])


def _bound(change: str, basis: str, points: float = 0.0, reach: float = 0.0) -> dict[str, Any]:
    low, high = points - reach, points + reach
    return {"change": change, "gain": points, "low": low, "high": high, "significant": False, "basis": basis}


def _calibration(run: Run, labels: np.ndarray) -> dict[str, Any]:
    report = calibration_report(run.saved_probs(), labels)
    errors, losses = (list(report[name]) for name in ("calibration_error", "log_loss"))
    basis = (
        f"changes no prediction; calibration error {100 * errors[0]:.1f} to {100 * errors[1]:.1f} points, "
        f"log loss {losses[0]:.3f} to {losses[1]:.3f}, cross-fitted on this run"
    )
    return _bound("calibrate", basis)


def _weak_slices(slices: pd.DataFrame, n: int) -> dict[str, Any]:
    """An upper bound: the gain if the slices of one property with significantly low accuracy reached the
    accuracy of their classes."""
    weak = slices[(slices.what != "copy in train") & (slices.p_corrected < 0.05) & (slices.gap < 0)]
    if weak.empty:
        return _bound("help where pictures look unusual", "no property has a significant slice on this run")
    share = 100 * weak.n / n
    weak = weak.assign(points=-weak.gap * share, variance=((weak.high - weak.low) / 2 * share) ** 2)
    name = weak.groupby("what").points.sum().idxmax()
    rows = weak[weak.what == name]
    basis = f"at most: if {name} {', '.join(rows.which)} had the accuracy of their classes; on this run"
    change = f"imitate {name} in augmentation"
    return _bound(change, basis, float(rows.points.sum()), float(np.sqrt(rows.variance.sum())))
