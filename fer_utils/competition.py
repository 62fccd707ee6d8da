"""The data classes of the project: a split of face images, and the competition they belong to."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from fer_utils.arrays_on_disk import take
from fer_utils.files import DataError

# The order of FER2013 and of most competitions since (Goodfellow et al. 2013).
FER_CLASSES = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")


POOLED = "valid/"  # put before validation ids that also occur in train, where the two are pooled


@dataclass(frozen=True)
class Split:
    """The images of one part of a competition: training, validation or test.

    Attributes:
        images: uint8 [N, 1, H, W], grey, or [N, 3, H, W], red, green and blue.
        labels: int64 [N], indices into the competition's `class_names`; None where they are hidden.
        ids: str [N], the competition's name for each image.
        votes: float32 [N, C], how many people saw which class; None where the data has single labels.
        groups: str [N], the person on each image; None where the data does not say it.
    """

    images: np.ndarray
    labels: np.ndarray | None
    ids: np.ndarray
    votes: np.ndarray | None = None
    groups: np.ndarray | None = None

    def __post_init__(self):
        if self.images.dtype != np.uint8 or self.images.ndim != 4 or self.images.shape[1] not in (1, 3):
            found = f"{self.images.dtype} {self.images.shape}"
            raise DataError(f"images must be uint8 [N, 1, H, W] or [N, 3, H, W], got {found}")
        lengths = {len(a) for a in (self.images, self.labels, self.ids) if a is not None}
        if len(lengths) != 1:
            raise DataError(f"images, labels and ids differ in length: {sorted(lengths)}")
        if self.votes is not None and (self.votes.ndim != 2 or len(self.votes) != len(self.images)):
            raise DataError(f"votes must be [{len(self.images)}, C], got {self.votes.shape}")

    def __len__(self) -> int:
        return len(self.images)

    def take(self, rows: np.ndarray) -> Split:
        """The split of `rows` (indices or a boolean mask [N]), in their order."""
        return Split(*(None if column is None else take(column, rows) for column in vars(self).values()))

    def without_labels(self) -> Split:
        """The same images with their labels hidden."""
        return Split(self.images, None, self.ids)


@dataclass(frozen=True)
class SubmissionFormat:
    """The form in which a competition takes predictions.

    Attributes:
        template: the sample file as text cells, one row per prediction, in the order to keep.
        label_column: the column of `template` that the predictions replace.
        rows: int64 [len(template)], the row of `competition.test` for each line.
        label_values: text per class, in the sample's own coding (int or string, 0- or 1-based).
        header: whether the file starts with the column names.
        separator: the character between columns.
        source: the sample's file name, or "default" where the competition has none.
        probability_columns: the column of each class, where the competition takes probabilities instead of
            one label an image.
        encoding: of the file.
        ids_from: how the lines of the sample were matched with the test images.
    """

    template: pd.DataFrame
    label_column: str
    rows: np.ndarray
    label_values: tuple[str, ...]
    header: bool = True
    separator: str = ","
    source: str = "default"
    probability_columns: tuple[str, ...] = ()
    encoding: str = "utf-8"
    ids_from: str = ""


@dataclass(frozen=True)
class Rejected:
    """An image that could not be read: its file and row, and why."""

    place: str
    reason: str


@dataclass(frozen=True)
class Competition:
    """Everything that was read from a competition's data.

    Attributes:
        train, valid: labelled splits.
        test: the images to predict; None if the data has none.
        class_names: canonical lower-case names (`FER_CLASSES` order when they all belong to it).
        label_values: per class, the data's own label (for instance 1-based ints or folder names).
        submission: the format of the predictions; None if there is no test split.
        source: the path given to `load_competition`.
        layout: the name of the reader that recognised it.
        notes: lines on what was recognised, looked for and ignored.
        rejected: what could not be read.
        is_demo: whether these are drawn faces and not a competition.
    """

    train: Split
    valid: Split
    test: Split | None
    class_names: tuple[str, ...]
    label_values: tuple[int | str, ...]
    submission: SubmissionFormat | None = None
    source: str = ""
    layout: str = ""
    notes: tuple[str, ...] = ()
    rejected: tuple[Rejected, ...] = ()
    is_demo: bool = False

    @property
    def splits(self) -> dict[str, Split]:
        """The splits that exist, by name."""
        splits = {"train": self.train, "valid": self.valid, "test": self.test}
        return {name: split for name, split in splits.items() if split is not None}

    @property
    def image_size(self) -> int:
        """Height and width of the images in pixels."""
        return self.train.images.shape[-1]

    @property
    def channels(self) -> int:
        """1 where the images are grey, 3 where they have colours."""
        return self.train.images.shape[1]

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the images, labels, votes, ids and class names; the test labels are left out."""
        digest = hashlib.sha256("\n".join(self.class_names).encode())
        for name, split in self.splits.items():
            digest.update(np.ascontiguousarray(split.images))
            digest.update("\n".join(map(str, split.ids)).encode("utf-8", "surrogateescape"))
            if name != "test":
                digest.update(np.ascontiguousarray(split.labels))
                digest.update(b"" if split.votes is None else np.ascontiguousarray(split.votes))
        return digest.hexdigest()

    @cached_property
    def training_fingerprint(self) -> str:
        """SHA-256 over what decides the trained network: the images, labels and votes of training and
        validation, in their order, and class names. Copies of a data set often differ in their ids and test
        split."""
        digest = hashlib.sha256("\n".join(self.class_names).encode())
        for split in (self.train, self.valid):
            for array in (split.images, split.labels, split.votes):
                digest.update(b"" if array is None else np.ascontiguousarray(array))
        return digest.hexdigest()

    def summary(self) -> str:
        """A few plain lines: layout, size, counts per split and class, and the notes."""
        height, width = self.train.images.shape[2:]
        colour = ", in colour" * (self.channels == 3)
        heading = ": ".join(dict.fromkeys((self.layout, self.source)))  # the demo's are the same
        lines = [f"{heading} ({len(self.class_names)} classes, {height}x{width} pixels{colour})"]
        for name, split in self.splits.items():
            text = ", labels hidden"
            if split.labels is not None:
                counts = np.bincount(split.labels, minlength=len(self.class_names))
                text = ": " + ", ".join(f"{c} {n:,}" for c, n in zip(self.class_names, counts, strict=True))
            lines.append(f"  {name:5} {len(split):>7,} images{text}")
        lines += [f"  {note}" for note in self.notes]
        if n := len(self.rejected):
            lines.append(f"  WARNING: {n:,} left out, which cannot be read or have no known label:")
            lines += [f"    {item.place}: {item.reason}" for item in self.rejected[:3]]
            lines += [f"    ... ({n - 3:,} more)"] * (n > 3)
        return "\n".join(lines)


def image_groups(images: np.ndarray, mirrored: bool = False) -> np.ndarray:
    """Number the distinct images of uint8 [N, ..., W]: exact copies share a number, with `mirrored` also
    those of the mirror image. Returns int64 [N]."""
    names = digests(images)
    if mirrored:
        others = digests(image[..., ::-1] for image in images)
        names = np.where(names < others, names, others)
    return pd.factorize(names)[0]


def digests(images: Iterable[np.ndarray]) -> np.ndarray:
    """A digest of the bytes of each image, as text of 32 hexadecimal digits."""
    whole = map(np.ascontiguousarray, images)
    return np.array([hashlib.blake2b(image, digest_size=16).hexdigest() for image in whole], dtype="S32")


def copies_of(images: np.ndarray, *others: np.ndarray) -> np.ndarray:
    """Which of uint8 [N, C, H, W] also stand, exactly, in one of `others` [M, C, H, W]. Returns bool [N]."""
    return np.isin(digests(images), np.concatenate([digests(other) for other in others]))
