"""Folds for the validation split, without copies across them; two splits joined."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fer_utils.competition import POOLED, Split, picture_groups


def split_folds(split: Split, n_folds: int = 10, seed: int = 0) -> np.ndarray:
    """The fold of each image of a labelled split: int64 [N], 0..n_folds - 1.

    Exact copies share a fold. The distinct images are spread over the folds as evenly as possible, in total
    and in each class. (scikit-learn's grouped splitter is far too slow for so many groups, and the plain one
    refuses classes smaller than the number of folds.)
    """
    groups = picture_groups(split.images)
    _, first = np.unique(groups, return_index=True)
    shuffled = np.random.default_rng(seed).permutation(len(first))
    # Class by class, each image goes to the next fold.
    order = shuffled[np.argsort(split.labels[first][shuffled], kind="stable")]
    folds = np.empty(len(first), np.int64)
    folds[order] = np.arange(len(first)) % n_folds
    return folds[groups]


def split_off(split: Split, n_folds: int, fold: int, seed: int) -> tuple[Split, Split, str]:
    """A labelled split as a training and a validation split, and a note that says how."""
    folds = split_folds(split, n_folds, seed)
    note = f"valid split: made here, fold {fold} of {n_folds} of the training pictures (seed {seed}), "
    note += "stratified by class, exact copies kept together"
    return split.take(folds != fold), split.take(folds == fold), note


def joined(first: Split, second: Split) -> Split:
    """The images of two labelled splits. If they share ids (row numbers, for instance), those of `second` get
    a prefix."""
    if np.isin(second.ids, first.ids).any():
        second = replace(second, ids=np.char.add(POOLED, second.ids))
    pairs = zip(vars(first).values(), vars(second).values(), strict=True)
    return Split(*(None if a is None or b is None else np.concatenate([a, b]) for a, b in pairs))
