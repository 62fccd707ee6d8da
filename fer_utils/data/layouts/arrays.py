"""Pictures and labels as arrays: .npy, .npz and MATLAB's .mat, recognised by their shapes and names.

Nothing here is ever unpickled, and what a header promises is weighed before memory is given to it.
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
from fer_utils.data.layouts.parts import Part, Raw, joined
from fer_utils.data.tables import is_picture, open_table

ARRAY_SUFFIXES = (".npy", ".npz", ".mat")
_LABEL_WORDS = {"y", "label", "labels", "emotion", "emotions", "target", "targets", "class", "classes"}
_BLOCK = 2048  # pictures turned at a time, so that no copy in float64 fills the memory


@dataclass(frozen=True)
class Array:
    """An array in a file: where it stands and its shape, known without reading it.

    Attributes:
        name: of the file in the tree; key: of the array in the file, "" in .npy.
        shape, kind: as numpy tells them ("u", "i", "f", "b", "U", "S").
    """

    name: str
    path: Path
    key: str
    shape: tuple[int, ...]
    kind: str

    @property
    def form(self) -> str:  # .npy, .npz or .mat
        return self.path.suffix.lower()

    @property
    def words(self) -> set[str]:
        """The words of its name, in lower case; those of its file where the array has none of its own."""
        return _words(self.key or self.path.stem)

    @property
    def split(self) -> str | None:
        """The split that its name tells, then its file's, then its folder's."""
        if self.words & {"tr", "trn"}:
            return "train"
        return split_of(_spaced(self.key)) or split_of(_spaced(self.path.stem)) or folder_split(self.name)

    @property
    def is_images(self) -> bool:
        """Whether its shape is that of square pictures."""
        return self.kind in "uif" and self.axes is not None

    @property
    def axes(self) -> str | None:
        """Its axes in order, N pictures of H x W and C colours, F for a flat picture; None if none fit."""
        shape, last = self.shape, self.form == ".mat"  # MATLAB counts pictures along the last axis
        if len(shape) == 2 and is_picture(shape[0 if last else 1]):
            return "FN" if last else "NF"
        if len(shape) == 2 and is_picture(shape[1 if last else 0]) and self.split is not None:
            return "NF" if last else "FN"
        forms = {3: ("HWN", "NHW"), 4: ("HWCN", "NHWC", "NCHW", "HWNC")}.get(len(shape), ())
        for form in forms if last else [f for f in forms if f[0] == "N"] + [f for f in forms if f[0] != "N"]:
            size = dict(zip(form, shape, strict=True))
            if size["H"] == size["W"] >= 8 and size.get("C", 1) in (1, 3):
                return form
        return None

    @property
    def n(self) -> int:
        """Pictures, or labels."""
        if self.is_images:
            return self.shape[self.axes.index("N")]
        if not self.shape:
            return 0
        return max(self.shape) if min(self.shape) == 1 else self.shape[0]

    def read(self) -> np.ndarray:
        """Its values; only numbers and text."""
        with _array_errors(self.path):
            if self.form == ".npy":
                return np.load(self.path, mmap_mode="r", allow_pickle=False)
            if self.form == ".npz":
                with np.load(self.path, allow_pickle=False) as file:
                    return file[self.key]
            from scipy.io import loadmat

            return loadmat(self.path, variable_names=[self.key])[self.key]


def _spaced(name: str) -> str:
    """Xtrain and ytrain with a mark between their words."""
    return re.sub(r"^([xyXY])(?=train|test|val)", r"\1_", name)


def _words(name: str) -> set[str]:
    return {word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+", _spaced(name))}


@contextmanager
def _array_errors(path: Path) -> Iterator[None]:
    """Errors of numpy's and scipy's readers as a DataError that names the file."""
    try:
        yield
    except DataError:
        raise
    except NotImplementedError as error:  # scipy's word for MATLAB 7.3
        raise DataError(f"{path}: this version of .mat is not read: save it with save(..., '-v7')") from error
    except Exception as error:  # a broken file makes them stumble anywhere
        raise DataError(f"{path} cannot be read as arrays: {error}") from error


def find_arrays(tree: Tree) -> list[Array]:
    """All arrays in the files of a tree, by name; a file that is broken, promises more than it can hold or
    holds pickled Python objects is passed over and told in `tree.unreadable`."""
    found = []
    for name in sorted(n for n in tree.files if n.lower().endswith(ARRAY_SUFFIXES)):
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
        from scipy.io import whosmat

        kinds = {"char": "U", "logical": "b", "single": "f", "double": "f"}
        listed = [(key, shape, kind) for key, shape, kind in whosmat(path) if shape]
        # At most eight bytes for each number.
        check_growth(path, sum(8 * int(np.prod(shape, dtype=object)) for _, shape, _ in listed), size)
        for key, shape, kind in listed:
            yield key, shape, kinds.get(kind, "i" if "int" in kind else "O")


def _npy_header(file: BinaryIO, path: Path, where: str, size: int) -> tuple[tuple[int, ...], str]:
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    if dtype.hasobject:
        raise DataError(
            f"{path}{where} holds pickled Python objects, which could run any code and are never loaded: "
            "save plain arrays of numbers or text"
        )
    promised = int(np.prod(shape, dtype=object)) * dtype.itemsize
    if promised > size - file.tell():
        raise DataError(f"{path}{where} promises {promised:,} bytes and holds fewer: it is cut off")
    return shape, dtype.kind


def labelled_splits(arrays: list[Array]) -> dict[str, list[tuple[Array, Array | None]]]:
    """The arrays of pictures by split, each with its labels (None where it has none); empty without any
    labelled for training."""
    images = [a for a in arrays if a.is_images and not a.words & _LABEL_WORDS and a.n]
    rest = [a for a in arrays if a not in images]
    splits: dict[str, list[tuple[Array, Array | None]]] = {}
    for array in images:
        if (array.words | _words(array.path.stem)) & {"unlabeled", "unlabelled"}:
            continue
        mates = [a for a in rest if a.n == array.n and a.split == array.split and _is_labels(a)]
        # Labels in the same file go first, then those in the same folder.
        mates.sort(key=lambda a: (a.path != array.path, a.path.parent != array.path.parent, a.name))
        labels = mates[0] if mates else None
        split = array.split or ("train" if labels else None)
        if split == "valid" and labels is None:
            split = "test"
        if split and not (split == "train" and labels is None):
            splits.setdefault(split, []).append((array, labels))
    return splits if "train" in splits else {}


def _is_labels(array: Array) -> bool:
    flat = len(array.shape) == 1 or (len(array.shape) == 2 and min(array.shape) <= 64)
    return flat and array.kind in "uifUSb" and bool(array.words & _LABEL_WORDS)


def read_arrays(tree: Tree, size: int) -> Raw:
    """Read the splits; of several test arrays all in turn, or the one with as many pictures as the sample
    submission wants answers."""
    arrays = find_arrays(tree)
    splits = labelled_splits(arrays)
    raw, tests = Raw({}), splits.get("test", [])
    if len(tests) > 1 and tree.sample:
        n_answers = len(read_frame(open_table(tree.files[tree.sample])))
        splits["test"] = [pair for pair in tests if pair[0].n == n_answers][:1] or tests
    # Public tests stand before private or hidden ones.
    splits.get("test", []).sort(key=lambda pair: ("public" not in pair[0].name.lower(), pair[0].name))
    used = set()
    for split, pairs in splits.items():
        parts = [_part(array, labels, split, size, raw) for array, labels in pairs]
        raw.parts[split] = joined(parts, [array.key or array.path.stem for array, _ in pairs])
        used |= {a for pair in pairs for a in pair if a}
        names = ", ".join(_name(a) for pair in pairs for a in pair if a)
        raw.notes.append(f"{split} from {names}")
    raw.notes.extend(f"not readable, not used: {reason}" for reason in tree.unreadable.values())
    if ignored := [_name(a) for a in arrays if a not in used]:
        raw.notes.append(f"also there, not used: {', '.join(ignored)}")
    return raw


def _name(array: Array) -> str:
    return f"{array.name}[{array.key}]" if array.key else array.name


def _part(array: Array, labels: Array | None, split: str, size: int, raw: Raw) -> Part:
    values, axes = array.read(), array.axes
    values = np.moveaxis(values, axes.index("N"), 0)
    inner = axes.replace("N", "")
    scale = _scale(values, array)
    images = np.empty((array.n, 1, size, size), np.uint8)
    broken = []
    for start in range(0, array.n, _BLOCK):
        block = values[start : start + _BLOCK]
        if inner == "F":
            channels = 1 if math.isqrt(block.shape[1]) ** 2 == block.shape[1] else 3
            side = math.isqrt(block.shape[1] // channels)
            block = block.reshape(len(block), side, side, channels)
        elif "C" in inner:
            block = np.moveaxis(block, 1 + inner.index("C"), 3)
        else:
            block = block[..., None]
        bad = np.flatnonzero(~np.isfinite(block).all((1, 2, 3))) if array.kind == "f" else []
        grey = to_grey((block if scale == 1 else np.nan_to_num(block * scale)).round().astype(np.uint8))
        grey[bad] = MID_GREY
        broken += [start + int(row) for row in bad]
        images[start : start + len(block)] = resize(np.ascontiguousarray(grey), size)
    places = [f"{_name(array)} picture {row + 1}" for row in range(array.n)]
    for row in broken:
        raw.reject(split, places[row], "a pixel is not a number")
    keep = np.setdiff1d(np.arange(array.n), [] if split == "test" else broken)
    words = None if labels is None else _label_words(labels)
    return Part(
        images=images if len(keep) == array.n else images[keep],
        labels=None if words is None else [words[row] for row in keep],
        ids=[str(row) for row in keep],
        places=[places[row] for row in keep],
    )


def _scale(values: np.ndarray, array: Array) -> float:
    """What makes its values grey levels from 0 to 255."""
    if array.kind == "u" and values.dtype.itemsize == 1:
        return 1.0
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    if low < 0 or high > 255:
        raise DataError(
            f"{_name(array)} holds values from {low:g} to {high:g}: pixels must be 0 to 255, or 0 to 1"
        )
    return 255.0 if array.kind == "f" and high <= 1 else 1.0


def _label_words(labels: Array) -> list[str]:
    """The labels as text; of one-hot rows the place of the largest."""
    values = np.asarray(labels.read())
    if values.ndim == 2 and min(values.shape) > 1:
        values = values.argmax(1)
    values = np.ascontiguousarray(values.reshape(-1))
    if (
        values.dtype.kind == "U"
        and values.view(f"{values.dtype.byteorder}u4").max(initial=0) > sys.maxunicode
    ):
        raise DataError(f"{_name(labels)} holds what is no text: the file is damaged")
    if values.dtype.kind == "S":
        return [value.decode("utf-8", "replace") for value in values.tolist()]
    if values.dtype.kind == "f":
        return ["" if value != value else f"{value:g}" for value in values.tolist()]
    return [str(int(v)) if values.dtype.kind == "b" else str(v).strip() for v in values.tolist()]
