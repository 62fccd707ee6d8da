"""YOLO labels: a text file of boxes beside each image."""

from __future__ import annotations

from collections import defaultdict
from pathlib import PurePosixPath

from fer_utils.competition import DataError
from fer_utils.data.class_names import named_classes
from fer_utils.data.files.tree import Tree, below_split, folder_split
from fer_utils.data.labels import as_int
from fer_utils.data.layouts.raw_data import ImageFile, RawData, drop_unlabelled, read_image_files


def recognise(tree: Tree) -> bool:
    """Whether most images have a text file of labels and a YAML file names the classes."""
    texts = [text for name in tree.images[:50] if (text := _text_file(name))]
    found = sum(text in tree.files for text in texts)
    return found > len(texts) / 2 and named_classes(tree) is not None


def read(tree: Tree, size: int) -> RawData:
    """Read whole images, each with the class of its largest box (`class x y width height` a line)."""
    names = named_classes(tree)
    splits: dict[str, list[ImageFile]] = defaultdict(list)
    several = 0
    for name in tree.images:
        text = _text_file(name)
        boxes = _boxes(tree, text) if text in tree.files else []
        several += len(boxes) > 1
        code = max(boxes, key=lambda box: box[1])[0] if boxes else None
        if code is not None and code not in names:
            raise DataError(f"{text} names class {code}, which the file of class names does not have")
        label = None if code is None else names[code]
        splits[folder_split(name) or "train"].append(ImageFile(name, label, below_split(name), name))
    splits = drop_unlabelled(splits)
    notes = ["labels from a text file beside each picture; whole pictures are used, not cut to the boxes"]
    if unused := len(tree.images) - sum(map(len, splits.values())):
        notes.append(f"{unused:,} pictures outside of the test split have no box and were not used")
    if several:
        notes.append(f"{several:,} pictures have several boxes: the largest one counts")
    return read_image_files(tree, splits, size, notes)


def _text_file(name: str) -> str | None:
    """Where the labels of an image lie: train/images/a.png has train/labels/a.txt."""
    before, images, after = f"/{name}".rpartition("/images/")
    return PurePosixPath(f"{before}/labels/{after}"[1:]).with_suffix(".txt").as_posix() if images else None


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
