"""Pictures in files of their own, with all that names them: lists, folders, file names, label files."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pandas as pd

from fer_utils.competition import DataError
from fer_utils.data.decode_images import ImageFormat, read_files
from fer_utils.data.files.file_index import Tree, below_split, folder_split, stem
from fer_utils.data.image_paths import BY_NUMBER, References
from fer_utils.data.known_column_names import ABOUT, COLUMNS, rank
from fer_utils.data.known_expressions_and_splits import (
    PREDICTED,
    SPLITS,
    STRAY_SHARE,
    canonical,
    split_of,
    split_words,
)
from fer_utils.data.layouts.found_pictures import (
    FOLDERS,
    LABEL_FILES,
    LISTS,
    NAMES,
    Decoded,
    Pictures,
    stacked,
)
from fer_utils.data.layouts.label_file_per_image import READERS, file_label
from fer_utils.data.tables import Table

LOOKS_FOR = {
    LISTS: "a table with an image and a label column (or votes), and its images",
    FOLDERS: "train/<class>/ with pictures, at least two classes",
    LABEL_FILES: "a file per picture: YOLO's labels/1.txt, VOC's 1.xml, labelme's 1.json, 1.cls, 1_exp.npy",
    NAMES: "pictures named happy_01.png, or by the codes of JAFFE, KDEF",
}
MOST_LEVELS = 6  # of folders that are looked at

# KA.AN1.39 (Lyons et al. 1998) and AF01ANS (Lundqvist, Flykt and Oehman 1998).
_JAFFE = re.compile(r"[A-Z]{2}\.(AN|DI|FE|HA|SA|SU|NE)\d\.\d+")
_KDEF = re.compile(r"[AB][FM]\d\d(AF|AN|DI|HA|NE|SA|SU)(?:S|HL|HR|FL|FR)")
_CODES = {
    **{"AN": "angry", "DI": "disgust", "FE": "fear", "AF": "fear", "HA": "happy"},
    **{"SA": "sad", "SU": "surprise", "NE": "neutral"},
}


def propose(tree: Tree) -> list[Pictures]:
    """The image files with the columns of the tables that list them and columns made of their paths."""
    if not tree.images:
        return []
    homes = _homes(tree.images)
    copies = _copies(tree, homes)
    left_out = {file for home in copies for file in homes.pop(home).values()}
    images = [name for name in tree.images if name not in left_out]
    notes = [f"also there, not used: {home}" for home in copies]
    return [_pictures(tree, some, list(notes)) for some in _data_sets(images, homes)]


def _pictures(tree: Tree, images: list[str], notes: list[str]) -> Pictures:
    lists, divided = _listed(tree, images, notes)
    taken = {file for one in lists for file in one.files}
    free = [name for name in images if name not in taken]
    files = [*(file for one in lists for file in one.files), *free]
    parts = [*(divided.get(file, one.table.name) for one in lists for file in one.files), *[""] * len(free)]
    listed = [(one.table, *row) for one in lists for row in zip(one.rows.index, one.files, strict=True)]
    places = [*(file or table.place(row) for table, row, file in listed), *free]
    ids = [*(name for one in lists for name in one.names), *map(below_split, free)]
    own = _own_columns(tree, files)
    rows = stacked([*(one.rows for one in lists), pd.DataFrame(index=range(len(free)))])
    clashes = set(rows.columns) & {name for name, _, _ in own}
    rows = rows.rename(columns={name: f"{name} of the list" for name in clashes})
    layouts = {}
    for name, layout, cells in own:
        rows[name], layouts[name] = pd.Series(cells, dtype=object), layout

    def read(chosen: Sequence[int], wanted: ImageFormat) -> Decoded:
        return read_files([tree.files.get(files[row]) for row in chosen], wanted)

    return Pictures(LISTS, rows, parts, places, ids, read, files, layouts, notes=notes)


def _homes(images: list[str]) -> dict[str, dict[str, str]]:
    """The folders that hold folders for splits, the highest first, and their files by what follows."""
    homes: dict[str, dict[str, str]] = defaultdict(dict)
    for name in images:
        parts = name.split("/")
        first = next((i for i, part in enumerate(parts[:-1]) if split_of(part)), None)
        if first is not None:
            homes["/".join(parts[:first])]["/".join(parts[first:])] = name
    return {
        home: homes[home] for home in sorted(homes, key=lambda home: (home.count("/") + bool(home), home))
    }


def _copies(tree: Tree, homes: dict[str, dict[str, str]]) -> list[str]:
    """The folders of whole data sets that lie there once more further down."""

    def size(name: str) -> int:
        return tree.files[name].stat().st_size

    copies, kept = [], []
    for home, files in homes.items():
        same = (other for other in kept if other.keys() >= files.keys())
        if any(all(size(other[rest]) == size(name) for rest, name in files.items()) for other in same):
            copies.append(home)
        else:
            kept.append(files)
    return copies


def _data_sets(images: list[str], homes: dict[str, dict[str, str]]) -> list[list[str]]:
    """The images, apart where folders for training hold other classes: these are other data sets."""
    groups: list[tuple[set[str], set[str]]] = []  # classes and files
    for files in homes.values():
        trained = [name for name in files if split_of(name.split("/")[0]) == "train"]
        classes = {name.split("/")[-2] for name in trained}
        fitting = (g for g in groups if 2 * len(g[0] & classes) >= min(len(g[0]), len(classes)))
        if trained and (group := next(fitting, None)):
            group[0].update(classes)
            group[1].update(files.values())
        elif trained:
            groups.append((classes, set(files.values())))
    if len(groups) < 2:
        return [images]
    taken = set().union(*(files for _, files in groups))
    return [[n for n in images if n in files or n not in taken] for _, files in groups]


# ---------------------------------------------------------------- lists


@dataclass(eq=False)
class _List:
    """A table whose `column` names images: some of its rows.

    Attributes:
        rows: the cells beside the names, under the rows' numbers in the table.
        names, files: [N], what the table calls each image, and its file; None where that is missing.
    """

    table: Table
    column: str
    rows: pd.DataFrame
    names: list[str]
    files: list[str | None]

    @property
    def n(self) -> int:
        """How many of its files are there."""
        return len(self.files) - self.files.count(None)


def _listed(tree: Tree, images: list[str], notes: list[str]) -> tuple[list[_List], dict[str, str]]:
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
    lists: list[_List] = []
    where: dict[str, tuple[_List, int]] = {}  # the list and the row of each file
    divided: dict[str, str] = {}
    for one in sorted(found, key=lambda one: -one.n):
        name, again = one.table.name, {row for row, file in enumerate(one.files) if file in where}
        if 2 * len(again) > one.n:
            _join(one, lists, where, notes)
            if split_of(stem(name)):  # train.txt and test.txt beside labels.csv
                divided |= {file: name for file in one.files if file}
            continue
        if again:
            notes.append(f"{name} lists {len(again):,} pictures again: the larger list was taken")
        # A row may name no picture, as in FER+.
        keep = [row for row, cell in enumerate(one.names) if cell and row not in again]
        names, files = [one.names[row] for row in keep], [one.files[row] for row in keep]
        lists.append(_List(one.table, one.column, one.rows.iloc[keep].copy(), names, files))
        where |= {file: (lists[-1], row) for row, file in enumerate(lists[-1].files) if file}
    order = [one.table for one in found]
    return sorted(lists, key=lambda one: order.index(one.table)), divided


def _as_list(tree: Tree, table: Table, references: References) -> _List | None:
    """The table with the column that names images; None if fewer than half of its names are there."""
    if table.pixels or not len(table.frame):
        return None
    forced = tree.columns.get("image", "").strip().lower()
    best, key = None, None
    for column in [forced] if forced and forced in table.columns else table.frame.columns:
        cells = table.frame[column].tolist()
        if not forced and (column in ABOUT or not _may_name_images(cells, references)):
            continue
        n_named = len(cells) - cells.count("")
        result = references.resolve(cells, _hints(table, column))
        if result.ambiguous and result.n < n_named:  # the same names in train/ and in test/
            in_one = {split: references.resolve(cells, lambda _, split=split: {split}) for split in SPLITS}
            whole = [
                found
                for split, found in in_one.items()
                if found.n == n_named and set(map(folder_split, filter(None, found.files))) == {split}
            ]
            result = whole[0] if len(whole) == 1 else result
        repeated = result.n - len(set(result.files) - {None})
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
                f"{table.name}: the columns {best.column!r} and {column!r} both name pictures that are "
                f'there. columns="image={best.column}" or columns="image={column}" decides'
            )
        if key is None or better > key:
            rows = table.frame.drop(columns=column)
            best, key = _List(table, column, rows, cells, result.files), better
    return best


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


def _join(further: _List, lists: list[_List], where: dict[str, tuple[_List, int]], notes: list[str]) -> None:
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
    notes.append(f"{further.table.name} lists the same pictures: {what}")


# ---------------------------------------------------------------- paths and label files


def _own_columns(tree: Tree, files: list[str | None]) -> list[tuple[str, str, list[str | None]]]:
    """Columns made of the files themselves: name, layout and cells."""
    folders = [[f for f in (file or "").split("/")[-2::-1] if not split_of(f)] for file in files]
    depth = min(max(map(len, folders), default=0), MOST_LEVELS)
    columns = [
        (f"folder {k + 1}", FOLDERS, [f[k] if k < len(f) else None for f in folders]) for k in range(depth)
    ]
    if depth > 1:  # classes at different depths: train/happy/a/1.png beside train/sad/2.png
        words = [next((w for w in f if canonical(w)), None) for f in folders]
        columns.append(("folder of an expression", FOLDERS, words))
    labels = [file and name_label(file) for file in files]
    if sum(label is not None for label in labels) * 2 > len(labels):
        columns.append(("file name", NAMES, labels))
    for suffix in READERS:
        if 2 * sum(name.endswith(suffix) for name in tree.files) <= len(files):
            continue  # too few to label most pictures
        labels = [file_label(tree, file, suffix) if file else None for file in files]
        if sum(label is not None for label in labels) * 2 > len(labels):
            columns.append((f"label file {suffix}", LABEL_FILES, labels))
    return columns


def name_label(name: str) -> str | None:
    """The expression in a file name; None if there is none or several."""
    base = stem(name)
    if match := _JAFFE.fullmatch(base) or _KDEF.fullmatch(base):
        return _CODES[match[1]]
    words = [word for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+", base) if canonical(word)]
    return words[0] if len(set(map(canonical, words))) == 1 else None
