"""How a text table is written: its encoding, separator, header and columns, from its first rows."""

from __future__ import annotations

import codecs
import re
import warnings
from pathlib import Path

import pandas as pd

from fer_utils.competition import DataError
from fer_utils.data.files.archives import opened_bytes
from fer_utils.data.known_column_names import KNOWN_NAMES
from fer_utils.data.known_expressions_and_splits import (
    are_counted,
    as_int,
    canonical,
    is_image_name,
    is_number,
    normal,
    pattern,
)
from fer_utils.data.pixel_strings import SMALLEST_SIDE, count_pixels, is_image

MOST_ACCENTS = 0.3  # of the letters of a text in a Western encoding
UTF_16 = (b"\xff\xfe", b"\xfe\xff")  # its byte order marks
HEAD_ROWS = 64  # from which all this is recognised


def find_form(path: Path, chosen: set[str]) -> tuple[list[str], bool, str, str, pd.DataFrame]:
    """How a text table is written: names, header, separator, encoding and head, as a `Table` keeps them;
    where no line holds the names, they are made of what the columns hold. A line that holds one of the names
    that a person gave (`chosen`) is a header.

    Raises:
        DataError: it is no text.
    """
    with opened_bytes(path) as file:
        start = file.read(1 << 16)
    if b"\0" in start and start[:2] not in UTF_16:
        raise DataError(f"{path} is not a text table")
    encoding = _encoding(start, path)
    lines = start.decode(encoding, "replace").removeprefix("\ufeff").splitlines()
    first_line = next((line for line in lines if line.strip()), "")
    if re.fullmatch(r'"?sep=.?"?', first_line.strip(), re.IGNORECASE):
        raise DataError(f"{path} begins with the line {first_line.strip()!r}, which is for Excel: delete it")
    separator = _separator(first_line)
    options = {"sep": separator, "encoding": encoding, "encoding_errors": "replace", "header": None}
    options |= {"dtype": object, "na_filter": False, "skipinitialspace": True}  # a.png, "happy"
    names = pd.read_csv(path, nrows=1, **options).iloc[0].str.strip().tolist()
    try:
        options |= {"names": range(len(names)), "index_col": False, "on_bad_lines": "skip"}
        with warnings.catch_warnings():  # of rows that are longer than the first, as in a text in prose
            warnings.simplefilter("ignore", pd.errors.ParserWarning)
            head = pd.read_csv(path, nrows=HEAD_ROWS, skiprows=1, **options).fillna("")
        # Not column by column: there may be one for each of thousands of pixels.
        rows = [list(map(str.strip, row)) for row in head.to_numpy(object).tolist()]
        head = pd.DataFrame(rows, columns=head.columns, dtype=object)
    except (pd.errors.EmptyDataError, pd.errors.ParserError):  # reported when all rows are read
        head = pd.DataFrame(columns=range(len(names)))
    if chosen & set(map(normal, names)) or _is_header(names, head):
        return names, True, separator, encoding, head
    head = pd.concat([pd.DataFrame([names]), head], ignore_index=True)
    return _columns_by_content(head), False, separator, encoding, head


def _encoding(head: bytes, path: Path) -> str:
    """The encoding of a text that begins with these bytes: UTF-16, UTF-8 or else cp1252."""
    if head[:2] in UTF_16:
        return "utf-16"
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)  # the last character may be cut off
    except UnicodeDecodeError as error:
        letters = [c for c in head.decode("cp1252", "replace") if c.isalpha()]
        if sum(not c.isascii() for c in letters) > MOST_ACCENTS * len(letters):
            raise DataError(
                f"{path} is written in an encoding of another language (not UTF-8): save it as UTF-8"
            ) from error
        return "cp1252"
    return "utf-8"  # with or without a byte order mark, which pandas skips


def _separator(line: str) -> str:
    counts = {separator: line.count(separator) for separator in ",;\t|"}
    best = max(counts, key=counts.get)
    if counts[best]:
        return best
    words = re.sub(r'"[^"]*"', "quoted", line).split()
    # Two or three words are columns (`name label`); more are the pixels of one image.
    spaced = 2 <= len(words) <= 3
    return r"\s+" if spaced or (words and is_image_name(words[0])) else ","


def _is_header(names: list[str], head: pd.DataFrame) -> bool:
    """Whether the first line names the columns: a known name, or one cell of another kind than those
    below."""
    lower = [name.lower() for name in names]
    starts_anew = len(head) > 0 and head.iloc[0, 0] == "0"
    is_counted = names == [str(i) for i in range(len(names))]  # as pandas numbers columns without names
    if any(name in KNOWN_NAMES for name in lower) or (is_counted and (len(names) > 2 or starts_anew)):
        return len(names) > 1 or names != ["0"]
    numbers = [as_int(name) for name in names if name and is_number(name)]
    in_order = len(numbers) > 1 and are_counted(numbers)
    if any(map(is_image_name, names)) or (numbers and not in_order):
        return False
    if head.empty:
        return not any(canonical(name) for name in names) or len(names) > 2
    columns = head.to_numpy(object).T.tolist()
    below = [set(map(_kind, column)) for column in columns]
    for name, column, kinds in zip(names, columns, below, strict=True):  # a value is no name
        is_word = re.search(r"[^\W\d]", name)
        if (is_word and name in column) or (canonical(name) and _kind(name) in kinds):
            return False
        if kinds == {_kind(name)} and "#" in _kind(name):  # Face15 above Face10, Face35, ...
            return False
    return any(
        (len(kinds) <= max(3, len(head) / 5) and _kind(name) not in kinds)
        or (not re.search(r"\d", name) and all(re.search(r"\d", cell) for cell in column))
        for name, column, kinds in zip(names, columns, below, strict=True)
    )


def _kind(cell: str) -> str:
    """A cell by its form, so that a name above a column differs from what stands in it."""
    if canonical(cell):
        return "an expression"
    if is_number(cell):
        return "a number"
    return "an image" if is_image_name(cell) else pattern(cell.strip().lower())


# The order of the ten votes in FER+'s label.csv, which has no header.
FER_PLUS = (
    *("neutral", "happiness", "surprise", "sadness", "anger"),
    *("disgust", "fear", "contempt", "unknown", "nf"),
)


def _columns_by_content(head: pd.DataFrame) -> list[str]:
    """Column names for a table without a header: an image and its label; ExpW; votes of FER+; a label before
    or after the pixels."""
    cells = head.iloc[0].tolist()
    names = ["pixels" if is_image(count_pixels(c)) else "image" * is_image_name(c) for c in cells]
    if len(cells) == 2 and names.count("") == 1:
        return [name or "label" for name in names]
    if len(cells) == 8 and names[0] == "image" and all(is_number(cell) for cell in cells[1:]):
        # ExpW's label.lst (Zhang et al. 2018)
        return ["image", "face", "top", "left", "right", "bottom", "confidence", "label"]
    votes = cells[-len(FER_PLUS) :]
    if len(cells) == len(FER_PLUS) + 2 and names[0] == "image" and all(as_int(c) is not None for c in votes):
        return ["image", "box", *FER_PLUS]
    if len(cells) > SMALLEST_SIDE**2 and is_image(len(cells) - 1):
        # The labels are at the end with fewer values, or first, as in MNIST.
        at_end = head.iloc[:, -1].nunique() < head.iloc[:, 0].nunique()
        pixels = [f"pixel {i}" for i in range(len(cells) - 1)]
        return [*pixels, "label"] if at_end else ["label", *pixels]
    return [name if names.count(name) == 1 and name else f"column {i + 1}" for i, name in enumerate(names)]
