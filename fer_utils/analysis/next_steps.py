"""What possible changes gain in accuracy, and whether more pictures would help.

Gains are measured between small trainings that differ in one thing (`small_trainings.variant_runs`); they may
differ for a large network that is trained for long.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from fer_utils.analysis.comparison import resampled_accuracies
from fer_utils.learning.metrics import holm
from fer_utils.run.finished_run import Run

CHANGES = {
    "longer": "twice the epochs",
    "augmented": "stronger augmentation",
    "average": "averaging seeds",
    "fixed": "correcting the clearly doubtful labels",
    "half": "twice the pictures (estimated)",
}
Variants = Mapping[str, Sequence[Run]]


def changes_table(run: Run, labels: np.ndarray, variants: Variants | None) -> pd.DataFrame:
    """What each of `CHANGES` gains in the small trainings `variants` on the validation split with labels
    int64 [N]: the highest gain first, then those not measured.

    Returns:
        A row per change: its `name` and `change`, in words; `gain` in points of validation accuracy, its 95 %
        interval `low` and `high` over pictures and seeds, and `p`, nan where not measured; `significant`,
        whether p, corrected for the number of changes (Holm 1979), is below 0.05, never with a single seed;
        `why` it is not measured.
    """
    right = {name: _correct(runs, labels) for name, runs in (variants or {}).items()}
    rows = []
    for name, change in CHANGES.items():
        why = _why_not(name, run, right)
        gain = {} if why else _gain(name, variants, labels)
        rows.append({"name": name, "change": change, "significant": False, "why": why} | gain)
    columns = ["name", "change", "gain", "low", "high", "p", "significant", "why"]
    table = pd.DataFrame(rows, columns=columns)
    if len(right.get("base", ())) > 1:
        measured = table.why == ""
        table.loc[measured, "significant"] = holm(table.p[measured].to_numpy()) < 0.05
    return table.sort_values("gain", ascending=False, kind="stable", ignore_index=True)


def _correct(runs: Sequence[Run], labels: np.ndarray) -> np.ndarray:
    return np.stack([run.saved_probs().argmax(1) == labels for run in runs])


def _why_not(name: str, run: Run, right: Mapping[str, np.ndarray]) -> str:
    """Why a change has no gain; empty if it has one."""
    if not right:
        return "not measured (studies is off)"
    if name == "average":
        return "" if len(right["base"]) > 1 else "not measured: needs two seeds"
    if name == "fixed" and run.config.label_fixes != "none":
        return "this run has label_fixes"
    if name not in right:
        return "not measured"
    if name == "half" and not error_falls(right["half"], right["base"]):
        return "not measurable here: the error does not fall"
    return ""


def error_falls(half: np.ndarray, whole: np.ndarray) -> bool:
    """Whether all pictures give a measurably lower error than half of them, from the correct predictions bool
    [R, N] of R seeds each. If not, nothing can be said of twice as many."""
    if min(len(half), len(whole)) < 2:
        return False  # two single trainings differ by chance
    samples = resampled_accuracies([half, whole])
    return bool(np.quantile(samples[:, 1] - samples[:, 0], 0.025) > 0)


def next_doubling(half: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """The gain in accuracy of twice the pictures, from the accuracies after training on half and on all of
    them, if the error falls by the same factor again (Hestness et al. 2017: it falls as a power of their
    number)."""
    before, now = 1 - half, 1 - whole
    return now * (1 - now / np.maximum(before, 1e-12))


def _gain(name: str, variants: Variants, labels: np.ndarray) -> dict[str, float]:
    """The gain of a change in points, with its interval and p, from a bootstrap over pictures and seeds."""
    base = _correct(variants["base"], labels)
    if name == "average":  # against these seeds themselves: only the pictures are resampled
        probs = np.mean([run.saved_probs() for run in variants["base"]], axis=0)
        new, base = (probs.argmax(1) == labels)[None], base.mean(0, keepdims=True)
    else:
        new = _correct(variants[name], labels)
    samples, point = resampled_accuracies([new, base]).T, (new.mean(), base.mean())
    if name == "half":
        gains, gain = next_doubling(*samples), next_doubling(*point)
    else:
        gains, gain = samples[0] - samples[1], point[0] - point[1]
    low, high = np.quantile(gains, [0.025, 0.975])
    p = min(1.0, 2 * (1 + min((gains <= 0).sum(), (gains >= 0).sum())) / (1 + len(gains)))
    return {"gain": 100 * gain, "low": 100 * low, "high": 100 * high, "p": p}


def describe_changes(changes: pd.DataFrame, variants: Variants | None) -> str:
    """What helps, what harms and how this was measured, in words."""
    if changes.gain.isna().all():
        return "Not measurable here: no change was measured."
    sure = changes[changes.significant]
    helps, harms = (", ".join(sure.change[side]) for side in (sure.gain > 0, sure.gain < 0))
    training, seeds = variants["base"][0].metrics["training"], len(variants["base"])
    text = (
        f"**Helps: {helps or 'nothing, measurably'}. Harms: {harms or 'nothing, measurably'}.** Measured on "
        f"a small network ({training['parameters'] / 1e6:.2f} M parameters, {training['epochs']} epochs, "
        f"{seeds} seed{'s' * (seeds > 1)} of each training)."
    )
    if seeds == 1:
        text += " With one seed nothing counts as sure: set study_seeds to 2 or more."
    return text


def learning_curve_table(variants: Variants, labels: np.ndarray, n_train: int) -> pd.DataFrame:
    """The learning curve of the small network: `n` training pictures, mean `accuracy` over seeds with its
    95 % interval `low` and `high` over pictures and seeds. Where the error falls, a last row, `estimated`,
    for twice the pictures, by `next_doubling`."""
    rows, right = [], {}
    for name, share in (("quarter", 4), ("half", 2), ("base", 1)):
        right[name] = _correct(variants[name], labels)
        low, high = np.quantile(resampled_accuracies([right[name]]), [0.025, 0.975])
        rows.append((n_train // share, right[name].mean(), low, high, False))
    if error_falls(right["half"], right["base"]):
        gain, now = _gain("half", variants, labels), right["base"].mean()
        rows.append((2 * n_train, *(now + gain[key] / 100 for key in ("gain", "low", "high")), True))
    return pd.DataFrame(rows, columns=["n", "accuracy", "low", "high", "estimated"])


def describe_learning_curve(curve: pd.DataFrame) -> str:
    """Whether more pictures would help, in words."""
    now, last = curve[~curve.estimated].iloc[-1], curve.iloc[-1]
    if not last.estimated:
        half = curve.iloc[-2]
        return (
            f"**Not measurable here.** The accuracy does not rise measurably from half of the pictures "
            f"({100 * half.accuracy:.1f} %) to all ({100 * now.accuracy:.1f} %), so nothing can be said of "
            "twice as many. More seeds (`study_seeds`) may tell."
        )
    gain, low, high = (100 * (last[key] - now.accuracy) for key in ("accuracy", "low", "high"))
    return (
        f"**Twice the pictures would gain about {gain:.1f} points ({low:.1f} to {high:.1f}),** if "
        "the error falls by the same factor again."
    )
