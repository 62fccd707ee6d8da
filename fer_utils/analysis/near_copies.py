"""Pictures that resemble each other without being the same, that hardly resemble a face, and splits that
differ: what exact comparison does not see.

Nothing here learns from labels, and no test label is read.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from fer_utils.competition import Competition, copies_of
from fer_utils.data.images import resize
from fer_utils.progress import bar

# Correlation of two pictures at their best shift. On FER2013, of 100 pairs above it that were looked at, 99
# were the same photograph (other crop, light, compression or watermark); of the 34 mirrored ones above
# theirs, 33.
NEAR, NEAR_MIRRORED = 0.92, 0.94
# Of thumbnails: what is worth comparing at every shift.
_CANDIDATE, _THUMBNAIL = 0.90, 16
_BLOCK, _MOST_PER_PICTURE = 1024, 5
# Every picture is compared with every other: twice the pictures take four times as long.
MOST_COMPARED = 60_000
FACE_COMPONENTS = 50


def near_copies(competition: Competition, table: pd.DataFrame) -> pd.DataFrame:
    """Pairs of pictures that are nearly the same, or nearly mirror images; exact copies count as one picture.

    Thumbnails tell the candidates, so a picture shifted by more than about a pixel in thirty may escape.
    Beyond `MOST_COMPARED` different pictures, only the first so many are compared.

    Args:
        table: `audit.picture_table(competition)`.

    Returns:
        A row per pair, the most alike first: `first` and `second`, rows of the table; `similarity`, the
        correlation at the best shift of up to a sixteenth of the size; `mirrored`.
    """
    different = table[~table.blank].drop_duplicates("group").index.to_numpy()[:MOST_COMPARED]
    images = np.concatenate([split.images for split in competition.splits.values()])[different]
    frames = []
    for mirrored in (False, True):
        first, second, similarity = _near(
            images[..., ::-1] if mirrored else images, images, mirrored, within=True
        )
        pairs = {"first": different[first], "second": different[second], "similarity": similarity}
        frames.append(pd.DataFrame(pairs | {"mirrored": mirrored}))
    pairs = pd.concat(frames, ignore_index=True)
    return pairs.sort_values("similarity", ascending=False, kind="stable", ignore_index=True)


def near_copies_of(images: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Which of uint8 [N, 1, H, W] also stand, exactly, nearly or mirrored, among `others` [M, 1, H, W].
    Returns bool [N]."""
    found = copies_of(images, others)  # also blank ones, which correlate with nothing
    for mirrored in (False, True):
        first, _, _ = _near(images[..., ::-1] if mirrored else images, others, mirrored, within=False)
        found[first] = True
    return found


def _near(
    images: np.ndarray, others: np.ndarray, mirrored: bool, within: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows of both that are near copies, and how much alike; `within` one set each pair once."""
    pairs = []
    queries, targets = _standardised(images, _THUMBNAIL), _standardised(others, _THUMBNAIL)
    for start in bar(range(0, len(queries), _BLOCK), "near copies"):
        offset = start if within else 0  # what lies before was compared already
        alike = queries[start : start + _BLOCK] @ targets[offset:].T
        if within:
            alike[np.tri(len(alike), alike.shape[1], dtype=bool)] = 0
        first, second = np.nonzero(alike > _CANDIDATE)
        order = np.lexsort((-alike[first, second], first))
        first, second = first[order], second[order]
        rank = np.arange(len(first)) - np.searchsorted(first, first)
        few = rank < _MOST_PER_PICTURE  # pictures all alike, as frames of a video are, stay few pairs
        pairs.append((first[few] + start, second[few] + offset))
    first, second = (np.concatenate(column) for column in zip(*pairs, strict=True)) if pairs else ([], [])
    first, second = np.asarray(first, np.int64), np.asarray(second, np.int64)
    similarity = _best_correlation(images[first], others[second])
    near = similarity >= (NEAR_MIRRORED if mirrored else NEAR)
    return first[near], second[near], similarity[near]


def _standardised(images: np.ndarray, size: int) -> np.ndarray:
    """Thumbnails as vectors of length 1 whose mean is 0, float32 [N, size * size]: their products are
    correlations, which no change of brightness or contrast alters."""
    height = images.shape[-1]
    if height < size:
        return unit_vectors(resize(np.ascontiguousarray(images), size).astype(np.float32))
    edges = np.arange(size) * height // size
    areas = np.diff(np.append(edges, height)).astype(np.float32)
    sums = np.add.reduceat(np.add.reduceat(images[:, 0], edges, 1, np.float32), edges, 2)
    return unit_vectors(sums / (areas[:, None] * areas))


def unit_vectors(pictures: np.ndarray) -> np.ndarray:
    """Pictures [N, ...] as vectors of length 1 whose mean is 0, [N, P]: their products are correlations."""
    vectors = pictures.reshape(len(pictures), -1)
    vectors = vectors - vectors.mean(1, keepdims=True)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True).clip(min=1e-6)


def _best_correlation(images: np.ndarray, others: np.ndarray) -> np.ndarray:
    """The correlation of pairs of uint8 [N, 1, H, W] at their best shift, float32 [N]."""
    reach = max(1, images.shape[-1] // 16)
    best = np.full(len(images), -1, np.float32)
    inner = [slice(reach + shift, images.shape[-1] - reach + shift) for shift in range(-reach, reach + 1)]
    for start in range(0, len(images), _BLOCK):
        some = slice(start, start + _BLOCK)
        middle = unit_vectors(images[some, 0, inner[reach], inner[reach]].astype(np.float32))
        for rows in inner:
            for columns in inner:
                other = unit_vectors(others[some, 0, rows, columns].astype(np.float32))
                best[some] = np.maximum(best[some], np.einsum("ij,ij->i", middle, other))
    return best


def near_report(table: pd.DataFrame, near: pd.DataFrame) -> dict[str, Any]:
    """Count near copies, ready for JSON: pairs; pictures of a split that have one, but no exact copy, in
    another; and pairs with two labels."""
    first, second = (table.loc[near[name]].reset_index(drop=True) for name in ("first", "second"))
    labelled = first.label.notna() & second.label.notna()
    splits = {name: set(table.group[table.split == name]) for name in ("train", "valid", "test")}
    neighbours = pd.concat([
        pd.DataFrame({"group": first.group, "near": second.group}),
        pd.DataFrame({"group": second.group, "near": first.group}),
    ])  # fmt: skip
    report: dict[str, Any] = {
        "pairs": int((~near.mirrored).sum()),
        "mirrored_pairs": int(near.mirrored.sum()),
        "labelled_pairs": int(labelled.sum()),
        "conflicting_pairs": int((labelled & (first.label.astype(str) != second.label.astype(str))).sum()),
    }
    for here, there in (("valid", "train"), ("test", "train"), ("test", "valid")):
        groups = set(neighbours.group[neighbours.near.isin(splits[there])]) - splits[there]
        rows = table.split == here
        report[f"{here}_in_{there}"] = int(table.group[rows].isin(groups).sum())
    return report


def face_distance(images: np.ndarray) -> np.ndarray:
    """How much of each picture cannot be put together from what all have in common: 0 nothing, 1 all of it.

    The distance from face space (Turk and Pentland 1991) in 24 x 24 pixels, whatever the light. Text and
    drawings lead the list, unusual crops follow; a look decides.

    Args:
        images: uint8 [N, 1, H, W].

    Returns:
        float32 [N].
    """
    centred, components = _patterns(images)
    kept = min(FACE_COMPONENTS, max(1, len(images) // 40))  # fewer than there are odd ones
    common = components[:, -kept:]
    return np.linalg.norm(centred - centred @ common @ common.T, axis=1)


def _patterns(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Thumbnails of 24 x 24 pixels less their mean, float32 [N, 576], and their principal components as
    columns, the commonest last."""
    vectors = _standardised(images, 24)
    centred = vectors - vectors.mean(0)
    return centred, np.linalg.eigh(centred.T @ centred)[1]


def split_drift(competition: Competition, table: pd.DataFrame) -> pd.DataFrame:
    """How well a classifier tells the pictures of two splits apart: 0.5 not at all, 1 always.

    A two-sample test by classifier (Lopez-Paz and Oquab 2017): it sees the brightness, the contrast and the
    leading components of thumbnails, and is judged by five-fold cross-validation; the interval is Hanley and
    McNeil's (1982).

    Returns:
        A row per pair of splits, with `n` of both, `auc`, `low` and `high` (95 %).
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    images = np.concatenate([split.images for split in competition.splits.values()])
    centred, components = _patterns(images)
    features = np.column_stack(
        [centred @ components[:, -FACE_COMPONENTS:], table[["brightness", "contrast"]]]
    )
    names, rows = list(competition.splits), []
    for here, there in [(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]:
        chosen = table.split.isin([here, there]).to_numpy()
        is_there = (table.split[chosen] == there).to_numpy()
        n, m = int((~is_there).sum()), int(is_there.sum())
        if min(n, m) < 10:
            continue
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000, class_weight="balanced"))
        folds = StratifiedKFold(5, shuffle=True, random_state=0)
        scores = cross_val_predict(model, features[chosen], is_there, cv=folds, method="decision_function")
        auc = float(roc_auc_score(is_there, scores))
        reach = 1.96 * _auc_error(auc, n, m)
        low, high = max(0.0, auc - reach), min(1.0, auc + reach)
        rows.append(
            {"splits": f"{here}, {there}", "n": f"{n:,}, {m:,}", "auc": auc, "low": low, "high": high}
        )
    return pd.DataFrame(rows, columns=["splits", "n", "auc", "low", "high"]).set_index("splits")


def _auc_error(auc: float, n: int, m: int) -> float:
    """The standard error of an area under the curve of n and m cases (Hanley and McNeil 1982)."""
    q1, q2 = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    variance = auc * (1 - auc) + (m - 1) * (q1 - auc**2) + (n - 1) * (q2 - auc**2)
    return float(np.sqrt(max(variance, 0) / (n * m)))
