"""Tiny competitions that tests train on in a fraction of a second."""

import os
import signal
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest

import tests  # noqa: F401, I001 (IPython 7 puts a package of its own with this name on the path later)
from fer_utils.competition import Competition, Split, SubmissionFormat
from fer_utils.files import REPOSITORY

matplotlib.use("Agg")
os.environ["FER_CACHE"] = "off"  # test_cache.py gives each test one of its own
# Networks this small run faster on one thread, and several test processes may share two cores. Said before
# torch is imported, by the tests: pytest-xdist's own process needs this file too, and waits for its imports.
os.environ["OMP_NUM_THREADS"] = "1"
# Tests in the background of a script would ignore Ctrl-C, and hand that down to the processes they start.
signal.signal(signal.SIGINT, signal.default_int_handler)


def tiny_split(n: int, n_classes: int, size: int, seed: int, labelled: bool = True) -> Split:
    """Noise with a bright square whose place tells the class: easy to learn in a few steps."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n, dtype=np.int64) % n_classes
    images = rng.integers(0, 120, (n, 1, size, size), dtype=np.uint8)
    step = size // n_classes
    for image, label in zip(images, labels, strict=True):
        image[0, label * step : (label + 1) * step, label * step : (label + 1) * step] += 130
    return Split(images, labels if labelled else None, np.array([str(i) for i in range(n)]))


def tiny_competition(
    n_classes: int = 4, size: int = 20, test_labels: np.ndarray | None = None
) -> Competition:
    """60 training, 20 validation and 12 test images of `size` pixels."""
    names = ("angry", "happy", "sad", "neutral", "fear", "surprise", "disgust")[:n_classes]
    test = tiny_split(12, n_classes, size, seed=2, labelled=False)
    template = pd.DataFrame({"id": test.ids, "label": "0"})
    return Competition(
        train=tiny_split(60, n_classes, size, seed=0),
        valid=tiny_split(20, n_classes, size, seed=1),
        test=Split(test.images, test_labels, test.ids),
        class_names=names,
        label_values=tuple(range(n_classes)),
        submission=SubmissionFormat(template, "label", np.arange(12), tuple(map(str, range(n_classes)))),
        source="tiny",
        layout="tiny",
    )


@pytest.fixture(scope="session")
def tiny() -> Competition:
    return tiny_competition()


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory) -> Path:
    """The tiny training images as files, which other processes can read."""
    folder = tmp_path_factory.mktemp("tiny")
    train = tiny_competition().train
    pixels = [" ".join(map(str, image.ravel())) for image in train.images]
    pd.DataFrame({"emotion": train.labels, "pixels": pixels}).to_csv(folder / "train.csv", index=False)
    test = pd.DataFrame({"id": range(12), "pixels": pixels[:12]})
    test.to_csv(folder / "test.csv", index=False)
    pd.DataFrame({"id": range(12), "emotion": 0}).to_csv(folder / "sample_submission.csv", index=False)
    return folder


# A module that Python imports at start: few demo faces are drawn, and runs are written below FOLDER.
SMALL_DEMO = """import pathlib
from fer_utils import files
from fer_utils.demo import dataset
files.REPOSITORY = pathlib.Path("FOLDER")
whole = dataset.make_demo
dataset.make_demo = lambda **options: whole(700, 200, 100, **options)
"""


def at_start(code: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the Python processes that a test starts import `code` first."""
    (folder / "sitecustomize.py").write_text(code.replace("FOLDER", str(folder)))
    monkeypatch.setenv("PYTHONPATH", f"{folder}{os.pathsep}{REPOSITORY}")


def fit_members(configs, per_device: int = 1) -> list:
    """In place of `launch_members`, which starts a process of several seconds for each training."""
    from fer_utils.data.load import load_competition
    from fer_utils.run.train import fit

    return [fit(config, load_competition(config.data, **config.data_options)) for config in configs]
