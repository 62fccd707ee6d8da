"""Class folders: the folder of an image is its label, with or without folders for the splits."""

from __future__ import annotations

from collections import Counter, defaultdict
from functools import lru_cache

from fer_utils.data.files.tree import Tree, below_split
from fer_utils.data.labels import canonical, is_class_name, split_of
from fer_utils.data.layouts.raw_data import ImageFile, RawData, drop_unlabelled, read_image_files

# A folder of an unknown name beside class folders is a class only if it holds such a share of the largest.
SHARE_OF_A_CLASS = 0.05


def recognise(tree: Tree) -> bool:
    """Whether at least two folders of training images are named for classes."""
    return bool(find_class_folders(tree)[0])


def read(tree: Tree, size: int) -> RawData:
    """Read the images, the folder of each as its label; test images may lie flat."""
    splits, others = find_class_folders(tree)
    splits = drop_unlabelled(splits)
    notes = [f"also there, not used: {', '.join(others)}"] if others else []
    unused = len(tree.images) - sum(map(len, splits.values()))
    if unused and not others:
        notes.append(f"{unused:,} pictures lie in no class folder and were not used")
    return read_image_files(tree, splits, size, notes)


@lru_cache(maxsize=1)
def find_class_folders(tree: Tree) -> tuple[dict[str, list[ImageFile]], list[str]]:
    """The images by split, and the data sets beside the one chosen; nothing without two classes."""
    found: dict[str, dict[str | None, list[ImageFile]]] = defaultdict(lambda: defaultdict(list))
    for name in tree.images:
        home, split, item = _class_item(name)
        found[home][split].append(item)
    leads = [home for home in found if len(_labels(found[home].get("train", []))) >= 2]
    if leads:
        lead, *others = sorted(leads, key=lambda home: (home.count("/") + bool(home), home))
        homes = [lead, *sorted(set(found) - set(leads))]
        splits = {
            split: next((found[home][split] for home in homes if found[home].get(split)), [])
            for split in ("train", "valid", "test")
        }
    else:
        # One root without a training folder: everything outside of the other splits is for training.
        splits, others = {split or "train": items for split, items in found[""].items()}, []
        if sum(map(is_class_name, _labels(splits.get("train", [])))) < 2:
            return {}, []
        splits["train"] = _without_strangers(splits["train"])
    return {split: items for split, items in splits.items() if items}, others


def _class_item(name: str) -> tuple[str, str | None, ImageFile]:
    """The data set (the folders above the split), the split and the label in an image's path."""
    folders = name.split("/")[:-1]
    named = [i for i, folder in enumerate(folders) if split_of(folder)]
    first, last = (named[0], named[-1]) if named else (0, -1)
    below = folders[last + 1 :]
    # train/happy/subject1/1.png: a known word wins, then a number, then the folder nearest the split.
    known = [f for f in below if canonical(f)] or [f for f in below if is_class_name(f)] or below[:1]
    split = split_of(folders[last]) if named else None
    item = ImageFile(name, known[-1] if known else None, below_split(name), name)
    return "/".join(folders[:first]), split, item


def _labels(items: list[ImageFile]) -> set[str]:
    return {item.label for item in items if item.label is not None}


def _without_strangers(items: list[ImageFile]) -> list[ImageFile]:
    """Without folders such as docs/ that hold a figure or two."""
    counts = Counter(item.label for item in items if item.label)
    enough = SHARE_OF_A_CLASS * max(counts.values())
    return [i for i in items if i.label and (is_class_name(i.label) or counts[i.label] >= enough)]
