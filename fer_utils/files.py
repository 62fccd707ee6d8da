"""Files: written whole or not at all, found from any working directory, and read from archives safely."""

from __future__ import annotations

import difflib
import errno
import json
import os
import re
import shutil
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

REPOSITORY = Path(__file__).resolve().parent.parent


class Explained(Exception):
    """An error whose message says all that a reader of a notebook needs."""

    def _render_traceback_(self) -> list[str]:
        """What IPython shows in place of a traceback, which would hide the message below pages of code."""
        return [f"{type(self).__name__}: {self}"]


class DataError(Explained, ValueError):
    """The data cannot be used as it is; the message names the file or row and says what to do."""


class OutputError(Explained, OSError):
    """A file cannot be written: no room, no permission. An older file there is unchanged; the message says
    what to do."""


# Names of files that are being written: hidden, and too long to be a person's own.
_TEMPORARY = re.compile(r"\..{0,100}-[0-9a-f]{32}(\.\w+)?")


def shown_path(path: Path) -> str:
    """A path as it is typed in the folder of the project."""
    return str(path.relative_to(REPOSITORY)) if path.is_relative_to(REPOSITORY) else str(path)


def distinct_names(paths: Sequence[Path]) -> list[str]:
    """The shortest names that tell folders apart: the last part of each path, and before it as many as it
    takes ("seed1", "cpu/member0", "sgd/member0"). The same folder twice has the same name twice."""
    parts, names = [path.absolute().parts for path in paths], []
    for own in parts:
        others = [other for other in parts if other != own]
        k = next(k for k in range(1, len(own) + 1) if all(other[-k:] != own[-k:] for other in others))
        names.append(Path(*own[-k:]).as_posix())
    return names


@contextmanager
def atomic_write(path: str | Path, previous: Path | None = None) -> Iterator[Path]:
    """Yield a temporary file name beside `path`; it becomes `path` only on success. The file that it replaces
    gets the name `previous`, if that is given.

    The parent folder is made. The temporary name keeps the suffix, which numpy and others need. After this
    the file is on the disk, not only in a buffer: a power cut leaves the old file or the new one. So does an
    OutputError, where it cannot be written.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.stem[:100]}-{uuid.uuid4().hex}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with open(temporary, "r+b") as file:  # Windows flushes only a file that is open for writing
            os.fsync(file.fileno())
        if previous is not None and path.is_file():
            os.replace(path, previous)
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except OSError as error:
        raise _output_error(path, error) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Write a rename to the disk."""
    with suppress(OSError):  # Windows and some network disks refuse
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


_ADVICE = {
    errno.ENOSPC: "the disk is full; make room",
    errno.EDQUOT: "your quota of disk space is used up; make room",
    errno.EFBIG: "it would be larger than this system lets a file be; raise that limit (ulimit -f)",
    errno.EROFS: "the disk is read-only; choose another out",
    errno.EACCES: "permission is denied; allow writing there or choose another out",
    errno.EPERM: "permission is denied; allow writing there or choose another out",
    errno.ENOTDIR: "a file stands where a folder should be; choose another out",
    errno.EEXIST: "a file stands where a folder should be; choose another out",
}


def _output_error(path: Path, error: OSError) -> OSError:
    """`error` with advice, or itself if the system did not raise it (say, a temporary file never written)."""
    if isinstance(error, OutputError) or error.errno in (None, errno.ENOENT):
        return error
    advice = _ADVICE.get(error.errno, f"{error.strerror}; check the disk")
    message = (
        f"{path} cannot be written: {advice}, then run the same command again. Earlier files are complete"
    )
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        with suppress(OSError):
            message += f" ({shutil.disk_usage(path.parent).free / 2**20:,.0f} MB are free)"
    return OutputError(message)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock `folder` for this process, and remove the partial files of a killed one. The operating system
    releases the lock when the process ends, however it ends. A folder that another process has locked, or
    that cannot be written, is an OutputError."""
    lock = FileLock(folder / ".lock")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / ".lock").is_symlink():  # a lock is opened for writing, wherever a link leads
            raise OutputError(f"{folder / '.lock'} is a link: remove it")
        lock.acquire(timeout=0)
        figures = [] if (folder / "figures").is_symlink() else (folder / "figures").glob(".*")
        for entry in [*folder.glob(".*"), *figures]:
            if _TEMPORARY.fullmatch(entry.name) and entry.is_file():
                entry.unlink(missing_ok=True)
    except Timeout:
        raise OutputError(
            f"{folder}: another process is training there. Wait until it ends, or choose another out"
        ) from None
    except OSError as error:
        raise _output_error(folder, error) from error
    try:
        yield
        with suppress(OSError):  # Windows keeps an open file
            (folder / ".lock").unlink()
    finally:
        lock.release()


def write_text(path: str | Path, text: str) -> Path:
    """Write UTF-8 text atomically, with the same line ends on every system."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")
    return Path(path)


def write_json(path: str | Path, content: Any) -> Path:
    """Write JSON atomically: keys in the given order, numpy values as plain ones, NaN and infinity null."""
    text = json.dumps(content, default=lambda item: str(item) if isinstance(item, Path) else item.tolist())
    plain = json.loads(text, parse_constant=lambda _: None)  # NaN and infinity, which JSON does not have
    return write_text(path, json.dumps(plain, indent=2, ensure_ascii=False) + "\n")


def find_path(path: str | Path) -> Path:
    """Find an existing path: as it is or from the working directory, else from the repository root. Where
    nothing is there, a DataError names what was looked for, where, and similar names."""
    try:
        path = Path(path).expanduser()
        places = [path] if path.is_absolute() else [Path.cwd() / path, REPOSITORY / path]
        for place in places:
            if place.exists():
                return place
    except (TypeError, ValueError, RuntimeError, OSError) as error:  # None, no such user, a name too long
        raise DataError(f"{str(path)[:200]!r} is not a path: {error}") from error
    tried = " and ".join(dict.fromkeys(map(str, places)))
    near = ", ".join(dict.fromkeys(name for place in places for name in _near_names(place)))
    hint = f" Similar names there: {near}." if near else ""
    raise DataError(f"no file or folder {str(path)!r}; looked at {tried}.{hint}")


def _near_names(path: Path) -> list[str]:
    """Up to three paths that resemble `path`, seen from the deepest folder above it that exists."""
    while not path.parent.exists():
        path = path.parent
    try:
        names = sorted(os.listdir(path.parent))
    except OSError:
        return []
    return [str(path.parent / name) for name in difflib.get_close_matches(path.name, names, n=3)]


def resolve_out(out: str | Path) -> Path:
    """The folder a run writes to: a relative `out` is below the repository, wherever the run was started."""
    return REPOSITORY / Path(out).expanduser()
