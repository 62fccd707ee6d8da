"""The committed results, their networks for your own images, and their averages."""

from __future__ import annotations

import difflib
import filecmp
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from fer_utils.competition import Competition, DataError
from fer_utils.config import ConfigError
from fer_utils.data.load import load_competition
from fer_utils.data.submission_csv import write_submission
from fer_utils.faces.predict_photos import answers
from fer_utils.files import REPOSITORY, resolve_out
from fer_utils.learning.metrics import describe, evaluate
from fer_utils.run.finished_run import Run, load_run
from fer_utils.run.folder import RunFolder
from fer_utils.run.repeat_or_resume import same_training_data

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
        if (FOLDER / name / "submission.csv").is_file():
            raise ConfigError(f"{name} is an average of other references: it has no networks of its own")
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


# Averages of committed results, made from their answers. A result counts as often as it has networks.
AVERAGES = {
    "fer2013-all-cpu": {"fer2013-cpu": 3, "fer2013-taught-cpu": 3, "fer2013-votes-cpu": 3},
    "fer2013-votes-faces-cpu": {"fer2013-votes-cpu": 3, "fer2013-faces-cpu": 3},
    "fer2013-contest-cpu": {"fer2013-votes-cpu": 3, "fer2013-contest-faces-cpu": 3},
    "ferplus-all-cpu": {"ferplus-cpu": 3, "ferplus-tuned-cpu": 3, "ferplus-faces-cpu": 2},
}


def average_of(name: str, split: str) -> np.ndarray:
    """float64 [N, C]: the mean answer, with views, of the networks in AVERAGES[name] on "valid" or "test".

    Raises:
        DataError: a file of answers is missing or damaged.
    """
    networks = AVERAGES[name]
    parts = [n * RunFolder(FOLDER / part).predictions(split, "probs_views") for part, n in networks.items()]
    return np.sum(parts, axis=0, dtype=np.float64) / sum(networks.values())


def write_average(name: str, data: str, out: str | Path) -> list[str]:
    """Write the validated submission.csv of an average in AVERAGES into `out`.

    Returns:
        Lines on it: of what it is made, its accuracy on the validation images (if the same ones validated all
        of its parts), and whether it is the committed one.

    Raises:
        DataError: `data` are not those that the networks have answered.
    """
    parts = [RunFolder(FOLDER / part) for part in AVERAGES[name]]
    competition = same_data(name, data, with_config(parts[0].path))
    for part in parts:
        if not _answers(part, "test", competition):
            raise DataError(f"the data have other test images than those that {part.path} answers")
    folder = resolve_out(out)
    folder.mkdir(parents=True, exist_ok=True)
    submission = write_submission(competition, average_of(name, "test"), folder / "submission.csv")
    lines = [f"{name}: the average of {', '.join(f'{part} ({n})' for part, n in AVERAGES[name].items())}"]
    if all(_answers(part, "valid", competition) for part in parts):
        scores = evaluate(average_of(name, "valid"), competition.valid.labels, competition.class_names)
        lines.append(f"on the validation images: {describe(scores)}")
    committed = FOLDER / name / "submission.csv"
    if committed.is_file():
        same = filecmp.cmp(submission, committed, shallow=False)
        lines.append(f"{submission}: {'the same bytes as' if same else 'not the same as'} the committed one")
    return lines


def with_config(folder: Path) -> RunFolder:
    """The run that says how a reference was trained: the folder itself, or its first member."""
    return RunFolder(folder if RunFolder(folder).record() is not None else folder / "member0")


def same_data(name: str, data: str, run: RunFolder) -> Competition:
    """The competition in `data`; a DataError if `run`, a part of `name`, was not trained on it."""
    competition = load_competition(data, **run.config().data_options)
    if not same_training_data(run.record(), competition):
        raise DataError(f"{data!r} holds other data than {name} was made from: set data to those")
    return competition


def _answers(part: RunFolder, split: str, competition: Competition) -> bool:
    """Whether the committed answers of `part` for a split are for the images of `competition`, in order."""
    own = getattr(competition, split)
    if own is None or not (part.path / f"{split}.npz").is_file():
        return False
    return list(map(str, own.ids)) == list(map(str, part.predictions(split, "ids")))
