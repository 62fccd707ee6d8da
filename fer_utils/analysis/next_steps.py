"""What to do next: the levers there are, ranked by the accuracy each promises, with its basis.

No gain is assumed. Most are measured between two trainings of a small net with one thing changed
(`studies.variant_runs`); what holds there need not hold for a large net that learns for long.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd

from fer_utils.analysis.predictions import hardest_class
from fer_utils.config import AUGMENTATION, Config
from fer_utils.learning.metrics import calibration_report, holm, paired_test
from fer_utils.run.finished_run import Run

# From the probabilities [N, C] of a variant and of the base, and labels [N]: a difference, its interval, p.
Measure = Callable[[np.ndarray, np.ndarray, np.ndarray], Mapping[str, float]]


def lever_table(
    run: Run, labels: np.ndarray, slices: pd.DataFrame, variants: Mapping[str, Run] | None = None
) -> pd.DataFrame:
    """Rank what can be done, the highest promise first; bounds come after what was measured, and last what
    was not.

    Args:
        labels: int64 [N], of the validation split.
        slices: `slices.Looks.table` of the run.
        variants: from `studies.variant_runs`; without them only the run itself is asked.

    Returns:
        A row per lever: `gain` in points of validation accuracy with its 95 % interval `low` and `high` over
        pictures (nan where unknown); `sure`, whether p, corrected for the levers tried (Holm 1979), is below
        0.05; `basis`. What two other seeds of the same trainings would differ by is in neither.
    """
    hardest = run.class_names[hardest_class(run)]
    doubling = "estimated: the error falls by the same factor as from half to all"
    levers: list[tuple[str, str, Measure, str]] = [
        ("correct the doubtful labels", "fixed", _gain, "trained on the clear suggestions"),
        ("stronger augmentation", "augmented", _gain, _augmentation(run)),
        ("longer training", "longer", _gain, f"twice the epochs; this run had {run.config.epochs}"),
        ("average two seeds", "seed", _gain_of_average, "against one of them"),
        ("twice the pictures", "half", _gain_of_doubling, doubling),
        # Leaving out a half also makes the class rarer in training than it is in truth: a bound.
        (f"more of {hardest}", "rarer", _loss, "at most: what it costs to leave out a half of it"),
    ]
    probs = {name: variant.saved_probs() for name, variant in (variants or {}).items()}
    rows = []
    for lever, name, measure, basis in levers:
        if name not in probs:
            basis = "not measured: " + ("see the small trainings" if probs else "switch studies on")
            rows.append({"lever": lever, "basis": basis, "kind": 2})
            continue
        test = measure(probs[name], probs["base"], labels)
        points = {"gain": test["difference"], "low": test["ci_low"], "high": test["ci_high"]}
        row = {key: 100 * value for key, value in points.items()} | {"p": test["p"]}
        kind = int(measure is _loss)
        rows.append(row | {"lever": lever, "basis": f"{basis}; on {_net(variants)}", "kind": kind})
    rows += [_weak_slices(slices, len(labels)), _calibration(run, labels)]
    table = pd.DataFrame(rows, columns=["lever", "gain", "low", "high", "basis", "p", "kind"])
    measured = table.kind == 0
    table["sure"] = False
    table.loc[measured, "sure"] = holm(table.p[measured].to_numpy(np.float64)) < 0.05
    order = np.lexsort((-table.gain.where(measured, 0), table.kind))
    return table.loc[order, ["lever", "gain", "low", "high", "sure", "basis"]].reset_index(drop=True)


def _gain(probs: np.ndarray, base: np.ndarray, labels: np.ndarray) -> Mapping[str, float]:
    return paired_test(probs.argmax(1), base.argmax(1), labels)


def _loss(probs: np.ndarray, base: np.ndarray, labels: np.ndarray) -> Mapping[str, float]:
    return _gain(base, probs, labels)


def _gain_of_average(probs: np.ndarray, base: np.ndarray, labels: np.ndarray) -> Mapping[str, float]:
    return _gain((probs + base) / 2, base, labels)


def _gain_of_doubling(probs: np.ndarray, base: np.ndarray, labels: np.ndarray) -> Mapping[str, float]:
    return next_doubling(probs.argmax(1) == labels, base.argmax(1) == labels)


def _net(variants: Mapping[str, Run]) -> str:
    training = variants["base"].metrics["training"]
    return f"a net of {training['parameters'] / 1e6:.2f} M parameters, {training['epochs']} epochs"


def _augmentation(run: Run) -> str:
    """What "augmented" changes, and whether the run does so already."""
    defaults = Config()
    has_it = all(getattr(run.config, name) >= getattr(defaults, name) for name in AUGMENTATION)
    return "default strengths instead of light ones" + ("; this run has them already" if has_it else "")


def next_doubling(
    half: np.ndarray, whole: np.ndarray, n_samples: int = 2000, seed: int = 0
) -> dict[str, float]:
    """What twice the pictures would gain, if the error fell by the same factor as it did from a half to all.

    (Error falls as a power of the number of pictures, Hestness et al. 2017: by the same factor each time.)

    Args:
        half, whole: bool [N], what a net right after learning from half and all of the pictures.

    Returns:
        `difference` in accuracy, its interval `ci_low`, `ci_high` and `p` (two-sided) from a bootstrap over
        pictures.
    """

    def gain(rows: np.ndarray) -> float:
        before, now = 1 - half[rows].mean(), 1 - whole[rows].mean()
        return now * (1 - now / before) if before > 0 else 0.0

    rng, n = np.random.default_rng(seed), len(half)
    samples = np.array([gain(rng.integers(n, size=n)) for _ in range(n_samples)])
    low, high = np.quantile(samples, [0.025, 0.975])
    p = min(1.0, 2 * (1 + min((samples <= 0).sum(), (samples >= 0).sum())) / (1 + n_samples))
    return {"difference": gain(np.arange(n)), "ci_low": float(low), "ci_high": float(high), "p": float(p)}


def learning_curve_table(variants: Mapping[str, Run], labels: np.ndarray, n_train: int) -> pd.DataFrame:
    """The learning curve of the small net, and where it leads: `n` pictures learned from, `accuracy` with its
    95 % interval `low` and `high`; the last row, twice the pictures, is estimated by `next_doubling`."""
    rows = []
    for name, share in (("quarter", 4), ("half", 2), ("base", 1)):
        scores = variants[name].metrics["valid"]["views"]
        rows.append((n_train // share, *(scores[key] for key in ("accuracy", "ci_low", "ci_high"))))
    gain = _gain_of_doubling(variants["half"].saved_probs(), variants["base"].saved_probs(), labels)
    ahead = [rows[-1][1] + gain[key] for key in ("difference", "ci_low", "ci_high")]
    return pd.DataFrame([*rows, (2 * n_train, *ahead)], columns=["n", "accuracy", "low", "high"])


def _bound(lever: str, basis: str, points: float = 0.0, reach: float = 0.0) -> dict:
    low, high = points - reach, points + reach
    return {"lever": lever, "gain": points, "low": low, "high": high, "basis": basis, "kind": 1}


def _calibration(run: Run, labels: np.ndarray) -> dict:
    report = calibration_report(run.saved_probs(), labels)
    errors, losses = (list(report[name]) for name in ("calibration_error", "log_loss"))
    basis = (
        f"keeps every answer; calibration error {100 * errors[0]:.1f} to {100 * errors[1]:.1f} points, "
        f"log loss {losses[0]:.3f} to {losses[1]:.3f}, cross-fitted on this run"
    )
    return _bound("calibrate", basis)


def _weak_slices(slices: pd.DataFrame, n: int) -> dict:
    """At most what would be gained if the slices by looks that fail for sure did as their classes do."""
    looks = slices[slices.what != "copy in train"]
    weak = looks[(looks.p_corrected < 0.05) & (looks.gap < 0)]
    if weak.empty:
        return _bound("help where pictures look unusual", "no slice by looks fails for sure on this run")
    share = 100 * weak.n / n
    weak = weak.assign(points=-weak.gap * share, reach=((weak.high - weak.low) / 2 * share) ** 2)
    name = weak.groupby("what").points.sum().idxmax()
    rows = weak[weak.what == name]
    basis = f"at most: if {name} {', '.join(rows.which)} did as their classes do in all; on this run"
    lever = f"imitate {name} in augmentation"
    return _bound(lever, basis, float(rows.points.sum()), float(np.sqrt(rows.reach.sum())))
