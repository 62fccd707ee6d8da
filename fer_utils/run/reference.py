"""The committed results, and their networks for your own images."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fer_utils.competition import DataError
from fer_utils.config import ConfigError
from fer_utils.data.images import IMAGE_SUFFIXES, read_files
from fer_utils.files import REPOSITORY, walk
from fer_utils.run.finished_run import Run, load_run
from fer_utils.run.folder import RunFolder

FOLDER = REPOSITORY / "outputs" / "reference"


@dataclass(frozen=True)
class Reference:
    """A committed result: its folder, and its runs, whose probabilities are averaged."""

    folder: Path
    runs: tuple[Run, ...]

    @property
    def class_names(self) -> tuple[str, ...]:
        """In the order of the probabilities' columns."""
        return self.runs[0].class_names

    def predict(self, files: str | Path | Sequence[str | Path], views: str | None = None) -> np.ndarray:
        """Class probabilities float32 [N, C] of image files, of all in a folder (by name), or of one file.

        An image should show one upright face, cropped as in FER2013: from the brow to below the chin, and
        little around it. It may have any size and colours; it is made grey and square.

        Raises:
            DataError: no image there, or one that cannot be read; it names the file.
        """
        paths = picture_files(files)
        images, broken, _ = read_files(paths, self.runs[0].config.image_size, self.runs[0].channels)
        if broken:
            row, reason = next(iter(broken.items()))
            raise DataError(f"{paths[row]}: {reason} ({len(broken)} of {len(paths)} files cannot be read)")
        return np.mean([run.predict(images, views) for run in self.runs], axis=0)


def load_reference(name: str) -> Reference:
    """A committed result by the name of its folder in outputs/reference.

    Raises:
        ConfigError: no such name (a similar one is suggested).
        DataError: its files are damaged.
    """
    known = sorted(folder.name for folder in FOLDER.glob("*") if RunFolder(folder).has_results)
    if name not in known:
        raise unknown_reference(name, known)
    folder = RunFolder(FOLDER / name)
    if folder.record() is not None:
        return Reference(folder.path, (load_run(folder.path),))
    members = folder.metrics().get("members")
    if not isinstance(members, list) or not members:
        raise DataError(f"{folder} is damaged: it names no members")
    return Reference(folder.path, tuple(load_run(folder.path / str(member)) for member in members))


def unknown_reference(name: str, known: Sequence[str]) -> ConfigError:
    """The error for a name that is not among `known`."""
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known) or 'none here'}"
    return ConfigError(f"no reference is called {name!r}: {hint}; make reproduce RUN=NAME trains one")


def picture_files(files: str | Path | Sequence[str | Path]) -> list[Path]:
    """The paths in `files`, or those of the images in a folder, by name.

    Raises:
        DataError: a path that does not exist, or a folder without images.
    """
    paths = [Path(path) for path in ([files] if isinstance(files, (str, Path)) else files)]
    if len(paths) == 1 and (folder := paths[0]).is_dir():
        paths = sorted(folder / name for name, _ in walk(folder) if name.lower().endswith(IMAGE_SUFFIXES))
    if not paths:
        raise DataError(f"{files}: no images there ({', '.join(IMAGE_SUFFIXES)})")
    for path in paths:
        if not path.is_file():
            raise DataError(f"{path}: no such image")
    return paths
