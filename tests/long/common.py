"""A small competition on disk, training processes as a person starts them, and what must be whole after."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from safetensors.numpy import load_file

from fer_utils.competition import Split
from fer_utils.demo.dataset import make_demo
from fer_utils.files import REPOSITORY
from fer_utils.run.checkpoint import read_checkpoint

# What a run leaves must be these bytes, whatever happened on the way.
RESULTS = ("model.safetensors", "history.csv", "submission.csv")
KNOBS: dict[str, Any] = {"model": "small", "width": 0.25, "epochs": 5, "batch_size": 64}
KNOBS |= {"precision": "fp32", "device": "cpu"}
KNOBS |= {"checkpoint_seconds": 0.5, "mixup": 0.2}


@dataclass(frozen=True)
class Trial:
    """One line of the report: what was done, how often, and how many runs ended wrong or lost something."""

    what: str
    tried: int
    lost: int
    note: str = ""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"lost": int(self.lost)}

    def as_markdown(self) -> str:
        return f"| {self.what} | {self.tried} | {int(self.lost)} | {self.note} |"


def write_competition(folder: Path, n_train: int = 1500, n_test: int = 200) -> Path:
    """Drawn faces as train.csv, test.csv and sample_submission.csv in `folder`."""
    demo = make_demo(n_train, 10, n_test)
    folder.mkdir(parents=True, exist_ok=True)

    def pixels(split: Split) -> list[str]:
        return [" ".join(map(str, image.ravel())) for image in split.images]

    train = pd.DataFrame({"emotion": demo.train.labels, "pixels": pixels(demo.train)})
    train.to_csv(folder / "train.csv", index=False)
    test = pd.DataFrame({"id": range(n_test), "pixels": pixels(demo.test)})
    test.to_csv(folder / "test.csv", index=False)
    pd.DataFrame({"id": range(n_test), "emotion": 0}).to_csv(folder / "sample_submission.csv", index=False)
    return folder


def training(
    data: Path,
    out: Path,
    module: str = "fer_utils.run.train",
    threads: int = 1,
    config: Path | None = None,
    **knobs: Any,
) -> tuple[list[str], dict[str, str]]:
    """The command line of a training and its environment; the config lies at `config` or beside `out`."""
    path = config or out.with_name(f"{out.name}.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(KNOBS | {"data": str(data), "out": str(out)} | knobs))
    return [sys.executable, "-u", "-m", module, str(path)], environment(threads)


def notebook(data: Path, out: Path, **knobs: Any) -> tuple[list[str], dict[str, str]]:
    """The same by papermill and notebook 03, as `make submission` does it."""
    parameters = KNOBS | {"data": str(data), "out": str(out)} | knobs
    command = [sys.executable, "-m", "papermill", str(REPOSITORY / "notebooks" / "03_training.ipynb")]
    command += [str(out.with_name(f"{out.name}.ipynb")), "--no-progress-bar", "--cwd", str(out.parent)]
    for name, value in parameters.items():
        command += ["-r" if isinstance(value, str) else "-p", name, str(value)]
    out.parent.mkdir(parents=True, exist_ok=True)
    return command, environment(1)


def environment(threads: int) -> dict[str, str]:
    """This process's own, with `threads` for torch and the package to be found. One thread a process keeps
    trials quick on a busy machine, where threads wait for each other."""
    return os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": str(threads)}


def start(command: tuple[list[str], dict[str, str]], **options: Any) -> subprocess.Popen:
    """Start it; what it prints can be read from `stdout`, complaints included."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command[0], env=command[1], cwd=REPOSITORY, **pipes, **options)


def finish(command: tuple[list[str], dict[str, str]], **options: Any) -> str:
    """Run it to its end; an end in failure is an error of the trial itself."""
    process = start(command, **options)
    printed = process.communicate()[0]
    if process.returncode:
        raise AssertionError(f"status {process.returncode} of {' '.join(command[0])}:\n{printed[-3000:]}")
    return printed


def results(out: Path) -> dict[str, bytes]:
    """The bytes that must not depend on what happened."""
    return {name: (out / name).read_bytes() for name in RESULTS}


READERS: dict[str, Callable[[Path], Any]] = {
    ".json": lambda path: json.loads(path.read_text(encoding="utf-8")),
    ".safetensors": load_file,
    ".npz": lambda path: dict(np.load(path, allow_pickle=False)),
    ".csv": pd.read_csv,
    ".pt": read_checkpoint,
}


def broken_files(out: Path) -> list[str]:
    """Files under a final name that are not whole; hidden ones are still being written."""
    broken = []
    for path in sorted(out.glob("*")) if out.is_dir() else []:
        if path.suffix in READERS and not path.name.startswith("."):
            try:
                READERS[path.suffix](path)
            except Exception as error:
                broken.append(f"{path.name}: {error}")
    return broken
