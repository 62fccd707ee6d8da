"""Find a recipe by measurement: many short trainings, each with one thing changed, judged over several seeds.

python -m tools.sweep FILE [--data PATH] [--out FOLDER] [--at-once N] [--minutes M]

FILE is YAML: `base`, the parameters of all runs (and a `preset`); `seeds`; `arms`, each a name and the
parameters it changes. Every arm is compared with the base on the same validation images and seeds. All
arms are trained with one seed before the next seed begins, so a sweep that runs out of `--minutes` has
complete comparisons. The same command resumes there; finished runs are only read again. On a GPU `--at-once`
runs share each card (a small network leaves most of it idle), on a CPU they share the cores. The rows are
kept in results.json. In `teacher`, `weights` and `pseudo`, {out} is the sweep's folder and {seed} the run's
seed, so that an arm can go on from another's runs; such arms begin when all others have ended. --data and
--device override the file.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from fer_utils.analysis.ensemble import with_earlier_runs
from fer_utils.analysis.paired_comparison import compare
from fer_utils.command_line import exit_status
from fer_utils.competition import DataError
from fer_utils.config import DATA_PARAMETERS, EARLIER_RUNS, Config, ConfigError, check_names
from fer_utils.files import find_path, resolve_out, write_json
from fer_utils.learning.device import choose_device, environment
from fer_utils.learning.training_loop import TrainingError
from fer_utils.run.finished_run import Run, load_run
from fer_utils.run.folder import RunFolder
from fer_utils.run.launch import launch_members
from fer_utils.run.repeat_or_resume import check_earlier_runs
from fer_utils.run.time_and_memory import OutOfTime, hours_left
from tools.run_options import options_parser, parse_run_options

BASE = "base"
# Each run has its own, or the arms would be judged on other images than the base.
NOT_IN_BASE = ("out", "seed")
IN_ARMS = ("image_size", "clean", "label_fixes")  # of the parameters of the data: the split stays the same
NOT_IN_ARMS = (*NOT_IN_BASE, "preset", "data", "split_seed", *(set(DATA_PARAMETERS) - set(IN_ARMS)))
# With fewer, what another seed would give is not in the interval, or hardly.
SEEDS_TO_TELL = 3
NOTE = """

Bold: the interval excludes zero, with {seeds} seeds or more. Intervals: bootstrap over images and, where
there are several, over seeds; with one seed they say nothing of another, with few they are too narrow."""
LOSS = """ Log
loss: calibrated, the lower the better; it tells smaller changes from chance than accuracy does."""
SEVERAL = """ Each
of the {arms} arms is judged for itself: of twenty that change nothing, one is bold by luck."""


@dataclass(frozen=True)
class Sweep:
    """What to try.

    Attributes:
        base: the parameters of all runs, as `Config.from_dict` takes them.
        seeds: each arm is trained with each.
        arms: name -> the parameters that differ from the base; "base" itself is among them, with none.
    """

    base: Mapping[str, Any]
    seeds: tuple[int, ...]
    arms: Mapping[str, Mapping[str, Any]]

    def config(self, arm: str, seed: int, out: str | Path) -> Config:
        """The config of one run, in a folder of its own within `out`."""
        own = {"seed": seed, "out": f"{out}/{arm}-seed{seed}"}
        return with_earlier_runs(Config.from_dict({**self.base, **self.arms[arm], **own}), out=str(out))


def read_sweep(path: str | Path, **shared: Any) -> Sweep:
    """The sweep in a YAML file; `shared` are further parameters of all runs.

    Raises:
        ConfigError: the file cannot be read, or an arm (named in the message) has an unknown parameter or a
            bad value.
    """
    path = find_path(path)
    try:
        return _checked_sweep(yaml.safe_load(path.read_text(encoding="utf-8")), shared)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: cannot be read as YAML ({error})") from error
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def _checked_sweep(content: Any, shared: Mapping[str, Any]) -> Sweep:
    if not isinstance(content, dict) or not {"base", "seeds", "arms"} <= set(content):
        raise ConfigError("must hold base (parameters), seeds (a list) and arms (names with parameters)")
    check_names(map(str, content), ["base", "seeds", "arms"])
    base, seeds, arms = content["base"], content["seeds"], content["arms"]
    if not isinstance(seeds, list) or not seeds or len(set(map(str, seeds))) < len(seeds):
        raise ConfigError(f"seeds must be a list of different whole numbers, got {seeds!r}")
    groups = {"base": base, "arms": arms, **(arms if isinstance(arms, dict) else {})}
    for name, parameters in groups.items():
        if not isinstance(parameters, dict) or not all(isinstance(key, str) for key in parameters):
            raise ConfigError(f"{name} must hold names and values, got {parameters!r}")
    if BASE in arms:
        raise ConfigError(f"an arm may not be called {BASE!r}, which is what all arms start from")
    for name, parameters in {"base": base, **arms}.items():
        if refused := [key for key in parameters if key in (NOT_IN_BASE if name == BASE else NOT_IN_ARMS)]:
            raise ConfigError(f"{name} may not set {', '.join(refused)}: that is the same for all arms")
    sweep = Sweep({**base, **shared}, tuple(seeds), {BASE: {}, **arms})
    for arm in sweep.arms:
        if not re.fullmatch(r"[\w.-]+", arm):  # it names a folder
            raise ConfigError(f"arm {arm!r} may only hold letters, digits, underscores, dots and dashes")
        try:
            configs = [sweep.config(arm, seed, "sweep") for seed in seeds]
        except ConfigError as error:
            raise ConfigError(f"arm {arm!r}: {error}") from error
        if arm != BASE and not configs[0].differing(sweep.config(BASE, seeds[0], "sweep")):
            raise ConfigError(f"arm {arm!r} changes nothing")
    return sweep


def train_sweep(sweep: Sweep, out: str | Path, at_once: int = 1) -> None:
    """Train what is not trained yet, seed by seed; arms that learn from others last.

    Args:
        at_once: how many runs share a GPU, or the cores of a CPU.

    Raises:
        ConfigError, DataError: as `finished_runs` does.
        TrainingError: a run failed, as one that diverges does; raised when all others have been tried.
        OutOfTime: there was no time for any.
    """
    finished_runs(sweep, out)
    configs = [sweep.config(arm, seed, out) for seed in sweep.seeds for arm in sweep.arms]
    left = [config for config in configs if not RunFolder(config.out).is_finished]
    later = [config for config in left if any(str(out) in getattr(config, name) for name in EARLIER_RUNS)]
    start, failure = time.monotonic(), None
    for part in filter(None, ([config for config in left if config not in later], later)):
        try:
            hours = [hours_left(config.max_hours, start) for config in part]
            configs = [replace(config, max_hours=h) for config, h in zip(part, hours, strict=True)]
            launch_members(configs, per_device=at_once)
        except TrainingError as error:  # of one run: the others are tried
            failure = failure or error
    if failure:
        raise failure


def finished_runs(sweep: Sweep, out: str | Path) -> dict[str, list[Run]]:
    """The runs of every arm that reached their end, in the order of the seeds.

    Raises:
        ConfigError: a folder holds a run with other parameters than its arm has now.
        DataError: the base was trained on other data than its config names now, or what an arm learns from
            (earlier runs, `auxiliary`) has changed since.
    """
    runs: dict[str, list[Run]] = {arm: [] for arm in sweep.arms}
    for arm, seed in product(sweep.arms, sweep.seeds):
        config = sweep.config(arm, seed, out)
        if RunFolder(config.out).is_finished:
            run = load_run(config.out)
            if differing := config.differing(run.config):
                advice = "remove it or choose another --out"
                raise ConfigError(f"{run.out} holds a run of another recipe ({differing}): {advice}")
            check_earlier_runs(run.folder.record(), config, run.folder)
            runs[arm].append(run)
            told = {run.folder.record().get("auxiliary", {}).get("sha256") for run in runs[arm]}
            if len(told) > 1:
                raise DataError(f"auxiliary: the seeds of {arm} learned different answers: remove the older")
    if runs[BASE]:
        runs[BASE][0].load_data(sweep.config(BASE, sweep.seeds[0], out).data)
    return runs


def sweep_rows(sweep: Sweep, runs: Mapping[str, list[Run]]) -> list[dict[str, Any]]:
    """A row per arm, the base first, then from the greatest gain to the greatest loss.

    Returns:
        `arm`, its `knobs`, `seeds` (how many are finished), `mean` and `sd` of the validation accuracy with
        views, `seconds` of a run; of the arms but the base, over the seeds that both have, `base_mean`,
        `base_seeds` (how many), and `difference`, `ci_low`, `ci_high`, `verdict`, `loss_difference`,
        `loss_low`, `loss_high` of `paired_comparison.compare`.
    """
    base = {run.config.seed: run for run in runs[BASE]}
    rows = []
    for arm, some in runs.items():
        row = {"arm": arm, "knobs": dict(sweep.arms[arm]), "seeds": len(some)}
        if some:
            seconds = [run.metrics["training"]["seconds"] for run in some]
            row |= {"mean": np.mean(_accuracies(some)), "sd": None, "seconds": np.mean(seconds)}
        if len(some) > 1:
            row["sd"] = np.std(_accuracies(some), ddof=1)
        paired = [run for run in some if run.config.seed in base]
        if arm != BASE and paired:
            others = [base[run.config.seed] for run in paired]
            result = compare(paired, others)
            row |= {"base_mean": np.mean(_accuracies(others)), "base_seeds": len(others)}
            names = ("difference", "ci_low", "ci_high", "verdict", "loss_difference", "loss_low", "loss_high")
            row |= {name: result[name] for name in names}
        rows.append(row)
    return sorted(rows, key=lambda row: (row["arm"] != BASE, -row.get("difference", -1)))


def _accuracies(runs: Sequence[Run]) -> list[float]:
    return [run.metrics["valid"]["views"]["accuracy"] for run in runs]


def sweep_table(rows: list[dict[str, Any]]) -> str:
    """The rows of `sweep_rows` as a Markdown table, and below it what its intervals cover. Rows of sweeps
    from before the log loss was compared do not have it."""
    has_loss = any("loss_difference" in row for row in rows)
    names = ["arm", "changed", "seeds", "valid, %", "sd", "base, same seeds", "difference", "95 % interval"]
    names += ["log loss (95 % interval)"] * has_loss + ["seconds"]
    lines = ["| " + " | ".join(names) + " |", "|---" * len(names) + "|"]
    for row in rows:
        changed = ", ".join(f"{name} {value}" for name, value in row["knobs"].items())
        cells = dict.fromkeys(names, "") | {"arm": row["arm"], "changed": changed, "seeds": row["seeds"]}
        if not row["seeds"]:
            cells["valid, %"] = "not finished"
        else:
            cells |= {"valid, %": f"{100 * row['mean']:.2f}", "seconds": f"{row['seconds']:.0f}"}
            cells["sd"] = "" if row["sd"] is None else f"{100 * row['sd']:.2f}"
        if "difference" in row:
            gain = _bold(f"{100 * row['difference']:+.2f}", _is_sure(row))
            cells |= {"base, same seeds": f"{100 * row['base_mean']:.2f}", "difference": gain}
            cells["95 % interval"] = f"{100 * row['ci_low']:+.2f} to {100 * row['ci_high']:+.2f}"
        if "loss_difference" in row:
            change = _bold(f"{row['loss_difference']:+.4f}", _is_sure_of_loss(row))
            cells[names[-2]] = f"{change} ({row['loss_low']:+.4f} to {row['loss_high']:+.4f})"
        lines.append("| " + " | ".join(map(str, cells.values())) + " |")
    arms = sum("difference" in row for row in rows)
    note = NOTE + LOSS * has_loss + SEVERAL * (arms > 1)
    return "\n".join(lines) + note.format(arms=arms, seeds=SEEDS_TO_TELL)


def _bold(text: str, is_sure: bool) -> str:
    return f"**{text}**" if is_sure else text


def _is_sure(row: dict[str, Any]) -> bool:
    return row.get("base_seeds", 0) >= SEEDS_TO_TELL and row["verdict"].startswith("evidence")


def _is_sure_of_loss(row: dict[str, Any]) -> bool:
    is_one_sided = row.get("loss_low", 0) * row.get("loss_high", 0) > 0
    return is_one_sided and row.get("base_seeds", 0) >= SEEDS_TO_TELL


def conclusion(rows: list[dict[str, Any]]) -> str:
    """What the rows of `sweep_rows` tell, in sentences."""
    gains = {row["arm"]: row["difference"] for row in rows if _is_sure(row)}
    text = f"Helps: {_names(gains, 1)}. Harms: {_names(gains, -1)}."
    if losses := {row["arm"]: -row["loss_difference"] for row in rows if _is_sure_of_loss(row)}:
        text += f" By log loss: helps: {_names(losses, 1)}; harms: {_names(losses, -1)}."
    if any("base_seeds" in row and row["base_seeds"] < SEEDS_TO_TELL for row in rows):
        text += f" Fewer than {SEEDS_TO_TELL} seeds tell nothing: add some to `seeds`."
    return text


def _names(gains: Mapping[str, float], sign: int) -> str:
    return ", ".join(arm for arm, gain in gains.items() if sign * gain > 0) or "nothing, measurably"


def precision_warning(runs: Mapping[str, list[Run]]) -> list[str]:
    """A line if not all runs were trained in one precision, since then the arms differ in that too."""
    used: dict[str, list[str]] = {}
    for run in (run for some in runs.values() for run in some):
        used.setdefault(run.folder.record()["environment"]["precision"], []).append(run.out.name)
    if len(used) < 2:
        return []
    few = min(used, key=lambda name: len(used[name]))
    others = " and ".join(sorted(set(used) - {few}))
    return [
        f"WARNING: {', '.join(used[few])} used {few}, the others {others}: set `precision` in base, "
        "remove these runs and type the command again"
    ]


def main(arguments: list[str]) -> int:
    """Run a sweep from the command line; returns the exit status."""
    parser = options_parser(__doc__)
    parser.add_argument("file", help="what to try, as YAML")
    options = parse_run_options(parser, arguments, at_once=1)
    return exit_status(lambda: run_sweep(options))


def run_sweep(options: argparse.Namespace) -> None:
    """Train, compare and print; the error of a run that failed is raised at the end."""
    shared = {"data": options.data, "device": options.device, "max_hours": options.minutes / 60}
    sweep = read_sweep(options.file, **{name: value for name, value in shared.items() if value})
    out = options.out or f"outputs/sweeps/{Path(options.file).stem}"
    failure = None
    try:
        train_sweep(sweep, out, options.at_once)
    except OutOfTime:  # what is finished is worth a table all the same
        pass
    except TrainingError as error:
        failure = error
    runs = finished_runs(sweep, out)
    rows = sweep_rows(sweep, runs)
    device = choose_device(sweep.config(BASE, sweep.seeds[0], out).device)
    made_with = environment(device, torch.float32) | {"at_once": options.at_once}
    made_with.pop("precision")  # each run decides it, or its config names it
    path = write_json(resolve_out(out) / "results.json", {"rows": rows, "environment": made_with})
    print(sweep_table(rows))
    print(conclusion(rows), *precision_warning(runs), f"written to {path}", sep="\n")
    if failure:
        raise failure


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
