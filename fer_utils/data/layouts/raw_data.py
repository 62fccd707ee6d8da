"""What every layout returns: the images and labels of each split as the files have them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from fer_utils.competition import Rejected
from fer_utils.data.files.tree import Tree
from fer_utils.data.images import read_files


@dataclass(frozen=True)
class RawSplit:
    """One split, with its labels as the data writes them.

    Attributes:
        images: uint8 [N, 1, S, S].
        labels: [N]; None where they are hidden.
        ids: [N].
        places: [N], the file and row of each image, for messages.
        votes: float32 [N, K] for the expressions `RawData.vote_names`; None where the data has single labels.
    """

    images: np.ndarray
    labels: list[str] | None
    ids: list[str]
    places: list[str]
    votes: np.ndarray | None = None


@dataclass
class RawData:
    """Everything that a layout read.

    Attributes:
        splits: by name; a valid data set has at least train.
        notes: what was recognised, changed and ignored.
        rejected: images that could not be read.
        is_fer: whether the table has FER2013's own columns, so that labels 0..6 are its classes.
        is_files: whether the images are files.
        vote_names: the expressions that the columns of the splits' votes stand for.
    """

    splits: dict[str, RawSplit] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    is_fer: bool = False
    is_files: bool = False
    vote_names: tuple[str, ...] = ()

    def reject(self, split: str | None, place: str, reason: str) -> None:
        """Record an image that could not be read; a test image still gets a prediction."""
        note = " (test: predicted from a grey picture)" if split == "test" else ""
        self.rejected.append(Rejected(place, reason + note))


def concatenate(splits: list[RawSplit], names: Sequence[str] = ()) -> RawSplit:
    """Several files of one split as one; where ids repeat, the `names` of the files are put before them."""
    if len(splits) == 1:
        return splits[0]
    ids = [id_ for split in splits for id_ in split.ids]
    if len(set(ids)) < len(ids) and len(names) == len(splits):
        ids = [f"{name}/{id_}" for name, split in zip(names, splits, strict=True) for id_ in split.ids]
    labelled = all(split.labels is not None for split in splits)
    return RawSplit(
        images=np.concatenate([split.images for split in splits]),
        labels=[label for split in splits for label in split.labels] if labelled else None,
        ids=ids,
        places=[place for split in splits for place in split.places],
        votes=None if splits[0].votes is None else np.concatenate([split.votes for split in splits]),
    )


@dataclass(frozen=True)
class ImageFile:
    """An image that a list or folder names: its file (None if it is missing), label, id, place and votes."""

    file: str | None
    label: str | None
    id: str
    place: str
    votes: tuple[float, ...] = ()


def drop_unlabelled(splits: dict[str, list[ImageFile]]) -> dict[str, list[ImageFile]]:
    """Drop unlabelled training and validation images; a validation split without any label becomes the test
    split if there is none."""
    splits = dict(splits)
    if "test" not in splits and not any(item.label for item in splits.get("valid", ())):
        splits["test"] = splits.pop("valid", [])
    kept = {s: items if s == "test" else [i for i in items if i.label] for s, items in splits.items()}
    return {split: items for split, items in kept.items() if items}


def read_image_files(tree: Tree, splits: dict[str, list[ImageFile]], size: int, notes: list[str]) -> RawData:
    """Decode the images of every split; a missing or broken one is rejected, in the test split made grey."""
    sources = [tree.files.get(item.file) for items in splits.values() for item in items]
    images, broken, changes = read_files(sources, size)
    raw = RawData(notes=[*notes, *changes], is_files=True)
    start = 0
    for split, items in splits.items():
        end = start + len(items)
        for row, item in enumerate(items, start):
            if row in broken:
                raw.reject(split, item.place, broken[row] if item.file else f"{broken[row]} ({item.id})")
        keep = [row for row in range(start, end) if split == "test" or row not in broken]
        kept = [items[row - start] for row in keep]
        raw.splits[split] = RawSplit(
            images=images[start:end] if len(keep) == len(items) else images[keep],
            labels=None if any(item.label is None for item in kept) else [item.label for item in kept],
            ids=[item.id for item in kept],
            places=[item.place for item in kept],
            votes=np.array([item.votes for item in kept], np.float32) if kept and kept[0].votes else None,
        )
        start = end
    return raw
