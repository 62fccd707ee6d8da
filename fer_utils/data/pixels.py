"""Pixel strings and columns of pixels as uint8 arrays; what is broken is named by row."""

from __future__ import annotations

import math
import os
import warnings
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd

from fer_utils.competition import DataError
from fer_utils.data.json_parquet import as_text

PARSED_TOGETHER = 32  # rows whose characters and digits stay in the cache of a core
_LIST_MARKS = str.maketrans("[](),;", " " * 6)


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
