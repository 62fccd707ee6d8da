"""What to do next: what possible changes gain in accuracy, whether more images would help, and the commands
of what is worth trying.

Gains are measured between small trainings that differ in one thing (`small_trainings.variant_runs`); they may
differ for a large network that is trained for long.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from fer_utils.analysis.paired_comparison import enough_seeds, resampled_means
from fer_utils.analysis.small_trainings import STRENGTHS
from fer_utils.config import AUGMENTATION, PRESETS, Config
from fer_utils.files import shown_path
from fer_utils.learning.metrics import accuracy_of, describe, holm
from fer_utils.run.finished_run import Run

CHANGES = {
    "longer": "twice the epochs",
    "augmented": "stronger augmentation instead of light",
    "average": "averaging seeds (against their mean)",
    "fixed": "labels as in label_fixes.csv",
    "half": "twice the images (estimated)",
}
MOST = 3  # things to advise
Variants = Mapping[str, Sequence[Run]]


def changes_table(run: Run, labels: np.ndarray, variants: Variants | None) -> pd.DataFrame:
    """What each of `CHANGES` gains in the small trainings `variants` on the validation split with labels
    int64 [N]: the highest gain first, then those not measured.

    Returns:
        A row per change: its `name` and `change`, in words; `gain` in points of validation accuracy, its 95 %
        interval `low` and `high` over images and seeds (for "average": over images), and `p`, nan where
        not measured; `significant`, whether p, corrected for the number of changes (Holm 1979), is below
        0.05, never with too few seeds (`enough_seeds`); `why` it is not measured.
    """
    right = {name: _correct(runs, labels) for name, runs in (variants or {}).items()}
    changes, rows = dict(CHANGES), []
    if all(getattr(run.config, name) == STRENGTHS.get(name, 0) for name in AUGMENTATION):
        changes["augmented"] = "this run's augmentation instead of light"
    for name, change in changes.items():
        why = _why_not(name, run, right)
        gain = {} if why else _gain(name, variants, labels)
        rows.append({"name": name, "change": change, "significant": False, "why": why} | gain)
    columns = ["name", "change", "gain", "low", "high", "p", "significant", "why"]
    table = pd.DataFrame(rows, columns=columns)
    if enough_seeds(len(right.get("base", ())), len(labels)):
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
        return "the error does not fall measurably"
    return ""


def error_falls(half: np.ndarray, whole: np.ndarray) -> bool:
    """Whether all images give a measurably lower error than half of them, from the correct predictions bool
    [R, N] of R seeds each. If not, nothing can be said of twice as many."""
    if not enough_seeds(min(len(half), len(whole)), half.shape[1]):
        return False  # such trainings differ by chance
    samples = resampled_means([half, whole])
    return bool(np.quantile(samples[:, 1] - samples[:, 0], 0.025) > 0)


def next_doubling(half: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """The gain in accuracy of twice the images, from the accuracies after training on half and on all of
    them, if the error falls by the same factor again (Hestness et al. 2017: it falls as a power of their
    number)."""
    before, now = 1 - half, 1 - whole
    return now * (1 - now / np.maximum(before, 1e-12))


def _gain(name: str, variants: Variants, labels: np.ndarray) -> dict[str, float]:
    """The gain of a change in points, with its interval and p, from a bootstrap over images and seeds."""
    base = _correct(variants["base"], labels)
    if name == "average":  # against these seeds themselves: only the images are resampled
        probs = np.mean([run.saved_probs() for run in variants["base"]], axis=0)
        new, base = (probs.argmax(1) == labels)[None], base.mean(0, keepdims=True)
    else:
        new = _correct(variants[name], labels)
    samples, point = resampled_means([new, base]).T, (new.mean(), base.mean())
    if name == "half":
        gains, gain = next_doubling(*samples), next_doubling(*point)
    else:
        gains, gain = samples[0] - samples[1], point[0] - point[1]
    low, high = np.quantile(gains, [0.025, 0.975])
    p = min(1.0, 2 * (1 + min((gains <= 0).sum(), (gains >= 0).sum())) / (1 + len(gains)))
    return {"gain": 100 * gain, "low": 100 * low, "high": 100 * high, "p": p}


def _times(count: int, noun: str) -> str:
    return f"{count} {noun}{'s' * (count != 1)}"


def describe_changes(changes: pd.DataFrame, variants: Variants | None) -> str:
    """What helps, what harms and how this was measured, in words."""
    if changes.gain.isna().all():
        return "Not measurable here: no change was measured."
    sure = changes[changes.significant]
    helps, harms = (", ".join(sure.change[side]) for side in (sure.gain > 0, sure.gain < 0))
    base = variants["base"]
    training, seeds = base[0].metrics["training"], len(base)
    text = (
        f"**Helps: {helps or 'nothing, measurably'}. Harms: {harms or 'nothing, measurably'}.** Measured on "
        f"a small network ({training['parameters'] / 1e6:.2f} M parameters, "
        f"{_times(training['epochs'], 'epoch')}, {_times(seeds, 'seed')} of each training)."
    )
    n = len(base[0].saved("valid", "labels"))
    if not enough_seeds(seeds, n):
        few = _times(seeds, "seed")
        text += f" With {few} nothing counts as sure: set study_seeds to {seeds + 1} or more."
    return text


def learning_curve_table(variants: Variants, labels: np.ndarray, n_train: int) -> pd.DataFrame:
    """The learning curve of the small network: `n` training images, mean `accuracy` over seeds with its
    95 % interval `low` and `high` over images and seeds. Where the error falls, a last row, `estimated`,
    for twice the images, by `next_doubling`."""
    rows, right = [], {}
    for name, share in (("quarter", 4), ("half", 2), ("base", 1)):
        right[name] = _correct(variants[name], labels)
        low, high = np.quantile(resampled_means([right[name]]), [0.025, 0.975])
        rows.append((n_train // share, right[name].mean(), low, high, False))
    if error_falls(right["half"], right["base"]):
        gain, now = _gain("half", variants, labels), right["base"].mean()
        rows.append((2 * n_train, *(now + gain[key] / 100 for key in ("gain", "low", "high")), True))
    return pd.DataFrame(rows, columns=["n", "accuracy", "low", "high", "estimated"])


def describe_learning_curve(curve: pd.DataFrame) -> str:
    """Whether more images would help, in words."""
    now, last = curve[~curve.estimated].iloc[-1], curve.iloc[-1]
    if not last.estimated:
        half = curve.iloc[-2]
        return (
            f"**Not measurable here.** The accuracy does not rise measurably from half of the images "
            f"({100 * half.accuracy:.1f} %) to all ({100 * now.accuracy:.1f} %), so nothing can be said of "
            "twice as many. More seeds (`study_seeds`) may tell."
        )
    gain, low, high = (100 * (last[key] - now.accuracy) for key in ("accuracy", "low", "high"))
    return (
        f"**Twice the images would gain about {gain:.1f} points ({low:.1f} to {high:.1f}),** if "
        "the error falls by the same factor again."
    )


def advice(
    run: Run, changes: pd.DataFrame, variants: Variants | None, data: str = "run", folds: int = 3
) -> str:
    """What to do next, in Markdown: at most `MOST` of the `changes_table` that help measurably,
    each with its expected gain, its time and its command for `data`, "run" where they lay in training; with
    too little evidence, the measurement that would decide. `folds` is the notebook's."""
    again = {"out": shown_path(run.out), "data": data} | ({} if folds == 3 else {"folds": folds})
    if not variants:
        return (
            "**Nothing was measured, so nothing is advised.** The small trainings decide (about 15 "
            f"minutes of one core on the demo, 40 on FER2013):\n\n{_block(_line('04_error_analysis', again))}"
        )
    possible = changes[(changes.name != "half") & changes.gain.notna()]  # nobody can order more images
    if all(getattr(run.config, name) >= value for name, value in STRENGTHS.items()):
        possible = possible[possible.name != "augmented"]  # this run has them already
    sure = possible[possible.significant & (possible.gain > 0)]
    # What was measured on fewer epochs than the run had comes last: its gain is unknown.
    unknown = (sure.name == "longer") & (variants["base"][0].config.epochs < run.config.epochs)
    sure = pd.concat([sure[~unknown], sure[unknown]]).head(MOST)
    parts = [f"**{k}. {_step(row, run, variants, data)}" for k, row in enumerate(sure.itertuples(), 1)]
    undecided = possible[~possible.significant & (possible.high > 0)].sort_values("high")
    if not parts:
        parts = ["**No change helps measurably, so none is advised.**"]
    if unlearned := _unlearned(variants["base"]):
        parts.append(f"{unlearned}\n\n{_block(_line('04_error_analysis', again | _longer(variants)))}")
    elif len(parts) < MOST and len(undecided):
        parts.append(_measurement(undecided.iloc[-1], variants, again))
    return "\n\n".join(parts)


def _unlearned(base: Sequence[Run]) -> str:
    """Why nothing can be measured with a small network that is not shown to be better than guessing; empty
    if it is."""
    for run in base:
        labels = run.saved("valid", "labels")
        scores, counts = accuracy_of(_correct([run], labels)[0]), np.bincount(labels)
        name, guess = run.class_names[counts.argmax()], counts.max() / len(labels)
        if scores["ci_low"] <= guess:
            return (
                "**The small network has not learned, so its gains mean little**: its valid accuracy is "
                f"{describe(scores)}, always answering {name} reaches {100 * guess:.1f} %. Train it longer:"
            )
    return ""


def _longer(variants: Variants) -> dict[str, Any]:
    config = variants["base"][0].config
    return {"study_epochs": max(6, 2 * config.epochs), "study_width": config.width}


def _measurement(row: pd.Series, variants: Variants, again: dict[str, Any]) -> str:
    """The measurement that would decide on a change that is not significant: more seeds."""
    seeds, config = len(variants["base"]), variants["base"][0].config
    more, alone = max(4, 2 * seeds), ", since one seed may be chance" * (seeds == 1)
    seen = (row.high - row.low) / 2 * np.sqrt(seeds / more)
    seconds = sum(one.metrics["training"]["seconds"] for runs in variants.values() for one in runs)
    same = {"study_epochs": config.epochs, "study_width": config.width, "study_seeds": more}
    return (
        f"**Undecided{alone}: {row.change}**, {_points(row)}. {more} seeds of each training, not {seeds}, "
        f"would narrow the interval to about ±{seen:.1f} points, in about "
        f"{duration(seconds * (more / seeds - 1))}:\n\n{_block(_line('04_error_analysis', again | same))}"
    )


def _step(row: Any, run: Run, variants: Variants, data: str) -> str:
    """One thing to try, in Markdown."""
    out, seconds = f"{shown_path(run.out)}-{row.name}", run.metrics["training"]["seconds"]
    note, recipes, expected = "", [{"out": out}], f"{_points(row)}**"
    if row.name == "longer":
        epochs, tried = run.config.epochs, variants["base"][0].config.epochs
        recipes[0]["epochs"], seconds = 2 * epochs, 2 * seconds
        if tried < epochs:
            expected = f"the gain from {epochs} to {2 * epochs} epochs was not measured**; from {tried} to "
            expected += f"{2 * tried} epochs of the small network it was {_points(row)}, so expect less"
    elif row.name == "augmented":
        recipes[0] |= {name: max(value, getattr(run.config, name)) for name, value in STRENGTHS.items()}
    elif row.name == "fixed":
        recipes[0]["label_fixes"] = shown_path(run.out / "label_fixes.csv")
        note = " Review the file first; your own time is not counted."
    else:
        seeds = range(run.config.seed + 1, run.config.seed + len(variants["base"]))
        recipes = [{"seed": seed, "out": f"{out}-seed{seed}"} for seed in seeds]
        seconds *= len(seeds)
        note = " It may be nothing against the best of them; `05_ensemble` measures that."
    commands = [_training(run, data, recipe) for recipe in recipes]
    if row.name == "average":
        members = ", ".join([shown_path(run.out), *(recipe["out"] for recipe in recipes)])
        commands.append(_line("05_ensemble", {"runs": members, "out": out, "data": data}))
    return (
        f"Try {row.change}: {expected}. It takes about {duration(seconds)} on the machine of this run."
        f"{note}\n\n{_block(*commands)}"
    )


def _training(run: Run, data: str, changes: Mapping[str, Any]) -> str:
    """The command that trains the recipe of `run` with `changes`, from the preset nearest to it."""
    wanted = run.config.to_dict() | {"data": run.config.data if data == "run" else data} | changes
    commands = []
    for preset in PRESETS:
        base = Config.from_dict({"preset": preset}).to_dict() | {"preset": "quick"}
        given = ({"preset": preset} | wanted).items()
        commands.append({name: value for name, value in given if value != base[name] or name in changes})
    return _line("03_training", min(commands, key=len))


def _line(notebook: str, parameters: Mapping[str, Any]) -> str:
    """The command that runs a notebook with these parameters, broken into lines of less than 100 letters."""
    lines = [f".venv/bin/papermill notebooks/{notebook}.ipynb outputs/{notebook}.ipynb"]
    for name, value in parameters.items():
        if (name, value) == ("data", "run"):  # the default of both notebooks
            continue
        part = f"-p {name} {shlex.quote(str(value))}"
        if len(lines[-1]) + len(part) > 96:
            lines.append("   ")
        lines[-1] += f" {part}"
    return " \\\n".join(lines)


def _block(*lines: str) -> str:
    return "\n".join(["```", *lines, "```"])


def _points(row: Any) -> str:
    return f"{row.gain:+.1f} points (95 % interval {row.low:+.1f} to {row.high:+.1f})"


def duration(seconds: float) -> str:
    """Seconds in the unit that people would use: '40 s', '12 min', '3.3 h'."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"
