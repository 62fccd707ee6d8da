"""What a notebook on Kaggle does besides training: resume an earlier session, publish the submission."""

from __future__ import annotations

import shutil
from pathlib import Path

from fer_utils.competition import Competition, DataError
from fer_utils.data.locate import KAGGLE_INPUT, run_folders
from fer_utils.data.submission_csv import validate_submission
from fer_utils.files import atomic_write

WORKING = Path("/kaggle/working")


def continue_session(out: str | Path, inputs: Path = KAGGLE_INPUT) -> list[Path]:
    """Copy the runs of an earlier session, attached below `inputs`, to where this one writes them. They are
    recognized by the name of `out`. What `out` already contains stays as it is. Two attached outputs with the
    same run are a DataError."""
    out, taken = Path(out), {}
    for run in run_folders(inputs):
        names = run.relative_to(inputs).parts
        if out.name not in names:
            continue
        last = len(names) - 1 - names[::-1].index(out.name)  # a kernel may have this name too
        place = out.joinpath(*names[last + 1 :])
        if place in taken:
            raise DataError(f"{taken[place]} and {run} both contain {out.name!r} to resume: detach one")
        taken[place] = run
    for place, run in taken.items():
        if not place.exists():
            _copy_files(run, place)
            print(f"a run of an earlier session resumes: {run} copied to {place}")
    if not taken:
        print(f"no earlier session's {out.name} among the inputs: a new one begins")
    return list(taken)


def _copy_files(source: Path, target: Path) -> None:
    """Copy the files below `source` without their permissions: what is mounted as input is read-only."""
    for path in sorted(source.rglob("*")):
        if path.is_file() and not path.is_symlink():
            copy = target / path.relative_to(source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)


def publish_submission(out: str | Path, competition: Competition, folder: Path = WORKING) -> Path | None:
    """Copy the submission in `out` to the top of the notebook's output, and validate it there."""
    if competition.test is None:
        print("the data have no test images, so there is no submission: is the competition attached?")
        return None
    path = folder / "submission.csv"
    with atomic_write(path) as temporary:
        shutil.copyfile(Path(out) / "submission.csv", temporary)
    validate_submission(competition, path)
    print(f"valid: {path}")
    return path
