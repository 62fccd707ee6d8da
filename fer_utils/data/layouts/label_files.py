"""The label of an image in a file of its own: YOLO's text, webdataset's .cls, AffectNet's annotations."""

from __future__ import annotations

import numpy as np

from fer_utils.competition import DataError
from fer_utils.data.files.tree import Tree, stem


def _beside(name: str, *, suffix: str, folder: str = "") -> str:
    """The path of a file that belongs to an image: train/labels/a.txt for train/images/a.png."""
    folders = name.split("/")[:-1]
    if folder and folders[-1:] == ["images"]:
        folders[-1] = folder
    return "/".join([*folders, stem(name) + suffix])


def box_label(tree: Tree, name: str) -> str | None:
    """The class of the largest box in YOLO's text file (`class x y width height` a line)."""
    text = _beside(name, suffix=".txt", folder="labels")
    boxes = []
    for line in tree.files[text].read_text("utf-8", "replace").splitlines() if text in tree.files else ():
        words = line.split()
        try:
            boxes.append((float(words[3]) * float(words[4]), str(int(words[0]))))
        except (ValueError, IndexError):
            return None
    return max(boxes)[1] if boxes else None


def text_label(tree: Tree, name: str) -> str | None:
    """The class in a small text file beside the picture, as in webdataset's shards."""
    text = _beside(name, suffix=".cls")
    return tree.files[text].read_text("utf-8", "replace").strip()[:100] if text in tree.files else None


def annotation(tree: Tree, name: str) -> str | None:
    """The expression in AffectNet's annotation file, annotations/0_exp.npy (Mollahosseini et al. 2017)."""
    path = tree.files.get(_beside(name, suffix="_exp.npy", folder="annotations"))
    if path is None:
        return None
    try:
        value = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as a label: {error}") from error
    return str(value.reshape(-1)[0]) if value.size else None


# By the name of the column that they fill. The picture is used whole, whatever the boxes.
READERS = {
    "label file of the largest box": box_label,
    "label file .cls": text_label,
    "label file .npy": annotation,
}
