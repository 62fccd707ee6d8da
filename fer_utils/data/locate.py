"""Where the data lies and what of it belongs together: "auto", archives, a table with its pictures around."""

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
    """The files at a path and the layouts they fit, the preferred one first; archives are opened where
    something is missing, until `stack` closes.

    Args:
        layout: "auto", or the name of the only one to take.
        columns: the column's name for some roles.

    Raises:
        DataError: no layout fits; says what was seen.
    """
    only = None if layout == "auto" else find_layout(layout)

    def fitting(tree: Tree) -> list[Layout]:
        return recognise(tree) if only is None else [only] if only.recognise(tree) else []

    tree = _tree(stack.enter_context(opened(path)), columns)
    layouts = fitting(tree)
    for _ in range(2):  # fer2013.tar.gz in a zip
        if (layouts and not _archived_split(tree)) or not tree.archives:
            break
        tree = unpacked(tree, stack)
        layouts = fitting(tree)
    _check_columns(tree, columns, path)
    if not layouts:
        raise DataError(describe_unknown(tree, str(path), only))
    return tree, layouts


def _check_columns(tree: Tree, columns: Mapping[str, str], path: Path) -> None:
    for role, name in columns.items():
        if all(table.column(role) is None for table in tree.tables.values()):
            seen = "; ".join(f"{n}: {', '.join(t.columns[:8])}" for n, t in list(tree.tables.items())[:5])
            raise DataError(
                f"{path}: no table has a column {name!r} (columns, {role}). Seen: {seen or 'no table'}"
            )


def around(path: Path) -> Path:
    """What `open_data` looks at: the path, or the folder around a table that lists pictures."""
    if path.is_dir() or is_archive(path):
        return path
    alone = Tree({path.name: path})
    lists = path.name in alone.tables and not alone.tables[path.name].pixels
    return path.parent if lists else path


def _tree(path: Path, columns: Mapping[str, str]) -> Tree:
    """The files of a folder; of a table itself, with the folder around it if it only lists pictures."""
    if path.is_dir():
        return scan(path, columns)
    if around(path) == path:
        return Tree({path.name: path}, dict(columns))
    near = scan(path.parent, columns)
    names = {path.name, near.sample, *near.images} - {None}
    return Tree({name: file for name, file in near.files.items() if name in names}, dict(columns))


def _archived_split(tree: Tree) -> bool:
    """Whether an archive is named for a split that no folder or table holds (Kaggle's test.zip)."""
    held = {split_of(stem(name)) for name in tree.tables} | {folder_split(name) for name in tree.images}
    return bool({split_of(stem(name)) for name in tree.archives} - held - {None})


def search_data() -> str | Path:
    """The data that "auto" stands for; says in one line what was chosen."""
    if os.environ.get("FER_DATA"):
        path = os.environ["FER_DATA"]
        print(f"data: {path} (from the environment variable FER_DATA)")
        return path
    for root in (KAGGLE_INPUT, REPOSITORY_DATA):
        found = _candidates(root, set(), run_folders(root)) if root.is_dir() else []
        if found:
            others = f"; also there, not used: {', '.join(map(str, found[1:]))}" if found[1:] else ""
            print(f"data: {found[0]} (found below {root}{others})")
            return found[0]
    print(
        "data: DEMO FACES, NOT A COMPETITION: nothing readable in FER_DATA, "
        f"{KAGGLE_INPUT} or {REPOSITORY_DATA}; these faces are drawn by fer_utils.demo.dataset"
    )
    return "demo"


def run_folders(folder: Path) -> list[Path]:
    """Folders of trainings, finished or not, at most five floors below `folder`, sorted: a notebook's output
    that is mounted as input holds some."""
    found = []
    for parent, folders, files in os.walk(folder):
        if "config.json" in files and {"checkpoint.pt", "metrics.json"} & set(files):
            found.append(Path(parent))
        if len(Path(parent).relative_to(folder).parts) >= 5:
            folders.clear()
    return sorted(found)


def _candidates(folder: Path, visited: set[str], runs: list[Path]) -> list[Path]:
    """Folders and archives below `folder` that hold data, sorted, each as high up as it is one set. What
    trainings have left (an earlier notebook's output among the inputs) is none."""
    if (real := os.path.realpath(folder)) in visited:  # a loop of links
        return []
    visited.add(real)
    shown = (entry for entry in folder.iterdir() if not entry.name.startswith("."))
    entries = sorted(entry for entry in shown if not _is_output(entry, runs))
    folders = [entry for entry in entries if entry.is_dir()]
    archives = [entry for entry in entries if is_archive(entry) and entry.is_file()]
    has_tables = any(entry.name.lower().endswith(TEXT_SUFFIXES[:2]) for entry in entries)
    has_splits = any(
        split_of(stem(entry.name)) or is_class_name(entry.name) for entry in [*folders, *archives]
    )
    # A folder whose own entries tell splits is one set; otherwise each folder in it may be one.
    if (has_tables or has_splits) and (archives or recognise(scan(folder))):
        return [folder]
    found = [found for entry in folders for found in _candidates(entry, visited, runs)] + archives
    if found or any(folder in run.parents for run in runs):
        return found
    return [folder] if recognise(scan(folder)) else []


def _is_output(folder: Path, runs: list[Path]) -> bool:
    """Whether a notebook left this folder: a run, or what lies above runs beside their submission."""
    above = any(folder in run.parents for run in runs)
    return folder in runs or (above and (folder / "submission.csv").is_file())
