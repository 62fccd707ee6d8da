"""What a machine may refuse in the middle of a training: time, memory, the device."""

from __future__ import annotations

import gc
import math
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import torch

from fer_utils.config import Config
from fer_utils.learning.training_loop import Learner, TrainingError

# Validation runs on warm caches and, on a GPU, in half precision; predicting for the results does not.
CAUTION = 2.0


class OutOfTime(TrainingError):
    """`max_hours` are over before there is anything to predict with; the same call resumes later."""


class TimeIsUp(Exception):
    """Raised between two steps, when what is left only suffices for writing the results."""


class TimeLimit:
    """Tells a training when to stop, so that its results are written within `hours` (0: no limit) of now.

    `predictions` is the work of that writing, in passes over the validation split. How long such a pass
    takes is measured at every validation and kept with the learner.
    """

    def __init__(self, hours: float, predictions: float):
        self.end = time.monotonic() + 3600 * hours if hours else math.inf
        self.predictions = predictions

    @contextmanager
    def timing(self, learner: Learner) -> Iterator[None]:
        """A block that validates."""
        start = time.monotonic()
        yield
        seconds = time.monotonic() - start
        # The shortest so far: the first one on a GPU also loads kernels, and would end a short run at once.
        learner.validation_seconds = min(seconds, learner.validation_seconds or math.inf)

    def is_over(self, learner: Learner) -> bool:
        """Whether one more epoch's end (a validation) and the results are all that there is time for."""
        reserve = CAUTION * (1 + self.predictions) * learner.validation_seconds
        return time.monotonic() + reserve > self.end


def hours_left(hours: float, start: float) -> float:
    """What of `hours` (0: no limit) is left, begun at `start` of the monotonic clock; never 0 for nothing."""
    return hours and max(1e-6, hours - (time.monotonic() - start) / 3600)


# torch and its libraries have no one class for these, only words.
_NO_MEMORY = (
    "out of memory",
    "can't allocate memory",
    "cannot allocate memory",
    "not enough memory",
    "bad_alloc",
    "alloc_failed",
    "could not create a memory",
    "can't start new thread",
)
_NO_DEVICE = ("cuda error", "cuda driver error", "cudnn_status", "cublas_status", "nccl error", "mps backend")


@contextmanager
def explained(config: Config) -> Iterator[None]:
    """Turn a lack of memory and a failing GPU into a TrainingError, and give back the memory that was held.

    Raises:
        TrainingError: in place of torch's own error.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        message = _message(error, config)
        if message is None:
            raise
        # The frames of the failed call hold the network and its gradients; a notebook would keep them.
        traceback.clear_frames(error.__traceback__)
        failure = TrainingError(message)
    else:
        return
    gc.collect()
    if torch.cuda.is_initialized():
        with suppress(RuntimeError):  # a GPU that has gone cannot give memory back either
            torch.cuda.empty_cache()
    raise failure


def _message(error: Exception, config: Config) -> str | None:
    text = str(error).lower()
    reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)) or any(words in text for words in _NO_MEMORY):
        smaller = max(2, config.batch_size // 2)
        return (
            f"no memory left with batch_size {config.batch_size} ({reason}). Try batch_size {smaller} with "
            "another out, a smaller width or image_size, or close what else fills the memory and give the "
            "same command again: it resumes from the last checkpoint"
        )
    if isinstance(error, getattr(torch, "AcceleratorError", ())) or any(w in text for w in _NO_DEVICE):
        return (
            f"the device failed ({reason}). Restart this process (in a notebook: the kernel) and give the "
            "same command again: it resumes from the last checkpoint, with device 'cpu' too"
        )
    return None
