"""Parquet files that hold encoded images, as on Hugging Face."""

from __future__ import annotations

from collections.abc import Iterator

from fer_utils.data.cells import read_chunks
from fer_utils.data.files.tree import Tree, shards
from fer_utils.data.images import read_files
from fer_utils.data.json_parquet import as_text, parquet_classes, picture_column
from fer_utils.data.labels import as_int
from fer_utils.data.layouts.image_lists import table_split
from fer_utils.data.layouts.raw_data import RawData, RawSplit, concatenate
from fer_utils.data.tables import Table


def recognise(tree: Tree) -> bool:
    """Whether labelled parquet files hold encoded images."""
    return bool(_find_tables(tree))


def read(tree: Tree, size: int) -> RawData:
    """Read encoded images (bytes of PNG, JPEG, ...) and their labels from parquet files."""
    raw = RawData(is_files=True)
    changes: dict[str, None] = {}  # an ordered set
    for split, name in _find_tables(tree).items():
        tables = [tree.tables[shard] for shard in shards(name, tree.tables)]
        chunks = [list(_read_chunks(table, split, size, raw, changes)) for table in tables]
        files = [(concatenate(c), t.path.stem) for c, t in zip(chunks, tables, strict=True) if c]
        if files:
            raw.splits[split] = concatenate(*map(list, zip(*files, strict=True)))
        raw.notes.append(f"{split} from {', '.join(table.path.name for table in tables)}")
    raw.notes.extend(changes)
    return raw


def _find_tables(tree: Tree) -> dict[str, str]:
    """The parquet files with images in them, the first of several shards, by split."""
    found: dict[str, str] = {}
    for name, table in tree.tables.items():
        if name.lower().endswith(".parquet") and picture_column(table.path) is not None:
            split = table_split(name) or ("train" if table.is_labelled else "test")
            found.setdefault(split, name)
    return found if "train" in found and tree.tables[found["train"]].is_labelled else {}


def _read_chunks(
    table: Table, split: str, size: int, raw: RawData, changes: dict[str, None]
) -> Iterator[RawSplit]:
    image, label, id_ = picture_column(table.path), table.column("label"), table.column("id")
    id_ = None if id_ == image else id_
    names = parquet_classes(table.path, table.columns[label]) if label is not None else None
    columns = [column for column in (image, label, id_) if column is not None]
    start = 0
    for chunk in read_chunks(table, columns, rows=512):
        encoded = [cell.get("bytes") if isinstance(cell, dict) else cell for cell in chunk[image]]
        # Text would be opened as the name of a file, anywhere.
        encoded = [content if isinstance(content, bytes) else None for content in encoded]
        images, broken, changed = read_files(encoded, size)
        changes.update(dict.fromkeys(f"{split}: {note}" for note in changed if "colour" not in note))
        places = [table.place(start + row - 1) for row in range(len(chunk))]
        for row, reason in broken.items():
            raw.reject(split, places[row], reason)
        keep = [row for row in range(len(chunk)) if split == "test" or row not in broken]
        kept = chunk.iloc[keep]
        labels = None if label is None else [_class_name(as_text(cell), names) for cell in kept[label]]
        ids = [str(start + row) for row in keep] if id_ is None else [as_text(cell) for cell in kept[id_]]
        yield RawSplit(images[keep], labels, ids, [places[row] for row in keep])
        start += len(chunk)


def _class_name(label: str, names: list[str] | None) -> str:
    number = as_int(label)
    return names[number] if names and number is not None and 0 <= number < len(names) else label
