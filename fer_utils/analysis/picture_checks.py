"""Near copies counted, pictures unlike a face, and differences between splits. Test labels are not read."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from fer_utils.analysis.audit import PAIRS, all_images, auc_interval
from fer_utils.analysis.near_copies import standardised
from fer_utils.competition import Competition

FACE_COMPONENTS = 50


def near_report(table: pd.DataFrame, near: pd.DataFrame) -> dict[str, Any]:
    """Count near copies, ready for JSON: pairs; pictures of a split that have one, but no exact copy, in
    another; and pairs with two labels."""
    first, second = (table.loc[near[name]] for name in ("first", "second"))
    codes, other_codes = (rows.label.cat.codes.to_numpy() for rows in (first, second))
    labelled = (codes >= 0) & (other_codes >= 0)
    report: dict[str, Any] = {
        "pairs": int((~near.mirrored).sum()),
        "mirrored_pairs": int(near.mirrored.sum()),
        "labelled_pairs": int(labelled.sum()),
        "conflicting_pairs": int((labelled & (codes != other_codes)).sum()),
    }
    one, other = pd.concat([first.group, second.group]), pd.concat([second.group, first.group])
    for here, there in PAIRS:
        mine, exact = (table.group[table.split == name] for name in (here, there))
        has_near = mine.isin(one[other.isin(exact).to_numpy()])
        report[f"{here}_in_{there}"] = int((has_near & ~mine.isin(exact)).sum())
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
    and the leading components of thumbnails; it is evaluated by five-fold cross-validation.

    Returns:
        A row per pair of splits with at least 10 pictures, `n` of both, `auc`, `low` and `high` (95 %).
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    vectors, components = _principal_components(all_images(competition))
    features = np.column_stack([vectors @ components[:, :FACE_COMPONENTS], table[["brightness", "contrast"]]])
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000, class_weight="balanced"))
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    rows = []
    for here, there in combinations(competition.splits, 2):
        chosen = table.split.isin([here, there]).to_numpy()
        is_there = (table.split[chosen] == there).to_numpy()
        n, m = np.bincount(is_there, minlength=2).tolist()
        if min(n, m) >= 10:
            some = features[chosen]
            scores = cross_val_predict(model, some, is_there, cv=folds, method="decision_function")
            auc = float(roc_auc_score(is_there, scores))
            rows.append((f"{here}, {there}", f"{n:,}, {m:,}", auc, *auc_interval(auc, n, m)))
    return pd.DataFrame(rows, columns=["splits", "n", "auc", "low", "high"]).set_index("splits")
