"""A second task that shares the network: other people's answers for the same training images."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from fer_utils.competition import Competition, DataError, Split, digests
from fer_utils.config import Config
from fer_utils.data.load import load_competition


@dataclass(frozen=True)
class Auxiliary:
    """A second task: what other people said of the same training images.

    Attributes:
        class_names: of its M classes.
        targets: float32 [N, M] in the order of the training images; a row sums to 1, or to 0 for an image
            of which nothing is known.
    """

    class_names: tuple[str, ...]
    targets: np.ndarray

    @property
    def record(self) -> dict[str, Any]:
        """What a run's record says of it."""
        known = int((self.targets.sum(1) > 0).sum())
        digest = hashlib.sha256("\n".join(self.class_names).encode() + self.targets.tobytes()).hexdigest()
        return {"class_names": list(self.class_names), "images": known, "sha256": digest}

    @property
    def report(self) -> str:
        """The same in a line."""
        known, names = self.record["images"], ", ".join(self.class_names)
        return f"auxiliary: {known:,} of {len(self.targets):,} training images have answers for {names}"


def auxiliary_task(config: Config, competition: Competition) -> Auxiliary | None:
    """The votes, or else the labels, that the data named by `auxiliary` have for the training images; None
    without. Both its training and validation split are searched for them, its test split is not. Images are
    the same if all their pixels are; of one that is there several times, the mean is taken. Training images
    with a copy in the validation or test split get none: it may be that of the copy, which scores the run.

    Raises:
        DataError: the data cannot be read, have the images and labels of `competition`, or have none of the
            training images but copies of validation and test images.
    """
    if config.auxiliary in ("none", ""):
        return None
    color = "rgb" if competition.channels == 3 else "grey"
    options = {"image_size": competition.image_size, "color": color, "aspect": config.aspect}
    try:
        other = load_competition(config.auxiliary, **options, allow_rejected=True)
    except DataError as error:
        hint = "Parameters such as layout and columns say how `data` is read, not this"
        raise DataError(f"auxiliary: {error}\n{hint}") from error
    if other.training_fingerprint == competition.training_fingerprint:
        raise DataError(f"auxiliary: {other.source} has the same labels as data: name another labelling")
    known = (other.train, other.valid)
    shares = np.concatenate([shares_of(split, len(other.class_names)) for split in known])
    there, place = np.unique(np.concatenate([digests(split.images) for split in known]), return_inverse=True)
    means = np.zeros((len(there), shares.shape[1]))
    np.add.at(means, place, shares)
    means /= np.bincount(place)[:, None]
    train = digests(competition.train.images)
    row = np.searchsorted(there, train).clip(max=len(there) - 1)
    held_out = [split for name, split in competition.splits.items() if name != "train"]
    copies = np.isin(train, np.concatenate([digests(split.images) for split in held_out]))
    found = (there[row] == train) & ~copies
    targets = np.where(found[:, None], means[row], 0).astype(np.float32)
    if not targets.any():
        raise DataError(
            f"auxiliary: {other.source} has no image of the training split of {competition.source}. It must "
            "be another labelling of the same images, equal in every pixel"
        )
    return Auxiliary(other.class_names, targets)


def check_auxiliary(record: dict[str, Any], task: Auxiliary | None, place: object, advice: str = "") -> None:
    """A DataError if a run of this record, in `place`, learned another second task; its last words are the
    other `advice`."""
    if record.get("auxiliary", {}).get("sha256") != (task.record["sha256"] if task else None):
        raise DataError(f"auxiliary has other answers than {place} learned: name the same ones{advice}")


def shares_of(split: Split, n_classes: int) -> np.ndarray:
    """The share [N, C] of the votes for each class, or the labels as such."""
    if split.votes is None:
        return np.eye(n_classes)[split.labels]
    return split.votes / split.votes.sum(1, keepdims=True)
