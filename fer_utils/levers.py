"""What to do next: the levers there are, ranked by the accuracy each promises, with where the estimate comes
from.

No gain is assumed: each is measured on a small net with one thing changed (`studies.variant_runs`), which
costs minutes and tells the direction for a large one, or on the run itself.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from fer_utils.metrics import calibration_error, cross_calibrated, log_loss, paired_test
from fer_utils.predict import Run

# The lever, the variant of `studies.variant_runs` that measures it, and what was changed there.
_MEASURED = (
    ("correct the doubtful labels", "fixed", "trained on the clear suggestions"),
    ("stronger augmentation", "augmented", "default strengths instead of light ones"),
    ("longer training", "longer", "twice the epochs"),
)


def lever_table(
    run: Run, labels: np.ndarray, slices: pd.DataFrame, variants: Mapping[str, Run] | None = None
) -> pd.DataFrame:
    """Rank what can be done, the highest promise first; what was not measured comes last.

    Args:
        labels: int64 [N], of the validation split.
        slices: `slices.score_slices` of the run.
        variants: from `studies.variant_runs`; without them only the run itself is asked.

    Returns:
        A row per lever: `gain` in points of validation accuracy with its 95 % interval `low` and `high`
        (nan where unknown), `sure` (the interval leaves out 0), `basis`.
    """
    rows = [_calibration(run, labels), _weak_slices(slices, len(labels))]
    for lever, name, change in _MEASURED:
        rows.append(_measured(lever, name, change, labels, variants or {}))
    rows += [_ensemble(labels, variants or {}), _more_pictures(labels, variants or {})]
    rows.append(_more_of_a_class(run, labels, variants or {}))
    table = pd.DataFrame(rows, columns=["lever", "gain", "low", "high", "basis"])
    table.insert(4, "sure", (table.low > 0) | (table.high < 0))
    return table.sort_values("gain", ascending=False, ignore_index=True, kind="stable")


def _row(lever: str, test: Mapping[str, float], basis: str) -> tuple:
    return (lever, 100 * test["difference"], 100 * test["ci_low"], 100 * test["ci_high"], basis)


def _unknown(lever: str) -> tuple:
    return (lever, np.nan, np.nan, np.nan, "not measured: switch studies on")


def _net(variants: Mapping[str, Run]) -> str:
    base = variants["base"]
    training = base.metrics["training"]
    return f"measured on a net of {training['parameters'] / 1e6:.2f} M parameters, seed {training['seed']}"


def _measured(lever: str, name: str, change: str, labels: np.ndarray, variants: Mapping[str, Run]) -> tuple:
    if name not in variants:
        return _unknown(lever)
    preds, base = (variants[key].saved_probs().argmax(1) for key in (name, "base"))
    return _row(lever, paired_test(preds, base, labels), f"{change}; {_net(variants)}")


def _ensemble(labels: np.ndarray, variants: Mapping[str, Run]) -> tuple:
    lever = "average two seeds"
    if "seed" not in variants:
        return _unknown(lever)
    base, other = (variants[key].saved_probs() for key in ("base", "seed"))
    test = paired_test(((base + other) / 2).argmax(1), base.argmax(1), labels)
    return _row(lever, test, f"against one of them; {_net(variants)}")


def next_doubling(
    half: np.ndarray, whole: np.ndarray, n_samples: int = 2000, seed: int = 0
) -> dict[str, float]:
    """What twice the pictures would gain, if the error fell by the same factor as it did from a half to all.

    (Error falls as a power of the number of pictures, Hestness et al. 2017: by the same factor each time.)

    Args:
        half, whole: bool [N], what a net right after learning from half and all of the pictures.

    Returns:
        `difference` in accuracy, and its interval `ci_low`, `ci_high` from a bootstrap over pictures.
    """

    def gain(rows: np.ndarray) -> float:
        before, now = 1 - half[rows].mean(), 1 - whole[rows].mean()
        return now * (1 - now / before) if before > 0 else 0.0

    rng, n = np.random.default_rng(seed), len(half)
    samples = [gain(rng.integers(n, size=n)) for _ in range(n_samples)]
    low, high = np.quantile(samples, [0.025, 0.975])
    return {"difference": gain(np.arange(n)), "ci_low": float(low), "ci_high": float(high)}


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


def _more_pictures(labels: np.ndarray, variants: Mapping[str, Run]) -> tuple:
    lever = "twice the pictures"
    if "half" not in variants:
        return _unknown(lever)
    half, whole = (variants[key].saved_probs().argmax(1) == labels for key in ("half", "base"))
    return _row(
        lever, next_doubling(half, whole), f"the same factor again as from half to all; {_net(variants)}"
    )


def _more_of_a_class(run: Run, labels: np.ndarray, variants: Mapping[str, Run]) -> tuple:
    """The class whose own pictures gained most, in points of the whole, when all pictures doubled."""
    if "half" not in variants:
        return _unknown("more of one class")
    half, whole = (variants[key].saved_probs().argmax(1) for key in ("half", "base"))
    tests = {
        name: paired_test(whole[labels == k], half[labels == k], labels[labels == k])
        for k, name in enumerate(run.class_names)
        if (labels == k).any()
    }
    name = max(tests, key=lambda name: tests[name]["gained"] - tests[name]["lost"])
    share = tests[name]["n"] / len(labels)
    test = {key: share * tests[name][key] for key in ("difference", "ci_low", "ci_high")}
    # The best of several is flattered: the interval is widened for how many there were (Bonferroni).
    from scipy.stats import norm

    middle, factor = test["difference"], norm.isf(0.025 / len(tests)) / norm.isf(0.025)
    test |= {key: middle + factor * (test[key] - middle) for key in ("ci_low", "ci_high")}
    basis = f"its pictures gained most from half to all (n = {tests[name]['n']:,}); {_net(variants)}"
    return _row(f"more of {name}", test, basis)


def _calibration(run: Run, labels: np.ndarray) -> tuple:
    probs = run.saved_probs()
    calibrated, _ = cross_calibrated(probs, labels)
    errors = [100 * calibration_error(some, labels) for some in (probs, calibrated)]
    basis = (
        f"keeps every answer; calibration error {errors[0]:.1f} to {errors[1]:.1f} points, "
        f"log loss {log_loss(probs, labels):.3f} to {log_loss(calibrated, labels):.3f}, "
        "cross-fitted on this run"
    )
    return ("calibrate", 0.0, 0.0, 0.0, basis)


def _weak_slices(slices: pd.DataFrame, n: int) -> tuple:
    """What would be gained if the slices that fail for sure did as their classes do elsewhere."""
    looks = slices[~slices.what.isin(["cluster", "copy in train"])]
    weak = looks[(looks.p_corrected < 0.05) & (looks.gap < 0)]
    if weak.empty:
        basis = "no slice by looks fails for sure on this run"
        return ("help where pictures look unusual", 0.0, 0.0, 0.0, basis)
    share = 100 * weak.n / n
    weak = weak.assign(points=-weak.gap * share, reach=((weak.high - weak.low) / 2 * share) ** 2)
    name = weak.groupby("what").points.sum().idxmax()
    rows = weak[weak.what == name]
    points, reach = rows.points.sum(), np.sqrt(rows.reach.sum())
    basis = f"at most: if {name} {', '.join(rows.which)} did as the same classes elsewhere; on this run"
    return (f"imitate {name} in augmentation", points, points - reach, points + reach, basis)
