"""Faces set into larger images, found and cropped: python -m benchmarks.own_photos --data path/to/fer2013

The first validation faces, four times as large, each at a random place of a plain image of three times its
height and four times its width. Prints how many are found, and the accuracy of a committed network on the
boxes and, of the same faces, on the original images.
"""

from __future__ import annotations

import argparse

import numpy as np
from PIL import Image

from fer_utils.data.decode_images import to_format
from fer_utils.data.load import load_competition
from fer_utils.faces.predict_photos import find_face
from fer_utils.learning.metrics import accuracy_of, describe
from fer_utils.run.committed_results import load_reference

LARGER = 4


def main() -> None:
    """Search, predict and print."""
    parser = argparse.ArgumentParser("python -m benchmarks.own_photos", description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", default="auto", help="as in the notebooks")
    parser.add_argument(
        "--reference", default="fer2013-cpu", help="a committed result; its first network is used"
    )
    parser.add_argument("--faces", type=int, default=800)
    options = parser.parse_args()
    run = load_reference(options.reference).runs[0]
    valid = load_competition(options.data, **run.config.data_options).valid
    images, labels, rng = (
        valid.images[: options.faces],
        valid.labels[: options.faces],
        np.random.default_rng(0),
    )
    found, cropped = np.zeros(len(images), bool), np.zeros_like(images)
    for row, image in enumerate(images):
        photo = _photo(image[0], rng)
        if box := find_face(photo).box:
            found[row], cropped[row] = True, to_format(photo.crop(box), run.image_format)
    print(f"{found.sum():,} of {len(found):,} faces found ({found.mean():.0%})")
    for name, shown in (("boxes", cropped), ("original images", images)):
        preds = run.predict(shown[found], "plain").argmax(1)
        print(f"accuracy on the {name} of these: {describe(accuracy_of(preds == labels[found]))}")


def _photo(face: np.ndarray, rng: np.random.Generator) -> Image.Image:
    side = LARGER * len(face)
    photo = Image.new("L", (4 * side, 3 * side), int(rng.integers(60, 200)))
    large = Image.fromarray(face).resize((side, side), Image.Resampling.BICUBIC)
    photo.paste(large, (int(rng.integers(0, 3 * side)), int(rng.integers(0, 2 * side))))
    return photo


if __name__ == "__main__":
    main()
