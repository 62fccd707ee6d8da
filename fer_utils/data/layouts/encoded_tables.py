"""Parquet and Arrow files that hold encoded images, as on Hugging Face."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from fer_utils.data.files.tree import Tree
from fer_utils.data.images import read_files
from fer_utils.data.json_parquet import metadata_classes
from fer_utils.data.layouts.pictures import Decoded, Pictures, stacked
from fer_utils.data.tables import Table, read_chunks
from fer_utils.data.words import as_int

LAYOUT = "parquet pictures"
LOOKS_FOR = {LAYOUT: "parquet or Arrow files with encoded pictures and labels (Hugging Face)"}
ROWS_TOGETHER = 512


def propose(tree: Tree) -> list[Pictures]:
    """All parquet and Arrow files with images in them, together."""
    tables = [table for table in tree.tables.values() if table.encoded is not None]
    return [_pictures(tables)] if tables else []


def _pictures(tables: list[Table]) -> Pictures:
    frames = [table.frame.copy() for table in tables]
    names = {column: words for table in tables for column, words in metadata_classes(table.path).items()}
    for frame in frames:  # the words are the labels, and their numbers are known
        for column in names.keys() & set(frame.columns):
            frame[column] = [names[column].get(as_int(cell), cell) for cell in frame[column]]

    def read(chosen: Sequence[int], size: int, channels: int) -> Decoded:
        images = np.empty((len(chosen), channels, size, size), np.uint8)
        broken, forms = {}, Counter()
        for position, encoded in _encoded(tables, chosen):
            images[position], wrong, seen = read_files(encoded, size, channels)
            broken |= {position[k]: why for k, why in wrong.items()}
            forms.update(seen)
        return images, broken, forms

    places = [table.place(row - 1) for table, f in zip(tables, frames, strict=True) for row in range(len(f))]
    ids = [str(row) for frame in frames for row in range(len(frame))]
    parts = [table.name for table, frame in zip(tables, frames, strict=True) for _ in range(len(frame))]
    return Pictures(LAYOUT, stacked(frames), parts, places, ids, read, names=names)


def _encoded(tables: list[Table], chosen: Sequence[int]) -> Iterator[tuple[list[int], list[bytes | None]]]:
    """The encoded pictures of some rows of all tables together, and their positions among these rows; some
    hundreds at a time, so that a large data set need not fit into memory."""
    places, first = {row: position for position, row in enumerate(chosen)}, 0
    for table in tables:
        following = first + len(table.frame)
        if any(first <= row < following for row in chosen):
            for chunk in read_chunks(table, [table.encoded], ROWS_TOGETHER):
                wanted = [k for k in range(len(chunk)) if first + k in places]
                cells = [chunk[table.encoded].iloc[k] for k in wanted]
                cells = [cell.get("bytes") if isinstance(cell, dict) else cell for cell in cells]
                # Text would be opened as the name of a file, anywhere.
                encoded = [content if isinstance(content, bytes) else None for content in cells]
                yield [places[first + k] for k in wanted], encoded
                first += len(chunk)
        first = following
