"""The validation split, where the data has none or it is pooled: folds without copies across them."""

from __future__ import annotations

import numpy as np

from fer_utils.competition import POOLED, Split, picture_groups


def split_folds(split: Split, n_folds: int = 10, seed: int = 0) -> np.ndarray:
    """Deal the pictures of a labelled split into folds: int64 [N], 0..n_folds - 1.

    Exact copies share a fold. Over the distinct pictures the folds are as equal as can be, in size and in
    every class, however small a class is. (scikit-learn's grouped splitter is far too slow for as many
    groups, and the plain one refuses classes smaller than the number of folds.)
    """
    groups = picture_groups(split.images)
    _, first = np.unique(groups, return_index=True)
    shuffled = np.random.default_rng(seed).permutation(len(first))
    # Dealt out class by class like cards, each picture goes to the next fold.
    order = shuffled[np.argsort(split.labels[first][shuffled], kind="stable")]
    folds = np.empty(len(first), np.int64)
    folds[order] = np.arange(len(first)) % n_folds
    return folds[groups]


def _split_off(split: Split, n_folds: int, fold: int, seed: int) -> tuple[Split, Split, str]:
    """Part a labelled split into training and validation pictures, and say how."""
    folds = split_folds(split, n_folds, seed)
    note = (
        f"valid split: made here, fold {fold} of {n_folds} of the training pictures (seed {seed}), "
        "stratified by class, exact copies kept together"
    )
    return split.take(folds != fold), split.take(folds == fold), note


def _joined(first: Split, second: Split) -> Split:
    """The pictures of two labelled splits. Ids that both give (row numbers, for instance) are told apart."""
    ids, more = first.ids, second.ids
    if np.isin(more, ids).any():
        more = np.char.add(POOLED, more)
    votes = None
    if first.votes is not None and second.votes is not None:
        votes = np.concatenate([first.votes, second.votes])
    images, labels = (
        np.concatenate(pair)
        for pair in zip((first.images, first.labels), (second.images, second.labels), strict=True)
    )
    return Split(images, labels, np.concatenate([ids, more]), votes)
