"""Lists that name pictures, with a label or votes for each, and parquet files that hold the pictures too."""

from __future__ import annotations

from collections import defaultdict
from functools import lru_cache
from operator import itemgetter

import numpy as np

from fer_utils.competition import DataError
from fer_utils.data.cells import read_column, read_votes, sample_ids
from fer_utils.data.files.tree import Tree, below_split, folder_split, locate, stem
from fer_utils.data.labels import canonical, split_of, vote_label
from fer_utils.data.layouts.parts import Listed, Raw, read_listed

UNKNOWN = "unknown"  # the split of a row whose usage names none


@lru_cache(maxsize=1)
def _counted_lists(tree: Tree) -> dict[str, tuple[int, str]]:
    """How many pictures the lists of `find_lists` name, and the lists, by split."""
    found: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for name, table in tree.tables.items():
        image, split = table.column("image"), _list_split(name)
        if image is None or table.pixels or image == table.column("label"):
            continue
        if not table.is_labelled and split != "test":
            continue
        try:
            listed, usage = read_column(table, "image"), set(map(split_of, read_column(table, "usage")))
        except DataError as error:  # torn; told where nothing else can be read
            tree.unreadable[name] = str(error)
            continue
        if split != "test" and usage and "train" not in usage:
            continue
        files = {file for file in locate(listed, tree.images, split) if file}
        if not files or len(files) < len(set(listed)) / 2:
            continue
        if split is not None or {folder_split(file) for file in files} != {"test"}:
            found[split or "train"].append((len(files), name))
    # Of equally long ones, that nearest the top, as `tree.tables` has them.
    chosen = {split: max(lists, key=itemgetter(0)) for split, lists in found.items()}
    return chosen if "train" in chosen else {}


def find_lists(tree: Tree) -> dict[str, str]:
    """The tables that name pictures, by split: a labelled one must be there, with its files.

    Of several for one split, the one that names most pictures counts; a list of test pictures alone, such as
    the predictions of another day, is none to train on.
    """
    return {split: name for split, (_, name) in _counted_lists(tree).items()}


def count_listed(tree: Tree) -> int:
    """The pictures that the list for training names."""
    return _counted_lists(tree)["train"][0]


def _list_split(name: str) -> str | None:
    return split_of(stem(name)) or folder_split(name)


def read_lists(tree: Tree, size: int) -> Raw:
    """Read the pictures that lists name, and the test pictures that the sample submission asks for."""
    chosen = find_lists(tree)
    splits: dict[str, list[Listed]] = {}
    for split, name in chosen.items():
        for item_split, item in _list_items(tree, name, split):
            splits.setdefault(item_split, []).append(item)
    notes = [f"labels from {', '.join(chosen.values())}"]
    strangers = splits.pop(UNKNOWN, [])
    used = {item.file for items in splits.values() for item in items}
    if "test" not in splits and (test := _unlisted_test(tree, used)):
        splits["test"] = test
        used |= {item.file for item in test}
    if unused := len(set(tree.images) - used):
        notes.append(f"{unused:,} pictures are in no list and were not used")
    if differ := sum(_folder_differs(item) for items in splits.values() for item in items):
        notes.append(f"folder and list disagree on {differ:,} labels: the list was taken")
    raw = read_listed(tree, splits, size, notes)
    for item in strangers:
        raw.reject(None, item.place, "its usage names no split")
    votes = (tuple(tree.tables[name].votes) for name in chosen.values())
    raw.vote_names = next(filter(None, votes), ())
    return raw


def _list_items(tree: Tree, name: str, split: str) -> list[tuple[str, Listed]]:
    """The pictures that a table lists, with their splits; a row that names none is left out, as FER+ does."""
    table = tree.tables[name]
    names = read_column(table, "image")
    files = locate(names, _near(tree, name, split), split)
    votes: np.ndarray | None = None
    if table.votes:
        votes = read_votes(table)
        labels = [vote_label(row, list(table.votes)) for row in votes]
    else:
        labels = read_column(table, "label") or [None] * len(names)
    if usage := read_column(table, "usage"):
        splits = [split_of(cell) or UNKNOWN for cell in usage]
    elif _list_split(name) is None:
        splits = _splits_by_name(files, split)
    else:
        splits = [split] * len(names)
    return [
        (
            splits[row],
            Listed(
                file=files[row],
                label=labels[row],
                id=picture,
                place=files[row] or table.place(row),
                votes=() if votes is None else tuple(votes[row]),
            ),
        )
        for row, picture in enumerate(names)
        if picture
    ]


def _near(tree: Tree, name: str, split: str) -> list[str]:
    """The pictures that a list may mean: those in its own folder if that is a split's, else all."""
    if folder_split(name) != split:
        return tree.images
    home = name.rpartition("/")[0] + "/"
    return [image for image in tree.images if image.startswith(home)] or tree.images


def _splits_by_name(files: list[str | None], default: str) -> list[str]:
    """Splits from the folders or names of the files (RAF-DB's test_0001.jpg), if all of them tell."""
    splits = [file and (folder_split(file) or split_of(stem(file))) for file in files]
    told = {split for split, file in zip(splits, files, strict=True) if file}
    if None in told or "train" not in told:
        return [default] * len(files)
    return [split or default for split in splits]


def _unlisted_test(tree: Tree, used: set[str | None]) -> list[Listed]:
    """The test pictures that no table lists: those in test folders, else those the sample asks for."""
    free = [name for name in tree.images if name not in used]
    in_folders = [
        Listed(name, None, below_split(name), name) for name in free if folder_split(name) == "test"
    ]
    if in_folders or not tree.sample:
        return in_folders
    ids = sample_ids(tree.files[tree.sample])
    return [
        Listed(file, None, id_, file)
        for id_, file in zip(ids, locate(ids, free, "test"), strict=True)
        if file
    ]


def _folder_differs(item: Listed) -> bool:
    folder = canonical(item.file.split("/")[-2]) if item.file and "/" in item.file else None
    label = canonical(item.label) if item.label else None
    return None not in (folder, label) and folder != label
