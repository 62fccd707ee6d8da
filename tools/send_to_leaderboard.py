"""Send a submission to Kaggle and keep its score beside it, by the Kaggle client (pip install kaggle).

make submit RUN=outputs/x [COMPETITION=NAME MESSAGE="what is new"]
The same command again sends nothing twice: it fetches the score, with the private one once that is known.
"""

from __future__ import annotations

import argparse
import csv
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from fer_utils.analysis.leaderboard import is_own, read_scores, store_score, submission_hash
from fer_utils.command_line import exit_status
from fer_utils.competition import DataError
from fer_utils.config import ConfigError
from fer_utils.files import find_path
from fer_utils.run.folder import RunFolder
from tools.run_options import options_parser

SETUP = (
    "make submit needs the Kaggle client: .venv/bin/python -m pip install kaggle, and a token in "
    "~/.kaggle/kaggle.json (kaggle.com, Settings, API)"
)
SECONDS = 15.0  # between two looks at the score
ADDRESS = "kaggle:competition/"


def main(arguments: list[str]) -> int:
    """Submit from the command line; returns the exit status."""
    parser = options_parser(__doc__)
    parser.add_argument("run", help="folder with a submission.csv: a run, an ensemble, or Kaggle's output")
    parser.add_argument(
        "--competition", default="", help="its name in the address kaggle.com/competitions/NAME"
    )
    parser.add_argument("--message", default="", help="what Kaggle shows beside the submission")
    parser.add_argument("--minutes", type=float, default=20.0, help="how long to wait for the score")
    options = parser.parse_args(arguments)
    return exit_status(lambda: submit(options))


def submit(options: argparse.Namespace) -> None:
    """Send the submission unless Kaggle has it, wait for the score, and store it in leaderboard.json.

    Raises:
        ConfigError: no competition is named, or the client is not installed.
        DataError: there is no submission.csv, or Kaggle refused it; the message holds Kaggle's words.
    """
    folder = find_path(options.run)
    digest = submission_hash(folder)
    name = options.competition or _competition_of(folder)
    tag = f"[{digest[:12]}]"  # by which the submission is known again, whatever else the message says
    if _find(name, tag) is None:
        if _scores(folder, digest, name):
            print("its score is kept already, and it is not among Kaggle's newest: nothing is sent")
            return
        is_own(folder)  # an error now, and not after one of the day's submissions is used up
        path, message = folder / "submission.csv", f"{options.message or folder.name} {tag}"
        print(_client("submit", name, "-f", str(path), "-m", message).strip())
        print(f"sent {path} to {name}, waiting for its score", flush=True)
    else:
        print(f"Kaggle has this submission.csv already ({tag}): nothing is sent")
    end = time.monotonic() + 60 * options.minutes
    while (row := _find(name, tag) or {"status": "pending"})["status"] != "complete":
        if row["status"] == "error":
            raise DataError(
                f"Kaggle could not score {folder / 'submission.csv'}: its page of {name} says why"
            )
        if time.monotonic() >= end:
            raise DataError(
                f"{name}: no score after {options.minutes:g} minutes; the same command looks again"
            )
        time.sleep(min(SECONDS, max(0.0, end - time.monotonic())))
    _store(folder, digest, name, row)


def _competition_of(folder: Path) -> str:
    """The competition that the run's data came from, where its address says it."""
    run = RunFolder(folder.absolute())
    data = run.config().data if run.record() is not None else ""
    if not data.startswith(ADDRESS):
        raise ConfigError("COMPETITION is missing: its name in the address kaggle.com/competitions/NAME")
    return data.removeprefix(ADDRESS).strip("/")


def _store(folder: Path, digest: str, name: str, row: dict[str, str]) -> None:
    public, private = (_number(row.get(name)) for name in ("publicScore", "privateScore"))
    if public is None:
        raise DataError("Kaggle shows no public score of this submission: nothing is stored")
    scores = _scores(folder, digest, name)
    if not scores or (scores[-1]["public"], scores[-1]["private"]) != (public, private):
        store_score(folder, public, private, competition=name)
    words = f"public {public:g}" + (f", private {private:g}" if private is not None else "")
    print(f"{words}, kept in {folder / 'leaderboard.json'}: make runs shows it beside validation")


def _scores(folder: Path, digest: str, name: str) -> list[dict[str, Any]]:
    """The kept scores of this submission in this competition, or in one that nobody named."""
    scores = [score for score in read_scores(folder) if score["sha256"] == digest]
    return [score for score in scores if score.get("competition", "") in ("", name)]


def _number(text: str | None) -> float | None:
    """A score; none where Kaggle shows nothing, or as clients before 2.0 print that, "None"."""
    return None if text in (None, "", "None") else float(text)


def _find(name: str, tag: str) -> dict[str, str] | None:
    """The newest submission whose message has the tag, with its status as one small word."""
    lines = _client("submissions", name, "--csv").splitlines()
    heads = [number for number, line in enumerate(lines) if line.startswith(("fileName,", "ref,"))]
    for row in csv.DictReader(lines[heads[0] :] if heads else []):  # a warning may stand before the table
        if tag in row["description"]:
            return row | {"status": row["status"].lower().rpartition(".")[2]}
    return None


def places() -> str:
    """The folders searched for the client: that of this Python, then PATH."""
    return os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])


def _client(*arguments: str) -> str:
    """What `kaggle competitions ...` prints; a DataError with its last words if it fails."""
    program = shutil.which("kaggle", path=places())
    if program is None:
        raise ConfigError(SETUP)
    call = [program, "competitions", *arguments]
    done = subprocess.run(call, capture_output=True, text=True, encoding="utf-8", errors="replace")
    if done.returncode:
        words = done.stderr.strip() or done.stdout.strip() or "without a message"
        raise DataError(f"Kaggle's client failed: {words}\n{SETUP}; and you must have joined the competition")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
