"""Arrays that are too large for memory: they lie in files without a name, which vanish with the process.

They are numpy arrays like any other (`numpy.memmap`). The system keeps in memory what was used last and drops
the rest, so that a set of 15 GB can be read with 3 GB of memory.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fer_utils.files import REPOSITORY, OutputError

# Bytes; 100,000 colour images of 224 pixels have 15 billion. What is smaller stays in memory, as do the
# `fixed_features` of FER2013.
MOST_IN_MEMORY = 3 * 2**30
ROWS_TOGETHER = 1024
# The system's advice on memory (Windows has none).
WILL_NEED = ctypes.CDLL(None).madvise if hasattr(mmap, "MADV_WILLNEED") else None


def cache_folder() -> Path:
    """Where large files lie: the folder in the environment variable FER_CACHE, or outputs/cache; on Kaggle
    and with FER_CACHE=off the folder for temporary files (/kaggle/working becomes public)."""
    chosen = os.environ.get("FER_CACHE", "")
    if chosen.lower() == "off" or (not chosen and Path("/kaggle/working").is_dir()):
        return Path(tempfile.gettempdir()) / "fer-cache"
    return Path(chosen).expanduser() if chosen else REPOSITORY / "outputs" / "cache"


def is_large(size: int) -> bool:
    """Whether an array of `size` bytes lies in a file."""
    return size > MOST_IN_MEMORY


def empty(shape: Sequence[int], dtype: type = np.uint8) -> np.ndarray:
    """An array to be filled, in memory or, if it is large, in a file.

    Raises:
        OutputError: there is no room for the file.
    """
    size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
    if not is_large(size):
        return np.empty(shape, dtype)
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if shutil.disk_usage(folder).free < size:  # writing to a mapped file on a full disk ends the process
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        with tempfile.TemporaryFile(dir=folder) as file:
            return np.memmap(file, dtype, "w+", shape=tuple(shape))
    except OSError as error:
        raise OutputError(
            f"{folder}: {size / 1e9:.1f} GB for large arrays cannot be reserved ({error.strerror}); set "
            "FER_CACHE to a folder with more room, or choose a smaller image_size"
        ) from error


def fetch(array: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """`array[rows]` for row numbers, in memory. Of a mapped file the system first hears which parts are
    needed, and reads them at once instead of page by page (`python -m benchmarks large_sets`)."""
    if WILL_NEED and is_large(array.nbytes):
        length = array[0].nbytes + mmap.PAGESIZE
        for row in rows.tolist():
            start = array.ctypes.data + row * array.strides[0]
            WILL_NEED(ctypes.c_void_p(start // mmap.PAGESIZE * mmap.PAGESIZE), length, mmap.MADV_WILLNEED)
    return np.asarray(array[rows])


def take(array: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """`array[rows]` for row numbers or a boolean mask; if it is large, in a file."""
    rows = np.asarray(rows)
    rows = np.flatnonzero(rows) if rows.dtype == bool else rows.astype(np.int64)
    if not is_large(len(rows) * array[:1].nbytes):
        return fetch(array, rows)
    out = empty((len(rows), *array.shape[1:]), array.dtype)
    for start in range(0, len(rows), ROWS_TOGETHER):
        out[start : start + ROWS_TOGETHER] = fetch(array, rows[start : start + ROWS_TOGETHER])
    return out


def concatenate(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """The rows of all `arrays` one after the other; if they are large, in a file."""
    out = empty((sum(map(len, arrays)), *arrays[0].shape[1:]), np.result_type(*arrays))
    start = 0
    for array in arrays:
        for first in range(0, len(array), ROWS_TOGETHER):
            block = array[first : first + ROWS_TOGETHER]
            out[start : start + len(block)] = block
            start += len(block)
    return out
