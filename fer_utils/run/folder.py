"""A finished run, and class probabilities from it."""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from fer_utils.competition import Competition, DataError, Split
from fer_utils.config import Config
from fer_utils.data.images import resize
from fer_utils.data.load import load_competition
from fer_utils.files import atomic_write, find_path
from fer_utils.learning.device import choose_device
from fer_utils.learning.models import create_model
from fer_utils.learning.predict import view_probs

# A run is complete when all of these stand in its folder; metrics.json is written last.
RUN_FILES = ("config.json", "history.csv", "model.safetensors", "valid.npz", "metrics.json")


@dataclass(frozen=True)
class Run:
    """One finished training, as its folder holds it.

    Attributes:
        out: the folder.
        config: every knob of the training.
        metrics: what metrics.json holds.
        history: one row per epoch.
        class_names: in the order of the probabilities' columns.
        fingerprint: of the data it was trained and validated on.
    """

    out: Path
    config: Config
    metrics: dict[str, Any]
    history: pd.DataFrame
    class_names: tuple[str, ...]
    fingerprint: str

    @cached_property
    def model(self) -> nn.Module:
        """The chosen weights, on the device of the config, ready to predict.

        Raises:
            DataError: model.safetensors is damaged, or holds the weights of another network.
        """
        options = self.config.model_options | {"pretrained": False}  # its own weights follow
        model = create_model(self.config.model, len(self.class_names), **options)
        path = self.out / "model.safetensors"
        try:
            model.load_state_dict(load_file(path))
        except (SafetensorError, RuntimeError) as error:
            reason = str(error).strip().splitlines()[0]
            raise DataError(f"{path} does not hold the weights of {self.config.model} ({reason})") from error
        return model.to(choose_device(self.config.device)).eval()

    def predict(self, images: np.ndarray, views: str | None = None) -> np.ndarray:
        """Class probabilities float32 [N, C] of uint8 pictures [N, 1, H, W] or [N, H, W].

        `views` defaults to the config's; pictures of another size are resized.

        Raises:
            DataError: pictures of another type or shape.
        """
        images = np.asarray(images)
        images = images[:, None] if images.ndim == 3 else images
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1] != 1:
            raise DataError(f"pictures must be uint8 [N, 1, H, W], got {images.dtype} {images.shape}")
        size = self.config.image_size
        batch_size = self.config.evaluation_batch
        return view_probs(self.model, resize(images, size), views or self.config.views, batch_size).mean(0)

    def load_data(self, data: str = "run") -> Competition:
        """The competition this run was trained on, from where its config says or from `data`.

        Raises:
            DataError: other pictures, labels or another validation split than the run's.
        """
        data = self.config.data if data == "run" else data
        try:
            competition = load_competition(data, **self.config.data_options)
        except DataError as error:
            raise DataError(f"{error}\nIf the data moved since {self.out} was trained, set data") from error
        if competition.fingerprint != self.fingerprint:
            fixes = self.config.label_fixes
            hint = "" if fixes == "none" else f", or {fixes} was edited since: then train again with it"
            raise DataError(
                f"{data!r} holds other data than {self.out} was trained on: set data to where those lie{hint}"
            )
        return competition

    def saved_probs(self, split: str = "valid", views: bool = True) -> np.ndarray:
        """The probabilities [N, C] kept in the folder for `split`, plain or with the config's views.

        Raises:
            DataError: the file is missing or damaged, or holds objects, which could run code.
        """
        return self.saved(split, "probs_views" if views else "probs")

    def saved(self, split: str, name: str) -> np.ndarray:
        """An array kept in the folder for `split`: "ids", "labels" (where known), "probs" or "probs_views".

        Raises:
            DataError: the file is missing or damaged, or holds objects, which could run code.
        """
        path = self.out / f"{split}.npz"
        try:
            with np.load(path, allow_pickle=False) as arrays:
                return arrays[name]
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, AttributeError) as error:
            raise DataError(f"{path} cannot be used ({error}): train this run again") from error


def read_record(path: Path) -> dict[str, Any] | None:
    """The record in a config.json; None where a person wrote the file, or there is none.

    Raises:
        DataError: the file is damaged.
    """
    if not path.is_file():
        return None
    try:
        record = json.loads(path.read_text(encoding="utf-8-sig")).get("record")
    except (ValueError, AttributeError) as error:
        raise DataError(f"{path} is damaged ({error}): remove it or choose another out") from error
    if record is not None and not (
        isinstance(record, dict) and {"fingerprint", "class_names"} <= set(record)
    ):
        raise DataError(f"{path} is damaged: its record lacks the fingerprint or class_names of a run")
    return record


def load_run(out: str | Path) -> Run:
    """Read the run in the folder `out`.

    Raises:
        DataError: no such folder, or the run in it is not finished.
    """
    folder = find_path(out)
    missing = [name for name in RUN_FILES if not (folder / name).is_file()]
    if missing:
        raise DataError(
            f"{folder}: not a finished run, {', '.join(missing)} is missing. Start the same training again: "
            "it goes on from its last checkpoint"
        )
    record = read_record(folder / "config.json")
    if record is None:
        raise DataError(f"{folder / 'config.json'} was written by a person, not by a run")
    try:
        metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
        history = pd.read_csv(folder / "history.csv")
    except ValueError as error:  # of JSON and of pandas
        raise DataError(f"{folder}: metrics.json or history.csv is damaged ({error})") from error
    if not (isinstance(metrics, dict) and {"training", "valid"} <= set(metrics)):
        raise DataError(f"{folder / 'metrics.json'} is damaged: it lacks the scores of a run")
    return Run(
        out=folder,
        config=Config.from_json(folder / "config.json"),
        metrics=metrics,
        history=history,
        class_names=tuple(map(str, record["class_names"])),
        fingerprint=str(record["fingerprint"]),
    )


def save_probs(path: Path, model: nn.Module, split: Split, config: Config) -> dict[str, np.ndarray]:
    """Predict `split` plainly and with views, write both with ids and labels, and return the arrays."""
    probs = view_probs(model, split.images, config.views, config.evaluation_batch)
    arrays = {"ids": split.ids.astype(np.str_), "probs": probs[0], "probs_views": probs.mean(0)}
    if split.labels is not None:
        arrays["labels"] = split.labels
    with atomic_write(path) as temporary:
        np.savez(temporary, **arrays)
    return arrays
