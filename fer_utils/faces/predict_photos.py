"""A person's own photos: the face in each is found and cut out, and runs say what it shows.

Faces are found by OpenCV's cascade of Haar features (Viola and Jones 2001), upright ones seen from the front.
FER2013 was collected with OpenCV's detector (Goodfellow et al. 2013), so that a box frames a face as there.
Of 800 PublicTest faces set into larger images it found 78 %, and a network scored 68.1 % on the boxes of
those, 70.5 % on the original images (`python -m benchmarks.own_photos`).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
import pandas as pd
from PIL import Image

from fer_utils.arrays_on_disk import empty
from fer_utils.competition import DataError
from fer_utils.data.decode_images import IMAGE_SUFFIXES, ImageFormat, open_image, to_format
from fer_utils.data.files.list_files import walk
from fer_utils.progress import bar

if TYPE_CHECKING:
    import cv2

CASCADE = "haarcascade_frontalface_alt2.xml"
# Pixels of the shorter side: what is smaller is taken for a face that was cropped already; and those of the
# longer side at which faces are searched for.
SMALLEST_PHOTO, SEARCHED = 128, 800
# A box that fills more of the shorter side: the photo is cropped already, as well as the box would do it.
ALREADY_CROPPED = 0.6
HOW_TO_INSTALL = (
    'faces are not searched for in whole photos: pip install "opencv-python-headless<5" (5.0 has no '
    "cascade), or crop them yourself"
)


class Predictor(Protocol):
    """A run: see `fer_utils.run.finished_run.Run`."""

    class_names: tuple[str, ...]
    image_format: ImageFormat

    def predict(self, images: np.ndarray, views: str | None) -> np.ndarray:
        """Class probabilities float32 [N, C] of uint8 images [N, C, H, W]."""


class FoundFace(NamedTuple):
    """What a search in a photo gave.

    Attributes:
        said: "found", "largest of 3", "already cropped", "none found" or "not searched".
        box: left, top, right and bottom in pixels; None if the whole photo is taken.
    """

    said: str
    box: tuple[int, int, int, int] | None = None


@functools.cache
def detector() -> cv2.CascadeClassifier | None:
    """OpenCV's detector; None without OpenCV, or in a version that has no cascade."""
    try:
        import cv2

        found = cv2.CascadeClassifier(cv2.data.haarcascades + CASCADE)
    except (ImportError, AttributeError):
        return None
    return None if found.empty() else found


def find_face(photo: Image.Image) -> FoundFace:
    """The largest face in an upright photo."""
    if detector() is None:
        return FoundFace("not searched")
    shorter, longer = sorted(photo.size)
    if shorter < SMALLEST_PHOTO:
        return FoundFace("already cropped")
    scale = min(1.0, SEARCHED / longer)
    small = photo.convert("L").resize([max(1, round(scale * side)) for side in photo.size])
    smallest = max(24, round(scale * shorter / 10))
    boxes = detector().detectMultiScale(np.asarray(small), 1.1, 5, minSize=(smallest, smallest))
    if not len(boxes):
        return FoundFace("none found")
    left, top, side = (int(value / scale) for value in max(boxes, key=lambda box: box[2])[:3])
    if side > ALREADY_CROPPED * shorter:
        return FoundFace("already cropped")
    said = "found" if len(boxes) == 1 else f"largest of {len(boxes)}"
    return FoundFace(said, (left, top, left + side, top + side))


def answers(
    runs: Sequence[Predictor],
    files: str | Path | Sequence[str | Path],
    views: str | None = None,
    crop: bool = True,
) -> pd.DataFrame:
    """What runs with the same classes, averaged, say of image files, of all in a folder (by name), or of one.

    They may have any size and colours. Of a whole photo the largest face is cut out (`find_face`); without
    one, or without `crop`, all of it is used, which is right for faces that were cropped as in the data of
    the runs (in FER2013 from the brow to below the chin).

    Returns a row per file: `file`, `answer`, `confidence` (the probability of the answer), `face` (how it was
    found) and `box` (left, top, right and bottom in pixels, or empty), and the probability of each class. No
    image there, or one that cannot be read, is a DataError that names the file.
    """
    paths, names = image_files(files), list(runs[0].class_names)
    images = {wanted: empty((len(paths), *wanted.shape)) for wanted in {run.image_format for run in runs}}
    faces = []
    for row, path in enumerate(bar(paths, "photos", len(paths))):
        photo = opened(path)
        faces.append(find_face(photo) if crop else FoundFace("not searched"))
        used = photo.crop(faces[-1].box) if faces[-1].box else photo
        for wanted, target in images.items():
            target[row] = to_format(used.convert("L") if wanted.channels == 1 else used, wanted)
    if crop and detector() is None:
        print(HOW_TO_INSTALL)
    probs = np.mean([run.predict(images[run.image_format], views) for run in runs], axis=0)
    first = {"file": list(map(str, paths)), "answer": [names[k] for k in probs.argmax(1)]}
    first |= {"confidence": probs.max(1), "face": [face.said for face in faces]}
    first |= {"box": [" ".join(map(str, face.box or ())) for face in faces]}
    return pd.DataFrame(first | dict(zip(names, probs.T, strict=True)))


def opened(path: Path) -> Image.Image:
    """An image file, upright and RGB; a DataError that names the file if it cannot be read."""
    try:
        return open_image(path, channels=3)[0]
    except Exception as error:  # see open_image
        raise DataError(f"{path}: not a readable image: {error or type(error).__name__}") from error


def image_files(files: str | Path | Sequence[str | Path]) -> list[Path]:
    """The paths in `files`, or those of the images in a folder, by name; a DataError where there is none."""
    paths = [Path(path) for path in ([files] if isinstance(files, (str, Path)) else files)]
    if len(paths) == 1 and (folder := paths[0]).is_dir():
        paths = sorted(folder / name for name, _ in walk(folder) if name.lower().endswith(IMAGE_SUFFIXES))
    if not paths:
        raise DataError(f"{files}: no images there ({', '.join(IMAGE_SUFFIXES)})")
    for path in paths:
        if not path.is_file():
            raise DataError(f"{path}: no such image")
    return paths
