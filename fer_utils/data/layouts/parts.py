"""The splits of a competition as its files tell them: pixel tables and picture files, read row by row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from fer_utils.competition import Rejected
from fer_utils.data.files.tree import Tree
from fer_utils.data.images import read_files


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
