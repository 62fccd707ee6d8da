"""Told to stop: how soon a training ends, and that nothing of it is lost."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from tests.long.common import Trial, broken_files, finish, results, start, training


def trials(folder: Path, data: Path, quick: bool) -> Iterator[Trial]:
    """SIGINT (Ctrl-C) and SIGTERM at random moments of the training, with a small and a large network."""
    for knobs, words in (
        ({}, "small steps"),
        ({"model": "medium", "width": 1.0, "batch_size": 128}, "long steps"),
    ):
        for number in (signal.SIGINT, signal.SIGTERM):
            name = f"{number.name}-{words.split()[0]}"
            yield told(number, words, folder / name, data, 1 if quick else 8, knobs)


def told(number: signal.Signals, words: str, folder: Path, data: Path, times: int, knobs: dict) -> Trial:
    """Stop trainings `times` times in all, going on each time; the seconds from the signal to the end."""
    steps = {"epochs": 2 if knobs else 5}
    finish(training(data, folder / "whole", **knobs, **steps))
    lost, waits, runs, done = 0, [], 0, 0
    while done < times:
        out, runs = folder / f"run{runs}", runs + 1
        while not (out / "metrics.json").is_file():
            process = start(training(data, out, **knobs, **steps))
            for line in process.stdout:
                if "multiply-adds" in line:  # training begins
                    break
            if done < times:
                time.sleep(random.uniform(0, 6))
                if process.poll() is None:
                    clock = time.monotonic()
                    process.send_signal(number)
                    done += 1
                    printed = process.communicate()[0]
                    waits.append(time.monotonic() - clock)
                    friendly = "the same command goes on from" in printed or process.returncode == 0
                    lost += len(broken_files(out)) + (not friendly) + ("Traceback" in printed)
                    if not friendly or "Traceback" in printed:
                        print(printed[-2000:])
            process.communicate()
        lost += results(out) != results(folder / "whole")
    note = f"ended within {max(waits):.1f} s (median {sorted(waits)[len(waits) // 2]:.1f} s)"
    return Trial(f"{number.name}, {words}", done, lost, note)
