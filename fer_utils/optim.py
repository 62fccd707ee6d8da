"""Optimizer, learning-rate schedule and moving average of the weights."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

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


def moving_average(model: nn.Module, decay: float) -> AveragedModel:
    """A copy of `model` that follows it by an exponential moving average (Polyak and Juditsky 1992).

    The decay grows from 0.2 to `decay` over the first steps, so that the random start is soon forgotten;
    the statistics of batch normalization are averaged with the weights.
    """

    def update(averages, currents, count):
        share = 1 - min(decay, (1 + float(count)) / (10 + float(count)))
        if torch.is_floating_point(averages[0]):
            torch._foreach_lerp_(averages, currents, share)
        else:
            for average, current in zip(averages, currents, strict=True):
                average.copy_(current)

    return AveragedModel(model, multi_avg_fn=update, use_buffers=True)


def class_weights(counts: torch.Tensor, power: float) -> torch.Tensor:
    """Loss weights [C] proportional to (1 / count) ** `power`, averaging 1 over the pictures."""
    weights = counts.clamp_min(1).float() ** -power
    return weights * counts.sum() / (weights * counts).sum()
