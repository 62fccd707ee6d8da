"""Near copies counted, pictures unlike a face, and differences between splits. Test labels are not read."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from fer_utils.analysis.audit import auc_error
from fer_utils.analysis.near_copies import standardised
from fer_utils.competition import Competition

FACE_COMPONENTS = 50


def near_report(table: pd.DataFrame, near: pd.DataFrame) -> dict[str, Any]:
    """Count near copies, ready for JSON: pairs; pictures of a split that have one, but no exact copy, in
    another; and pairs with two labels."""
    codes, groups = table.label.cat.codes.to_numpy(), table.group.to_numpy()
    first, second = (near[name].to_numpy() for name in ("first", "second"))
    labelled = (codes[first] >= 0) & (codes[second] >= 0)
    report: dict[str, Any] = {
        "pairs": int((~near.mirrored).sum()),
        "mirrored_pairs": int(near.mirrored.sum()),
        "labelled_pairs": int(labelled.sum()),
        "conflicting_pairs": int((labelled & (codes[first] != codes[second])).sum()),
    }
    one, other = groups[np.concatenate([first, second])], groups[np.concatenate([second, first])]
    for here, there in (("valid", "train"), ("test", "train"), ("test", "valid")):
        exact = table.group[table.split == there]
        mine = table.group[table.split == here]
        report[f"{here}_in_{there}"] = int((mine.isin(one[np.isin(other, exact)]) & ~mine.isin(exact)).sum())
    return report


def face_distance(images: np.ndarray) -> np.ndarray:
    """The part of each picture that the principal components of all pictures do not explain: 0 to 1.

    The distance from face space (Turk and Pentland 1991) in 24 x 24 pixels. Text and drawings have the
    largest distances, followed by unusual crops.

    Args:
        images: uint8 [N, C, H, W].

    Returns:
        float32 [N].
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
    """How well a classifier separates the pictures of two splits: 0.5 is chance, 1 means always.

    A two-sample test by classifier (Lopez-Paz and Oquab 2017). Its features are the brightness, the contrast
    and the leading components of thumbnails; it is evaluated by five-fold cross-validation. The interval is
    Hanley and McNeil's (1982).

    Returns:
        A row per pair of splits, with `n` of both, `auc`, `low` and `high` (95 %).
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    images = np.concatenate([split.images for split in competition.splits.values()])
    vectors, components = _principal_components(images)
    leading = vectors @ components[:, :FACE_COMPONENTS]
    features = np.column_stack([leading, table[["brightness", "contrast"]]])
    rows = []
    for here, there in combinations(competition.splits, 2):
        chosen = table.split.isin([here, there]).to_numpy()
        is_there = (table.split[chosen] == there).to_numpy()
        n, m = int((~is_there).sum()), int(is_there.sum())
        if min(n, m) < 10:
            continue
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000, class_weight="balanced"))
        folds = StratifiedKFold(5, shuffle=True, random_state=0)
        scores = cross_val_predict(model, features[chosen], is_there, cv=folds, method="decision_function")
        auc = float(roc_auc_score(is_there, scores))
        reach = 1.96 * auc_error(auc, n, m)
        rows.append((f"{here}, {there}", f"{n:,}, {m:,}", auc, max(0.0, auc - reach), min(1.0, auc + reach)))
    return pd.DataFrame(rows, columns=["splits", "n", "auc", "low", "high"]).set_index("splits")
