"""The layouts of a competition's data: one small reader each, and the rule that recognises it by content."""

from __future__ import annotations

import difflib
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

from fer_utils.competition import DataError
from fer_utils.data.files.tree import Tree
from fer_utils.data.layouts.arrays import find_arrays, labelled_splits, read_arrays
from fer_utils.data.layouts.class_folders import find_class_folders, has_class_folders, read_class_folders
from fer_utils.data.layouts.file_names import has_named_pictures, read_named_pictures
from fer_utils.data.layouts.image_lists import count_listed, find_lists, read_lists
from fer_utils.data.layouts.parquet_images import has_parquet_pictures, read_parquet_pictures
from fer_utils.data.layouts.parts import Raw
from fer_utils.data.layouts.pixel_tables import (
    _is_fer2013,
    _is_split_tables,
    _read_fer2013,
    _read_fer_plus,
    _read_split_tables,
    _vote_table,
)
from fer_utils.data.layouts.yolo import has_yolo, read_yolo


@dataclass(frozen=True)
class Layout:
    """A reader: its name, what it looks for (told when nothing fits), how it recognises and reads a tree."""

    name: str
    looks_for: str
    recognise: Callable[[Tree], bool]
    read: Callable[[Tree, int], Raw]


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
