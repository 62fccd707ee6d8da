"""Pictures whose own names, or a text file beside each of them, tell the expression."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from functools import lru_cache
from pathlib import PurePosixPath

import yaml

from fer_utils.faces import DataError
from fer_utils.formats import class_map
from fer_utils.labels import as_int, canonical, split_of
from fer_utils.parts import Listed, Raw, read_listed, usable
from fer_utils.trees import Tree, below_split, folder_split, stem

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


# ---------------------------------------------------------------- YOLO


def _yolo_text(name: str) -> str | None:
    """Where the labels of a picture lie: train/images/a.png has train/labels/a.txt."""
    parts = list(PurePosixPath(name).parts)
    if "images" not in parts[:-1]:
        return None
    place = len(parts) - 1 - parts[::-1].index("images")
    return PurePosixPath(*parts[:place], "labels", *parts[place + 1 :]).with_suffix(".txt").as_posix()


@lru_cache(maxsize=1)
def named_classes(tree: Tree) -> dict[int, str] | None:
    """What integer labels mean, where a file tells: {"0": "angry"} in JSON, `names` in YOLO's data.yaml, or a
    word a line in classes.txt and the like."""
    names = [name for name in tree.files if _may_name_classes(name)]
    for name in sorted(names, key=lambda n: (n.count("/"), n)):
        path, kind = tree.files[name], PurePosixPath(name).suffix.lower()
        try:
            if path.stat().st_size > 2**14:
                continue
            text = path.read_text(encoding="utf-8-sig", errors="replace")
            if kind == ".json":
                found = class_map(json.loads(text))
            elif kind in (".yaml", ".yml"):
                content = yaml.safe_load(text)
                found = _yaml_names(content.get("names") if isinstance(content, dict) else None)
            else:
                found = _listed_names(text)
        except (ValueError, OSError, RecursionError, yaml.YAMLError):
            continue
        if found:
            return found
    return None


def _may_name_classes(name: str) -> bool:
    """Whether a look inside is worth it: a data set for YOLO has a text file for every picture."""
    if name.lower().endswith((".json", ".yaml", ".yml")):
        return True
    telling = re.search("class|label|names|emotion|categor", stem(name).lower())
    return name.lower().endswith((".txt", ".names")) and telling is not None


def _yaml_names(names: object) -> dict[int, str] | None:
    if isinstance(names, list):
        names = dict(enumerate(names))
    if not isinstance(names, dict) or not 2 <= len(names) <= 1000:
        return None
    # Aliases of YAML make a few lines into gigabytes of text.
    plain = all(isinstance(code, int) and isinstance(word, (str, int, float)) for code, word in names.items())
    return {code: str(word) for code, word in names.items()} if plain else None


def _listed_names(text: str) -> dict[int, str] | None:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    words = [re.sub(r"^\d+\s*[:,. ]\s*", "", line) for line in lines]
    codes = [as_int(re.match(r"\d*", line)[0]) for line in lines]
    if not 2 <= len(words) <= 100 or sum(canonical(word) is not None for word in words) < 0.7 * len(words):
        return None
    return dict(zip(range(len(words)) if None in codes else codes, words, strict=True))


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
