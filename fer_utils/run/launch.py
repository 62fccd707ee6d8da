"""Start trainings on the devices of a machine: one run over several of them, or several runs side by side.

They are subprocesses (torchrun's, for one run), because processes forked from a notebook break as soon as a
cell has touched a GPU. Results come back as files, errors with the traceback of the process that failed.

python -m fer_utils config.json       trains one run on as many devices as its n_devices says
"""

from __future__ import annotations

import functools
import itertools
import queue
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import redirect_stdout
from dataclasses import replace
from io import StringIO
from pathlib import Path

import torch

from fer_utils.command_line import run_command
from fer_utils.competition import Competition, DataError
from fer_utils.config import Config, ConfigError
from fer_utils.data.load import load_competition
from fer_utils.files import locked, resolve_out
from fer_utils.learning.device import choose_device, visible_gpu
from fer_utils.learning.distributed import in_team
from fer_utils.learning.second_task import auxiliary_task, check_auxiliary
from fer_utils.run.finished_run import Run, load_run
from fer_utils.run.folder import RunFolder
from fer_utils.run.interruption import Interruption
from fer_utils.run.processes import Processes
from fer_utils.run.results import write_fold_results
from fer_utils.run.soft_and_pseudo_labels import check_targets
from fer_utils.run.time_and_memory import OutOfTime, hours_left
from fer_utils.run.train import fit, train_from_file

# Of max_hours: a process that has less left would end before it has learned anything.
LEAST_HOURS = 5 / 3600


def launch(config: Config, competition: Competition) -> Run:
    """Train one network on `config.n_devices` devices ("auto": one); the result is that of one device up to
    rounding. On a CPU a "device" is a process with its share of the cores. With `cv`: see `launch_folds`.

    Raises:
        ConfigError: more GPUs than there are, or a batch too small to share.
        TrainingError: a process failed; the message holds its traceback.
    """
    if config.cv:
        return launch_folds(config, competition)
    folder, start = RunFolder(config.out), time.monotonic()
    n_devices = 1 if config.n_devices == "auto" else int(config.n_devices)
    if folder.has_results and not folder.checkpoint.exists:  # finished, or another run's: `fit` knows
        n_devices, config = 1, replace(config, n_devices="1")
    if n_devices == 1:
        return fit(config, competition)
    kind = choose_device(config.device).type
    _check_available(n_devices, kind)
    if 2 * n_devices > min(config.batch_size, len(competition.train)):
        raise ConfigError(f"n_devices: {n_devices} devices need batches of {2 * n_devices} images or more")
    print(f"training on {n_devices} devices", flush=True)
    config = replace(config, max_hours=hours_left(config.max_hours, start))
    variables = {"FER_FINGERPRINT": competition.fingerprint}
    variables |= _threads(n_devices) if kind == "cpu" else {}
    with Interruption(defer=False):
        Processes().run(config, variables, n_devices)
    return load_run(folder.path)


def launch_folds(config: Config, competition: Competition) -> Run:
    """Train `config.cv` networks, each validated on another part of all labelled images, and combine them:
    predictions out of fold for these, their average for the test split. They are trained one after the other,
    or side by side on several GPUs, or as `n_devices` says; the same call resumes where it stopped.

    Raises:
        ConfigError, DataError, TrainingError: as `fit` does.
        ConfigError: there are fewer persons than folds.
        DataError: `config.data` holds another competition: the folds' processes read it from there.
        OutOfTime: `max_hours` ended before every fold had a result.
    """
    folder, config = RunFolder(config.out), config.at_size(competition.image_size)
    check_targets(config, competition)
    finished = folder.holds(config, competition) and not folder.metrics()["training"]["out_of_time"]
    if finished:
        check_auxiliary(
            folder.record(), auxiliary_task(config, competition), folder, ", or choose another out"
        )
        print(f"{folder} holds this run already, finished: nothing to do")
        return load_run(folder.path)
    _check_persons(config, competition)
    _check_given(config, competition)
    at_once = _side_by_side_devices(config.n_devices, choose_device(config.device).type)
    turns = -(-config.cv // at_once)  # each gets an equal share of the hours
    parts = [
        replace(config.of_fold(k), n_devices="1", max_hours=(k // at_once + 1) * config.max_hours / turns)
        for k in range(config.cv)
    ]
    runs = launch_members(parts, at_once)
    if len(runs) < len(parts):
        raise OutOfTime(
            f"max_hours ended after {len(runs)} of {len(parts)} folds; the same call resumes there"
        )
    with locked(folder.path):
        write_fold_results(config, runs, folder)
    return load_run(folder.path)


def _check_persons(config: Config, competition: Competition) -> None:
    """Raise a ConfigError if there are fewer persons than folds: some would have no image."""
    if competition.train.groups is not None:
        n = len({*competition.train.groups, *competition.valid.groups})
        if n < config.cv:
            raise ConfigError(f"cv {config.cv} needs as many persons, and the data has {n}: choose cv {n}")


def _check_given(config: Config, competition: Competition) -> None:
    """Raise a DataError unless `competition` is what the processes of the folds will read, of which the first
    stands for all."""
    if load_competition(config.data, **config.data_options).fingerprint != competition.fingerprint:
        raise DataError(
            f"data: {config.data!r} holds other images or labels than those given to launch(). With cv each "
            "fold reads data again: give launch() what load_competition(config.data, **config.data_options) "
            "returns, and make changes in the files (of labels: label_fixes)"
        )


def launch_members(
    configs: Sequence[Config], n_devices: int | str = "auto", per_device: int = 1
) -> list[Run]:
    """Train several runs side by side, each on a device of its own, the next when one is free.

    All are tried; the first failure is raised when the others have ended. "auto" takes every GPU, or without
    one trains run by run; on a CPU `n_devices` processes get an equal share of the cores each. `per_device`
    runs share a device, on a CPU its cores. The hours begin with the call: those that had no time for an
    epoch are left out of what is returned.

    Raises:
        ConfigError: two runs with the same out, or more GPUs than there are.
        TrainingError: a run failed; the message names it and holds its traceback.
        OutOfTime: there was time for none.
    """
    outs = [str(resolve_out(config.out)) for config in configs]
    if len(set(outs)) < len(outs):
        raise ConfigError(f"out: every run needs a folder of its own, got {', '.join(outs)}")
    kind = choose_device(configs[0].device).type if configs else "cpu"
    n_devices = _side_by_side_devices(n_devices, kind)
    _check_available(n_devices, kind)
    processes, start = Processes(), time.monotonic()
    free: queue.SimpleQueue[int] = queue.SimpleQueue()
    places = per_device * n_devices
    for number in range(places):
        free.put(number % n_devices)

    def train(config: Config) -> bool:  # whether there was time for it
        index, label = free.get(), f"{Path(config.out).name}: "
        variables = _threads(places) | ({} if config is configs[0] else {"FER_DATA_SAID": "1"})
        if kind == "cuda":  # a process that sees one GPU only calls it plain "cuda", and so does its config
            variables["CUDA_VISIBLE_DEVICES"] = visible_gpu(index)
        try:
            hours = hours_left(config.max_hours, start)
            if config.max_hours and hours < LEAST_HOURS and not RunFolder(config.out).has_results:
                raise OutOfTime(f"{label}OutOfTime: max_hours ended before it began")
            alone = replace(config, n_devices="1", max_hours=hours)
            processes.run(alone, variables, label=label)
            return True
        except OutOfTime as error:
            print(error, flush=True)
            return False
        finally:
            free.put(index)

    in_time = _side_by_side(train, configs, places, processes)
    if outs and not any(in_time):
        raise OutOfTime("max_hours ended before any member had a result; the same call resumes there")
    return [load_run(out) for out in itertools.compress(outs, in_time)]


def _side_by_side(
    train: Callable[[Config], bool], configs: Sequence[Config], places: int, processes: Processes
) -> list[bool]:
    """What `train` returns for each config, called in `places` threads; the first error is raised when all
    have ended."""
    pool = ThreadPoolExecutor(places)
    started = [pool.submit(train, config) for config in configs]
    with Interruption(defer=False):
        try:
            wait(started)
        except BaseException:  # interrupted: the running ones stop, and the next do not begin
            pool.shutdown(wait=False, cancel_futures=True)
            processes.stop()
            raise
    pool.shutdown()
    return [future.result() for future in started]


def _side_by_side_devices(n_devices: int | str, kind: str) -> int:
    """How many runs train at a time: "auto" is every GPU, or without one run by run."""
    if n_devices == "auto":
        return torch.cuda.device_count() if kind == "cuda" else 1
    return int(n_devices)


def _check_available(n_devices: int, kind: str) -> None:
    available = torch.cuda.device_count() if kind == "cuda" else 1
    if kind != "cpu" and n_devices > available:
        raise ConfigError(f"n_devices: there are {available} {kind} devices here, not {n_devices}")


def _threads(n_processes: int) -> dict[str, str]:
    return {"OMP_NUM_THREADS": str(max(1, torch.get_num_threads() // n_processes))}


def demo_run(out: str, seed: int = 0, device: str = "auto") -> Run:
    """A small run on drawn faces, trained in less than a minute, so that a notebook has something to show."""
    small = {"model": "small", "width": 0.25, "epochs": 4, "batch_size": 48}
    config = Config(data="demo", out=out, seed=seed, device=device, **small)
    with redirect_stdout(StringIO()):  # the notebooks that need it are about something else
        return fit(config, _demo_data(**config.data_options))


@functools.cache
def _demo_data(**options: int) -> Competition:
    """The drawn faces, drawn once for all demo runs of a notebook."""
    return load_competition("demo", **options)


def main(arguments: list[str]) -> int:
    """Train from the command line; returns the exit status."""
    return run_command(_launch_file, __doc__, arguments)


def _launch_file(path: str, out: str | None) -> None:
    if in_team():
        raise ConfigError("torchrun starts fer_utils.run.train; python -m fer_utils starts torchrun itself")
    train_from_file(path, out, launch)
