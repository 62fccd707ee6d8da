"""Folds for the validation split, without copies across them; two splits joined."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from fer_utils.arrays_on_disk import concatenate
from fer_utils.competition import POOLED, Split, image_groups
from fer_utils.data.known_expressions_and_splits import HIDDEN, MAYBE_HIDDEN


def split_folds(split: Split, n_folds: int = 10, seed: int = 0) -> np.ndarray:
    """The fold of each image of a labelled split: int64 [N], 0..n_folds - 1.

    Exact copies, mirrored or not, share a fold, and so do the images of one of `split.groups` (persons). The
    distinct images are spread over the folds as evenly as possible, in total and in each class.
    (scikit-learn's grouped splitter is far too slow for so many groups, and the plain one refuses classes
    smaller than the number of folds.)
    """
    groups = kept_together(split)
    if split.groups is not None:
        return _grouped_folds(groups, split.labels, n_folds, seed)
    _, first = np.unique(groups, return_index=True)
    shuffled = np.random.default_rng(seed).permutation(len(first))
    # Class by class, each image goes to the next fold.
    order = shuffled[np.argsort(split.labels[first][shuffled], kind="stable")]
    folds = np.empty(len(first), np.int64)
    folds[order] = np.arange(len(first)) % n_folds
    return folds[groups]


def kept_together(split: Split) -> np.ndarray:
    """Number the groups of images that stay on one side, int64 [N]: exact copies, mirrored or not, and the
    images of one of `split.groups`: a person, or a photograph and its changed copies."""
    copies = image_groups(split.images, mirrored=True)
    if split.groups is None:
        return copies
    # Each unknown person is one of their own.
    alone = [f"{row}\0" for row in range(len(split))]
    persons = pd.factorize(np.where(_is_known(split.groups), split.groups, alone))[0]
    # A person is a node, an image that stands there several times an edge between persons.
    n_persons, n_nodes = persons.max() + 1, persons.max() + copies.max() + 2
    nodes = coo_array((np.ones(len(copies)), (persons, n_persons + copies)), shape=(n_nodes, n_nodes))
    return pd.factorize(connected_components(nodes, directed=False)[1][persons])[0]


def _is_known(persons: np.ndarray) -> np.ndarray:
    return ~np.isin(np.char.lower(persons), [*HIDDEN, *MAYBE_HIDDEN, "unknown"])


def shared_persons(train: Split, valid: Split) -> list[str]:
    """A note on persons of the training split of whom validation images are there too."""
    if train.groups is None or valid.groups is None:
        return []
    both = [set(split.groups[_is_known(split.groups)]) for split in (train, valid)]
    if not (shared := len(both[0] & both[1])):
        return []
    return [
        f"{shared:,} of the {len(both[1]):,} persons or photographs to validate on are trained on too, so "
        "that the accuracy says little about new faces: pool_valid=True divides by them"
    ]


def _grouped_folds(groups: np.ndarray, labels: np.ndarray, n_folds: int, seed: int) -> np.ndarray:
    """Folds in which a person stands in one only; the largest persons are placed first, each where its
    classes are needed most. Fold 0 is the one whose size is nearest to an equal share."""
    counts = pd.crosstab(groups, labels).to_numpy()
    shuffled = np.random.default_rng(seed).permutation(len(counts))
    folds, totals = np.empty(len(counts), np.int64), np.zeros((n_folds, counts.shape[1]))
    for group in shuffled[np.argsort(-counts[shuffled].sum(1), kind="stable")]:
        # The fold in which these classes are rarest, then the smallest.
        folds[group] = min(range(n_folds), key=lambda f: ((totals[f] * counts[group]).sum(), totals[f].sum()))
        totals[folds[group]] += counts[group]
    sizes = totals.sum(1)
    order = np.lexsort((np.abs(sizes - len(groups) / n_folds), sizes == 0))  # empty ones last
    return np.argsort(order)[folds][groups]


def split_off(split: Split, n_folds: int, fold: int, seed: int) -> tuple[Split, Split, str]:
    """A labelled split as a training and a validation split, and a note that says how."""
    folds = split_folds(split, n_folds, seed)
    note = f"valid split: made here, fold {fold} of {n_folds} of the training images (seed {seed}), "
    persons = " and images of one person or photograph" * (split.groups is not None)
    note += f"stratified by class, exact copies{persons} kept together"
    # A class that would have no training image keeps its images there.
    alone = np.setdiff1d(split.labels, split.labels[folds != fold])
    train = folds != fold
    if len(alone):
        groups = kept_together(split)
        rare = np.isin(groups, groups[np.isin(split.labels, alone)])
        n = np.isin(split.labels, alone).sum()
        more = f", and {rare.sum() - n} of the same persons or photographs," * bool(rare.sum() > n)
        note += f"; {n} images of rare classes{more} are all for training"
        train |= rare
    if 2 * len(split) < n_folds * (~train).sum():
        note += f"; {(~train).sum():,} of {len(split):,} validate, as some persons have very many images"
    return split.take(train), split.take(~train), note


def joined(first: Split, second: Split) -> Split:
    """The images of two labelled splits. If they share ids (row numbers, for instance), those of `second` get
    a prefix."""
    if np.isin(second.ids, first.ids).any():
        second = replace(second, ids=np.char.add(POOLED, second.ids))
    pairs = zip(vars(first).values(), vars(second).values(), strict=True)
    return Split(*(None if a is None or b is None else concatenate([a, b]) for a, b in pairs))
