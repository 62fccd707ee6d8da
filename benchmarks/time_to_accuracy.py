"""Time to accuracy: from data on disk to a validated accuracy, everything included.

Ours are the presets of the device, each a training whose schedule ends in its time. A peer trains once, with
its own pipeline, network and constant starting rate (its schedule would lower it after days). It is validated
when each of our presets has ended, which does not count against it. The accuracy is that of the validation
split, which on FER2013 is PublicTest, without views; ours is that of the epoch that was chosen on this split,
the peers' that of the moment. On two CPU cores a step runs at about four fifths of the machine's matrix rate
(`training_step`): what is left to gain is in the recipe and not in the code.
"""

from __future__ import annotations

import contextlib
import math
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import nn
from torch.nn import functional as F

from benchmarks import peers
from benchmarks.timing import Row, Settings, synchronize
from fer_utils.competition import Competition
from fer_utils.config import Config
from fer_utils.data.load import load_competition
from fer_utils.learning.device import choose_device
from fer_utils.learning.metrics import describe, evaluate
from fer_utils.run.train import fit

GOALS = (0.60, 0.65, 0.70, 0.7116)  # the last is the score of the contest's winner in 2013 (Tang 2013)


RUNGS = {"cpu": ("quick", "standard", "best"), "cuda": ("gpu-10s", "gpu-30s", "gpu-2min", "gpu-10min")}


def rows(settings: Settings) -> Iterator[Row]:
    """Ours for each preset, then each peer after the same times, then the seconds to each goal."""
    reached: list[tuple[float, float]] = []  # seconds, accuracy
    ours: dict[float, tuple[str, float]] = {}  # minutes -> preset, mean accuracy
    for preset in RUNGS.get(settings.device.type, RUNGS["cpu"])[: 1 if settings.quick else None]:
        runs = [our_run(settings, preset, seed) for seed in range(settings.seeds)]
        reached += [(run["seconds"], run["accuracy"]) for run in runs]
        accuracies = [100 * run["accuracy"] for run in runs]
        spread = f"sd {statistics.stdev(accuracies):.2f}; " if len(runs) > 1 else ""
        mean, seconds = statistics.mean(accuracies), statistics.mean(run["seconds"] for run in runs)
        ours[seconds / 60] = preset, mean
        note = f"{spread}{runs[0]['recipe']}, {seconds:.0f} s in all; seed 0: {runs[0]['text']}"
        yield Row(f"ours, {preset}", "-", mean, math.nan, "% valid", math.nan, len(runs), note)
    minutes = [budget for budget in sorted(ours) if budget <= settings.peer_minutes]
    for recipe in peers.RECIPES:
        for budget, accuracy, epochs in peer_run(recipe, settings, minutes):
            preset, mean = ours[budget]
            note = f"the peer had {budget:.1f} min, {epochs:.2f} epochs"
            gained = mean - 100 * accuracy
            yield Row(f"ours, {preset}", recipe.name, mean, 100 * accuracy, "% valid", gained, 1, note)
    for goal in GOALS:
        times = [seconds for seconds, accuracy in reached if accuracy >= goal]
        if times:
            name = f"shortest run to {100 * goal:.2f} %"
            yield Row(name, "-", min(times), math.nan, "s", math.nan, len(times))


def our_run(settings: Settings, preset: str, seed: int) -> dict:
    """Load, train and validate as `preset` says; what came of it and how long it took."""
    with tempfile.TemporaryDirectory() as out:
        parameters = {"preset": preset, "data": settings.data, "out": out, "seed": seed, "views": "plain"}
        parameters |= {"device": settings.device.type}
        parameters |= {"width": 0.25, "epochs": 1} if settings.quick else {}
        config = Config.from_dict(parameters)
        start = time.perf_counter()
        competition = load_competition(config.data, **config.data_options)
        with contextlib.redirect_stdout(sys.stderr):  # the table has standard output for itself
            run = fit(config, replace(competition, test=None, submission=None))
        seconds = time.perf_counter() - start
    plain = run.metrics["valid"]["plain"]
    return {
        "seconds": seconds,
        "accuracy": plain["accuracy"],
        "recipe": f"{config.model}, width {config.width:g}, {config.epochs} epochs",
        "text": describe(plain),
    }


def peer_run(
    recipe: peers.Recipe, settings: Settings, minutes: Sequence[float]
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
    """Valid accuracy on the centre of every image."""
    model.eval()
    valid, device = competition.valid, next(model.parameters()).device
    edge = (valid.images.shape[-1] - crop) // 2
    middle = torch.from_numpy(valid.images[..., edge : edge + crop, edge : edge + crop]).float() / 255
    probs = torch.cat([model(batch.to(device)).softmax(1).cpu() for batch in middle.split(256)])
    return evaluate(probs.numpy(), valid.labels, competition.class_names)["accuracy"]
