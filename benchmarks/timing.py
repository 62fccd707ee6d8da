"""Timing that a noisy machine cannot fool: what is compared takes turns, and ratios are taken turn by
turn."""

from __future__ import annotations

import functools
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from fer_utils.competition import Competition
from fer_utils.config import Config
from fer_utils.files import REPOSITORY
from fer_utils.learning.device import choose_device
from fer_utils.learning.training_loop import Learner, place, train_epoch

# What the committed figures were measured with: SGD at full width and size, and every common transform.
RECIPE = dict(model="small", width=1.0, dropout=0.2, batch_size=128, optimizer="sgd", start_size=0)
RECIPE |= dict(rotate=12.0, scale=0.12, shift=0.08, brightness=0.15, contrast=0.2, erase=0.3)


@dataclass(frozen=True)
class Settings:
    """What the command line asked for."""

    quick: bool
    data: str
    device: torch.device
    seeds: int
    peer_minutes: float = float("inf")

    def nets(self, *names: str) -> list[Config]:
        """Configs of the networks to measure on the device; for a quick look the first, a quarter as wide."""
        kind = self.device.type
        if self.quick:
            return [Config(**RECIPE | {"model": names[0], "device": kind, "width": 0.25})]
        return [Config(**RECIPE | {"model": name, "device": kind}) for name in names]


@dataclass(frozen=True)
class Row:
    """One comparison.

    Attributes:
        what: what was measured, and ours first.
        other: what it is compared with.
        ours_value, other_value: in `unit`.
        ratio: how many times better ours is, or as `unit` says; the median over `n` turns.
        n: turns, runs or seeds behind the figures.
        note: what a reader must know to judge it.
    """

    what: str
    other: str
    ours_value: float
    other_value: float
    unit: str
    ratio: float
    n: int
    note: str = ""

    def __str__(self) -> str:
        values = f"{_short(self.ours_value):>10} {_short(self.other_value):>10} {self.unit:<13}"
        return (
            f"  {self.what:<46} {self.other:<38} {values} {_short(self.ratio):>7}  n={self.n:<3} {self.note}"
        )

    def as_markdown(self) -> str:
        """A line of the README's table."""
        points = self.unit == "% valid"  # two accuracies are compared by their difference
        ratio = f"{self.ratio:+.1f} points" if points and math.isfinite(self.ratio) else _short(self.ratio)
        cells = [self.what, self.other, _short(self.ours_value), _short(self.other_value), self.unit, ratio]
        return "| " + " | ".join([*cells, self.note]) + " |"


def _short(value: float) -> str:
    if math.isnan(value):
        return "-"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:,.3g}"


def take_turns(
    ours: Callable[[], object], other: Callable[[], object], seconds: float, device: torch.device
) -> tuple[float, float, float, int]:
    """Run two functions alternately for about `seconds`, after a warm-up of each.

    Returns:
        median seconds of ours and of the other, the median of other / ours turn by turn, and the turns.
    """
    ours(), other()
    pairs: list[tuple[float, float]] = []
    end = time.perf_counter() + seconds
    while len(pairs) < 3 or time.perf_counter() < end:
        pairs.append((timed(ours, device), timed(other, device)))
    first, second = zip(*pairs, strict=True)
    ratio = statistics.median(b / a for a, b in pairs)
    return statistics.median(first), statistics.median(second), ratio, len(pairs)


def timed(function: Callable[[], object], device: torch.device) -> float:
    """Seconds that `function` takes, with all that it left to do on the device."""
    synchronize(device)
    start = time.perf_counter()
    function()
    synchronize(device)
    return time.perf_counter() - start


def synchronize(device: torch.device) -> None:
    """Wait until the device has done all it was told to."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@functools.cache
def matrix_rate(dtype: torch.dtype, device: torch.device) -> float:
    """Operations per second of a large matrix product: what the machine can do at best."""
    n = 8192 if device.type == "cuda" else 512
    while True:  # CPUs without bfloat16 need seconds where others need milliseconds
        a, b = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))
        a @ b
        seconds = min(timed(lambda a=a, b=b: a @ b, device) for _ in range(6))
        if n >= 2048 or seconds > 0.02:
            return 2 * n**3 / seconds
        n *= 2


def python(code: str, **variables: str) -> str:
    """What a fresh Python prints that runs `code` in the repository.

    Raises:
        subprocess.CalledProcessError: it failed; its errors are on the screen.
    """
    environment = {**os.environ, **variables}
    command = [sys.executable, "-c", code]
    return subprocess.run(
        command, stdout=subprocess.PIPE, text=True, check=True, cwd=REPOSITORY, env=environment
    ).stdout


def peak_memory() -> float:
    """The most memory this process ever held, in MB."""
    status = Path("/proc/self/status")
    if status.is_file():  # not getrusage, whose peak a process inherits from the one that started it
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024 / 1e6
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6  # bytes on macOS


def seconds_per_step(config: Config, competition: Competition, steps: int = 8) -> float:
    """The measured time of a training step at full image size, the second time it is done."""
    device = choose_device(config.device)
    learner = Learner(config, competition, device)
    n = min(len(competition.train), steps * config.batch_size)
    images = place(competition.train.images[:n], device)
    labels = torch.tensor(competition.train.labels[:n], device=device)
    for _ in range(2):  # the first one warms up
        start = time.perf_counter()
        train_epoch(learner, images, labels, config.epochs - 1)
        synchronize(device)
        seconds = time.perf_counter() - start
    return seconds / math.ceil(n / config.batch_size)
