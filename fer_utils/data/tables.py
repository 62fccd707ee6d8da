"""Tables as competitions write them: text with any separator, with or without a header, JSON and parquet.
`COLUMNS` lists the recognised column names."""

from __future__ import annotations

import codecs
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd

from fer_utils.competition import DataError
from fer_utils.data.column_names import COLUMNS, KNOWN_NAMES
from fer_utils.data.images import IMAGE_SUFFIXES
from fer_utils.data.json_parquet import as_text, json_frame, parquet_chunks, parquet_file, table_errors
from fer_utils.data.labels import as_int, canonical

TEXT_SUFFIXES = (".csv", ".tsv", ".txt", ".lst")
JSON_SUFFIXES = (".json", ".jsonl", ".ndjson")
TABLE_SUFFIXES = (*TEXT_SUFFIXES, *JSON_SUFFIXES, ".parquet")

SMALLEST_SIDE = 16  # of pictures with a column per pixel: fewer numbers are measurements


@dataclass(frozen=True)
class Table:
    """A table on disk and how it is written.

    Attributes:
        columns: column names, stripped and in lower case; `column 1`, ... without a header.
        header: whether the first line holds them.
        separator: the character between columns, or `\\s+` for any run of blanks.
        first: the cells of the first row of data.
        chosen: role and column name, where the user named the column.
    """

    path: Path
    columns: tuple[str, ...]
    header: bool = True
    separator: str = ","
    encoding: str = "utf-8"
    first: tuple[str, ...] = ()
    chosen: tuple[tuple[str, str], ...] = ()

    def column(self, role: str) -> int | None:
        """The position of the column for a role (a key of `COLUMNS`); None if there is none."""
        chosen = dict(self.chosen)
        names = [_normal(chosen[role])] if role in chosen else COLUMNS[role]
        taken = {_normal(name) for other, name in self.chosen if other != role}
        found = next((self.columns.index(n) for n in names if n in self.columns and n not in taken), None)
        return self._by_content(role) if found is None and role not in chosen else found

    def _by_content(self, role: str) -> int | None:
        """The only column whose first cell is an image name, or a word for an expression."""
        is_it = {"image": _is_image, "label": lambda cell: canonical(cell) is not None}.get(role)
        found = [i for i, cell in enumerate(self.first) if is_it and is_it(cell)]
        return found[0] if len(found) == 1 else None

    @cached_property
    def pixels(self) -> tuple[int, ...]:
        """The positions of the pixels: one column of strings, or a column for each pixel."""
        if (position := self.column("pixels")) is not None:
            return (position,)
        if len(self.columns) < SMALLEST_SIDE**2:
            return ()
        others = {self.column(role) for role in ("label", "usage", "id")}
        named = [i for i, name in enumerate(self.columns) if re.fullmatch(r"(px?|pixel|pix)[ _.-]?\d+", name)]
        numbers = [i for i, c in enumerate(self.first) if i not in others and as_int(c) is not None]
        return next((tuple(found) for found in (named, numbers) if is_picture(len(found))), ())

    @cached_property
    def votes(self) -> dict[str, int]:
        """The columns with votes or shares for each expression, by name, as in FER+ (Barsoum et al. 2016) and
        one-hot lists; empty if there are none or a label column exists."""
        known = {i: canonical(name) for i, name in enumerate(self.columns) if canonical(name)}
        numeric = all(_is_number(self.first[i]) for i in known if i < len(self.first))
        if len(set(known.values())) < 3 or not numeric or self.column("label") is not None:
            return {}
        # One-hot lists may name further classes beside them: all columns around are 0 or 1, one of them 1.
        digits = {i for i, cell in enumerate(self.first) if cell in ("0", "1")}
        digits -= {i for i in digits if self.columns[i] in KNOWN_NAMES}
        low, high = min(known), max(known)
        while low - 1 in digits:
            low -= 1
        while high + 1 in digits:
            high += 1
        block = digits & set(range(low, high + 1))
        is_one_hot = known.keys() <= block and [self.first[i] for i in block].count("1") == 1
        return {self.columns[i]: i for i in sorted(block if is_one_hot else known)}

    @property
    def is_labelled(self) -> bool:
        """Whether it gives the expression, by a label or by votes."""
        return self.column("label") is not None or bool(self.votes)

    def place(self, row: int) -> str:
        """The name of a data row (from 0) for messages, numbered as in an editor: the header is row 1."""
        return f"{self.path.name} row {row + 1 + self.header}"


def _is_image(cell: str) -> bool:
    return cell.lower().endswith(IMAGE_SUFFIXES)


def is_picture(n: int) -> bool:
    """Whether `n` numbers can be a square image, grey or with three colours, of `SMALLEST_SIDE` or more."""
    side = max(math.isqrt(n), math.isqrt(n // 3))
    return n in (math.isqrt(n) ** 2, 3 * math.isqrt(n // 3) ** 2) and side >= SMALLEST_SIDE


def _normal(name: object) -> str:
    return str(name).strip().lower()


def _is_number(cell: str) -> bool:
    try:
        return math.isfinite(float(cell or 0))
    except ValueError:
        return False


def open_table(path: Path, chosen: Mapping[str, str] | None = None) -> Table:
    """Find out how a table is written: encoding, separator, header, normalised column names.

    Args:
        chosen: the column's name for some roles ("label", "pixels", "usage", "image", "id").

    Raises:
        DataError: the file is empty or no table.
    """
    chosen = tuple(sorted((chosen or {}).items()))
    suffix = path.suffix.lower()
    with table_errors(path):
        if suffix in JSON_SUFFIXES:
            frame = json_frame(path)
            names, first = list(frame.columns), frame.head(1)
        elif suffix == ".parquet":
            names = parquet_file(path).schema_arrow.names
            first = next(parquet_chunks(path, range(len(names)), 1), pd.DataFrame())
        else:
            return _open_text(path, chosen)
        cells = () if first.empty else tuple(map(as_text, first.iloc[0]))
        return Table(path, _unique(map(_normal, names)), first=cells, chosen=chosen)


def _open_text(path: Path, chosen: tuple[tuple[str, str], ...]) -> Table:
    with open(path, "rb") as file:
        head = file.read(1 << 16)
    encoding = _encoding(head)
    if b"\0" in head and encoding != "utf-16":
        raise DataError(f"{path} is not a text table")
    first_line = next((line for line in head.decode(encoding, "replace").splitlines() if line.strip()), "")
    separator = _separator(first_line)
    options = {"sep": separator, "encoding": encoding, "encoding_errors": "replace", "header": None}
    options |= {"dtype": str, "na_filter": False, "skipinitialspace": True}  # a.png, "happy"
    rows = pd.read_csv(path, nrows=1, **options)
    names = first = rows.iloc[0].str.strip().tolist()
    if len(names) > SMALLEST_SIDE**2:  # which of so many numbers is the label, only several rows show
        rows = pd.read_csv(path, nrows=64, **options)
    header = _is_header(names) or any(_normal(name) in map(_normal, names) for _, name in chosen)
    columns = [name.lower() for name in names] if header else _columns_by_content(rows.to_numpy().tolist())
    if header:
        try:
            options |= {"skiprows": 1, "index_col": False, "names": range(len(names))}
            below = pd.read_csv(path, nrows=1, **options).fillna("")
            first = below.iloc[0].str.strip().tolist() if len(below) else []
        except (pd.errors.EmptyDataError, pd.errors.ParserError):  # reported when all rows are read
            first = []
    return Table(path, _unique(columns), header, separator, encoding, tuple(first), chosen)


def _encoding(head: bytes) -> str:
    """The encoding of a text that begins with these bytes: UTF-16, UTF-8 or else cp1252."""
    if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return "utf-16"
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)  # the last character may be cut off
    except UnicodeDecodeError:
        return "cp1252"
    return "utf-8"  # with or without a byte order mark, which pandas skips


def _unique(columns: Iterable[str]) -> tuple[str, ...]:
    """The names; one that was there before gets its position added, so that only the first is recognised."""
    columns = pd.Series(list(columns), dtype=object)
    names = zip(columns, columns.duplicated(), strict=True)
    return tuple(f"{name} {i}" if again else name for i, (name, again) in enumerate(names, 1))


def _separator(line: str) -> str:
    counts = {separator: line.count(separator) for separator in ",;\t|"}
    best = max(counts, key=counts.get)
    if counts[best]:
        return best
    words = line.split()
    # Two or three words are columns (`name label`); more are the pixels of one image.
    spaced = 2 <= len(words) <= 3 and '"' not in line
    return r"\s+" if spaced or (words and _is_image(words[0])) else ","


def _is_header(names: list[str]) -> bool:
    if any(name.lower() in KNOWN_NAMES for name in names) or names == [str(i) for i in range(len(names))]:
        return len(names) > 1 or names != ["0"]
    if len(names) == 1 and canonical(names[0]):  # a sample of nothing but words
        return False
    first_words = [name.split()[0] for name in names if name.strip()]
    return not any(map(_is_number, first_words)) and not any(map(_is_image, names))


# The order of the ten votes in FER+'s label.csv, which has no header.
FER_PLUS = (
    *("neutral", "happiness", "surprise", "sadness", "anger"),
    *("disgust", "fear", "contempt", "unknown", "nf"),
)


def _columns_by_content(rows: list[list[str]]) -> list[str]:
    """Column names for a table without a header: an image and its label; ExpW; votes of FER+; a label before
    or after the pixels."""
    cells = rows[0]
    strings = [len(cell.split()) > 3 and as_int(cell.split()[0]) is not None for cell in cells]
    names = ["pixels" if p else "image" * _is_image(c) for p, c in zip(strings, cells, strict=True)]
    if len(cells) == 2 and names.count("") == 1:
        return [name or "label" for name in names]
    if len(cells) == 8 and names[0] == "image" and all(_is_number(cell) for cell in cells[1:]):
        # ExpW's label.lst (Zhang et al. 2018)
        return ["image", "face", "top", "left", "right", "bottom", "confidence", "label"]
    votes = cells[-len(FER_PLUS) :]
    if len(cells) == len(FER_PLUS) + 2 and names[0] == "image" and all(as_int(c) is not None for c in votes):
        return ["image", "box", *FER_PLUS]
    if len(cells) > SMALLEST_SIDE**2 and is_picture(len(cells) - 1):
        # The labels are at the end with fewer values, or first, as in MNIST.
        at_end = len({row[-1] for row in rows}) < len({row[0] for row in rows})
        pixels = [f"pixel {i}" for i in range(len(cells) - 1)]
        return [*pixels, "label"] if at_end else ["label", *pixels]
    return [name if names.count(name) == 1 and name else f"column {i + 1}" for i, name in enumerate(names)]


def is_sample(name: str) -> bool:
    """Whether a file is named as a sample submission: sampleSubmission.csv, sample.csv."""
    words = re.sub("[^a-z]+", "", Path(name).stem.lower())
    return "submission" in words or words in ("sample", "example", "submit")
