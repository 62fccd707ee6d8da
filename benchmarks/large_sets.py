"""Large sets: images mapped from a file that is not in memory, as most of a set of 15 GB is not.

Their rows are read told ahead (`arrays_on_disk.fetch`) and page by page; and a network trains on them as fast
as on the same images in memory if the thread that fetches keeps up.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from benchmarks.timing import RECIPE, Row, Settings, take_turns
from fer_utils import arrays_on_disk
from fer_utils.competition import Competition, Split
from fer_utils.config import Config
from fer_utils.learning.training_loop import Learner, train_epoch


def rows(settings: Settings) -> Iterator[Row]:
    """Reading told ahead against page by page; training from the file against training from memory."""
    n = 256 if settings.quick else 2048
    images = np.random.default_rng(0).integers(0, 256, (n, 3, 224, 224), np.uint8)
    order = np.random.default_rng(1).permutation(n).reshape(-1, 64)
    own = dict(image_size=224, color="rgb", batch_size=64, width=0.125, precision="fp32")
    config = Config(**RECIPE | own)
    split = Split(images, np.zeros(n, np.int64), np.arange(n).astype(str))
    competition = Competition(split, split.take(np.arange(8)), None, ("a", "b"), (0, 1))
    learner, labels = Learner(config, competition, settings.device), torch.zeros(n, dtype=torch.int64)
    seconds, most = (4.0, 60.0)[not settings.quick], arrays_on_disk.MOST_IN_MEMORY
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "images.npy"
        np.save(path, images)
        read = {
            "ahead": lambda: [
                arrays_on_disk.fetch(mapped, some) for mapped in [_cold(path)] for some in order
            ],
            "pages": lambda: [mapped[some] for mapped in [_cold(path)] for some in order],
            "train file": lambda: train_epoch(learner, torch.from_numpy(_cold(path)), labels, 0),
            "train memory": lambda: train_epoch(learner, torch.from_numpy(images), labels, 0),
        }
        try:
            arrays_on_disk.MOST_IN_MEMORY = 0  # so that this file counts as a large one
            a, b, ratio, turns = take_turns(read["ahead"], read["pages"], seconds, torch.device("cpu"))
            yield Row("rows of a file, told ahead", "page by page", n / a, n / b, "images/s", ratio, turns)
            a, b, ratio, turns = take_turns(
                read["train file"], read["train memory"], seconds, settings.device
            )
            yield Row("training from a file", "from memory", n / a, n / b, "images/s", ratio, turns)
        finally:
            arrays_on_disk.MOST_IN_MEMORY = most


def _cold(path: Path) -> np.ndarray:
    """The images mapped from a file that the system was told to drop from memory, where it can be told."""
    if hasattr(os, "posix_fadvise"):
        with open(path, "rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return np.load(path, mmap_mode="c")
