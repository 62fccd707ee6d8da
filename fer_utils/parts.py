"""The splits of a competition as its files tell them: pixel tables and picture files, read row by row."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

import numpy as np

from fer_utils.faces import Rejected
from fer_utils.labels import split_of
from fer_utils.pictures import MID_GREY, parse_pixels, picture_side, read_files, resize
from fer_utils.tables import Table, read_chunks
from fer_utils.trees import Tree


@dataclass(frozen=True)
class Part:
    """One split as its files tell it.

    Attributes:
        images: uint8 [N, 1, S, S].
        labels: [N] in the data's own words; None where they are hidden.
        ids: [N].
        places: [N], where each stands, for messages.
    """

    images: np.ndarray
    labels: list[str] | None
    ids: list[str]
    places: list[str]


@dataclass(frozen=True)
class Raw:
    """What a reader found.

    Attributes:
        parts: the splits by name; there is always a train.
        notes: what was recognised, changed and ignored.
        rejected: what could not be read.
        is_fer: whether the form of the table is FER2013's own, so that labels 0..6 are its classes.
        is_files: whether the pictures are files.
    """

    parts: dict[str, Part]
    notes: list[str] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    is_fer: bool = False
    is_files: bool = False


def read_pixels(table: Table, split: str, size: int, raw: Raw) -> dict[str, Part]:
    """Read one pixel table into parts, by its Usage column or all into `split`; rejections go to `raw`."""
    roles = {role: table.column(role) for role in ("pixels", "label", "usage", "id")}
    roles = {role: position for role, position in roles.items() if position is not None}
    blocks: dict[str, list[tuple[np.ndarray, list[int]]]] = defaultdict(list)
    cells: dict[str, list[str]] = {"label": [], "id": []}
    side = start = 0
    for chunk in read_chunks(table, list(roles.values())):
        texts = chunk[roles["pixels"]].tolist()
        side = side or picture_side(texts[:64], table.path.name)
        images, broken = parse_pixels(texts, side * side)
        splits = [split_of(u) for u in chunk[roles["usage"]]] if "usage" in roles else [split] * len(chunk)
        for target, rows in _sort_rows(table, start, splits, broken, images, raw).items():
            block = resize(images[rows].reshape(-1, 1, side, side), size)
            blocks[target].append((block, [start + row for row in rows]))
        for role in cells.keys() & roles.keys():
            cells[role] += chunk[roles[role]].str.strip().tolist()
        start += len(chunk)
    if side and side != size:
        raw.notes.append(f"resized from {side}x{side} to {size}x{size}: {table.path.name}")
    return {target: _join(table, blocks.pop(target), cells) for target in list(blocks)}


def _sort_rows(
    table: Table, start: int, splits: list[str | None], broken: dict[int, str], images: np.ndarray, raw: Raw
) -> dict[str, list[int]]:
    """The rows of a chunk by split; a broken one is rejected, and in the test split made a grey picture."""
    rows = defaultdict(list)
    for row, split in enumerate(splits):
        reason = broken.get(row) or (None if split else "its Usage names no split")
        if reason and split == "test":
            images[row] = MID_GREY
            reason += " (test: answered for as a grey picture)"
        if reason:
            raw.rejected.append(Rejected(table.place(start + row), reason))
        if split and (split == "test" or not reason):
            rows[split].append(row)
    return rows


def _join(table: Table, blocks: list[tuple[np.ndarray, list[int]]], cells: dict[str, list[str]]) -> Part:
    rows = [row for _, block_rows in blocks for row in block_rows]
    labels = [cells["label"][row] for row in rows] if cells["label"] else None
    ids = [cells["id"][row] if cells["id"] else str(row) for row in rows]
    return Part(np.concatenate([images for images, _ in blocks]), labels, ids, [table.place(r) for r in rows])


@dataclass(frozen=True)
class Listed:
    """A picture that a list or folder names: its file (None if it is missing), label, id and place."""

    file: str | None
    label: str | None
    id: str
    place: str


def read_listed(tree: Tree, splits: dict[str, list[Listed]], size: int, notes: list[str]) -> Raw:
    """Decode the pictures of every split; a missing or broken one is rejected, or grey in test."""
    raw = Raw({}, notes=notes, is_files=True)
    changes: dict[str, None] = {}
    for split, listed in splits.items():
        images, broken, changed = read_files([tree.files.get(item.file) for item in listed], size)
        changes.update(dict.fromkeys(f"{split} {note}" for note in changed))
        for row, reason in broken.items():
            grey = " (test: answered for as a grey picture)" if split == "test" else ""
            name = "" if listed[row].file else f" ({listed[row].id})"
            raw.rejected.append(Rejected(listed[row].place, reason + name + grey))
        keep = [row for row in range(len(listed)) if split == "test" or row not in broken]
        images = images if len(keep) == len(listed) else images[keep]
        kept = [listed[row] for row in keep]
        labels = None if any(item.label is None for item in kept) else [item.label for item in kept]
        raw.parts[split] = Part(images, labels, [item.id for item in kept], [item.place for item in kept])
    raw.notes.extend(changes)
    return raw
