"""Start trainings on the devices of a machine: one run over several of them, or several runs side by side.

They are subprocesses (torchrun's, for one run), because processes forked from a notebook break as soon as a
cell has touched a GPU. Results come back as files, errors with the traceback of the process that failed.

python -m fer_utils.run.launch config.json       train one run on the devices that its n_devices names
"""

from __future__ import annotations

import dataclasses
import gc
import json
import math
import queue
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import torch

from fer_utils.competition import Competition
from fer_utils.config import Config, ConfigError
from fer_utils.data.load import load_competition
from fer_utils.files import resolve_out, write_json
from fer_utils.learning.device import choose_device, visible_gpu
from fer_utils.learning.distributed import end_process, in_team, join_team, leads_team, leave_team, own_device
from fer_utils.learning.training_loop import TrainingError, new_learner, place, train_epoch
from fer_utils.run.folder import Run, load_run
from fer_utils.run.interruption import Interruption
from fer_utils.run.limits import OutOfTime, hours_left
from fer_utils.run.processes import Processes, follow_parent
from fer_utils.run.record import check_repetition, config_from_file, is_out_of_time
from fer_utils.run.results import print_results
from fer_utils.run.train import check_fingerprint, fit, run_command

# A shorter training is over before processes on several devices have started and been measured.
SHARING_WORTH_SECONDS = 60
# Of max_hours: a process that has less left would end before it has learned anything.
LEAST_HOURS = 5 / 3600
# Starting takes seconds, reading a large competition a minute; GPUs that cannot talk to each other hang.
TRIAL_SECONDS = 300


def launch(config: Config, competition: Competition) -> Run:
    """Train one network on `config.n_devices` devices; the result is that of one device up to rounding.

    "auto" takes all GPUs where a trial of a few steps says that this is faster, and one device otherwise.
    On a CPU a "device" is a process with its share of the cores.

    Raises:
        ConfigError: more GPUs than there are, or a batch too small to share.
        TrainingError: a process failed; the message holds its traceback.
    """
    out, start = resolve_out(config.out), time.monotonic()
    if (out / "metrics.json").is_file() and not is_out_of_time(out):
        # Finished, or another run's: `fit` sees to it.
        return fit(dataclasses.replace(config, n_devices="1"), competition)
    n_devices = choose_n_devices(config, competition)
    if n_devices == 1:
        return fit(config, competition)
    print(f"training on {n_devices} devices", flush=True)
    config = dataclasses.replace(config, max_hours=hours_left(config.max_hours, start))
    with tempfile.TemporaryDirectory() as folder:
        _run_team(config, competition, n_devices, Path(folder), ["fer_utils.run.train"])
    return load_run(out)


def choose_n_devices(config: Config, competition: Competition) -> int:
    """The number of devices that `config` names, or that a trial finds to be fastest.

    Raises:
        ConfigError: more GPUs than there are, or a batch too small to share.
    """
    kind = choose_device(config.device).type
    available = torch.cuda.device_count() if kind == "cuda" else 1
    if config.n_devices != "auto":
        n_devices = int(config.n_devices)
        _check_available(n_devices, kind)
        if n_devices > 1 and 2 * n_devices > min(config.batch_size, len(competition.train)):
            least = 2 * n_devices
            raise ConfigError(f"n_devices: {n_devices} devices need batches of {least} pictures or more")
        return n_devices
    if available == 1 or config.batch_size < 2 * available:
        return 1
    return available if sharing_pays(config, competition, available) else 1


def sharing_pays(config: Config, competition: Competition, n_devices: int) -> bool:
    """Whether a trial of a few steps promises a sooner end on `n_devices` devices, start-up included."""
    steps = config.epochs * math.ceil(len(competition.train) / config.batch_size)
    alone = steps * seconds_per_step(config, competition)
    if alone < SHARING_WORTH_SECONDS:
        return False
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()  # the processes need the memory of this measurement
    start = time.perf_counter()
    try:
        step = trial(config, competition, n_devices)
    except TrainingError as error:
        reason = str(error).strip().splitlines()[-1]
        print(f"n_devices: a trial on {n_devices} devices failed ({reason}), so one trains alone", flush=True)
        return False
    start_up = time.perf_counter() - start
    together = steps * step + start_up
    print(f"n_devices: about {alone:.0f} s on one device, {together:.0f} s on {n_devices}, start-up included")
    return together < alone


def trial(config: Config, competition: Competition, n_devices: int) -> float:
    """Seconds per step of a team of `n_devices` processes.

    Raises:
        TrainingError: they failed, or gave no answer in time.
    """
    with tempfile.TemporaryDirectory() as folder:
        module = ["fer_utils.run.launch", "--trial"]
        _run_team(config, competition, n_devices, Path(folder), module, quiet=True, seconds=TRIAL_SECONDS)
        return json.loads((Path(folder) / "trial.json").read_text())["seconds_per_step"]


def seconds_per_step(config: Config, competition: Competition, steps: int = 8) -> float:
    """The measured time of a training step at full picture size, of this process or the team it is in."""
    device = own_device(config.device)
    learner = new_learner(config, competition, device, join_team(device))
    n = min(len(competition.train), steps * config.batch_size)
    images = place(competition.train.images[:n], device)
    labels = torch.tensor(competition.train.labels[:n], device=device)
    for _ in range(2):  # the first one warms up
        start = time.perf_counter()
        train_epoch(learner, images, labels, config.epochs - 1)
        seconds = time.perf_counter() - start
    return seconds / math.ceil(n / config.batch_size)


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
    if n_devices == "auto":
        n_devices = torch.cuda.device_count() if kind == "cuda" else 1
    _check_available(int(n_devices), kind)
    processes, start, late = Processes(), time.monotonic(), set()
    free: queue.SimpleQueue[int] = queue.SimpleQueue()
    places = per_device * int(n_devices)
    for number in range(places):
        free.put(number % int(n_devices))

    def train(config: Config) -> None:
        index, label = free.get(), f"{Path(config.out).name}: "
        variables = _threads(places)
        if kind == "cuda":  # a process that sees one GPU only calls it plain "cuda", and so does its config
            variables["CUDA_VISIBLE_DEVICES"] = visible_gpu(index)
        try:
            hours = hours_left(config.max_hours, start)
            if config.max_hours and hours < LEAST_HOURS and not _has_results(config):
                raise OutOfTime(f"{label}OutOfTime: max_hours ended before it began")
            with tempfile.TemporaryDirectory() as folder:
                alone = dataclasses.replace(config, n_devices="1", max_hours=hours)
                path = write_json(Path(folder) / "config.json", alone.to_dict())
                command = [sys.executable, "-m", "fer_utils.run.train", str(path)]
                processes.run(command, Path(folder), variables=variables, label=label)
        except OutOfTime as error:
            late.add(str(resolve_out(config.out)))
            print(error, flush=True)
        finally:
            free.put(index)

    pool = ThreadPoolExecutor(places)
    started = [pool.submit(train, config) for config in configs]
    with Interruption(defer=False):
        try:
            wait(started)
        except BaseException:  # told to stop: neither these go on nor do the next begin
            pool.shutdown(wait=False, cancel_futures=True)
            processes.stop()
            raise
    pool.shutdown()
    for future in started:
        future.result()
    if late and late == set(outs):
        raise OutOfTime("max_hours ended before any member had a result; the same call goes on from there")
    return [load_run(out) for out in outs if out not in late]


def _has_results(config: Config) -> bool:
    return (resolve_out(config.out) / "metrics.json").is_file()


def _check_available(n_devices: int, kind: str) -> None:
    available = torch.cuda.device_count() if kind == "cuda" else 1
    if kind != "cpu" and n_devices > available:
        raise ConfigError(f"n_devices: there are {available} {kind} devices here, not {n_devices}")


def _threads(n_processes: int) -> dict[str, str]:
    return {"OMP_NUM_THREADS": str(max(1, torch.get_num_threads() // n_processes))}


def _run_team(
    config: Config,
    competition: Competition,
    n_devices: int,
    folder: Path,
    module: list[str],
    quiet: bool = False,
    seconds: float | None = None,
) -> None:
    """Run a module of this package in `n_devices` processes; its last argument is the path of the config."""
    path = write_json(folder / "config.json", config.to_dict())
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command = [*torchrun, f"--nproc-per-node={n_devices}", f"--log-dir={folder}", "-m", *module, str(path)]
    variables = {"FER_FINGERPRINT": competition.fingerprint}
    if choose_device(config.device).type == "cpu":
        variables |= _threads(n_devices)
    with Interruption(defer=False):
        Processes().run(command, folder, variables=variables, quiet=quiet, seconds=seconds)


def _take_part_in_trial(path: str) -> None:
    """One process of those that `trial` starts; the leader leaves the result beside the config."""
    follow_parent()
    config = Config.from_json(path)
    competition = load_competition(config.data, **config.data_options)
    check_fingerprint(config, competition)
    seconds = seconds_per_step(config, competition)
    if leads_team():
        write_json(Path(path).with_name("trial.json"), {"seconds_per_step": seconds})
    leave_team()


def main(arguments: list[str]) -> int:
    """Train from the command line; returns the exit status."""
    if arguments[:1] == ["--trial"]:
        from torch.distributed.elastic.multiprocessing.errors import record

        record(_take_part_in_trial)(arguments[1])
        return 0
    return run_command(_launch_file, __doc__, arguments)


def _launch_file(path: str, out: str | None) -> None:
    if in_team():
        raise ConfigError("torchrun starts fer_utils.run.train; fer_utils.run.launch starts torchrun itself")
    config = config_from_file(path, out)
    competition = load_competition(config.data, **config.data_options)
    check_repetition(path, config, competition)
    print(competition.summary())
    print_results(launch(config, competition))


if __name__ == "__main__":
    end_process(main(sys.argv[1:]))
