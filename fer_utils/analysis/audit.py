"""What a competition's pictures hold and hide: classes, light, blanks, exact copies, conflicting labels.

It counts and chooses nothing. Test pictures are compared with the others; test labels are never read.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pandas as pd

from fer_utils.competition import Competition, picture_groups
from fer_utils.data.images import BLANK_CONTRAST, light

SPLITS = ("train", "valid", "test")


def picture_table(competition: Competition) -> pd.DataFrame:
    """List every picture of every split, in their order.

    Returns:
        A row per picture: `split`; `row` within the split; `id`; `label`, the class name, missing in test;
        `group`, a number that exact copies share; `brightness` and `contrast`, the mean and the standard
        deviation of its grey levels (0 to 255); `blank`, whether it shows nothing.
    """
    splits = competition.splits
    sizes = [len(split) for split in splits.values()]
    images = np.concatenate([split.images for split in splits.values()])
    labels = [np.full(len(s), -1) if name == "test" else s.labels for name, s in splits.items()]
    brightness, contrast = light(images)
    return pd.DataFrame(
        {
            "split": pd.Categorical(np.repeat(list(splits), sizes), categories=SPLITS),
            "row": np.concatenate([np.arange(size) for size in sizes]),
            "id": np.concatenate([split.ids for split in splits.values()]),
            "label": pd.Categorical.from_codes(np.concatenate(labels), categories=competition.class_names),
            "group": picture_groups(images),
            "brightness": brightness,
            "contrast": contrast,
            "blank": contrast < BLANK_CONTRAST,
        }
    )


def pictures(competition: Competition, rows: pd.DataFrame) -> np.ndarray:
    """The pictures uint8 [n, 1, H, W] of some rows of the table."""
    places = zip(rows["split"], rows["row"], strict=True)
    chosen = [competition.splits[split].images[row] for split, row in places]
    return np.stack(chosen) if chosen else competition.train.images[:0]


def class_counts(table: pd.DataFrame) -> pd.DataFrame:
    """How many pictures each class (row) has in each labelled split (column)."""
    counts = table.groupby(["label", "split"], observed=False).size().unstack()
    return counts[["train", "valid"]].rename_axis(columns=None)


def exact_copies(table: pd.DataFrame) -> dict[str, int]:
    """Count pictures of a split that another also has: `valid_in_train`, `test_in_train`, `test_in_valid`."""
    groups = {name: table.group[table.split == name] for name in SPLITS}
    pairs = [("valid", "train"), ("test", "train"), ("test", "valid")]
    return {f"{here}_in_{there}": int(groups[here].isin(groups[there]).sum()) for here, there in pairs}


def copies_within(table: pd.DataFrame) -> dict[str, int]:
    """How many pictures of each split repeat an earlier one of the same split."""
    repeats = table.duplicated(["split", "group"])
    return {name: int(repeats[table.split == name].sum()) for name in _present(table)}


def duplicate_groups(table: pd.DataFrame) -> pd.DataFrame:
    """List the pictures that occur more than once, the most frequent first.

    Returns:
        A row per picture, indexed by `group`: `n`, how often it occurs; `train`, `valid`, `test`, how often
        in each; `first`, the row of the table that holds it first; `votes`, {class name: how often it was
        given}; `blank`, whether it shows nothing.
    """
    copies = table[table.duplicated("group", keep=False)]
    groups = copies.groupby("group")
    frame = groups.split.value_counts().unstack(fill_value=0).reindex(columns=SPLITS, fill_value=0)
    frame.insert(0, "n", groups.size())
    frame["first"] = copies.drop_duplicates("group").reset_index().set_index("group")["index"]
    given = copies.dropna(subset="label").groupby(["group", "label"], observed=True).size()
    votes: dict[int, dict[str, int]] = {group: {} for group in frame.index}
    for (group, label), count in given.items():
        votes[group][label] = int(count)
    frame["votes"] = pd.Series(votes, dtype=object)
    frame["blank"] = groups.blank.any()
    return frame.rename_axis(columns=None).sort_values("n", ascending=False, kind="stable")


def conflicting(duplicates: pd.DataFrame) -> pd.DataFrame:
    """Of `duplicate_groups`, the pictures that carry different labels."""
    return duplicates[duplicates.votes.map(len) > 1]


def audit(
    competition: Competition,
    table: pd.DataFrame | None = None,
    near: dict[str, int] | None = None,
    drift: pd.DataFrame | None = None,
) -> dict[str, Any]:
    """Count what the competition holds, ready for JSON.

    Args:
        table: `picture_table(competition)`, where it is at hand.
        near: `resemblance.near_report`, where it is wanted.
        drift: `resemblance.split_drift`, where it is wanted.
    """
    table = picture_table(competition) if table is None else table
    duplicates = duplicate_groups(table)
    counts = class_counts(table)
    present = _present(table)
    return {
        "source": competition.source,
        "layout": competition.layout,
        "is_demo": competition.is_demo,
        "fingerprint": competition.fingerprint,
        "class_names": list(competition.class_names),
        "image_size": list(competition.train.images.shape[2:]),
        "n": {name: len(split) for name, split in competition.splits.items()},
        "n_unique": int(table.group.nunique()),
        "counts": {name: {str(k): int(n) for k, n in counts[name].items()} for name in counts},
        "exact_copies": exact_copies(table),
        "copies_within": copies_within(table),
        "duplicate_groups": len(duplicates),
        "labelled_repeatedly": int((duplicates.votes.map(lambda votes: sum(votes.values())) > 1).sum()),
        "conflicting_groups": len(conflicting(duplicates)),
        "blank": {name: int(table.blank[table.split == name].sum()) for name in present},
        "light": {name: _light_of(table[table.split == name]) for name in present},
        "light_by_class": {value: _explained(table, value) for value in ("brightness", "contrast")},
        "rejected": [dataclasses.asdict(item) for item in competition.rejected],
        "near_copies": near,
        "drift": None if drift is None else drift.to_dict("index"),
    }


def _present(table: pd.DataFrame) -> list[str]:
    return [name for name in SPLITS if (table.split == name).any()]


def _light_of(part: pd.DataFrame) -> dict[str, dict[str, float]]:
    values = part[["brightness", "contrast"]]
    return {
        name: {"mean": float(column.mean()), "std": float(column.std(ddof=0))}
        for name, column in values.items()
    }


def _explained(table: pd.DataFrame, value: str) -> float:
    """The share of the variance of a value among training pictures that lies between the classes."""
    part = table[table.split == "train"]
    means = part.groupby("label", observed=True)[value].transform("mean")
    total = part[value].var(ddof=0)
    return float(means.var(ddof=0) / total) if total > 0 else 0.0
