"""Time to accuracy: from data on disk to a validated accuracy, everything included.

Ours is the `quick` preset with the largest of our networks that sees the pictures often enough within the
minutes, and as many epochs as fit, by a measurement before: one training for each row, because the schedule
must end in time. A peer trains once, with its own pipeline, network and constant starting rate (its
schedule would lower it after days), and is looked at when each budget is over; looking does not count
against it. The accuracy is that of the validation split, which on FER2013 is PublicTest, without views;
ours is that of the epoch that was chosen on this split, the peers' that of the moment. On two CPU cores a
step runs at about four fifths of the machine's matrix rate (`training_step`): what is left to gain is in
the recipe and not in the code.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from benchmarks import peers
from benchmarks.timing import Row, Settings, seconds_per_step, synchronize
from fer_utils.competition import Competition
from fer_utils.config import Config
from fer_utils.data.load import load_competition
from fer_utils.learning.device import choose_device
from fer_utils.learning.metrics import describe, evaluate
from fer_utils.learning.training_loop import batches, size_of_epoch
from fer_utils.run.train import fit

GOALS = (0.60, 0.65, 0.70, 0.7116)  # the last is the score of the contest's winner in 2013 (Tang 2013)


# Below about eight epochs a larger network is worse than a smaller one that sees the pictures more often.
ENOUGH_EPOCHS = 8


def rows(settings: Settings) -> Iterator[Row]:
    """Ours for each budget, then each peer at the same moments, then the seconds to each goal."""
    minutes = [0.25] if settings.quick else sorted(settings.minutes)
    reached: list[tuple[float, float]] = []  # seconds, accuracy
    ours: dict[float, float] = {}
    for budget in minutes:
        runs = [our_run(settings, 60 * budget, seed) for seed in range(settings.seeds)]
        reached += [(run["seconds"], run["accuracy"]) for run in runs]
        accuracies = [100 * run["accuracy"] for run in runs]
        spread = f"sd {statistics.stdev(accuracies):.2f}; " if len(runs) > 1 else ""
        ours[budget] = statistics.mean(accuracies)
        seconds = statistics.mean(run["seconds"] for run in runs)
        note = f"{spread}{runs[0]['recipe']}, {seconds:.0f} s in all; seed 0: {runs[0]['text']}"
        yield Row(
            f"ours, {budget:g} min", "-", ours[budget], float("nan"), "% valid", float("nan"), len(runs), note
        )
    peer_minutes = [budget for budget in minutes if budget <= settings.peer_minutes]
    for recipe in peers.RECIPES:
        for budget, accuracy, epochs in peer_run(recipe, settings, peer_minutes):
            note = f"the peer had {epochs:.2f} epochs"
            gained = ours[budget] - 100 * accuracy
            yield Row(
                f"ours, {budget:g} min", recipe.name, ours[budget], 100 * accuracy, "% valid", gained, 1, note
            )
    for goal in GOALS:
        times = [seconds for seconds, accuracy in reached if accuracy >= goal]
        if times:
            shortest = min(times)
            yield Row(
                f"shortest run to {100 * goal:.2f} %",
                "-",
                shortest,
                float("nan"),
                "s",
                float("nan"),
                len(times),
            )


def our_run(settings: Settings, budget: float, seed: int) -> dict:
    """Load, train, validate within `budget` seconds; what came of it and how long it took."""
    with tempfile.TemporaryDirectory() as out:
        knobs = {"preset": "quick", "data": settings.data, "out": out, "seed": seed, "views": "plain"}
        config = Config.from_dict(knobs | {"device": settings.device.type, "width": 1.0})
        start = time.perf_counter()
        competition = load_competition(config.data, **config.data_options)
        loading = time.perf_counter() - start
        # Choosing network and epochs is not part of the run: a person reads them off an earlier one.
        config = longest_within(budget - loading, config, competition)
        start = time.perf_counter()
        with contextlib.redirect_stdout(sys.stderr):  # the table has standard output for itself
            run = fit(config, replace(competition, test=None, submission=None))
        seconds = loading + time.perf_counter() - start
        plain = run.metrics["valid"]["plain"]
    return {
        "seconds": seconds,
        "accuracy": plain["accuracy"],
        "recipe": f"{config.model}, {config.epochs} epochs",
        "text": describe(plain),
    }


def longest_within(seconds: float, config: Config, competition: Competition) -> Config:
    """`config` with the largest network that sees the pictures `ENOUGH_EPOCHS` times within `seconds`, or
    else the smallest, and with as many epochs as fit."""
    for model in ("small",) if seconds < 60 and config.device == "cpu" else ("large", "medium", "small"):
        sized = replace(config, model=model)
        epochs = epochs_within(seconds, sized, competition)
        if epochs >= ENOUGH_EPOCHS:
            break
    return replace(sized, epochs=epochs)


def epochs_within(seconds: float, config: Config, competition: Competition) -> int:
    """The most epochs, at least one, that end within `seconds` by the measured speed."""
    steps = len(batches(len(competition.train), config, 0))
    cost: dict[int, float] = {}

    def total(epochs: int) -> float:
        longer = replace(config, epochs=epochs)
        sizes = [size_of_epoch(longer, epoch) for epoch in range(epochs)]
        for size in set(sizes) - set(cost):
            same = replace(config, epochs=1, start_size=0, image_size=size)
            cost[size] = steps * seconds_per_step(same, at_size(competition, size), steps=3)
        # Validating, writing and the last predictions cost about as much as 6 % of the training.
        return 1.06 * sum(cost[size] for size in sizes) + 2

    return max([1, *itertools.takewhile(lambda epochs: total(epochs) <= seconds, range(1, 200))])


def at_size(competition: Competition, size: int) -> Competition:
    """The first pictures of the training split, cut to `size` pixels: good enough to time a step."""
    train = competition.train.take(np.arange(min(len(competition.train), 2048)))
    return replace(
        competition, train=replace(train, images=np.ascontiguousarray(train.images[..., :size, :size]))
    )


def peer_run(
    recipe: peers.Recipe, settings: Settings, minutes: tuple[float, ...]
) -> Iterator[tuple[float, float, float]]:
    """Train as the peer does; yields each budget in minutes, the valid accuracy then, and the epochs done."""
    device = choose_device(settings.device.type)
    clock = time.perf_counter()
    competition = load_competition(settings.data)
    torch.manual_seed(0)
    model, optimizer = recipe.build(len(competition.class_names), device)
    workers = os.cpu_count() or 0 if device.type == "cuda" else 0  # on a CPU they would take the net's cores
    train = competition.train
    loader = peers.loader(train.images, train.labels, recipe.transform, recipe.batch_size, workers)
    left, done = list(minutes), 0
    while left:
        for images, labels in loader:
            crops = images.shape[1] if images.ndim == 5 else 1
            model.train()
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda"):
                logits = model(images.to(device).flatten(0, -4))
            loss = F.cross_entropy(logits.float(), labels.to(device).repeat_interleave(crops))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            done += len(labels)
            synchronize(device)
            if time.perf_counter() - clock >= 60 * left[0]:
                looking = time.perf_counter()
                yield left.pop(0), peer_accuracy(model, competition, recipe.crop), done / len(train)
                clock += time.perf_counter() - looking
                if not left:
                    break


@torch.no_grad()
def peer_accuracy(model: nn.Module, competition: Competition, crop: int) -> float:
    """Valid accuracy on the centre of every picture."""
    model.eval()
    valid, device = competition.valid, next(model.parameters()).device
    edge = (valid.images.shape[-1] - crop) // 2
    middle = torch.from_numpy(valid.images[..., edge : edge + crop, edge : edge + crop]).float() / 255
    probs = torch.cat([model(batch.to(device)).softmax(1).cpu() for batch in middle.split(256)])
    return evaluate(probs.numpy(), valid.labels, competition.class_names)["accuracy"]
