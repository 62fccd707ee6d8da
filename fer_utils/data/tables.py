"""Tables as competitions write them: text with any separator, with or without a header, JSON and parquet.
`COLUMNS` lists the recognised column names."""

from __future__ import annotations

import codecs
import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd

from fer_utils.competition import DataError
from fer_utils.data.images import IMAGE_SUFFIXES
from fer_utils.data.json_parquet import as_text, json_frame, parquet_chunks, parquet_names, table_errors
from fer_utils.data.labels import as_int, canonical

TEXT_SUFFIXES = (".csv", ".tsv", ".txt", ".lst")
JSON_SUFFIXES = (".json", ".jsonl", ".ndjson")
TABLE_SUFFIXES = (*TEXT_SUFFIXES, *JSON_SUFFIXES, ".parquet")

# The column names that are recognised for each role, the surest first. To read a label column called mood
# without a change here: load_competition(..., columns="label=mood").
COLUMNS = {
    "label": (
        *("emotion", "label", "class", "category", "target", "expression", "emotions", "labels"),
        *("class_name", "class_label", "label_name", "expression_label", "emotion_label", "emotion label"),
        *("sentiment", "prediction", "predicted", "expected", "y"),
    ),
    "pixels": ("pixels", "pixel", "feature", "features"),
    "usage": ("usage", "split", "subset", "set", "data set", "dataset", "partition"),
    "image": (
        *("image", "image_path", "filename", "file", "file_name", "path", "pth", "filepath", "file_path"),
        *("img", "image_name", "image name", "name", "img_path", "img_name", "imagename", "picture"),
        *("filepaths", "filenames", "image_file", "image file", "subdirectory_filepath"),
        *("subdirectory_file_path", "id", "image_id", "id_code"),
    ),
    "id": ("id", "image_id", "row_id", "imageid", "index"),
}
KNOWN_NAMES = {name for names in COLUMNS.values() for name in names}
SMALLEST_SIDE = 16  # of pictures with a column per pixel: fewer numbers are measurements


@dataclass(frozen=True)
class Table:
    """A table on disk and how it is written.

    Attributes:
        path: the file.
        columns: column names, stripped and in lower case; `column 1`, ... where there is no header.
        header: whether the first line holds them.
        separator: the character between columns, or `\\s+` for any run of blanks.
        encoding: of the text.
        first: the cells of the first row of data.
        chosen: the column's name for some roles, where a person named it.
    """

    path: Path
    columns: tuple[str, ...]
    header: bool = True
    separator: str = ","
    encoding: str = "utf-8"
    first: tuple[str, ...] = ()
    chosen: tuple[tuple[str, str], ...] = ()

    def column(self, role: str) -> int | None:
        """The position of the column that holds the label, pixels, usage, image or id; None if none does."""
        chosen = dict(self.chosen)
        names = [_normal(chosen[role])] if role in chosen else COLUMNS[role]
        taken = {_normal(name) for other, name in self.chosen if other != role}
        found = next((self.columns.index(n) for n in names if n in self.columns and n not in taken), None)
        return self._by_content(role) if found is None and role not in chosen else found

    def _by_content(self, role: str) -> int | None:
        """The only column whose first cell is a picture's name, or a word for an expression."""
        is_it = {"image": _is_image, "label": lambda cell: canonical(cell) is not None}.get(role)
        found = [i for i, cell in enumerate(self.first) if is_it and is_it(cell)]
        return found[0] if len(found) == 1 else None

    @cached_property
    def pixels(self) -> tuple[int, ...]:
        """The positions of the pixels: one column of strings, or as many as a square picture has pixels."""
        position = self.column("pixels")
        if position is not None:
            return (position,)
        if len(self.columns) < SMALLEST_SIDE**2:
            return ()
        others = {self.column(role) for role in ("label", "usage", "id")}
        named = [i for i, name in enumerate(self.columns) if re.fullmatch(r"(px?|pixel|pix)[ _.-]?\d+", name)]
        numbers = [i for i, c in enumerate(self.first) if i not in others and as_int(c) is not None]
        return next((tuple(found) for found in (named, numbers) if is_picture(len(found))), ())

    @cached_property
    def votes(self) -> dict[str, int]:
        """The columns that count votes or give shares for each expression, by name; empty if there are none.

        A single label leads, unless it is absent: FER+ (Barsoum et al. 2016) and one-hot lists.
        """
        names = {i: name for i, name in enumerate(self.columns) if canonical(name)}
        known = {canonical(name) for name in names.values()}
        numeric = all(_is_number(self.first[i]) for i in names if i < len(self.first))
        if len(known) < 3 or not numeric or self.column("label") is not None:
            return {}
        places = self._one_hot(names) or set(names)
        return {self.columns[i]: i for i in sorted(places)}

    def _one_hot(self, known: Collection[int]) -> set[int]:
        """The columns of expressions and those of other names around them, if their first row is a 1 and else
        only 0; none if it is not."""
        digits = {i for i, cell in enumerate(self.first) if cell in ("0", "1")}
        digits -= {i for i in digits if self.columns[i] in KNOWN_NAMES}
        low, high = min(known), max(known)
        while low - 1 in digits:
            low -= 1
        while high + 1 in digits:
            high += 1
        block = digits & set(range(low, high + 1))
        is_one_hot = set(known) <= block and [self.first[i] for i in block].count("1") == 1
        return block if is_one_hot else set()

    @property
    def is_labelled(self) -> bool:
        """Whether it tells the expression, by a label or by votes."""
        return self.column("label") is not None or bool(self.votes)

    def place(self, row: int) -> str:
        """The name of a data row as an editor numbers the lines, the header being row 1."""
        return f"{self.path.name} row {row + 1 + self.header}"


def _is_image(cell: str) -> bool:
    return cell.lower().endswith(IMAGE_SUFFIXES)


def is_picture(n: int) -> bool:
    """Whether `n` numbers are a square picture, grey or with three colours, and not just a few columns."""
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
    with table_errors(path):
        if path.suffix.lower() in JSON_SUFFIXES:
            frame = json_frame(path)
            first = tuple(frame.iloc[0]) if len(frame) else ()
            return Table(path, _unique([_normal(c) for c in frame.columns]), first=first, chosen=chosen)
        if path.suffix.lower() == ".parquet":
            names = parquet_names(path)
            first = next(parquet_chunks(path, range(len(names)), 1), None)
            cells = () if first is None or first.empty else tuple(map(as_text, first.iloc[0]))
            return Table(path, _unique([_normal(name) for name in names]), first=cells, chosen=chosen)
        return _open_text(path, chosen)


def _open_text(path: Path, chosen: tuple[tuple[str, str], ...]) -> Table:
    with open(path, "rb") as file:
        head = file.read(1 << 16)
    encoding = _encoding(head)
    if b"\0" in head and encoding != "utf-16":
        raise DataError(f"{path} is not a text table")
    first_line = next((line for line in head.decode(encoding, "replace").splitlines() if line.strip()), "")
    separator = _separator(first_line)
    options = {"sep": separator, "encoding": encoding, "encoding_errors": "replace"}
    options["skipinitialspace"] = True  # a.png, "happy"
    rows = pd.read_csv(path, nrows=1, header=None, dtype=str, na_filter=False, **options)
    names = rows.iloc[0].str.strip().tolist()
    if len(names) > SMALLEST_SIDE**2:  # the label among so many numbers is told by several rows
        rows = pd.read_csv(path, nrows=64, header=None, dtype=str, na_filter=False, **options)
    header = _is_header(names) or any(_normal(name) in map(_normal, names) for _, name in chosen)
    columns = [name.lower() for name in names] if header else _columns_by_content(rows.to_numpy().tolist())
    first = names
    if header:
        try:
            options |= {"skiprows": 1, "nrows": 1, "index_col": False}
            below = pd.read_csv(
                path, header=None, names=range(len(names)), dtype=str, na_filter=False, **options
            )
            first = below.fillna("").iloc[0].str.strip().tolist() if len(below) else []
        except (pd.errors.EmptyDataError, pd.errors.ParserError):  # the reader of all rows will say so
            first = []
    return Table(path, _unique(columns), header, separator, encoding, tuple(first), chosen)


def _encoding(head: bytes) -> str:
    """The encoding of a text that begins with these bytes; what is not UTF is taken for cp1252."""
    if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return "utf-16"
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)  # the last character may be cut off
    except UnicodeDecodeError:
        return "cp1252"
    return "utf-8"  # with or without its mark, which pandas passes over


def _unique(columns: Sequence[str]) -> tuple[str, ...]:
    """A name that comes twice is told apart by its position; only the first counts."""
    seen: set[str] = set()
    unique = []
    for i, name in enumerate(columns):
        unique.append(f"{name} {i + 1}" if name in seen else name)
        seen.add(name)
    return tuple(unique)


def _separator(line: str) -> str:
    counts = {separator: line.count(separator) for separator in ",;\t|"}
    best = max(counts, key=counts.get)
    if counts[best]:
        return best
    words = line.split()
    if words and words[0].lower().endswith(IMAGE_SUFFIXES):
        return r"\s+"
    # Two or three words are columns (`name label`); more are the pixels of one picture.
    return r"\s+" if 2 <= len(words) <= 3 and '"' not in line else ","


def _is_header(names: list[str]) -> bool:
    if any(name.lower() in KNOWN_NAMES for name in names) or names == [str(i) for i in range(len(names))]:
        return len(names) > 1 or names != ["0"]
    if len(names) == 1 and canonical(names[0]):  # a sample of nothing but words
        return False
    first_words = [name.split()[0] for name in names if name.strip()]
    numeric = any(_is_number(word) for word in first_words)
    return not numeric and not any(name.lower().endswith(IMAGE_SUFFIXES) for name in names)


# The order of the ten votes in FER+'s label.csv, which has no header.
FER_PLUS = (
    *("neutral", "happiness", "surprise", "sadness", "anger"),
    *("disgust", "fear", "contempt", "unknown", "nf"),
)


def _columns_by_content(rows: list[list[str]]) -> list[str]:
    """Column names for a table without a header: a picture beside one other cell, which is its label; votes
    of FER+; a label before or behind as many numbers as a picture has."""
    cells = rows[0]
    names = [
        "pixels" if len(c.split()) > 3 and as_int(c.split()[0]) is not None
        else "image" if c.lower().endswith(IMAGE_SUFFIXES) else ""
        for c in cells
    ]  # fmt: skip
    if len(cells) == 2 and names.count("") == 1:
        return [name or "label" for name in names]
    if len(cells) == 8 and names[0] == "image" and all(_is_number(cell) for cell in cells[1:]):
        # ExpW's label.lst (Zhang et al. 2018)
        return ["image", "face", "top", "left", "right", "bottom", "confidence", "label"]
    votes = cells[-len(FER_PLUS) :]
    if len(cells) == len(FER_PLUS) + 2 and names[0] == "image" and all(as_int(c) is not None for c in votes):
        return ["image", "box", *FER_PLUS]
    if len(cells) > SMALLEST_SIDE**2 and is_picture(len(cells) - 1):
        # Of the two ends, the labels are the one with fewer values; MNIST's relatives begin with them.
        at_end = len({row[-1] for row in rows}) < len({row[0] for row in rows})
        pixels = [f"pixel {i}" for i in range(len(cells) - 1)]
        return [*pixels, "label"] if at_end else ["label", *pixels]
    return [name if names.count(name) == 1 and name else f"column {i + 1}" for i, name in enumerate(names)]


def is_sample(name: str) -> bool:
    """Whether a file is named as a sample submission: sampleSubmission.csv, sample.csv."""
    words = re.sub("[^a-z]+", "", Path(name).stem.lower())
    return "submission" in words or words in ("sample", "example", "submit")
