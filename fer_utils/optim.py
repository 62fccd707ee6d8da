"""Optimizer, learning-rate schedule and moving average of the weights."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from torch import nn

from fer_utils.config import Config


def make_optimizer(model: nn.Module, config: Config) -> torch.optim.Optimizer:
    """SGD with Nesterov momentum, or AdamW (Loshchilov and Hutter 2019).

    Weight decay acts on neither norms nor biases.
    """
    decayed = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    groups = [
        {"params": decayed, "weight_decay": config.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=config.learning_rate, betas=(config.momentum, 0.999), fused=True)
    nesterov = config.momentum > 0
    return torch.optim.SGD(
        groups, lr=config.learning_rate, momentum=config.momentum, nesterov=nesterov, fused=True
    )


def learning_rate_factor(progress: float, config: Config) -> float:
    """The share of `learning_rate` in use when `progress` (0..1) of all steps is done.

    All schedules climb linearly over the first `warmup` share; "onecycle" then falls linearly to zero
    (Smith and Topin 2018), "cosine" along half a cosine (Loshchilov and Hutter 2017), "constant" stays.
    """
    if progress < config.warmup:
        return 0.02 + 0.98 * progress / config.warmup
    rest = (progress - config.warmup) / (1 - config.warmup)
    if config.schedule == "onecycle":
        return max(1 - rest, 0.0)
    return (1 + math.cos(math.pi * rest)) / 2 if config.schedule == "cosine" else 1.0


class MovingAverage:
    """A copy of a network that follows it by an exponential moving average (Polyak and Juditsky 1992).

    The decay grows from 0.2 to `decay` over the first steps, so that the random start is soon forgotten; the
    statistics of batch normalization are averaged with the weights. torch's own AveragedModel asks the device
    for its counter at every step, so the device would wait for the host; this one counts on the host.
    """

    def __init__(self, model: nn.Module, decay: float):
        self.model = copy.deepcopy(model).requires_grad_(False)
        self.decay = decay
        self.updates = 0

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Follow `model`, the network that this one is a copy of, by one step."""
        pairs = list(zip(self.model.state_dict().values(), model.state_dict().values(), strict=True))
        floats = [pair for pair in pairs if pair[0].is_floating_point()]
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates)) if self.updates else 0.0
        torch._foreach_lerp_([mine for mine, _ in floats], [theirs for _, theirs in floats], 1 - decay)
        for mine, theirs in pairs:
            if not mine.is_floating_point():  # the counters of batch normalization
                mine.copy_(theirs)
        self.updates += 1

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` takes."""
        return {"model": self.model.state_dict(), "updates": self.updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from where another average stood."""
        self.model.load_state_dict(state["model"])
        self.updates = state["updates"]


def class_weights(counts: torch.Tensor, power: float) -> torch.Tensor:
    """Loss weights [C] proportional to (1 / count) ** `power`, averaging 1 over the pictures."""
    weights = counts.clamp_min(1).float() ** -power
    return weights * counts.sum() / (weights * counts).sum()
