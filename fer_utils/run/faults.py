"""What a machine may refuse in the middle of a training, in words that say what to do."""

from __future__ import annotations

import gc
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import torch

from fer_utils.config import Config
from fer_utils.learning.training_loop import TrainingError

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
            "same command again: it goes on from the last checkpoint"
        )
    if isinstance(error, getattr(torch, "AcceleratorError", ())) or any(w in text for w in _NO_DEVICE):
        return (
            f"the device failed ({reason}). Restart this process (in a notebook: the kernel) and give the "
            "same command again: it goes on from the last checkpoint, with device 'cpu' too"
        )
    return None
