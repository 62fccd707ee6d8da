"""kill -9 at random moments: of a training, a notebook's kernel, one of two processes, a launcher."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.long.common import Trial, broken_files, finish, notebook, results, start, training

Command = tuple[list[str], dict[str, str]]


def kill(process: subprocess.Popen, _: Path) -> None:
    """The process itself, at any moment from its start on."""
    process.kill()


def kill_child(words: str) -> Callable[[subprocess.Popen, Path], None]:
    """A random one of the processes below it whose command line holds `words`, if there is one by now."""

    def kill_one(process: subprocess.Popen, _: Path) -> None:
        found = [pid for pid in below(process.pid) if words in command_line(pid)]
        if found:
            os.kill(random.choice(found), signal.SIGKILL)

    return kill_one


def below(pid: int) -> list[int]:
    """Process numbers of all descendants, by Linux's /proc."""
    children: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        children += map(int, task.read_text().split())
    return children + [deeper for child in children for deeper in below(child)]


def command_line(pid: int) -> str:
    """How that process was started; empty if it has gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def survives(
    what: str,
    command: Callable[[Path], Command],
    act: Callable[[subprocess.Popen, Path], None],
    times: int,
    folder: Path,
    expected: dict[str, bytes] | None = None,
) -> Trial:
    """Do `act` to `times` trainings at random moments, give the same command again each time, and compare."""
    clock = time.monotonic()
    finish(command(folder / "whole"))
    length = time.monotonic() - clock
    expected = expected or results(folder / "whole")
    lost, done, runs, resumed, finished = 0, 0, 0, 0, True
    while done < times or not finished:
        if finished:
            runs, out, finished = runs + 1, folder / f"run{runs}", False
        process, killed = start(command(out)), False
        if done < times:
            time.sleep(random.uniform(0, length))
            if killed := process.poll() is None:
                act(process, out)
                done += 1
        printed = process.communicate()[0]
        if process.returncode and not killed:
            raise AssertionError(f"{what}: the same command fails now:\n{printed[-3000:]}")
        broken = broken_files(out)
        finished = (out / "metrics.json").is_file()
        differs = finished and results(out) != expected
        if finished:
            resumed += json.loads((out / "metrics.json").read_text())["training"]["resumed"]
        lost += len(broken) + differs
        if broken or differs:
            print(f"{what}: {broken or 'other bytes'} in {out}\n{printed[-2000:]}")
    if done >= 5 and not resumed:
        raise AssertionError(f"{what}: no run went on from a checkpoint, all began again")
    note = (
        f"{runs} runs of {length:.0f} s ended with the bytes of an undisturbed one, {resumed} times resumed"
    )
    return Trial(what, done, lost, note)


def trials(folder: Path, data: Path, quick: bool) -> Iterator[Trial]:
    """Each kind of death."""
    n = 2 if quick else 30
    yield survives(
        "kill -9 of the training process", lambda out: training(data, out), kill, n, folder / "process"
    )
    expected = results(folder / "process" / "whole")
    n = 1 if quick else 8
    yield survives(
        "kill -9 of the kernel under papermill",
        lambda out: notebook(data, out),
        kill_child("ipykernel"),
        n,
        folder / "kernel",
        expected,
    )
    yield survives(
        "kill -9 of papermill", lambda out: notebook(data, out), kill, n // 2, folder / "papermill", expected
    )

    def pair(out: Path) -> Command:
        return training(data, out, module="fer_utils", n_devices="2")

    n = 1 if quick else 5
    act = kill_child("-m fer_utils.run.train")
    yield survives("kill -9 of one of two processes that train together", pair, act, n, folder / "pair")
    yield survives("kill -9 of the process that launched two", pair, kill_and_wait, n, folder / "launcher")


def kill_and_wait(process: subprocess.Popen, out: Path) -> None:
    """Its trainings notice, save and end by themselves; only then is their folder free."""
    children = below(process.pid)
    process.kill()
    deadline = time.monotonic() + 60
    while any(command_line(pid) for pid in children):
        if time.monotonic() > deadline:
            raise AssertionError("trainings go on after the process that launched them has died")
        time.sleep(0.1)
