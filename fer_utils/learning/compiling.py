"""torch.compile: when it is worth its start-up, and what happens where it fails."""

from __future__ import annotations

import math
import time

import torch
from torch.nn import functional as F

from fer_utils.learning.device import can_compile
from fer_utils.learning.training_loop import Learner, forward_backward, size_of_epoch

# Compiling a network takes one to two minutes and saves a quarter of a step or so: worth it on a GPU when the
# epochs that are left would take longer than this without. On CPUs it was measured to be slower.
COMPILE_WORTH_SECONDS = 600


def compile_forward(learner: Learner, mode: str, n_pictures: int) -> None:
    """Compile the network (torch.compile) for the batches of `n_pictures`, and note how long that took."""
    start = time.perf_counter()
    learner.forward = torch.compile(learner.forward, mode=mode, dynamic=False)
    mine = learner.team.share(n_pictures // math.ceil(n_pictures / learner.config.batch_size))
    n, size = mine.stop - mine.start, learner.config.image_size
    batch = torch.zeros(n, 1, size, size, device=learner.device).contiguous(memory_format=torch.channels_last)
    labels = torch.zeros(n, dtype=torch.int64, device=learner.device)
    kept = {name: buffer.clone() for name, buffer in learner.model.named_buffers()}
    learner.model.train()
    forward_backward(learner, batch, F.one_hot(labels, learner.num_classes).float(), labels)
    learner.optimizer.zero_grad(set_to_none=True)
    for name, buffer in learner.model.named_buffers():
        buffer.copy_(kept[name])  # the trial batch leaves no trace in the statistics
    learner.compile_seconds = time.perf_counter() - start


def worth_compiling(learner: Learner, seconds_left: float) -> bool:
    """With compile_mode "auto": once, on one GPU, at the final size, when much is left to do without."""
    config = learner.config
    possible = config.compile_mode == "auto" and learner.device.type == "cuda" and learner.team.size == 1
    if not possible or learner.compile_seconds or size_of_epoch(config, learner.epoch) < config.image_size:
        return False
    return seconds_left > COMPILE_WORTH_SECONDS and can_compile()


def try_compiling(learner: Learner, n_pictures: int) -> None:
    """Compile, or go on as before: this was nobody's wish, so its failure must not end the run."""
    try:
        compile_forward(learner, "default", n_pictures)
        print(
            f"compiled the network for the epochs that are left: {learner.compile_seconds:.0f} s", flush=True
        )
    except Exception as error:
        learner.forward = learner.model
        learner.compile_seconds = 1e-9  # not again
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        print(f"the network cannot be compiled here ({reason}) and goes on as it is", flush=True)
