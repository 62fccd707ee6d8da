"""Images in files of their own, with all that names them: lists, folders, file names, label files."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import PurePosixPath

import pandas as pd

from fer_utils.data.decode_images import ImageFormat, read_files
from fer_utils.data.files.file_index import Tree, below_split, stem
from fer_utils.data.known_expressions_and_splits import canonical, split_of
from fer_utils.data.layouts.found_pictures import (
    FOLDERS,
    LABEL_FILES,
    LISTS,
    NAMES,
    Decoded,
    Pictures,
    stacked,
)
from fer_utils.data.layouts.image_lists import listed
from fer_utils.data.layouts.label_file_per_image import READERS, ck_plus_labels, file_label

LOOKS_FOR = {
    LISTS: "a table with an image and a label column (or votes), and its images",
    FOLDERS: "train/<class>/ with images, at least two classes",
    LABEL_FILES: "a file per image: YOLO's labels/1.txt, VOC's 1.xml, labelme's 1.json, 1.cls, 1_exp.npy",
    NAMES: "images named happy_01.png, or by the codes of JAFFE, KDEF",
}
MOST_LEVELS = 6  # of folders that are looked at
# Forms of images that Pillow cannot open by itself; some programs write images without a suffix.
_UNREAD = (".heic", ".heif", ".jxl", ".dng", ".cr2", ".nef", ".arw", ".raw", ".svg", ".psd", "")
_TEXTS = re.compile(
    "read.?me|licen[cs]e|copying|changelog|authors|notice|version|makefile|todo", re.IGNORECASE
)

# KA.AN1.39 (Lyons et al. 1998) and AF01ANS (Lundqvist, Flykt and Oehman 1998).
_JAFFE = re.compile(r"(?P<person>[A-Z]{2})\.(?P<code>AN|DI|FE|HA|SA|SU|NE)\d\.\d+")
_KDEF = re.compile(r"[AB](?P<person>[FM]\d\d)(?P<code>AF|AN|DI|HA|NE|SA|SU)(S|HL|HR|FL|FR)")
# S005_001_00000011: the eleventh image of a sequence (CK+, Lucey et al. 2010).
_CK_PLUS = re.compile(r"(?P<person>S\d{3})_\d{3}_\d{8}")
# Rafd090_01_Caucasian_female_angry_frontal (Langner et al. 2010).
_RAFD = re.compile(r"Rafd\d{3}_(?P<person>\d\d)_")
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
    if peaks := ck_plus_labels(tree):
        notes.append(f"CK+: {len(images) - len(peaks):,} images without a label file were left out")
        images = [name for name in images if name in peaks]
    notes += _unread(tree)
    return [_pictures(tree, some, notes + _put_together(some)) for some in _data_sets(images, homes)]


def _unread(tree: Tree) -> list[str]:
    """A note on files beside the images that seem to be images too."""
    folders = {name.rpartition("/")[0] for name in tree.images}
    others = [n for n in tree.files if PurePosixPath(n).suffix.lower() in _UNREAD]
    others = sorted(n for n in others if n.rpartition("/")[0] in folders and not _TEXTS.fullmatch(stem(n)))
    some = f"not read: {len(others):,} files beside the images, such as {others[0]}" if others[1:] else ""
    return [f"{some} (images? save them as PNG)"] if some else []


def _put_together(images: list[str]) -> list[str]:
    """A note on folders for training at several places, as a copy of an image may lie in each."""
    found = set()
    for name in images:
        parts = name.split("/")
        first = next((i for i, part in enumerate(parts[:-1]) if split_of(part)), None)
        is_in_class = bool(first) and canonical(parts[first - 1]) is not None  # angry/train, happy/train
        if first is not None and split_of(parts[first]) == "train" and not is_in_class:
            found.add("/".join(parts[: first + 1]))
    return [f"training images lie in {', '.join(sorted(found)[:5])}"] if len(found) > 1 else []


def _pictures(tree: Tree, images: list[str], notes: list[str]) -> Pictures:
    lists, divided = listed(tree, images, notes)
    taken = {file for one in lists for file in one.files}
    free = [name for name in images if name not in taken]
    files = [*(file for one in lists for file in one.files), *free]
    parts = [*(divided.get(file, one.table.name) for one in lists for file in one.files), *[""] * len(free)]
    entries = [(one.table, *row) for one in lists for row in zip(one.rows.index, one.files, strict=True)]
    places = [*(file or table.place(row) for table, row, file in entries), *free]
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

    if "subject" not in rows and (persons := _persons(files)):
        rows["subject"] = pd.Series(persons, dtype=object)
        notes.append("subject: the person in each file name, as in JAFFE, KDEF, CK+ and RaFD")
    named = {one.column for one in lists}
    more = {"image_column": named.pop() if len(named) == 1 else "", "notes": notes}
    return Pictures(LISTS, rows, parts, places, ids, read, files, layouts, **more)


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
    if peaks := ck_plus_labels(tree):
        columns.append(("label file _emotion.txt", LABEL_FILES, [file and peaks.get(file) for file in files]))
    for suffix in READERS:
        if 2 * sum(name.endswith(suffix) for name in tree.files) <= len(files):
            continue  # too few to label most images
        labels = [file_label(tree, file, suffix) if file else None for file in files]
        if sum(label is not None for label in labels) * 2 > len(labels):
            columns.append((f"label file {suffix}", LABEL_FILES, labels))
    return columns


def _persons(files: list[str | None]) -> list[str] | None:
    """The persons in file names of JAFFE, KDEF, CK+ or RaFD, of whom each has several images; an image of
    another name has a person of its own. None if most have."""
    persons, known = [], 0
    for row, file in enumerate(files):
        found = (form.match(stem(file or "")) for form in (_JAFFE, _KDEF, _CK_PLUS, _RAFD))
        match = next(filter(None, found), None)
        persons.append(match["person"] if match else f"image {row}")
        known += match is not None
    return persons if 2 * known > len(files) else None


def name_label(name: str) -> str | None:
    """The expression in a file name; None if there is none or several."""
    base = stem(name)
    if match := _JAFFE.fullmatch(base) or _KDEF.fullmatch(base):
        return _CODES[match["code"]]
    words = [word for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+", base) if canonical(word)]
    return words[0] if len(set(map(canonical, words))) == 1 else None
