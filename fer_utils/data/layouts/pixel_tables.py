"""Pixel tables: train.csv and test.csv with the grey levels of an image in each row."""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from fer_utils.competition import DataError
from fer_utils.data.cells import read_ahead, read_chunks, read_votes
from fer_utils.data.files.tree import Tree, shards, stem
from fer_utils.data.images import MID_GREY, resize, to_grey
from fer_utils.data.json_parquet import as_text
from fer_utils.data.labels import is_unlabelled_extra, split_of, vote_label
from fer_utils.data.layouts.raw_data import RawData, RawSplit, concatenate
from fer_utils.data.pixel_strings import parse_cells, picture_shape
from fer_utils.data.tables import Table


def recognise(tree: Tree) -> bool:
    """Whether there is a labelled table of pixels, and not only one that holds all splits."""
    tables = find_tables(tree)
    return bool(tables) and (len(tables) > 1 or whole_table(tree) is None)


def read(tree: Tree, size: int) -> RawData:
    """Read a table, or several, for each split."""
    return read_tables(tree, find_tables(tree), size)


def _pixel_tables(tree: Tree) -> dict[str, Table]:
    return {name: table for name, table in tree.tables.items() if table.pixels}


def whole_table(tree: Tree) -> str | None:
    """The table that holds all splits, named in its Usage column, such as fer2013.csv."""
    for name, table in _pixel_tables(tree).items():
        if split_of(stem(name)) is None and table.column("usage") is not None and table.is_labelled:
            return name
    return None


def find_tables(tree: Tree) -> dict[str, list[str]]:
    """The pixel tables of train.csv + test.csv and their like, by split; without a labelled one none.

    The labelled table nearest the top leads; a folder with a labelled table of its own is other data.
    """
    tables = _pixel_tables(tree)
    labelled = {name for name, table in tables.items() if table.is_labelled}
    leads = [name for name in labelled if split_of(stem(name)) in ("train", None)]
    if not leads:
        return {}
    lead = min(leads, key=lambda name: (name.count("/"), split_of(stem(name)) != "train", name))
    folder = {name: name.rpartition("/")[0] for name in tables}
    foreign = {folder[name] for name in leads} - {folder[lead]}
    chosen = {"train": [lead]}
    near = [name for name in tables if folder[name] not in foreign]
    near.sort(key=lambda name: (folder[name] != folder[lead], "public" not in name.lower(), name))
    for name in near:
        if (split := split_of(stem(name)) or "train") != "test" and name in labelled:
            chosen.setdefault(split, [name])
    tests = [name for name in near if name not in labelled and not is_unlabelled_extra(stem(name))]
    # A table without labels cannot validate. One named for a split goes before any other without labels.
    tests = [n for n in tests if split_of(stem(n)) in ("test", "valid")] or tests[:1]
    tests = tests or [name for name in near if name in labelled and split_of(stem(name)) == "test"]
    if tests:
        chosen["test"] = [name for name in tests if folder[name] == folder[tests[0]]]
    parts = {split: [n for name in names for n in shards(name, tables)] for split, names in chosen.items()}
    return {split: list(dict.fromkeys(names)) for split, names in parts.items()}


def read_tables(tree: Tree, names: dict[str, list[str]], size: int, votes: Table | None = None) -> RawData:
    """Read the named tables of each split, with the labels from a table of `votes` if there is one."""
    lead = names["train"][0]
    raw = RawData(is_fer={"emotion", "pixels", "usage"} <= set(tree.tables[lead].columns))
    for split, tables in names.items():
        files: dict[str, list[RawSplit]] = defaultdict(list)
        for name in tables:
            for target, part in _read_pixels(tree.tables[name], split, size, raw, votes).items():
                files[target].append(part)
        splits = {target: concatenate(parts, list(map(stem, tables))) for target, parts in files.items()}
        if extra := sorted(splits.keys() & raw.splits.keys()):
            raw.notes.append(f"{', '.join(extra)} rows of {lead} ignored: {tables[0]} holds them")
        if len(tables) > 1:
            raw.notes.append(f"{split} from {', '.join(tables)}")
        raw.splits.update(splits)
    used = {name for tables in names.values() for name in tables}
    if ignored := sorted(_pixel_tables(tree).keys() - used):
        raw.notes.append(f"also there, not used: {', '.join(ignored)}")
    return raw


def _read_pixels(
    table: Table, split: str, size: int, raw: RawData, vote_table: Table | None
) -> dict[str, RawSplit]:
    """Read one table, split by its Usage column, else all into `split`; rejections and notes go to `raw`.

    `vote_table` holds the votes for the same rows, if they are in a file of their own.

    Raises:
        DataError: it cannot be read, or the two tables differ in length.
    """
    vote_table = vote_table or (table if table.votes else None)
    votes = read_votes(vote_table) if vote_table else None
    roles = {role: n for role in ("label", "usage", "id") if (n := table.column(role)) is not None}
    blocks: dict[str, list[tuple[np.ndarray, list[int]]]] = defaultdict(list)
    cells: dict[str, list[str]] = {"label": [], "id": []}
    side = channels = start = 0
    for chunk in read_ahead(read_chunks(table, [*table.pixels, *roles.values()])):
        pixels = chunk[list(table.pixels)]
        side, channels = (side, channels) if side else picture_shape(pixels, table.path.name)
        images, broken = parse_cells(pixels, side * side * channels)
        images = to_grey(images.reshape(len(images), side, side, channels))
        splits = [split] * len(chunk)
        if "usage" in roles:
            splits = [split_of(str(cell)) for cell in chunk[roles["usage"]]]
        for target, rows in _sort_rows(table, start, splits, broken, images, raw).items():
            block = resize(images if len(rows) == len(images) else images[rows], size)
            blocks[target].append((block, [start + row for row in rows]))
        for role in cells.keys() & roles.keys():
            cells[role] += [as_text(cell).strip() for cell in chunk[roles[role]]]
        start += len(chunk)
    if votes is not None:
        if len(votes) != start:
            raise DataError(
                f"{vote_table.path.name} has votes for {len(votes):,} pictures, but {table.path.name} holds "
                f"{start:,}: they must be the same, row by row (layout='fer2013.csv' reads the table alone)"
            )
        raw.vote_names = tuple(vote_table.votes)
        cells["label"] = [vote_label(row, raw.vote_names) for row in votes]
    if side and side != size:
        raw.notes.append(f"resized from {side}x{side} to {size}x{size}: {table.path.name}")
    if channels == 3:
        raw.notes.append(f"colour turned to grey: {table.path.name}, red, green and blue side by side")
    return {target: _join(table, blocks.pop(target), cells, votes) for target in list(blocks)}


def _sort_rows(
    table: Table,
    start: int,
    splits: list[str | None],
    broken: dict[int, str],
    images: np.ndarray,
    raw: RawData,
) -> dict[str, list[int]]:
    """The rows of a chunk by split; a broken one is rejected, in the test split made grey."""
    rows = defaultdict(list)
    for row, split in enumerate(splits):
        reason = broken.get(row) or (None if split else "its Usage names no split")
        if reason:
            raw.reject(split, table.place(start + row), reason)
            if split == "test":
                images[row] = MID_GREY
        if split and (split == "test" or not reason):
            rows[split].append(row)
    return rows


def _join(
    table: Table,
    blocks: list[tuple[np.ndarray, list[int]]],
    cells: dict[str, list[str]],
    votes: np.ndarray | None,
) -> RawSplit:
    rows = [row for _, block_rows in blocks for row in block_rows]
    labels = [cells["label"][row] for row in rows] if cells["label"] else None
    ids = [cells["id"][row] if cells["id"] else str(row) for row in rows]
    images = np.empty((len(rows), *blocks[0][0].shape[1:]), np.uint8)
    end = len(rows)
    while blocks:  # each is freed when it is copied: no image is in memory twice
        block, block_rows = blocks.pop()
        images[end - len(block_rows) : end] = block
        end -= len(block_rows)
    return RawSplit(images, labels, ids, list(map(table.place, rows)), None if votes is None else votes[rows])
