"""All runs below a folder, one row each: what was changed, how good it is, and which need a second look."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any

import pandas as pd

from fer_utils.analysis.leaderboard import LATER, NOT_VALIDATED, is_edited, standing
from fer_utils.competition import DataError
from fer_utils.config import EARLIER_RUNS, MAY_CHANGE
from fer_utils.files import find_path
from fer_utils.run.folder import RunFolder
from fer_utils.run.repeat_or_resume import changed_since

NUMBERS = ("seed", "value", "ci_low", "ci_high", "n", "accuracy", "mean", "sd", "seeds", "epochs", "seconds")
TEXTS = ("run", "kind", "state", "changed", "metric", "device", "data", "fingerprint", "note", "tried")
SCORES = ("public", "private", "public_n", "rows", "edited")
SKIPPED = {"figures", "studies", "cache", "tensorboard"}  # folders that hold no runs of their own
MANY = 1000  # entries of a data folder whose times are read


def runs(folder: str | Path = "outputs") -> pd.DataFrame:
    """All runs and ensembles in `folder` and below: those on the same data together, the best first. Of a
    finished run with `cv` the folds are left out.

    Returns:
        run, kind (run or ensemble), state (finished, unfinished, out of time, failed, damaged, or stale: its
        data, submission or members are newer) and note (why, and "transductive" where it learned from test
        images); changed (what differs from the defaults, but the seed; first what the fewest share); value
        (of `metric` on the validation split, with views), ci_low, ci_high, n and accuracy; mean, sd and seeds
        of finished runs that differ in the seed alone; epochs, seconds, device, data, fingerprint;
        public, private, public_n, rows, edited and tried (see `leaderboard.standing`).

    Raises:
        DataError: there is no such folder, or no run in it.
    """
    root, rows, times = find_path(folder), [], {}
    for path, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if name not in SKIPPED and not name.startswith("."))
        if {"config.json", "metrics.json"} & set(files):
            rows += _rows(Path(path), root, times)
    if not rows:
        raise DataError(f"{root} holds no run: train one, for instance with make submission")
    table = pd.DataFrame(rows).reindex(columns=[*TEXTS, *NUMBERS, *SCORES]).fillna(dict.fromkeys(TEXTS, ""))
    for name in (*NUMBERS, *SCORES):
        table[name] = pd.to_numeric(table[name])
    whole = table.run[(table.kind == "run") & table.state.isin(["finished", "stale"])]
    table = table[~table.run.str.extract(r"(.+)/fold\d+$")[0].isin(whole)].copy()
    own = [_for_any_seed(*pair) for pair in zip(table.changed, table.seed, strict=True)]
    alike = pd.Series(_in_words(own), table.index)
    table["changed"] = _in_words(table.changed)
    # A number may equal the seed by chance: it stands for it where rows of other seeds have theirs there.
    table["group"] = table.changed.mask(table.groupby(alike).seed.transform("nunique") > 1, alike)
    table["group"] = table.group.where((table.kind == "run") & (table.changed != ""), table.run)
    return _with_means(table)


def _for_any_seed(change: Any, seed: float) -> Any:
    """The same, but in the earlier runs that it goes on from {seed} for each number that is its seed."""
    if not isinstance(change, dict) or pd.isna(seed):
        return change
    number = rf"(?<!\d){seed:.0f}(?!\d)"
    return {
        name: re.sub(number, "{seed}", value) if name in EARLIER_RUNS else value
        for name, value in change.items()
    }


def _in_words(changes: Iterable[Any]) -> list[str]:
    """What was changed, first what the fewest runs share: a terminal cuts the end."""
    pairs = [
        [(name, str(value)) for name, value in change.items()] if isinstance(change, dict) else change
        for change in changes
    ]
    counts = Counter(pair for change in pairs if isinstance(change, list) for pair in change)
    return [
        change if isinstance(change, str) else ", ".join(map(" ".join, sorted(change, key=counts.get)))
        for change in pairs
    ]


def _with_means(table: pd.DataFrame) -> pd.DataFrame:
    """Sorted, with mean, sd and number of the seeds of each group on the same data."""
    keys = ["fingerprint", "metric", "group"]
    whole = table[table.state.isin(["finished", "stale"])].drop_duplicates([*keys, "seed"])
    over = whole.groupby(keys).value.agg(mean="mean", sd="std", seeds="count").reset_index()
    table = table.drop(columns=["mean", "sd", "seeds"]).merge(over, on=keys, how="left")
    sign = 1 - 2 * (table.metric == "log_loss")  # the lower, the better
    table["best"] = sign * table["mean"].fillna(table.value)
    up = [False, False, False, True, True, True]  # without a fingerprint last
    table = table.sort_values(["fingerprint", "metric", "best", "group", "seed", "run"], ascending=up)
    return table[[*TEXTS, *NUMBERS, *SCORES]].reset_index(drop=True)


def _rows(path: Path, root: Path, times: dict[Path, float]) -> list[dict[str, Any]]:
    """The row of one folder; none where it only has a config that a person wrote."""
    folder = RunFolder(path.absolute())
    row = {"run": path.relative_to(root).as_posix(), "kind": "run"}
    try:
        record = folder.record()
        if record is None and not folder.has_results:
            return []
        metrics = folder.metrics() if folder.has_results else {}
        row |= _of_run(folder, record, metrics, times) if record else _of_ensemble(folder, metrics)
        score = standing(path)
        learned = [record] if record else [one.record() or {} for one in _members(folder, metrics)]
        mark = "transductive" if any("transductive" in one for one in learned) else ""
        notes = (score.pop("note", ""), mark, row["note"])  # a terminal cuts the end
        return [row | score | {"note": "; ".join(filter(None, notes))}]
    except (ValueError, OSError) as error:
        note = str(error).partition("\n")[0].replace(f"{folder}{os.sep}", "")
    except (KeyError, TypeError, AttributeError):
        note = "config.json or metrics.json lacks what a run writes there"
    return [row | {"state": "damaged", "note": note}]


def _of_run(folder: RunFolder, record: dict, metrics: dict, times: dict[Path, float]) -> dict[str, Any]:
    config, training = folder.config(), metrics.get("training", {})
    device, n_devices = record.get("environment", {}).get("device", ""), training.get("n_devices", 1)
    changed = {name: value for name, value in config.changed().items() if name not in (*MAY_CHANGE, "seed")}
    row = {
        "changed": changed or "nothing",
        "seed": config.seed,
        "epochs": training.get("epochs"),
        "seconds": training.get("seconds"),
        "device": f"{device} x {n_devices}" if n_devices > 1 else device,
        "data": config.data.replace("\\", "/").rstrip("/").rpartition("/")[2],
        "fingerprint": str(record["fingerprint"]),
    }
    row |= _scores(metrics["valid"]["views"]) if metrics else {"metric": config.metric}
    if folder.failure:
        return row | {"state": "failed", "note": folder.failure.splitlines()[0]}
    if not metrics:
        return row | {"state": "unfinished", "note": "it is training, or the same command resumes it"}
    if folder.checkpoint.exists or training.get("out_of_time"):
        return row | {"state": "out of time", "note": "the same command resumes it"}
    if folder.lacks_networks:
        return row | {"state": "finished", "note": "its networks are not here"}
    if missing := folder.missing():
        return row | {"state": "damaged", "note": f"{', '.join(missing)} is missing"}
    read = (config.data, config.label_fixes, config.auxiliary)
    places = [place for place in read if place not in ("auto", "demo", "none")]
    row |= _freshness(folder, folder.path / "config.json", places, times)
    if changed := changed_since(record, config):
        row |= {
            "state": "stale",
            "note": "; ".join(filter(None, (row["note"], f"{changed} has changed since"))),
        }
    return row


def _of_ensemble(folder: RunFolder, metrics: dict[str, Any]) -> dict[str, Any]:
    """Of an average, with what its members say, where they are found."""
    if "training" in metrics:
        raise DataError(f"{folder.path / 'config.json'} is missing, or has no record of a run")
    names, members = [str(name) for name in metrics.get("members", ())], _members(folder, metrics)
    is_validated = metrics.get("validated", True)
    row = _scores(metrics["ensemble"]) if is_validated else {"metric": metric_of(folder.path)}
    if members and (record := members[0].record()):
        row["fingerprint"] = str(record["fingerprint"])
    row |= {"kind": "ensemble", "changed": f"average of {', '.join(folder.shown_members(names))}"}
    results = [str(member.path / "metrics.json") for member in members]
    row |= _freshness(folder, folder.path / "metrics.json", results, {})
    notes = ("" if is_validated else NOT_VALIDATED, row["note"], metrics.get("measured_on", ""))
    return row | {"note": "; ".join(filter(None, notes))}


def _members(folder: RunFolder, metrics: dict[str, Any]) -> list[RunFolder]:
    """The members of an average that are found."""
    readings = folder.member_folders([str(name) for name in metrics.get("members", ())])
    found = ([member for member in reading if member.has_results] for reading in readings)
    return next(filter(None, found), [])


def metric_of(path: Path) -> str:
    """The metric of the run or ensemble in a folder: of an ensemble that nothing validates that of its
    members; "" where none is known."""
    folder = RunFolder(path.absolute())
    if folder.record() is not None:
        return folder.config().metric
    metrics = folder.metrics() if folder.has_results else {}
    if "ensemble" in metrics:
        return _scores(metrics["ensemble"])["metric"]
    found = {member.config().metric for member in _members(folder, metrics) if member.record()}
    return "".join(found) if len(found) < 2 else "accuracy"  # as `ensemble.common_metric`


def _scores(scores: dict[str, Any]) -> dict[str, Any]:
    """The score by the run's own metric (see `competition_metric.metric_score`), or else its accuracy."""
    own = scores.get("metric") or {**scores, "name": "accuracy", "value": scores["accuracy"]}
    row = {name: float(own[name]) for name in ("value", "ci_low", "ci_high", "n")}
    return row | {"metric": own["name"], "accuracy": float(scores["accuracy"])}


def _freshness(folder: RunFolder, made: Path, places: list[str], times: dict[Path, float]) -> dict[str, str]:
    """Whether what it was `made` from is newer, or the submission is newer than the results, by the times of
    files; a place that is gone says nothing."""
    newer = []
    for place in places:
        try:
            path = find_path(place)
        except DataError:
            continue
        if path not in times:
            files = [path, *islice(path.iterdir(), MANY)] if path.is_dir() else [path]
            times[path] = max(file.lstat().st_mtime for file in files)
        newer += [path.name] if times[path] > made.stat().st_mtime + LATER else []
    if is_edited(folder.path):
        newer.append("submission.csv")
    note = f"{', '.join(newer)} changed since, by the time of the file" if newer else ""
    return {"state": "stale" if newer else "finished", "note": note}
