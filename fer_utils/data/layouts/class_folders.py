"""Class folders: pictures whose folders tell their labels, with or without folders for the splits."""

from __future__ import annotations

from collections import Counter, defaultdict
from functools import lru_cache

from fer_utils.data.files.tree import Tree, below_split
from fer_utils.data.labels import canonical, is_class_name, split_of
from fer_utils.data.layouts.parts import Listed, Raw, read_listed, usable

# A folder of an unknown name beside class folders is a class only if it holds such a share of the largest.
SHARE_OF_A_CLASS = 0.05


def _class_item(name: str) -> tuple[str, str | None, Listed]:
    """The data set (folders above the split), split and label that a picture's folders tell."""
    *folders, _ = name.split("/")
    named = [i for i, folder in enumerate(folders) if split_of(folder)]
    first, last = (named[0], named[-1]) if named else (0, -1)
    below = folders[last + 1 :]
    # train/happy/subject1/1.png: a known word wins, then a number, then what stands nearest the split.
    known = [f for f in below if canonical(f)] or [f for f in below if is_class_name(f)] or below[:1]
    split = split_of(folders[last]) if named else None
    item = Listed(name, known[-1] if known else None, below_split(name), name)
    return "/".join(folders[:first]), split, item


@lru_cache(maxsize=1)
def find_class_folders(tree: Tree) -> tuple[dict[str, list[Listed]], list[str]]:
    """The pictures by split, and the data sets beside the one chosen; nothing without two classes."""
    found: dict[str, dict[str | None, list[Listed]]] = defaultdict(lambda: defaultdict(list))
    for name in tree.images:
        home, split, item = _class_item(name)
        found[home][split].append(item)
    leads = [home for home in found if _is_labelled(found[home].get("train", []), any_name=True)]
    if leads:
        lead, *others = sorted(leads, key=lambda home: (home.count("/") + bool(home), home))
        homes = [lead, *sorted(set(found) - set(leads))]
        splits = {}
        for split in ("train", "valid", "test"):
            splits[split] = next((found[home][split] for home in homes if found[home].get(split)), [])
    else:
        # One root without a training folder: everything outside of the other splits is for training.
        splits, others = {split or "train": items for split, items in found[""].items()}, []
        if not _is_labelled(splits.get("train", []), any_name=False):
            return {}, []
        splits["train"] = _without_strangers(splits["train"])
    return {split: items for split, items in splits.items() if items}, others


def _is_labelled(items: list[Listed], any_name: bool) -> bool:
    labels = {item.label for item in items} - {None}
    return len(labels if any_name else {label for label in labels if is_class_name(label)}) >= 2


def _without_strangers(items: list[Listed]) -> list[Listed]:
    """Without folders such as docs/ that hold a figure or two."""
    counts = Counter(item.label for item in items if item.label)
    enough = SHARE_OF_A_CLASS * max(counts.values())
    return [i for i in items if i.label and (is_class_name(i.label) or counts[i.label] >= enough)]


def has_class_folders(tree: Tree) -> bool:
    """Whether at least two folders of training pictures are named for classes."""
    return bool(find_class_folders(tree)[0])


def read_class_folders(tree: Tree, size: int) -> Raw:
    """Read the pictures, the folder of each as its label; test pictures may lie flat."""
    splits, others = find_class_folders(tree)
    splits = usable(splits)
    notes = [f"also there, not used: {', '.join(others)}"] if others else []
    unused = len(tree.images) - sum(map(len, splits.values()))
    if unused and not others:
        notes.append(f"{unused:,} pictures lie in no class folder and were not used")
    return read_listed(tree, splits, size, notes)
