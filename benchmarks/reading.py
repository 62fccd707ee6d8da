"""Reading: tables of pixels and image files against what peers do and against the decoder, and the cache.

Peers read a table by pandas and split every string in Python or give it to numpy.fromstring, row by row.
Image files are compared with Pillow decoding them on one core and nothing else; with n cores, n is the
limit. Memory is the peak of a process of its own, above what it needs after its imports.
"""

from __future__ import annotations

import json
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from benchmarks.timing import Row, Settings, python
from fer_utils.competition import Competition
from fer_utils.data.load import load_competition

LOAD = """
import json, time
from benchmarks.timing import peak_memory
from fer_utils.data.load import load_competition
before, start = peak_memory(), time.perf_counter()
competition = load_competition({path!r}, allow_rejected=True)
seconds = time.perf_counter() - start
pixels = sum(split.images.nbytes for split in competition.splits.values()) / 1e6
print("RESULT " + json.dumps([seconds, peak_memory() - before, pixels]))
"""


def rows(settings: Settings) -> Iterator[Row]:
    """A table by three ways, images by two, the cache for both, and ten times the rows."""
    competition = load_competition(settings.data)
    turns = 1 if settings.quick else 3
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        table, pictures = home / "table" / "fer2013.csv", home / "pictures"
        most = 2000 if settings.quick else 10**9
        n = write_table(table, competition, most)
        yield from table_rows(table, n, turns, 1 if settings.quick else 3)
        write_images(pictures, competition, 4200 if settings.quick else 10**9)
        yield from image_rows(pictures, turns)
        for path, what in ((table.parent, "a table"), (pictures, "image files")):
            settle()
            first, _, _ = loaded(path, FER_CACHE=str(home / "cache"))
            again = statistics.median(loaded(path, FER_CACHE=str(home / "cache"))[0] for _ in range(3))
            yield Row(f"{what}, from the cache", "reading the files", again, first, "s", first / again, 3)
        small, _, _ = loaded(table.parent)
        n = write_table(table, competition, most, 10)
        seconds, memory, pixels = loaded(table.parent)
        what = f"{n:,} rows"
        yield Row(what, "a tenth of them", seconds, small, "s", seconds / small, 1, "linear: 10")
        yield Row(
            f"memory, {what}", "the pixels themselves", memory, pixels, "MB", memory / pixels, 1, "at most 3"
        )


def settle() -> None:
    """Wait until the files are old enough to be kept in the cache."""
    time.sleep(2.5)


def table_rows(table: Path, n: int, turns: int, peer_turns: int) -> Iterator[Row]:
    ours = statistics.median(loaded(table)[0] for _ in range(turns))
    _, memory, pixels = loaded(table)
    others = {
        "pandas, numpy.fromstring row by row": lambda text: np.fromstring(text, np.int64, sep=" "),
        "pandas, Python's split row by row": lambda text: [int(word) for word in text.split(" ")],
    }
    for what, parse in others.items():
        seconds = statistics.median(peer_table(table, parse) for _ in range(peer_turns))
        yield Row(f"{n:,} rows of pixels", what, ours, seconds, "s", seconds / ours, turns)
    yield Row(
        "memory of that", "the pixels themselves", memory, pixels, "MB", memory / pixels, 1, "at most 3"
    )


def peer_table(table: Path, parse) -> float:
    """Seconds to read a table as peers do, into one array."""
    start = time.perf_counter()
    frame = pd.read_csv(table)
    np.array([parse(text) for text in frame["pixels"]], np.uint8).reshape(-1, 48, 48)
    return time.perf_counter() - start


def image_rows(pictures: Path, turns: int) -> Iterator[Row]:
    paths = sorted(pictures.rglob("*.png"))
    ours = statistics.median(loaded(pictures)[0] for _ in range(turns))
    start = time.perf_counter()
    for path in paths:
        with Image.open(path) as file:
            np.asarray(file.convert("L"))
    alone = time.perf_counter() - start
    cores = os.cpu_count() or 1
    yield Row(
        f"{len(paths):,} PNG files",
        "Pillow alone on one core",
        ours,
        alone,
        "s",
        alone / ours,
        turns,
        f"limit: {cores}",
    )


def loaded(path: Path, **variables: str) -> tuple[float, float, float]:
    """Seconds and MB above the start of a fresh process that loads `path`, and MB of its pixels."""
    printed = python(LOAD.format(path=str(path)), **({"FER_CACHE": "off"} | variables))
    return tuple(json.loads(printed.split("RESULT ")[1]))


def write_table(path: Path, competition: Competition, most: int, times: int = 1) -> int:
    """Write the images as fer2013.csv, `times` over with one pixel changed; returns the rows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    usage = {"train": "Training", "valid": "PublicTest", "test": "PrivateTest"}
    n = 0
    with open(path, "w") as file:
        file.write("emotion,pixels,Usage\n")
        for name, split in competition.splits.items():
            labels = split.labels if split.labels is not None else np.zeros(len(split), int)
            for label, image in zip(labels[:most], split.images[:most], strict=True):
                words = image.ravel().astype(str).tolist()
                for time_over in range(times):
                    words[0] = str(time_over)
                    file.write(f"{label},{' '.join(words)},{usage[name]}\n")
                    n += 1
    return n


def write_images(home: Path, competition: Competition, most: int) -> None:
    """Write the images as PNG files in class folders, and the test images in one."""
    for name, split in competition.splits.items():
        for row, image in enumerate(split.images[:most]):
            folder = home / name
            if name != "test":
                folder /= competition.class_names[split.labels[row]]
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image[0]).save(folder / f"{row:06}.png")
