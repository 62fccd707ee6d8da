"""The splits of a competition as its files tell them: pixel tables and picture files, read row by row."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from fer_utils.cells import read_ahead, read_chunks, read_votes
from fer_utils.decoding import MID_GREY
from fer_utils.faces import DataError, Rejected
from fer_utils.formats import as_text
from fer_utils.labels import split_of, vote_label
from fer_utils.pictures import parse_cells, picture_shape, read_files, resize, to_grey
from fer_utils.tables import Table
from fer_utils.trees import Tree


@dataclass(frozen=True)
class Part:
    """One split as its files tell it.

    Attributes:
        images: uint8 [N, 1, S, S].
        labels: [N] in the data's own words; None where they are hidden.
        ids: [N].
        places: [N], where each stands, for messages.
        votes: float32 [N, K] for the expressions `Raw.vote_names`; None where the data has single labels.
    """

    images: np.ndarray
    labels: list[str] | None
    ids: list[str]
    places: list[str]
    votes: np.ndarray | None = None


@dataclass
class Raw:
    """What a reader found.

    Attributes:
        parts: the splits by name; there is always a train.
        notes: what was recognised, changed and ignored.
        rejected: what could not be read.
        is_fer: whether the form of the table is FER2013's own, so that labels 0..6 are its classes.
        is_files: whether the pictures are files.
        vote_names: what the columns of the parts' votes stand for.
    """

    parts: dict[str, Part]
    notes: list[str] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    is_fer: bool = False
    is_files: bool = False
    vote_names: tuple[str, ...] = ()

    def reject(self, split: str | None, place: str, reason: str) -> None:
        """Note a picture that could not be read; one of the test split is answered for all the same."""
        told = f"{reason} (test: answered for as a grey picture)" if split == "test" else reason
        self.rejected.append(Rejected(place, told))


def read_pixels(
    table: Table, split: str, size: int, raw: Raw, vote_table: Table | None = None
) -> dict[str, Part]:
    """Read one pixel table into parts, by its Usage column or all into `split`; rejections go to `raw`.

    Args:
        vote_table: holds the votes for the same rows, where they stand in a file of their own.

    Raises:
        DataError: it cannot be read, or the two tables differ in length.
    """
    vote_table = vote_table or (table if table.votes else None)
    votes = read_votes(vote_table) if vote_table else None
    roles = {role: table.column(role) for role in ("label", "usage", "id")}
    roles = {role: position for role, position in roles.items() if position is not None}
    blocks: dict[str, list[tuple[np.ndarray, list[int]]]] = defaultdict(list)
    cells: dict[str, list[str]] = {"label": [], "id": []}
    side = channels = start = 0
    for chunk in read_ahead(read_chunks(table, [*table.pixels, *roles.values()])):
        pixels = chunk[list(table.pixels)]
        side, channels = (side, channels) if side else picture_shape(pixels, table.path.name)
        images, broken = parse_cells(pixels, side * side * channels)
        images = to_grey(images.reshape(len(images), side, side, channels))
        usage = map(str, chunk[roles["usage"]]) if "usage" in roles else ()
        splits = [split_of(cell) for cell in usage] if "usage" in roles else [split] * len(chunk)
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
    table: Table, start: int, splits: list[str | None], broken: dict[int, str], images: np.ndarray, raw: Raw
) -> dict[str, list[int]]:
    """The rows of a chunk by split; a broken one is rejected, and in the test split made a grey picture."""
    rows = defaultdict(list)
    for row, split in enumerate(splits):
        reason = broken.get(row) or (None if split else "its Usage names no split")
        if reason and split == "test":
            images[row] = MID_GREY
        if reason:
            raw.reject(split, table.place(start + row), reason)
        if split and (split == "test" or not reason):
            rows[split].append(row)
    return rows


def _join(
    table: Table,
    blocks: list[tuple[np.ndarray, list[int]]],
    cells: dict[str, list[str]],
    votes: np.ndarray | None,
) -> Part:
    rows = [row for _, block_rows in blocks for row in block_rows]
    labels = [cells["label"][row] for row in rows] if cells["label"] else None
    ids = [cells["id"][row] if cells["id"] else str(row) for row in rows]
    images = np.empty((len(rows), *blocks[0][0].shape[1:]), np.uint8)
    filled = 0
    while blocks:  # each is freed when it is copied: the pictures never lie in memory twice
        block = blocks.pop(0)[0]
        images[filled : filled + len(block)] = block
        filled += len(block)
    places = [table.place(row) for row in rows]
    return Part(images, labels, ids, places, None if votes is None else votes[rows])


def joined(parts: list[Part], names: Sequence[str] = ()) -> Part:
    """Several files of one split as one part; ids that come twice get the files' names before them."""
    if len(parts) == 1:
        return parts[0]
    ids = [id_ for part in parts for id_ in part.ids]
    if len(set(ids)) < len(ids) and len(names) == len(parts):
        ids = [f"{name}/{id_}" for name, part in zip(names, parts, strict=True) for id_ in part.ids]
    told = all(part.labels is not None for part in parts)
    return Part(
        images=np.concatenate([part.images for part in parts]),
        labels=[label for part in parts for label in part.labels] if told else None,
        ids=ids,
        places=[place for part in parts for place in part.places],
        votes=np.concatenate([part.votes for part in parts]) if parts[0].votes is not None else None,
    )


@dataclass(frozen=True)
class Listed:
    """A picture that a list or folder names: its file (None if it is missing), label, id, place and votes."""

    file: str | None
    label: str | None
    id: str
    place: str
    votes: tuple[float, ...] = ()


def usable(splits: dict[str, list[Listed]]) -> dict[str, list[Listed]]:
    """The splits without pictures to learn from that have no label; a validation split without any labels is
    the test split where there is no other."""
    splits = dict(splits)
    if "test" not in splits and not any(item.label for item in splits.get("valid", ())):
        splits["test"] = splits.pop("valid", [])
    kept = {s: items if s == "test" else [i for i in items if i.label] for s, items in splits.items()}
    return {split: items for split, items in kept.items() if items}


def read_listed(tree: Tree, splits: dict[str, list[Listed]], size: int, notes: list[str]) -> Raw:
    """Decode the pictures of every split; a missing or broken one is rejected, or grey in test."""
    raw = Raw({}, notes=notes, is_files=True)
    every = [item for listed in splits.values() for item in listed]
    images, broken, changed = read_files([tree.files.get(item.file) for item in every], size)
    raw.notes.extend(changed)
    start = 0
    for split, listed in splits.items():
        own = {row - start: broken[row] for row in broken if start <= row < start + len(listed)}
        for row, reason in own.items():
            raw.reject(
                split, listed[row].place, reason if listed[row].file else f"{reason} ({listed[row].id})"
            )
        keep = [row for row in range(len(listed)) if split == "test" or row not in own]
        part = images[start : start + len(listed)]
        part = part if len(keep) == len(listed) else part[keep]
        kept = [listed[row] for row in keep]
        labels = None if any(item.label is None for item in kept) else [item.label for item in kept]
        votes = np.array([item.votes for item in kept], np.float32) if kept and kept[0].votes else None
        raw.parts[split] = Part(part, labels, [i.id for i in kept], [i.place for i in kept], votes)
        start += len(listed)
    return raw
