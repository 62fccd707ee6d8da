"""Pixel tables: fer2013.csv, or train.csv and test.csv, with the grey levels of an image in each row."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pandas as pd

from fer_utils.competition import DataError
from fer_utils.data.column_names import COLUMNS
from fer_utils.data.files.tree import Tree, stem
from fer_utils.data.layouts.pictures import Block, Pictures, reader, stacked
from fer_utils.data.tables import Table
from fer_utils.data.words import PREDICTED, canonical, column_splits, is_number, split_of

LAYOUT, ONE_TABLE, VOTES = "pixel tables", "fer2013.csv", "FER+ votes"
LOOKS_FOR = {
    VOTES: "fer2013.csv and beside it fer2013new.csv with votes for every row",
    ONE_TABLE: "a table with columns emotion, pixels and Usage",
    LAYOUT: "train.csv with labels and pixels (one column or many), and test.csv",
}


def propose(tree: Tree) -> list[Pictures]:
    """A table that holds all splits alone; the others of each folder together; each also with votes
    beside."""
    tables = {name: table for name, table in tree.tables.items() if table.pixels}
    whole = [table for table in tables.values() if split_of(stem(table.name)) is None and _has_splits(table)]
    rest: dict[str, list[Table]] = defaultdict(list)
    for name, table in tables.items():
        if table not in whole:
            rest[name.rpartition("/")[0]].append(table)
    labelled = [folder for folder in rest if any(len(t.frame.columns) and _is_train(t) for t in rest[folder])]
    if len(labelled) == 1:  # train.csv and test.csv in folders of their own
        rest = {labelled[0]: [table for folder in rest for table in rest[folder]]}
    for group in rest.values():  # public tests go before private or hidden ones
        group.sort(key=lambda table: ("public" not in table.name.lower(), table.name))
    proposals = []
    for table in whole:
        if votes := _vote_tables(tree, table):
            proposals.append(_pictures(tree, [table], VOTES, votes[0]))
        proposals.append(_pictures(tree, [table], ONE_TABLE))
    return proposals + [_pictures(tree, group, LAYOUT) for group in rest.values()]


def _is_train(table: Table) -> bool:
    return split_of(stem(table.name)) in ("train", None)


def _has_splits(table: Table) -> bool:
    """Whether a column says for each row which split it belongs to."""
    return any(
        "train" in column_splits(column, table.frame[column].unique()).values() for column in table.frame
    )


def _pictures(tree: Tree, tables: list[Table], layout: str, votes: Table | None = None) -> Pictures:
    frames = [_joined(tree, table) if votes is None else _with_votes(table, votes) for table in tables]
    places = [table.place(row) for table in tables for row in range(len(table.frame))]
    ids = [str(row) for table in tables for row in range(len(table.frame))]

    parts = [table.name for table in tables for _ in range(len(table.frame))]
    pictures = Pictures(layout, stacked(frames), parts, places, ids, reader(list(map(_block, tables))))
    if votes:
        pictures.notes.append(f"labels from the votes in {votes.name}, row by row")
    return pictures


def _joined(tree: Tree, table: Table) -> pd.DataFrame:
    """The columns of a table, and those of tables with the same keys: labels in a file of their own."""
    frame = table.frame
    for other in tree.tables.values():
        if other.pixels or other.encoded is not None or PREDICTED.search(stem(other.name).lower()):
            continue
        for column in frame.columns.intersection(other.frame.columns):
            keys, new = other.frame[column], [c for c in other.frame if c not in frame]
            if new and keys.is_unique and frame[column].is_unique and frame[column].isin(keys).mean() > 0.9:
                frame = frame.join(other.frame.set_index(column)[new], on=column).fillna("")
    return frame


def _block(table: Table) -> Block:
    def take(rows: slice | np.ndarray) -> tuple[np.ndarray, dict[int, str]]:
        numbers = range(len(table.images))[rows] if isinstance(rows, slice) else rows.tolist()
        return table.images[rows], {k: table.broken[r] for k, r in enumerate(numbers) if r in table.broken}

    return Block(len(table.images), take, table.is_colour)


def _vote_tables(tree: Tree, table: Table) -> list[Table]:
    """The tables without pixels that count votes for expressions: FER+ (Barsoum et al. 2016)."""
    others = [other for other in tree.tables.values() if not other.pixels and len(other.frame) > 1]
    return [other for other in others if len(_votes(other)) >= 3 and "usage" in other.columns]


def _votes(table: Table) -> list[str]:
    return [c for c in table.frame if canonical(c) and table.frame[c].map(is_number).all()]


def _with_votes(table: Table, votes: Table) -> pd.DataFrame:
    """The columns of both tables, row by row, without the label that the votes replace.

    Raises:
        DataError: the rows of the two tables do not match.
    """
    alone = f"(layout={ONE_TABLE!r} reads {table.name} alone)"
    if len(votes.frame) != len(table.frame):
        raise DataError(
            f"{votes.path.name} has votes for {len(votes.frame):,} pictures, but {table.path.name} holds "
            f"{len(table.frame):,}: they must be the same, row by row {alone}"
        )
    if "usage" in table.columns:
        differ = (votes.frame["usage"] != table.frame["usage"]).to_numpy()
        if differ.any():
            row = int(differ.argmax())
            raise DataError(
                f"{votes.place(row)}: {votes.frame['usage'][row]}, but {table.place(row)}: "
                f"{table.frame['usage'][row]}; the votes must be in the order of {table.name} {alone}"
            )
    both = votes.frame[[c for c in votes.frame if c not in table.columns]]
    labels = [c for c in table.frame if c in COLUMNS["label"]]
    return pd.concat([table.frame.drop(columns=labels), both], axis=1)
