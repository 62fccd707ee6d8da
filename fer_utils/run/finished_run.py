"""A finished run, and class probabilities from it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from fer_utils.arrays_on_disk import concatenate
from fer_utils.competition import Competition, DataError, Split
from fer_utils.config import Config
from fer_utils.data.decode_images import ImageFormat, resize, with_channels
from fer_utils.data.load import load_competition
from fer_utils.faces.predict_photos import answers
from fer_utils.learning.device import choose_device
from fer_utils.learning.models import create_model, second_task
from fer_utils.learning.predict import view_probs
from fer_utils.run.folder import RunFolder, find_run


@dataclass(frozen=True)
class Run:
    """One finished training, read from its folder.

    Attributes:
        out: the folder.
        config: every parameter of the training.
        metrics: the content of metrics.json.
        history: one row per epoch.
        class_names: in the order of the probabilities' columns.
        fingerprint: of the data it was trained and validated on.
        training_fingerprint: of the same without ids and test split; "" where an older run does not have it.
        channels: of its images: 1, grey, or 3, red, green and blue.
        auxiliary_names: the classes of the second task that its network has learned, if it has.
        folds: with `cv` the runs of the folds, whose predictions are averaged; the validation split of such a
            run are all labelled images, each predicted by the run that was not trained on it.
        valid_rows: int64 [N], the part of its validation split that is read, in this order; None: all of it.
    """

    out: Path
    config: Config
    metrics: dict[str, Any]
    history: pd.DataFrame
    class_names: tuple[str, ...]
    fingerprint: str
    training_fingerprint: str = ""
    channels: int = 1
    auxiliary_names: tuple[str, ...] = ()
    folds: tuple[Run, ...] = ()
    valid_rows: np.ndarray | None = None

    @property
    def folder(self) -> RunFolder:
        """Its files."""
        return RunFolder(self.out)

    @cached_property
    def model(self) -> nn.Module:
        """The chosen weights, on the device of the config, ready to predict; a DataError if they are damaged
        or another network's, or there is one for each fold."""
        if self.folds:
            raise DataError(
                f"{self.out} has a network for each fold: use one of its runs, {self.folds[0].out}"
            )
        options = self.config.model_options | {"channels": self.channels}
        options["auxiliary"] = len(self.auxiliary_names)
        model = create_model(self.config.model, len(self.class_names), **options)
        self.folder.load_weights(model)
        # In the order in memory of training, so that predictions repeat the saved ones bit by bit.
        return model.to(choose_device(self.config.device), memory_format=torch.channels_last).eval()

    def predict(
        self, images: np.ndarray, views: str | None = None, dtype: torch.dtype = torch.float32
    ) -> np.ndarray:
        """Class probabilities float32 [N, C] of uint8 images [N, 1 or 3, H, W] or [N, H, W]; others are a
        DataError. `views` defaults to the config's, and `dtype` is as in `view_probs`; images of another size
        are resized, and colours turned to grey or grey repeated as the network needs it."""
        images = np.asarray(images)
        images = images[:, None] if images.ndim == 3 else images
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3):
            raise DataError(f"images must be uint8 [N, 1 or 3, H, W], got {images.dtype} {images.shape}")
        if self.folds:
            return np.mean([run.predict(images, views, dtype) for run in self.folds], axis=0)
        config, wanted = self.config, self.image_format
        images = resize(with_channels(images, wanted.channels), wanted.size, wanted.aspect)
        views = views or config.views
        return view_probs(self.model, images, views, config.evaluation_batch, dtype).mean(0)

    def predict_auxiliary(
        self, images: np.ndarray, views: str | None = None, dtype: torch.dtype = torch.float32
    ) -> np.ndarray:
        """The same for the second task that it has learned: probabilities float32 [N, M] in the order of
        `auxiliary_names`; a DataError if it has learned none."""
        if not self.auxiliary_names:
            raise DataError(f"{self.out} has learned no second task: train with `auxiliary`")
        if self.folds:
            return np.mean([run.predict_auxiliary(images, views, dtype) for run in self.folds], axis=0)
        with second_task(self.model):
            return self.predict(images, views, dtype)

    def predict_files(
        self, files: str | Path | Sequence[str | Path], views: str | None = None, crop: bool = True
    ) -> pd.DataFrame:
        """The answers for image files: see `answers`."""
        return answers([self], files, views, crop)

    @property
    def image_format(self) -> ImageFormat:
        """What its images become."""
        return ImageFormat(self.config.image_size, self.channels, self.config.aspect)

    def load_data(self, data: str = "run", any_test: bool = False) -> Competition:
        """The competition this run was trained on, from the `data` of its config or another place; other
        images, labels or another validation split are a DataError.

        Args:
            any_test: accept another copy of the data, with other ids or another test split, without its test.
        """
        if self.valid_rows is not None:
            whole = replace(self, valid_rows=None).load_data(data, any_test)
            return replace(whole, valid=whole.valid.take(self.valid_rows))
        if self.folds:
            return all_folds(run.load_data(data, any_test) for run in self.folds)
        data = self.config.data if data == "run" else data
        try:
            competition = load_competition(data, **self.config.data_options)
        except DataError as error:
            raise DataError(f"{error}\nIf the data moved since {self.out} was trained, set data") from error
        if competition.fingerprint != self.fingerprint:
            if any_test and competition.training_fingerprint == self.training_fingerprint:
                return replace(competition, test=None, submission=None)
            fixes = self.config.label_fixes
            hint = "" if fixes == "none" else f", or {fixes} was edited since: then train again with it"
            raise DataError(
                f"{data!r} holds other data than {self.out} was trained on: set data to where those are{hint}"
            )
        return competition

    def saved_probs(self, split: str = "valid", views: bool = True) -> np.ndarray:
        """The saved probabilities [N, C] of `split`, plain or with the config's views."""
        return self.saved(split, "probs_views" if views else "probs")

    def saved(self, split: str, name: str) -> np.ndarray:
        """A saved array of `split`: "ids", "labels" (where known), "probs" or "probs_views"."""
        found = self.folder.predictions(split, name)
        return found if split != "valid" or self.valid_rows is None else found[self.valid_rows]


def load_run(out: str | Path) -> Run:
    """Read the run in the folder `out`; a DataError if there is none, or it is not finished."""
    folder = RunFolder(find_run(out))
    if missing := ", ".join(folder.missing()):
        advice = "Start the same training again: it resumes from its last checkpoint"
        if folder.has_results and "members" in folder.metrics():
            advice = "It is an ensemble: name one of its members"
        raise DataError(f"{folder}: not a finished run, {missing} is missing. {advice}")
    record, metrics = folder.record(), folder.metrics()
    if record is None:
        raise DataError(f"{folder.path / 'config.json'} has no record of a run: train first")
    if not {"training", "valid"} <= set(metrics):
        raise DataError(f"{folder.path / 'metrics.json'} is damaged: it lacks the scores of a run")
    config = folder.config()
    return Run(
        out=folder.path,
        config=config,
        metrics=metrics,
        history=folder.history(),
        class_names=tuple(map(str, record["class_names"])),
        fingerprint=str(record["fingerprint"]),
        training_fingerprint=record.get("training_fingerprint", ""),
        channels=record.get("channels", 1),
        auxiliary_names=tuple(map(str, record.get("auxiliary", {}).get("class_names", ()))),
        folds=tuple(load_run(folder.path / f"fold{k}") for k in range(config.cv)),
    )


def all_folds(parts: Iterable[Competition]) -> Competition:
    """The competitions of all folds as one, whose training and validation split are both all labelled images,
    fold by fold."""
    splits = []
    for part in parts:
        splits.append(part.valid)
    columns = zip(*(vars(split).values() for split in splits), strict=True)
    every = Split(*(None if values[0] is None else concatenate(values) for values in columns))
    note = f"valid split: all labelled images, each in one of {len(splits)} folds"
    notes = [note, *(line for line in part.notes if not line.startswith("valid split:"))]
    return replace(part, train=every, valid=every, notes=tuple(notes))
