"""Arrays: .npy, .npz and MATLAB's .mat, recognised by their shapes and names.

Nothing is unpickled, and the size that a header states is checked before memory is allocated.
"""

from __future__ import annotations

import math
import re
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from fer_utils.competition import DataError
from fer_utils.data.cells import read_frame
from fer_utils.data.files.archives import check_growth
from fer_utils.data.files.tree import Tree, folder_split
from fer_utils.data.images import MID_GREY, resize, to_grey
from fer_utils.data.labels import split_of
from fer_utils.data.layouts.raw_data import RawData, RawSplit, concatenate
from fer_utils.data.tables import is_picture, open_table

_LABEL_WORDS = {"y", "label", "labels", "emotion", "emotions", "target", "targets", "class", "classes"}
_BLOCK = 2048  # images converted at a time, so that no copy in float64 fills the memory

# The axes of image arrays by their number: N images of H x W and C colours, or of F numbers.
_AXES = {2: ("NF", "FN"), 3: ("NHW", "HWN"), 4: ("NHWC", "NCHW", "HWCN", "HWNC")}


@dataclass(frozen=True)
class Array:
    """An array in a file, described without reading its values.

    Attributes:
        name: of the file in the tree; key: of the array in the file, "" in .npy.
        shape, kind: as in numpy ("u", "i", "f", "b", "U", "S").
    """

    name: str
    path: Path
    key: str
    shape: tuple[int, ...]
    kind: str

    def __str__(self) -> str:
        return f"{self.name}[{self.key}]" if self.key else self.name

    @property
    def form(self) -> str:  # .npy, .npz or .mat
        return self.path.suffix.lower()

    @property
    def words(self) -> set[str]:
        """The words of its name, in lower case; those of its file if the array has no name."""
        return _words(self.key or self.path.stem)

    @property
    def split(self) -> str | None:
        """The split in its name, else in its file's, else in its folder's."""
        if self.words & {"tr", "trn"}:
            return "train"
        return split_of(_spaced(self.key)) or split_of(_spaced(self.path.stem)) or folder_split(self.name)

    @property
    def axes(self) -> str | None:
        """Its axes in order, such as NHW; None if these are no images."""
        if self.kind not in "uif":
            return None
        usual = -1 if self.form == ".mat" else 0  # MATLAB counts images along the last axis
        for form in sorted(_AXES.get(len(self.shape), ()), key=lambda form: form[usual] != "N"):
            size = dict(zip(form, self.shape, strict=True))
            if "F" in size:
                fits = is_picture(size["F"]) and (form[usual] == "N" or self.split is not None)
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

    def read(self) -> np.ndarray:
        """Its values; only numbers and text."""
        with _array_errors(self.path):
            if self.form == ".mat":
                from scipy.io import loadmat  # here, since scipy takes long to import

                return loadmat(self.path, variable_names=[self.key])[self.key]
            loaded = np.load(self.path, mmap_mode="r", allow_pickle=False)
            if self.form == ".npy":
                return loaded
            with loaded:
                return loaded[self.key]


def recognise(tree: Tree) -> bool:
    """Whether there are arrays of images with labels to train on."""
    return bool(_find_splits(_find_arrays(tree)))


def read(tree: Tree, size: int) -> RawData:
    """Read the splits; of several test arrays all, or the one as long as the sample submission."""
    splits = _find_splits(arrays := _find_arrays(tree))
    raw, tests, used = RawData(), splits.get("test", []), []
    if len(tests) > 1 and tree.sample:
        n_rows = len(read_frame(open_table(tree.files[tree.sample])))
        splits["test"] = [pair for pair in tests if pair[0].n == n_rows][:1] or tests
    # Public tests go before private or hidden ones.
    splits.get("test", []).sort(key=lambda pair: ("public" not in pair[0].name.lower(), pair[0].name))
    for split, pairs in splits.items():
        parts = [_read_split(images, labels, split, size, raw) for images, labels in pairs]
        raw.splits[split] = concatenate(parts, [images.key or images.path.stem for images, _ in pairs])
        names = [array for pair in pairs for array in pair if array]
        raw.notes.append(f"{split} from {', '.join(map(str, names))}")
        used += names
    raw.notes.extend(f"not readable, not used: {reason}" for reason in tree.unreadable.values())
    if ignored := [str(array) for array in arrays if array not in used]:
        raw.notes.append(f"also there, not used: {', '.join(ignored)}")
    return raw


def _spaced(name: str) -> str:
    """Xtrain and ytrain with a mark between their words."""
    return re.sub(r"^([xyXY])(?=train|test|val)", r"\1_", name)


def _words(name: str) -> set[str]:
    return {word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+", _spaced(name))}


@contextmanager
def _array_errors(path: Path) -> Iterator[None]:
    """Turn errors of numpy's and scipy's readers into a DataError that names the file."""
    try:
        yield
    except DataError:
        raise
    except NotImplementedError as error:  # scipy's error for MATLAB 7.3
        raise DataError(f"{path}: this version of .mat is not read: save it with save(..., '-v7')") from error
    except Exception as error:  # a broken file makes them fail anywhere
        raise DataError(f"{path} cannot be read as arrays: {error}") from error


def _find_arrays(tree: Tree) -> list[Array]:
    """All arrays in the files of a tree, by name; a file that is broken, cut off or holds pickled Python
    objects is left out and reported in `tree.unreadable`."""
    found = []
    for name in sorted(n for n in tree.files if n.lower().endswith((".npy", ".npz", ".mat"))):
        path = tree.files[name]
        try:
            with _array_errors(path):
                found += [Array(name, path, *header) for header in _headers(path)]
        except DataError as error:
            tree.unreadable[name] = str(error).replace(str(path), name)
    return found


def _headers(path: Path) -> Iterator[tuple[str, tuple[int, ...], str]]:
    """The key, shape and kind of every array in a file."""
    size, form = path.stat().st_size, path.suffix.lower()
    if form == ".npy":
        with open(path, "rb") as file:
            yield "", *_npy_header(file, path, "", size)
    elif form == ".npz":
        with zipfile.ZipFile(path) as archive:
            check_growth(path, sum(member.file_size for member in archive.infolist()), size)
            for member in archive.infolist():
                if member.filename.endswith(".npy"):
                    with archive.open(member) as file:
                        key = member.filename.removesuffix(".npy")
                        yield key, *_npy_header(file, path, f" ({key})", member.file_size)
    else:
        from scipy.io import whosmat  # here, since scipy takes long to import

        kinds = {"char": "U", "logical": "b", "single": "f", "double": "f"}
        listed = [(key, shape, kind) for key, shape, kind in whosmat(path) if shape]
        # At most eight bytes for each number.
        check_growth(path, sum(8 * int(np.prod(shape, dtype=object)) for _, shape, _ in listed), size)
        for key, shape, kind in listed:
            yield key, shape, kinds.get(kind, "i" if "int" in kind else "O")


def _npy_header(file: BinaryIO, path: Path, where: str, size: int) -> tuple[tuple[int, ...], str]:
    npy = np.lib.format
    first = npy.read_magic(file) == (1, 0)
    shape, _, dtype = npy.read_array_header_1_0(file) if first else npy.read_array_header_2_0(file)
    if dtype.hasobject:
        raise DataError(
            f"{path}{where} holds pickled Python objects, which could run any code and are never loaded: "
            "save plain arrays of numbers or text"
        )
    promised = int(np.prod(shape, dtype=object)) * dtype.itemsize
    if promised > size - file.tell():
        raise DataError(f"{path}{where} promises {promised:,} bytes and holds fewer: it is cut off")
    return shape, dtype.kind


def _find_splits(arrays: list[Array]) -> dict[str, list[tuple[Array, Array | None]]]:
    """The arrays of images by split, each with its labels (None if it has none); empty without labelled
    training images."""
    images = [array for array in arrays if array.axes and not array.words & _LABEL_WORDS and array.n]
    named = [a for a in arrays if a not in images and a.words & _LABEL_WORDS and a.kind in "uifUSb"]
    labels = [a for a in named if len(a.shape) == 1 or (len(a.shape) == 2 and min(a.shape) <= 64)]
    splits: dict[str, list[tuple[Array, Array | None]]] = {}
    for array in images:
        if (array.words | _words(array.path.stem)) & {"unlabeled", "unlabelled"}:
            continue
        # Labels in the same file go first, then those in the same folder.
        mate = min(
            (other for other in labels if other.n == array.n and other.split == array.split),
            key=lambda other: (other.path != array.path, other.path.parent != array.path.parent, other.name),
            default=None,
        )
        split = array.split or ("train" if mate else None)
        if split == "valid" and mate is None:
            split = "test"
        if split == "test" or (split and mate):
            splits.setdefault(split, []).append((array, mate))
    return splits if "train" in splits else {}


def _read_split(array: Array, labels: Array | None, split: str, size: int, raw: RawData) -> RawSplit:
    values = np.moveaxis(array.read(), array.axes.index("N"), 0)
    axes = array.axes.replace("N", "")
    scale = _scale(values, array)
    images = np.empty((array.n, 1, size, size), np.uint8)
    broken: list[int] = []
    for start in range(0, array.n, _BLOCK):
        block = values[start : start + _BLOCK]
        if axes == "F":
            channels = 1 if math.isqrt(block.shape[1]) ** 2 == block.shape[1] else 3
            side = math.isqrt(block.shape[1] // channels)
            block = block.reshape(len(block), side, side, channels)
        else:
            block = np.moveaxis(block, 1 + axes.index("C"), 3) if "C" in axes else block[..., None]
        if array.kind == "f":
            broken += [start + int(row) for row in np.flatnonzero(np.isnan(block).any((1, 2, 3)))]
        if block.dtype != np.uint8:
            block = np.nan_to_num(block * scale).round().astype(np.uint8)
        images[start : start + len(block)] = resize(np.ascontiguousarray(to_grey(block)), size)
    images[broken] = MID_GREY
    places = [f"{array} picture {row + 1}" for row in range(array.n)]
    for row in broken:
        raw.reject(split, places[row], "a pixel is not a number")
    keep = np.setdiff1d(np.arange(array.n), [] if split == "test" else broken)
    words = None if labels is None else _label_words(labels)
    return RawSplit(
        images=images if len(keep) == array.n else images[keep],
        labels=None if words is None else [words[row] for row in keep],
        ids=[str(row) for row in keep],
        places=[places[row] for row in keep],
    )


def _scale(values: np.ndarray, array: Array) -> int:
    """The factor that turns its values into grey levels from 0 to 255."""
    if values.dtype == np.uint8:
        return 1
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    if low < 0 or high > 255:
        raise DataError(f"{array} holds values from {low:g} to {high:g}: pixels must be 0 to 255, or 0 to 1")
    return 255 if array.kind == "f" and high <= 1 else 1


def _label_words(labels: Array) -> list[str]:
    """The labels as text; for one-hot rows the number of the largest column."""
    values = np.asarray(labels.read())
    if values.ndim == 2 and min(values.shape) > 1:
        values = values.argmax(1)
    values = np.ascontiguousarray(values.reshape(-1))
    kind, order = values.dtype.kind, values.dtype.byteorder
    if kind == "U" and values.view(f"{order}u4").max(initial=0) > sys.maxunicode:
        raise DataError(f"{labels} holds what is no text: the file is damaged")
    if kind == "S":
        return [value.decode("utf-8", "replace") for value in values.tolist()]
    if kind == "f":
        return ["" if math.isnan(value) else f"{value:g}" for value in values.tolist()]
    return [str(int(value)) if kind == "b" else str(value).strip() for value in values.tolist()]
