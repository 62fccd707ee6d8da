"""Image files as uint8 [N, 1, S, S]: decoded on all cores, resized, grey; broken ones are named by row."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from io import BytesIO
from itertools import repeat
from pathlib import Path

import numpy as np
from PIL import Image

from fer_utils.competition import DataError
from fer_utils.progress import bar

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".pgm", ".ppm")
# Pillow reads others too, but some of them, such as EPS, start programs.
FORMATS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM")
MAX_PIXELS = 64_000_000  # more than any camera's face image, fewer than a decompression bomb
MID_GREY = 128  # in place of broken images
DECODED_TOGETHER = 128
WORTH_PROCESSES = 8192  # files; with fewer, starting processes takes longer than they save
# Grey levels. In FER2013 the 14 images below it are black, grey or a dot; the next one above it is a face.
BLANK_CONTRAST = 5.0

Form = tuple[tuple[int, int], bool]  # width and height, and whether it has colours
Decoded = tuple[np.ndarray, dict[int, str], list[Form]]  # uint8 [N, 1, S, S], errors by row, original forms


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
    resized = [_square(Image.fromarray(image), size) for image in images[:, 0]]
    return np.array(resized, np.uint8).reshape(-1, 1, size, size)


def _square(image: Image.Image, size: int) -> np.ndarray:
    """The only resize of this project, for files, arrays and predictions."""
    if image.size != (size, size):
        image = image.resize((size, size), Image.Resampling.BICUBIC)
    return np.asarray(image)


def _decode(source: Path | bytes | None, size: int) -> tuple[np.ndarray, Form]:
    """A file as uint8 [size, size] (of an animation the first frame), and its original form.

    Raises:
        Exception: whatever Pillow's plugins raise for a broken file.
    """
    if source is None:
        raise FileNotFoundError("no such picture file")
    with Image.open(BytesIO(source) if isinstance(source, bytes) else source, formats=FORMATS) as file:
        if file.width * file.height > MAX_PIXELS:
            raise ValueError(f"{file.width} x {file.height} pixels are too many")
        form = file.size, file.mode not in ("L", "1", "LA", "I", "I;16", "I;16B", "F")
        if file.mode.startswith("I"):  # 16 bits: Pillow would cut off at 255 instead of scaling
            image = Image.fromarray((np.asarray(file, np.int64) >> 8).clip(0, 255).astype(np.uint8))
        else:
            image = file.convert("L")
    return _square(image, size), form


def _decode_block(sources: Sequence[Path | bytes | None], size: int) -> Decoded:
    images = np.full((len(sources), 1, size, size), MID_GREY, np.uint8)
    broken, forms = {}, []
    for row, source in enumerate(sources):
        try:
            images[row, 0], form = _decode(source, size)
            forms.append(form)
        except Exception as error:  # see _decode
            reason = str(error) or type(error).__name__
            if isinstance(source, Path):
                reason = reason.replace(str(source), source.name)
            broken[row] = reason if source is None else f"not a readable picture: {reason}"
    return images, broken, forms


def _end_with(parent: int) -> None:
    """End this worker when its parent is killed; joblib's would wait for ever."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _decode_in_processes(blocks: list[Sequence[Path | bytes | None]], size: int) -> Iterator[Decoded]:
    """`_decode_block` of every block. Processes, because small images spend most of their decoding in Python,
    where threads wait for each other; joblib's, because they also start from scripts and notebooks."""
    from joblib.externals.loky import ProcessPoolExecutor  # slow to import, and few data sets need it

    workers = min(os.cpu_count() or 1, len(blocks))
    pool = ProcessPoolExecutor(workers, initializer=_end_with, initargs=(os.getpid(),))
    done = 0
    try:
        for decoded in pool.map(_decode_block, blocks, repeat(size)):
            yield decoded
            done += 1
    except BrokenProcessPool as error:
        raise DataError(
            f"a process that decodes images died at {blocks[done][0]} or one of the files after it: is there "
            "enough memory?"
        ) from error
    finally:  # also after Ctrl-C
        pool.shutdown(kill_workers=True)


def read_files(
    sources: Sequence[Path | bytes | None], size: int
) -> tuple[np.ndarray, dict[int, str], list[str]]:
    """Decode image files, or their bytes: grey, `size` x `size`, animations by their first frame.

    Returns:
        uint8 [N, 1, size, size], mid-grey where a file is broken; why, by position; notes on changes.

    Raises:
        DataError: a process that decodes died, as it does when memory runs out.
    """
    images = np.empty((len(sources), 1, size, size), np.uint8)
    broken: dict[int, str] = {}
    forms: Counter[Form] = Counter()
    starts = range(0, len(sources), DECODED_TOGETHER)
    blocks = [sources[start : start + DECODED_TOGETHER] for start in starts]
    if len(sources) < WORTH_PROCESSES:
        decoded = (_decode_block(block, size) for block in blocks)
    else:
        decoded = _decode_in_processes(blocks, size)
    for start, (pixels, errors, found) in zip(starts, bar(decoded, "decoding", len(blocks)), strict=True):
        images[start : start + len(pixels)] = pixels
        broken |= {start + row: reason for row, reason in errors.items()}
        forms.update(found)
    return images, broken, _notes(forms, size)


def _notes(forms: Counter[Form], size: int) -> list[str]:
    sizes, colour = Counter(), 0
    for (shape, is_colour), count in forms.items():
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
    """The mean and the standard deviation of the grey levels of each image of uint8 [N, 1, H, W]."""
    pixels = images.reshape(len(images), -1)
    mean = pixels.sum(1, dtype=np.int64) / pixels.shape[1]
    mean_square = np.einsum("ij,ij->i", pixels, pixels, dtype=np.int64) / pixels.shape[1]
    return mean, np.sqrt((mean_square - mean**2).clip(min=0))
