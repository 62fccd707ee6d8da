"""fer2013.csv, or icml_face_data.csv: one table of pixels whose Usage column names the split of each row."""

from __future__ import annotations

from fer_utils.data.files.tree import Tree
from fer_utils.data.layouts.pixel_tables import find_tables, read_tables, whole_table
from fer_utils.data.layouts.raw_data import RawData


def recognise(tree: Tree) -> bool:
    """Whether there is such a table, and no sample submission with a test table beside it."""
    return whole_table(tree) is not None and not (tree.sample and "test" in find_tables(tree))


def read(tree: Tree, size: int) -> RawData:
    """Read the table."""
    return read_tables(tree, {"train": [whole_table(tree)]}, size)
