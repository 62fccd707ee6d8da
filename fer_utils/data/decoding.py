"""Decoding of picture files, here or in processes of their own.

A small picture spends most of its decoding in Python, so that threads wait for each other's lock. A process
started from this file needs numpy and Pillow alone and answers a line with paths by their pixels.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

# Larger than any camera's face; a decompression bomb is larger still.
MAX_PIXELS = 64_000_000
# Others, such as EPS, would start programs.
FORMATS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM")
MID_GREY = 128

Form = tuple[tuple[int, int], bool]  # width and height, and whether it has colours


def decode(source: Path | str | bytes | None, size: int) -> tuple[np.ndarray, Form]:
    """A picture as uint8 [size, size], grey, an animation by its first; and what it was before.

    Raises:
        Exception: whatever Pillow's plugins stumble over in a broken file.
    """
    if source is None:
        raise FileNotFoundError("no such picture file")
    with Image.open(BytesIO(source) if isinstance(source, bytes) else source, formats=FORMATS) as file:
        if file.width * file.height > MAX_PIXELS:
            raise ValueError(f"{file.width} x {file.height} pixels are too many")
        form = file.size, file.mode not in ("L", "1", "LA", "I", "I;16", "I;16B", "F")
        if file.mode.startswith("I"):  # 16 bits: PIL would cut off at 255 instead of scaling
            picture = Image.fromarray((np.asarray(file, np.int64) >> 8).clip(0, 255).astype(np.uint8))
        else:
            picture = file.convert("L")
    if picture.size != (size, size):
        picture = picture.resize((size, size), Image.Resampling.BICUBIC)
    return np.asarray(picture), form


def decode_block(
    sources: Sequence[Path | str | bytes | None], images: np.ndarray
) -> tuple[dict[int, str], list[Form]]:
    """Fill uint8 [N, 1, S, S]; returns why some are broken, by position, and what the others were before."""
    broken, forms = {}, []
    for row, source in enumerate(sources):
        try:
            images[row, 0], form = decode(source, images.shape[-1])
            forms.append(form)
        except Exception as error:  # see decode
            told = str(error) or type(error).__name__
            if isinstance(source, (str, Path)):
                told = told.replace(str(source), os.path.basename(source))
            broken[row] = told if source is None else f"not a readable picture: {told}"
            images[row] = MID_GREY
    return broken, forms


class Decoder:
    """A process that decodes."""

    def __init__(self, size: int):
        # Its modules come from where ours do, not from this folder, whose names would hide others.
        command = [sys.executable, "-P", __file__, str(size)]
        variables = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self.process = subprocess.Popen(command, env=variables, **pipes)

    def decode_block(
        self, sources: Sequence[Path | None], images: np.ndarray
    ) -> tuple[dict[int, str], list[Form]]:
        """As the function of that name.

        Raises:
            OSError: the process died.
        """
        line = json.dumps([None if source is None else os.fspath(source) for source in sources])
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()
        into = memoryview(images).cast("B")
        while into:
            read = self.process.stdout.readinto(into)
            if not read:
                raise OSError(f"the process that decodes pictures died ({self.process.wait()})")
            into = into[read:]
        try:
            broken, forms = json.loads(self.process.stdout.readline())
        except ValueError as error:
            raise OSError(f"the process that decodes pictures died ({self.process.wait()})") from error
        return {int(row): why for row, why in broken.items()}, [
            (tuple(shape), colour) for shape, colour in forms
        ]


@contextmanager
def decoders(n: int, size: int) -> Iterator[list[Decoder]]:
    """Some processes that decode, until the block ends; they end with this process, however it ends."""
    started: list[Decoder] = []
    try:
        for _ in range(n):
            started.append(Decoder(size))
        yield started
    finally:
        for decoder in started:
            decoder.process.kill()
            decoder.process.communicate()


def main(size: int) -> None:
    """Answer every line of paths on standard input with pixels and a line of what was found."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the one who asks, and ends this one too
    for line in sys.stdin.buffer:
        sources = json.loads(line)
        images = np.empty((len(sources), 1, size, size), np.uint8)
        answer = json.dumps(decode_block(sources, images)).encode()
        sys.stdout.buffer.write(images)
        sys.stdout.buffer.write(answer + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main(int(sys.argv[1]))
