"""What an interrupted training goes on from."""

from __future__ import annotations

import time
from pathlib import Path

import torch

from fer_utils.files import atomic_write
from fer_utils.learner import Learner

# On a fast GPU an epoch takes a second, and writing a large network with its averages half of one: writing
# waits until it costs no more than this share of the time.
SHARE_OF_TIME = 0.05


class CheckpointFile:
    """The checkpoint of a run, renewed after an epoch where that is cheap against the time since the last."""

    def __init__(self, path: Path):
        self.path = path
        self.written = 0.0
        self.cost = 0.0

    def save_if_due(self, learner: Learner) -> None:
        """Write a checkpoint, unless the last one is too fresh to be worth it."""
        start = time.perf_counter()
        if self.cost > SHARE_OF_TIME * (start - self.written):
            return
        save_checkpoint(learner, self.path)
        self.written = time.perf_counter()
        self.cost = self.written - start


def save_checkpoint(learner: Learner, path: Path) -> None:
    """Write all that resuming needs."""
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
    with atomic_write(path) as temporary:
        torch.save(state, temporary)


def load_checkpoint(learner: Learner, path: Path) -> None:
    """Let `learner` go on from where another one stood."""
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
