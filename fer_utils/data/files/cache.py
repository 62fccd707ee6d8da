"""A cache of what was read or computed: in outputs/cache, or in the folder that the environment variable
FER_CACHE names ("off" switches it off).

An entry of `Cache` is found only under everything that it came from: the names, sizes and times of all
files, the options, the code of this project and the versions of the libraries that decode. It holds plain
arrays and JSON, never a pickle. Images that are too large for memory lie in a file of their own beside it,
from which they are mapped.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import PIL

from fer_utils.arrays_on_disk import cache_folder, is_large
from fer_utils.competition import Competition, Rejected, Split, SubmissionFormat
from fer_utils.data.files.list_files import walk
from fer_utils.data.known_expressions_and_splits import SPLITS
from fer_utils.files import REPOSITORY, atomic_write

MAX_CACHE_BYTES = 6 * 2**30  # features of FER2013 (`fixed_features`) take 2.6 GB
# A file that changes twice within one tick of the file system's clock looks the same: what is younger is not
# kept. No file system in use ticks slower (FAT: two seconds).
SETTLED_SECONDS = 2.0
ABANDONED_SECONDS = 3600.0  # nobody writes one entry for longer


def snapshot(path: Path) -> tuple[str, float]:
    """The state of a file or of all files below a folder: a digest over their names, sizes and times, and the
    latest of the times (seconds since 1970)."""
    lines, newest = [], 0
    for name, entry in walk(path) if path.is_dir() else [("", path)]:
        try:
            state = entry.stat()
        except OSError:  # a link that leads nowhere
            continue
        # The time of the last change of content or name cannot be set back; Windows has none.
        changed = 0 if os.name == "nt" else state.st_ctime_ns
        newest = max(newest, state.st_mtime_ns, changed)
        lines.append(f"{name}\0{state.st_size}\0{state.st_mtime_ns}\0{changed}\0{state.st_ino}")
    return hashlib.sha256("\n".join(sorted(lines)).encode("utf-8", "replace")).hexdigest(), newest / 1e9


@functools.cache
def _code() -> str:
    """A digest over this project's code and the versions of what decodes."""
    digest = hashlib.sha256(f"{np.__version__} {pd.__version__} {PIL.__version__}".encode())
    for path in sorted((REPOSITORY / "fer_utils").rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def kept_array(compute: Callable[[], np.ndarray], *content: str) -> tuple[np.ndarray, float]:
    """What `compute` returned before under the same `content`, which names all that changes it besides the
    code; or what it returns now, which is kept for the next time unless it is too large for memory. And the
    seconds that it took, then or now."""
    file = _entry(*content)
    if file is not None:
        with suppress(Exception), np.load(file, allow_pickle=False) as arrays:  # none or damaged: once more
            found = arrays["array"], float(arrays["seconds"])
            _mark_used(file)
            return found
    start = time.perf_counter()
    array = compute()
    seconds = time.perf_counter() - start
    if file is None or is_large(array.nbytes):
        return array, seconds
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(file) as temporary, open(temporary, "wb") as stream:
            np.savez(stream, array=array, seconds=seconds)
        _make_room(file)
    except OSError as error:
        print(f"not kept for the next time: {error}")
    return array, seconds


def _is_on() -> bool:
    return os.environ.get("FER_CACHE", "").lower() != "off"


def _entry(*content: str) -> Path | None:
    """The file for what came from `content` and this code, or None where the cache is switched off."""
    if not _is_on():
        return None
    key = hashlib.sha256("\n".join([*content, _code()]).encode("utf-8", "surrogateescape")).hexdigest()
    return cache_folder() / f"{key[:40]}.npz"


def _mark_used(file: Path) -> None:
    """The entries that were not used for longest go first."""
    with suppress(OSError):  # somebody else's folder
        os.utime(file)


def _make_room(kept: Path) -> None:
    """Remove the entries that were not used for longest while all together are too large; of those with
    large images all but `kept`, if it is such an entry. And what a killed process was writing."""
    with suppress(OSError):  # another process removes some as well, or Windows keeps an open file
        for path in kept.parent.glob(".*.npz"):
            if path.stat().st_mtime < time.time() - ABANDONED_SECONDS:
                path.unlink()
        found = list(kept.parent.glob("[0-9a-f]" * 40 + ".npz"))
        same_kind = [path for path in found if bool(_parts(path)) == bool(_parts(kept))]
        most = 0 if _parts(kept) else MAX_CACHE_BYTES
        entries = sorted((path.stat().st_mtime, path.stat().st_size, path) for path in same_kind)
        total = sum(size for _, size, _ in entries)
        for _, size, path in entries:
            if total <= most or path == kept:
                break
            for file in (path, *_parts(path)):
                file.unlink()
            total -= size


class Cache:
    """The entry for one path and its options: a competition as its files hold it, with no validation split
    (None) where they have none."""

    def __init__(self, path: Path, seen: Path, options: str):
        """What is read, the file or folder whose state decides (mostly the same), and all that changes the
        reading."""
        self.seen = seen
        self.state = snapshot(seen) if _is_on() else ("", 0.0)
        self.file = _entry(str(path.resolve()), self.state[0], options)

    def load(self) -> Competition | None:
        """What was kept, or None if nothing was or it cannot be read."""
        if self.file is None:
            return None
        try:
            with np.load(self.file, allow_pickle=False) as file:
                arrays = dict(file)
            content = json.loads(arrays.pop("content").tobytes())
            for name in content.pop("mapped"):
                arrays[name] = np.load(self._part(name), mmap_mode="c", allow_pickle=False)
            _mark_used(self.file)
            return _unpacked(content, arrays)
        except Exception:  # none, or damaged: read again from the source, which writes it again
            return None

    def keep(self, reading: Competition) -> Competition:
        """Save a reading and return it, with large images mapped from here; says so if it cannot be saved.
        It is not if its files changed meanwhile or a moment ago."""
        if self.file is None or time.time() - self.state[1] < SETTLED_SECONDS:
            return reading
        content, arrays = _packed(reading)
        names = [name for name in arrays if name.endswith(".images") and is_large(arrays[name].nbytes)]
        large = {name: arrays.pop(name) for name in names}
        sizes = [sum(array.nbytes for array in some.values()) for some in (arrays, large)]
        if sizes[0] > MAX_CACHE_BYTES or snapshot(self.seen) != self.state:
            return reading
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            if sizes[1] > shutil.disk_usage(self.file.parent).free:
                return reading
            for name, array in large.items():
                with atomic_write(self._part(name)) as temporary:
                    np.save(temporary, array)
            content = json.dumps(content | {"mapped": names}).encode()
            with atomic_write(self.file) as temporary, open(temporary, "wb") as file:
                np.savez(file, content=np.frombuffer(content, np.uint8), **arrays)
            _make_room(self.file)
        except OSError as error:
            print(f"not kept for the next time: {error}")
            return reading
        return (self.load() or reading) if large else reading  # the files that were filled vanish

    def _part(self, name: str) -> Path:
        return self.file.with_name(f"{self.file.stem}-{name}.npy")


def _parts(entry: Path) -> list[Path]:
    """The files of large images beside the file of an entry."""
    return sorted(entry.parent.glob(f"{entry.stem}-*.npy"))


def _packed(reading: Competition) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    arrays = {
        f"{name}.{part}": values
        for name, split in reading.splits.items()
        for part, values in vars(split).items()
        if values is not None
    }
    content = vars(reading) | {"rejected": [asdict(item) for item in reading.rejected]}
    content |= dict.fromkeys(SPLITS)
    if reading.submission is not None:
        template = reading.submission.template
        cells = {"columns": list(template.columns), "data": template.to_numpy().tolist()}
        content["submission"] = vars(reading.submission) | {"template": cells}
        arrays["rows"] = content["submission"].pop("rows")
    return content, arrays


def _unpacked(content: dict[str, Any], arrays: dict[str, np.ndarray]) -> Competition:
    for name in SPLITS:
        if f"{name}.images" in arrays:
            parts = [arrays.get(f"{name}.{part.name}") for part in fields(Split)]
            content[name] = Split(*parts)
    content["rejected"] = [Rejected(**item) for item in content["rejected"]]
    if form := content["submission"]:
        form["template"] = pd.DataFrame(**form["template"], dtype=str)
        form |= {name: tuple(form[name]) for name in ("label_values", "probability_columns")}
        content["submission"] = SubmissionFormat(rows=arrays["rows"], **form)
    return Competition(
        **{key: tuple(value) if isinstance(value, list) else value for key, value in content.items()}
    )
