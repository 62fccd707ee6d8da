"""FER+ (Barsoum et al. 2016): fer2013.csv, and beside it a table of votes for the same rows."""

from __future__ import annotations

from fer_utils.competition import DataError
from fer_utils.data.cells import read_column
from fer_utils.data.files.tree import Tree
from fer_utils.data.layouts.pixel_tables import read_tables, whole_table
from fer_utils.data.layouts.raw_data import RawData


def recognise(tree: Tree) -> bool:
    """Whether a table of votes lies beside one of pixels."""
    return _vote_table(tree) is not None


def read(tree: Tree, size: int) -> RawData:
    """Read the images with the votes for their labels.

    Raises:
        DataError: the rows of the two tables do not match.
    """
    name, whole = _vote_table(tree), whole_table(tree)
    votes, table = tree.tables[name], tree.tables[whole]
    usages = read_column(votes, "usage"), read_column(table, "usage")
    pairs = list(zip(*usages, strict=False))
    wrong = next((row for row, (one, other) in enumerate(pairs) if one != other), None)
    if wrong is not None and len(usages[0]) == len(usages[1]):  # read_tables reports different lengths
        raise DataError(
            f"{votes.place(wrong)}: {usages[0][wrong]}, but {table.place(wrong)}: {usages[1][wrong]}; "
            f"the votes must be in the order of {whole} (layout='fer2013.csv' reads it alone)"
        )
    raw = read_tables(tree, {"train": [whole]}, size, votes)
    raw.notes.append(f"labels from the votes in {name}, row by row")
    return raw


def _vote_table(tree: Tree) -> str | None:
    if whole_table(tree) is None:
        return None
    tables = ((name, table) for name, table in tree.tables.items() if table.votes and not table.pixels)
    return next((name for name, table in tables if table.column("usage") is not None), None)
