"""JSON, Excel, parquet and Arrow files as tables; the files are not trusted."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from fer_utils.competition import DataError
from fer_utils.data.known_column_names import COLUMNS, rank
from fer_utils.data.known_expressions_and_splits import canonical, normal, split_of

if TYPE_CHECKING:
    import pyarrow

LARGEST_JSON = 2**28  # bytes; JSON is read whole
_KEYS = {split_of: "split", canonical: "label"}  # what all keys of a dictionary of lists may be


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
    """JSON as text cells: a list of records, one record per line, {"column": [...]}, {image: label}, or the
    images of each split or class: {"train": [...], "test": [...]}."""
    if path.stat().st_size > LARGEST_JSON:
        raise DataError(f"{path} is larger than {LARGEST_JSON >> 20} MB: write the list as CSV or parquet")
    text = path.read_text(encoding="utf-8-sig", errors="replace")
    if path.suffix.lower() == ".json":
        content = json.loads(text)
    else:
        content = [json.loads(line) for line in text.splitlines() if line.strip()]
    if class_map(content):
        raise DataError(f"{path} names classes and lists no images")
    if isinstance(content, dict) and _is_coco(content):
        return _coco(content)
    if isinstance(content, list) and all(map(_is_create_ml, content)) and any(map(_has_boxes, content)):
        return _create_ml(content)
    content = _records(content, path) if isinstance(content, dict) else content
    if not isinstance(content, list) or not all(isinstance(record, dict) for record in content):
        raise DataError(f"{path} is not a table: write a list of records, or one record per line")
    return pd.json_normalize(content).fillna("").map(as_text)


def _records(content: dict, path: Path) -> list[dict]:
    """The records of a dictionary, see `json_frame`; or its only list of records, beside other things."""
    kinds = set(map(type, content.values()))
    kind = next((kind for word, kind in _KEYS.items() if len(content) > 1 and all(map(word, content))), "")
    if kinds == {list} and kind:
        items = [(key, item) for key, items in content.items() for item in items]
        named = {name for _, item in items if isinstance(item, dict) for name in item}
        # What the records call their images.
        image = min(named, key=lambda name: rank("image", normal(name)), default="image")
        return [{**(item if isinstance(item, dict) else {image: item}), kind: key} for key, item in items]
    inner = list(filter(_are_records, content.values()))
    are_columns = kinds == {list} and len(set(map(len, content.values()))) == 1
    keys = [*content, *(key for value in content.values() if isinstance(value, dict) for key in value)]
    if len(inner) == 1 and not are_columns and not any(map(split_of, keys)):
        return inner[0]
    if kinds == {list}:
        if not are_columns:
            raise DataError(f"{path}: its lists differ in length, so they are no columns of a table")
        return [dict(zip(content, row, strict=True)) for row in zip(*content.values(), strict=True)]
    records = content if kinds == {dict} else {name: {"label": value} for name, value in content.items()}
    return [{"image": name, **record} for name, record in records.items()]


def _is_coco(content: dict) -> bool:
    images, boxes = content.get("images"), content.get("annotations")
    return all(map(_are_records, (images, boxes))) and all("image_id" in box for box in boxes)


def _coco(content: dict) -> pd.DataFrame:
    """The images of a COCO file, each with the category of its largest box (Lin et al. 2014), or its number
    where the file names none."""
    names = {item["id"]: item["name"] for item in content.get("categories", [])}
    largest: dict[object, tuple[float, str]] = {}
    for box in content["annotations"]:
        width, height = (box.get("bbox") or [0, 0, 0, 0])[2:]
        number = box["category_id"]
        found = (float(box.get("area") or width * height), str(names.get(number, number)))
        largest[box["image_id"]] = max(largest.get(box["image_id"], found), found)
    rows = [(item["file_name"], largest.get(item["id"], (0, ""))[1]) for item in content["images"]]
    return pd.DataFrame(rows, columns=["image", "label"]).map(as_text)


def _are_records(value: object) -> bool:
    return isinstance(value, list) and len(value) > 1 and all(isinstance(item, dict) for item in value)


def _is_create_ml(record: object) -> bool:
    boxes = record.get("annotations") if isinstance(record, dict) and "image" in record else None
    return isinstance(boxes, list) and all(isinstance(box, dict) and "label" in box for box in boxes)


def _has_boxes(record: dict) -> bool:
    return bool(record["annotations"])


def _create_ml(records: list[dict]) -> pd.DataFrame:
    """The images of a file for CreateML, each with the label of its largest box."""

    def size(box: dict) -> float:
        sides = box.get("coordinates") or {}
        return float(sides.get("width", 0)) * float(sides.get("height", 0))

    rows = [(r["image"], max(r["annotations"], key=size, default={}).get("label", "")) for r in records]
    return pd.DataFrame(rows, columns=["image", "label"]).map(as_text)


def excel_frame(path: Path) -> pd.DataFrame:
    """The sheet of an Excel file as text cells.

    Raises:
        DataError: several sheets hold something, or the package that reads Excel files is not installed.
    """
    try:
        sheets = pd.read_excel(path, sheet_name=None, dtype=str, keep_default_na=False)
        full = {name: sheet for name, sheet in sheets.items() if not sheet.empty} or sheets
        if len(full) > 1:
            raise DataError(f"{path} has the sheets {', '.join(full)}: save each as a csv file")
        return next(iter(full.values())).map(as_text)
    except ImportError as error:
        raise DataError(
            f"{path}: Excel files are read by the package openpyxl: pip install openpyxl, or save as csv"
        ) from error


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
    """A cell as text: a list as its items with blanks between; a missing value as "", and so are records in a
    cell, which are no text."""
    value = value.tolist() if hasattr(value, "tolist") else value
    items = value if isinstance(value, (list, tuple)) else [value]
    if any(isinstance(item, dict) for item in items):
        return ""
    if items is value:
        return " ".join(map(str, value))
    return "" if value is None or value != value else str(value)


@contextmanager
def _opened(
    path: Path, rows: int = 1, positions: Sequence[int] = ()
) -> Iterator[tuple[pyarrow.Schema, Iterator[pyarrow.RecordBatch]]]:
    """The columns of a parquet file, or of an Arrow stream as Hugging Face's `save_to_disk` writes it; and
    some of them, `rows` rows at a time, which are read as they are asked for."""
    import pyarrow.ipc  # slow to import, and most data have no parquet
    import pyarrow.parquet

    if path.suffix.lower() != ".arrow":
        with pyarrow.parquet.ParquetFile(path) as file:
            columns = file.schema_arrow.names  # made again at each call
            names = [columns[position] for position in positions]
            yield file.schema_arrow, file.iter_batches(batch_size=rows, columns=names)
        return
    with pyarrow.ipc.open_stream(pyarrow.memory_map(str(path))) as reader:
        parts = (batch.slice(k, rows) for batch in reader for k in range(0, len(batch), rows))
        yield reader.schema, (part.select(list(positions)) for part in parts)


def schema(path: Path) -> pyarrow.Schema:
    """The columns of a parquet or Arrow file, and nothing else of it."""
    with _opened(path) as (columns, _):
        return columns


def parquet_chunks(path: Path, positions: Sequence[int], rows: int) -> Iterator[pd.DataFrame]:
    """Some columns, `rows` rows at a time, named by position; the cells keep their types."""
    with _opened(path, rows, positions) as (columns, batches):
        if len(set(columns.names)) != len(columns):
            raise DataError(f"{path}: a column name comes twice, which parquet readers cannot tell apart")
        for batch in batches:
            cells = zip(positions, (column.to_pylist() for column in batch.columns), strict=True)
            yield pd.DataFrame(dict(cells), dtype=object)


def metadata_classes(path: Path) -> dict[str, dict[int, str]]:
    """The class names for integer labels, by column, from the metadata of a Hugging Face data set."""
    try:
        features = json.loads((schema(path).metadata or {})[b"huggingface"])["info"]["features"]
        named = {c.lower(): f["names"] for c, f in features.items() if isinstance(f, dict) and f.get("names")}
        return {column: dict(enumerate(map(str, names))) for column, names in named.items()}
    except (KeyError, TypeError, ValueError, AttributeError):
        return {}


def _shows_image(path: Path, position: int) -> bool:
    """Whether the first cells of a column begin as the files of images do."""
    starts = (b"\x89PNG", b"\xff\xd8", b"GIF8", b"BM", b"RIFF", b"II*", b"MM\0*")
    cells = next(parquet_chunks(path, [position], 16), pd.DataFrame()).to_numpy(object).ravel().tolist()
    cells = [cell.get("bytes") if isinstance(cell, dict) else cell for cell in cells]
    return any(isinstance(cell, bytes) and cell.startswith(starts) for cell in cells)


def image_column(path: Path, chosen: str = "") -> int | None:
    """The column of a parquet or Arrow file that holds encoded images, as bytes or as Hugging Face's structs:
    the `chosen` one, or of several the one that has the name of such a column.

    Raises:
        DataError: several hold images, and no name decides.
    """
    import pyarrow  # see _opened

    names, found = [], []
    for position, field in enumerate(schema(path)):
        names.append(normal(field.name))
        kind = field.type
        if pyarrow.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
            kind = kind.field("bytes").type
        if pyarrow.types.is_binary(kind) or pyarrow.types.is_large_binary(kind):
            found.append(position)
    found = [position for position in found if _shows_image(path, position)] if found[1:] else found
    if chosen in names:
        found = [position for position in found if names[position] == chosen]
    found.sort(key=lambda position: rank("image", names[position]))
    if found[1:] and names[found[0]] not in COLUMNS["image"]:
        several = ", ".join(names[position] for position in found)
        raise DataError(f"{path}: images are in the columns {several}: columns='image=...' decides")
    return found[0] if found else None
