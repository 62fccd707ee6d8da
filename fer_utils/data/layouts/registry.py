"""The layouts of a competition's data: for each a rule that recognises it by content, and a reader."""

from __future__ import annotations

import difflib
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

from fer_utils.competition import DataError
from fer_utils.data.files.tree import Tree
from fer_utils.data.layouts import (
    arrays,
    class_folders,
    fer2013,
    fer_plus,
    file_names,
    image_lists,
    parquet_images,
    pixel_tables,
    yolo,
)
from fer_utils.data.layouts.raw_data import RawData


@dataclass(frozen=True)
class Layout:
    """A layout: its name, what it looks for (printed if nothing fits), how to recognise and to read it."""

    name: str
    looks_for: str
    recognise: Callable[[Tree], bool]
    read: Callable[[Tree, int], RawData]


# In order of preference.
LAYOUTS = tuple(
    Layout(name, looks_for, module.recognise, module.read)
    for name, module, looks_for in (
        ("FER+ votes", fer_plus, "fer2013.csv and beside it fer2013new.csv with votes for every row"),
        ("fer2013.csv", fer2013, "a table with columns emotion, pixels and Usage"),
        ("pixel tables", pixel_tables, "train.csv with labels and pixels (one column or many), and test.csv"),
        ("parquet pictures", parquet_images, "parquet files with encoded pictures and labels (Hugging Face)"),
        ("image list", image_lists, "a table with an image and a label column (or votes), and its images"),
        ("class folders", class_folders, "train/<class>/ with pictures, at least two classes"),
        ("YOLO labels", yolo, "images/, labels/ with a text file per picture, data.yaml with class names"),
        ("arrays", arrays, ".npy, .npz or .mat files with pictures and labels: x_train.npy and y_train.npy"),
        ("labels in file names", file_names, "pictures named happy_01.png, or by the codes of JAFFE, KDEF"),
    )
)


def recognise(tree: Tree) -> list[Layout]:
    """The layouts that fit the tree, the preferred one first."""
    fitting = [layout for layout in LAYOUTS if layout.recognise(tree)]
    names = [layout.name for layout in fitting]
    if {"image list", "class folders"} <= set(names):
        in_folders = len(class_folders.find_class_folders(tree)[0]["train"])
        listed, _ = image_lists.find_lists(tree)["train"]
        if in_folders > 2 * listed:  # a list of a few of the images is not the labels of all
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
    """The message if no layout fits, or not the one named: what was seen, level by level, what could not be
    read, and what was looked for."""
    levels: dict[int, list[str]] = defaultdict(list)
    for name in sorted(tree.files):
        parts = name.split("/")
        for depth in range(min(len(parts), 4)):
            entry = "/".join(parts[: depth + 1]) + ("/" if depth + 1 < len(parts) else "")
            if entry not in levels[depth][-1:]:
                levels[depth].append(entry)
    seen = [", ".join(names[:6] + [f"... ({len(names):,})"] * (len(names) > 6)) for names in levels.values()]
    sections = {
        "The tables hold:": [f"{n}: columns {', '.join(t.columns[:8])}" for n, t in tree.tables.items()][:5],
        "Not readable:": list(tree.unreadable.values())[:5],
        "Looked for:": [f"{layout.name}: {layout.looks_for}" for layout in ([only] if only else LAYOUTS)],
    }
    what = f"not the layout {only.name!r}" if only else "no known layout"
    lines = [f"{source}: {what}. Seen:", *(f"  {line}" for line in seen or ["nothing"])]
    for title, found in sections.items():
        lines += [title, *(f"  {line}" for line in found)] if found else []
    return "\n".join(lines)
