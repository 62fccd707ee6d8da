"""Start trainings on the devices of a machine: one run over several of them, or several runs side by side.

They are subprocesses (torchrun's, for one run), because processes forked from a notebook break as soon as a
cell has touched a GPU. Results come back as files, errors with the traceback of the process that failed.

python -m fer_utils.launcher config.json       train one run on the devices that its n_devices names
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import queue
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from fer_utils.config import Config, ConfigError
from fer_utils.data import load_competition
from fer_utils.device import choose_device
from fer_utils.distributed import in_team, join_team, leads_team, leave_team, own_device
from fer_utils.faces import Competition, DataError
from fer_utils.files import REPOSITORY, write_json
from fer_utils.learner import TrainingError, new_learner, place, train_epoch
from fer_utils.predict import Run, load_run, resolve_out
from fer_utils.train import fit, print_results

# A shorter training is over before processes on several devices have started and been measured.
SHARING_WORTH_SECONDS = 60


def launch(config: Config, competition: Competition) -> Run:
    """Train one network on `config.n_devices` devices; the result is that of one device up to rounding.

    "auto" takes all GPUs where a trial of a few steps says that this is faster, and one device otherwise.
    On a CPU a "device" is a process with its share of the cores.

    Raises:
        ConfigError: more GPUs than there are, or a batch too small to share.
        TrainingError: a process failed; the message holds its traceback.
    """
    n_devices = choose_n_devices(config, competition)
    if n_devices == 1:
        return fit(config, competition)
    print(f"training on {n_devices} devices", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        _run_team(config, n_devices, Path(folder), "fer_utils.train", competition.fingerprint)
    return load_run(resolve_out(config.out))


def choose_n_devices(config: Config, competition: Competition) -> int:
    """The number of devices that `config` names, or that a trial finds to be fastest.

    Raises:
        ConfigError: more GPUs than there are, or a batch too small to share.
    """
    device = choose_device(config.device)
    available = torch.cuda.device_count() if device.type == "cuda" else 1
    if config.n_devices != "auto":
        n_devices = int(config.n_devices)
        if device.type != "cpu" and n_devices > available:
            raise ConfigError(f"n_devices: there are {available} {device.type} devices here, not {n_devices}")
        if 2 * n_devices > min(config.batch_size, len(competition.train)):
            raise ConfigError(
                f"n_devices: {n_devices} devices need batches of {2 * n_devices} or more pictures"
            )
        return n_devices
    if available == 1 or config.batch_size < 2 * available:
        return 1
    return available if sharing_pays(config, competition, available) else 1


def sharing_pays(config: Config, competition: Competition, n_devices: int) -> bool:
    """Whether a trial of a few steps promises a sooner end on `n_devices` devices, start-up included."""
    steps = config.epochs * -(-len(competition.train) // config.batch_size)
    alone = steps * seconds_per_step(config, competition)
    if alone < SHARING_WORTH_SECONDS:
        return False
    start = time.perf_counter()
    step = trial(config, competition, n_devices)
    start_up = time.perf_counter() - start
    together = steps * step + start_up
    print(f"n_devices: about {alone:.0f} s on one device, {together:.0f} s on {n_devices}, start-up included")
    return together < alone


def trial(config: Config, competition: Competition, n_devices: int) -> float:
    """Seconds per step of a team of `n_devices` processes."""
    with tempfile.TemporaryDirectory() as folder:
        _run_team(config, n_devices, Path(folder), "fer_utils.launcher", competition.fingerprint, quiet=True)
        return json.loads((Path(folder) / "trial.json").read_text())["seconds_per_step"]


def seconds_per_step(config: Config, competition: Competition, steps: int = 8) -> float:
    """The measured time of a training step at full picture size, of this process or the team it is in."""
    device = own_device(choose_device(config.device))
    learner = new_learner(config, competition, device, join_team(device))
    n = min(len(competition.train), steps * config.batch_size)
    images = place(competition.train.images[:n], device)
    labels = torch.tensor(competition.train.labels[:n], device=device)
    for _ in range(2):  # the first one warms up
        start = time.perf_counter()
        train_epoch(learner, images, labels, config.epochs - 1)
        seconds = time.perf_counter() - start
    return seconds / math.ceil(n / config.batch_size)


def launch_members(configs: Sequence[Config], n_devices: int | str = "auto") -> list[Run]:
    """Train several runs side by side, each on a device of its own, the next when one is free.

    All are tried; the first failure is raised when the others have ended. "auto" takes every GPU, or without
    one trains run by run; on a CPU `n_devices` processes get an equal share of the cores each.

    Raises:
        ConfigError: two runs with the same out, or more GPUs than there are.
        TrainingError: a run failed; the message names it and holds its traceback.
    """
    outs = [str(resolve_out(config.out)) for config in configs]
    if len(set(outs)) < len(outs):
        raise ConfigError(f"out: every run needs a folder of its own, got {', '.join(outs)}")
    kind = choose_device(configs[0].device).type if configs else "cpu"
    available = torch.cuda.device_count() if kind == "cuda" else 1
    n_devices = available if n_devices == "auto" else int(n_devices)
    if kind != "cpu" and n_devices > available:
        raise ConfigError(f"n_devices: there are {available} {kind} devices here, not {n_devices}")
    free: queue.SimpleQueue[int] = queue.SimpleQueue()
    for index in range(n_devices):
        free.put(index)

    def train(config: Config) -> None:
        index = free.get()
        name = f"cuda:{index}" if kind == "cuda" else config.device
        threads = None if kind == "cuda" else max(1, (os.cpu_count() or 1) // n_devices)
        try:
            with tempfile.TemporaryDirectory() as folder:
                alone = dataclasses.replace(config, device=name, n_devices="1")
                path = write_json(Path(folder) / "config.json", alone.to_dict())
                label = f"{Path(config.out).name}: "
                _run([sys.executable, "-m", "fer_utils.train", str(path)], Path(folder), threads, label=label)
        finally:
            free.put(index)

    with ThreadPoolExecutor(n_devices) as pool:
        started = [pool.submit(train, config) for config in configs]
    for future in started:
        future.result()
    return [load_run(out) for out in outs]


def _run_team(
    config: Config, n_devices: int, folder: Path, module: str, fingerprint: str, quiet: bool = False
) -> None:
    """Run a module of this package in `n_devices` processes; its argument is the path of the config."""
    path = write_json(folder / "config.json", config.to_dict())
    torchrun = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        f"--nproc-per-node={n_devices}",
    ]
    command = [*torchrun, f"--log-dir={folder}", "-m", module, str(path)]
    gpu = choose_device(config.device).type == "cuda"
    threads = None if gpu else max(1, (os.cpu_count() or 1) // n_devices)
    _run(command, folder, threads, {"FER_FINGERPRINT": fingerprint}, quiet=quiet)


def _run(
    command: list[str],
    folder: Path,
    threads: int | None,
    variables: dict[str, str] | None = None,
    label: str = "",
    quiet: bool = False,
) -> None:
    """Run `command` and pass on what it prints; an error holds the traceback that it left in `folder`."""
    environment = {**os.environ, **(variables or {}), "PYTHONUNBUFFERED": "1"}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")]))
    environment["TORCHELASTIC_ERROR_FILE"] = str(folder / "error.json")  # torchrun gives each process its own
    environment.pop("JPY_SESSION_NAME", None)  # lines, not a bar, come out of a pipe
    if threads:
        environment["OMP_NUM_THREADS"] = str(threads)
    pipe = subprocess.PIPE
    complaints = folder / "stderr.txt"  # torchrun's are long; the traceback says it better
    with (
        complaints.open("w", encoding="utf-8") as stderr,
        subprocess.Popen(command, stdout=pipe, stderr=stderr, text=True, env=environment) as process,
    ):
        try:
            for line in process.stdout:
                if not quiet:
                    print(label + line, end="", flush=True)
        except BaseException:  # Ctrl-C or JupyterLab's stop button: no process stays behind
            process.terminate()
            raise
    if process.returncode:
        last_words = complaints.read_text(encoding="utf-8", errors="replace")[-3000:]
        raise TrainingError(f"{label}{_first_error(folder) or last_words}")


def _first_error(folder: Path) -> str:
    """The traceback of the process that failed first; the others failed because it had gone."""
    errors = []
    for path in folder.rglob("error.json"):
        message = json.loads(path.read_text(encoding="utf-8"))["message"]
        if isinstance(message, dict):
            details = message.get("extraInfo", {})
            errors.append(
                (int(details.get("timestamp", 0)), path.parent.name, details.get("py_callstack", ""))
            )
    if not errors:
        return ""
    _, rank, traceback = min(errors)
    return f"process {rank} failed:\n{traceback}" if rank.isdecimal() else traceback


def _take_part_in_trial(path: Path) -> None:
    """One process of those that `trial` starts; the leader leaves the result beside the config."""
    config = Config.from_json(path)
    competition = load_competition(config.data, **config.data_options)
    seconds = seconds_per_step(config, competition)
    if leads_team():
        write_json(path.with_name("trial.json"), {"seconds_per_step": seconds})
    leave_team()


def main(arguments: list[str]) -> int:
    """Train from the command line: one argument, the path of a JSON file of knobs."""
    if len(arguments) != 1 or arguments[0] in ("-h", "--help"):
        print(__doc__)
        return 0 if arguments else 2
    if in_team():  # started by `trial`
        _take_part_in_trial(Path(arguments[0]))
        return 0
    try:
        config = Config.from_json(arguments[0])
        competition = load_competition(config.data, **config.data_options)
        print(competition.summary())
        print_results(launch(config, competition))
    except (ConfigError, DataError, TrainingError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
