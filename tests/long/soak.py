"""Many runs in one process leak nothing, and the notebook of a run of hours stays small."""

from __future__ import annotations

import contextlib
import gc
import io
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from fer_utils import Config, fit, load_competition
from tests.long.common import Trial, finish, notebook, write_competition

MEGABYTES_ALLOWED = 30


def trials(folder: Path, data: Path, quick: bool) -> Iterator[Trial]:
    """Short runs, then the longest log there can be."""
    yield many_runs(folder / "runs", 20 if quick else 200)
    yield long_notebook(folder / "notebook", 200 if quick else 10_000)


def usage() -> tuple[float, int, int]:
    """Resident megabytes, open files and threads of this process, by Linux's /proc."""
    gc.collect()
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
    return resident, len(os.listdir("/proc/self/fd")), threading.active_count()


def many_runs(folder: Path, n: int) -> Trial:
    """Train `n` times in this process; what is held is compared with that after the first tenth."""
    data = write_competition(folder / "data", n_train=200, n_test=20)
    torch.set_num_threads(1)  # as in the other trials
    for k in range(n):
        config = Config(
            data=str(data),
            out=str(folder / f"run{k}"),
            model="small",
            width=0.125,
            epochs=1,
            device="cpu",
            seed=k,
        )
        with contextlib.redirect_stdout(io.StringIO()):
            fit(config, load_competition(config.data, **config.data_options))
        if k + 1 == max(1, n // 10):
            first = usage()
    last = usage()
    grown = [b - a for a, b in zip(first, last, strict=True)]
    lost = (grown[0] > MEGABYTES_ALLOWED) + (grown[1] > 0) + (grown[2] > 0)
    note = f"memory {grown[0]:+.0f} MB, open files {grown[1]:+d}, threads {grown[2]:+d} since run {n // 10}"
    return Trial("runs in one process", n, lost, note)


def long_notebook(folder: Path, epochs: int) -> Trial:
    """As many epochs as Config allows: one each second would be three hours."""
    data = write_competition(folder / "data", n_train=100, n_test=20)
    out, clock = folder / "run", time.monotonic()
    own = {"model": "small", "width": 0.125, "image_size": 16, "checkpoint_seconds": 60.0}
    finish(notebook(data, out, epochs=epochs, **own))
    size = out.with_name("run.ipynb").stat().st_size / 2**20
    note = f"{size:.2f} MB with {epochs:,} epochs (aim: 2 MB), {time.monotonic() - clock:.0f} s"
    return Trial("notebook of a long run", 1, size >= 2, note)
