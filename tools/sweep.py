"""Find a recipe by measurement: many short trainings, each with one thing changed, judged over several seeds.

python -m tools.sweep FILE [--data PATH] [--out FOLDER] [--at-once N] [--minutes M]

FILE is YAML: `base`, the knobs of all runs (and a `preset`); `seeds`; `arms`, each a name and the knobs it
changes. Every arm is held against the base on the same validation pictures and seeds. The seeds take turns,
so a sweep that runs out of `--minutes` has whole comparisons to show; the same command resumes there,
and finished runs are only read again. On a GPU `--at-once` runs share each card (a small network leaves most
of it idle), on a CPU they share the cores. The rows are kept in results.json. In `teacher`, {out} is the
sweep's folder and {seed} the run's seed, so that an arm can learn from another's runs; such arms begin last.
"""

from __future__ import annotations

import argparse
import dataclasses
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from fer_utils.analysis.comparison import compare
from fer_utils.command_line import exit_status
from fer_utils.config import DATA_PARAMETERS, Config, ConfigError, check_names
from fer_utils.files import find_path, resolve_out, write_json
from fer_utils.learning.device import choose_device, environment
from fer_utils.learning.training_loop import TrainingError
from fer_utils.run.finished_run import Run, load_run
from fer_utils.run.folder import RunFolder
from fer_utils.run.launch import launch_members
from fer_utils.run.limits import OutOfTime

BASE = "base"
# Each run has its own, or the arms would be judged on other pictures than the base.
NOT_IN_BASE = ("out", "seed")
IN_ARMS = ("image_size", "clean", "label_fixes")  # of the parameters of the data: the split stays the same
NOT_IN_ARMS = (*NOT_IN_BASE, "preset", "data", "split_seed", *(set(DATA_PARAMETERS) - set(IN_ARMS)))
# With fewer, what another seed would give is not in the interval, or hardly.
SEEDS_TO_TELL = 3
NOTE = """

Bold: the interval leaves out zero, with {seeds} seeds or more. Intervals: bootstrap over pictures and, where
there are several, over seeds; with one seed they say nothing of another, with few they are too narrow. Each
of the {arms} arms is judged for itself: of twenty that change nothing, one is bold by luck."""


@dataclass(frozen=True)
class Sweep:
    """What to try.

    Attributes:
        base: the knobs of all runs, as `Config.from_dict` takes them.
        seeds: each arm is trained with each.
        arms: name -> the knobs that differ from the base; "base" itself is among them, with none.
    """

    base: Mapping[str, Any]
    seeds: tuple[int, ...]
    arms: Mapping[str, Mapping[str, Any]]

    def config(self, arm: str, seed: int, out: str | Path) -> Config:
        """The config of one run, in a folder of its own within `out`."""
        own = {"seed": seed, "out": f"{out}/{arm}-seed{seed}"}
        config = Config.from_dict({**self.base, **self.arms[arm], **own})
        teacher = config.teacher.replace("{out}", str(out)).replace("{seed}", str(seed))
        return dataclasses.replace(config, teacher=teacher)


def read_sweep(path: str | Path, **shared: Any) -> Sweep:
    """The sweep in a YAML file; `shared` are further knobs of all runs.

    Raises:
        ConfigError: the file cannot be read, or names an unknown knob or a bad value; it says for which arm.
    """
    path = find_path(path)
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: cannot be read as YAML ({error})") from error
    if not isinstance(content, dict) or not {"base", "seeds", "arms"} <= set(content):
        raise ConfigError(f"{path}: must hold base (knobs), seeds (a list) and arms (names with knobs)")
    try:
        check_names(map(str, content), ["base", "seeds", "arms"])
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    base, seeds, arms = content["base"], content["seeds"], content["arms"]
    if not isinstance(seeds, list) or not seeds or len(set(map(str, seeds))) < len(seeds):
        raise ConfigError(f"{path}: seeds must be a list of different whole numbers, got {seeds!r}")
    groups = {"base": base, "arms": arms, **(arms if isinstance(arms, dict) else {})}
    for name, knobs in groups.items():
        if not isinstance(knobs, dict) or not all(isinstance(knob, str) for knob in knobs):
            raise ConfigError(f"{path}: {name} must hold names and values, got {knobs!r}")
    if BASE in arms:
        raise ConfigError(f"{path}: an arm may not be called {BASE!r}, which is what all arms start from")
    for name, knobs in {"base": base, **arms}.items():
        refused = [knob for knob in knobs if knob in (NOT_IN_BASE if name == "base" else NOT_IN_ARMS)]
        if refused:
            raise ConfigError(
                f"{path}: {name} may not set {', '.join(refused)}: that is the same for all arms"
            )
    sweep = Sweep({**base, **shared}, tuple(seeds), {BASE: {}, **arms})
    for arm in sweep.arms:
        if not re.fullmatch(r"[\w.-]+", str(arm)):  # it names a folder
            raise ConfigError(f"{path}: arm {arm!r} may hold letters, digits, dots, dashes alone")
        try:
            for seed in seeds:
                config = sweep.config(arm, seed, "sweep")
        except ConfigError as error:
            raise ConfigError(f"{path}: arm {arm!r}: {error}") from error
        if arm != BASE and not config.differing(sweep.config(BASE, seed, "sweep")):
            raise ConfigError(f"{path}: arm {arm!r} changes nothing")
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
    done = {run.out.name for runs in finished_runs(sweep, out).values() for run in runs}
    configs = [sweep.config(arm, seed, out) for seed in sweep.seeds for arm in sweep.arms]
    left = [config for config in configs if Path(config.out).name not in done]
    launch_members(sorted(left, key=lambda config: config.teacher != "none"), per_device=at_once)


def finished_runs(sweep: Sweep, out: str | Path) -> dict[str, list[Run]]:
    """The runs of every arm that reached their end, in the order of the seeds.

    Raises:
        ConfigError: a folder holds a run with other knobs than its arm has now.
        DataError: the base was trained on other data than its config names now.
    """
    runs = {
        arm: [run for seed in sweep.seeds if (run := _finished(sweep.config(arm, seed, out)))]
        for arm in sweep.arms
    }
    if runs[BASE]:
        runs[BASE][0].load_data(sweep.config(BASE, sweep.seeds[0], out).data)
    return runs


def _finished(config: Config) -> Run | None:
    folder = RunFolder(config.out)
    if not folder.is_finished:
        return None
    run = load_run(folder.path)
    if differing := config.differing(run.config):
        raise ConfigError(
            f"{folder} holds a run of another recipe ({differing}): remove it or choose another --out"
        )
    return run


def sweep_rows(sweep: Sweep, runs: Mapping[str, list[Run]]) -> list[dict[str, Any]]:
    """A row per arm, the base first, then from the greatest gain to the greatest loss.

    Returns:
        `arm`, its `knobs`, `seeds` (how many are finished), `mean` and `sd` of the validation accuracy with
        views, `seconds` of a run, `parameters`; of the arms but the base, over the seeds that both have,
        `base_mean`, `base_seeds` (how many those are), and `difference`, `ci_low`, `ci_high` and `verdict`
        from `comparison.compare`.
    """
    base = {run.config.seed: run for run in runs[BASE]}
    rows = []
    for arm, some in runs.items():
        accuracies = [run.metrics["valid"]["views"]["accuracy"] for run in some]
        training = [run.metrics["training"] for run in some]
        row = {"arm": arm, "knobs": dict(sweep.arms[arm]), "seeds": len(some)}
        if some:
            row["mean"] = float(np.mean(accuracies))
            row["sd"] = float(np.std(accuracies, ddof=1)) if len(some) > 1 else None
            row["seconds"] = float(np.mean([part["seconds"] for part in training]))
            row["parameters"] = training[0]["parameters"]
        pairs = [(run, base[run.config.seed]) for run in some if run.config.seed in base]
        if arm != BASE and pairs:
            result = compare(*map(list, zip(*pairs, strict=True)))
            others = [other.metrics["valid"]["views"]["accuracy"] for _, other in pairs]
            row |= {"base_mean": float(np.mean(others)), "base_seeds": len(pairs)}
            row |= {key: result[key] for key in ("difference", "ci_low", "ci_high", "verdict")}
        rows.append(row)
    return sorted(rows, key=lambda row: (row["arm"] != BASE, -row.get("difference", -1)))


def sweep_table(rows: list[dict[str, Any]]) -> str:
    """The rows of `sweep_rows` as a Markdown table, and below it what its intervals cover."""
    lines = [
        "| arm | changed | seeds | valid, % | sd | base, same seeds | difference | 95 % interval | seconds |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        cells = [
            row["arm"],
            ", ".join(f"{name} {value}" for name, value in row["knobs"].items()),
            row["seeds"],
        ]
        if not row["seeds"]:
            cells += ["not finished", *[""] * 5]
        else:
            cells += [f"{100 * row['mean']:.2f}", "" if row["sd"] is None else f"{100 * row['sd']:.2f}"]
            cells += _difference_cells(row) if "difference" in row else [""] * 3
            cells += [f"{row['seconds']:.0f}"]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    arms = sum("difference" in row for row in rows)
    return "\n".join(lines) + NOTE.format(arms=arms, seeds=SEEDS_TO_TELL)


def _difference_cells(row: dict[str, Any]) -> list[str]:
    """The base on the same seeds, the difference and its interval, in points."""
    gain = f"{100 * row['difference']:+.2f}"
    sure = row["base_seeds"] >= SEEDS_TO_TELL and row["verdict"].startswith("evidence")
    interval = f"{100 * row['ci_low']:+.2f} to {100 * row['ci_high']:+.2f}"
    return [f"{100 * row['base_mean']:.2f}", f"**{gain}**" if sure else gain, interval]


def main(arguments: list[str]) -> int:
    """Run a sweep from the command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", help="what to try, as YAML")
    parser.add_argument("--data", help="as in the notebooks, instead of the file's")
    parser.add_argument("--device", help="auto, cuda or cpu, instead of the file's")
    parser.add_argument("--out", help="folder of the runs; default: outputs/sweeps/ and the file's name")
    parser.add_argument("--at-once", type=int, default=1, help="runs that share a GPU, or a CPU's cores")
    parser.add_argument("--minutes", type=float, default=0.0, help="stop in time; 0: no limit")
    options = parser.parse_args(arguments)
    if options.at_once < 1 or options.minutes < 0:
        parser.error("--at-once must be at least 1, and --minutes not negative")
    return exit_status(lambda: run_sweep(options))


def run_sweep(options: argparse.Namespace) -> int:
    """Train, compare and print; returns the exit status."""
    shared = {"data": options.data, "device": options.device, "max_hours": options.minutes / 60 or None}
    given = {name: value for name, value in shared.items() if value is not None}
    sweep = read_sweep(options.file, **given)
    out = options.out or f"outputs/sweeps/{Path(options.file).stem}"
    failure = _train(sweep, out, options.at_once)
    rows = sweep_rows(sweep, finished_runs(sweep, out))
    device = choose_device(sweep.config(BASE, sweep.seeds[0], out).device)
    made_with = environment(device, torch.float32) | {"at_once": options.at_once}
    made_with.pop("precision")  # each run decides it, or its config names it
    path = write_json(resolve_out(out) / "results.json", {"rows": rows, "environment": made_with})
    print(sweep_table(rows))
    print(f"written to {path}")
    if failure:
        print(failure, file=sys.stderr)
    return int(bool(failure))


def _train(sweep: Sweep, out: str, at_once: int) -> str:
    """What went wrong, in words; what is finished is worth a table all the same."""
    try:
        train_sweep(sweep, out, at_once)
    except OutOfTime:
        return ""
    except TrainingError as error:
        return str(error)
    return ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
