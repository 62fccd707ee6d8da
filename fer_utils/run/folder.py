"""A run folder: every file of it is read and written here, and its state is known here."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from fer_utils.competition import Competition, DataError
from fer_utils.config import Config, ConfigError
from fer_utils.data.submission_csv import write_submission
from fer_utils.files import atomic_write, distinct_names, find_path, resolve_out, write_json, write_text
from fer_utils.learning.metrics import at_temperature, fit_temperature
from fer_utils.run.checkpoint import CheckpointFile
from fer_utils.run.time_and_memory import OutOfTime

# A run is complete when all of these are in its folder; metrics.json is written last.
RUN_FILES = ("config.json", "history.csv", "model.safetensors", "valid.npz", "metrics.json")
# With `cv` the weights lie in the folders of the folds, and the validation predictions are out of fold.
CV_FILES = ("config.json", "history.csv", "oof.npz", "metrics.json")
# What not every run writes, so that another's would pass for its own; metrics.json comes first on purpose.
LEFTOVERS = ("metrics.json", "submission.csv", "test.npz", "valid.npz", "oof.npz")


def find_run(out: str | Path) -> Path:
    """The absolute path of a run's folder, wherever `find_path` finds it; a DataError if nothing is there."""
    try:
        return find_path(out).absolute()
    except DataError as error:
        how = f"train it first (make submission OUT={out}), or name another"
        raise DataError(f"there is no run in {str(out)!r}: {how} ({error})") from None


class RunFolder:
    """The folder of one run; a relative `out` counts from the repository."""

    def __init__(self, out: str | Path):
        self.path = resolve_out(out)
        self.checkpoint = CheckpointFile(self.path)

    def __str__(self) -> str:
        return str(self.path)

    # ------------------------------------------------------------ state

    def missing(self) -> list[str]:
        """Which files a complete run still lacks."""
        names = CV_FILES if self._file("valid").stem == "oof" else RUN_FILES
        return [name for name in names if not (self.path / name).is_file()]

    @property
    def has_results(self) -> bool:
        """Whether it has results, perhaps of a run that can still resume."""
        return (self.path / "metrics.json").is_file()

    @property
    def lacks_networks(self) -> bool:
        """Whether it has the results of a run without its networks, as a committed one may: neither weights
        nor validation probabilities, and of a `cv` no folds."""
        recorded = self.has_results and self.record() is not None
        kept = (self.path / name for name in ("model.safetensors", "valid.npz", "fold0"))
        return recorded and not any(path.exists() for path in kept)

    @property
    def is_finished(self) -> bool:
        """Whether it has the results of a run that reached its end, which then removed its checkpoint."""
        return not self.missing() and not self.checkpoint.exists

    @property
    def failure(self) -> str:
        """What ended its last training, if that was an error."""
        with suppress(OSError, ValueError):
            return (self.path / "error.txt").read_text(encoding="utf-8").strip()
        return ""

    @contextmanager
    def failure_noted(self) -> Iterator[None]:
        """Keep the message of an error that ends a training in error.txt, until the next one begins."""
        (self.path / "error.txt").unlink(missing_ok=True)
        try:
            yield
        except OutOfTime:  # the same command resumes
            raise
        except Exception as error:
            with suppress(OSError):  # the first error counts
                write_text(self.path / "error.txt", f"{type(error).__name__}: {error}\n")
            raise

    def holds(self, config: Config, competition: Competition) -> bool:
        """Whether it has this run, finished.

        Raises:
            ConfigError, DataError: it has another run, or its results without its weights; the message names
                the difference.
        """
        record = self.record()
        if record is None and self.has_results:
            raise ConfigError(f"{self} has results without a record in config.json: choose another out")
        if record is None or not (self.has_results or self.checkpoint.exists):
            return False  # nothing worth keeping, or only the config that a person wrote for this run
        other = self.config()
        if differing := config.differing(other):
            raise ConfigError(f"{self} has a run with another config ({differing}): choose another out")
        if record["fingerprint"] != competition.fingerprint:
            raise DataError(f"{self} has a run on other data (from {other.data!r}): choose another out")
        return self.is_finished

    # ------------------------------------------------------------ config.json

    def config(self) -> Config:
        """The config of the run."""
        return Config.from_json(self.path / "config.json")

    def record(self) -> dict[str, Any] | None:
        """What the run was made with (see `read_record`)."""
        return read_record(self.path / "config.json")

    def write_config(self, config: Config, record: Mapping[str, Any]) -> None:
        """Write config.json at the start of a run. A person's own files where a run writes its own are a
        ConfigError."""
        if self.record() is None and not self.has_results:
            for path in (self.submission, self.weights, self.path / "history.csv"):
                if path.exists():
                    raise ConfigError(
                        f"{path} was not written by a run, and would be lost: choose another out"
                    )
        self.remove_results()
        write_json(self.path / "config.json", {**config.to_dict(), "record": record})

    # ------------------------------------------------------------ results

    def remove_results(self) -> None:
        """Remove the results of whatever was here before, metrics.json first: without it nothing looks
        finished, should the removal be cut. Files of these names that no run wrote, perhaps the data
        themselves, are a ConfigError."""
        for path in self.path.glob("*.npz"):
            if path.name in LEFTOVERS and not _is_ours(path):
                raise ConfigError(f"{path} was not written by a run, and would be lost: choose another out")
        for name in LEFTOVERS:
            (self.path / name).unlink(missing_ok=True)

    @property
    def weights(self) -> Path:
        """Where the weights are."""
        return self.path / "model.safetensors"

    @property
    def submission(self) -> Path:
        """Where the submission is, if the data has a test split."""
        return self.path / "submission.csv"

    def write_training(self, history: list[dict[str, Any]], weights: dict[str, Tensor]) -> None:
        """Write the rows of the epochs and the chosen weights."""
        self.write_history(pd.DataFrame(history))
        with atomic_write(self.weights) as temporary:
            temporary.write_bytes(save(weights))

    def write_history(self, history: pd.DataFrame) -> None:
        """Write the rows of the epochs."""
        with atomic_write(self.path / "history.csv") as temporary:
            history.to_csv(temporary, index=False)

    def write_submission(self, competition: Competition, valid: np.ndarray, test: np.ndarray) -> None:
        """Write the submission from probabilities [N, C] of the validation and the test split. Where the
        competition takes probabilities, they are calibrated first: a temperature fitted to the validation
        split (Guo et al. 2017)."""
        if competition.submission.probability_columns:
            test = at_temperature(test, fit_temperature(valid, competition.valid.labels))
        write_submission(competition, test, self.submission)

    def history(self) -> pd.DataFrame:
        """The rows of history.csv."""
        try:
            return pd.read_csv(self.path / "history.csv")
        except ValueError as error:
            raise DataError(f"{self.path / 'history.csv'} is damaged ({error})") from error

    def load_weights(self, model: nn.Module) -> None:
        """Give `model` the weights in model.safetensors; a DataError if they are damaged or another's."""
        try:
            model.load_state_dict(load_file(self.weights))
        except (SafetensorError, RuntimeError, OSError) as error:
            reason = str(error).strip().splitlines()[0]
            raise DataError(f"{self.weights} does not hold the weights of this network ({reason})") from error

    def _file(self, split: str) -> Path:
        """Where the predictions of a split are; those of the validation split perhaps out of fold."""
        oof = self.path / "oof.npz"
        return oof if split == "valid" and oof.is_file() else self.path / f"{split}.npz"

    def write_predictions(self, split: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Write the predictions of a split, or "oof" (out of fold): ids, labels where they are known, probs
        and probs_views."""
        with atomic_write(self.path / f"{split}.npz") as temporary:
            np.savez(temporary, **arrays)

    def has_predictions(self, split: str) -> bool:
        """Whether predictions of this split are saved."""
        return self._file(split).is_file()

    def predictions(self, split: str, name: str) -> np.ndarray:
        """An array of what `write_predictions` wrote; a DataError if the file is missing or damaged, or holds
        objects, which could run code."""
        path = self._file(split)
        try:
            with np.load(path, allow_pickle=False) as arrays:
                return arrays[name]
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, AttributeError) as error:
            raise DataError(f"{path} cannot be used ({error}): train this run again") from error

    def write_metrics(self, metrics: Mapping[str, Any]) -> None:
        """Write metrics.json, the last of the results."""
        write_json(self.path / "metrics.json", metrics)

    def metrics(self) -> dict[str, Any]:
        """What metrics.json holds; a DataError if it is damaged."""
        return _read_json(self.path / "metrics.json")

    # ------------------------------------------------------------ the members of an average

    def member_name(self, run: Path) -> str:
        """What metrics.json calls a run that is averaged here: its path from here, as in "../seed1"."""
        try:
            return Path(os.path.relpath(run.resolve(), self.path.resolve())).as_posix()
        except ValueError:  # on another drive
            return run.resolve().as_posix()

    def member_folders(self, names: Sequence[str]) -> list[list[RunFolder]]:
        """The folders, found or not, that metrics.json calls by these `names`, the likelier reading first.
        Older files hold the last part of each path alone, also of runs that lie beside this folder; where two
        of those are the same, nobody knows: there is no reading."""
        if not names or len(set(names)) < len(names):
            return []
        places = [self.path.resolve()]
        if all(Path(name).name == name for name in names):
            places.append(places[0].parent)
        return [[RunFolder(_below(place, name)) for name in names] for place in places]

    def shown_members(self, names: Sequence[str]) -> list[str]:
        """What people are shown of these `names`."""
        return distinct_names([_below(self.path.resolve(), name) for name in names])


def _below(place: Path, name: str) -> Path:
    """`place` / `name` without the dots in it."""
    return Path(os.path.normpath(place / name))


def read_record(path: Path) -> dict[str, Any] | None:
    """The record in a config.json; None where a person wrote the file, or there is none. A damaged file is a
    DataError."""
    if not path.is_file():
        return None
    record = _read_json(path).get("record")
    if record is None or (isinstance(record, dict) and {"fingerprint", "class_names"} <= set(record)):
        return record
    raise DataError(f"{path} is damaged: its record lacks the fingerprint or class_names of a run")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is damaged ({error}): restore it or train again with another out") from error
    if not isinstance(content, dict):
        raise DataError(f"{path} is damaged: it holds no names and values")
    return content


def _is_ours(path: Path) -> bool:
    """Whether an .npz file holds what `write_predictions` writes."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return "probs_views" in arrays
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        return False
