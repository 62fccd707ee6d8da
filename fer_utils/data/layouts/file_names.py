"""Labels in file names: happy_01.png, or the codes of JAFFE and KDEF."""

from __future__ import annotations

import re
from collections import defaultdict

from fer_utils.data.files.tree import Tree, below_split, folder_split, stem
from fer_utils.data.labels import canonical, split_of
from fer_utils.data.layouts.raw_data import ImageFile, RawData, drop_unlabelled, read_image_files

MIN_LABELLED = 0.95  # the share of training images whose names hold an expression

# KA.AN1.39 (Lyons et al. 1998) and AF01ANS (Lundqvist, Flykt and Oehman 1998).
_JAFFE = re.compile(r"[A-Z]{2}\.(AN|DI|FE|HA|SA|SU|NE)\d\.\d+")
_KDEF = re.compile(r"[AB][FM]\d\d(AF|AN|DI|HA|NE|SA|SU)(?:S|HL|HR|FL|FR)")
_CODES = {
    **{"AN": "angry", "DI": "disgust", "FE": "fear", "AF": "fear", "HA": "happy"},
    **{"SA": "sad", "SU": "surprise", "NE": "neutral"},
}


def recognise(tree: Tree) -> bool:
    """Whether nearly all training images have an expression in their names."""
    return bool(_splits(tree))


def read(tree: Tree, size: int) -> RawData:
    """Read images by the labels in their names; test images may have none."""
    splits = drop_unlabelled(_splits(tree))
    notes = ["labels from the names of the pictures"]
    if unused := len(tree.images) - sum(map(len, splits.values())):
        notes.append(f"{unused:,} pictures have no expression in their names and were not used")
    return read_image_files(tree, splits, size, notes)


def _splits(tree: Tree) -> dict[str, list[ImageFile]]:
    sample = [n for n in tree.images[:: max(1, len(tree.images) // 200)] if folder_split(n) != "test"]
    if sum(_label(name) is None for name in sample) > len(sample) / 2:  # a quick no for most data sets
        return {}
    splits: dict[str, list[ImageFile]] = defaultdict(list)
    for name in tree.images:
        split = folder_split(name) or split_of(stem(name)) or "train"
        splits[split].append(ImageFile(name, _label(name), below_split(name), name))
    train = splits.get("train", [])
    labels = [item.label for item in train if item.label]
    return splits if len(set(labels)) >= 2 and len(labels) >= MIN_LABELLED * len(train) else {}


def _label(name: str) -> str | None:
    """The expression in a file name; None if there is none or several."""
    base = stem(name)
    if match := _JAFFE.fullmatch(base) or _KDEF.fullmatch(base):
        return _CODES[match[1]]
    labels = {canonical(word) for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+", base)} - {None}
    return labels.pop() if len(labels) == 1 else None
