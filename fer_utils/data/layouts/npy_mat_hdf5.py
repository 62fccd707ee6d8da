"""Files of arrays: .npy, .npz, MATLAB's .mat, HDF5 (where h5py is installed) and IDX (MNIST's). Nothing is
unpickled, and the size that a header states is checked before memory is allocated."""

from __future__ import annotations

import math
import re
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np

from fer_utils.competition import DataError
from fer_utils.data.files.archives import check_growth, opened_bytes

# The key of an array in its file, its shape, its kind as in numpy, and what reads its values.
Described = tuple[str, tuple[int, ...], str, Callable[[], np.ndarray]]


def form_of(path: str | Path) -> str:
    """The form of a file of arrays: .npy, .npz, .mat, .h5 or .idx; "" for any other file."""
    name = str(path).lower()
    if re.search(r"ubyte(\.gz)?$", name):
        return ".idx"
    if name.endswith((".h5", ".hdf5")):
        return ".h5"
    return name[-4:] if name.endswith((".npy", ".npz", ".mat")) else ""


def describe(path: Path) -> list[Described]:
    """The key ("" in .npy and IDX), shape and kind of every array in a file, and what reads it: only numbers
    and text.

    Raises:
        DataError: it is broken, cut off or too large, or holds pickled Python objects; also when it is read.
    """
    forms = {".npy": _npy, ".npz": _npz, ".mat": _mat, ".h5": _h5, ".idx": _idx}
    with _array_errors(path):
        found = forms[form_of(path)](path, path.stat().st_size)
        return [(*described, _array_errors(path)(read)) for *described, read in found]


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


def _npy(path: Path, size: int) -> Iterator[Described]:
    read = partial(np.load, path, mmap_mode="r", allow_pickle=False)
    with open(path, "rb") as file:
        yield "", *_npy_header(file, str(path), size), read


def _npz(path: Path, size: int) -> Iterator[Described]:
    def read(key: str) -> np.ndarray:
        with np.load(path, allow_pickle=False) as arrays:
            return arrays[key]

    with zipfile.ZipFile(path) as archive:
        check_growth(path, sum(member.file_size for member in archive.infolist()), size)
        for member in archive.infolist():
            if member.filename.endswith(".npy"):
                key = member.filename.removesuffix(".npy")
                with archive.open(member) as file:
                    header = _npy_header(file, f"{path} ({key})", member.file_size)
                yield key, *header, partial(read, key)


def _npy_header(file: BinaryIO, where: str, size: int) -> tuple[tuple[int, ...], str]:
    npy = np.lib.format
    first = npy.read_magic(file) == (1, 0)
    shape, _, dtype = npy.read_array_header_1_0(file) if first else npy.read_array_header_2_0(file)
    if dtype.hasobject:
        raise DataError(
            f"{where} holds pickled Python objects, which could run any code and are never loaded: "
            "save plain arrays of numbers or text"
        )
    promised = int(np.prod(shape, dtype=object)) * dtype.itemsize
    if promised > size - file.tell():
        raise DataError(f"{where} promises {promised:,} bytes and holds fewer: it is cut off")
    return shape, dtype.kind


def _mat(path: Path, size: int) -> Iterator[Described]:
    from scipy.io import loadmat, whosmat  # here, since scipy takes long to import

    def read(key: str) -> np.ndarray:
        return loadmat(path, variable_names=[key])[key]

    kinds = {"char": "U", "logical": "b", "single": "f", "double": "f"}
    listed = [(key, shape, kind) for key, shape, kind in whosmat(path) if shape]
    # At most eight bytes for each number.
    check_growth(path, sum(8 * int(np.prod(shape, dtype=object)) for _, shape, _ in listed), size)
    for key, shape, kind in listed:
        yield key, shape, kinds.get(kind, "i" if "int" in kind else "O"), partial(read, key)


def _h5(path: Path, size: int) -> Iterator[Described]:
    try:
        import h5py  # optional
    except ImportError as error:
        raise DataError(f"{path} needs h5py to be read: python -m pip install h5py") from error
    found: list[Described] = []

    def read(key: str) -> np.ndarray:
        with h5py.File(path) as file:
            is_text = h5py.check_string_dtype(file[key].dtype)
            return file[key].asstr("utf-8", "replace")[()].astype(str) if is_text else file[key][()]

    def visit(key: str, item: object) -> None:  # links are not followed
        if isinstance(item, h5py.Dataset) and not item.external:
            check_growth(path, item.nbytes, size)
            kind = "U" if h5py.check_string_dtype(item.dtype) else item.dtype.kind
            found.append((key, item.shape or (), kind, partial(read, key)))

    with h5py.File(path) as file:
        file.visititems(visit)
    yield from found


def _idx(path: Path, size: int) -> Iterator[Described]:
    """The header of an IDX file of bytes (LeCun et al. 1998), whose size has to fit it."""
    with opened_bytes(path) as file:
        zeros, kind, dimensions = file.read(2), *file.read(2)
        if zeros != b"\0\0" or kind != 8 or not 1 <= dimensions <= 4:
            raise DataError(f"{path} is not an IDX file of bytes")
        shape = tuple(np.frombuffer(file.read(4 * dimensions), ">u4").tolist())
    check_growth(path, math.prod(shape), size)

    def read() -> np.ndarray:
        with opened_bytes(path) as file:
            file.seek(4 + 4 * dimensions)
            return np.frombuffer(file.read(), np.uint8).reshape(shape)

    yield "", shape, "u", read
