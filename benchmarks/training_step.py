"""Training step: our whole loop against nothing but forward, backward and step of the same net on ready data.

Where a step goes, by torch.profiler (`small`, 28 pixels, batches of 256, Muon, float32, one Xeon core): 68
% in convolutions, 11 % in Muon's matrix products, 13 % in batch normalization and ReLU; the loop around the
step adds 2 to 5 %: augmentation, the moving average, shuffling. The floor is the operations of the net over
the machine's measured rate of a large matrix product; the second row of every net says how far it is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from torch.nn import functional as F

from benchmarks.timing import Row, Settings, matrix_rate, take_turns
from fer_utils.competition import Competition
from fer_utils.data.load import load_competition
from fer_utils.learning.models import model_cost
from fer_utils.learning.training_loop import Learner, place, train_epoch

STEPS = 4


def rows(settings: Settings) -> Iterator[Row]:
    """For each net: the loop, its parts that a choice decides, and the distance to the floor."""
    device = settings.device
    competition = load_competition(settings.data)
    seconds = 4.0 if settings.quick else 30.0
    names = ("small", "medium") if device.type == "cpu" else ("medium", "large")
    for config in settings.nets(*names):
        name = config.model if config.width == 1 else f"{config.model}, width {config.width:g}"
        learner = Learner(config, competition, device)
        config = learner.config  # with the size of the images
        precision = str(learner.dtype).removeprefix("torch.")
        loop, step = epoch_of(learner, competition), bare_step(learner)

        def bare(step=step) -> None:
            for _ in range(STEPS):
                step()

        a, b, ratio, n = take_turns(loop, bare, seconds, device)
        what = f"whole loop, {name} {config.image_size} px, {precision}"
        yield Row(
            what,
            "bare forward, backward, step",
            1e3 * a / STEPS,
            1e3 * b / STEPS,
            "ms/step",
            ratio,
            n,
            f"loop over bare: {1 / ratio:.3f}",
        )
        operations = 6 * model_cost(learner.model, config.image_size)[1] * config.batch_size
        floor = operations / matrix_rate(learner.dtype, device)
        yield Row(
            what,
            "its operations at the matrix rate",
            1e3 * a / STEPS,
            1e3 * floor,
            "ms/step",
            floor * STEPS / a,
            n,
            f"{operations / 1e9:.0f} GFLOP a step",
        )
        if device.type == "cpu":
            other = torch.bfloat16 if learner.dtype == torch.float32 else torch.float32
            rival = bare_step(replace(learner, dtype=other))
            a, b, ratio, n = take_turns(step, rival, seconds / 2, device)
            yield Row(
                f"bare step, {name}, {precision} (chosen)",
                f"{str(other)[6:]}",
                1e3 * a,
                1e3 * b,
                "ms/step",
                ratio,
                n,
            )


def epoch_of(learner: Learner, competition: Competition) -> Callable[[], object]:
    """A function that trains on `STEPS` batches with all that belongs to it."""
    train = competition.train.take(
        torch.arange(STEPS * learner.config.batch_size).numpy() % len(competition.train)
    )
    images = place(train.images, learner.device)
    labels = torch.tensor(train.labels, device=learner.device)
    return lambda: train_epoch(learner, images, labels, 0)


def bare_step(learner: Learner) -> Callable[[], None]:
    """A function that does one step of the same net and optimizer on a ready batch, and nothing else."""
    config, device = learner.config, learner.device
    size = config.image_size
    batch = torch.rand(config.batch_size, 1, size, size, device=device)
    batch = batch.contiguous(memory_format=torch.channels_last)
    labels = torch.randint(0, learner.num_classes, (config.batch_size,), device=device)
    learner.model.train()

    def step() -> None:
        with learner.autocast():
            logits = learner.forward(batch)
        loss = F.cross_entropy(logits.float(), labels)
        learner.optimizer.zero_grad(set_to_none=True)
        learner.scaler.scale(loss).backward()
        learner.scaler.step(learner.optimizer)
        learner.scaler.update()

    for group in learner.optimizer.param_groups:
        group["lr"] = 1e-6 if math.isfinite(group["lr"]) else 0.0
    return step
