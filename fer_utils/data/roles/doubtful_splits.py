"""Splits that data name only in part, or in words that nobody knows: what could be meant is refused."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence

from fer_utils.competition import DataError
from fer_utils.data.files.file_index import stem
from fer_utils.data.known_column_names import COLUMNS, is_split_name
from fer_utils.data.known_expressions_and_splits import (
    MOST_SPLITS,
    SPLITS,
    are_flags,
    canonical,
    column_splits,
    flag_split,
    is_yes,
    split_of,
)
from fer_utils.data.layouts.found_pictures import Pictures

PURPOSES = {"train": "training", "valid": "validation", "test": "the test"}
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
        said = _by_cells(pictures, columns) if source == "column" else _by_paths(pictures, source)
        for split, name in zip(found[source], said, strict=True):
            names.setdefault(split, {})[name] = None
        if names.keys() == {"valid", "test"}:
            first = [f"train={name}" for name in names["valid"]]
            how = ", ".join([*first, *(f"test={name}" for name in names["test"])])
            raise DataError(
                f"by the {source}, all images are for validation ({', '.join(names['valid'])}) or the test "
                f"({', '.join(names['test'])}), and none for training: splits='{how}' trains on the first, "
                "splits='none' on all"
            )
        ((split, words),) = names.items()
        why = f"named for {PURPOSES[split]} ({source}: {', '.join(words)})"
        return [f"trained on what is {why}: nothing else is there"]
    return []


def _by_paths(pictures: Pictures, source: str) -> list[str]:
    """The word by which the table or the folder of each image names its split."""
    if source == "folders":
        return [next(filter(split_of, path.split("/")[-2::-1])) for path in pictures.files]
    words = {part: [stem(part), *part.split("/")[-2::-1]] for part in set(pictures.parts)}
    return [next(filter(split_of, words[part])) for part in pictures.parts]


def _by_cells(pictures: Pictures, columns: Sequence[str]) -> list[str]:
    """The cell by which a column names the split of each image; of yes and no, with the column's name."""
    said: list[str] = [""] * len(pictures)
    for column in columns:
        for row, cell in enumerate(pictures.cells(column)):
            if cell and not split_of(said[row]) and (split_of(cell) or is_yes(cell) or not said[row]):
                said[row] = cell if split_of(cell) else f"{column} {cell}"
    return said


def refuse_flag(pictures: Pictures, column: str, source: str) -> None:
    """Raise a DataError for a column of yes and no that may divide the data or tell which faces are good;
    `source` is what divides them otherwise."""
    values = sorted({value for value in pictures.rows[column].unique() if value})
    raise DataError(
        f"the column {column!r} ({', '.join(values)}) may say which rows are the {split_of(column)} split, "
        f"or which faces are good: columns='split={column}' says the first, and splits='{source}' the second"
    )


def check_unknown(pictures: Pictures, known: Collection[str], is_open: bool) -> None:
    """Raise a DataError if a column's name says that it divides the data, in words that nobody knows: where
    nothing else divides them (`is_open`), or where it names a split that is not `known` without it."""
    for column in pictures.table_columns():
        cells = {value for value in pictures.rows[column].unique() if value is not None}
        values = sorted(cells - {""})
        is_unknown = len(cells) == 2 and values and not are_flags(cells)
        if is_unknown and (split := flag_split(column)) and split not in known:
            others = [f", test={value}" if split == "train" else "" for value in values[::-1]]
            ways = [f"splits='{split}={v}{o}'" for v, o in zip(values, others, strict=True)]
            raise DataError(
                f"the column {column!r} seems to say which images are for {PURPOSES[split]}, and which of "
                f"{', '.join(map(repr, sorted(cells)))} says yes is not known: {' or '.join(ways)} decides, "
                "or splits='none' if it is something else"
            )
        if is_open and column not in COLUMNS["label"]:
            _check_words(column, values)


def _check_words(column: str, values: Sequence[str]) -> None:
    """Raise a DataError if a column that may divide the data holds a word that nobody knows."""
    known = {value: split for value in values if (split := split_of(value))}
    plain = {"train", "training", "test", "testing"} & {value.lower() for value in values}
    few = 2 <= len(values) <= (MOST_SPLITS if known else len(SPLITS))
    is_clear = len(known) == len(values) or all(map(canonical, values)) or column_splits(column, values)
    if few and (plain or is_split_name(column)) and not is_clear:
        said = known or dict(zip(values, SPLITS if len(values) > 2 else ("train", "test"), strict=True))
        other = "train" if "test" in known.values() else "test"
        said |= {value: other for value in values if value not in said}
        pairs = ", ".join(f"{split}={value}" for value, split in said.items())
        raise DataError(
            f"the column {column!r} seems to divide the data ({', '.join(values)}), and which of these "
            f"is the test is not known. splits='{pairs}' says it, or splits='none' if it is something "
            "else"
        )
