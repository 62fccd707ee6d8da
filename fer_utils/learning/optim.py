"""Optimizer, learning-rate schedule and moving average of the weights."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from fer_utils.config import Config, ConfigError
from fer_utils.faces.face_network import is_face_network
from fer_utils.learning.pretrained import classifiers_of

# The length of Muon's updates is fixed, so its rate has a meaning of its own: `learning_rate` is that of SGD,
# and the convolutions move at this share of it, with the momentum of the paper.
MUON_SCALE = 0.5
MUON_MOMENTUM = 0.95
# Of hidden linear layers, which take plain SGD at the full rate: at the decay of the matrices (0.01) those of
# vgg_bn shrank from a norm of 16.8 to 2.1 within 400 steps.
HIDDEN_DECAY = 5e-4


def make_optimizer(model: nn.Module, config: Config) -> torch.optim.Optimizer:
    """SGD with Nesterov momentum, AdamW (Loshchilov and Hutter 2019), or Muon for the convolutions inside the
    network and SGD for all else (Jordan et al. 2024).

    Weight decay acts on neither norms nor biases.
    """
    if config.optimizer == "muon":
        return Muon(model, config)
    decayed = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    groups = [
        {"params": decayed, "weight_decay": config.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    if config.layer_decay < 1:
        groups = layer_groups(model, config)
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=config.learning_rate, betas=(config.momentum, 0.999), fused=True)
    nesterov = config.momentum > 0
    sgd = torch.optim.SGD(
        groups, lr=config.learning_rate, momentum=config.momentum, nesterov=nesterov, fused=True
    )
    if nesterov:  # where float16 overflows at the first step, torch would leave the momentum uninitialized
        for p in model.parameters():
            sgd.state[p]["momentum_buffer"] = torch.zeros_like(p)
    return sgd


def layer_groups(model: nn.Module, config: Config) -> list[dict[str, Any]]:
    """A group of parameters for each layer of timm/NAME or face_resnet; its "lr_scale" falls by `layer_decay`
    from the classifier down: published weights near the images are general and should move least (Howard and
    Ruder 2018; as in BEiT, Bao et al. 2022).

    Raises:
        ConfigError: this network does not say which its layers are.
    """
    from timm.optim import param_groups_layer_decay  # slow to import

    if not hasattr(getattr(model, "backbone", None), "group_matcher"):
        known = "only timm/NAME and face_resnet know their layers"
        raise ConfigError(f"layer_decay must be 1 for {config.model}: {known}")
    return param_groups_layer_decay(model.backbone, config.weight_decay, layer_decay=config.layer_decay)


def train_classifier_only(model: nn.Module, only: bool) -> None:
    """Let only the classifier take gradients; or all parameters again.

    Raises:
        ConfigError: it is no linear layer.
    """
    layers = classifiers_of(model)
    if not layers:
        raise ConfigError("head_epochs must be 0 for a network without a linear classifier")
    model.requires_grad_(not only)
    for layer in [model.backbone.heads] if is_face_network(model) else layers:
        layer.requires_grad_(True)


class Muon(torch.optim.Optimizer):
    """Momentum whose every update of a convolution is made orthogonal, so that all directions move alike
    (Jordan et al. 2024, "Muon: an optimizer for hidden layers"); Nesterov SGD for the first layer of
    grey images, the classifier, norms and biases.

    A kernel [O, I, h, w] counts as a matrix [O, I * h * w]. torch.optim.Muon takes matrices only; timm's Muon
    flattens kernels the same way, but would not repeat the bytes of the committed runs. With float16 the
    gradient scaler waits for the device once a step, as with every optimizer that is not fused.
    """

    def __init__(self, model: nn.Module, config: Config):
        self.dtype = torch.float32  # in which it orthogonalizes; the learner may set another
        parameters = list(model.parameters())
        matrices = [p for p in parameters if p.ndim == 4 and p.shape[1] > 1]
        # Linear layers before the classifier are wide (vgg_bn has 25 M weights there).
        last = {id(p) for layer in classifiers_of(model) for p in layer.parameters()}
        hidden = [p for p in parameters if p.ndim == 2 and id(p) not in last]
        chosen = {id(p) for p in (*matrices, *hidden)}
        others = [p for p in parameters if id(p) not in chosen]
        groups = [
            {"params": matrices, "orthogonal": True, "scale": MUON_SCALE, "momentum": MUON_MOMENTUM},
            {"params": [p for p in others if p.ndim > 1]},
            {"params": [p for p in others if p.ndim <= 1], "weight_decay": 0.0},
            {"params": hidden, "weight_decay": min(config.weight_decay, HIDDEN_DECAY)},
        ]
        defaults = {"lr": config.learning_rate, "momentum": config.momentum}
        defaults |= {"weight_decay": config.weight_decay, "orthogonal": False, "scale": 1.0}
        super().__init__(groups, defaults)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """Update every parameter that has a gradient."""
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if not parameters:
                continue
            gradients = [p.grad for p in parameters]
            if group["orthogonal"]:  # decay separately: the update loses the gradient's length
                torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
            elif group["weight_decay"]:
                gradients = torch._foreach_add(gradients, parameters, alpha=group["weight_decay"])
            for p in parameters:
                if not self.state[p]:
                    self.state[p]["momentum"] = torch.zeros_like(p)
            momenta = [self.state[p]["momentum"] for p in parameters]
            torch._foreach_mul_(momenta, group["momentum"])
            torch._foreach_add_(momenta, gradients)
            updates = torch._foreach_add(gradients, momenta, alpha=group["momentum"])
            if group["orthogonal"] and updates[0].is_cuda:
                updates = orthogonal_stacked(updates, self.dtype)
            elif group["orthogonal"]:  # one by one keeps the bytes of a CPU's results
                updates = [orthogonal(update, self.dtype) for update in updates]
            torch._foreach_add_(parameters, updates, alpha=-group["lr"] * group["scale"])


def orthogonal(update: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """The nearest orthogonal matrix to `update` [O, ...], roughly, times sqrt(rows / columns) where that is
    above 1."""
    return _newton_schulz(update.reshape(len(update), -1), dtype).reshape(update.shape).to(update.dtype)


def orthogonal_stacked(updates: list[Tensor], dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """`orthogonal` of each [O, I, h, w], those of one shape as one batch of matrices: a step of `large` then
    starts about 200 operations on a GPU instead of 377."""
    shapes: dict[torch.Size, list[int]] = {}
    for place, update in enumerate(updates):
        shapes.setdefault(update.shape, []).append(place)
    result = list(updates)
    for (rows, inputs, *kernel), places in shapes.items():
        # Flattened with channels last, as weights lie in memory; the order of columns does not matter.
        stack = torch.stack([updates[place].permute(0, 2, 3, 1).reshape(rows, -1) for place in places])
        for place, matrix in zip(places, _newton_schulz(stack, dtype), strict=True):
            result[place] = matrix.reshape(rows, *kernel, inputs).permute(0, 3, 1, 2).to(updates[place].dtype)
    return result


def _newton_schulz(matrices: Tensor, dtype: torch.dtype) -> Tensor:
    """`matrices` [..., rows, columns] made nearly orthogonal, in float32: five Newton-Schulz steps bring
    every singular value to between 0.7 and 1.2 (Jordan et al. 2024). They need no exact numbers, and in
    bfloat16, where the processor has it, they cost a quarter."""
    *_, rows, columns = matrices.shape
    x = (matrices.mT if rows > columns else matrices).float()
    x = (x / (torch.linalg.matrix_norm(x, keepdim=True) + 1e-7)).to(dtype)
    multiply_add = torch.addmm if x.ndim == 2 else torch.baddbmm
    for _ in range(5):
        square = x @ x.mT
        square = multiply_add(square, square, square, beta=-4.7750, alpha=2.0315)
        x = multiply_add(x, square, x, beta=3.4445)
    return (x.mT if rows > columns else x).float() * max(1.0, rows / columns) ** 0.5


@contextmanager
def sam_perturbation(model: nn.Module, radius: float) -> Iterator[None]:
    """Inside, the weights are moved by `radius` along their gradients, to about the worst loss nearby;
    afterwards they are restored. A step along the gradients found there seeks flat minima (sharpness-aware
    minimization, Foret et al. 2021), at the cost of two steps.
    """
    weights = [p for p in model.parameters() if p.grad is not None]
    gradients, buffers = [p.grad for p in weights], list(model.buffers())
    kept = [p.detach().clone() for p in weights], [buffer.clone() for buffer in buffers]
    length = torch.stack(torch._foreach_norm(gradients)).norm() + 1e-12
    with torch.no_grad():
        moves = torch._foreach_mul(gradients, radius / length)
        for move in moves:  # float16's overflows: the scaler leaves such a step out
            move.nan_to_num_(0.0, 0.0, 0.0)
        torch._foreach_add_(weights, moves)
    yield
    with torch.no_grad():
        torch._foreach_copy_(weights, kept[0])
        if buffers:  # the running statistics of batch normalization
            torch._foreach_copy_(buffers, kept[1])


def learning_rate_factor(progress: float, config: Config) -> float:
    """The share of `learning_rate` in use when `progress` (0..1) of all steps is done.

    All schedules rise linearly over the first `warmup` share; "onecycle" then falls linearly to zero
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
    statistics of batch normalization are averaged with the weights. torch's AveragedModel reads its counter
    from the device at every step, which makes host and device wait for each other; this one counts on the
    host.
    """

    def __init__(self, model: nn.Module, decay: float):
        self.model = copy.deepcopy(model).requires_grad_(False)
        self.decay = decay
        self.updates = 0
        states = self.model.state_dict(), model.state_dict()  # whose tensors stay the same from step to step
        floats = [name for name, tensor in states[0].items() if tensor.is_floating_point()]
        counters = [name for name in states[0] if name not in floats]  # of batch normalization
        self.floats = [[state[name] for name in floats] for state in states]
        self.counters = [[state[name] for name in counters] for state in states]

    @torch.no_grad()
    def update(self) -> None:
        """Follow the network by one step."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates)) if self.updates else 0.0
        torch._foreach_lerp_(*self.floats, 1 - decay)
        if self.counters[0]:
            torch._foreach_copy_(*self.counters)
        self.updates += 1

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` takes."""
        return {"model": self.model.state_dict(), "updates": self.updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a saved average."""
        self.model.load_state_dict(state["model"])
        self.updates = state["updates"]


def class_weights(counts: torch.Tensor, power: float) -> torch.Tensor:
    """Loss weights [C] proportional to (1 / count) ** `power`, averaging 1 over the images."""
    weights = counts.clamp_min(1).float() ** -power
    return weights * counts.sum() / (weights * counts).sum()
