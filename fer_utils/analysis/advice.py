"""What to do next: the changes worth trying, each with its expected gain, its time and its command."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from fer_utils.analysis.next_steps import Variants
from fer_utils.analysis.small_trainings import STRENGTHS
from fer_utils.config import PRESETS, Config
from fer_utils.files import REPOSITORY
from fer_utils.run.finished_run import Run

MOST = 3  # things to try


def advice(run: Run, changes: pd.DataFrame, variants: Variants | None, data: str = "run") -> str:
    """What to do next, in Markdown: at most `MOST` of the `next_steps.changes_table` that help measurably,
    each with its expected gain, its time and its command for `data`, "run" where they lay in training; with
    too little evidence, the measurement that would decide."""
    again = {"out": shown_path(run.out), "data": data}
    if not variants:
        return (
            "**Nothing was measured, so nothing is advised.** The small trainings decide (minutes on the "
            f"demo, hours of one core on FER2013):\n\n{_block(_line('04_error_analysis', again))}"
        )
    possible = changes[(changes.name != "half") & changes.gain.notna()]  # nobody can order more pictures
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
    if len(parts) < MOST and len(undecided):
        parts.append(_measurement(undecided.iloc[-1], variants, again))
    return "\n\n".join(parts)


def _measurement(row: pd.Series, variants: Variants, again: dict[str, Any]) -> str:
    """The measurement that would decide on a change that is not significant: more seeds."""
    seeds, config = len(variants["base"]), variants["base"][0].config
    more = max(4, 2 * seeds)
    seen = (row.high - row.low) / 2 * np.sqrt(seeds / more)
    seconds = sum(one.metrics["training"]["seconds"] for runs in variants.values() for one in runs)
    same = {"study_epochs": config.epochs, "study_width": config.width, "study_seeds": more}
    return (
        f"**Undecided: {row.change}**, {_points(row)}. {more} seeds of each small training, not {seeds}, "
        f"would show a gain of about {seen:.1f} points or more, in about "
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
            expected = f"gain not measurable here**; from {tried} to {2 * tried} epochs it was "
            expected += f"{_points(row)}, expect less after {epochs}"
    elif row.name == "augmented":
        recipes[0] |= STRENGTHS
    elif row.name == "fixed":
        recipes[0]["label_fixes"] = shown_path(run.out / "label_fixes.csv")
        note = " Review the file first; your own time is not counted."
    else:
        seeds = range(run.config.seed + 1, run.config.seed + len(variants["base"]))
        recipes = [{"seed": seed, "out": f"{out}-seed{seed}"} for seed in seeds]
        seconds *= len(seeds)
    commands = [_training(run, data, recipe) for recipe in recipes]
    if row.name == "average":
        members = ", ".join([shown_path(run.out), *(recipe["out"] for recipe in recipes)])
        commands.append(_line("05_ensemble", {"runs": members, "out": out, "data": data}))
    return (
        f"Try {row.change}: {expected}, in about {duration(seconds)} on the machine of this run."
        f"{note}\n\n{_block(*commands)}"
    )


def _training(run: Run, data: str, changes: Mapping[str, Any]) -> str:
    """The command that trains the recipe of `run` with `changes`, from the preset nearest to it."""
    wanted = run.config.to_dict() | {"data": run.config.data if data == "run" else data} | changes
    commands = []
    for preset in PRESETS:
        base = Config.from_dict({"preset": preset}).to_dict() | {"preset": "none"}
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


def shown_path(path: Any) -> str:
    """A path as it is typed in the folder of the project."""
    return str(path.relative_to(REPOSITORY)) if path.is_relative_to(REPOSITORY) else str(path)


def _points(row: Any) -> str:
    return f"{row.gain:+.1f} points (95 % interval {row.low:+.1f} to {row.high:+.1f})"


def duration(seconds: float) -> str:
    """Seconds in the unit that people would use: '40 s', '12 min', '3.3 h'."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"
