"""Image files decoded, and images resized, turned to grey and measured: uint8 [N, C, H, W] throughout; C is 1
for grey, 3 for red, green and blue."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import joblib
import numpy as np
from joblib.externals.loky import get_reusable_executor
from joblib.externals.loky.process_executor import TerminatedWorkerError
from PIL import Image, ImageOps

from fer_utils.arrays_on_disk import ROWS_TOGETHER, empty
from fer_utils.competition import DataError
from fer_utils.progress import bar

LFS = b"version https://git-lfs"  # how a file begins that Git LFS has not fetched

IMAGE_SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".gif", ".tif", ".tiff"),
    *(".webp", ".avif", ".pgm", ".ppm"),
)
# Pillow's names of these; others, such as EPS, would start programs. (AVIF is not in every Pillow.)
FORMATS = (
    *("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM"),
    *["AVIF"] * (".avif" in Image.registered_extensions()),
)
# Larger than any camera's face; a decompression bomb is larger still.
MAX_PIXELS = 64_000_000
MID_GREY = 128
# Grey levels. In FER2013 the 14 images below it are black, grey or a dot; the next one above it is a face.
BLANK_CONTRAST = 5.0
# Mean difference of the strongest and the weakest channel of an image with colours; a grey one that was
# saved with three channels has none.
COLOURED = 6.0
# Files that a process decodes at a time, and the fewest bytes for which processes are started: on two busy
# cores 16,000 files of 48 pixels (32 MB) took 1.5 s in one process, 3.7 s in several. (Threads share a lock.)
DECODED_TOGETHER, WORTH_PROCESSES = 256, 60_000_000

Form = tuple[tuple[int, int], bool]  # width and height, and whether its file format has colours


class ImageFormat(NamedTuple):
    """What images become: squares of `size` pixels with 1 or 3 `channels`. Of an image that is not square
    `aspect` "crop" keeps the largest square in the middle; "pad" keeps all of it between mid-grey bars."""

    size: int
    channels: int = 1
    aspect: str = "crop"

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of one image: channels, height and width."""
        return self.channels, self.size, self.size


def resized(image: Image.Image, size: int, aspect: str = "crop") -> Image.Image:
    """An image at `size` x `size`, antialiased: the one way to resize, in training and in prediction."""
    if image.size == (size, size):
        return image
    if aspect == "pad":
        grey = (MID_GREY,) * len(image.getbands())
        return ImageOps.pad(image, (size, size), Image.Resampling.BICUBIC, grey)
    width, height = image.size
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    return image.resize((size, size), Image.Resampling.BICUBIC, (left, top, left + side, top + side))


def resize(images: np.ndarray, size: int, aspect: str = "crop") -> np.ndarray:
    """Resize uint8 [N, C, H, W] to `size` x `size`; the same array if that is its size."""
    if images.shape[2:] == (size, size):
        return images
    out = empty((*images.shape[:2], size, size))
    for image, target in zip(images, out, strict=True):
        pixels = image[0] if len(image) == 1 else np.moveaxis(image, 0, 2)
        _fill(target, resized(Image.fromarray(pixels), size, aspect))
    return out


def _fill(target: np.ndarray, image: Image.Image) -> None:
    """Copy an image into uint8 [C, H, W]."""
    target[:] = np.moveaxis(np.atleast_3d(np.asarray(image)), 2, 0)


def with_channels(images: np.ndarray, channels: int) -> np.ndarray:
    """uint8 [N, C, H, W] with 1 channel, weighted as PIL does (ITU-R 601), or with 3; the same array if it
    has as many."""
    if images.shape[1] == channels:
        return images
    if channels == 3:
        return images.repeat(3, axis=1)
    red, green, blue = (images[:, k].astype(np.uint32) for k in range(3))
    weighted = 19595 * red + 38470 * green + 7471 * blue  # 0.299, 0.587 and 0.114 of 2 ** 16
    return ((weighted + 32768) >> 16).astype(np.uint8)[:, None]


def coloured(images: np.ndarray) -> np.ndarray:
    """Which of uint8 [N, C, H, W] have colours, bool [N]; grey in three equal channels has none."""
    return (images.max(1).astype(np.float32) - images.min(1)).mean((1, 2)) > COLOURED


def decode(source: Path | bytes | None, wanted: ImageFormat) -> tuple[np.ndarray, Form]:
    """An image file, or its bytes, as uint8 [channels, size, size]; and what it was before. Raises as
    `open_image` does."""
    image, is_colour = open_image(source, wanted.channels)
    return to_format(image, wanted), (image.size, is_colour)


def to_format(image: Image.Image, wanted: ImageFormat) -> np.ndarray:
    """A grey or RGB image as uint8 [channels, size, size]."""
    pixels = np.empty(wanted.shape, np.uint8)
    _fill(pixels, resized(image, wanted.size, wanted.aspect))
    return pixels


def open_image(source: Path | bytes | None, channels: int) -> tuple[Image.Image, bool]:
    """An image file, or its bytes, upright and grey or RGB, an animation by its first image; and whether its
    format has colours, which a grey one may be saved in too.

    Raises:
        Exception: whatever Pillow's plugins stumble over in a broken file.
    """
    if source is None:
        raise FileNotFoundError("no such image file")
    with Image.open(BytesIO(source) if isinstance(source, bytes) else source, formats=FORMATS) as file:
        if file.width * file.height > MAX_PIXELS:
            raise ValueError(f"{file.width} x {file.height} pixels are too many")
        ImageOps.exif_transpose(file, in_place=True)
        is_colour = file.mode not in ("L", "1", "LA", "I", "I;16", "I;16B", "F")
        image = _scaled(np.asarray(file)) if file.mode[0] in "IF" else file
        return image.convert("L" if channels == 1 else "RGB"), is_colour


def _scaled(values: np.ndarray) -> Image.Image:
    """An image of more than 8 bits as grey levels from 0 to 255, by the range of its values: fractions up to
    1, 8, 12 or 16 bits. (Pillow would cut off at 255.)"""
    highest = float(values.max(initial=0))
    is_fraction = values.dtype.kind == "f" and highest <= 1
    top = next((top for top in (255, 4095, 65535) if highest <= top), highest)
    return Image.fromarray((values * (255 / (1 if is_fraction else top))).clip(0, 255).astype(np.uint8))


def _decode_block(
    sources: Sequence[Path | bytes | None], wanted: ImageFormat
) -> tuple[np.ndarray, dict[int, str], Counter[Form]]:
    """See `read_files`."""
    images = np.full((len(sources), *wanted.shape), MID_GREY, np.uint8)
    broken, forms = {}, Counter()
    for row, source in enumerate(sources):
        try:
            images[row], form = decode(source, wanted)
            forms[form] += 1
        except Exception as error:  # see decode
            reason = str(error) or type(error).__name__
            if isinstance(source, Path) and source.is_file() and source.read_bytes().startswith(LFS):
                reason = "a Git LFS pointer, not the file itself: git lfs pull fetches it"
            if isinstance(source, Path):
                reason = reason.replace(str(source), source.name)
            reason = re.sub(r" <_io\.BytesIO.*?>", "", reason)
            broken[row] = reason if source is None else f"not a readable image: {reason}"
    return images, broken, forms


def read_files(
    sources: Sequence[Path | bytes | None], wanted: ImageFormat
) -> tuple[np.ndarray, dict[int, str], Counter[Form]]:
    """Decode image files, or their bytes; many on all cores.

    Returns:
        uint8 [N, channels, size, size], mid-grey where a file is broken; why, by position; the others' forms.

    Raises:
        DataError: a process that decodes died, as it does when memory runs out.
    """
    images = empty((len(sources), *wanted.shape))
    broken, forms, start = {}, Counter(), 0
    blocks = [sources[k : k + DECODED_TOGETHER] for k in range(0, len(sources), DECODED_TOGETHER)]
    try:
        decoded = _decoded(blocks, wanted)
        for block, reasons, seen in bar(decoded, "decoding", len(blocks)):
            images[start : start + len(block)] = block
            broken |= {start + row: reason for row, reason in reasons.items()}
            forms.update(seen)
            start += len(block)
    except TerminatedWorkerError as error:
        names = f"{sources[start]} or the {len(sources) - start - 1} files after it"
        raise DataError(f"a process that decodes images died at {names}: is there enough memory?") from error
    return images, broken, forms


def _decoded(blocks: list[Sequence[Path | bytes | None]], wanted: ImageFormat) -> Iterator[tuple]:
    """`_decode_block` of each block, in order, by processes where there is much to decode."""
    first = [path.stat().st_size for path in blocks[0] if isinstance(path, Path) and path.is_file()]
    if not first or np.mean(first) * len(blocks) * DECODED_TOGETHER < WORTH_PROCESSES:
        yield from (_decode_block(block, wanted) for block in blocks)
        return
    pool = joblib.Parallel(n_jobs=min(os.cpu_count() or 1, len(blocks)), return_as="generator")
    try:
        yield from pool(joblib.delayed(_decode_block)(block, wanted) for block in blocks)
    finally:  # also after Ctrl-C: no process stays behind
        get_reusable_executor().shutdown(kill_workers=True)


def changes(forms: Counter[Form], wanted: ImageFormat) -> list[str]:
    """What was changed in images of these forms, in words."""
    size, channels = wanted.size, wanted.channels
    sizes, colour = Counter(), 0
    for (shape, is_colour), count in forms.items():
        sizes[shape] += count
        colour += count * is_colour
    other = [(shape, count) for shape, count in sizes.most_common() if shape != (size, size)]
    names = ", ".join(f"{width}x{height} ({count:,})" for (width, height), count in other[:3])
    notes = [f"resized to {size}x{size}: {names}{', ...' if len(other) > 3 else ''}"] if other else []
    if cut := sum(count for (width, height), count in sizes.items() if width != height):
        how = "cut to the middle" if wanted.aspect == "crop" else "padded with grey"
        notes.append(f"not square, {how}: {cut:,} images")
    if channels == 1 and colour:
        notes.append(f"saved in a colour format, read as grey: {colour:,} images")
    return notes


def light(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean and the standard deviation of the grey levels of each image of uint8 [N, C, H, W]."""
    moments = np.empty((2, len(images)))
    for start in range(0, len(images), ROWS_TOGETHER):
        rows = slice(start, start + ROWS_TOGETHER)
        pixels = with_channels(images[rows], 1).reshape(len(images[rows]), -1)
        moments[0, rows] = pixels.sum(1, dtype=np.int64) / pixels.shape[1]
        moments[1, rows] = np.einsum("ij,ij->i", pixels, pixels, dtype=np.int64) / pixels.shape[1]
    mean, mean_square = moments
    return mean, np.sqrt((mean_square - mean**2).clip(min=0))
