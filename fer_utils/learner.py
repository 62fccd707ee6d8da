"""The training loop: what changes while a network learns, an epoch of it, and its checkpoint.

The whole training split lies on the device as uint8 and becomes float a batch at a time; every random draw
depends only on the seed and the step, so a run that was interrupted goes on exactly as it would have.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fer_utils.augment import augment, mix, resize, to_float
from fer_utils.config import Config
from fer_utils.device import choose_precision
from fer_utils.faces import Competition, Split
from fer_utils.files import atomic_write
from fer_utils.models import create_model
from fer_utils.optim import class_weights, learning_rate_factor, make_optimizer, moving_average


class TrainingError(RuntimeError):
    """Training cannot go on; the message says why and what to change."""


@dataclass
class Learner:
    """All that changes while training, and all that a checkpoint holds."""

    config: Config
    num_classes: int
    model: nn.Module
    optimizer: torch.optim.Optimizer
    average: nn.Module | None
    scaler: torch.amp.GradScaler
    dtype: torch.dtype
    class_weight: Tensor | None
    epoch: int = 0
    seconds: float = 0.0
    history: list[dict[str, Any]] = field(default_factory=list)
    best: dict[str, Any] = field(default_factory=lambda: {"accuracy": -1.0, "loss": math.inf, "epoch": 0})

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device


def new_learner(config: Config, competition: Competition, device: torch.device) -> Learner:
    torch.manual_seed(config.seed)
    model = create_model(config.model, len(competition.class_names), **config.model_options)
    model = model.to(device, memory_format=torch.channels_last)
    counts = torch.tensor(np.bincount(competition.train.labels, minlength=len(competition.class_names)))
    dtype = choose_precision(config.precision, model, config.image_size)
    return Learner(
        config=config,
        num_classes=len(competition.class_names),
        model=model,
        optimizer=make_optimizer(model, config),
        average=moving_average(model, config.ema_decay) if config.ema_decay else None,
        scaler=torch.amp.GradScaler(device.type, enabled=dtype == torch.float16),
        dtype=dtype,
        class_weight=class_weights(counts, config.class_weight).to(device) if config.class_weight else None,
    )


def train_epoch(learner: Learner, images: Tensor, labels: Tensor, epoch: int) -> tuple[float, float]:
    """One pass over the training split; returns its mean loss and accuracy (on the augmented pictures)."""
    config, device = learner.config, learner.device
    learner.model.train()
    size = size_of_epoch(config, epoch)
    steps = math.ceil(len(images) / config.batch_size)
    totals = torch.zeros(2, device=device)  # summed loss, hits: read once an epoch, so the device never waits
    for step, rows in enumerate(batches(len(images), config, epoch, device)):
        done = epoch * steps + step
        generator = _generator(config.seed, 1 + done, device)
        rate = config.learning_rate * learning_rate_factor(done / (config.epochs * steps), config)
        for group in learner.optimizer.param_groups:
            group["lr"] = rate
        batch = resize(augment(to_float(images[rows]), config, generator), size)
        targets = F.one_hot(labels[rows], learner.num_classes).float()
        batch, targets = mix(batch, targets, config.mixup, config.cutmix, generator)
        totals += _step(learner, batch.contiguous(memory_format=torch.channels_last), targets, labels[rows])
    loss, hits = (totals / len(images)).tolist()
    if not math.isfinite(loss):
        kept = f" (the checkpoint of epoch {epoch} is kept there)" if epoch else ""
        raise TrainingError(
            f"the loss became {loss} in epoch {epoch + 1}{kept}. Start again with another out and a lower "
            f"learning_rate (now {config.learning_rate:g}), clip_norm 1.0 or precision 'fp32'"
        )
    return loss, hits


def _step(learner: Learner, batch: Tensor, targets: Tensor, labels: Tensor) -> Tensor:
    """One update of the weights; returns the summed loss and the hits, on the device."""
    config, device = learner.config, learner.device
    with torch.autocast(device.type, dtype=learner.dtype, enabled=learner.dtype != torch.float32):
        logits = learner.model(batch)
    loss = F.cross_entropy(
        logits.float(), targets, weight=learner.class_weight, label_smoothing=config.label_smoothing
    )
    learner.optimizer.zero_grad(set_to_none=True)
    learner.scaler.scale(loss).backward()
    if config.clip_norm:
        learner.scaler.unscale_(learner.optimizer)
        nn.utils.clip_grad_norm_(learner.model.parameters(), config.clip_norm)
    learner.scaler.step(learner.optimizer)
    learner.scaler.update()
    if learner.average is not None:
        learner.average.update_parameters(learner.model)
    hits = (logits.argmax(1) == labels).sum()
    return torch.stack([loss.detach() * len(batch), hits])


def batches(n: int, config: Config, epoch: int, device: torch.device) -> Iterator[Tensor]:
    """Row numbers of each batch, newly shuffled every epoch, in batches of nearly equal size."""
    order = torch.randperm(n, generator=_generator(config.seed, -1 - epoch, torch.device("cpu")))
    yield from order.to(device).tensor_split(math.ceil(n / config.batch_size))


def _generator(seed: int, step: int, device: torch.device) -> torch.Generator:
    """Random numbers that depend on the seed and the step alone; dropout's global ones are set alike."""
    number = (seed * 1_000_003 + step) % 2**63
    torch.manual_seed(number)
    return torch.Generator(device).manual_seed(number)


def size_of_epoch(config: Config, epoch: int) -> int:
    """Pixels in `epoch`: from start_size up to image_size over the first two thirds, in steps of 4
    (progressive resizing: small pictures teach the coarse first, for less; Howard 2018)."""
    growth = min(1.0, epoch / max(1, round(config.epochs * 2 / 3)))
    if not config.start_size or growth == 1:
        return config.image_size
    size = config.start_size + (config.image_size - config.start_size) * growth
    return min(config.image_size, max(config.start_size, round(size / 4) * 4))


@torch.no_grad()
def validate(learner: Learner, valid: Split) -> dict[str, float]:
    """Loss and accuracy of the weights and of their moving average; keeps a copy of the best so far."""
    row = {}
    candidates = {"weights": learner.model, "average": learner.average}
    for kind, model in candidates.items():
        if model is None:
            continue
        logits = _valid_logits(learner, model, valid)
        labels = torch.tensor(valid.labels)
        loss = F.cross_entropy(logits, labels).item()
        accuracy = (logits.argmax(1) == labels).float().mean().item()
        suffix = "" if kind == "weights" else "_average"
        row |= {f"valid_loss{suffix}": loss, f"valid_accuracy{suffix}": accuracy}
        if (accuracy, -loss) > (learner.best["accuracy"], -learner.best["loss"]):
            source = model if kind == "weights" else model.module
            state = {name: tensor.detach().cpu().clone() for name, tensor in source.state_dict().items()}
            learner.best = dict(accuracy=accuracy, loss=loss, epoch=learner.epoch + 1, kind=kind, state=state)
    return row


def _valid_logits(learner: Learner, model: nn.Module, valid: Split) -> Tensor:
    model.eval()
    rows = []
    for batch in torch.tensor(valid.images).split(512):
        batch = to_float(batch.to(learner.device)).contiguous(memory_format=torch.channels_last)
        with torch.autocast(learner.device.type, dtype=learner.dtype, enabled=learner.dtype != torch.float32):
            rows.append(model(batch).float())
    return torch.cat(rows).cpu()


def save_checkpoint(learner: Learner, out: Path) -> None:
    state = {
        "model": learner.model.state_dict(),
        "average": learner.average.state_dict() if learner.average is not None else None,
        "optimizer": learner.optimizer.state_dict(),
        "scaler": learner.scaler.state_dict(),
        "dtype": str(learner.dtype),
        "device": learner.device.type,
        "epoch": learner.epoch,
        "seconds": learner.seconds,
        "history": learner.history,
        "best": learner.best,
    }
    with atomic_write(out / "checkpoint.pt") as temporary:
        torch.save(state, temporary)


def load_checkpoint(learner: Learner, path: Path) -> None:
    state = torch.load(path, map_location=learner.device, weights_only=True)
    learner.model.load_state_dict(state["model"])
    if learner.average is not None:
        learner.average.load_state_dict(state["average"])
    learner.optimizer.load_state_dict(state["optimizer"])
    if state["device"] == learner.device.type:  # elsewhere the type that suits that device is taken
        learner.dtype = getattr(torch, state["dtype"].removeprefix("torch."))
        learner.scaler = torch.amp.GradScaler(learner.device.type, enabled=learner.dtype == torch.float16)
    if state["scaler"] and learner.scaler.is_enabled():
        learner.scaler.load_state_dict(state["scaler"])
    learner.epoch, learner.seconds = state["epoch"], state["seconds"]
    learner.history, learner.best = state["history"], state["best"]
