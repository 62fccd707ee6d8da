"""JSON and parquet files as tables; the files are not trusted."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from fer_utils.competition import DataError

if TYPE_CHECKING:
    import pyarrow.parquet

LARGEST_JSON = 2**28  # bytes; JSON is read whole


@contextmanager
def table_errors(path: Path) -> Iterator[None]:
    """Errors of the readers as a DataError that names the file."""
    try:
        yield
    except DataError:
        raise
    except pd.errors.EmptyDataError as error:
        raise DataError(f"{path} is empty") from error
    except Exception as error:  # a broken file may raise anything in pandas, json and pyarrow
        raise DataError(f"{path} cannot be read as a table: {str(error).strip()}") from error


def json_frame(path: Path) -> pd.DataFrame:
    """JSON as text cells: a list of records, one record per line, {"column": [...]} or {image: label}."""
    if path.stat().st_size > LARGEST_JSON:
        raise DataError(f"{path} is larger than {LARGEST_JSON >> 20} MB: write the list as CSV or parquet")
    text = path.read_text(encoding="utf-8-sig", errors="replace")
    if path.suffix.lower() == ".json":
        content = json.loads(text)
    else:
        content = [json.loads(line) for line in text.splitlines() if line.strip()]
    if class_map(content):
        raise DataError(f"{path} names classes and lists no pictures")
    if isinstance(content, dict):
        kinds = set(map(type, content.values()))
        if kinds == {list}:
            rows = zip(*content.values(), strict=False)
            content = [dict(zip(content, cells, strict=True)) for cells in rows]
        else:
            records = content if kinds == {dict} else {name: {"label": v} for name, v in content.items()}
            content = [{"image": name, **record} for name, record in records.items()]
    if not isinstance(content, list) or not all(isinstance(record, dict) for record in content):
        raise DataError(f"{path} is no table: write a list of records, or one record per line")
    return pd.DataFrame(content).fillna("").map(as_text)


def class_map(content: object) -> dict[int, str] | None:
    """Class names by integer label, from {"0": "angry", ...} or {"angry": 0, ...}; None for other content."""
    if not isinstance(content, dict) or not 2 <= len(content) <= 100:
        return None
    pairs = list(content.items())
    if all(type(code) is int and not isinstance(word, int) for word, code in pairs):
        pairs = [(code, word) for word, code in pairs]
    try:
        names = {int(code): word for code, word in pairs if isinstance(word, str)}
    except ValueError:
        return None
    words = len(names) == len(content) == len(set(names.values()))
    return names if words and not any(Path(word).suffix for word in names.values()) else None


def as_text(value: object) -> str:
    """A cell as text: a list as its items with blanks between, a missing value as ""."""
    value = value.tolist() if hasattr(value, "tolist") else value
    if isinstance(value, (list, tuple)):
        return " ".join(map(str, value))
    return "" if value is None or value != value else str(value)


def parquet_file(path: Path) -> pyarrow.parquet.ParquetFile:
    """A parquet file, of which only the schema is read."""
    import pyarrow.parquet  # slow to import, and most data have no parquet

    return pyarrow.parquet.ParquetFile(path)


def parquet_chunks(path: Path, positions: Sequence[int], rows: int) -> Iterator[pd.DataFrame]:
    """Some columns, `rows` rows at a time, named by position; the cells keep their types."""
    file = parquet_file(path)
    names = file.schema_arrow.names
    if len(set(names)) != len(names):
        raise DataError(f"{path}: a column name comes twice, which parquet readers cannot tell apart")
    wanted = [names[position] for position in positions]
    for batch in file.iter_batches(batch_size=rows, columns=wanted):
        cells = {p: batch.column(name).to_pylist() for p, name in zip(positions, wanted, strict=True)}
        yield pd.DataFrame(cells, dtype=object)


def parquet_classes(path: Path, column: str) -> list[str] | None:
    """The class names for integer labels, from the metadata of a Hugging Face data set; None without any."""
    try:
        metadata = json.loads((parquet_file(path).schema_arrow.metadata or {})[b"huggingface"])
        names = metadata["info"]["features"][column]["names"]
    except (KeyError, TypeError, ValueError):
        return None
    return [str(name) for name in names] if isinstance(names, list) else None


def picture_column(path: Path) -> int | None:
    """The column of a parquet file that holds encoded images, as bytes or as Hugging Face's structs."""
    import pyarrow  # see parquet_file

    for position, field in enumerate(parquet_file(path).schema_arrow):
        kind = field.type
        if pyarrow.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
            kind = kind.field("bytes").type
        if pyarrow.types.is_binary(kind) or pyarrow.types.is_large_binary(kind):
            return position
    return None
