"""The committed results, and their networks for your own images."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from fer_utils.competition import DataError
from fer_utils.config import ConfigError
from fer_utils.faces.predict_photos import answers
from fer_utils.files import REPOSITORY
from fer_utils.run.finished_run import Run, load_run
from fer_utils.run.folder import RunFolder

FOLDER = REPOSITORY / "outputs" / "reference"


@dataclass(frozen=True)
class Reference:
    """A committed result.

    Attributes:
        folder: where it lies.
        runs: those whose networks are here, whose probabilities are averaged.
        missing: the names of the others.
    """

    folder: Path
    runs: tuple[Run, ...]
    missing: tuple[str, ...] = ()

    @property
    def class_names(self) -> tuple[str, ...]:
        """In the order of the probabilities' columns."""
        return self.runs[0].class_names

    def predict(self, files: str | Path | Sequence[str | Path], views: str | None = None) -> np.ndarray:
        """Class probabilities float32 [N, C] of image files, of all in a folder (by name), or of one file."""
        return self.predict_files(files, views)[list(self.class_names)].to_numpy(np.float32)

    def predict_files(
        self, files: str | Path | Sequence[str | Path], views: str | None = None, crop: bool = True
    ) -> pd.DataFrame:
        """The answers for image files: see `answers`."""
        return answers(self.runs, files, views, crop)


def load_reference(name: str) -> Reference:
    """A committed result by the name of its folder in outputs/reference; a ConfigError for another name, a
    DataError for damaged files."""
    known = sorted(folder.name for folder in FOLDER.glob("*") if RunFolder(folder).has_results)
    if name not in known:
        raise unknown_reference(name, known)
    folder = RunFolder(FOLDER / name)
    parts = [folder]
    if folder.record() is None:
        members = folder.metrics().get("members")
        readings = folder.member_folders([str(name) for name in members]) if isinstance(members, list) else []
        if not readings:
            raise DataError(f"{folder} is damaged: it names no members")
        parts = readings[0]
    missing = tuple(part.path.name for part in parts if part.lacks_networks)
    if len(missing) == len(parts):
        raise ConfigError(f"{name} holds results without its networks: make reproduce RUN={name} trains them")
    runs = tuple(load_run(part.path) for part in parts if part.path.name not in missing)
    return Reference(folder.path, runs, missing)


def unknown_reference(name: str, known: Sequence[str]) -> ConfigError:
    """The error for a name that is not among `known`."""
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known) or 'none here'}"
    return ConfigError(f"no reference is called {name!r}: {hint}; make reproduce RUN=NAME trains one")
