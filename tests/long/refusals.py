"""What a machine may refuse: room, permission, memory."""

from __future__ import annotations

import ctypes
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.long.common import Trial, broken_files, finish, results, start, training


def trials(folder: Path, data: Path, quick: bool) -> Iterator[Trial]:
    """Full disks of many sizes, disks and folders that may not be written, and little memory."""
    finish(training(data, folder / "whole"))
    expected = results(folder / "whole")
    if can_mount(folder / "mountable"):
        yield full_disk(
            folder / "tmpfs", data, expected, [600] if quick else [40, 200, 400, 800, 1200, 1600, 2000]
        )
        yield read_only(folder / "readonly", data, expected)
    else:
        yield Trial("full disk", 0, 0, "no permission to mount a small disk here; a file size limit instead")
    yield file_size_limit(folder / "limit", data, expected, [50] if quick else [1, 20, 100, 300, 600])
    yield no_permission(folder / "permission", data)
    yield little_memory(folder / "memory", data, [64] if quick else [8, 16, 32, 64, 128, 256])


def ends_in_words(process: subprocess.Popen, words: str, out: Path) -> int:
    """0 if it failed with `words`, without a traceback, and left whole files only; else 1, and why."""
    printed = process.communicate()[0]
    wrong = []
    if process.returncode == 0:
        wrong.append("status 0")
    if words not in printed:
        wrong.append(f"no {words!r}")
    if "Traceback" in printed:
        wrong.append("a traceback")
    wrong += broken_files(out)
    if wrong:
        print(f"{out}: {', '.join(wrong)}\n{printed[-3000:]}")
    return bool(wrong)


def can_mount(folder: Path) -> bool:
    """Whether this process may mount a disk in memory."""
    folder.mkdir(parents=True, exist_ok=True)
    if (
        os.name != "posix"
        or subprocess.run(
            ["mount", "-t", "tmpfs", "tmpfs", str(folder)], capture_output=True, check=False
        ).returncode
    ):
        return False
    subprocess.run(["umount", str(folder)], check=True)
    return True


@contextmanager
def small_disk(folder: Path, kilobytes: int) -> Iterator[None]:
    """A disk of that size, in memory."""
    folder.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(folder)]
    subprocess.run(command, check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def remount(folder: Path, options: str) -> None:
    """Change a mounted disk."""
    subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)


def full_disk(folder: Path, data: Path, expected: dict[str, bytes], sizes: list[int]) -> Trial:
    """Train until the disk is full, make it larger, give the same command again."""
    lost = 0
    for size in sizes:
        with small_disk(folder, size):
            out = folder / "run"
            command = training(data, out, config=folder.parent / f"tmpfs{size}.json")
            lost += ends_in_words(start(command), "the disk is full; make room", out)
            remount(folder, "size=100m")
            finish(command)
            lost += results(out) != expected
    note = f"{sizes[0]} to {sizes[-1]} kB; enlarged, the run went on to the same bytes"
    return Trial("full disk", len(sizes), lost, note)


def read_only(folder: Path, data: Path, expected: dict[str, bytes]) -> Trial:
    """Cut a run short, make its disk read-only and start it there, make it writable, and let it end."""
    lost = 0
    with small_disk(folder, 100_000):
        out = folder / "run"
        command = training(data, out, config=folder.parent / "readonly.json")
        process = start(command)
        for line in process.stdout:
            if "epoch   2/" in line:
                break
        process.kill()
        process.communicate()
        remount(folder, "ro")
        lost += ends_in_words(start(command), "the disk is read-only", out)
        remount(folder, "rw")
        finish(command)
        lost += results(out) != expected
    return Trial("read-only disk", 1, lost, "writable again, the run went on to the same bytes")


def file_size_limit(folder: Path, data: Path, expected: dict[str, bytes], sizes: list[int]) -> Trial:
    """The same where a single file may not grow (ulimit -f)."""
    lost = 0
    for size in sizes:
        out = folder / f"run{size}"
        command = training(data, out)

        def limit(size: int = size) -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (size * 1024, size * 1024))

        lost += ends_in_words(start(command, preexec_fn=limit), "cannot be written", out)
        finish(command)
        lost += results(out) != expected
    return Trial("file size limit", len(sizes), lost, f"{sizes[0]} to {sizes[-1]} kB")


def no_permission(folder: Path, data: Path) -> Trial:
    """A folder that may not be written; root is bound by permissions only without its capabilities."""
    out = folder / "run"
    command = training(data, out)
    out.mkdir(parents=True)
    out.chmod(0o555)
    lost = ends_in_words(start(command, preexec_fn=drop_capabilities), "permission is denied", out)
    return Trial("folder without permission", 1, lost)


def drop_capabilities() -> None:
    """Before a new program begins: root's way past permissions does not pass on (prctl's PR_CAPBSET_DROP)."""
    library = ctypes.CDLL(None)
    for capability in (1, 2, 3):  # DAC_OVERRIDE, DAC_READ_SEARCH, FOWNER
        library.prctl(24, capability, 0, 0, 0)


def little_memory(folder: Path, data: Path, megabytes: list[int]) -> Trial:
    """Training with so much more address space than the loaded data take; afterwards with all there is."""
    lost = 0
    for size in megabytes:
        out = folder / f"run{size}"
        command, environment = training(
            data, out, batch_size=512, width=1.0, epochs=1, checkpoint_seconds=60.0
        )
        limited = [sys.executable, "-u", "-m", "tests.long.limited", str(size), command[-1]]
        lost += ends_in_words(start((limited, environment)), "Try batch_size 256", out)
    finish((command, environment))
    return Trial(
        "too little memory", len(megabytes), lost, f"{megabytes[0]} to {megabytes[-1]} MB beyond the data"
    )
