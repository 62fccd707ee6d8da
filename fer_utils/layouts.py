"""The layouts of a competition's data: one small reader each, and the rule that recognises it by content."""

from __future__ import annotations

import difflib
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePosixPath

from fer_utils.arrays import find_arrays, labelled_splits, read_arrays
from fer_utils.cells import read_column
from fer_utils.faces import DataError
from fer_utils.folders import find_class_folders, has_class_folders, read_class_folders
from fer_utils.labels import is_unlabelled_extra, split_of
from fer_utils.lists import count_listed, find_lists, has_parquet_pictures, read_lists, read_parquet_pictures
from fer_utils.named import has_named_pictures, has_yolo, read_named_pictures, read_yolo
from fer_utils.parts import Part, Raw, joined, read_pixels
from fer_utils.tables import Table
from fer_utils.trees import Tree, shards, stem


@dataclass(frozen=True)
class Layout:
    """A reader: its name, what it looks for (told when nothing fits), how it recognises and reads a tree."""

    name: str
    looks_for: str
    recognise: Callable[[Tree], bool]
    read: Callable[[Tree, int], Raw]


# ---------------------------------------------------------------- tables of pixels


def _pixel_tables(tree: Tree) -> dict[str, Table]:
    return {name: table for name, table in tree.tables.items() if table.pixels}


def _whole_table(tree: Tree) -> str | None:
    """The table that holds all splits by its Usage column, as fer2013.csv and icml_face_data.csv do."""
    for name, table in _pixel_tables(tree).items():
        if split_of(stem(name)) is None and table.column("usage") is not None and table.is_labelled:
            return name
    return None


def _split_tables(tree: Tree) -> dict[str, list[str]]:
    """The pixel tables of train.csv + test.csv and their like, by split; without a labelled one none.

    The labelled table nearest the top leads; a folder with a labelled table of its own is other data.
    """
    tables = _pixel_tables(tree)
    labelled = {name for name, table in tables.items() if table.is_labelled}
    leads = [name for name in labelled if split_of(stem(name)) in ("train", None)]
    if not leads:
        return {}
    lead = min(leads, key=lambda name: (name.count("/"), split_of(stem(name)) != "train", name))
    home = PurePosixPath(lead).parent
    foreign = {PurePosixPath(name).parent for name in leads} - {home}
    chosen = {"train": [lead]}
    near = [name for name in tables if PurePosixPath(name).parent not in foreign]
    near.sort(key=lambda name: (PurePosixPath(name).parent != home, "public" not in name.lower(), name))
    for name in near:
        if (split := split_of(stem(name)) or "train") != "test" and name in labelled:
            chosen.setdefault(split, [name])
    tests = [name for name in near if name not in labelled and not is_unlabelled_extra(stem(name))]
    # Nobody validates on hidden labels. A table whose name tells a split wins over any other without labels.
    tests = [n for n in tests if split_of(stem(n)) in ("test", "valid")] or tests[:1]
    tests = tests or [name for name in near if name in labelled and split_of(stem(name)) == "test"]
    if tests:
        folder = PurePosixPath(tests[0]).parent
        chosen["test"] = [name for name in tests if PurePosixPath(name).parent == folder]
    return {
        split: list(dict.fromkeys(shard for name in names for shard in shards(name, tables)))
        for split, names in chosen.items()
    }


def _vote_table(tree: Tree) -> str | None:
    """The table of votes beside one that holds the pictures row by row, as FER+ stands beside FER2013."""
    if _whole_table(tree) is None:
        return None
    tables = {name: t for name, t in tree.tables.items() if t.votes and not t.pixels}
    return next((name for name, t in tables.items() if t.column("usage") is not None), None)


def _read_fer_plus(tree: Tree, size: int) -> Raw:
    name, whole = _vote_table(tree), _whole_table(tree)
    usages = [read_column(tree.tables[table], "usage") for table in (name, whole)]
    if len(usages[0]) == len(usages[1]) and usages[0] != usages[1]:
        row = next(row for row, (one, other) in enumerate(zip(*usages, strict=True)) if one != other)
        raise DataError(
            f"{tree.tables[name].place(row)}: {usages[0][row]}, but {tree.tables[whole].place(row)}: "
            f"{usages[1][row]}; the votes must stand in the order of {whole} "
            "(layout='fer2013.csv' reads it alone)"
        )
    raw = _read_tables(tree, {"train": [whole]}, size, tree.tables[name])
    raw.notes.append(f"labels from the votes in {name}, row by row")
    return raw


def _is_fer2013(tree: Tree) -> bool:
    # A sample submission asks for the pictures of the test table beside it, so that one leads then.
    return _whole_table(tree) is not None and not (tree.sample and "test" in _split_tables(tree))


def _read_fer2013(tree: Tree, size: int) -> Raw:
    return _read_tables(tree, {"train": [_whole_table(tree)]}, size)


def _is_split_tables(tree: Tree) -> bool:
    tables = _split_tables(tree)
    return bool(tables) and (len(tables) > 1 or _whole_table(tree) is None)


def _read_split_tables(tree: Tree, size: int) -> Raw:
    return _read_tables(tree, _split_tables(tree), size)


def _read_tables(tree: Tree, names: dict[str, list[str]], size: int, votes: Table | None = None) -> Raw:
    raw = Raw({}, is_fer={"emotion", "pixels", "usage"} <= set(tree.tables[names["train"][0]].columns))
    for split, tables in names.items():
        files: dict[str, list[Part]] = defaultdict(list)
        for name in tables:
            for target, part in read_pixels(tree.tables[name], split, size, raw, votes).items():
                files[target].append(part)
        parts = {target: joined(found, [stem(name) for name in tables]) for target, found in files.items()}
        if raw.parts and (extra := set(parts) & set(raw.parts)):
            raw.notes.append(
                f"{', '.join(sorted(extra))} rows of {names['train'][0]} ignored: {tables[0]} holds them"
            )
        if len(tables) > 1:
            raw.notes.append(f"{split} from {', '.join(tables)}")
        raw.parts.update(parts)
    if ignored := sorted(set(_pixel_tables(tree)) - {name for tables in names.values() for name in tables}):
        raw.notes.append(f"also there, not used: {', '.join(ignored)}")
    return raw


# ---------------------------------------------------------------- the registry, in order of preference

LAYOUTS = (
    Layout(
        "FER+ votes",
        "fer2013.csv and beside it fer2013new.csv with votes for every row",
        lambda tree: _vote_table(tree) is not None,
        _read_fer_plus,
    ),
    Layout(
        "fer2013.csv",
        "a table with columns emotion, pixels and Usage",
        _is_fer2013,
        _read_fer2013,
    ),
    Layout(
        "pixel tables",
        "train.csv with a label and a pixels column (or a column per pixel), and test.csv with pixels",
        _is_split_tables,
        _read_split_tables,
    ),
    Layout(
        "parquet pictures",
        "parquet files with a column of encoded pictures and a label column, as on Hugging Face",
        has_parquet_pictures,
        read_parquet_pictures,
    ),
    Layout(
        "image list",
        "a table with an image and a label column (or votes) whose images are found among the files",
        lambda tree: bool(find_lists(tree)),
        read_lists,
    ),
    Layout(
        "class folders",
        "train/<class>/ with pictures, at least two classes",
        has_class_folders,
        read_class_folders,
    ),
    Layout(
        "YOLO labels",
        "images/ and labels/ with a text file per picture, and data.yaml with the names of the classes",
        has_yolo,
        read_yolo,
    ),
    Layout(
        "arrays",
        ".npy, .npz or .mat files with pictures and labels, such as x_train.npy and y_train.npy",
        lambda tree: bool(labelled_splits(find_arrays(tree))),
        read_arrays,
    ),
    Layout(
        "labels in file names",
        "pictures whose names hold the expression: happy_01.png, or the codes of JAFFE and KDEF",
        has_named_pictures,
        read_named_pictures,
    ),
)


def recognise(tree: Tree) -> list[Layout]:
    """The layouts that the tree fits, the preferred one first."""
    fitting = [layout for layout in LAYOUTS if layout.recognise(tree)]
    names = [layout.name for layout in fitting]
    if {"image list", "class folders"} <= set(names):
        in_folders = len(find_class_folders(tree)[0]["train"])
        # A list of a few of the pictures is something else than the labels of all.
        if in_folders > 2 * count_listed(tree):
            fitting.sort(key=lambda layout: layout.name == "image list")
    return fitting


def find_layout(name: str) -> Layout:
    """The layout of that name.

    Raises:
        DataError: there is none; the nearest is suggested.
    """
    by_name = {layout.name: layout for layout in LAYOUTS}
    if name not in by_name:
        near = difflib.get_close_matches(name, by_name, n=1)
        hint = f": did you mean {near[0]!r}?" if near else ""
        raise DataError(f"layout must be auto or one of {', '.join(by_name)}, got {name!r}{hint}")
    return by_name[name]


def describe_unknown(tree: Tree, source: str, only: Layout | None = None) -> str:
    """What to tell when no layout fits, or not the only one wanted: what was seen, level by level, what could
    not be read, and what was looked for."""
    levels: dict[int, list[str]] = defaultdict(list)
    for name in sorted(tree.files):
        parts = name.split("/")
        for depth in range(min(len(parts), 4)):
            entry = "/".join(parts[: depth + 1]) + ("/" if depth + 1 < len(parts) else "")
            if entry not in levels[depth][-1:]:
                levels[depth].append(entry)
    seen = [
        f"  {', '.join(names[:6])}{f', ... ({len(names):,})' if len(names) > 6 else ''}"
        for names in levels.values()
    ]
    tables = [f"  {name}: columns {', '.join(t.columns[:8])}" for name, t in list(tree.tables.items())[:5]]
    unreadable = [f"  {reason}" for reason in list(tree.unreadable.values())[:5]]
    looked_for = LAYOUTS if only is None else (only,)
    what = "no known layout" if only is None else f"not the layout {only.name!r}"
    return "\n".join(
        [f"{source}: {what}. Seen:", *(seen or ["  nothing"])]
        + (["The tables hold:", *tables] if tables else [])
        + (["Not readable:", *unreadable] if unreadable else [])
        + ["Looked for:", *(f"  {layout.name}: {layout.looks_for}" for layout in looked_for)]
    )
