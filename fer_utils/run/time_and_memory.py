"""What may run out or fail in the middle of a training: time, memory, the device."""

from __future__ import annotations

import gc
import math
import re
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import torch

from fer_utils.config import Config
from fer_utils.learning.training_loop import Learner, TrainingError

# Validation runs on warm caches and, on a GPU, in half precision; predicting for the results does not.
SAFETY_FACTOR = 2.0


class OutOfTime(TrainingError):
    """`max_hours` ended before the first epoch; the same call resumes later."""


class TimeIsUp(Exception):
    """Raised between two steps, when the time left is only enough to write the results."""


class TimeLimit:
    """Stops a training early enough to write its results within `hours` (0: no limit) of now.

    `predictions` is the work for the results, in passes over the validation split.
    """

    def __init__(self, hours: float, predictions: float):
        self.end = time.monotonic() + 3600 * hours if hours else math.inf
        self.predictions = predictions

    def is_over(self, learner: Learner) -> bool:
        """Whether there is only time for one more validation and the results."""
        reserve = SAFETY_FACTOR * (1 + self.predictions) * learner.validation_seconds
        return time.monotonic() + reserve > self.end


def position(learner: Learner) -> str:
    """Where a training is, in words."""
    step = f" and step {learner.step} of the next" if learner.step else ""
    return f"epoch {learner.epoch}{step}"


def tell_out_of_time(learner: Learner) -> None:
    """Print where the hours ended; an OutOfTime error if there is no epoch yet to write results of."""
    over = f"max_hours ({learner.config.max_hours:g}) ended after {position(learner)}"
    if not learner.best["epoch"]:
        raise OutOfTime(f"{over}, too soon for a result; the same command resumes there")
    if learner.team.leads:
        print(f"{over}: the results are those of the best epoch so far", flush=True)


def hours_left(hours: float, start: float) -> float:
    """What is left of `hours` (0: no limit) since `start` of the monotonic clock; more than 0."""
    return hours and max(1e-6, hours - (time.monotonic() - start) / 3600)


# torch and its libraries have no exception classes for these.
_NO_MEMORY = re.compile(
    "out of memory|can('|no)t allocate memory|not enough memory|bad_alloc|alloc_failed"
    "|could not create a memory|can't start new thread",
    re.I,
)
_NO_DEVICE = re.compile(
    "cuda error|cuda driver error|cudnn_status|cublas_status|nccl error|mps backend", re.I
)


@contextmanager
def explained(config: Config) -> Iterator[None]:
    """Turn errors of memory and of the device into a TrainingError that says what to do, and free the
    memory."""
    try:
        yield
        return
    except (MemoryError, RuntimeError) as error:
        message = _message(error, config)
        if message is None:
            raise
        # The frames of the failed call hold the network and its gradients; a notebook would keep them.
        traceback.clear_frames(error.__traceback__)
    gc.collect()
    if torch.cuda.is_initialized():
        with suppress(RuntimeError):  # a GPU that failed cannot free memory either
            torch.cuda.empty_cache()
    raise TrainingError(message)


def _message(error: Exception, config: Config) -> str | None:
    text = str(error).strip() or type(error).__name__
    reason = text.splitlines()[0][:200]
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)) or _NO_MEMORY.search(text):
        return (
            f"no memory left with batch_size {config.batch_size} ({reason}). Try batch_size "
            f"{max(2, config.batch_size // 2)} with another out, a smaller width or image_size, or close "
            "other programs and run the same command again: it resumes from the last checkpoint"
        )
    if isinstance(error, torch.AcceleratorError) or _NO_DEVICE.search(text):
        return (
            f"the device failed ({reason}). Restart this process (in a notebook: the kernel) and run the "
            "same command again: it resumes from the last checkpoint, with device 'cpu' too"
        )
    return None
