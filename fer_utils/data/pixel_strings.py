"""Pixel strings and columns of pixels as uint8 arrays, with a reason for each broken row."""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress

import numpy as np
import pandas as pd

from fer_utils.competition import DataError
from fer_utils.data.tables_json_parquet import as_text

SMALLEST_SIDE = 16  # of images with a column per pixel: fewer numbers are measurements
_LIST_MARKS = str.maketrans("[](),;", " " * 6)


def parse_pixels(texts: Sequence[str], pixels: int) -> tuple[np.ndarray, dict[int, str]]:
    """Parse strings of `pixels` integers 0..255 separated by blanks.

    Returns:
        uint8 [N, pixels], zero where a row is broken, and why, by position.
    """
    images = np.zeros((len(texts), pixels), np.uint8)
    broken: dict[int, str] = {}
    with warnings.catch_warnings():
        # Text after the numbers is a warning in some versions of numpy and a ValueError in others.
        warnings.simplefilter("error", DeprecationWarning)
        if texts and all(t.count(" ") == pixels - 1 and "\t" not in t and "\n" not in t for t in texts):
            with suppress(ValueError, DeprecationWarning):  # all rows at once, unless one of them is broken
                values = np.fromstring(" ".join(texts), dtype=np.int32, sep=" ")
                if len(values) == images.size and values.min() >= 0 and values.max() <= 255:
                    return values.astype(np.uint8).reshape(images.shape), {}
        for row, text in enumerate(texts):
            try:
                images[row] = _parse_row(text, pixels)
            except ValueError as error:
                broken[row] = str(error)
    return images, broken


def _parse_row(text: str, pixels: int) -> np.ndarray:
    """The pixels of one row, or a ValueError that says what is wrong with it."""
    text = text.translate(_LIST_MARKS).strip()
    try:
        values = np.fromstring(text, np.float64, sep=" ") if text else np.empty(0)
    except (ValueError, DeprecationWarning):
        raise ValueError("a pixel is not a whole number") from None
    if len(values) != pixels:
        raise ValueError(f"{len(values) or 'no'} pixels instead of {pixels}")
    if fault := _fault(values):
        raise ValueError(fault)
    return values


def _fault(values: np.ndarray) -> str:
    """What is wrong with the pixels of a row; "" if nothing is."""
    if not np.isfinite(values).all() or (values % 1).any():
        return "a pixel is not a whole number"
    low, high = values.min(), values.max()
    return "" if low >= 0 and high <= 255 else f"a pixel is outside 0..255 ({low:.0f}..{high:.0f})"


def are_fractions(cells: pd.DataFrame) -> bool:
    """Whether pixels (see `parse_cells`) are grey levels from 0 to 1."""
    texts = [" ".join(map(as_text, row)).translate(_LIST_MARKS) for row in cells.itertuples(index=False)]
    words = [word for text in texts for word in text.split()]
    numbers = pd.to_numeric(pd.Series(words, dtype=object), errors="coerce").to_numpy(float)
    return bool(len(numbers) and ((numbers >= 0) & (numbers <= 1)).all() and numbers.any())


def parse_cells(
    cells: pd.DataFrame, pixels: int, as_fractions: bool = False
) -> tuple[np.ndarray, dict[int, str]]:
    """Parse rows of a table: one column of pixel strings or lists, or a column for every pixel.

    Args:
        as_fractions: whether the grey levels are from 0 to 1.

    Returns:
        uint8 [N, pixels], zero where a row is broken, and why, by position.
    """
    if as_fractions:
        return _parse_fractions(cells, pixels)
    if cells.shape[1] == 1:
        return parse_pixels([c if isinstance(c, str) else as_text(c) for c in cells.iloc[:, 0]], pixels)
    if any(kind.kind not in "iuf" for kind in cells.dtypes):
        cells = cells.apply(pd.to_numeric, errors="coerce")
    numbers = cells.to_numpy(np.float64, copy=True)
    fine = ((numbers >= 0) & (numbers <= 255) & (numbers % 1 == 0)).all(1)
    broken = {row: _fault(numbers[row]) for row in np.flatnonzero(~fine).tolist()}
    numbers[~fine] = 0
    return numbers.astype(np.uint8), broken


def _parse_fractions(cells: pd.DataFrame, pixels: int) -> tuple[np.ndarray, dict[int, str]]:
    images, broken = np.zeros((len(cells), pixels), np.uint8), {}
    for row, values in enumerate(cells.itertuples(index=False)):
        words = " ".join(map(as_text, values)).translate(_LIST_MARKS).split()
        numbers = pd.to_numeric(pd.Series(words, dtype=object), errors="coerce").to_numpy(float)
        if len(numbers) != pixels:
            broken[row] = f"{len(numbers) or 'no'} pixels instead of {pixels}"
        elif not ((numbers >= 0) & (numbers <= 1)).all():
            broken[row] = "a pixel is outside 0..1, as the others of the table are"
        else:
            images[row] = (numbers * 255).round()
    return images, broken


def square_of(n: int) -> tuple[int, int] | None:
    """The side and the channels (1, or 3 for colour) of the square image that `n` numbers are."""
    sides = {channels: math.isqrt(n // channels) for channels in (1, 3)}
    return next(((side, c) for c, side in sides.items() if side * side * c == n), None)


def is_image(n: int) -> bool:
    """Whether `n` numbers can be a square image, grey or with three colours, and not measurements."""
    return n >= SMALLEST_SIDE**2 and square_of(n) is not None


def count_pixels(text: str) -> int:
    """How many numbers a cell holds, 0 if it holds anything else."""
    words = str(text).translate(_LIST_MARKS).split()
    return len(words) if len(words) > 3 and all(word[:1].isdigit() for word in words) else 0


def square(cells: pd.DataFrame, place: str) -> tuple[int, int]:
    """The side and the channels (1, or 3 for colour) of the square images in most rows of a table.

    Raises:
        DataError: their number of pixels is no square.
    """
    pixels = cells.shape[1]
    if pixels == 1:
        counts = Counter(len(as_text(cell).translate(_LIST_MARKS).split()) for cell in cells.iloc[:64, 0])
        del counts[0]
        pixels = max(counts, key=counts.get, default=0)
    if not pixels:
        raise DataError(f"{place} holds no pixels")
    found = square_of(pixels)
    if found is None and "..." in as_text(cells.iloc[0, 0]):
        raise DataError(
            f"{place}: the pixels were cut when they were written (...): write them again, in numpy after "
            "np.set_printoptions(threshold=10**6)"
        )
    if found is None or found[0] < 4:
        raise DataError(f"{place}: {pixels} pixels in a row are no square image, grey or of three colours")
    return found
