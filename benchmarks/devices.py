"""Several devices: one training shared by processes (DDP), and several trainings side by side.

On two CPU cores the "devices" are processes with a core each. A shared training is slower there (0.8 of the
speed of one process with two threads): gradients and batch statistics are exchanged at every step. Members
side by side are faster than one after the other (1.6 times, start-up included): no thread waits for
another.
"""

from __future__ import annotations

import contextlib
import dataclasses
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from benchmarks.timing import Row, Settings
from fer_utils.config import Config
from fer_utils.data.load import load_competition
from fer_utils.run.launch import launch_members, seconds_per_step, trial


def rows(settings: Settings) -> Iterator[Row]:
    """A step on all devices against one, and members side by side against one after the other."""
    kind = settings.device.type
    n = torch.cuda.device_count() if kind == "cuda" else torch.get_num_threads()
    if n < 2:
        print("  one device only: nothing to compare")
        return
    unit = "GPUs" if kind == "cuda" else "processes, a core each,"
    competition = load_competition(settings.data)
    turns = 1 if settings.quick else 3
    for net in settings.nets("small", "medium"):
        precision = "fp32" if kind == "cpu" else "auto"
        config = dataclasses.replace(net, data=settings.data, precision=precision)
        together, alone = [], []
        for _ in range(turns):
            together.append(trial(config, competition, n))
            alone.append(seconds_per_step(config, competition))
        a, b = min(together), min(alone)
        yield Row(
            f"step of {net.model}, width {net.width:g}, {n} {unit} DDP",
            "one process",
            1e3 * a,
            1e3 * b,
            "ms/step",
            b / a,
            turns,
            "best of n",
        )
    with tempfile.TemporaryDirectory() as folder:
        width = 0.125 if settings.quick else 0.5
        base = Config(
            data="demo", epochs=1, width=width, device=kind, precision="fp32" if kind == "cpu" else "auto"
        )
        seconds = []
        for at_once in (n, 1):
            outs = [str(Path(folder) / f"{at_once}-{member}") for member in range(n)]
            start = time.perf_counter()
            members = [dataclasses.replace(base, out=out, seed=seed) for seed, out in enumerate(outs)]
            with contextlib.redirect_stdout(sys.stderr):  # the table has standard output for itself
                launch_members(members, at_once)
            seconds.append(time.perf_counter() - start)
    a, b = seconds
    yield Row(
        f"{n} members, {n} {unit} at once", "one after the other", a, b, "s", b / a, 1, "start-up included"
    )
