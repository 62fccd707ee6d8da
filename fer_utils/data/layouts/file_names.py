"""Pictures whose own names, or a text file beside each of them, tell the expression."""

from __future__ import annotations

import re
from collections import defaultdict

from fer_utils.data.files.tree import Tree, below_split, folder_split, stem
from fer_utils.data.labels import canonical, split_of
from fer_utils.data.layouts.parts import Listed, Raw, read_listed, usable

MOST = 0.95  # of the pictures must tell their expression, else their names mean something else

# KA.AN1.39 (Lyons et al. 1998) and AF01ANS (Lundqvist, Flykt and Oehman 1998).
_JAFFE = re.compile(r"[A-Z]{2}\.(AN|DI|FE|HA|SA|SU|NE)\d\.\d+")
_KDEF = re.compile(r"[AB][FM]\d\d(AF|AN|DI|HA|NE|SA|SU)(?:S|HL|HR|FL|FR)")
_CODES = {
    **{"AN": "angry", "DI": "disgust", "FE": "fear", "AF": "fear", "HA": "happy"},
    **{"SA": "sad", "SU": "surprise", "NE": "neutral"},
}


def _named_label(name: str) -> str | None:
    """The expression that a file name tells; None if it tells none or several."""
    base = stem(name)
    for pattern in (_JAFFE, _KDEF):
        if match := pattern.fullmatch(base):
            return _CODES[match[1]]
    words = re.findall(r"[A-Z]?[a-z]+|[A-Z]+", base)
    told = {canonical(word) for word in words} - {None}
    return told.pop() if len(told) == 1 else None


def _named_splits(tree: Tree) -> dict[str, list[Listed]]:
    splits: dict[str, list[Listed]] = defaultdict(list)
    some = [n for n in tree.images[:: max(1, len(tree.images) // 200)] if folder_split(n) != "test"]
    if sum(_named_label(name) is None for name in some) > len(some) / 2:  # mostly so, and quickly seen
        return {}
    for name in tree.images:
        split = folder_split(name) or split_of(stem(name)) or "train"
        splits[split].append(Listed(name, _named_label(name), below_split(name), name))
    labels = [item.label for item in splits.get("train", [])]
    told = [label for label in labels if label]
    return splits if len(set(told)) >= 2 and len(told) >= MOST * len(labels) else {}


def has_named_pictures(tree: Tree) -> bool:
    """Whether nearly all training pictures tell their expression by their names."""
    return bool(_named_splits(tree))


def read_named_pictures(tree: Tree, size: int) -> Raw:
    """Read pictures by the labels in their names; test pictures may have none."""
    splits = usable(_named_splits(tree))
    notes = ["labels from the names of the pictures"]
    if unused := len(tree.images) - sum(map(len, splits.values())):
        notes.append(f"{unused:,} pictures tell no expression by their names and were not used")
    return read_listed(tree, splits, size, notes)
