"""Told to stop: how soon a training ends, and that nothing of it is lost."""

from __future__ import annotations

import random
import signal
import statistics
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.long.common import Trial, broken_files, finish, results, start, training

# From the signal to the end of the process: who sends SIGTERM kills soon after.
SECONDS_ALLOWED = {signal.SIGTERM: 2.0, signal.SIGINT: 10.0}


def trials(folder: Path, data: Path, quick: bool) -> Iterator[Trial]:
    """SIGINT (Ctrl-C) and SIGTERM at random moments of the training, with short steps and with long ones."""
    n = 1 if quick else 8
    large = {"model": "medium", "width": 1.0, "batch_size": 128, "epochs": 100}
    for number in (signal.SIGINT, signal.SIGTERM):
        yield told(number, folder / number.name, data, n)
        yield told(number, folder / f"{number.name}-large", data, n, **large)


def told(number: signal.Signals, folder: Path, data: Path, times: int, **knobs: Any) -> Trial:
    """Stop trainings `times` times in all, going on each time; the seconds from the signal to the end.

    A large network is not trained to its end: it shows how long a step may hold a signal up.
    """
    lost, waits, runs = 0, [], 0
    if not knobs:
        finish(training(data, folder / "whole"))
    while len(waits) < times:
        out, runs = folder / f"run{runs}", runs + 1
        while not (out / "metrics.json").is_file() and (len(waits) < times or not knobs):
            process = start(training(data, out, **knobs), preexec_fn=hear)
            for line in process.stdout:
                if "multiply-adds" in line:  # training begins
                    break
            if len(waits) < times:
                time.sleep(random.uniform(0, 6))
                if process.poll() is None:
                    waits.append(seconds_to_end(process, number))
            printed = process.stdout.read()
            process.wait()
            finished = (out / "metrics.json").is_file()  # the signal came when all was done
            friendly = finished or "the same command resumes" in printed
            if not friendly or "Traceback" in printed:
                print(printed[-2000:])
                lost += 1
            lost += len(broken_files(out))
        lost += not knobs and results(out) != results(folder / "whole")
    lost += sum(wait > SECONDS_ALLOWED[number] for wait in waits)
    note = f"ended within {max(waits):.1f} s (median {statistics.median(waits):.1f} s)"
    what = "steps of seconds" if knobs else "short steps"
    return Trial(f"{number.name}, {what}", times, lost, note)


def hear() -> None:
    """Trials in the background of a script would ignore Ctrl-C, and hand that down."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def seconds_to_end(process: subprocess.Popen, number: signal.Signals) -> float:
    """From the signal until the process has gone; what it prints meanwhile fits the pipe."""
    clock = time.monotonic()
    process.send_signal(number)
    process.wait()
    return time.monotonic() - clock
