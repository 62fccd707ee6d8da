"""Several devices: trainings side by side against one after the other.

On two CPU cores the "devices" are processes with a core each. Side by side is faster there (1.6 times,
start-up included): no thread waits for another.
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

from benchmarks.timing import RECIPE, Row, Settings
from fer_utils.config import Config
from fer_utils.run.launch import launch_members


def rows(settings: Settings) -> Iterator[Row]:
    """Members side by side against one after the other."""
    kind = settings.device.type
    n = torch.cuda.device_count() if kind == "cuda" else torch.get_num_threads()
    if n < 2:
        print("  one device only: nothing to compare")
        return
    unit = "GPUs" if kind == "cuda" else "processes, a core each,"
    with tempfile.TemporaryDirectory() as folder:
        width = 0.125 if settings.quick else 0.5
        own = dict(data="demo", epochs=1, width=width, device=kind)
        base = Config(**RECIPE | own | {"precision": "fp32" if kind == "cpu" else "auto"})
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
