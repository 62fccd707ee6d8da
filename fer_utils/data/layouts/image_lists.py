"""Tables that list image files: which of their columns names the files, and how several are joined."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd

from fer_utils.competition import DataError
from fer_utils.data.files.file_index import Tree, folder_split, stem, table_split
from fer_utils.data.image_paths import BY_NUMBER, References, Resolved
from fer_utils.data.known_column_names import ABOUT, COLUMNS, OF_MANY, is_split_name, rank
from fer_utils.data.known_expressions_and_splits import (
    PREDICTED,
    SPLITS,
    STRAY_SHARE,
    as_int,
    canonical,
    split_of,
    split_words,
)
from fer_utils.data.tables import Table

_INDICES = re.compile(r"(^|[^a-z])(idx|index|indices)([^a-z]|$)")


@dataclass(eq=False)
class ImageList:
    """A table whose `column` names images: some of its rows.

    Attributes:
        rows: the cells beside the names, under the rows' numbers in the table.
        names, files: [N], what the table calls each image, and its file; None where that is missing.
        leniency: how strictly the names were compared (`Resolved`).
    """

    table: Table
    column: str
    rows: pd.DataFrame
    names: list[str]
    files: list[str | None]
    leniency: int = 0

    @property
    def n(self) -> int:
        """How many of its files are there."""
        return len(self.files) - self.files.count(None)


def listed(tree: Tree, images: list[str], notes: list[str]) -> tuple[list[ImageList], dict[str, str]]:
    """All tables that list images; and the table that says the split of a file, where it is another.

    A table that names images of another is joined to it by its further columns; the one that names most
    counts.
    """
    references = References(images)
    found = [item for table in tree.tables.values() if (item := _as_list(tree, table, references))]
    answers = [one for one in found if PREDICTED.search(stem(one.table.name).lower())] if found[1:] else []
    if answers:
        notes.append(f"not used, predictions by their names: {', '.join(one.table.name for one in answers)}")
        found = [one for one in found if one not in answers]
    for one in found:
        _follow_key(one, found)
    lists: list[ImageList] = []
    where: dict[str, tuple[ImageList, int]] = {}  # the list and the row of each file
    divided: dict[str, str] = {}
    for one in sorted(found, key=lambda one: -one.n):
        name, again = one.table.name, {row for row, file in enumerate(one.files) if file in where}
        if 2 * len(again) > one.n:
            _join(one, lists, where, notes)
            # train.txt and test.txt beside labels.csv, but not list_eval_partition.csv
            is_of_all = len(again) > 0.9 * len(where)
            if split_of(stem(name)) and not (is_of_all and any(map(is_split_name, one.rows.columns))):
                divided |= {file: name for file in one.files if file}
            continue
        if again:
            notes.append(f"{name} lists {len(again):,} images again: the larger list was taken")
        # A row may name no image, as in FER+.
        keep = [row for row, cell in enumerate(one.names) if cell and row not in again]
        names, files = [one.names[row] for row in keep], [one.files[row] for row in keep]
        lists.append(ImageList(one.table, one.column, one.rows.iloc[keep].copy(), names, files))
        where |= {file: (lists[-1], row) for row, file in enumerate(lists[-1].files) if file}
    order = [one.table for one in found]
    return sorted(lists, key=lambda one: order.index(one.table)), divided


def _follow_key(one: ImageList, found: list[ImageList]) -> None:
    """Let numbers that were compared with those in file names be the keys of a list of the same split that
    names the same files and has a column of that name."""
    for other in found:
        if one.leniency < BY_NUMBER or other.leniency >= BY_NUMBER or one.column not in other.rows:
            continue
        if table_split(one.table.name) != table_split(other.table.name):
            continue  # the ids of train.csv and of test.csv may both count from 0
        if 2 * len({*one.files} & {*other.files} - {None}) < one.n:
            continue
        keys = other.rows[one.column]
        if keys.is_unique and pd.Series(one.names).isin(keys).mean() > 0.9:
            files = dict(zip(keys, other.files, strict=True))
            one.files, one.leniency = [files.get(name) for name in one.names], other.leniency


def _as_list(tree: Tree, table: Table, references: References) -> ImageList | None:
    """The table with the column that names images; None if fewer than half of its names are there.

    Raises:
        DataError: two columns name images, or whether one does is not known.
    """
    if table.pixels or not len(table.frame):
        return None
    forced = tree.columns.get("image", "").strip().lower()
    best, key = None, None
    doubtful: list[str] = []
    _check_indices(table)
    for column in [forced] if forced and forced in table.columns else _columns(table):
        cells = table.frame[column].tolist()
        is_about = column in ABOUT and best is not None
        if not forced and (is_about or not _may_name_images(cells, references)):
            if column in COLUMNS["image"]:
                _say_missing(tree, table, column, _resolved(table, column, references))
            continue
        n_named, result = len(cells) - cells.count(""), _resolved(table, column, references)
        repeated = result.n - len(set(result.files) - {None})
        if not forced and column in ABOUT | OF_MANY and _are_numbers(table, column):
            # The number of a frame names a file only if other columns say the folder of each, and that of a
            # clip only if each has one image.
            is_whole = result.n == n_named and not repeated and result.leniency < BY_NUMBER
            is_one_each = len({*cells}) == len(cells) and result.n == references.n
            if not is_whole or (column in OF_MANY and not is_one_each):
                doubtful += [column] * (column not in OF_MANY and 2 * result.n >= n_named)
                continue
        if result.n < max(1, n_named / 2) or (result.leniency > 1 and repeated > 1):
            if result.ambiguous > n_named / 2:
                tree.unreadable[table.name] = (
                    f"{table.name}: the names in its column {column!r} mean several files each, in "
                    "different folders"
                )
            continue
        better = (result.leniency < BY_NUMBER, result.n, -result.leniency, -rank("image", column))
        if better == key and result.files != best.files:
            raise DataError(
                f"{table.name}: the columns {best.column!r} and {column!r} both name images that are "
                f'there. columns="image={best.column}" or columns="image={column}" decides'
            )
        if key is None or better > key:
            rows = table.frame.drop(columns=column)
            best, key = ImageList(table, column, rows, cells, result.files, result.leniency), better
    if best is None and doubtful and not {*COLUMNS["label"]}.isdisjoint(table.columns):
        raise DataError(
            f"{table.name}: the numbers in its column {doubtful[0]!r} may or may not be those in the names "
            f'of the images: columns="image={doubtful[0]}" says that they are'
        )
    by_number = best is not None and not forced and best.leniency >= BY_NUMBER
    return None if by_number and (best.column in COLUMNS["subject"] or _are_classes(best.rows)) else best


def _are_classes(rows: pd.DataFrame) -> bool:
    """Whether a table names the classes: a column has another expression in each row."""
    found = [[canonical(cell) for cell in rows[column]] for column in rows]
    return any(None not in words and 1 < len(words) == len({*words}) for words in found)


def _say_missing(tree: Tree, table: Table, column: str, found: Resolved) -> None:
    """Keep for the message of an unknown layout that most files of a list are missing."""
    names = [name for name in table.frame[column].tolist() if name]
    missing = [name for name, file in zip(table.frame[column].tolist(), found.files, strict=True) if not file]
    if found.n:
        tree.unreadable[table.name] = (
            f"{table.name}: of {len(names):,} files in its column {column!r} {found.n:,} are there "
            f"(missing: {', '.join(missing[:3])}, ...)"
        )


def _columns(table: Table) -> list[str]:
    """The columns, those about the image last."""
    return sorted(table.frame.columns, key=lambda column: column in ABOUT)


def _check_indices(table: Table) -> None:
    """Raise a DataError if a table such as test_idx.txt holds numbers of rows, or of files."""
    name, columns = stem(table.name), table.frame.columns
    is_index = split_of(name) and _INDICES.search(name.lower())
    if is_index and len(columns) == 1 and _are_numbers(table, columns[0]):
        raise DataError(
            f"{table.name} holds numbers, which may be those of rows (from 0 or 1) or of files: write the "
            "files' names, or move it elsewhere"
        )


def _resolved(table: Table, column: str, references: References) -> Resolved:
    """The files that a column names."""
    cells = table.frame[column].tolist()
    n_named = len(cells) - cells.count("")
    result = references.resolve(cells, _hints(table, column))
    if not result.ambiguous or result.n == n_named:
        return result
    # The same names in train/ and in test/.
    in_one = {split: references.resolve(cells, lambda _, split=split: {split}) for split in SPLITS}
    whole = [
        found
        for split, found in in_one.items()
        if found.n == n_named and set(map(folder_split, filter(None, found.files))) == {split}
    ]
    return whole[0] if len(whole) == 1 else result


def _are_numbers(table: Table, column: str) -> bool:
    return all(as_int(cell) is not None for cell in table.frame[column].tolist())


def _may_name_images(cells: list[str], references: References) -> bool:
    """A quick look at some cells of a column: most of them have to name images."""
    some = [cell for cell in cells[:: max(1, len(cells) // 50)] if cell]
    result = references.resolve(some)
    return bool(some) and 2 * max(result.n, result.ambiguous) >= len(some)


def _hints(table: Table, column: str) -> Callable[[int], set[str]]:
    """Words that the folders of a row's file may contain: the table's folder and split, the row's other
    cells."""
    own = {
        *table.name.lower().split("/")[:-1],
        split_of(stem(table.name)) or "",
        folder_split(table.name) or "",
    }
    few = [c for c in table.frame if c != column and table.frame[c].nunique() <= 50]
    splits = [split_words(table.frame[c].unique(), c) for c in few]
    few = [table.frame[c].tolist() for c in few]

    def words(row: int) -> set[str]:
        said = {words[cells[row]] or "" for cells, words in zip(few, splits, strict=True)}
        return (own | said | {cells[row].lower() for cells in few}) - {""}

    return words


def _join(
    further: ImageList, lists: list[ImageList], where: dict[str, tuple[ImageList, int]], notes: list[str]
) -> None:
    """Add the columns of a further list to the rows of those that were taken.

    Raises:
        DataError: it gives other labels than they do.
    """
    known = {name for one in lists for name in one.rows.columns}
    rows = [where.get(file) for file in further.files]
    for name, column in further.rows.items():
        said = {place: cell for place, cell in zip(rows, column.tolist(), strict=True) if place}
        if name not in known:
            for one in lists:
                cells = [said.get((one, row)) for row in range(len(one.rows))]
                one.rows[name] = pd.Series(cells, one.rows.index, dtype=object)
        elif name in COLUMNS["label"]:
            told = {place: place[0].rows[name].iat[place[1]] for place in said if name in place[0].rows}
            both = [place for place, cell in told.items() if cell and said[place]]
            differ = sum(said[place] != told[place] for place in both)
            if 2 * len(both) > len(where) and differ > STRAY_SHARE * len(both):
                raise DataError(
                    f"{further.table.name} and {lists[0].table.name} differ on {differ:,} of {len(both):,} "
                    "labels: give the one that counts as data, or move the other away"
                )
    new = [name for name in further.rows if name not in known]
    what = f"its columns {', '.join(new)} were taken" if new else "not used"
    notes.append(f"{further.table.name} lists the same images: {what}")
