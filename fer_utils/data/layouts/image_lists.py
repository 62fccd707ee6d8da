"""Image lists: tables that name image files, with a label or votes for each."""

from __future__ import annotations

from collections import defaultdict
from functools import lru_cache

from fer_utils.competition import DataError
from fer_utils.data.cells import read_column, read_votes, sample_ids
from fer_utils.data.files.tree import Tree, below_split, folder_split, locate, stem
from fer_utils.data.labels import canonical, split_of, vote_label
from fer_utils.data.layouts.raw_data import ImageFile, RawData, read_image_files

UNKNOWN = "unknown"  # the split of a row whose usage names none


def recognise(tree: Tree) -> bool:
    """Whether a table with labels or votes names images that are there."""
    return bool(find_lists(tree))


def read(tree: Tree, size: int) -> RawData:
    """Read the images that lists name, and the test images that the sample submission names."""
    lists = {split: name for split, (_, name) in find_lists(tree).items()}
    splits: dict[str, list[ImageFile]] = defaultdict(list)
    for split, name in lists.items():
        for item_split, item in _list_items(tree, name, split):
            splits[item_split].append(item)
    unknown = splits.pop(UNKNOWN, [])
    used = {item.file for items in splits.values() for item in items}
    if "test" not in splits and (test := _unlisted_test(tree, used)):
        splits["test"] = test
        used |= {item.file for item in test}
    notes = [f"labels from {', '.join(lists.values())}"]
    if unused := len(set(tree.images) - used):
        notes.append(f"{unused:,} pictures are in no list and were not used")
    if differ := sum(_folder_differs(item) for items in splits.values() for item in items):
        notes.append(f"folder and list disagree on {differ:,} labels: the list was taken")
    raw = read_image_files(tree, splits, size, notes)
    for item in unknown:
        raw.reject(None, item.place, "its usage names no split")
    raw.vote_names = next((tuple(v) for name in lists.values() if (v := tree.tables[name].votes)), ())
    return raw


@lru_cache(maxsize=1)
def find_lists(tree: Tree) -> dict[str, tuple[int, str]]:
    """The tables that name images, by split: how many images, and the table; empty without a labelled one.

    Of several for one split, the one that names most images counts; a list of test images alone, such as
    earlier predictions, is none to train on.
    """
    found: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for name, table in tree.tables.items():
        image, split = table.column("image"), table_split(name)
        usable = table.is_labelled or split == "test"
        if image in (None, table.column("label")) or table.pixels or not usable:
            continue
        try:
            listed, usage = read_column(table, "image"), set(map(split_of, read_column(table, "usage")))
        except DataError as error:  # damaged; reported if no layout fits
            tree.unreadable[name] = str(error)
            continue
        files = {file for file in locate(listed, tree.images, split) if file}
        if (split != "test" and usage and "train" not in usage) or len(files) < max(1, len(set(listed)) / 2):
            continue
        if split is not None or {folder_split(file) for file in files} != {"test"}:
            found[split or "train"].append((len(files), name))
    # Of equally long ones, that nearest the top, as `tree.tables` has them.
    chosen = {split: max(lists, key=lambda counted: counted[0]) for split, lists in found.items()}
    return chosen if "train" in chosen else {}


def table_split(name: str) -> str | None:
    """The split that the name of a table gives, or its folder."""
    return split_of(stem(name)) or folder_split(name)


def _list_items(tree: Tree, name: str, split: str) -> list[tuple[str, ImageFile]]:
    """The images that a table lists, with their splits; a row that names none is left out, as in FER+."""
    table = tree.tables[name]
    names = read_column(table, "image")
    # In the folder of a split, a list means the images of that folder if there are any.
    home = f"{name.rpartition('/')[0]}/" if folder_split(name) == split else ""
    files = locate(names, [n for n in tree.images if n.startswith(home)] or tree.images, split)
    if table.votes:
        votes = list(map(tuple, read_votes(table)))
        labels = [vote_label(row, list(table.votes)) for row in votes]
    else:
        votes, labels = [()] * len(names), read_column(table, "label") or [None] * len(names)
    if usage := read_column(table, "usage"):
        splits = [split_of(cell) or UNKNOWN for cell in usage]
    elif table_split(name) is None:
        splits = _splits_by_name(files, split)
    else:
        splits = [split] * len(names)
    places = [file or table.place(row) for row, file in enumerate(files)]
    items = map(ImageFile, files, labels, names, places, votes)
    return [pair for pair in zip(splits, items, strict=True) if pair[1].id]


def _splits_by_name(files: list[str | None], default: str) -> list[str]:
    """Splits from the folders or names of the files (RAF-DB's test_0001.jpg), if all of them name one."""
    splits = [file and (folder_split(file) or split_of(stem(file))) for file in files]
    named = {split for split, file in zip(splits, files, strict=True) if file}
    if None in named or "train" not in named:
        return [default] * len(files)
    return [split or default for split in splits]


def _unlisted_test(tree: Tree, used: set[str | None]) -> list[ImageFile]:
    """The test images that no table lists: those in test folders, else those the sample submission names."""
    free = [name for name in tree.images if name not in used]
    if in_folders := [name for name in free if folder_split(name) == "test"]:
        return [ImageFile(name, None, below_split(name), name) for name in in_folders]
    ids = sample_ids(tree.files[tree.sample]) if tree.sample else []
    files = locate(ids, free, "test")
    return [ImageFile(file, None, id_, file) for id_, file in zip(ids, files, strict=True) if file]


def _folder_differs(item: ImageFile) -> bool:
    folder = canonical(item.file.split("/")[-2]) if item.file and "/" in item.file else None
    label = canonical(item.label) if item.label else None
    return None not in (folder, label) and folder != label
