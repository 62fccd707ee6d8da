"""Splits that data name only in part, or in words that nobody knows: what could be meant is refused."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from fer_utils.competition import DataError
from fer_utils.data.files.file_index import stem
from fer_utils.data.known_column_names import is_split_name
from fer_utils.data.known_expressions_and_splits import SPLITS, canonical, column_splits, split_of
from fer_utils.data.layouts.found_pictures import Pictures

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
    pictures: Pictures, found: Mapping[str, Sequence[str | None]], columns: Sequence[str]
) -> list[str]:
    """A note if all images are in tables, folders or rows of `columns` that are named for one split, and not
    for training: they are trained on. `found` has the split of each image by each of these.

    Raises:
        DataError: they are named for validation and for the test.
    """
    if any("train" in splits for splits in found.values()):
        return []
    for source in ("tables", "folders", "column"):
        if None in found[source]:
            continue
        names: dict[str, dict[str, None]] = {}  # of each split, in order
        for row, split in enumerate(found[source]):
            names.setdefault(split, {})[_name_of_split(pictures, row, source, columns)] = None
        if names.keys() == {"valid", "test"}:
            first = [f"train={name}" for name in names["valid"]]
            how = ", ".join([*first, *(f"test={name}" for name in names["test"])])
            raise DataError(
                f"by the {source}, all images are for validation ({', '.join(names['valid'])}) or the test "
                f"({', '.join(names['test'])}), and none for training: splits='{how}' trains on the first, "
                "splits='none' on all"
            )
        ((split, words),) = names.items()
        purpose = {"valid": "validation", "test": "the test"}[split]
        return [
            f"trained on what is named for {purpose} ({source}: {', '.join(words)}): nothing else is there"
        ]
    return []


def _name_of_split(pictures: Pictures, row: int, source: str, columns: Sequence[str]) -> str:
    """The word by which a table, a folder or a column names the split of an image."""
    if source == "column":
        return next(filter(None, (pictures.cells(column)[row] for column in columns)))
    path = pictures.files[row] if source == "folders" else pictures.parts[row]
    if source == "tables" and split_of(stem(path)):
        return stem(path)
    return next(filter(split_of, path.split("/")[-2::-1]))


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
