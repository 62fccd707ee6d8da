"""What the images of a competition are: classes, light, blanks, exact copies, conflicting labels, images
unlike a face, differences between splits.

Test images are compared with the others; test labels are never read.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from itertools import combinations
from statistics import NormalDist
from typing import Any

import numpy as np
import pandas as pd

from fer_utils.analysis.near_copies import PAIRS, all_images, standardised
from fer_utils.competition import Competition, image_groups
from fer_utils.data.decode_images import BLANK_CONTRAST, light

SPLITS = ("train", "valid", "test")
FACE_COMPONENTS = 50  # principal components that describe a face


def image_table(competition: Competition) -> pd.DataFrame:
    """List every image of every split, in their order.

    Returns:
        A row per image: `split`; `row` within the split; `id`; `label`, the class name, missing in test;
        `group`, a number that exact copies share; `brightness` and `contrast`, the mean and the standard
        deviation of its grey levels (0 to 255); `blank`, whether it shows nothing; with colours `redness`,
        the mean of red minus green, and `blueness`, of blue minus the mean of these two.
    """
    parts = []
    for name, split in competition.splits.items():
        codes = np.full(len(split), -1) if name == "test" else split.labels
        label = pd.Categorical.from_codes(codes, categories=competition.class_names)
        columns = {"split": name, "row": np.arange(len(split)), "id": split.ids, "label": label}
        parts.append(pd.DataFrame(columns))
    table = pd.concat(parts, ignore_index=True)
    images = all_images(competition)
    table["split"] = pd.Categorical(table["split"], categories=SPLITS)
    table["group"] = image_groups(images)
    table["brightness"], table["contrast"] = light(images)
    table["blank"] = table.contrast < BLANK_CONTRAST
    if competition.channels == 3:
        red, green, blue = images.mean((2, 3), dtype=np.float32).T
        table["redness"], table["blueness"] = red - green, blue - (red + green) / 2
    return table


def images_of(competition: Competition, rows: pd.DataFrame) -> np.ndarray:
    """The images uint8 [N, C, H, W] of some rows of the table."""
    places = zip(rows["split"], rows["row"], strict=True)
    chosen = [competition.splits[split].images[row] for split, row in places]
    return np.stack(chosen) if chosen else competition.train.images[:0]


def duplicate_groups(table: pd.DataFrame) -> pd.DataFrame:
    """List the images that occur more than once, the most frequent first.

    Returns:
        A row per image, indexed by `group`: `n`, how often it occurs; `train`, `valid`, `test`, how often
        in each; `first`, the row of the table that holds it first; `votes`, {class name: how often it was
        given}; `blank`, whether it shows nothing.
    """
    copies = table[table.duplicated("group", keep=False)]
    groups = copies.groupby("group")
    frame = groups.split.value_counts().unstack(fill_value=0).reindex(columns=SPLITS, fill_value=0)
    frame.insert(0, "n", groups.size())
    frame["first"] = copies.drop_duplicates("group").reset_index().set_index("group")["index"]
    votes = {group: dict(Counter(labels.dropna()).most_common()) for group, labels in groups.label}
    frame["votes"] = pd.Series(votes, dtype=object)
    frame["blank"] = groups.blank.any()
    return frame.rename_axis(columns=None).sort_values("n", ascending=False, kind="stable")


def conflicting(duplicates: pd.DataFrame) -> pd.DataFrame:
    """Of `duplicate_groups`, the images that carry different labels."""
    return duplicates[duplicates.votes.map(len) > 1]


def audit(
    competition: Competition,
    table: pd.DataFrame,
    near: dict[str, int] | None = None,
    drift: pd.DataFrame | None = None,
) -> dict[str, Any]:
    """Count what the competition holds, ready for JSON, with its `image_table`, and if they are given what
    `near_copies.near_report` and `split_drift` found."""
    duplicates, by_split = duplicate_groups(table), table.groupby("split", observed=True)
    counts = table.groupby(["split", "label"], observed=False).size()
    repeats = table.duplicated(["split", "group"]).groupby(table.split, observed=True).sum()
    groups = {name: table.group[table.split == name] for name in SPLITS}
    light_of = {
        name: pd.DataFrame({"mean": part.mean(), "std": part.std(ddof=0)}).to_dict("index")
        for name, part in by_split[["brightness", "contrast"]]
    }
    return {
        "source": competition.source,
        "layout": competition.layout,
        "is_demo": competition.is_demo,
        "fingerprint": competition.fingerprint,
        "class_names": list(competition.class_names),
        "image_size": list(competition.train.images.shape[2:]),
        "n": {name: len(split) for name, split in competition.splits.items()},
        "n_unique": int(table.group.nunique()),
        "counts": {name: counts[name].to_dict() for name in ("train", "valid")},
        "exact_copies": {f"{a}_in_{b}": int(groups[a].isin(groups[b]).sum()) for a, b in PAIRS},
        "copies_within": repeats.to_dict(),
        "duplicate_groups": len(duplicates),
        "labelled_repeatedly": int((duplicates.votes.map(lambda votes: sum(votes.values())) > 1).sum()),
        "conflicting_groups": len(conflicting(duplicates)),
        "blank": by_split.blank.sum().to_dict(),
        "light": light_of,
        "light_by_class": _light_by_class(table[table.split == "train"]),
        "rejected": [dataclasses.asdict(item) for item in competition.rejected],
        "near_copies": near,
        "drift": None if drift is None else drift.to_dict("index"),
    }


def _light_by_class(train: pd.DataFrame) -> list[dict[str, Any]]:
    """How well the light or the colour of an image alone separates each class from all others.

    Returns:
        A row per class and value of light: `label`, `value`, `n`, `mean` and `others`, the lowest and the
        highest mean of the other classes; `auc` (0.5 is chance) with `low` and `high`, which hold for all
        rows together in 95 % of cases (Bonferroni). A class with fewer than 10 images has no row.
    """
    counts = train.label.value_counts(sort=False)
    labels = [name for name, n in counts.items() if min(n, len(train) - n) >= 10]
    values = [name for name in ("brightness", "contrast", "redness", "blueness") if name in train]
    reach = NormalDist().inv_cdf(1 - 0.025 / max(1, len(values) * len(labels)))
    rows = []
    for value in values:
        ranks, means = train[value].rank(), train.groupby("label", observed=True)[value].mean()
        for name in labels:
            n, others, rest = int(counts[name]), len(train) - int(counts[name]), means.drop(name)
            auc = float(ranks[train.label == name].sum() - n * (n + 1) / 2) / (n * others)
            low, high = auc_interval(auc, n, others, reach)
            row = {"label": name, "value": value, "n": n, "mean": float(means[name])}
            row |= {"others": [float(rest.min()), float(rest.max())], "auc": auc, "low": low, "high": high}
            rows.append(row)
    return rows


def auc_interval(auc: float, n: int, m: int, reach: float = 1.96) -> tuple[float, float]:
    """The interval of an area under the curve of n and m cases, `reach` standard errors to both sides (Hanley
    and McNeil 1982)."""
    q1, q2 = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    variance = auc * (1 - auc) + (m - 1) * (q1 - auc**2) + (n - 1) * (q2 - auc**2)
    error = reach * math.sqrt(max(variance, 0) / (n * m))
    return max(0.0, auc - error), min(1.0, auc + error)


def face_distance(images: np.ndarray) -> np.ndarray:
    """The part of each image of uint8 [N, C, H, W] that the principal components of all images do not
    explain: float32 [N], 0 to 1.

    The distance from face space (Turk and Pentland 1991) in 24 x 24 pixels. Text and drawings have the
    largest distances, followed by unusual crops.
    """
    vectors, components = _principal_components(images)
    kept = components[:, : min(FACE_COMPONENTS, max(1, len(images) // 40))]  # too few for the unusual ones
    return np.linalg.norm(vectors - vectors @ kept @ kept.T, axis=1)


def _principal_components(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Centred thumbnails of 24 x 24 pixels, float32 [N, 576], and their principal components as columns."""
    vectors = standardised(images, 24)
    vectors = vectors - vectors.mean(0)
    return vectors, np.linalg.eigh(vectors.T @ vectors)[1][:, ::-1]


def split_drift(competition: Competition, table: pd.DataFrame) -> pd.DataFrame:
    """How well a classifier separates the images of two splits: 0.5 is chance, 1 means always.

    A two-sample test by classifier (Lopez-Paz and Oquab 2017). Its features are the brightness, the contrast
    and the leading components of thumbnails, one for ten images of the smaller split at most; it is
    evaluated by five-fold cross-validation.

    Returns:
        A row per pair of splits with at least 10 images, `n` of both, `auc`, `low` and `high` (95 % for all
        pairs together: Bonferroni).
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    vectors, components = _principal_components(all_images(competition))
    light = table[["brightness", "contrast"]].to_numpy()
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000, class_weight="balanced"))
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    rows = []
    pairs = list(combinations(competition.splits, 2))
    reach = NormalDist().inv_cdf(1 - 0.025 / max(1, len(pairs)))
    for here, there in pairs:
        chosen = table.split.isin([here, there]).to_numpy()
        is_there = (table.split[chosen] == there).to_numpy()
        n, m = np.bincount(is_there, minlength=2).tolist()
        if min(n, m) >= 10:
            kept = components[:, : min(FACE_COMPONENTS, max(1, min(n, m) // 10))]
            some = np.column_stack([vectors[chosen] @ kept, light[chosen]])
            scores = cross_val_predict(model, some, is_there, cv=folds, method="decision_function")
            auc = float(roc_auc_score(is_there, scores))
            rows.append((f"{here}, {there}", f"{n:,} and {m:,}", auc, *auc_interval(auc, n, m, reach)))
    return pd.DataFrame(rows, columns=["splits", "n", "auc", "low", "high"]).set_index("splits")
