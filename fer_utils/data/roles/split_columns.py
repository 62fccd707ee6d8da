"""Columns that divide the data: one with a word for each split, or one of yes and no for a split."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fer_utils.competition import DataError
from fer_utils.data.known_column_names import COLUMNS
from fer_utils.data.known_expressions_and_splits import (
    are_flags,
    column_splits,
    flag_split,
    is_yes,
    may_be_quality,
    split_of,
)
from fer_utils.data.layouts.found_pictures import Pictures
from fer_utils.data.roles.votes_and_hidden_labels import is_hidden


def doubtful_flags(pictures: Pictures) -> list[str]:
    """The columns of yes and no that may divide the data, or tell which faces are good."""
    columns = filter(may_be_quality, pictures.table_columns())
    cells = {column: set(pictures.rows[column].unique()) - {None} for column in columns}
    return [column for column, values in cells.items() if len(values) == 2 and are_flags(values)]


def is_proven(pictures: Pictures, flag: str) -> bool:
    """Whether a doubtful flag divides the data: a column of labels is empty exactly where it says yes, or
    another flag names another split, and no image is in both."""
    rows = [row for row, cell in enumerate(pictures.cells(flag)) if cell]
    labels = [pictures.cells(c) for c in pictures.table_columns() if c in COLUMNS["label"]]
    says = [bool(cell) and is_yes(cell) for cell in pictures.cells(flag)]
    if any(all(is_hidden(cells[row]) == says[row] for row in rows) for cells in labels):
        return True
    others = [c for c in pictures.table_columns() if flag_split(c) not in (None, flag_split(flag))]
    return flag_split(flag) is not None and any(
        are_flags(set(pictures.rows[c].unique()) - {None})
        and not any(one and cell and is_yes(cell) for one, cell in zip(says, pictures.cells(c), strict=True))
        for c in others
    )


def by_columns(
    pictures: Pictures, columns: Sequence[str], sure: set[str], reasons: dict[int, str]
) -> list[str | None]:
    """The split of each image by the cells of `columns`; why it has none, into `reasons` by row. What one
    column names for validation and another for training is for validation, and what one names for the test
    for nothing else. No in a flag counts where no other column says yes.

    Raises:
        DataError: one column says training and another the test, or the words of one are not known.
    """
    named: list[dict[str, str]] = [{} for _ in range(len(pictures))]  # of an image, the column of each split
    values = {name: set(pictures.rows[name].unique()) - {None} for name in columns}
    flags = [name for name in columns if are_flags(values[name])]
    for name in columns:
        says_no = name in flags and any(value and not is_yes(value) for value in values[name])
        for row, cell, split in _cells(pictures, name, name in sure):
            if cell == "" and says_no:  # neither yes nor no
                reasons[row] = f"its {name} is empty"
            elif split and not (name in flags and not is_yes(cell)):
                named[row].setdefault(split, name)
            elif cell and not split:
                reasons[row] = f"its {name} {cell!r} names no split (splits='train={cell}' would use it)"
            elif cell == "" and name in COLUMNS["split"]:
                reasons[row] = f"its {name} is empty and names no split"
    for row, splits in enumerate(named):
        if {"train", "test"} <= splits.keys():
            one, other = splits["train"], splits["test"]
            raise DataError(
                f"image {row + 1:,} is for training by the column {one!r}, and for the test by {other!r}: "
                f"columns='split={one}' or columns='split={other}' decides"
            )
    rest, said = _rest(flags), [pictures.cells(name) for name in flags]
    for row, splits in enumerate(named):
        if not splits and row not in reasons and any(cells[row] is not None for cells in said):
            if rest:
                splits[rest] = ""
            else:
                reasons[row] = f"none of {', '.join(map(repr, flags))} says yes"
    return [next((s for s in ("test", "valid", "train") if s in splits), None) for splits in named]


def _cells(pictures: Pictures, column: str, is_sure: bool) -> Iterator[tuple[int, str | None, str | None]]:
    """The rows of a column that are not missing, their cells, and the split that each means."""
    values = pictures.rows[column].unique()
    words = column_splits(column, values, is_sure) or {v: split_of(v) for v in values if v}
    if not any(words.values()):  # a person named the column
        raise DataError(
            f"columns: what {', '.join(map(repr, list(words)[:4]))} in {column!r} mean is not known: "
            "splits='train=A, valid=B, test=C' says it"
        )
    for row, cell in enumerate(pictures.cells(column)):
        if cell is not None:
            yield row, cell, words.get(cell)


def _rest(flags: Sequence[str]) -> str | None:
    """The split of images for which every flag says no: training or the test, if no flag is about that."""
    return next((s for s in ("train", "test") if s not in map(_named, flags)), None)


def _named(flag: str) -> str | None:
    return flag_split(flag) or split_of(flag)
