"""What fits into the minutes of a device: the speed of each network, and members that take equally long."""

from __future__ import annotations

import gc
import math
import time
import timeit
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from fer_utils.competition import Competition
from fer_utils.config import Config
from fer_utils.learning.augment import VIEWS
from fer_utils.learning.training_loop import (
    Learner,
    TrainingError,
    batches,
    place,
    size_of_epoch,
    train_epoch,
    validate,
)
from fer_utils.run.folder import RunFolder

# The recipe of the preset `best`; `outputs/reference/README.md` says what each parameter was worth.
RECIPE = {"preset": "best", "dropout": 0.2}
# Networks and widths, the ones to begin with first; the first three members are seeds 0, 1, 2 of one network.
NETWORKS = {
    "cuda": (("large", 0.75), ("medium", 2.0), ("resnet18", 1.0), ("vgg_bn", 0.5)),
    "cpu": (("medium", 0.75), ("medium", 0.5), ("small", 0.5), ("small", 0.25)),
}
FIRST = 3  # members that differ in the seed alone: they say how seeds differ
MOST_MEMBERS = 8
# With fewer epochs a smaller network is better (outputs/reference/README.md); longer than this gains little.
ENOUGH_EPOCHS, LONGEST = 8, 120
STEPS = {"cuda": 20}  # that are measured; elsewhere 4
SHARE = 0.9  # of the time that is planned: estimates err
# Seconds that a process needs before its first step (imports, data from the cache), and the share by which
# a training may take longer than its measured steps.
START_UP, MARGIN = 15.0, 1.15
# How much slower a member is while another trains beside it, before that is known.
BESIDE = {"cuda": 2.0, "cpu": 1.3}
Say = Callable[[str], None]


@dataclass(frozen=True)
class Speed:
    """What a network costs on this device.

    Attributes:
        network: its name and width.
        small, full: seconds of a training step at `start_size` and at `image_size` pixels.
        validation: seconds of a pass over the validation split.
    """

    network: tuple[str, float]
    small: float
    full: float
    validation: float

    def slowed(self, pace: float) -> Speed:
        """The same where each step takes `pace` times as long."""
        return Speed(self.network, pace * self.small, pace * self.full, pace * self.validation)

    def training_seconds(self, config: Config, competition: Competition) -> float:
        """The estimated time of a whole training, start-up and results included."""
        steps = len(batches(len(competition.train), config, 0))
        config = config.at_size(competition.image_size)
        low, high = config.start_size**2, config.image_size**2
        epochs = 0.0
        for epoch in range(config.epochs):
            part = (size_of_epoch(config, epoch) ** 2 - low) / (high - low)
            epochs += steps * (self.small + part * (self.full - self.small)) + 2 * self.validation
        answered = len(competition.valid) + len(competition.splits.get("test", ()))
        results = len(VIEWS[config.views]) * answered / len(competition.valid) * self.validation
        return START_UP + MARGIN * (epochs + results)


def measure(network: tuple[str, float], competition: Competition, device: torch.device) -> Speed:
    """Train and validate for a few steps at both image sizes; the first steps of each only warm up."""
    config = member_config(network, 2, 0, "unused")
    learner = Learner(config, competition, device)
    n = min(len(competition.train), STEPS.get(device.type, 4) * config.batch_size)
    images = place(competition.train.images[:n], device)
    labels = torch.tensor(competition.train.labels[:n], device=device)

    def seconds(work: Callable[[], object], times: int) -> float:
        def finished_work() -> None:
            work()
            if device.type == "cuda":
                torch.cuda.synchronize(device)

        return min(timeit.repeat(finished_work, number=1, repeat=times))

    steps = len(batches(n, config, 0))
    small, full = (seconds(lambda e=e: train_epoch(learner, images, labels, e), 2) / steps for e in (0, 1))
    validation = seconds(lambda: validate(learner, competition.valid), 1 + (device.type == "cuda"))
    return Speed(network, small, full, validation)


@dataclass(frozen=True)
class Planned:
    """A member to train, and its estimated seconds."""

    config: Config
    seconds: float

    def __str__(self) -> str:
        config = self.config
        network = f"{config.model}, width {config.width:g}, {config.epochs} epochs, seed {config.seed}"
        return f"{Path(config.out).name}: {network}, about {self.seconds:.0f} s"

    @property
    def folder(self) -> RunFolder:
        """Where its run is, or will be."""
        return RunFolder(self.config.out)

    def shortened(self, share: float) -> Planned:
        """The same with so much less time."""
        epochs = max(1, int(self.config.epochs * share))
        return Planned(replace(self.config, epochs=epochs), share * self.seconds)


def member_config(network: tuple[str, float], epochs: int, seed: int, out: str, **parameters: Any) -> Config:
    """The recipe for one network, as long as `epochs`."""
    model, width = network
    own = {"model": model, "width": width, "epochs": epochs, "seed": seed, "out": out}
    return Config.from_dict({**RECIPE, **own, **parameters})


def plan(
    speeds: Sequence[Speed], competition: Competition, seconds: float, at_once: int, **shared: Any
) -> list[Planned]:
    """The members in the order of their training, each as long as the others.

    The first network is the largest that sees the images often enough; three members of it differ in the
    seed, and the other networks follow twice each. How many of them are trained the time decides.

    Args:
        seconds: the time for all.
        at_once: members that train side by side.
        shared: parameters of all members; `out` is the folder of their folders.
    """

    def planned(speed: Speed, epochs: int, seed: int = 0, name: str = "") -> Planned:
        config = member_config(speed.network, epochs, seed, **{**shared, "out": f"{shared['out']}/{name}"})
        return Planned(config, speed.training_seconds(config, competition))

    def epochs_within(speed: Speed, limit: float) -> int:
        return bisect_right(range(1, LONGEST + 1), limit, key=lambda epochs: planned(speed, epochs).seconds)

    rounds = math.ceil(FIRST / at_once)
    # Time for all three of the first network, or else for one round.
    choices = [(speed, seconds / part) for part in (rounds, 1) for speed in speeds]
    able = (choice for choice in choices if epochs_within(*choice) >= ENOUGH_EPOCHS)
    first, limit = next(able, (speeds[-1], seconds))
    epochs = max(1, epochs_within(first, limit))
    each = planned(first, epochs).seconds
    members: list[Planned] = []
    order = [first] * FIRST + [speed for speed in speeds if speed is not first for _ in range(2)]
    for seed, speed in enumerate(order[:MOST_MEMBERS]):
        length = epochs if speed is first else epochs_within(speed, each)
        if length >= min(ENOUGH_EPOCHS, epochs):
            members.append(planned(speed, length, seed, f"member{len(members)}"))
    return members


def make_plan(
    competition: Competition, device: torch.device, seconds: float, at_once: int, shared: dict, say: Say
) -> list[Planned]:
    """Measure the networks and plan the members for `seconds` from now.

    On a CPU the smallest network is measured first, and larger ones only while they could fit.

    Raises:
        TrainingError: no network can be trained on the device.
    """
    end, speeds = time.monotonic() + seconds, []
    pace = BESIDE.get(device.type, 2.0) if at_once > 1 else 1.0
    networks, threads = NETWORKS.get(device.type, NETWORKS["cpu"]), torch.get_num_threads()
    if device.type == "cpu":  # measured as a member will run, on its share of the cores
        torch.set_num_threads(max(1, threads // at_once))
    for network in networks if device.type == "cuda" else networks[::-1]:
        name = f"{network[0]}, width {network[1]:g}"
        try:
            speed = measure(network, competition, device).slowed(pace)
        except RuntimeError as error:  # no memory for it, or no such operation on the device
            say(f"{name}: cannot be trained here ({str(error).splitlines()[0][:200]})")
            continue
        finally:
            gc.collect()
            if device.type == "cuda":
                torch.cuda.empty_cache()  # the members are processes of their own and need the memory
        say(
            f"{name}: {1e3 * speed.small:.1f} ms a step at first, {1e3 * speed.full:.1f} ms at full size, "
            f"validation {speed.validation:.1f} s"
        )
        speeds.append(speed)
        fewest = speed.training_seconds(member_config(network, ENOUGH_EPOCHS, 0, "x"), competition)
        if device.type != "cuda" and fewest > end - time.monotonic():
            break  # the next ones are slower
    torch.set_num_threads(threads)
    if not speeds:
        raise TrainingError(f"no network can be trained on {device}")
    speeds.sort(key=lambda speed: networks.index(speed.network))
    return plan(speeds, competition, SHARE * (end - time.monotonic()), at_once, **shared)
