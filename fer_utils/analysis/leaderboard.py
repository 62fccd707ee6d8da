"""What the leaderboard said of a run's submission, kept beside it, and what that says of validation."""

from __future__ import annotations

import hashlib
import json
import math
from datetime import datetime
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import pandas as pd

from fer_utils.competition import DataError
from fer_utils.config import ConfigError
from fer_utils.data.tables import open_table, read_as_written
from fer_utils.files import find_path, write_json
from fer_utils.learning.metrics import wilson_interval
from fer_utils.run.folder import RunFolder

LATER = 60.0  # seconds by which a file is newer: those of a copied folder differ by less
EDITED = "submission.csv is not what this run wrote"
NOT_VALIDATED = "not validated: its runs have different validation images"


def store_score(
    out: str | Path,
    public: float,
    private: float | None = None,
    public_n: int | None = None,
    competition: str = "",
) -> Path:
    """Add a leaderboard score (an accuracy is a share, 0.7132) to leaderboard.json in the folder `out`, with
    the SHA-256 of its submission.csv, and whether that is what the run wrote (a warning is printed where it
    is not); earlier scores stay.

    Args:
        public_n: the images behind the public score.
        competition: its name on Kaggle.

    Raises:
        ConfigError: a score is no number, or public_n is not positive.
        DataError: there is no such folder or submission, the submission is no table with a row for each test
            image, or leaderboard.json is damaged.
    """
    for name, score in (("PUBLIC", public), ("PRIVATE", private)):
        if score is not None and not math.isfinite(score):
            raise ConfigError(f"{name} must be a finite number, got {score}: type it like 0.7132")
    if public_n is not None and public_n < 1:
        raise ConfigError(f"N must be at least 1, got {public_n}: the images behind the public score")
    folder = find_path(out)
    score = {"sha256": submission_hash(folder), "date": datetime.now().isoformat(timespec="seconds")}
    score |= {"public": public, "private": private, "public_n": public_n, "own": is_own(folder)}
    score |= {"competition": competition} if competition else {}
    path = write_json(folder / "leaderboard.json", [*read_scores(folder), score])
    if not score["own"]:
        print(f"WARNING: {EDITED}: its score is kept, but not compared with validation", flush=True)
    return path


def is_edited(folder: Path) -> bool:
    """Whether submission.csv is newer than the results of the run, and no score knows these very bytes as the
    run's own."""
    path = folder / "submission.csv"
    written = (folder / "metrics.json").stat().st_mtime
    if not path.is_file() or path.stat().st_mtime <= written + LATER:
        return False
    known = {score["sha256"] for score in read_scores(folder) if score.get("own", True)}
    return submission_hash(folder) not in known


def is_own(folder: Path) -> bool:
    """Whether submission.csv holds the answers in test.npz: one class of those for each of its labels. Where
    the ids are written in another way, or it holds probabilities, the times of the files say it."""
    run = RunFolder(folder.absolute())
    table = open_table(run.submission)
    cells = read_as_written(table).set_axis(range(len(table.columns)), axis=1)
    if not run.has_results:
        return True  # of something else than this project
    by_time = not is_edited(folder)
    if not run.has_predictions("test"):
        return by_time
    ids, probs = (run.predictions("test", name) for name in ("ids", "probs_views"))
    untouched = run.submission.stat().st_mtime <= (folder / "metrics.json").stat().st_mtime
    # A sample may want fewer images than there are; the first of nothing but words looks like a header.
    if len(cells) != len(ids) and not untouched and (len(cells.columns), len(cells)) != (1, len(ids) - 1):
        rows = f"{len(cells):,} rows, but the run has {len(ids):,} test images"
        raise DataError(f"{run.submission} has {rows}: put back the file that was scored")
    places = {str(name): row for row, name in enumerate(ids)}
    named = [c for c in cells if cells[c].is_unique and set(cells[c]) <= set(places)]
    if not named or len(cells.columns) > probs.shape[1]:
        return by_time
    answers = probs.argmax(1)[cells[named[0]].map(places)]
    pairs = [set(zip(cells[c], answers, strict=True)) for c in cells if c != named[0]]
    n = len(set(answers))
    return any(len(pair) == n == len({cell for cell, _ in pair}) for pair in pairs)


def submission_hash(folder: Path) -> str:
    """The SHA-256 of the folder's submission.csv; a DataError where it has none."""
    path = folder / "submission.csv"
    if not path.is_file():
        raise DataError(f"{folder} has no submission.csv that could have a score: name the run that has it")
    return hashlib.sha256(path.read_bytes()).hexdigest()


def read_scores(folder: Path) -> list[dict[str, Any]]:
    """The stored scores of a run's folder, the oldest first; a DataError if the file is damaged."""
    path = folder / "leaderboard.json"
    if not path.is_file():
        return []
    try:
        scores = json.loads(path.read_text(encoding="utf-8-sig"))
        [(score["sha256"], float(score["public"]), score["private"], score["public_n"]) for score in scores]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is damaged ({error}): correct it, or remove it and store again") from error
    return scores


def standing(folder: Path) -> dict[str, Any]:
    """Of a run's folder: `tried` (the SHA-256 of each submission that has a score); `public`, `private`,
    `public_n`, `rows` and `edited` (it is not what the run wrote) of the submission that lies there now, or a
    `note` where the score is of another one. A damaged leaderboard.json is a DataError."""
    if not (scores := read_scores(folder)):
        return {"tried": ""}
    path = folder / "submission.csv"
    content = path.read_bytes() if path.is_file() else b""
    row = {
        "tried": " ".join(dict.fromkeys(score["sha256"] for score in scores)),
        "rows": content.count(b"\n") - 1,
    }
    digest = hashlib.sha256(content).hexdigest()
    for score in scores:  # a later one, perhaps with the private score, overrides what it names
        if score["sha256"] == digest:
            row |= {
                name: score[name] for name in ("public", "private", "public_n") if score[name] is not None
            }
            row |= {} if score.get("own", True) else {"edited": True}
    if "public" not in row:
        return row | {"note": f"its score {scores[-1]['public']:g} is of another submission.csv"}
    return row | {"note": EDITED if "edited" in row else ""}


def leaderboard_in_words(table: pd.DataFrame) -> list[str]:
    """Validation against leaderboard, how far they correlate, and a warning of choosing by the leaderboard,
    for each data of the table of `all_runs.runs`; empty where no run has a score."""
    lines = []
    for data, rows in table[table.public.notna()].groupby("fingerprint", sort=False):
        reasons = rows.apply(_why_not_compared, axis=1)
        compared = rows[reasons == ""]
        lines += map(_against_validation, compared.itertuples())
        for reason, others in rows.run.drop(compared.index).groupby(reasons, sort=False):
            lines.append(f"{', '.join(others)}: not compared, since {reason}.")
        if len(compared):
            # A copied folder is no further try, and no further run.
            tries = len(set(" ".join(table.tried[table.fingerprint == data]).split()))
            compared = compared.drop_duplicates(["value", "public", "tried"])
            lines += [_correlation(compared), _choosing(compared, tries)]
    return lines


def _why_not_compared(row: pd.Series) -> str:
    if row.edited == 1:
        return EDITED
    if pd.isna(row.value):
        return f"it is {NOT_VALIDATED}" if row.kind == "ensemble" else "it has no validation score"
    is_accuracy = row.metric == "accuracy" and 0 <= row.public <= 1
    return "" if is_accuracy else "only accuracies (from 0 to 1) have an interval"


def _against_validation(row: Any) -> str:
    """The difference with its 95 % interval (Newcombe 1998, hybrid score), and whether chance explains it."""
    n, gap = _pictures(row), row.public - row.value
    low, high = wilson_interval(round(row.public * n), n)
    least = gap - math.hypot(row.public - low, row.ci_high - row.value)
    most = gap + math.hypot(high - row.public, row.value - row.ci_low)
    verdict = "inside what validation predicts"
    if not least <= 0 <= most:
        verdict = f"{'above' if gap > 0 else 'below'} what validation predicts"
        verdict += f" (if all {n:,} rows count: N=... says how many do)" if math.isnan(row.public_n) else ""
    valid = f"{100 * row.value:.1f} % ({100 * row.ci_low:.1f} to {100 * row.ci_high:.1f}, n = {row.n:,.0f})"
    points = f"{100 * gap:+.1f} points ({100 * least:+.1f} to {100 * most:+.1f})"
    return f"{row.run}: public {100 * row.public:.1f} %, valid {valid}; difference {points}: {verdict}."


def _pictures(row: Any) -> int:
    """Images behind the public score; where nobody said it, all that there can be."""
    return max(1, int(row.rows if math.isnan(row.public_n) else row.public_n))


def _correlation(rows: pd.DataFrame) -> str:
    """Pearson's correlation of valid and public over runs, with its 95 % interval (Fisher's z)."""
    n = len(rows)
    if n < 4 or rows.value.nunique() < 2 or rows.public.nunique() < 2:
        return f"How far valid and public correlate is not known yet: {n} scored, at least 4 are needed."
    r = float(np.corrcoef(rows.value, rows.public)[0, 1])
    z, half = math.atanh(max(-0.999999, min(0.999999, r))), 1.96 / math.sqrt(n - 3)
    interval = f"95 % interval {math.tanh(z - half):.2f} to {math.tanh(z + half):.2f}"
    return f"Valid and public correlate with r = {r:.2f} ({interval}, n = {n} runs)."


def _choosing(rows: pd.DataFrame, tries: int) -> str:
    """Why not to choose by the leaderboard: how high the best of `tries` equal ones is by chance, as expected
    (maximum of normals, Blom 1958); at least, where there may be fewer images, whose scores vary more."""
    best = rows.loc[rows.public.idxmax()]
    n, (most, by) = _pictures(best), ("at most ", "at least") if math.isnan(best.public_n) else ("", "about")
    sd = math.sqrt(best.public * (1 - best.public) / n)
    points = 100 * sd * NormalDist().inv_cdf((tries - 0.375) / (tries + 0.25))
    return (
        f"Choose by the validation split: public rests on {most}{n:,} images, and the best of {tries} "
        f"tries is too high by {by} {points:.1f} points, by chance alone."
    )
