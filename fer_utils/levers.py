"""What to do next: the levers there are, ranked by the accuracy each promises, with where the estimate comes
from.

No gain is assumed. Most are measured between two trainings of a small net with one thing changed
(`studies.variant_runs`), which costs minutes; what holds there need not hold for a large net that learns for
long.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from fer_utils.analysis import hardest_class
from fer_utils.config import Config
from fer_utils.metrics import calibration_error, cross_calibrated, holm, log_loss, paired_test
from fer_utils.predict import Run
from fer_utils.studies import AUGMENTATION

COLUMNS = ["lever", "gain", "low", "high", "p", "basis"]


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
    variants = variants or {}
    measured = [
        _measured(
            "correct the doubtful labels", "fixed", "trained on the clear suggestions", labels, variants
        ),
        _measured("stronger augmentation", "augmented", _augmentation(run), labels, variants),
        _measured(
            "longer training",
            "longer",
            f"twice the epochs; this run had {run.config.epochs}",
            labels,
            variants,
        ),
        _ensemble(labels, variants),
        _more_pictures(labels, variants),
    ]
    table = pd.DataFrame(measured, columns=COLUMNS).sort_values("gain", ascending=False, kind="stable")
    known = table.gain.notna()
    sure = pd.Series(False, index=table.index)
    sure[known] = holm(table.p[known].to_numpy(np.float64)) < 0.05
    bounds = [
        _more_of_a_class(run, labels, variants),
        _weak_slices(slices, len(labels)),
        _calibration(run, labels),
    ]
    bounds = pd.DataFrame(bounds, columns=COLUMNS).assign(sure=False)
    table = table.assign(sure=sure)
    parts = [
        table[known],
        bounds[bounds.gain.notna()],
        table[~known],
        bounds[bounds.gain.isna()],
    ]
    table = pd.concat([part for part in parts if len(part)], ignore_index=True)
    return table[["lever", "gain", "low", "high", "sure", "basis"]]


def _row(lever: str, test: Mapping[str, float], basis: str) -> tuple:
    points = (100 * test[key] for key in ("difference", "ci_low", "ci_high"))
    return (lever, *points, test["p"], basis)


def _unknown(lever: str, variants: Mapping[str, Run]) -> tuple:
    basis = (
        "not measured: see what the small trainings say" if variants else "not measured: switch studies on"
    )
    return (lever, np.nan, np.nan, np.nan, np.nan, basis)


def _net(variants: Mapping[str, Run]) -> str:
    training = variants["base"].metrics["training"]
    return f"a net of {training['parameters'] / 1e6:.2f} M parameters, {training['epochs']} epochs"


def _augmentation(run: Run) -> str:
    """What "augmented" changes, and whether the run does so already."""
    defaults = Config()
    has_it = all(getattr(run.config, name) >= getattr(defaults, name) for name in AUGMENTATION)
    return "default strengths instead of light ones" + ("; this run has them already" if has_it else "")


def _measured(lever: str, name: str, change: str, labels: np.ndarray, variants: Mapping[str, Run]) -> tuple:
    if name not in variants:
        return _unknown(lever, variants)
    preds, base = (variants[key].saved_probs().argmax(1) for key in (name, "base"))
    return _row(lever, paired_test(preds, base, labels), f"{change}; on {_net(variants)}")


def _ensemble(labels: np.ndarray, variants: Mapping[str, Run]) -> tuple:
    lever = "average two seeds"
    if "seed" not in variants:
        return _unknown(lever, variants)
    base, other = (variants[key].saved_probs() for key in ("base", "seed"))
    test = paired_test(((base + other) / 2).argmax(1), base.argmax(1), labels)
    return _row(lever, test, f"against one of them; on {_net(variants)}")


def _more_of_a_class(run: Run, labels: np.ndarray, variants: Mapping[str, Run]) -> tuple:
    """At most what more of the hardest class would gain: what it costs all classes together to leave out a
    half of it, which also makes it rarer in training than it is in truth, as more of it would not mend."""
    if "rarer" not in variants:
        return _unknown("more of one class", variants)
    hardest = hardest_class(run)
    errors = ((labels == hardest) & (run.saved_probs().argmax(1) != hardest)).sum()
    base, rarer = (variants[key].saved_probs().argmax(1) for key in ("base", "rarer"))
    basis = f"at most: what leaving out a half of it costs; {errors:,} errors are there; on {_net(variants)}"
    name = run.class_names[hardest]
    return _row(f"more of {name}", paired_test(base, rarer, labels), basis)


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


def _more_pictures(labels: np.ndarray, variants: Mapping[str, Run]) -> tuple:
    lever = "twice the pictures"
    if "half" not in variants:
        return _unknown(lever, variants)
    half, whole = (variants[key].saved_probs().argmax(1) == labels for key in ("half", "base"))
    basis = f"estimated: the error falls by the same factor as from half to all; on {_net(variants)}"
    return _row(lever, next_doubling(half, whole), basis)


def curve_table(variants: Mapping[str, Run], labels: np.ndarray, n_train: int) -> pd.DataFrame:
    """The learning curve of the small net, and where it leads: `n` pictures learned from, `accuracy` with its
    95 % interval `low` and `high`; the last row, twice the pictures, is estimated by `next_doubling`."""
    rows = []
    for name, share in (("quarter", 4), ("half", 2), ("base", 1)):
        scores = variants[name].metrics["valid"]["views"]
        rows.append((n_train // share, *(scores[key] for key in ("accuracy", "ci_low", "ci_high"))))
    half, whole = (variants[key].saved_probs().argmax(1) == labels for key in ("half", "base"))
    gain = next_doubling(half, whole)
    ahead = [rows[-1][1] + gain[key] for key in ("difference", "ci_low", "ci_high")]
    return pd.DataFrame([*rows, (2 * n_train, *ahead)], columns=["n", "accuracy", "low", "high"])


def _calibration(run: Run, labels: np.ndarray) -> tuple:
    probs = run.saved_probs()
    calibrated, _ = cross_calibrated(probs, labels)
    errors = [100 * calibration_error(some, labels) for some in (probs, calibrated)]
    losses = [log_loss(some, labels) for some in (probs, calibrated)]
    basis = (
        f"keeps every answer; calibration error {errors[0]:.1f} to {errors[1]:.1f} points, log loss "
        f"{losses[0]:.3f} to {losses[1]:.3f}, cross-fitted on this run"
    )
    return ("calibrate", 0.0, 0.0, 0.0, 1.0, basis)


def _weak_slices(slices: pd.DataFrame, n: int) -> tuple:
    """At most what would be gained if the slices by looks that fail for sure did as their classes do."""
    looks = slices[slices.what != "copy in train"]
    weak = looks[(looks.p_corrected < 0.05) & (looks.gap < 0)]
    if weak.empty:
        basis = "no slice by looks fails for sure on this run"
        return ("help where pictures look unusual", 0.0, 0.0, 0.0, 1.0, basis)
    share = 100 * weak.n / n
    weak = weak.assign(points=-weak.gap * share, reach=((weak.high - weak.low) / 2 * share) ** 2)
    name = weak.groupby("what").points.sum().idxmax()
    rows = weak[weak.what == name]
    points, reach = rows.points.sum(), np.sqrt(rows.reach.sum())
    basis = f"at most: if {name} {', '.join(rows.which)} did as their classes do in all; on this run"
    return (f"imitate {name} in augmentation", points, points - reach, points + reach, np.nan, basis)
