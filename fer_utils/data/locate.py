"""Where the data is and which files belong to it: "auto", archives, a table with its images beside it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from fer_utils.competition import DataError
from fer_utils.data.decode_images import ImageFormat
from fer_utils.data.files.archives import is_archive, opened
from fer_utils.data.files.file_index import Tree, folder_split, scan, stem, unpacked
from fer_utils.data.known_expressions_and_splits import PREDICTED, canonical, is_class_name, normal, split_of
from fer_utils.data.layouts.found_pictures import FOLDERS
from fer_utils.data.layouts.registry import describe_unknown, propose
from fer_utils.data.roles.class_name_files import named_classes
from fer_utils.data.roles.decide_roles import Understanding, understand
from fer_utils.data.roles.user_options import UserOptions
from fer_utils.data.tables import TABLE_SUFFIXES, TEXT_SUFFIXES, is_sample
from fer_utils.files import REPOSITORY

KAGGLE_INPUT = Path("/kaggle/input")
REPOSITORY_DATA = REPOSITORY / "data"


def open_data(path: Path, stack: ExitStack, said: UserOptions) -> tuple[Understanding, list[str]]:
    """What lies at a path: the one reading of it that is proven, and notes on others. If something is
    missing, archives are opened until `stack` closes.

    Raises:
        DataError: nothing fits, several readings do, or no table has a column that a person named; the
            message lists what was found and says what decides.
    """
    tree = _tree(stack.enter_context(opened(path)), said.columns)
    for depth in range(3):  # an archive may contain archives: fer2013.tar.gz in a zip
        tree = unpacked(tree, stack) if depth else tree
        found, errors = _understood(tree, said)
        if (found and not _archived_split(tree)) or not tree.archives:
            break
    _check_columns(tree, said, path)
    if not found:
        raise DataError(f"{path}: {errors[0]}" if errors else describe_unknown(tree, str(path), said.layout))
    chosen = _proven(found, path)
    _check_tables_of_labels(tree, chosen, path)
    used = chosen.pictures.tables_or_files()
    unused = [name for name, table in tree.tables.items() if table.holds_images and name not in used]
    unused += tree.samples[1:]
    notes = [f"also there, not used: {', '.join(sorted(unused)[:5])}"] if unused else []
    others = [o.layout for o in found if o is not chosen and o.pictures.tables_or_files() & used]
    notes += [f"also recognised, not used: {name} (layout={name!r})" for name in dict.fromkeys(others)]
    notes += _beside(path, tree)
    return chosen, [*notes, *(f"not opened: {name}" for name in tree.archives)]


def _beside(path: Path, tree: Tree) -> list[str]:
    """A note on tables of other splits, and samples, beside a file that was given alone."""
    if path.is_dir() or is_archive(path):
        return []
    names = sorted(entry.name for entry in path.parent.iterdir() if entry.name not in tree.files)
    names = [name for name in names if name.lower().endswith(TABLE_SUFFIXES)]
    names = [name for name in names if split_of(stem(name)) or is_sample(name)]
    return [f"beside it, not read: {', '.join(names[:5])} (its folder as data reads all)"] if names else []


def _understood(tree: Tree, said: UserOptions) -> tuple[list[Understanding], list[DataError]]:
    """All readings of the files, and why others were refused."""
    found, errors = [], []
    try:
        proposals = propose(tree, said.layout)
    except DataError as error:
        return [], [error]
    named = named_classes(tree) if proposals else {}
    for pictures in proposals:
        try:
            found.append(understand(pictures, tree.sample_table, named, said))
        except DataError as error:
            errors.append(error)
    return [result for result in found if result], errors


def _proven(found: list[Understanding], path: Path) -> Understanding:
    """The reading that explains the data: the one whose test images the sample names, or the one that holds
    the training images of the others.

    Raises:
        DataError: two readings explain different images equally well.
    """
    proven: list[Understanding] = []
    for one in [one for one in found if one.form and one.form.source != "default"] or found:
        # Of the same images, the preferred reading.
        if not any(one.pictures.tables_or_files() & other.pictures.tables_or_files() for other in proven):
            proven.append(one)
    chosen = max(proven, key=lambda one: sum(map(len, one.rows.values())))
    for other in proven:
        if other is not chosen and not _holds(chosen, other):
            layouts = f"layout={chosen.layout!r} or layout={other.layout!r} decides, or "
            raise DataError(
                f"{path}: two data sets lie there, {_counted(chosen)} and {_counted(other)}. "
                f"{layouts if chosen.layout != other.layout else ''}name one of their folders or files"
            )
    return chosen


def _check_tables_of_labels(tree: Tree, chosen: Understanding, path: Path) -> None:
    """Raise a DataError if the classes are folders of numbers, while a table that names no image has
    expressions: the folders may be clips or persons."""
    if chosen.layout != FOLDERS or any(map(canonical, chosen.coding.class_names)):
        return
    n, lists = sum(map(len, chosen.rows.values())), set(chosen.pictures.parts)
    for name, table in tree.tables.items():
        is_other = table.holds_images or name in lists or PREDICTED.search(stem(name).lower())
        if is_other or len(table.frame) * len(chosen.coding.class_names) < n:
            continue
        for column in table.frame:
            cells = [cell for cell in table.frame[column].tolist() if cell]
            if len(cells) > len({*cells}) > 1 and all(map(canonical, cells)):
                raise DataError(
                    f"{path}: {name} has expressions in its column {column!r}, but does not say for which "
                    "images. Add a column with the files' names; or, if the folders "
                    f"{', '.join(map(str, chosen.coding.label_values[:3]))}, ... are the classes, move it "
                    "elsewhere"
                )


def _counted(one: Understanding) -> str:
    tables = sorted(set(one.pictures.parts) - {""})
    files = [file for file in one.pictures.files if file]
    of = f" of {', '.join(tables[:2])}" if tables else f" below {files[0].split('/')[0]}/" if files else ""
    return f"{one.layout}{of} ({sum(map(len, one.rows.values())):,} images)"


def _holds(one: Understanding, other: Understanding) -> bool:
    """Whether the training images of `other` are all among those of `one`."""
    digests = []
    for reading in (one, other):
        rows = [row for split in ("train", "valid") for row in reading.rows.get(split, ())]
        rows = rows if reading is one else rows[:: max(1, len(rows) // 200)]
        digests.append({image.tobytes() for image in reading.pictures.read(rows, ImageFormat(48))[0]})
    return digests[1] <= digests[0]


def _check_columns(tree: Tree, said: UserOptions, path: Path) -> None:
    known = {column for table in tree.tables.values() for column in table.columns}
    for role, name in said.columns.items():
        if normal(name) not in known and not normal(name).startswith(("folder", "file name", "label file")):
            seen = "; ".join(f"{n}: {', '.join(t.columns[:8])}" for n, t in list(tree.tables.items())[:5])
            wrong = f"{path}: no table has a column {name!r} (columns, {role})"
            raise DataError(f"{wrong}. Seen: {seen or 'no table'}")


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
    """Whether an archive is named for a split that no image lies in (Kaggle's test.zip)."""
    tables = [name for name, table in tree.tables.items() if table.holds_images]
    found = {split_of(stem(name)) for name in tables} | {folder_split(name) for name in tree.images}
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


def _is_data(tree: Tree) -> bool:
    """Whether there are images with labels, or data that are refused for a reason."""
    return any(t.holds_images for t in tree.tables.values()) or any(_understood(tree, UserOptions()))


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
    if (has_tables or has_splits) and (archives or _is_data(scan(folder))):
        return [folder]
    found = [found for entry in folders for found in _candidates(entry, visited, runs)] + archives
    return found or [folder] * (folder not in above_runs and bool(_is_data(scan(folder))))
