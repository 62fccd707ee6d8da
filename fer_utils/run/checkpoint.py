"""What an interrupted training resumes from: written whole, checked on reading, the one before it kept."""

from __future__ import annotations

import io
import os
import time
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fer_utils.competition import DataError
from fer_utils.config import Config, ConfigError
from fer_utils.files import OutputError, atomic_write
from fer_utils.learning.training_loop import Learner, TrainingError

# On a fast GPU an epoch takes a second, and writing a large network with its averages half of one: writing
# waits until it costs no more than this share of the time.
SHARE_OF_TIME = 0.05
# Attributes of a learner that are saved and restored as they are. Random states are not saved: seed and step
# determine every draw and the learning rate.
VALUES = ("epoch", "step", "seconds", "epoch_seconds", "validation_seconds", "resumed", "history", "best")
# Those that have a state_dict.
WITH_STATE = ("model", "average", "optimizer", "scaler")
KEYS = {"config", "fingerprint", "dtype", "device", "totals", *VALUES, *WITH_STATE}


class CheckpointFile:
    """The checkpoint of a run. After an epoch it is renewed where that is cheap against the time since the
    last one; within an epoch also only every `checkpoint_seconds` of the config (0: after every step)."""

    def __init__(self, folder: Path):
        self.path = folder / "checkpoint.pt"
        self.previous = folder / "checkpoint-previous.pt"
        self.damaged = folder / "checkpoint-damaged.pt"
        self.written = time.perf_counter()
        self.cost = 0.0

    @property
    def exists(self) -> bool:
        """Whether there is something to resume from."""
        return self.path.is_file() or self.previous.is_file()

    def due(self, config: Config, epoch_over: bool) -> bool:
        """Whether the last one is old enough."""
        age = time.perf_counter() - self.written
        cheap = self.cost <= SHARE_OF_TIME * age
        return config.checkpoint_seconds == 0 or (cheap and (epoch_over or age >= config.checkpoint_seconds))

    def save(self, learner: Learner, totals: Tensor | None = None) -> None:
        """Write all that resuming needs; the last one is kept beside it. `totals` [team, 2] are those of all
        processes of a team in the middle of an epoch. After an OutputError, or a TrainingError for weights
        that are no longer finite, the last one is as it was."""
        start = time.perf_counter()
        _check_finite(learner)
        buffer = io.BytesIO()
        torch.save(_state(learner, learner.totals[None] if totals is None else totals), buffer)
        with atomic_write(self.path, self.previous) as temporary:
            temporary.write_bytes(buffer.getbuffer())
        self.written = time.perf_counter()
        self.cost = self.written - start

    def load(self, learner: Learner) -> bool:
        """Bring `learner` to where the last one was written; returns whether there was a whole one.

        A damaged file is skipped with a warning: the one before it is used, or the training begins again. One
        of another config or other data is a ConfigError or DataError, one that cannot be read an OutputError.
        """
        for path in (self.path, self.previous):
            if not path.is_file():
                continue
            try:
                state = read_checkpoint(path)
            except DataError as error:
                if learner.team.leads:
                    print(f"WARNING: {error}; going back to what was saved before it", flush=True)
                    with suppress(FileNotFoundError):  # out of the way: it must not become the previous one
                        os.replace(path, self.damaged)
                continue
            if differing := learner.config.differing(Config.from_dict(state["config"])):
                raise ConfigError(f"{path} was written with another config ({differing}): choose another out")
            if state["fingerprint"] != learner.fingerprint:
                raise DataError(f"{path} was written on other data: choose another out")
            _restore(learner, state, path)
            return True
        return False

    def remove(self) -> None:
        """A finished run needs none."""
        for path in (self.path, self.previous, self.damaged):
            path.unlink(missing_ok=True)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The content of a checkpoint. Nothing in it can run as code (`weights_only`). It is a DataError if it is
    damaged or was not written by this module, an OutputError if it may be whole, but cannot be read."""
    try:
        content = path.read_bytes()
    except OSError as error:
        advice = "allow it, or choose another out"
        raise OutputError(f"{path} cannot be read ({error.strerror}): {advice}") from error
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            if damaged := archive.testzip():  # torch writes checksums, but does not compare them
                raise zipfile.BadZipFile(f"wrong checksum of {damaged}")
        # On the CPU: a checkpoint may name a device that is not here, and each part moves where it belongs.
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # UnpicklingError, RuntimeError, KeyError ... whatever a forged file provokes
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise DataError(f"{path} is damaged or holds no checkpoint ({reason[:120]})") from error
    if not isinstance(state, dict) or KEYS - set(state):
        raise DataError(f"{path} holds no checkpoint of this version")
    return state


def _state(learner: Learner, totals: Tensor) -> dict[str, Any]:
    parts = {name: getattr(learner, name) for name in WITH_STATE}
    return {
        "config": learner.config.to_dict(),
        "fingerprint": learner.fingerprint,
        "dtype": learner.dtype,
        "device": learner.device.type,
        "totals": totals,
        **{name: getattr(learner, name) for name in VALUES},
        **{name: None if part is None else part.state_dict() for name, part in parts.items()},
    }


def _restore(learner: Learner, state: dict[str, Any], path: Path) -> None:
    try:
        learner.model.load_state_dict(state["model"])
        if learner.average is not None:
            learner.average.load_state_dict(state["average"])
        learner.optimizer.load_state_dict(state["optimizer"])
    except (RuntimeError, KeyError, TypeError, ValueError, AttributeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise DataError(f"{path} does not fit this network ({reason}): remove it to start again") from error
    if state["device"] == learner.device.type:  # elsewhere the type that suits that device is taken
        learner.use_precision(state["dtype"])
    if state["scaler"] and learner.scaler.is_enabled():
        learner.scaler.load_state_dict(state["scaler"])
    for name in VALUES:
        setattr(learner, name, state[name])
    learner.resumed += 1
    totals = state["totals"].to(learner.device)
    if len(totals) == learner.team.size:
        learner.totals = totals[learner.team.rank]
    else:  # another number of devices than it was written on
        learner.totals = totals.sum(0) * float(learner.team.leads)


def _check_finite(learner: Learner) -> None:
    """A loss is NaN one step after the weights are: such weights must not replace good ones on disk."""
    floats = [t for t in learner.model.state_dict().values() if t.is_floating_point()]
    if not nn.utils.get_total_norm(floats).isfinite():
        raise TrainingError(learner.diverged("weights that are not numbers"))
