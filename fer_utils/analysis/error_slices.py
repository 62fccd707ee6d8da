"""When a run fails: slices of the validation images by properties of the image, tested together."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch

from fer_utils.analysis.near_copies import unit_vectors
from fer_utils.data.decode_images import light, with_channels
from fer_utils.learning.augment import view
from fer_utils.learning.metrics import holm

ATTRIBUTES = ("brightness", "contrast", "sharpness", "face size", "asymmetry")
# Smaller slices are left out: at 15 hits of 30 the 95 % interval is 34 points wide (Wilson).
FEWEST = 30
COPY = "copy or near copy in training"


def attribute_table(images: np.ndarray, reference: np.ndarray) -> pd.DataFrame:
    """Properties of each image of uint8 [N, C, H, W] that need no labels.

    `brightness` and `contrast`: mean and standard deviation of the grey levels. `sharpness`: the standard
    deviation of the Laplacian over that of the image (Pech-Pacheco et al. 2000, without the contrast).
    `face size`: the zoom of the mean face of `reference` [M, C, H, W] that correlates best. `asymmetry`: 1
    minus the correlation with the mirrored image at the best shift; a turned head or light from one side
    raises it.

    Returns:
        A row per image, columns `ATTRIBUTES`.
    """
    brightness, contrast = light(images)
    grey = with_channels(images, 1)[:, 0].astype(np.float32)
    middle = grey[:, 1:-1, 1:-1]
    laplacian = 4 * middle - grey[:, :-2, 1:-1] - grey[:, 2:, 1:-1] - grey[:, 1:-1, :-2] - grey[:, 1:-1, 2:]
    sharpness = laplacian.std((1, 2)) / middle.std((1, 2)).clip(min=1)
    size, asymmetry = _face_size(grey, with_channels(reference, 1)), 1 - _mirror_correlation(grey)
    values = (brightness, contrast, sharpness, size, asymmetry)
    return pd.DataFrame(dict(zip(ATTRIBUTES, values, strict=True)))


def _face_size(grey: np.ndarray, reference: np.ndarray) -> np.ndarray:
    zooms = np.linspace(0.75, 1.35, 13)
    mean = torch.tensor(reference.mean(0, keepdims=True, dtype=np.float64), dtype=torch.float32)
    faces = [view(mean, False, 0.0, 0.0, float(zoom))[0, 0].numpy() for zoom in zooms]
    return zooms[(unit_vectors(grey) @ unit_vectors(np.stack(faces)).T).argmax(1)]


def _mirror_correlation(grey: np.ndarray) -> np.ndarray:
    reach = max(1, grey.shape[-1] // 12)
    best = np.full(len(grey), -1.0, np.float32)
    for shift in range(-reach, reach + 1):  # a face that is not centred is not asymmetric
        part = grey[:, :, max(0, shift) : grey.shape[-1] + min(0, shift)]
        best = np.maximum(best, np.einsum("ij,ij->i", unit_vectors(part), unit_vectors(part[:, :, ::-1])))
    return best


def slice_masks(attributes: pd.DataFrame, has_copy: np.ndarray) -> dict[tuple[str, str], np.ndarray]:
    """The slices to test, (what, which) -> bool [N]: fifths of each attribute, unequal or fewer where many
    images share a value (a face has one of 13 sizes), and images with (`has_copy`) and without a copy in
    the training split."""
    masks = {}
    for name in attributes:
        fifths = pd.qcut(attributes[name], 5, duplicates="drop")
        for k, interval in enumerate(fifths.cat.categories):
            place = {0: "lowest", len(fifths.cat.categories) - 1: "highest"}.get(k, "from")
            which = f"{place} {max(interval.left, attributes[name].min()):.3g} to {interval.right:.3g}"
            masks[name, which] = (fifths == interval).to_numpy()
    masks |= {(COPY, "yes"): has_copy, (COPY, "no"): ~has_copy}
    return {key: mask for key, mask in masks.items() if mask.sum() >= FEWEST}


def score_slices(
    masks: dict[tuple[str, str], np.ndarray], correct: np.ndarray, labels: np.ndarray
) -> pd.DataFrame:
    """Compare the accuracy of each of `slice_masks`, from the `correct` predictions bool [N] of labels
    int64 [N], with the accuracy expected from its mix of classes.

    The expected accuracy of an image is the recall of its class, and the gap is tested class by class (the
    test of Cochran 1954 and of Mantel and Haenszel 1959, normal approximation). Holm's correction (1979) is
    for the number of slices.

    Returns:
        A row per slice, the worst gap first: `n`, `accuracy` and `expected`, `gap` with its 95 % interval
        `low` and `high` (all as shares), `p` and `p_corrected`.
    """
    from scipy.stats import norm

    classes = pd.get_dummies(labels).to_numpy(np.int64)  # [N, C], those that occur
    sizes, hits = classes.sum(0), classes[correct].sum(0)
    recall = hits / sizes
    rows = []
    for (what, which), mask in masks.items():
        counts = classes[mask].sum(0)
        n, accuracy, expected = int(mask.sum()), correct[mask].mean(), (counts * recall).sum() / mask.sum()
        # The number of hits of a class in a slice is hypergeometric: drawn without replacement.
        variance = counts * recall * (1 - recall) * (sizes - counts) / (sizes - 1).clip(min=1)
        spread, gap = np.sqrt(variance.sum()) / n, accuracy - expected
        p = float(2 * norm.sf(abs(gap) / spread)) if spread > 0 else 1.0
        rows.append((what, which, n, accuracy, expected, gap, gap - 1.96 * spread, gap + 1.96 * spread, p))
    columns = ["what", "which", "n", "accuracy", "expected", "gap", "low", "high", "p"]
    table = pd.DataFrame(rows, columns=columns)
    return table.assign(p_corrected=holm(table.p.to_numpy())).sort_values("gap", ignore_index=True)


def describe_slices(table: pd.DataFrame, n: int) -> str:
    """Where a run is worse than its classes explain, from `score_slices` of `n` images, in words."""
    if table.empty:
        return f"Not measurable here: no slice has {FEWEST} images."
    sure = table[table.p_corrected < 0.05]
    worse, better = sure[sure.gap < 0], sure[sure.gap > 0]
    noun = "combinations" if (table.what == "combination").all() else "slices"
    text = f"**{len(table)} {noun} tested, {len(worse)} measurably worse and {len(better)} measurably better"
    text += " than their classes.**"
    for row in worse[worse.what != COPY].itertuples():
        text += f" {row.what.capitalize()} {row.which}: {-100 * row.gap:.1f} points worse; without that gap "
        text += f"the run would gain at most about {-100 * row.gap * row.n / n:.1f} points."
    for row in better[(better.what == COPY) & (better.which == "yes")].itertuples():
        text += f" On the {row.n:,} images with a copy or near copy in training it is "
        text += f"{100 * row.gap:.1f} points above what their classes explain: it has seen the photograph."
    return text


def found_slices(
    attributes: pd.DataFrame, correct: np.ndarray, labels: np.ndarray, seed: int = 0
) -> pd.DataFrame:
    """Combinations of attributes with more errors than their classes explain: a small tree finds them on one
    half of the images, and they are tested on the other half, as by `score_slices`.

    (The idea of automated data slicing, Chung et al. 2019; the honest halves of Athey and Imbens 2016.)
    """
    from sklearn.tree import DecisionTreeRegressor

    half = np.random.default_rng(seed).permutation(len(correct)) < len(correct) // 2
    hits, fewest = pd.Series(correct[half], dtype=float), max(FEWEST, half.sum() // 20)
    surprise = hits - hits.groupby(labels[half]).transform("mean")
    values = attributes.to_numpy(np.float32)
    tree = DecisionTreeRegressor(max_depth=2, min_samples_leaf=fewest, random_state=seed)
    leaves = tree.fit(values[half], surprise).apply(values)
    masks = {}
    for leaf in np.unique(leaves):
        mask, example = (leaves == leaf)[~half], values[leaves == leaf][0]
        conditions = []
        for node in tree.decision_path(example[None]).indices[:-1]:
            feature, threshold = tree.tree_.feature[node], tree.tree_.threshold[node]
            sign = "<=" if example[feature] <= threshold else ">"
            conditions.append(f"{attributes.columns[feature]} {sign} {threshold:.2f}")
        if conditions and mask.sum() >= FEWEST:
            masks["combination", " and ".join(conditions)] = mask
    return score_slices(masks, correct[~half], labels[~half])
