"""The files below a folder, without hidden ones."""

from __future__ import annotations

import os
from pathlib import Path


def walk(root: str | Path) -> list[tuple[str, os.DirEntry]]:
    """All files below a folder by relative name with forward slashes, unsorted. Links are followed, except in
    loops; hidden files, macOS' own and unreadable folders are left out."""
    found: list[tuple[str, os.DirEntry]] = []
    waiting, visited = [(os.fspath(root), "")], set()
    while waiting:
        folder, prefix = waiting.pop()
        if (real := os.path.realpath(folder)) in visited:
            continue
        visited.add(real)
        try:
            entries = list(os.scandir(folder))
        except OSError:
            continue
        for entry in entries:
            if not entry.name.startswith((".", "__MACOSX")):
                if entry.is_dir():
                    waiting.append((entry.path, f"{prefix}{entry.name}/"))
                elif entry.is_file():  # opening a pipe would wait for ever
                    found.append((prefix + entry.name, entry))
    return found
