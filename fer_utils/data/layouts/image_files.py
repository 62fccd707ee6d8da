"""Pictures in files of their own, with all that names them: lists, folders, file names, label files."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Sequence

import pandas as pd

from fer_utils.competition import DataError
from fer_utils.data.column_names import ABOUT, COLUMNS, rank
from fer_utils.data.files.tree import Tree, below_split, folder_split, stem
from fer_utils.data.images import read_files
from fer_utils.data.layouts.label_files import annotation, box_label, text_label
from fer_utils.data.layouts.pictures import FOLDERS, LABEL_FILES, LISTS, NAMES, Decoded, Pictures, stacked
from fer_utils.data.references import References, Resolved
from fer_utils.data.tables import Table
from fer_utils.data.words import PREDICTED, SPLITS, STRAY_SHARE, canonical, split_of, split_words

LOOKS_FOR = {
    LISTS: "a table with an image and a label column (or votes), and its images",
    FOLDERS: "train/<class>/ with pictures, at least two classes",
    LABEL_FILES: "a file of labels per picture: YOLO's labels/1.txt, 1.cls, AffectNet's 1_exp.npy",
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
    listed, parts, files, places, ids = _listed(tree, images, notes)
    taken = set(files)
    free = [name for name in images if name not in taken]
    files += free
    parts += [""] * len(free)
    places += free
    ids += [below_split(name) for name in free]
    frames = [*listed, pd.DataFrame(index=range(len(free)))]
    own = _own_columns(tree, files)
    rows = stacked(frames)
    clashes = set(rows.columns) & {name for name, _, _ in own}
    rows = rows.rename(columns={name: f"{name} of the list" for name in clashes})
    layouts = {}
    for name, layout, cells in own:
        rows[name], layouts[name] = pd.Series(cells, dtype=object), layout

    def read(chosen: Sequence[int], size: int) -> Decoded:
        return read_files([tree.files.get(files[row]) for row in chosen], size)

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
    copies: list[str] = []
    for home, files in homes.items():
        for other in list(homes)[: list(homes).index(home)]:
            same = other not in copies and homes[other].keys() >= files.keys()
            if same and all(_size(tree, homes[other][n]) == _size(tree, f) for n, f in files.items()):
                copies.append(home)
                break
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
    taken = set().union(*(files for _, files in groups))
    return (
        [[n for n in images if n in files or n not in taken] for _, files in groups]
        if groups[1:]
        else [images]
    )


def _size(tree: Tree, name: str) -> int:
    return tree.files[name].stat().st_size


# ---------------------------------------------------------------- lists


def _listed(
    tree: Tree, images: list[str], notes: list[str]
) -> tuple[list[pd.DataFrame], list[str], list[str | None], list[str], list[str]]:
    """The rows of all tables that list images: their columns, tables, files, places and the listed names.

    A table that names images of another is joined to it by its further columns; the one that names most
    counts.
    """
    references = References(images)
    found = [item for table in tree.tables.values() if (item := _as_list(tree, table, references))]
    if (
        answers := [item for item in found if PREDICTED.search(stem(item[0].name).lower())]
        if found[1:]
        else []
    ):
        notes.append(f"not used, predictions by their names: {', '.join(t.name for t, _, _ in answers)}")
        found = [item for item in found if item not in answers]
    order = {table.name: i for i, (table, _, _) in enumerate(found)}
    chosen: list[tuple[Table, pd.DataFrame, list[str | None], list[str]]] = []
    where: dict[str, tuple[int, int]] = {}  # the table and the row of each file
    divided: dict[str, str] = {}  # the table of its split
    for table, column, result in sorted(found, key=lambda item: -item[2].n):
        frame = table.frame.drop(columns=column)
        rows = [i for i, file in enumerate(result.files) if file in where]
        if 2 * len(rows) > result.n:
            _join(table, frame, result, chosen, where, notes)
            if split_of(stem(table.name)):  # train.txt and test.txt beside labels.csv
                divided |= {file: table.name for file in result.files if file}
            continue
        if rows:
            notes.append(f"{table.name} lists {len(rows):,} pictures again: the larger list was taken")
        ids = table.frame[column].tolist()
        again = set(rows)
        keep = [i for i, name in enumerate(ids) if name and i not in again]  # no name, no row, as in FER+
        files = [result.files[i] for i in keep]
        where |= {file: (len(chosen), row) for row, file in enumerate(files) if file}
        names = [ids[i] for i in keep]
        places = [file or table.place(i) for i, file in zip(keep, files, strict=True)]
        chosen.append((table, frame.iloc[keep].reset_index(drop=True), files, names, places))
    chosen.sort(key=lambda item: order[item[0].name])
    parts = [divided.get(file, item[0].name) for item in chosen for file in item[2]]
    joined = ([x for item in chosen for x in item[k]] for k in (2, 4, 3))
    return [item[1] for item in chosen], parts, *joined


def _as_list(tree: Tree, table: Table, references: References) -> tuple[Table, str, Resolved] | None:
    """The column of a table that names images, and which; None if fewer than half of its names are there."""
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
            in_one = [references.resolve(cells, lambda _, split=split: {split}) for split in SPLITS]
            whole = [found for found in in_one if found.n == n_named]
            result = whole[0] if len(whole) == 1 else result
        repeated = result.n - len(set(result.files) - {None})
        if result.n < max(1, n_named / 2) or (result.leniency > 1 and repeated > 1):
            if result.ambiguous > n_named / 2:
                tree.unreadable[table.name] = (
                    f"{table.name}: the names in its column {column!r} mean several files each, in "
                    "different folders"
                )
            continue
        better = (result.n, -result.leniency, -rank("image", column))
        if (
            best
            and better[:2] == key[:2]
            and result.files != best[2].files
            and rank("image", column) == -key[2]
        ):
            raise DataError(
                f"{table.name}: the columns {best[1]!r} and {column!r} both name pictures that are there. "
                f'columns="image={best[1]}" or columns="image={column}" decides'
            )
        if key is None or better > key:
            best, key = (table, column, result), better
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


def _join(
    table: Table,
    frame: pd.DataFrame,
    result: Resolved,
    chosen: list[tuple],
    where: dict[str, tuple[int, int]],
    notes: list[str],
) -> None:
    """Add the further columns of a table to the rows of the images that it names."""
    known = {column for _, other, *_ in chosen for column in other.columns}
    new = [column for column in frame.columns if column not in known]
    for column in new:
        added = {
            where[f]: cell for f, cell in zip(result.files, frame[column].tolist(), strict=True) if f in where
        }
        for index, (_, other, *_) in enumerate(chosen):
            other[column] = pd.Series([added.get((index, row)) for row in range(len(other))], dtype=object)
    for column in frame.columns.intersection(COLUMNS["label"]):
        said = {
            where[f]: cell for f, cell in zip(result.files, frame[column].tolist(), strict=True) if f in where
        }
        told = {
            (index, row): cell
            for index, (_, other, *_) in enumerate(chosen)
            if column in other
            for row, cell in enumerate(other[column].tolist())
        }
        both = [place for place in said.keys() & told.keys() if said[place] and told[place]]
        differ = sum(said[place] != told[place] for place in both)
        if 2 * len(both) > len(where) and differ > STRAY_SHARE * len(both):
            raise DataError(
                f"{table.name} and {chosen[0][0].name} differ on {differ:,} of {len(both):,} labels: "
                "give the one that counts as data, or move the other away"
            )
    what = f"its columns {', '.join(new)} were taken" if new else "not used"
    notes.append(f"{table.name} lists the same pictures: {what}")


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
    for suffix, reader in (("", box_label), (".cls", text_label), (".npy", annotation)):
        labels = [reader(tree, file) if file else None for file in files]
        if sum(label is not None for label in labels) * 2 > len(labels):
            columns.append((f"label file{suffix and ' ' + suffix}", LABEL_FILES, labels))
    return columns


def name_label(name: str) -> str | None:
    """The expression in a file name; None if there is none or several."""
    base = stem(name)
    if match := _JAFFE.fullmatch(base) or _KDEF.fullmatch(base):
        return _CODES[match[1]]
    words = [word for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+", base) if canonical(word)]
    return words[0] if len(set(map(canonical, words))) == 1 else None
