"""Folds for the validation split, without copies across them; two splits joined."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from fer_utils.arrays_on_disk import concatenate
from fer_utils.competition import POOLED, Split, picture_groups


def split_folds(split: Split, n_folds: int = 10, seed: int = 0) -> np.ndarray:
    """The fold of each image of a labelled split: int64 [N], 0..n_folds - 1.

    Exact copies share a fold, and so do the pictures of one person where `split.groups` names the persons.
    The distinct images are spread over the folds as evenly as possible, in total
    and in each class. (scikit-learn's grouped splitter is far too slow for so many groups, and the plain one
    refuses classes smaller than the number of folds.)
    """
    groups = picture_groups(split.images)
    if split.groups is not None:
        return _grouped_folds(split, groups, n_folds, seed)
    _, first = np.unique(groups, return_index=True)
    shuffled = np.random.default_rng(seed).permutation(len(first))
    # Class by class, each image goes to the next fold.
    order = shuffled[np.argsort(split.labels[first][shuffled], kind="stable")]
    folds = np.empty(len(first), np.int64)
    folds[order] = np.arange(len(first)) % n_folds
    return folds[groups]


def _grouped_folds(split: Split, copies: np.ndarray, n_folds: int, seed: int) -> np.ndarray:
    """Folds in which a person stands in one only, and so do exact copies; the largest persons are placed
    first, each where its classes are needed most."""
    known = split.groups != ""  # each unknown person is one of their own
    persons = pd.factorize(np.where(known, split.groups, [f"{row}\0" for row in range(len(split))]))[0]
    # A person is a node, a picture that stands there several times an edge between persons.
    n_persons, n_nodes = persons.max() + 1, persons.max() + copies.max() + 2
    nodes = coo_array((np.ones(len(copies)), (persons, n_persons + copies)), shape=(n_nodes, n_nodes))
    groups = pd.factorize(connected_components(nodes, directed=False)[1][persons])[0]
    counts = pd.crosstab(groups, split.labels).to_numpy()
    shuffled = np.random.default_rng(seed).permutation(len(counts))
    folds, totals = np.empty(len(counts), np.int64), np.zeros((n_folds, counts.shape[1]))
    for group in shuffled[np.argsort(-counts[shuffled].sum(1), kind="stable")]:
        # The fold in which these classes are rarest, then the smallest.
        folds[group] = min(range(n_folds), key=lambda f: ((totals[f] * counts[group]).sum(), totals[f].sum()))
        totals[folds[group]] += counts[group]
    return folds[groups]


def split_off(split: Split, n_folds: int, fold: int, seed: int) -> tuple[Split, Split, str]:
    """A labelled split as a training and a validation split, and a note that says how."""
    folds = split_folds(split, n_folds, seed)
    note = f"valid split: made here, fold {fold} of {n_folds} of the training pictures (seed {seed}), "
    note += f"stratified by class, exact copies{' and persons' * (split.groups is not None)} kept together"
    # A class that would have no training picture keeps its pictures there.
    alone = np.setdiff1d(split.labels, split.labels[folds != fold])
    train = (folds != fold) | np.isin(split.labels, alone)
    if len(alone):
        note += f"; {np.isin(split.labels, alone).sum()} pictures of rare classes are all for training"
    return split.take(train), split.take(~train), note


def joined(first: Split, second: Split) -> Split:
    """The images of two labelled splits. If they share ids (row numbers, for instance), those of `second` get
    a prefix."""
    if np.isin(second.ids, first.ids).any():
        second = replace(second, ids=np.char.add(POOLED, second.ids))
    pairs = zip(vars(first).values(), vars(second).values(), strict=True)
    return Split(*(None if a is None or b is None else concatenate([a, b]) for a, b in pairs))
