"""Pictures from pixel strings and from image files, as uint8 [N, 1, H, W]; what is broken is told by row."""

from __future__ import annotations

import math
import os
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from fer_utils.faces import DataError

MID_GREY = 128
_LIST_MARKS = str.maketrans("[](),;", " " * 6)
MAX_PIXELS = 64_000_000  # larger than any camera's face; a decompression bomb is larger still


def parse_pixels(texts: Sequence[str], pixels: int) -> tuple[np.ndarray, dict[int, str]]:
    """Parse strings of `pixels` integers 0..255 separated by blanks.

    Returns:
        uint8 [N, pixels], zero where a row is broken, and why, by position.
    """
    images = np.zeros((len(texts), pixels), np.uint8)
    broken = {}
    with warnings.catch_warnings():
        # numpy announces trailing rubbish by a warning now and by a ValueError later.
        warnings.simplefilter("error", DeprecationWarning)
        for row, text in enumerate(texts):
            try:
                values = _numbers(text)
            except (ValueError, DeprecationWarning):
                broken[row] = "a pixel is not a whole number"
                continue
            if len(values) != pixels:
                broken[row] = f"{len(values) or 'no'} pixels instead of {pixels}"
            elif values.min() < 0 or values.max() > 255:
                broken[row] = f"a pixel is outside 0..255 ({values.min():.0f}..{values.max():.0f})"
            else:
                images[row] = values
    return images, broken


def _numbers(text: str) -> np.ndarray:
    """The whole numbers of a pixel string; raises if there is anything else."""
    if not text.strip():
        return np.empty(0)
    try:
        return np.fromstring(text, dtype=np.int32, sep=" ")
    except (
        ValueError,
        DeprecationWarning,
    ):  # a printed list, [1, 2, 3], or 1.0 2.0 3.0: rare, so slow is fine
        values = np.fromstring(text.translate(_LIST_MARKS), dtype=np.float64, sep=" ")
    if not np.isfinite(values).all() or (values % 1).any():
        raise ValueError("not a whole number")
    return values


def picture_side(texts: Iterable[str], place: str) -> int:
    """The side of the square pictures that most of the pixel strings hold.

    Raises:
        DataError: their number of pixels is no square.
    """
    counts = Counter(len(text.translate(_LIST_MARKS).split()) for text in texts)
    pixels = counts.most_common(1)[0][0] if counts else 0
    side = math.isqrt(pixels)
    if not pixels:
        raise DataError(f"{place} holds no pixels")
    if side * side != pixels or side < 4:
        raise DataError(f"{place}: {pixels} pixels in a row are no square picture")
    return side


def resize(images: np.ndarray, size: int) -> np.ndarray:
    """Resize uint8 [N, 1, H, W] to `size` x `size`, antialiased; the same array if that is its size."""
    if images.shape[2:] == (size, size):
        return images
    resized = np.empty((len(images), 1, size, size), np.uint8)
    for source, target in zip(images, resized, strict=True):
        target[0] = Image.fromarray(source[0]).resize((size, size), Image.Resampling.BICUBIC)
    return resized


def read_files(paths: Sequence[Path | None], size: int) -> tuple[np.ndarray, dict[int, str], list[str]]:
    """Decode image files on all cores: grey, `size` x `size`, the first picture of an animation.

    Returns:
        uint8 [N, 1, size, size], mid-grey where a file is broken; why, by position; notes on changes.
    """
    images = np.full((len(paths), 1, size, size), MID_GREY, np.uint8)
    broken: dict[int, str] = {}
    forms: list[tuple[tuple[int, int], bool] | None] = [None] * len(paths)

    def decode(rows: range) -> None:
        for row in rows:
            try:
                images[row, 0], forms[row] = _decode(paths[row], size)
            except Exception as error:  # PIL's plugins raise whatever a broken file makes them stumble over
                told = str(error).replace(str(paths[row]), Path(paths[row] or "").name)
                broken[row] = f"not a readable picture: {told}" if paths[row] else "no such picture file"

    # Decoding leaves Python's lock; handing out blocks keeps the threads' own cost small.
    blocks = [range(start, min(start + 128, len(paths))) for start in range(0, len(paths), 128)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(decode, blocks))
    return images, dict(sorted(broken.items())), _notes(Counter(filter(None, forms)), size)


def _decode(path: Path, size: int) -> tuple[np.ndarray, tuple[tuple[int, int], bool]]:
    with Image.open(path) as file:
        if file.width * file.height > MAX_PIXELS:
            raise DataError(f"{file.width} x {file.height} pixels are too many")
        form = file.size, file.mode not in ("L", "1", "LA", "I", "I;16", "I;16B", "F")
        if file.mode.startswith("I"):  # 16 bits: PIL would cut off at 255 instead of scaling
            picture = Image.fromarray((np.asarray(file, np.int64) >> 8).clip(0, 255).astype(np.uint8))
        else:
            picture = file.convert("L")
    if picture.size != (size, size):
        picture = picture.resize((size, size), Image.Resampling.BICUBIC)
    return np.asarray(picture), form


def _notes(seen: Counter[tuple[tuple[int, int], bool]], size: int) -> list[str]:
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
