"""YOLO: a text file of boxes beside each picture."""

from __future__ import annotations

from collections import defaultdict
from pathlib import PurePosixPath

from fer_utils.competition import DataError
from fer_utils.data.class_names import named_classes
from fer_utils.data.files.tree import Tree, below_split, folder_split
from fer_utils.data.labels import as_int
from fer_utils.data.layouts.parts import Listed, Raw, read_listed, usable


def _yolo_text(name: str) -> str | None:
    """Where the labels of a picture lie: train/images/a.png has train/labels/a.txt."""
    parts = list(PurePosixPath(name).parts)
    if "images" not in parts[:-1]:
        return None
    place = len(parts) - 1 - parts[::-1].index("images")
    return PurePosixPath(*parts[:place], "labels", *parts[place + 1 :]).with_suffix(".txt").as_posix()


def has_yolo(tree: Tree) -> bool:
    """Whether most pictures have a text file of labels and a YAML file names the classes."""
    texts = [text for name in tree.images[:50] if (text := _yolo_text(name))]
    return (
        bool(texts)
        and sum(t in tree.files for t in texts) > len(texts) / 2
        and named_classes(tree) is not None
    )


def read_yolo(tree: Tree, size: int) -> Raw:
    """Read whole pictures, each with the class of its largest box (`class x y width height` a line)."""
    names = named_classes(tree)
    splits: dict[str, list[Listed]] = defaultdict(list)
    several = 0
    for name in tree.images:
        text = _yolo_text(name)
        boxes = _boxes(tree, text) if text in tree.files else []
        several += len(boxes) > 1
        code = max(boxes, key=lambda box: box[1])[0] if boxes else None
        if code is not None and code not in names:
            raise DataError(f"{text} names class {code}, which the file of class names does not have")
        split = folder_split(name) or "train"
        # Without a box there is no label.
        label = None if code is None else names[code]
        splits[split].append(Listed(name, label, below_split(name), name))
    splits = usable(splits)
    unused = len(tree.images) - sum(map(len, splits.values()))
    notes = [
        "labels from a text file beside each picture; the pictures are taken whole, not cut to the boxes"
    ]
    if unused:
        notes.append(f"{unused:,} pictures outside of the test split have no box and were not used")
    if several:
        notes.append(f"{several:,} pictures have several boxes: the largest one counts")
    return read_listed(tree, splits, size, notes)


def _boxes(tree: Tree, text: str) -> list[tuple[int, float]]:
    """The class and the area of each line of a label file."""
    boxes = []
    for line in tree.files[text].read_text(encoding="utf-8", errors="replace").splitlines():
        words = line.split()
        code = as_int(words[0]) if words else None
        try:
            area = float(words[3]) * float(words[4]) if len(words) >= 5 else 0.0
        except ValueError:
            area = 0.0
        if code is not None:
            boxes.append((code, area))
    return boxes
