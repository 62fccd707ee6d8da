"""Several processes that train one network together, one device each; a single process is a team of one.

All of them draw the same batch and the same random numbers, and each computes its share of the images. Batch
normalization takes its statistics from the whole batch, so the result is that of one device, except for
rounding and dropout, which each process draws separately.
"""

from __future__ import annotations

import datetime
import os
import sys
from dataclasses import dataclass
from typing import Any, NoReturn

import torch
import torch.distributed as dist
from torch import Tensor, nn

from fer_utils.config import ConfigError
from fer_utils.learning.device import choose_device


@dataclass(frozen=True)
class Team:
    """This process's number and how many there are. The first process leads: only it writes and prints."""

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        return self.rank == 0

    def share(self, n: int) -> slice:
        """This process's part of `n` rows; the parts differ by one row at most."""
        return slice(n * self.rank // self.size, n * (self.rank + 1) // self.size)

    def add(self, tensor: Tensor) -> Tensor:
        """`tensor` summed over the team, in place."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def gather(self, value: Any) -> list[Any]:
        """The `value` of every process, by rank; tensors must be on the CPU."""
        values = [value] * self.size
        if self.size > 1:
            dist.all_gather_object(values, value)
        return values

    def agree(self, value: Any) -> Any:
        """The leader's `value`, in every process."""
        values = [value]
        if self.size > 1:
            dist.broadcast_object_list(values)
        return values[0]

    def wrap(self, model: nn.Module) -> nn.Module:
        """`model` with its gradients averaged over the team (DistributedDataParallel, Li et al. 2020)."""
        if self.size == 1:
            return model
        device = next(model.parameters()).device
        ids = [device.index] if device.type == "cuda" else None
        return nn.parallel.DistributedDataParallel(model, device_ids=ids, broadcast_buffers=False)


ALONE = Team()


def in_team() -> bool:
    """Whether torchrun started this process as one of several."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def leads_team() -> bool:
    """Whether this process writes and prints; a single process does."""
    return int(os.environ.get("RANK", "0")) == 0


def join_team(device: torch.device) -> Team:
    """Connect to the other processes that torchrun started; a single process is a team of one."""
    if not in_team():
        return ALONE
    if not dist.is_initialized():
        backend = "nccl" if device.type == "cuda" and dist.is_nccl_available() else "gloo"
        # Hours, because the others wait while the leader predicts and writes.
        dist.init_process_group(backend, timeout=datetime.timedelta(hours=4))
    return Team(dist.get_rank(), dist.get_world_size())


def leave_team() -> None:
    """Disconnect from the other processes at the end of a run."""
    if dist.is_initialized():
        dist.destroy_process_group()


def end_process(status: int) -> NoReturn:
    """End this process with an exit status; in a team without Python's shutdown, during which torch's threads
    may abort a finished training."""
    if in_team():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


def own_device(name: str) -> torch.device:
    """The device called `name`, or this process's own GPU where torchrun started one process for each."""
    if in_team() and name in ("auto", "cuda") and torch.cuda.is_available():
        name = f"cuda:{os.environ['LOCAL_RANK']}"
        torch.cuda.set_device(name)
    return choose_device(name)


def share_norms(model: nn.Module) -> nn.Module:
    """`model` with batch normalization that takes its statistics over the whole team.

    Raises:
        ConfigError: a batch normalization of another kind (some timm backbones), on a CPU.
    """
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        if type(norm) is nn.BatchNorm2d and norm.affine:
            norm.__class__ = SharedBatchNorm  # the same parameters and buffers, another `forward`
    others = {type(norm).__name__ for norm in norms} - {"SharedBatchNorm"}
    if others and next(model.parameters()).device.type == "cuda":
        from timm.layers import convert_sync_batchnorm  # torch's, which makes the device wait at every one

        return convert_sync_batchnorm(model)
    if others:
        raise ConfigError(f"n_devices: the {', '.join(others)} of this model cannot be shared between CPUs")
    return model


class SharedBatchNorm(nn.BatchNorm2d):
    """Batch normalization over the images of all processes. torch's SyncBatchNorm works on GPUs only and
    makes the host wait for them at every layer."""

    def forward(self, features: Tensor) -> Tensor:
        if not self.training:
            return super().forward(features)
        wide = features.float()
        count = wide.new_full((1,), wide.numel() / self.num_features)
        moments = torch.cat([wide.sum((0, 2, 3)), wide.square().sum((0, 2, 3)), count])
        sums, squares, (count,) = _SumOverTeam.apply(moments).split([self.num_features, self.num_features, 1])
        mean = sums / count
        variance = (squares / count - mean.square()).clamp_min(0)
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)
        scale = self.weight * torch.rsqrt(variance + self.eps)
        shift = self.bias - mean * scale
        return (wide * scale[:, None, None] + shift[:, None, None]).to(features.dtype)


class _SumOverTeam(torch.autograd.Function):
    """all_reduce with its gradient, which is all_reduce again."""

    @staticmethod
    def forward(ctx, tensor: Tensor) -> Tensor:
        total = tensor.clone()
        dist.all_reduce(total)
        return total

    backward = forward
