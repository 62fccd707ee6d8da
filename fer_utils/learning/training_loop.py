"""The training loop: what changes while a network learns, and an epoch of it.

The whole training split lies on the device as uint8 and becomes float a batch at a time; every random draw
depends only on the seed and the step, so a run that was interrupted goes on exactly as it would have.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fer_utils.competition import Competition, Split
from fer_utils.config import Config, ConfigError
from fer_utils.learning.augment import augment, mix, resize, to_float
from fer_utils.learning.device import choose_precision
from fer_utils.learning.distributed import ALONE, Team, share_norms
from fer_utils.learning.models import create_model, whiten_stem
from fer_utils.learning.optim import (
    MovingAverage,
    class_weights,
    climbed,
    learning_rate_factor,
    make_optimizer,
)


class TrainingError(RuntimeError):
    """Training cannot go on; the message says why and what to change."""


@dataclass
class Learner:
    """All that changes while training, and all that a checkpoint holds."""

    config: Config
    num_classes: int
    model: nn.Module
    forward: Callable[[Tensor], Tensor]
    optimizer: torch.optim.Optimizer
    average: MovingAverage | None
    scaler: torch.amp.GradScaler
    dtype: torch.dtype
    class_weight: Tensor | None
    totals: Tensor  # summed loss and hits of the epoch so far, float32 [2]: read once an epoch
    fingerprint: str = ""  # of the data
    team: Team = ALONE
    epoch: int = 0  # epochs done
    step: int = 0  # steps done of the epoch under way
    resumed: int = 0
    seconds: float = 0.0
    epoch_seconds: list[float] = field(default_factory=list)  # `seconds` at the end of each epoch
    compile_seconds: float = 0.0
    validation_seconds: float = 0.0  # of the shortest validation
    history: list[dict[str, Any]] = field(default_factory=list)
    best: dict[str, Any] = field(default_factory=lambda: {"accuracy": -1.0, "loss": math.inf, "epoch": 0})

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def diverged(self, what: str) -> str:
        """The message for a training that ran away to `what`."""
        epoch = self.epoch + (self.step > 0)
        return (
            f"training ran to {what} in epoch {epoch}; what was saved before is kept. Start again "
            f"with another out and a lower learning_rate (now {self.config.learning_rate:g}), clip_norm 1.0 "
            "or precision 'fp32'"
        )


def new_learner(
    config: Config,
    competition: Competition,
    device: torch.device,
    team: Team = ALONE,
    precision: str | None = None,
) -> Learner:
    """A learner before its first step; `team` are the processes that train it together, and `precision` is
    what "auto" was decided to be before."""
    torch.manual_seed(config.seed)
    model = create_model(config.model, len(competition.class_names), **config.model_options)
    if config.whiten and config.pretrained:
        raise ConfigError(
            "whiten would overwrite the first layer of the pretrained weights: take one of both"
        )
    if config.whiten:
        whiten_stem(model, competition.train.images)
    model = model.to(device, memory_format=torch.channels_last)
    counts = torch.tensor(np.bincount(competition.train.labels, minlength=len(competition.class_names)))
    dtype = team.agree(choose_precision(precision or config.precision, model, config.image_size))
    if team.size > 1:
        model = share_norms(model)
    return Learner(
        config=config,
        num_classes=len(competition.class_names),
        model=model,
        forward=team.wrap(model),
        optimizer=make_optimizer(model, config, dtype),
        average=MovingAverage(model, config.ema_decay) if config.ema_decay else None,
        scaler=torch.amp.GradScaler(device.type, enabled=dtype == torch.float16),
        dtype=dtype,
        class_weight=class_weights(counts, config.class_weight).to(device) if config.class_weight else None,
        totals=torch.zeros(2, device=device),
        fingerprint=competition.fingerprint,
        team=team,
    )


def place(images: np.ndarray, device: torch.device) -> Tensor:
    """All pictures uint8 on `device`; on the host where they would fill more than half of a GPU's free
    memory, from where each batch then moves by itself."""
    pictures = torch.from_numpy(np.require(images, requirements="W"))
    if device.type == "cuda" and pictures.nbytes > torch.cuda.mem_get_info(device)[0] / 2:
        return pictures
    return pictures.to(device)


def train_epoch(
    learner: Learner,
    images: Tensor,
    labels: Tensor,
    epoch: int,
    step_context: Callable[[], AbstractContextManager] = nullcontext,
    soft: Tensor | None = None,
) -> tuple[float, float]:
    """One pass over the training split, or what is left of it; returns its mean loss and accuracy (on the
    augmented pictures).

    Args:
        images: uint8 [N, 1, H, W] as `place` put them.
        labels: int64 [N] on the learner's device.
        step_context: each step runs in one of these; on leaving it the learner is whole and may be saved.
        soft: float32 [N, C], to learn from instead of `labels`; each row sums to 1.

    Raises:
        TrainingError: the loss is no longer a number.
    """
    config, device, team = learner.config, learner.device, learner.team
    learner.model.train()
    size = size_of_epoch(config, epoch)
    order = batches(len(labels), config, epoch)
    steps, n = order.shape
    order, picture_rows = order.to(device), order.to(images.device)
    mine = team.share(n)
    for step in range(learner.step, steps):
        with step_context():
            done = epoch * steps + step
            generator = _generator(config.seed, 1 + done, device, team)
            rate = config.learning_rate * learning_rate_factor(done / (config.epochs * steps), config)
            for group in learner.optimizer.param_groups:
                group["lr"] = rate
            batch, true = to_float(images[picture_rows[step]].to(device)), labels[order[step]]
            batch = resize(augment(batch, config, generator), size)
            targets = F.one_hot(true, learner.num_classes).float() if soft is None else soft[order[step]]
            batch, targets = mix(batch, targets, config.mixup, config.cutmix, generator)
            batch = batch[mine].contiguous(memory_format=torch.channels_last)
            learner.totals += _step(learner, batch, targets[mine], true[mine], len(batch) * team.size / n)
            learner.step = step + 1
    loss, hits = (team.add(learner.totals) / order.numel()).tolist()
    if not math.isfinite(loss):
        raise TrainingError(learner.diverged(f"a loss of {loss}"))
    learner.step, learner.totals = 0, torch.zeros_like(learner.totals)
    return loss, hits


def _step(learner: Learner, batch: Tensor, targets: Tensor, labels: Tensor, share: float) -> Tensor:
    """One update of the weights; returns the summed loss and the hits, on the device.

    `share` is 1, or what a process of a team computes against the mean of all, whose gradients are averaged.
    """
    loss, hits = forward_backward(learner, batch, targets, labels, share)
    config = learner.config
    if config.sam:
        with climbed(learner.model, config.sam):
            forward_backward(learner, batch, targets, labels, share)
    if config.clip_norm:
        learner.scaler.unscale_(learner.optimizer)
        nn.utils.clip_grad_norm_(learner.model.parameters(), config.clip_norm)
    learner.scaler.step(learner.optimizer)
    learner.scaler.update()
    if learner.average is not None:
        learner.average.update(learner.model)
    return torch.stack([loss * len(batch), hits])


def forward_backward(
    learner: Learner, batch: Tensor, targets: Tensor, labels: Tensor, share: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Fill the gradients from a batch; returns its mean loss and its hits, on the device."""
    config = learner.config
    with torch.autocast(batch.device.type, dtype=learner.dtype, enabled=learner.dtype != torch.float32):
        logits = learner.forward(batch)
    loss = F.cross_entropy(
        logits.float(), targets, weight=learner.class_weight, label_smoothing=config.label_smoothing
    )
    learner.optimizer.zero_grad(set_to_none=True)
    learner.scaler.scale(loss * share).backward()
    return loss.detach(), (logits.argmax(1) == labels).sum()


def batches(n: int, config: Config, epoch: int) -> Tensor:
    """Row numbers [steps, batch] of each batch, newly shuffled every epoch.

    All batches are equal, which compiled networks and teams need: up to steps - 1 pictures, others every
    time, sit an epoch out.
    """
    order = torch.randperm(n, generator=_generator(config.seed, -1 - epoch, torch.device("cpu")))
    steps = math.ceil(n / config.batch_size)
    return order[: n // steps * steps].view(steps, -1)


def _generator(seed: int, step: int, device: torch.device, team: Team = ALONE) -> torch.Generator:
    """Random numbers that depend on the seed and the step alone, and so are the team's; dropout draws from
    torch's global ones, which each process has for itself. Python's and numpy's are set likewise, for
    networks that draw from those: the step tells every random state, so checkpoints need to hold none."""
    number = (seed * 1_000_003 + step) % 2**63
    own = (number + team.rank * 2**40) % 2**63
    torch.manual_seed(own)
    random.seed(own)
    np.random.seed(own % 2**32)  # noqa: NPY002 - the global one is what foreign networks use
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
    candidates = {"weights": learner.model}
    if learner.average is not None:
        candidates["average"] = learner.average.model
    for kind, model in candidates.items():
        logits = _valid_logits(learner, model, valid)
        labels = torch.tensor(valid.labels)
        loss = F.cross_entropy(logits, labels).item()
        accuracy = (logits.argmax(1) == labels).float().mean().item()
        suffix = "" if kind == "weights" else "_average"
        row |= {f"valid_loss{suffix}": loss, f"valid_accuracy{suffix}": accuracy}
        if (accuracy, -loss) > (learner.best["accuracy"], -learner.best["loss"]):
            state = {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}
            learner.best = dict(accuracy=accuracy, loss=loss, epoch=learner.epoch + 1, kind=kind, state=state)
    return row


def _valid_logits(learner: Learner, model: nn.Module, valid: Split) -> Tensor:
    """Logits [N, C] of the whole split; the processes of a team compute a part each."""
    model.eval()
    mine = learner.team.share(len(valid))
    logits = torch.zeros(len(valid), learner.num_classes, device=learner.device)
    images = torch.from_numpy(np.require(valid.images[mine], requirements="W"))
    size = learner.config.evaluation_batch
    for rows, batch in zip(logits[mine].split(size), images.split(size), strict=True):
        batch = to_float(batch.to(learner.device)).contiguous(memory_format=torch.channels_last)
        with torch.autocast(batch.device.type, dtype=learner.dtype, enabled=learner.dtype != torch.float32):
            rows.copy_(model(batch))
    return learner.team.add(logits).cpu()
