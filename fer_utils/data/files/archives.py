"""Archives, unpacked safely: nothing outside the folder, no links or devices, no bombs."""

from __future__ import annotations

import gzip
import shutil
import stat
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from fer_utils.competition import DataError

ARCHIVE_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")

# Ten times ImageNet in files and more than any facial-expression competition in bytes.
MAX_MEMBERS = 2_000_000
MAX_BYTES = 64 * 2**30
# Images hardly shrink and pixel tables shrink to a quarter: a bomb grows a thousandfold.
MAX_GROWTH, GROWTH_MATTERS_FROM = 100, 256 * 2**20


def is_archive(path: str | Path) -> bool:
    """Whether the name is one of an archive that `opened` reads."""
    return str(path).lower().endswith(ARCHIVE_SUFFIXES)


def archive_stem(path: str | Path) -> str:
    """The name without its archive suffix: train for train.zip, train.csv for train.csv.zip."""
    name = Path(path).name
    suffix = max((s for s in ARCHIVE_SUFFIXES if name.lower().endswith(s)), key=len, default="")
    return name[: len(name) - len(suffix)]


def opened_bytes(path: Path) -> BinaryIO:
    """A file to read from; its content where gzip has packed it."""
    return gzip.open(path) if path.suffix.lower() == ".gz" else open(path, "rb")


@contextmanager
def opened(path: str | Path) -> Iterator[Path]:
    """Yield a readable place: a folder or file itself, an archive as a folder that is removed afterwards.

    Raises:
        DataError: the archive is broken, encrypted or too large, or holds links, devices or paths outside it.
    """
    path = Path(path)
    if path.is_dir() or not is_archive(path):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="fer-") as folder:
        _extract(path, Path(folder))
        yield Path(folder)


def _extract(archive: Path, folder: Path) -> None:
    packed, free = archive.stat().st_size, shutil.disk_usage(folder).free
    unpacked = 0
    try:
        for number, (name, size, is_plain, extract) in enumerate(_members(archive), 1):
            unpacked += size
            path = PurePosixPath(name.replace("\\", "/"))
            if path.is_absolute() or ".." in path.parts or ":" in name[:2]:
                raise DataError(
                    f"{archive} is not safe to unpack: {name!r} points outside the folder. "
                    "Unpack it yourself, and give the folder as data"
                )
            if not is_plain:
                raise DataError(f"{archive} holds a link or device, {name!r}: pack the files themselves")
            if number > MAX_MEMBERS:
                raise DataError(f"{archive} holds more than {MAX_MEMBERS:,} files: unpack it yourself")
            check_growth(archive, unpacked, packed)
            if unpacked > free:
                room = f"the {free / 2**30:,.1f} GB free in {folder}"
                raise DataError(f"{archive} needs more room than {room}")
            extract(path=folder)
    except DataError:
        raise
    except Exception as error:  # zipfile and tarfile let the errors of zlib, lzma and the system through
        hint = "; unpack it yourself, and give the folder as data"
        if list(archive.parent.glob(f"{archive.stem}.[zZ]01")) or "multi" in str(error):
            hint = "; it is one part of an archive in several volumes: join and unpack them first (7z x)"
        raise DataError(f"{archive} cannot be unpacked: {error}{hint}") from error


def _members(archive: Path) -> Iterator[tuple[str, int, bool, Callable[..., object]]]:
    """The name and size of each member, whether it is a plain file or folder, and what unpacks it."""
    if archive.name.lower().endswith(".zip"):
        with zipfile.ZipFile(archive) as file:
            for member in file.infolist():
                member.filename = member.filename.replace("\\", "/")  # packed by a tool on Windows
                is_link = stat.S_ISLNK(member.external_attr >> 16)
                yield member.filename, member.file_size, not is_link, partial(file.extract, member)
    else:
        with tarfile.open(archive) as file:
            while (member := file.next()) is not None:
                is_plain = member.isfile() or member.isdir()
                yield member.name, member.size, is_plain, partial(file.extract, member, filter="data")
                file.members.clear()  # tarfile would keep all of them in memory


def check_growth(path: Path, unpacked: int, packed: int) -> None:
    """Raise a DataError if a file of `packed` bytes becomes far too many, `unpacked`, as a zip bomb does."""
    if unpacked > MAX_BYTES:
        raise DataError(f"{path} unpacks to more than {MAX_BYTES / 2**30:,.1f} GB: unpack it yourself")
    if unpacked > max(MAX_GROWTH * packed, GROWTH_MATTERS_FROM):
        raise DataError(f"{path} grows more than {MAX_GROWTH}-fold when unpacked, as a zip bomb does")
