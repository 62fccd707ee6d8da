"""Tables as competitions write them: text with any separator, with or without a header, JSON, parquet, Excel.
A table is known by its whole columns; the pixels in it, if any, are decoded in the same pass."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from fer_utils.competition import DataError
from fer_utils.data.decode_images import LFS, MID_GREY
from fer_utils.data.known_expressions_and_splits import normal, pattern
from fer_utils.data.pixel_strings import (
    SMALLEST_SIDE,
    are_fractions,
    count_pixels,
    is_image,
    parse_cells,
    square,
)
from fer_utils.data.tables_csv_dialect import HEAD_ROWS, find_form
from fer_utils.data.tables_json_parquet import (
    as_text,
    excel_frame,
    image_column,
    json_frame,
    parquet_chunks,
    schema,
    table_errors,
)

TEXT_SUFFIXES = (".csv", ".tsv", ".txt", ".lst", ".csv.gz", ".tsv.gz")
JSON_SUFFIXES = (".json", ".jsonl", ".ndjson", ".manifest")
EXCEL_SUFFIXES = (".xlsx", ".xls")
ARROW_SUFFIXES = (".parquet", ".arrow")
TABLE_SUFFIXES = (*TEXT_SUFFIXES, *JSON_SUFFIXES, *EXCEL_SUFFIXES, *ARROW_SUFFIXES)

CHUNK_ROWS = 1024


@dataclass(frozen=True, eq=False)
class Table:
    """A table on disk and how it is written.

    Attributes:
        name: of the file in the data, with forward slashes.
        columns: column names, stripped and in lower case; `column 1`, ... without a header.
        header: whether the first line holds them.
        separator: the character between columns, or `\\s+` for any run of blanks.
        head: the first rows, as text, columns named by position.
        whole: all cells as text, for forms that are read at once (JSON, Excel).
        headings: of such forms and of parquet, the column names as they are written.
        chosen: the column that holds images, as a person named it.
    """

    path: Path
    name: str
    columns: tuple[str, ...]
    header: bool = True
    separator: str = ","
    encoding: str = "utf-8"
    head: pd.DataFrame = field(default_factory=pd.DataFrame)
    whole: pd.DataFrame | None = None
    headings: tuple[str, ...] = ()
    chosen: str = ""

    def place(self, row: int) -> str:
        """The name of a data row (from 0) for messages, numbered as in an editor: a header is row 1."""
        return f"{self.path.name} row {row + 1 + (self.header and self.encoded is None)}"

    @cached_property
    def pixels(self) -> tuple[int, ...]:
        """The positions of the pixels: one column of strings or lists, or a column for each pixel."""
        if self.chosen and self.encoded is None and self.chosen in self.columns:
            return (self.columns.index(self.chosen),)
        cells = self.head.to_numpy(object)
        for position, column in zip(self.head.columns, cells.T.tolist(), strict=True):
            counts = Counter(map(count_pixels, column))
            del counts[0]
            if counts and is_image(counts.most_common(1)[0][0]) and 2 * counts.total() > len(self.head):
                return (position,)
        if len(self.columns) < SMALLEST_SIDE**2:
            named = [i for i, column in enumerate(self.columns) if column in ("pixels", "pixel")]
            return tuple(named[:1])  # without an image in it, which is reported
        numbers = pd.to_numeric(cells.ravel(), errors="coerce").reshape(cells.shape)
        grey = ((numbers >= 0) & (numbers <= 255)).sum(0) > 0.8 * len(cells)
        numeric = self.head.columns[grey].tolist()
        groups = Counter(pattern(self.columns[i]) for i in numeric)
        (alike, n), second = [*groups.most_common(2), ("", 0), ("", 0)][:2]
        if second[1] == n and is_image(n):
            raise DataError(
                f"{self.path.name}: the columns like {alike!r} and those like {second[0]!r} are {n:,} each, "
                "so that a row holds several images or colours: name the columns p0, p1, p2, ... for the "
                "red, green and blue of the first pixel, then of the second, and so on"
            )
        same = [i for i in numeric if pattern(self.columns[i]) == alike]
        counted = [re.findall(r"\d+", self.columns[i]) for i in same]
        if all(len(found) == 1 for found in counted):  # pixel_0, pixel_1, pixel_10, ... in the order of text
            same = [i for _, i in sorted(zip((int(found[0]) for found in counted), same, strict=True))]
        return next((tuple(found) for found in (same, numeric) if is_image(len(found))), ())

    @cached_property
    def are_fractions(self) -> bool:
        """Whether its pixels are grey levels from 0 to 1."""
        # Others from 0 to 1 are features, such as histograms of gradients.
        named = (re.match(r"pix|px|p?\d+$|\d+x\d+|im(age|g)|face", self.columns[i]) for i in self.pixels)
        is_told = bool(self.pixels) and (bool(self.chosen) or all(named))
        return is_told and are_fractions(self.head[list(self.pixels)])

    @cached_property
    def encoded(self) -> int | None:
        """The position of encoded images, as parquet files hold them; None without any."""
        is_arrow = self.path.suffix.lower() in ARROW_SUFFIXES
        return image_column(self.path, self.chosen) if is_arrow else None

    @property
    def holds_images(self) -> bool:
        """Whether an image stands in each of its rows."""
        return bool(self.pixels) or self.encoded is not None

    @cached_property
    def content(self) -> tuple[pd.DataFrame, np.ndarray, dict[int, str]]:
        """All columns but the pixels as text; the images, uint8 [N, 1 or 3, S, S], none without pixels; why
        the pixels of a row cannot be read, by row."""
        others = [i for i in range(len(self.columns)) if i not in {*self.pixels, self.encoded}]
        texts, images, broken, shape, start = [pd.DataFrame(columns=others)], [], {}, None, 0
        for chunk in read_ahead(read_chunks(self, [*others, *self.pixels] or [self.encoded])):
            texts.append(_as_texts(chunk[others]))
            if self.pixels:
                pixels = chunk[list(self.pixels)]
                shape = shape or square(pixels, self.path.name)
                side, channels = shape
                block, wrong = parse_cells(pixels, side * side * channels, self.are_fractions)
                block[list(wrong)] = MID_GREY
                images.append(np.moveaxis(block.reshape(-1, side, side, channels), 3, 1))
                broken |= {start + row: reason for row, reason in wrong.items()}
                start += len(chunk)
        frame = pd.concat(texts, ignore_index=True).set_axis([self.columns[i] for i in others], axis=1)
        return frame, np.concatenate(images) if images else np.empty((0, 1, 1, 1), np.uint8), broken

    @property
    def pictures(self) -> tuple[np.ndarray, dict[int, str]]:
        """Its images, and why any are broken, by row (see `content`)."""
        return self.content[1:]

    @property
    def frame(self) -> pd.DataFrame:
        """All columns but the pixels, whole, as stripped text; a missing cell is "".

        Raises:
            DataError: the file is damaged.
        """
        return self.content[0]


def _as_texts(frame: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame(
        {c: [as_text(cell).strip() for cell in frame[c].tolist()] for c in frame}, frame.index, dtype=object
    )


def open_table(path: Path, name: str = "", columns: Mapping[str, str] | None = None) -> Table:
    """Find out how a table is written: encoding, separator, header, normalised column names.

    Args:
        name: of the file in the data; the file's own by default.
        columns: the column's name for some roles, as a person named them.

    Raises:
        DataError: the file is empty or no table.
    """
    suffix, name = path.suffix.lower(), name or path.name
    check_lfs(path)
    said = columns or {}
    chosen = normal(said.get("pixels", ""))
    with table_errors(path):
        if suffix in (*JSON_SUFFIXES, *EXCEL_SUFFIXES):
            frame = json_frame(path) if suffix in JSON_SUFFIXES else excel_frame(path)
            names = list(frame.columns)
            whole = frame.set_axis(range(len(names)), axis=1)
            head = whole.head(HEAD_ROWS)
        elif suffix in ARROW_SUFFIXES:
            names, whole = schema(path).names, None
            image = normal(said.get("image", ""))
            encoded = image_column(path, chosen or image)
            chosen = chosen or image * (encoded is not None)
            texts = [i for i in range(len(names)) if i != encoded]
            head = next(parquet_chunks(path, texts, HEAD_ROWS), pd.DataFrame())
        else:
            names, *form = find_form(path, set(map(normal, said.values())))
            return Table(path, name, _unique(names), *form, chosen=chosen)
        more = {"whole": whole, "headings": tuple(map(str, names)), "chosen": chosen}
        return Table(path, name, _unique(names), head=head.map(as_text), **more)


def _unique(columns: Iterable[str]) -> tuple[str, ...]:
    """The names as they are compared; one that was there before gets its position added, so that only the
    first is recognised."""
    columns = pd.Series(list(map(normal, columns)), dtype=object)
    names = zip(columns, columns.duplicated(), strict=True)
    return tuple(f"{name} {i}" if again else name for i, (name, again) in enumerate(names, 1))


def check_lfs(path: Path) -> None:
    """Raise a DataError if a file is only a pointer to its content, which Git LFS has not fetched."""
    with open(path, "rb") as file:
        if file.read(len(LFS)) == LFS:
            raise DataError(f"{path} is a Git LFS pointer, not the file itself: git lfs pull fetches it")


def read_chunks(table: Table, positions: Sequence[int], rows: int = CHUNK_ROWS) -> Iterator[pd.DataFrame]:
    """Read some columns, `rows` rows at a time; columns are named by position.

    Cells are text, "" if missing. Parquet cells keep their types. A column for a single pixel holds numbers
    if all its cells in a chunk are numbers.
    """
    wanted = sorted(set(positions))
    with table_errors(table.path):
        if table.whole is not None:
            yield from (table.whole[wanted].iloc[k : k + rows] for k in range(0, len(table.whole), rows))
        elif table.path.suffix.lower() in ARROW_SUFFIXES:
            yield from parquet_chunks(table.path, wanted, rows)
        else:
            single = table.pixels if len(table.pixels) > 1 else ()
            options = {"header": 0 if table.header else None, "names": range(len(table.columns))}
            options |= {"usecols": wanted, "dtype": dict.fromkeys(set(wanted) - set(single), str)}
            options |= {"index_col": False, "skipinitialspace": True, "low_memory": False, "chunksize": rows}
            with pd.read_csv(table.path, **options, **_as_written(table)) as reader:
                yield from (chunk.fillna("") for chunk in reader)


def _as_written(table: Table) -> dict[str, object]:
    """Options of `read_csv` for the text of a table, without empty cells turned into NaN."""
    options = {"sep": table.separator, "encoding": table.encoding, "encoding_errors": "replace"}
    return {**options, "na_filter": False}


def read_ahead(chunks: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
    """The same chunks; the next is read in a thread while the caller works on the last."""
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(next, chunks, None)
        while (chunk := coming.result()) is not None:
            coming = pool.submit(next, chunks, None)
            yield chunk


def read_as_written(table: Table) -> pd.DataFrame:
    """Read a whole text table under its own column names; all cells are text, exactly as in the file."""
    if table.headings:
        parts = [_as_texts(part) for part in read_chunks(table, range(len(table.columns)))]
        return pd.concat(parts, ignore_index=True).set_axis(list(table.headings), axis=1)
    with table_errors(table.path):
        # With header=0, pandas would rename empty or repeated columns.
        frame = pd.read_csv(table.path, header=None, dtype=str, **_as_written(table)).fillna("")
    if not table.header:
        return frame.rename(columns=str)
    return frame.iloc[1:].set_axis(frame.iloc[0].tolist(), axis=1).reset_index(drop=True)


def is_sample(name: str) -> bool:
    """Whether a file is named as a sample submission: sampleSubmission.csv, sample.csv, submit_sample.csv."""
    words = re.sub("[^a-z]+", "", Path(name).stem.lower())
    alone = re.fullmatch("(?!subsample)(sample|example|submit|sub|upload|format|template)+", words)
    return "submission" in words or bool(alone and words not in ("sub", "upload", "format", "template"))
