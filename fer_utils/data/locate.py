"""Where the data is and which files belong to it: "auto", archives, a table with its images beside it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from fer_utils.competition import DataError
from fer_utils.data.files.archives import is_archive, opened
from fer_utils.data.files.tree import Tree, folder_split, scan, stem, unpacked
from fer_utils.data.labels import is_class_name, split_of
from fer_utils.data.layouts.registry import Layout, describe_unknown, find_layout, recognise
from fer_utils.data.tables import TEXT_SUFFIXES
from fer_utils.files import REPOSITORY

KAGGLE_INPUT = Path("/kaggle/input")
REPOSITORY_DATA = REPOSITORY / "data"


def open_data(
    path: Path, stack: ExitStack, layout: str, columns: Mapping[str, str]
) -> tuple[Tree, list[Layout]]:
    """The files at a path and the layouts they fit, the preferred one first. If something is missing,
    archives are opened until `stack` closes.

    Args:
        layout: "auto", or the name of the layout to use.
        columns: column names by role.

    Raises:
        DataError: no layout fits, or no table has a column of `columns`; the message lists what was found.
    """
    only = None if layout == "auto" else find_layout(layout)
    tree = _tree(stack.enter_context(opened(path)), columns)
    for depth in range(3):  # an archive may contain archives: fer2013.tar.gz in a zip
        tree = unpacked(tree, stack) if depth else tree
        layouts = recognise(tree) if only is None else [only] * bool(only.recognise(tree))
        if (layouts and not _archived_split(tree)) or not tree.archives:
            break
    for role, name in columns.items():
        if all(table.column(role) is None for table in tree.tables.values()):
            seen = "; ".join(f"{n}: {', '.join(t.columns[:8])}" for n, t in list(tree.tables.items())[:5])
            wrong = f"{path}: no table has a column {name!r} (columns, {role})"
            raise DataError(f"{wrong}. Seen: {seen or 'no table'}")
    if not layouts:
        raise DataError(describe_unknown(tree, str(path), only))
    return tree, layouts


def around(path: Path) -> Path:
    """The file or folder that `open_data` reads: the path, or the folder around a table that lists images."""
    if path.is_dir() or is_archive(path):
        return path
    table = Tree({path.name: path}).tables.get(path.name)
    return path if table is None or table.pixels else path.parent


def _tree(path: Path, columns: Mapping[str, str]) -> Tree:
    """The files of a folder; or a file alone, with the images and the sample beside it if it lists images."""
    if path.is_dir():
        return scan(path, columns)
    if around(path) == path:
        return Tree({path.name: path}, dict(columns))
    near = scan(path.parent, columns)
    names = {path.name, near.sample, *near.images} - {None}
    return Tree({name: file for name, file in near.files.items() if name in names}, dict(columns))


def _archived_split(tree: Tree) -> bool:
    """Whether an archive is named for a split that no folder or table is named for (Kaggle's test.zip)."""
    found = {split_of(stem(name)) for name in tree.tables} | {folder_split(name) for name in tree.images}
    return bool({split_of(stem(name)) for name in tree.archives} - found - {None})


def search_data() -> str | Path:
    """The data for "auto"; prints one line that says what was chosen."""
    if path := os.environ.get("FER_DATA"):
        print(f"data: {path} (from the environment variable FER_DATA)")
        return path
    for root in (KAGGLE_INPUT, REPOSITORY_DATA):
        if found := _candidates(root, set(), run_folders(root)) if root.is_dir() else []:
            others = f"; also there, not used: {', '.join(map(str, found[1:]))}" if found[1:] else ""
            print(f"data: {found[0]} (found below {root}{others})")
            return found[0]
    print(
        "data: DEMO FACES, NOT A COMPETITION: nothing readable in FER_DATA, "
        f"{KAGGLE_INPUT} or {REPOSITORY_DATA}; these faces are drawn by fer_utils.demo.dataset"
    )
    return "demo"


def run_folders(folder: Path) -> list[Path]:
    """Run folders, finished or not, at most five levels below `folder`, sorted; the output of another
    notebook, mounted as input, contains some."""
    found = []
    for parent, folders, files in os.walk(folder):
        if "config.json" in files and {"checkpoint.pt", "metrics.json"} & set(files):
            found.append(Path(parent))
        if len(Path(parent).relative_to(folder).parts) >= 5:
            folders.clear()
    return sorted(found)


def _candidates(folder: Path, visited: set[str], runs: list[Path]) -> list[Path]:
    """Folders and archives below `folder` that contain data, sorted, each as high up as it is one data set.
    Run folders among the inputs (the output of an earlier notebook) are left out."""
    if (real := os.path.realpath(folder)) in visited:  # a loop of links
        return []
    visited.add(real)
    above_runs = {parent for run in runs for parent in run.parents}
    entries = [
        entry
        for entry in sorted(folder.iterdir())
        if not entry.name.startswith(".")
        and entry not in runs
        and not (entry in above_runs and (entry / "submission.csv").is_file())  # an output with runs in it
    ]
    folders = [entry for entry in entries if entry.is_dir()]
    archives = [entry for entry in entries if is_archive(entry) and entry.is_file()]
    has_tables = any(entry.name.lower().endswith(TEXT_SUFFIXES[:2]) for entry in entries)
    has_splits = any(split_of(stem(e.name)) or is_class_name(e.name) for e in [*folders, *archives])
    # A folder with tables, splits or classes directly in it is one set; else each folder in it may be one.
    if (has_tables or has_splits) and (archives or recognise(scan(folder))):
        return [folder]
    found = [found for entry in folders for found in _candidates(entry, visited, runs)] + archives
    return found or [folder] * (folder not in above_runs and bool(recognise(scan(folder))))
