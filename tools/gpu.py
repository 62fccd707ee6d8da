"""What to do with one GPU (or a few CPU cores) for n minutes: a smoke test, the speed, the plan that fits.

python -m tools.gpu --minutes 15 --data PATH [--dry-run] [--out FOLDER] [--at-once N]

It prints what the device is, trains every parameter once on drawn faces (the smoke test), measures a step of
each network, and trains as many members of an ensemble as the minutes allow. After each group of members it
writes their average, its validation scores and a validated submission, so a cut leaves the best so far. The
same command after a cut keeps what is finished. `--dry-run` prints the plan with estimated seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fer_utils.analysis.ensemble import save_ensemble, score_ensemble
from fer_utils.command_line import exit_status
from fer_utils.competition import Competition
from fer_utils.config import Config, ConfigError
from fer_utils.data.load import load_competition
from fer_utils.files import resolve_out, write_json
from fer_utils.learning.device import choose_device, environment
from fer_utils.learning.metrics import describe
from fer_utils.learning.training_loop import TrainingError
from fer_utils.run.finished_run import load_run
from fer_utils.run.folder import RunFolder
from fer_utils.run.launch import launch_members
from fer_utils.run.train import fit
from tools import gpu_plan
from tools.run_options import options_parser, parse_run_options

# Every parameter that may fail on a device it was never tried on, on a few images of the data.
SMOKE = {
    "model": "large", "width": 0.125, "epochs": 2, "batch_size": 128, "optimizer": "muon",
    "start_size": 28, "dropout": 0.2, "drop_path": 0.1, "sam": 0.05, "clip_norm": 1.0,
    "brightness": 0.15, "contrast": 0.2, "erase": 0.3, "mixup": 0.2, "cutmix": 1.0,
    "views": "shift", "checkpoint_seconds": 1.0, "max_hours": 1 / 60,
}  # fmt: skip
SMOKE_IMAGES = 600
RESERVE = 20.0  # seconds at the end, for the last average


def smoke_test(competition: Competition, out: Path, device: str) -> str:
    """Train with every parameter on a few images of the data; returns what happened, in words.

    A failure does not end the program: the plan may do without the parameter that failed.
    """
    some = np.random.default_rng(0).permutation(len(competition.train))[:SMOKE_IMAGES]
    few = replace(
        competition,
        train=competition.train.take(some),
        valid=competition.valid.take(np.arange(min(SMOKE_IMAGES // 2, len(competition.valid)))),
        test=None,
        submission=None,
    )
    start = time.monotonic()
    try:
        config = Config.from_dict({**SMOKE, "out": str(out), "device": device})
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:  # a failing device does not harm this one
            scores = pool.submit(fit, config, few).result().metrics["valid"]["views"]
    except Exception as error:  # whatever a device provokes
        return f"FAILED after {time.monotonic() - start:.0f} s: {type(error).__name__}: {error}"
    return f"passed in {time.monotonic() - start:.0f} s, valid accuracy {describe(scores)}"


def with_results(folder: Path) -> list[Path]:
    """The folders of the members that have results."""
    return [path for path in sorted(folder.glob("member*")) if RunFolder(path).has_results]


def write_average(folder: Path, competition: Competition) -> str:
    """Average the finished members into `folder`, with a validated submission; returns a line on it."""
    runs = [load_run(member) for member in with_results(folder)]
    members = np.stack([run.saved_probs("valid") for run in runs])
    scores = score_ensemble(members, competition.valid.labels, competition.class_names)
    save_ensemble([runs[k] for k in scores["chosen"]], competition, folder, scores)
    return f"{len(runs)} members, {len(scores['chosen'])} of them averaged: {describe(scores['ensemble'])}"


def print_and_keep(path: Path, line: str) -> None:
    """Print a line and append it to a file."""
    print(line, flush=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(f"{line}\n")


def read_plan(path: Path, made_for: dict[str, Any]) -> list[gpu_plan.Planned] | None:
    """The members of an earlier start; None if there was none.

    Raises:
        ConfigError: it was made for other data or another device.
    """
    if not path.is_file():
        return None
    content = json.loads(path.read_text(encoding="utf-8"))
    if content["made_for"] != made_for:
        raise ConfigError(f"{path} is a plan for other data or another device: choose another --out")
    return [
        gpu_plan.Planned(Config.from_dict(part["config"]), part["seconds"]) for part in content["members"]
    ]


def train_members(
    members: list[gpu_plan.Planned], end: float, at_once: int, say: gpu_plan.Say, keep: Callable[[], None]
) -> Iterator[None]:
    """Train group by group while there is time until `end` (monotonic); yields after each group.

    Finished members are left alone and begun ones resume. What the groups before really took corrects the
    estimates; the last group is shortened to the time that is left (`keep` stores that).
    """
    pace = 1.0
    for start in range(0, len(members), at_once):
        group = range(len(members))[start : start + at_once]
        places = [k for k in group if not members[k].folder.is_finished]
        if not places:
            continue
        begun = any(members[k].folder.record() is not None for k in places)  # then its config is fixed
        left = end - time.monotonic()
        share = left / (pace * max(members[k].seconds for k in places))
        if not begun and share < 1:
            shorter = [members[k].shortened(share) for k in places]
            if min(member.config.epochs for member in shorter) < gpu_plan.ENOUGH_EPOCHS and start:
                say(f"{left:.0f} s are left: too few for another member")
                return
            for k, member in zip(places, shorter, strict=True):
                members[k] = member
            keep()
        if left <= 0:
            return
        clock, estimate = time.monotonic(), max(members[k].seconds for k in places)
        hours = max(1.0, left - gpu_plan.START_UP) / 3600
        try:
            launch_members([replace(members[k].config, max_hours=hours) for k in places], per_device=at_once)
            pace = pace if begun else (time.monotonic() - clock) / estimate
        except TrainingError as error:
            say(f"a member failed: {error}")
        yield


def use_minutes(options: argparse.Namespace) -> int:
    """The whole of it; returns the exit status."""
    end = time.monotonic() + 60 * options.minutes - RESERVE
    device, folder = choose_device(options.device), resolve_out(options.out)
    competition = load_competition(options.data, **Config.from_dict(gpu_plan.RECIPE).data_options)
    at_once = options.at_once or (min(2, os.cpu_count() or 1) if device.type == "cpu" else 1)
    made_for = {"data": competition.fingerprint, "device": device.type, "at_once": at_once}
    members = read_plan(folder / "plan.json", made_for)
    say = print if options.dry_run else partial(print_and_keep, folder / "report.txt")
    made_with = environment(device, torch.float32)
    say(f"device: {made_with['hardware']}; torch {made_with['torch']}, Python {made_with['python']}")
    if members is None:
        if not options.dry_run:
            say(f"smoke test {smoke_test(competition, folder / 'smoke', device.type)}")
        shared = {"out": options.out, "data": options.data, "device": device.type}
        members = gpu_plan.make_plan(competition, device, end - time.monotonic(), at_once, shared, say)
    else:
        say("the plan of an earlier start:")
    for member in members:
        say(f"  {member}")
    if options.dry_run:
        return 0

    def keep() -> None:
        content = {"made_for": made_for, "members": [asdict(member) for member in members]}
        write_json(folder / "plan.json", content)

    keep()
    for _ in train_members(members, end, at_once, say, keep):
        if with_results(folder):
            say(write_average(folder, competition))
    if with_results(folder) and not RunFolder(folder).has_results:  # a cut while the average was written
        say(write_average(folder, competition))
    if not RunFolder(folder).has_results:
        say("no member has a result yet; the same command resumes")
        return 1
    say(f"written to {folder}")
    return 0


def main(arguments: list[str]) -> int:
    """Use the minutes from the command line; returns the exit status."""
    parser = options_parser(__doc__)
    parser.add_argument("--dry-run", action="store_true", help="measure and print the plan, train nothing")
    defaults = {"data": "auto", "device": "auto", "out": "outputs/gpu", "at_once": 0, "minutes": 15.0}
    options = parse_run_options(parser, arguments, **defaults)
    return exit_status(lambda: use_minutes(options))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
