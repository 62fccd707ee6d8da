"""Image files decoded, and images resized, turned to grey and measured: uint8 [N, 1, H, W] throughout."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path

import joblib
import numpy as np
from joblib.externals.loky import get_reusable_executor
from joblib.externals.loky.process_executor import TerminatedWorkerError
from PIL import Image

from fer_utils.competition import DataError
from fer_utils.progress import bar

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".pgm", ".ppm")
# Pillow's names of these; others, such as EPS, would start programs.
FORMATS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM")
# Larger than any camera's face; a decompression bomb is larger still.
MAX_PIXELS = 64_000_000
MID_GREY = 128
# Grey levels. In FER2013 the 14 images below it are black, grey or a dot; the next one above it is a face.
BLANK_CONTRAST = 5.0
# Files that a process decodes at a time, and the fewest for which processes are started: on two busy cores
# 16,000 files of 48 pixels took 1.5 s in one process and 3.7 s in several. (Threads share a lock.)
DECODED_TOGETHER, WORTH_PROCESSES = 256, 30_000

Form = tuple[tuple[int, int], bool]  # width and height, and whether it has colours


def resized(image: Image.Image, size: int) -> Image.Image:
    """An image at `size` x `size`, antialiased: the one way to resize, in training and in prediction."""
    return image if image.size == (size, size) else image.resize((size, size), Image.Resampling.BICUBIC)


def resize(images: np.ndarray, size: int) -> np.ndarray:
    """Resize uint8 [N, 1, H, W] to `size` x `size`; the same array if that is its size."""
    if images.shape[2:] == (size, size):
        return images
    rows = [np.asarray(resized(Image.fromarray(image[0]), size)) for image in images]
    return np.stack(rows)[:, None] if rows else np.empty((0, 1, size, size), np.uint8)


def to_grey(images: np.ndarray) -> np.ndarray:
    """uint8 [N, H, W, C], one or three channels, as uint8 [N, 1, H, W], weighted as PIL does (ITU-R 601)."""
    if images.shape[3] == 1:
        return images.reshape(len(images), 1, *images.shape[1:3])
    weights = np.array([19595, 38470, 7471], np.uint32)  # 0.299, 0.587 and 0.114 of 2 ** 16
    return ((images @ weights + 32768) >> 16).astype(np.uint8)[:, None]


def decode(source: Path | bytes | None, size: int) -> tuple[np.ndarray, Form]:
    """An image file, or its bytes, as uint8 [size, size], grey, an animation by its first image; and what it
    was before.

    Raises:
        Exception: whatever Pillow's plugins stumble over in a broken file.
    """
    if source is None:
        raise FileNotFoundError("no such picture file")
    with Image.open(BytesIO(source) if isinstance(source, bytes) else source, formats=FORMATS) as file:
        if file.width * file.height > MAX_PIXELS:
            raise ValueError(f"{file.width} x {file.height} pixels are too many")
        form = file.size, file.mode not in ("L", "1", "LA", "I", "I;16", "I;16B", "F")
        if file.mode.startswith("I"):  # 16 bits: PIL would cut off at 255 instead of scaling
            image = Image.fromarray((np.asarray(file, np.int64) >> 8).clip(0, 255).astype(np.uint8))
        else:
            image = file.convert("L")
    return np.asarray(resized(image, size)), form


def _decode_block(
    sources: Sequence[Path | bytes | None], size: int
) -> tuple[np.ndarray, dict[int, str], Counter[Form]]:
    """Images [n, 1, size, size], mid-grey where a file is broken; why, by position; forms of the others."""
    images, broken, forms = np.full((len(sources), 1, size, size), MID_GREY, np.uint8), {}, Counter()
    for row, source in enumerate(sources):
        try:
            images[row, 0], form = decode(source, size)
            forms[form] += 1
        except Exception as error:  # see decode
            reason = str(error) or type(error).__name__
            if isinstance(source, Path):
                reason = reason.replace(str(source), source.name)
            broken[row] = reason if source is None else f"not a readable picture: {reason}"
    return images, broken, forms


def read_files(
    sources: Sequence[Path | bytes | None], size: int
) -> tuple[np.ndarray, dict[int, str], list[str]]:
    """Decode image files, or their bytes; many files on all cores.

    Returns:
        uint8 [N, 1, size, size], mid-grey where a file is broken; why, by position; notes on changes.

    Raises:
        DataError: a process that decodes died, as it does when memory runs out.
    """
    images = np.empty((len(sources), 1, size, size), np.uint8)
    broken, forms, start = {}, Counter(), 0
    blocks = [sources[k : k + DECODED_TOGETHER] for k in range(0, len(sources), DECODED_TOGETHER)]
    try:
        for block, reasons, seen in bar(_decoded(blocks, len(sources), size), "decoding", len(blocks)):
            images[start : start + len(block)] = block
            broken |= {start + row: reason for row, reason in reasons.items()}
            forms.update(seen)
            start += len(block)
    except TerminatedWorkerError as error:
        names = f"{sources[start]} or the {len(sources) - start - 1} files after it"
        raise DataError(f"a process that decodes images died at {names}: is there enough memory?") from error
    return images, broken, _notes(forms, size)


def _decoded(blocks: list[Sequence[Path | bytes | None]], n: int, size: int) -> Iterator[tuple]:
    """`_decode_block` of each block, in order, by processes where there are many files."""
    if n < WORTH_PROCESSES or isinstance(blocks[0][0], bytes):
        yield from (_decode_block(block, size) for block in blocks)
        return
    pool = joblib.Parallel(n_jobs=min(os.cpu_count() or 1, len(blocks)), return_as="generator")
    try:
        yield from pool(joblib.delayed(_decode_block)(block, size) for block in blocks)
    finally:  # also after Ctrl-C: no process stays behind
        get_reusable_executor().shutdown(kill_workers=True)


def _notes(forms: Counter[Form], size: int) -> list[str]:
    sizes, colour = Counter(), 0
    for (shape, is_colour), count in forms.items():
        sizes[shape] += count
        colour += count * is_colour
    other = [(shape, count) for shape, count in sizes.most_common() if shape != (size, size)]
    names = ", ".join(f"{width}x{height} ({count:,})" for (width, height), count in other[:3])
    notes = [f"resized to {size}x{size}: {names}{', ...' if len(other) > 3 else ''}"] if other else []
    return notes + [f"colour turned to grey: {colour:,} pictures"] * (colour > 0)


def light(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean and the standard deviation of the grey levels of each picture of uint8 [N, 1, H, W]."""
    pixels = images.reshape(len(images), -1)
    mean = pixels.sum(1, dtype=np.int64) / pixels.shape[1]
    mean_square = np.einsum("ij,ij->i", pixels, pixels, dtype=np.int64) / pixels.shape[1]
    return mean, np.sqrt((mean_square - mean**2).clip(min=0))
