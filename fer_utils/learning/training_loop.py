"""The training loop: the state of a training, one epoch, and validation.

The whole training split is on the device as uint8 and becomes float batch by batch. Every random draw depends
only on the seed and the step, so an interrupted run resumes exactly.
"""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fer_utils.arrays_on_disk import fetch, is_large
from fer_utils.competition import Competition, Split
from fer_utils.config import Config, ConfigError
from fer_utils.faces.face_network import aligned
from fer_utils.files import Explained
from fer_utils.learning.augment import at_once, augment, channels_last, mix, resize, to_float
from fer_utils.learning.competition_metric import goodness
from fer_utils.learning.device import choose_precision
from fer_utils.learning.distributed import ALONE, Team, share_norms
from fer_utils.learning.models import check_start_size, create_model
from fer_utils.learning.optim import (
    MovingAverage,
    Muon,
    learning_rate_factor,
    make_optimizer,
    sam_perturbation,
    train_classifier_only,
)
from fer_utils.learning.pretrained import start_weights

# Batches that a thread fetches while the device computes: enough for a slow read now and then.
FETCHED_AHEAD = 3
MOST_LEFT_OUT = 0.01  # of the training images in an epoch
# Seeds of steps are positive, those of the order in an epoch begin at -1 and go down by at most 10,000.
VARIANT_OF_EPOCH = -20_000


class TrainingError(Explained, RuntimeError):
    """Training cannot continue; the message says why and what to change."""


class Learner:
    """Everything that changes in training and that a checkpoint stores, before the first step.

    Args:
        team: the processes that train it together.
        precision: what "auto" was resolved to in an earlier session; None: as in `config`.
        is_new: whether it starts from pretrained weights, if `config` names some, and not from a checkpoint.
        auxiliary: classes of the second task.

    Raises:
        ConfigError: the network cannot be built, or not in this precision or by several processes.
    """

    def __init__(
        self,
        config: Config,
        competition: Competition,
        device: torch.device,
        team: Team = ALONE,
        precision: str | None = None,
        is_new: bool = True,
        auxiliary: int = 0,
    ):
        torch.manual_seed(config.seed)
        config = config.at_size(competition.image_size)
        self.config, self.team = config, team
        self.fingerprint = competition.fingerprint
        self.num_classes = len(competition.class_names)
        has_file = config.weights != "none"
        options = config.model_options | {"channels": competition.channels, "auxiliary": auxiliary}
        options["pretrained"] = config.pretrained and is_new and not has_file
        model = create_model(config.model, self.num_classes, **options)
        if 0 < config.start_size < config.image_size:
            check_start_size(model, config, competition.channels)
        self.loaded = start_weights(model, config.weights) if is_new else None
        model = model.to(device, memory_format=torch.channels_last)
        self.device = next(model.parameters()).device
        precision = precision or config.precision
        dtype = team.agree(choose_precision(precision, model, config.image_size))
        if team.size > 1 and config.head_epochs:
            raise ConfigError("head_epochs must be 0 where several devices train one network")
        self.model = share_norms(model) if team.size > 1 else model
        self.forward = team.wrap(self.model)
        self.optimizer = make_optimizer(self.model, config)
        self.use_precision(dtype)
        self.average = MovingAverage(self.model, config.ema_decay) if config.ema_decay else None
        self.totals = torch.zeros(2, device=device)  # loss and hits of the epoch so far: read once an epoch
        self.epoch = 0  # epochs done
        self.step = 0  # steps done of the current epoch
        self.resumed = 0
        self.seconds = 0.0
        self.epoch_seconds: list[float] = []  # `seconds` at the end of each epoch
        self.validation_seconds = 0.0  # of the shortest validation
        self.history: list[dict[str, Any]] = []
        self.best: dict[str, Any] = {"score": -math.inf, "loss": math.inf, "epoch": 0}

    def use_precision(self, dtype: torch.dtype) -> None:
        """Compute in `dtype` from now on: the network, and with bfloat16 Muon too, as its authors do."""
        self.dtype = dtype
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=dtype == torch.float16)
        if isinstance(self.optimizer, Muon):
            self.optimizer.dtype = torch.bfloat16 if dtype == torch.bfloat16 else torch.float32

    def autocast(self) -> torch.autocast:
        """A context in which the heavy operations use `dtype`."""
        return torch.autocast(self.device.type, dtype=self.dtype, enabled=self.dtype != torch.float32)

    def diverged(self, what: str) -> str:
        """The message for a training that diverged to `what`."""
        return (
            f"training diverged to {what} in epoch {self.epoch + (self.step > 0)}; what was saved before is "
            "kept. Start again with another out and a lower learning_rate (now "
            f"{self.config.learning_rate:g}), clip_norm 1.0 or precision 'fp32'"
        )


def place(images: np.ndarray, device: torch.device) -> Tensor:
    """Images or features on `device`, or on the host if they fill more than half of a GPU's free memory."""
    host = torch.from_numpy(np.require(images, requirements="W"))
    too_large = device.type == "cuda" and host.nbytes > torch.cuda.mem_get_info(device)[0] / 2
    return host if too_large else host.to(device)


def train_epoch(
    learner: Learner,
    images: Tensor,
    labels: Tensor,
    epoch: int,
    step_context: Callable[[], AbstractContextManager] = nullcontext,
    soft: Tensor | None = None,
) -> tuple[float, float]:
    """One pass over the training split, or the rest of one; returns its mean loss and accuracy (on the
    augmented images).

    Args:
        images: uint8 [N, C, H, W], or `fixed_features` of them [N, K, D], as `place` put them.
        labels: int64 [N] on the learner's device.
        step_context: each step runs in one of these; when it ends, the learner may be saved.
        soft: float32 [N, C], targets that replace `labels` (a row sums to 1, or to less for an image that
            weighs less), and further columns for a second task.

    Raises:
        TrainingError: the loss is not a finite number.
    """
    config, device, team = learner.config, learner.device, learner.team
    learner.model.train()
    if config.head_epochs:
        train_classifier_only(learner.model, epoch < config.head_epochs)
    size = size_of_epoch(config, epoch)
    order = batches(len(labels), config, epoch)
    steps, n = order.shape
    gathered = gather(*_rows(images, order, config, epoch, learner.step), device)
    order = order.to(device)
    mine = team.share(n)
    for step in range(learner.step, steps):
        with step_context():
            done = epoch * steps + step
            generator = _generator(config.seed, 1 + done, device, team)
            rate = config.learning_rate * learning_rate_factor(done / (config.epochs * steps), config)
            for group in learner.optimizer.param_groups:
                group["lr"] = rate * group.get("lr_scale", 1.0)
            batch, true = to_float(next(gathered)), labels[order[step]]
            if images.dtype == torch.uint8:
                batch = augment(aligned(learner.model, batch), config, generator)
                # Aligned images have a size of their own.
                batch = resize(batch, size) if 0 < config.start_size < config.image_size else batch
            targets = F.one_hot(true, learner.num_classes).float() if soft is None else soft[order[step]]
            batch, targets = mix(batch, targets, config.mixup, config.cutmix, generator)
            batch = channels_last(batch[mine])
            learner.totals += _step(learner, batch, targets[mine], true[mine], len(batch) * team.size / n)
            learner.step = step + 1
    loss, hits = (team.add(learner.totals) / order.numel()).tolist()
    if not math.isfinite(loss):
        raise TrainingError(learner.diverged(f"a loss of {loss}"))
    learner.step, learner.totals = 0, torch.zeros_like(learner.totals)
    return loss, hits


def gather(images: Tensor, order: Tensor, device: torch.device) -> Iterator[Tensor]:
    """The images [B, ...] of each row of `order` [steps, B], on `device`.

    What lies elsewhere, in the host's memory or in a file, is fetched by a thread while the device computes.
    """
    if not images.is_cpu or (device.type == "cpu" and not is_large(images.nbytes)):
        order = order.to(device)
        yield from (images[rows] for rows in order)
        return
    pictures, rows = images.numpy(), order.numpy()
    with ThreadPoolExecutor(1) as thread:
        ahead = deque(thread.submit(fetch, pictures, some) for some in rows[:FETCHED_AHEAD])
        for step in range(len(order)):
            batch = ahead.popleft().result()
            if step + FETCHED_AHEAD < len(order):
                ahead.append(thread.submit(fetch, pictures, rows[step + FETCHED_AHEAD]))
            yield torch.from_numpy(batch).to(device)


def first_batch(config: Config, images: np.ndarray, device: torch.device) -> tuple[Tensor, ...]:
    """What the first step of a training sees of images uint8 [N, C, H, W]; dlib's network sees them aligned.

    Returns:
        The row numbers [B] of its images; these, augmented, as float [B, C, H, W]; what they are after
        `mix`; and [B, B], the share of each image (column) in each of those.
    """
    rows, generator = batches(len(images), config, 0)[0], _generator(config.seed, 1, device)
    batch = to_float(torch.from_numpy(images[rows.numpy()]).to(device))
    batch = resize(augment(batch, config, generator), size_of_epoch(config.at_size(images.shape[-1]), 0))
    own = torch.eye(len(batch), device=device)
    return rows, batch, *mix(batch, own, config.mixup, config.cutmix, generator)


def _step(learner: Learner, batch: Tensor, targets: Tensor, labels: Tensor, share: float) -> Tensor:
    """One update of the weights; returns the summed loss and the hits, on the device.

    `share` is 1, or this process's share of the batch times the size of the team, which averages gradients.
    """
    config = learner.config
    loss, hits = forward_backward(learner, batch, targets, labels, share)
    if config.sam:
        with sam_perturbation(learner.model, config.sam):
            forward_backward(learner, batch, targets, labels, share)
    if config.clip_norm:
        learner.scaler.unscale_(learner.optimizer)
        nn.utils.clip_grad_norm_(learner.model.parameters(), config.clip_norm)
    learner.scaler.step(learner.optimizer)
    learner.scaler.update()
    if learner.average:
        learner.average.update()
    return torch.stack([loss * len(batch), hits])


def forward_backward(
    learner: Learner, batch: Tensor, targets: Tensor, labels: Tensor, share: float
) -> tuple[Tensor, Tensor]:
    """Fill the gradients from a batch; returns its mean loss (without a second task's) and its hits."""
    n, smoothing = learner.num_classes, learner.config.label_smoothing
    with learner.autocast():
        logits = learner.forward(batch)
    loss = both = F.cross_entropy(logits[:, :n].float(), targets[:, :n], label_smoothing=smoothing)
    if targets.shape[1] > n:  # its targets are scaled by its weight
        both = loss + F.cross_entropy(logits[:, n:].float(), targets[:, n:])
    learner.optimizer.zero_grad()
    learner.scaler.scale(both * share).backward()
    return loss.detach(), (logits[:, :n].argmax(1) == labels).sum()


def batches(n: int, config: Config, epoch: int) -> Tensor:
    """Row numbers [steps, batch] of each batch, shuffled again every epoch.

    All batches have the same size, which teams need, and some images, others every time, are left out: of
    small batches with one image fewer that would be many, so there the last batch is left out.
    """
    order = torch.randperm(n, generator=_generator(config.seed, -1 - epoch, torch.device("cpu")))
    steps = math.ceil(n / config.batch_size)
    used = n // steps * steps
    whole = n // config.batch_size  # steps with batches of the full size
    if used < whole * config.batch_size and used < n * (1 - MOST_LEFT_OUT):
        steps, used = whole, whole * config.batch_size
    return order[:used].view(steps, -1)


def _generator(seed: int, step: int, device: torch.device, team: Team = ALONE) -> torch.Generator:
    """Random numbers determined by seed and step, the same in a whole team. The global generators of torch
    (for dropout), Python and numpy are seeded too, differently in each process. So checkpoints store no
    random states."""
    number = (seed * 1_000_003 + step) % 2**63
    own = (number + team.rank * 2**40) % 2**63
    torch.manual_seed(own)
    random.seed(own)
    np.random.seed(own % 2**32)  # noqa: NPY002 - other people's networks use the global one
    return torch.Generator(device).manual_seed(number)


def _rows(images: Tensor, order: Tensor, config: Config, epoch: int, step: int) -> tuple[Tensor, Tensor]:
    """What `gather` needs for an epoch from `step` on: images and row numbers; or the features of all
    variants, and row numbers of one variant of each image, drawn anew in every epoch."""
    if images.dtype == torch.uint8:
        return images, order[step:]
    generator = _generator(config.seed, VARIANT_OF_EPOCH - epoch, torch.device("cpu"))
    variants = torch.randint(images.shape[1], order.shape, generator=generator)
    return images.flatten(0, 1), (order * images.shape[1] + variants)[step:]


def size_of_epoch(config: Config, epoch: int) -> int:
    """Pixels in `epoch`: from start_size up to image_size over the first two thirds, in steps of 4
    (progressive resizing: small images teach coarse features first, at a lower cost; Howard 2018). Images
    that are no larger than start_size keep their size."""
    start, end = config.start_size, config.image_size
    growth = min(1.0, epoch / max(1, round(config.epochs * 2 / 3)))
    if not start or growth == 1:
        return end
    return min(end, max(start, round((start + (end - start) * growth) / 4) * 4))


@torch.no_grad()
def validate(learner: Learner, valid: Split, features: np.ndarray | None = None) -> dict[str, float]:
    """Loss, accuracy and any other `metric` (higher is better) of the weights and of their moving average;
    `learner.best` keeps the best so far. `features` [N, D] are those of the images, if they are known."""
    row, labels = {}, torch.tensor(valid.labels)
    models = {"weights": learner.model} | ({"average": learner.average.model} if learner.average else {})
    for kind, model in models.items():
        logits = _valid_logits(learner, model, valid.images if features is None else features)
        loss = F.cross_entropy(logits, labels).item()
        accuracy = (logits.argmax(1) == labels).float().mean().item()
        suffix = "_average" if kind == "average" else ""
        row |= {f"valid_loss{suffix}": loss, f"valid_accuracy{suffix}": accuracy}
        score = accuracy
        if learner.config.metric != "accuracy":
            score = goodness(learner.config.metric, logits.softmax(1).numpy(), valid.labels)
            row[f"valid_metric{suffix}"] = score
        if (score, -loss) > (learner.best["score"], -learner.best["loss"]):
            state = {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}
            learner.best = dict(score=score, loss=loss, epoch=learner.epoch + 1, kind=kind, state=state)
    return row


def _valid_logits(learner: Learner, model: nn.Module, images: np.ndarray) -> Tensor:
    """Logits [N, C] of the whole split; the processes of a team compute a part each."""
    model.eval()
    mine = learner.team.share(len(images))
    logits = torch.zeros(len(images), learner.num_classes, device=learner.device)
    own = torch.from_numpy(np.require(images[mine], requirements="W"))
    size = at_once(learner.config.evaluation_batch, learner.device)
    for rows, batch in zip(logits[mine].split(size), own.split(size), strict=True):
        batch = channels_last(aligned(model, to_float(batch.to(learner.device))))
        with learner.autocast():
            rows.copy_(model(batch))
    return learner.team.add(logits).cpu()
