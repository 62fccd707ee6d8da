"""The label of an image in a file of its own, beside it or in a folder of labels or annotations."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from fer_utils.data.files.file_index import Tree, stem

_FOLDERS = ("labels", "annotations", "Annotations")
# CK+ (Lucey et al. 2010): Emotion/S005/001/S005_001_00000011_emotion.txt holds the number of an expression,
# for the last image of a sequence in another folder.
_CK_PLUS = re.compile(r"(S\d{3}_\d{3}_\d{8})_emotion\.txt")
_CK_CODES = dict(enumerate(("neutral", "angry", "contempt", "disgust", "fear", "happy", "sad", "surprise")))
_CORNERS = ("xmin", "ymin", "xmax", "ymax")


def box_label(path: Path) -> str | None:
    """The class of the largest box in YOLO's text file (`class x y width height` a line)."""
    boxes = [line.split() for line in path.read_text("utf-8", "replace").splitlines()]
    return _largest(([0.0, 0.0, float(box[3]), float(box[4])], str(int(box[0]))) for box in boxes)


def _largest(outlines: Iterable[tuple[list[float], str]]) -> str | None:
    """The label of the largest of outlines x, y, x, y, ..."""
    found = [((max(o[::2]) - min(o[::2])) * (max(o[1::2]) - min(o[1::2])), label) for o, label in outlines]
    return max(found)[1].strip() if found else None


def xml_label(path: Path) -> str | None:
    """The object with the largest box in Pascal VOC's annotation (Everingham et al. 2010)."""
    objects = ElementTree.parse(path).getroot().findall("object")
    return _largest(
        ([float(o.findtext(f"bndbox/{c}")) for c in _CORNERS], o.findtext("name")) for o in objects
    )


def json_label(path: Path) -> str | None:
    """The largest shape in labelme's annotation."""
    shapes = json.loads(path.read_bytes())["shapes"]
    return _largest(([float(x) for point in s["points"] for x in point], s["label"]) for s in shapes)


def text_label(path: Path) -> str | None:
    """The class in a small text file, as in webdataset's shards."""
    return path.read_text("utf-8", "replace").strip()[:100]


def annotation(path: Path) -> str | None:
    """The expression in AffectNet's annotations/0_exp.npy (Mollahosseini et al. 2017)."""
    value = np.load(path, allow_pickle=False)
    return str(value.reshape(-1)[0]) if value.size else None


# By the end of the file's name. The image is used whole, whatever the boxes.
READERS = {
    ".txt": box_label,
    ".xml": xml_label,
    ".json": json_label,
    ".cls": text_label,
    "_exp.npy": annotation,
}


def ck_plus_labels(tree: Tree) -> dict[str, str | None]:
    """The expressions of CK+'s images that are there, by their names; None for a file that holds none."""
    found = ((name, _CK_PLUS.fullmatch(name.rpartition("/")[2])) for name in tree.files)
    files = {match[1]: tree.files[name] for name, match in found if match}
    peaks = {name: files[stem(name)] for name in tree.images if stem(name) in files}
    return {name: _ck_plus_label(path) for name, path in peaks.items()}


def _ck_plus_label(path: Path) -> str | None:
    try:
        return _CK_CODES.get(float(path.read_text("utf-8", "replace")))  # 3.0000000e+00
    except ValueError:
        return None


def file_label(tree: Tree, name: str, suffix: str) -> str | None:
    """The label of an image in its own file with this end: train/images/a.txt or train/labels/a.txt for
    train/images/a.png; None if there is none, or the file holds something else: then the image is listed as
    one without a label."""
    *folders, _ = name.split("/")
    places = [folders, *([*folders[:-1], folder] for folder in _FOLDERS)]
    names = ("/".join([*place, stem(name) + suffix]) for place in places)
    path = next((tree.files[name] for name in names if name in tree.files), None)
    try:
        return path and READERS[suffix](path)
    except (ElementTree.ParseError, OSError, ValueError, TypeError, LookupError, AttributeError):
        return None
