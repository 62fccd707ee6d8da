"""Splits that data name only in part, or in words that nobody knows: what could be meant is refused."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from fer_utils.competition import DataError
from fer_utils.data.files.file_index import stem
from fer_utils.data.known_column_names import is_split_name
from fer_utils.data.known_expressions_and_splits import SPLITS, as_int, canonical, column_splits, split_of
from fer_utils.data.layouts.found_pictures import Pictures

MOST_FOLDS = 20
_FOLDS = re.compile(r"(k|cv)?[ _]?folds?")
_SAYS_VALID = re.compile(r"(^|[^a-z])(val|validation|dev)([^a-z]|$)")


def check_alone(valid: Sequence[str], n: int) -> None:
    """Raise a DataError if the tables of rows for validation name most of all `n` images, or do not surely
    say so, and no table is named for training; otherwise the rest is for training."""
    if 2 * len(valid) > n or not all(_SAYS_VALID.search(stem(part).lower()) for part in valid):
        known = sorted(set(valid))
        raise DataError(
            f"{', '.join(known)} seems to be for validation, and no table is named for training: "
            f"splits='train={stem(known[0])}' trains on it, splits='none' on all"
        )


def without_training(
    pictures: Pictures, found: Mapping[str, Sequence[str | None]], column: str | None
) -> list[str]:
    """A note if all images are in tables, folders or rows of a `column` that are named for one split, and not
    for training: they are trained on. `found` has the split of each image by each of these.

    Raises:
        DataError: they are named for validation and for the test.
    """
    if any("train" in splits for splits in found.values()):
        return []
    words = {
        "tables": lambda row: stem(pictures.parts[row]),
        "folders": lambda row: next(filter(split_of, pictures.files[row].split("/")[-2::-1])),
        "column": lambda row: pictures.cells(column)[row],
    }
    for source, word in words.items():
        if None in found[source]:
            continue
        names = {split: word(row) for row, split in enumerate(found[source])}
        where = f"column {column!r}" if source == "column" else source
        if len(names) > 1:
            raise DataError(
                f"by the {where}, all images are for validation ({names['valid']}) or the test "
                f"({names['test']}), and none for training: splits='train={names['valid']}, "
                f"test={names['test']}' trains on the first, splits='none' on all"
            )
        ((split, name),) = names.items()
        return [f"trained on what is named for the {split} ({where}: {name}), as nothing else is there"]
    return []


def folds_not_used(pictures: Pictures) -> list[str]:
    """A note on a column of numbers that may be the folds of a cross-validation."""
    for column in filter(_FOLDS.fullmatch, pictures.table_columns()):
        parts = sorted({as_int(cell) for cell in pictures.rows[column].unique()} - {None})
        if 3 <= len(parts) <= MOST_FOLDS:
            said = f"column {column!r} is not used: splits='valid={column} {parts[0]}'"
            return [f"{said} validates on one of its {len(parts)} parts"]
    return []


def refuse_flag(pictures: Pictures, column: str, source: str) -> None:
    """Raise a DataError for a column of yes and no that may divide the data or tell which faces are good;
    `source` is what divides them otherwise."""
    values = sorted({value for value in pictures.rows[column].unique() if value})
    raise DataError(
        f"the column {column!r} ({', '.join(values)}) may say which rows are the {split_of(column)} split, "
        f"or which faces are good: columns='split={column}' says the first, and splits='{source}' the second"
    )


def check_unknown(pictures: Pictures) -> None:
    """Raise a DataError if a column's name says that it divides the data, in words that nobody knows."""
    for column in filter(is_split_name, pictures.table_columns()):
        values = sorted({value for value in pictures.rows[column].unique() if value})
        unknown = not any(map(split_of, values)) and not all(map(canonical, values))
        if 2 <= len(values) <= len(SPLITS) and unknown and not column_splits(column, values):
            pairs = ", ".join(f"{s}={v}" for s, v in zip(SPLITS, values, strict=False))
            raise DataError(
                f"the column {column!r} seems to divide the data ({', '.join(values)}), and which of these "
                f"is the test is not known. splits='{pairs}' says it, or splits='none' if it is something "
                "else"
            )
