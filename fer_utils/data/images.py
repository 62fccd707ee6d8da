"""Pictures from pixel strings and from image files, as uint8 [N, 1, H, W]; what is broken is told by row."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

import numpy as np
from PIL import Image

from fer_utils.competition import DataError
from fer_utils.data.decoding import Decoder, Form, decode_block, decoders
from fer_utils.data.pixels import _blocks
from fer_utils.progress import bar

DECODED_TOGETHER = 128
WORTH_PROCESSES = 4096  # files; measured on two cores: 0.77 s against 0.85 s, and for 2,048 0.59 against 0.47


# Grey levels. In FER2013 the 14 pictures below it are black, grey or a dot; the next one above it is a face.
BLANK_CONTRAST = 5.0


def to_grey(images: np.ndarray) -> np.ndarray:
    """uint8 [N, H, W, C], one or three channels, as uint8 [N, 1, H, W], weighted as PIL does (ITU-R 601)."""
    if images.shape[3] == 1:
        return images.reshape(len(images), 1, *images.shape[1:3])
    weights = np.array([19595, 38470, 7471], np.uint32)  # 0.299, 0.587 and 0.114 of 2 ** 16
    return ((images @ weights + 32768) >> 16).astype(np.uint8)[:, None]


def resize(images: np.ndarray, size: int) -> np.ndarray:
    """Resize uint8 [N, 1, H, W] to `size` x `size`, antialiased; the same array if that is its size."""
    if images.shape[2:] == (size, size):
        return images
    resized = np.empty((len(images), 1, size, size), np.uint8)
    for source, target in zip(images, resized, strict=True):
        target[0] = Image.fromarray(source[0]).resize((size, size), Image.Resampling.BICUBIC)
    return resized


def read_files(
    sources: Sequence[Path | bytes | None], size: int
) -> tuple[np.ndarray, dict[int, str], list[str]]:
    """Decode image files, or their bytes, on all cores: grey, `size` x `size`, an animation by its first.

    Returns:
        uint8 [N, 1, size, size], mid-grey where a file is broken; why, by position; notes on changes.

    Raises:
        DataError: a process that decodes died, as it does when memory runs out.
    """
    images = np.empty((len(sources), 1, size, size), np.uint8)
    broken: dict[int, str] = {}
    forms: Counter[Form] = Counter()

    def keep(rows: range, answer: tuple[dict[int, str], list[Form]]) -> None:
        broken.update({rows.start + row: why for row, why in answer[0].items()})
        forms.update(answer[1])

    blocks = _blocks(len(sources), DECODED_TOGETHER)
    if len(sources) < WORTH_PROCESSES or any(isinstance(source, bytes) for source in sources):
        for rows in blocks:
            keep(rows, decode_block(sources[rows.start : rows.stop], images[rows.start : rows.stop]))
    else:
        free: SimpleQueue[Decoder] = SimpleQueue()

        def work(rows: range) -> tuple[dict[int, str], list[Form]]:
            some, decoder = slice(rows.start, rows.stop), free.get()
            try:
                return decoder.decode_block(sources[some], images[some])
            except OSError as error:
                names = f"{sources[rows.start]} and the {len(rows) - 1} files after it"
                raise DataError(f"{error} at {names}: is there memory enough?") from error
            finally:
                free.put(decoder)

        with decoders(min(os.cpu_count() or 1, len(blocks)), size) as processes:
            for decoder in processes:
                free.put(decoder)
            pool = ThreadPoolExecutor(len(processes))
            try:
                answers = bar(pool.map(work, blocks), "decoding", len(blocks))
                for rows, answer in zip(blocks, answers, strict=True):
                    keep(rows, answer)
            finally:
                pool.shutdown(cancel_futures=True)  # after an error or Ctrl-C some still wait
    return images, dict(sorted(broken.items())), _notes(forms, size)


def _notes(seen: Counter[Form], size: int) -> list[str]:
    sizes, colour = Counter(), 0
    for (shape, is_colour), count in seen.items():
        sizes[shape] += count
        colour += count if is_colour else 0
    notes = []
    other = {shape: count for shape, count in sizes.most_common() if shape != (size, size)}
    if other:
        names = ", ".join(
            f"{width}x{height} ({count:,})" for (width, height), count in list(other.items())[:3]
        )
        notes.append(f"resized to {size}x{size}: {names}{', ...' if len(other) > 3 else ''}")
    if colour:
        notes.append(f"colour turned to grey: {colour:,} pictures")
    return notes


def light(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean and the standard deviation of the grey levels of each picture of uint8 [N, 1, H, W]."""
    pixels = images.reshape(len(images), -1)
    mean = pixels.sum(1, dtype=np.int64) / pixels.shape[1]
    mean_square = np.einsum("ij,ij->i", pixels, pixels, dtype=np.int64) / pixels.shape[1]
    return mean, np.sqrt((mean_square - mean**2).clip(min=0))
