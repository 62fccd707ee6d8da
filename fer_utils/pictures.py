"""Pictures from pixel strings and from image files, as uint8 [N, 1, H, W]; what is broken is told by row."""

from __future__ import annotations

import math
import os
import warnings
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

import numpy as np
import pandas as pd
from PIL import Image

from fer_utils.decoding import Decoder, Form, decode_block, decoders
from fer_utils.faces import DataError
from fer_utils.formats import as_text
from fer_utils.progress import bar

PARSED_TOGETHER = 32  # rows whose characters and digits stay in the cache of a core
_LIST_MARKS = str.maketrans("[](),;", " " * 6)
DECODED_TOGETHER = 128
WORTH_PROCESSES = 4096  # files; measured on two cores: 0.77 s against 0.85 s, and for 2,048 0.59 against 0.47


def parse_pixels(texts: Sequence[str], pixels: int) -> tuple[np.ndarray, dict[int, str]]:
    """Parse strings of `pixels` integers 0..255 separated by blanks, on all cores.

    Returns:
        uint8 [N, pixels], zero where a row is broken, and why, by position.
    """
    images = np.zeros((len(texts), pixels), np.uint8)
    broken: dict[int, str] = {}

    def is_plain(rows: range) -> bool:
        parsed = _parse_plain(texts[rows.start : rows.stop], pixels)
        if parsed is not None:
            images[rows.start : rows.stop] = parsed
        return parsed is not None

    blocks = _blocks(len(texts), PARSED_TOGETHER)
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # numpy's arithmetic leaves Python's lock
        plain = list(pool.map(is_plain, blocks))
    # Not in threads: they would share the filter of warnings that the parser of single rows relies on.
    for row in (row for rows, done in zip(blocks, plain, strict=True) if not done for row in rows):
        try:
            images[row] = _parse_row(texts[row], pixels)
        except ValueError as error:
            broken[row] = str(error)
    return images, broken


def _blocks(n: int, size: int) -> list[range]:
    return [range(start, min(start + size, n)) for start in range(0, n, size)]


def _parse_plain(texts: Sequence[str], pixels: int) -> np.ndarray | None:
    """All rows at once by arithmetic on their characters; None if any is not `pixels` numbers of up to three
    digits, up to 255, with single blanks between."""
    text = ("  " + " ".join(texts) + " ").encode()
    codes = np.frombuffer(text, np.uint8)
    is_digit = codes != ord(" ")
    digits = (codes - np.uint8(ord("0"))) * is_digit  # blanks count as 0, whatever else is above 9
    lengths = np.fromiter(map(len, texts), np.int64, len(texts))
    if digits.max() > 9 or not lengths.all() or len(text) != lengths.sum() + len(texts) + 2:
        return None
    ends = is_digit[2:-1] & ~is_digit[3:]
    places = np.flatnonzero(ends)
    in_rows = np.searchsorted(places, np.cumsum(lengths + 1))  # numbers up to the end of each row
    if not np.array_equal(in_rows, np.arange(1, len(texts) + 1) * pixels):
        return None
    if (is_digit[3:] & is_digit[2:-1] & is_digit[1:-2] & is_digit[:-3]).any():
        return None
    # Where a number ends, the digit two places before is its own only if the one between is a digit too.
    hundreds = digits[:-3] * (is_digit[1:-2] & ends)
    values = digits[1:-2] * np.uint8(10) + digits[2:-1]
    if hundreds.max() > 2 or ((hundreds == 2) & (values > 55)).any():
        return None
    values += hundreds * np.uint8(100)
    return values[places].reshape(len(texts), pixels)


def _parse_row(text: str, pixels: int) -> np.ndarray:
    """The pixels of one row, however they are written; a ValueError says what is wrong with it."""
    try:
        with warnings.catch_warnings():
            # numpy announces trailing rubbish by a warning now and by a ValueError later.
            warnings.simplefilter("error", DeprecationWarning)
            values = _numbers(text)
    except (ValueError, DeprecationWarning):
        raise ValueError("a pixel is not a whole number") from None
    if len(values) != pixels:
        raise ValueError(f"{len(values) or 'no'} pixels instead of {pixels}")
    if values.min() < 0 or values.max() > 255:
        raise ValueError(f"a pixel is outside 0..255 ({values.min():.0f}..{values.max():.0f})")
    return values


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


def parse_cells(cells: pd.DataFrame, pixels: int) -> tuple[np.ndarray, dict[int, str]]:
    """Parse rows of a table: one column of pixel strings or lists, or a column for every pixel.

    Returns:
        uint8 [N, pixels], zero where a row is broken, and why, by position.
    """
    if cells.shape[1] == 1:
        column = cells.iloc[:, 0]
        return parse_pixels([c if isinstance(c, str) else as_text(c) for c in column], pixels)
    if any(kind.kind not in "iuf" for kind in cells.dtypes):
        cells = cells.apply(pd.to_numeric, errors="coerce")
    numbers = cells.to_numpy(np.float64)
    whole = (np.isfinite(numbers) & (numbers % 1 == 0)).all(1)
    within = ((numbers >= 0) & (numbers <= 255)).all(1)
    broken = {int(row): "a pixel is not a whole number" for row in np.flatnonzero(~whole)}
    for row in np.flatnonzero(whole & ~within):
        low, high = numbers[row].min(), numbers[row].max()
        broken[int(row)] = f"a pixel is outside 0..255 ({low:.0f}..{high:.0f})"
    fine = (whole & within)[:, None]
    return np.where(fine, numbers, 0).astype(np.uint8), dict(sorted(broken.items()))


def picture_shape(cells: pd.DataFrame, place: str) -> tuple[int, int]:
    """The side and the channels (1, or 3 for colour) of the square pictures that most rows of a table hold.

    Raises:
        DataError: their number of pixels is no square.
    """
    if cells.shape[1] == 1:
        texts = map(as_text, cells.iloc[:64, 0])
        counts = Counter(len(text.translate(_LIST_MARKS).split()) for text in texts)
    else:
        counts = Counter({cells.shape[1]: 1})
    del counts[0]
    pixels = counts.most_common(1)[0][0] if counts else 0
    if not pixels:
        raise DataError(f"{place} holds no pixels")
    for channels in (1, 3):
        side = math.isqrt(pixels // channels)
        if side * side * channels == pixels and side >= 4:
            return side, channels
    raise DataError(f"{place}: {pixels} pixels in a row are no square picture, grey or of three colours")


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
