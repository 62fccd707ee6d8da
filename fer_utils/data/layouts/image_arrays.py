"""Images in arrays, with their labels, recognised by their shapes and names."""

from __future__ import annotations

import math
import re
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from fer_utils.competition import DataError
from fer_utils.data.decode_images import MID_GREY
from fer_utils.data.files.file_index import Tree, folder_split
from fer_utils.data.known_expressions_and_splits import normal, split_of
from fer_utils.data.layouts.found_pictures import TOGETHER, Pictures, reader, stacked
from fer_utils.data.layouts.npy_mat_hdf5 import describe, form_of
from fer_utils.data.pixel_strings import is_image, square_of
from fer_utils.data.tables import read_as_written

LAYOUT = "arrays"
LOOKS_FOR = {
    LAYOUT: ".npy, .npz, .mat, HDF5 or IDX files with images and labels: x_train.npy and y_train.npy"
}
_LABEL_WORDS = {"y", "label", "labels", "emotion", "emotions", "target", "targets", "class", "classes"}
MAX_ARRAYS = 500  # some data sets hold an array per image

# The axes of image arrays by their number: N images of H x W and C colours, or of F numbers.
_AXES = {2: ("NF", "FN"), 3: ("NHW", "HWN"), 4: ("NHWC", "NCHW", "HWCN", "HWNC")}


@dataclass(frozen=True)
class Array:
    """An array in a file, described without reading its values.

    Attributes:
        name: of the file in the tree; key: of the array in the file, "" in .npy.
        shape, kind: as in numpy ("u", "i", "f", "b", "U", "S").
        read: its values; only numbers and text.
    """

    name: str
    path: Path
    key: str
    shape: tuple[int, ...]
    kind: str
    read: Callable[[], np.ndarray]

    def __str__(self) -> str:
        return f"{self.name}[{self.key}]" if self.key else self.name

    @property
    def words(self) -> set[str]:
        """The words of its name, in lower case; those of its file if the array has no name."""
        return _words(self.path.stem if self.is_unnamed or not self.key else self.key)

    @property
    def is_label(self) -> bool:
        """Whether its name says that it holds labels: y_train, flabels."""
        return not (self.is_unnamed and self.axes) and any(
            word in _LABEL_WORDS or word.endswith(("label", "labels")) for word in self.words
        )

    @property
    def is_unnamed(self) -> bool:
        """Whether numpy numbered it, as in np.savez("train.npz", X, y)."""
        return re.fullmatch(r"arr_\d+", self.key) is not None

    @property
    def is_other(self) -> tuple[bool, int]:
        """Whether labels are of something else than expressions, by their names."""
        more = self.words - _LABEL_WORDS - {"train", "test", "val", "valid", "tr", "te"}
        is_told = self.words & {"emotion", "emotions", "expression", "expressions"}
        return not is_told, len(more)

    @property
    def split(self) -> str | None:
        """The split in its name, else in its file's, else in its folder's."""
        if "t10k" in self.path.name.lower():  # MNIST's name for its test
            return "test"
        return split_of(_spaced(self.key)) or split_of(_spaced(self.path.stem)) or folder_split(self.name)

    @property
    def axes(self) -> str | None:
        """Its axes in order, such as NHW; None if these are no images."""
        if self.kind not in "uif":
            return None
        usual = -1 if form_of(self.path) == ".mat" else 0  # MATLAB counts images along the last axis
        for form in sorted(_AXES.get(len(self.shape), ()), key=lambda form: form[usual] != "N"):
            size = dict(zip(form, self.shape, strict=True))
            if "F" in size:
                fits = is_image(size["F"]) and (form[usual] == "N" or self.split is not None)
            else:
                fits = size["H"] == size["W"] >= 8 and size.get("C", 1) in (1, 3)
            if fits:
                return form
        return None

    @property
    def n(self) -> int:
        """The number of images, or of labels."""
        if self.axes:
            return self.shape[self.axes.index("N")]
        return max(self.shape) if min(self.shape, default=0) == 1 else next(iter(self.shape), 0)

    @cached_property
    def pictures(self) -> tuple[np.ndarray, dict[int, str]]:
        """Its images as uint8 [N, 1 or 3, S, S], and why any are broken, by position."""
        values = np.moveaxis(self.read(), self.axes.index("N"), 0)
        axes = self.axes.replace("N", "")
        if axes == "F":
            side, channels = square_of(values.shape[1])
            values, axes = values.reshape(-1, side, side, channels), "HWC"
        values = np.moveaxis(values, 1 + axes.index("C"), 1) if "C" in axes else values[:, None]
        if values.dtype == np.uint8:
            return values, {}
        missing = np.isnan(values).any((1, 2, 3)) if self.kind == "f" else np.zeros(len(values), bool)
        images, scale = np.empty(values.shape, np.uint8), _scale(values, self)
        for k in range(0, len(values), TOGETHER):
            images[k : k + TOGETHER] = np.nan_to_num(values[k : k + TOGETHER] * scale).round()
        images[missing] = MID_GREY
        return images, dict.fromkeys(np.flatnonzero(missing).tolist(), "a pixel is not a number")


def propose(tree: Tree) -> list[Pictures]:
    """The arrays of all splits together; of several for the test all, or the one as long as the sample."""
    splits = _find_splits(arrays := _find_arrays(tree))
    if not splits:
        return []
    tests = splits.get("test", [])
    if len(tests) > 1 and tree.sample_table:
        n_rows = len(read_as_written(tree.sample_table))
        splits["test"] = [pair for pair in tests if pair[0].n == n_rows][:1] or tests
    # Public tests go before private or hidden ones.
    splits.get("test", []).sort(key=lambda pair: ("public" not in pair[0].name.lower(), pair[0].name))
    pairs = [(split, *pair) for split, found in splits.items() for pair in found]
    named = {split: [str(a) for pair in found for a in pair if a] for split, found in splits.items()}
    notes = [f"{split} from {', '.join(names)}" for split, names in named.items()]
    notes += [f"not readable, not used: {reason}" for reason in tree.unreadable.values()]
    used = {array for _, *pair in pairs for array in pair}
    columns = {images: _beside(images, [a for a in arrays if a not in used]) for _, images, _ in pairs}
    used |= {array for found in columns.values() for array in found}
    if ignored := [array for array in arrays if array not in used]:
        notes.append(f"also there, not used: {', '.join(map(str, ignored))}")
    if not tests:
        _check_unnamed(ignored, [images for _, images, _ in pairs])
    return [_pictures(pairs, columns, notes)]


def _check_unnamed(ignored: Sequence[Array], used: Sequence[Array]) -> None:
    """Raise a DataError if, without a test split, an array is left of images like those used, but not as
    many: it may be the test."""
    for array in ignored:
        alike = [other for other in used if array.axes and _size(array) == _size(other)]
        if alike and array.n not in {other.n for other in used}:
            raise DataError(
                f"{array} holds {array.n:,} images like those of {alike[0]}, and nothing says what for: call "
                "it X_test if they are the test, or move it elsewhere"
            )


def _size(array: Array) -> dict[str, int]:
    return {axis: n for axis, n in zip(array.axes, array.shape, strict=True) if axis != "N"}


def described(tree: Tree) -> list[str]:
    """What the arrays of a tree are, for messages."""
    kinds = {"u": "integers", "i": "integers", "f": "numbers", "b": "true or false", "U": "text", "S": "text"}
    shapes = ((array, " x ".join(map(str, array.shape))) for array in _find_arrays(tree))
    return [f"{array}: {shape} {kinds.get(array.kind, array.kind)}" for array, shape in shapes]


def _beside(images: Array, others: Sequence[Array]) -> list[Array]:
    """The arrays in the file or the folder of `images` that hold a number or a word for each of them, such as
    its split or its id."""
    return [
        other
        for other in others
        if (other.path == images.path if images.key else other.path.parent == images.path.parent)
        and (len(other.shape), other.n) == (1, images.n)
        and other.kind in "iuUSb"
        and (other.split == images.split or None in (other.split, images.split))
    ]


def _pictures(
    pairs: list[tuple[str, Array, Array | None]], columns: Mapping[Array, list[Array]], notes: list[str]
) -> Pictures:
    frames = []
    for split, images, labels in pairs:
        # Where no name says it, an array beside may.
        said = split if images.split else None
        frames.append(pd.DataFrame({"split of the array": [said] * images.n}))
        for other in columns[images]:
            frames[-1][normal(other.key or other.path.stem)] = _label_words(other)
        if labels is not None:
            frames[-1]["label"] = _label_words(labels)
    places = [f"{images} image {row + 1}" for _, images, _ in pairs for row in range(images.n)]
    ids = [str(row) for _, images, _ in pairs for row in range(images.n)]
    parts = [images.key or images.path.stem for _, images, _ in pairs for _ in range(images.n)]
    sources = [images for _, images, _ in pairs]
    read = reader([images.n for images in sources], sources)
    return Pictures(LAYOUT, stacked(frames), parts, places, ids, read, notes=notes)


def _spaced(name: str) -> str:
    """Xtrain, ytrain and modXtest with a mark between their words."""
    return re.sub(r"(^[xy]|X|Y)(?=train|test|val)", r"\1_", name)


def _words(name: str) -> set[str]:
    return {word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+", _spaced(name))}


def _find_arrays(tree: Tree) -> list[Array]:
    """All arrays in the files of a tree, by name; a file that is broken, cut off or holds pickled Python
    objects is left out and reported in `tree.unreadable`."""
    found = []
    for name in sorted(name for name in tree.files if form_of(name))[:MAX_ARRAYS]:
        path = tree.files[name]
        try:
            found += [Array(name, path, *described) for described in describe(path)]
        except DataError as error:
            tree.unreadable[name] = str(error).replace(str(path), name)
    return found


def _find_splits(arrays: list[Array]) -> dict[str, list[tuple[Array, Array | None]]]:
    """The arrays of images by split, each with its labels (None if it has none); empty without labelled
    training images."""
    images = [array for array in arrays if array.axes and not array.is_label and array.n]
    # Of arrays that numpy numbered, images and their labels are known only where they are alone in a file.
    numbered = Counter((a.path, a in images) for a in arrays if a.is_unnamed)
    images = [a for a in images if not a.is_unnamed or numbered[a.path, True] == 1]
    others = [a for a in arrays if a.axes is None and a.kind in "uifUSb"]
    alone = [a for a in others if a.is_unnamed and numbered[a.path, False] == 1]
    named = [a for a in others if a.is_label and not a.is_unnamed]
    named += [a for a in alone if a.is_label or numbered[a.path, True] == 1]
    labels = [a for a in named if len(a.shape) == 1 or (len(a.shape) == 2 and min(a.shape) <= 64)]
    splits: dict[str, list[tuple[Array, Array | None]]] = {}
    for array in images:
        if (array.words | _words(array.path.stem)) & {"unlabeled", "unlabelled"}:
            continue
        # Labels in the same file go first, then those in the same folder.
        mate = min(
            (other for other in labels if other.n == array.n and other.split == array.split),
            key=lambda other: (
                *other.is_other,
                other.path != array.path,
                other.path.parent != array.path.parent,
                other.name,
            ),
            default=None,
        )
        split = array.split or ("train" if mate else None)
        if split == "valid" and mate is None:
            split = "test"
        if split == "test" or (split and mate):
            splits.setdefault(split, []).append((array, mate))
    return splits if "train" in splits else {}


def _scale(values: np.ndarray, array: Array) -> int:
    """The factor that turns its values into grey levels from 0 to 255."""
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    is_unclear = array.kind == "f" and 1 < high <= 16  # 0 to 1 and a little more, or very dark
    if low < 0 or high > 255 or is_unclear:
        raise DataError(f"{array} holds values from {low:g} to {high:g}: pixels must be 0 to 255, or 0 to 1")
    return 255 if array.kind == "f" and high <= 1 else 1


def _label_words(labels: Array) -> list[str]:
    """The labels as text; for one-hot rows the number of the largest column."""
    values = np.asarray(labels.read())
    if values.ndim == 2 and min(values.shape) > 1:
        if not np.allclose(values.astype(np.float64).sum(1), 1):
            raise DataError(
                f"{labels} has {values.shape[1]} columns that are not one-hot: which one is the label?"
            )
        values = values.argmax(1)
    values = np.ascontiguousarray(values.reshape(-1))
    kind, order = values.dtype.kind, values.dtype.byteorder
    if kind == "U" and values.view(f"{order}u4").max(initial=0) > sys.maxunicode:
        raise DataError(f"{labels} holds bytes that are not text: the file is damaged")
    if kind == "S":
        return [value.decode("utf-8", "replace") for value in values.tolist()]
    if kind == "f":
        return ["" if math.isnan(value) else f"{value:g}" for value in values.tolist()]
    return [str(int(value)) if kind == "b" else str(value).strip() for value in values.tolist()]
