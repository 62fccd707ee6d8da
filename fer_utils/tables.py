"""Text tables as competitions write them: any separator, with or without a header, columns by many names."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from fer_utils.faces import DataError
from fer_utils.labels import as_int

TABLE_SUFFIXES = (".csv", ".tsv", ".txt")
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".pgm", ".ppm")

# What a column holds, by the names it goes by, the surest first.
COLUMNS = {
    "label": ["emotion", "label", "class", "category", "target", "expression", "emotions", "labels"],
    "pixels": ["pixels", "pixel", "feature", "features"],
    "usage": ["usage", "split", "subset"],
    "image": [
        *[
            "image",
            "image_path",
            "filename",
            "file",
            "file_name",
            "path",
            "pth",
            "filepath",
            "file_path",
            "img",
        ],
        *["image_name", "image name", "img_path", "picture", "id", "image_id", "id_code"],
    ],
    "id": ["id", "image_id", "row_id", "imageid", "index"],
}
KNOWN_NAMES = {name for names in COLUMNS.values() for name in names}
CHUNK_ROWS = 1024


@dataclass(frozen=True)
class Table:
    """A text table on disk and how it is written.

    Attributes:
        path: the file.
        columns: column names, stripped and in lower case; `column 1`, ... where there is no header.
        header: whether the first line holds them.
        separator: the character between columns, or `\\s+` for any run of blanks.
        encoding: of the text.
    """

    path: Path
    columns: tuple[str, ...]
    header: bool
    separator: str
    encoding: str

    def column(self, role: str) -> int | None:
        """The position of the column that holds the label, pixels, usage, image or id; None if none does."""
        found = [self.columns.index(name) for name in COLUMNS[role] if name in self.columns]
        return found[0] if found else None

    def place(self, row: int) -> str:
        """The name of a data row as an editor numbers the lines, the header being row 1."""
        return f"{self.path.name} row {row + 1 + self.header}"


@contextmanager
def _pandas_errors(path: Path) -> Iterator[None]:
    """Errors of pandas' reader as a DataError that names the file."""
    try:
        yield
    except pd.errors.EmptyDataError as error:
        raise DataError(f"{path} is empty") from error
    except (pd.errors.ParserError, UnicodeError, OSError) as error:
        raise DataError(f"{path} cannot be read as a table: {str(error).strip()}") from error


def open_table(path: Path) -> Table:
    """Find out how a table is written: encoding, separator, header, normalised column names.

    Raises:
        DataError: the file is empty or no text table.
    """
    with _pandas_errors(path), open(path, "rb") as file:
        head = file.read(1 << 16)
    encoding = (
        "utf-16" if head[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8"
    )  # pandas passes over its mark, fastest by this name
    if b"\0" in head and encoding != "utf-16":
        raise DataError(f"{path} is not a text table")
    first_line = next((line for line in head.decode(encoding, "replace").splitlines() if line.strip()), "")
    separator = _separator(first_line)
    with _pandas_errors(path):
        options = {"sep": separator, "encoding": encoding, "encoding_errors": "replace"}
        first = pd.read_csv(path, nrows=1, header=None, dtype=str, na_filter=False, **options)
    names = first.iloc[0].str.strip().tolist()
    header = _is_header(names)
    columns = [name.lower() for name in names] if header else _columns_by_content(names)
    # A name that comes twice is told apart by its position; only the first counts.
    columns = [name if columns.index(name) == i else f"{name} {i + 1}" for i, name in enumerate(columns)]
    return Table(path, tuple(columns), header, separator, encoding)


def _separator(line: str) -> str:
    counts = {separator: line.count(separator) for separator in ",;\t|"}
    best = max(counts, key=counts.get)
    if counts[best]:
        return best
    # Two or three words are columns (`name label`); more are the pixels of one picture.
    return r"\s+" if 2 <= len(line.split()) <= 3 and '"' not in line else ","


def _is_header(names: list[str]) -> bool:
    if any(name.lower() in KNOWN_NAMES for name in names):
        return True
    first_words = [name.split()[0] for name in names if name.strip()]
    numeric = any(as_int(word) is not None for word in first_words)
    return not numeric and not any(name.lower().endswith(IMAGE_SUFFIXES) for name in names)


def _columns_by_content(cells: list[str]) -> list[str]:
    """Column names for a table without a header: a picture beside one other cell, which is its label."""
    names = [
        "image" if c.lower().endswith(IMAGE_SUFFIXES) else "pixels" if len(c.split()) > 15 else ""
        for c in cells
    ]
    if len(cells) == 2 and names.count("") == 1:
        return [name or "label" for name in names]
    return [name if names.count(name) == 1 and name else f"column {i + 1}" for i, name in enumerate(names)]


def read_chunks(table: Table, positions: list[int], rows: int = CHUNK_ROWS) -> Iterator[pd.DataFrame]:
    """Read some columns as text, `rows` rows at a time; columns are named by position, missing is ""."""
    with _pandas_errors(table.path):
        reader = pd.read_csv(
            table.path,
            sep=table.separator,
            header=0 if table.header else None,
            names=range(len(table.columns)),
            usecols=sorted(set(positions)),
            index_col=False,
            dtype=str,
            na_filter=False,
            encoding=table.encoding,
            encoding_errors="replace",
            chunksize=rows,
        )
        with reader:
            for chunk in reader:
                yield chunk.fillna("")


def read_column(table: Table, role: str, limit: int | None = None) -> list[str]:
    """Read one column as stripped text (the first `limit` rows); empty if the table has none of that role."""
    position = table.column(role)
    if position is None:
        return []
    cells: list[str] = []
    for chunk in read_chunks(table, [position], rows=limit or 8 * CHUNK_ROWS):
        cells += chunk[position].str.strip().tolist()
        if limit:
            break
    return cells


def read_frame(table: Table) -> pd.DataFrame:
    """Read a whole table as text cells under its own column names, just as they are written."""
    with _pandas_errors(table.path):
        options = {"encoding": table.encoding, "encoding_errors": "replace"}
        # pandas would change column names that are empty or come twice.
        frame = pd.read_csv(
            table.path, sep=table.separator, header=None, dtype=str, na_filter=False, **options
        ).fillna("")
    if not table.header:
        return frame.rename(columns=str)
    return frame.iloc[1:].set_axis(frame.iloc[0].tolist(), axis=1).reset_index(drop=True)


def is_sample(name: str) -> bool:
    """Whether a file is named as a sample submission: sampleSubmission.csv, sample.csv."""
    words = re.sub("[^a-z]+", "", Path(name).stem.lower())
    return "submission" in words or words in ("sample", "example", "submit")


def sample_label_position(table: Table) -> int:
    """The column of a sample submission that the answers go into: by its name, else the last."""
    position = table.column("label")
    return len(table.columns) - 1 if position is None else position


def sample_id_position(table: Table) -> int | None:
    """The column of a sample submission that names the pictures: by its name, else the first; or None."""
    label = sample_label_position(table)
    named = [table.column("image"), table.column("id"), *range(len(table.columns))]
    return next((position for position in named if position not in (None, label)), None)


def sample_ids(path: Path) -> list[str]:
    """The ids that a sample submission lists; none if it holds only labels."""
    table = open_table(path)
    position = sample_id_position(table)
    return [] if position is None else read_frame(table).iloc[:, position].str.strip().tolist()
