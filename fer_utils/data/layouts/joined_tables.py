"""Labels in a table of their own, beside a table of images: by keys, or row by row."""

from __future__ import annotations

import re

import pandas as pd

from fer_utils.competition import DataError
from fer_utils.data.files.file_index import Tree, stem, table_split
from fer_utils.data.known_column_names import COLUMNS, ROW_NUMBERS
from fer_utils.data.known_expressions_and_splits import PREDICTED, are_counted, as_int, canonical, split_of
from fer_utils.data.tables import Table

LEAST_LABELS = 64  # more rows than a list of classes has
# In the names of tables, or of their only columns: y_train.csv, labels.txt.
_OF_LABELS = re.compile(r"(^|[\W_\d])(y|labels?|emotions?|expressions?|targets?|class(es)?)([\W_\d]|$)")


def joined(tree: Tree, table: Table, notes: list[str]) -> pd.DataFrame:
    """The columns of a table of images, and those of tables with the same keys; where it has no labels, also
    those of a table that holds nothing but a label for each of its rows.

    Raises:
        DataError: such a table has more or fewer rows.
    """
    frame, others, own = table.frame, [], table_split(table.name)
    for other in tree.tables.values():
        if other.holds_images or PREDICTED.search(stem(other.name).lower()):
            continue
        splits = {own, table_split(other.name)} - {None}
        if len(splits) > 1:
            continue
        others.append(other)
        for column in frame.columns.intersection(other.frame.columns):
            keys, new = other.frame[column], [c for c in other.frame if c not in frame]
            if (
                splits == {"test"}
                and not table_split(other.name)
                and _are_keys_of_training(tree, column, keys)
            ):
                continue  # both count from 0, and the labels are those for training
            if new and keys.is_unique and frame[column].is_unique and frame[column].isin(keys).mean() > 0.9:
                frame = frame.join(other.frame.set_index(column)[new], on=column).fillna("")
    if not all(frame[column].is_unique for column in frame):  # it has more than keys, perhaps labels
        return frame
    by_other_name = [found for other in others if (found := _by_other_name(frame, other, notes)) is not None]
    if by_other_name:
        return by_other_name[0] if len(by_other_name) == 1 else frame
    # Beside a test without labels, a table whose name says no split may hold anything.
    alone = [other for other in others if _labels_alone(other)]
    labels = [other for other in alone if table_split(other.name) == own] or (alone if own == "train" else [])
    return _by_row(frame, table, labels[0], notes) if len(labels) == 1 else frame


def _are_keys_of_training(tree: Tree, column: str, keys: pd.Series) -> bool:
    """Whether a table of images for training has exactly these keys."""
    trained = [t for t in tree.tables.values() if t.holds_images and split_of(stem(t.name)) == "train"]
    return any(column in t.frame and set(t.frame[column]) == set(keys) for t in trained)


def _by_other_name(frame: pd.DataFrame, other: Table, notes: list[str]) -> pd.DataFrame | None:
    """Both tables, where one column of each holds the same keys under two names; None if they are not joined.
    Keys that only count rows must be in the same order too."""
    if {*COLUMNS["label"]}.isdisjoint(other.frame.columns):
        return None
    pairs = [
        (mine, its)
        for mine in frame
        for its in other.frame
        if frame[mine].is_unique and other.frame[its].is_unique and set(frame[mine]) == set(other.frame[its])
    ]
    if len(pairs) != 1 or len(frame) < 2:
        return None
    (mine, its), keys = pairs[0], other.frame[pairs[0][1]]
    if are_counted([*map(as_int, keys)]) and keys.tolist() != frame[mine].tolist():
        return None
    notes.append(f"labels of {other.name}: its column {its!r} holds the same as {mine!r}")
    new = [c for c in other.frame if c != its and c not in frame]
    return frame.join(other.frame.set_index(its)[new], on=mine)


def _labels_alone(table: Table) -> list[str]:
    """The columns of a table that holds, but for the rows' numbers, only a label in each row, or a column for
    each class; none if it is another table."""
    frame = table.frame
    numbers = list(map(str, range(len(frame))))
    columns = [c for c in frame if c not in ROW_NUMBERS or frame[c].tolist() != numbers]
    names = [stem(table.name).lower(), *columns]
    are_classes = len(columns) > 2 and all(map(canonical, columns))
    return columns if are_classes or (len(columns) == 1 and any(map(_OF_LABELS.search, names))) else []


def _by_row(frame: pd.DataFrame, table: Table, other: Table, notes: list[str]) -> pd.DataFrame:
    if len(other.frame) != len(frame):
        if len(other.frame) < LEAST_LABELS:
            return frame  # a list of the classes
        raise DataError(
            f"{other.name} has {len(other.frame):,} labels, and {table.name} {len(frame):,} images: they "
            "must be as many, row by row, or both need a column with the same keys"
        )
    notes.append(f"labels of {table.name} from {other.name}, row by row")
    columns = _labels_alone(other)
    return frame.join(other.frame[columns].set_axis(["label"] if len(columns) == 1 else columns, axis=1))
