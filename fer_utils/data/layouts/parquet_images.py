"""Parquet files that hold encoded pictures, as on Hugging Face."""

from __future__ import annotations

from collections.abc import Iterator

from fer_utils.data.cells import read_chunks
from fer_utils.data.files.tree import Tree, shards
from fer_utils.data.images import read_files
from fer_utils.data.json_parquet import as_text, parquet_classes, picture_column
from fer_utils.data.labels import as_int
from fer_utils.data.layouts.image_lists import _list_split
from fer_utils.data.layouts.parts import Part, Raw, joined
from fer_utils.data.tables import Table


def _parquet_tables(tree: Tree) -> dict[str, str]:
    """The parquet files with pictures in them, the first of several shards, by split."""
    found: dict[str, str] = {}
    for name, table in tree.tables.items():
        if name.lower().endswith(".parquet") and picture_column(table.path) is not None:
            split = _list_split(name) or ("train" if table.is_labelled else "test")
            found.setdefault(split, name)
    return found if "train" in found and tree.tables[found["train"]].is_labelled else {}


def has_parquet_pictures(tree: Tree) -> bool:
    """Whether labelled parquet files hold encoded pictures."""
    return bool(_parquet_tables(tree))


def read_parquet_pictures(tree: Tree, size: int) -> Raw:
    """Read encoded pictures (bytes of PNG, JPEG, ...) and their labels from parquet files."""
    raw = Raw({}, is_files=True)
    changes: dict[str, None] = {}
    for split, name in _parquet_tables(tree).items():
        files = [tree.tables[shard] for shard in shards(name, tree.tables)]
        parts = [list(_parquet_parts(table, split, size, raw, changes)) for table in files]
        named = [
            (joined(chunks), table.path.stem) for chunks, table in zip(parts, files, strict=True) if chunks
        ]
        if named:
            raw.parts[split] = joined(*map(list, zip(*named, strict=True)))
        raw.notes.append(f"{split} from {', '.join(table.path.name for table in files)}")
    raw.notes.extend(changes)
    return raw


def _parquet_parts(table: Table, split: str, size: int, raw: Raw, changes: dict[str, None]) -> Iterator[Part]:
    image, label, id_ = picture_column(table.path), table.column("label"), table.column("id")
    names = parquet_classes(table.path, table.columns[label]) if label is not None else None
    columns = [column for column in (image, label, id_) if column is not None]
    start = 0
    for chunk in read_chunks(table, columns, rows=512):
        cells = [cell if isinstance(cell, dict) else {"bytes": cell} for cell in chunk[image]]
        encoded = [cell.get("bytes") for cell in cells]
        # Text would be taken for the name of a file, anywhere.
        encoded = [content if isinstance(content, bytes) else None for content in encoded]
        images, broken, changed = read_files(encoded, size)
        changes.update(dict.fromkeys(f"{split}: {note}" for note in changed if "colour" not in note))
        places = [table.place(start + row - 1) for row in range(len(chunk))]
        for row, reason in broken.items():
            raw.reject(split, places[row], reason)
        keep = [row for row in range(len(chunk)) if split == "test" or row not in broken]
        labels = None if label is None else [_named(as_text(chunk[label].iloc[row]), names) for row in keep]
        ids = [
            as_text(chunk[id_].iloc[row]) if id_ is not None and id_ != image else str(start + row)
            for row in keep
        ]
        yield Part(images[keep], labels, ids, [places[row] for row in keep])
        start += len(chunk)


def _named(label: str, names: list[str] | None) -> str:
    number = as_int(label)
    return names[number] if names and number is not None and 0 <= number < len(names) else label
