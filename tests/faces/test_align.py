"""Faces are aligned by dlib's trees, which are followed as dlib does; a broken file of them is refused."""

import hashlib

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from fer_utils.config import ConfigError
from fer_utils.faces import align
from fer_utils.faces.align import (
    CROPS,
    LANDMARKS,
    MEAN_FACE,
    N_CROPS,
    POINTS,
    SIDE,
    SQUARES,
    FaceAligner,
    read_trees,
)


def number(value):
    """An integer as dlib writes it: the number of its bytes, plus 128 for a negative one, then these, the
    lowest first."""
    content = abs(value).to_bytes(max(1, (abs(value).bit_length() + 7) // 8), "little")
    return bytes([len(content) + 128 * (value < 0)]) + content


def real(value):
    """A real number as dlib writes it: a whole one and the power of two to multiply it with."""
    mantissa, exponent = np.frexp(value)
    return number(round(float(mantissa) * 2**24)) + number(int(exponent) - 24)


def matrix(values):
    """A column of numbers; dlib writes its two sizes as negative ones."""
    return number(-len(values)) + number(-1) + b"".join(map(real, values))


def several(parts):
    """How many there are, and these."""
    return number(len(parts)) + b"".join(parts)


def random_trees(seed=0, moves=0.002):
    """The content of such a file, by the names of the buffers, as float16 holds it."""
    rng = np.random.default_rng(seed)
    stages, trees, splits = align.STAGES, align.TREES, align.SPLITS
    parts = {
        "shape": np.array(MEAN_FACE) + rng.normal(0, 0.01, (POINTS, 2)),
        "pixels": rng.integers(0, POINTS, (stages, align.PIXELS)),
        "offsets": rng.normal(0, 0.2, (stages, align.PIXELS, 2)),
        "thresholds": rng.normal(0, 30, (stages, trees, splits)),
        "leaves": rng.normal(0, moves, (stages, trees, splits + 1, 2 * POINTS)),
    }
    parts = {name: v.astype(np.float16).astype(float) if v.dtype == float else v for name, v in parts.items()}
    first, second = rng.integers(0, align.PIXELS, (2, stages, trees, splits))
    return parts | {"first": first, "second": second}


def write_trees(path, monkeypatch):
    """dlib's file with random trees, which counts as the published one."""
    parts = random_trees()
    splits = [
        [
            several([number(int(a)) + number(int(b)) + real(c) for a, b, c in zip(*tree, strict=True)])
            + several([matrix(leaf) for leaf in leaves])
            for *tree, leaves in zip(*stage, strict=True)
        ]
        for stage in zip(*(parts[n] for n in ("first", "second", "thresholds", "leaves")), strict=True)
    ]
    content = number(1) + matrix(parts["shape"].ravel()) + several([several(stage) for stage in splits])
    content += several([several([number(int(k)) for k in stage]) for stage in parts["pixels"]])
    content += several([several([real(x) + real(y) for x, y in stage]) for stage in parts["offsets"]])
    path.write_bytes(content)
    monkeypatch.setattr(align, "SHA256", hashlib.sha256(content).hexdigest())
    return parts


@pytest.fixture
def few_trees(monkeypatch):
    for name, value in {"STAGES": 3, "TREES": 40, "SPLITS": 7, "PIXELS": 30}.items():
        monkeypatch.setattr(align, name, value)


def aligner_of(parts):
    aligner = FaceAligner()
    like = aligner.state_dict()
    aligner.load_state_dict({name: torch.tensor(parts[name], dtype=t.dtype) for name, t in like.items()})
    return aligner


def followed(parts, grey, side, middle):
    """The points of one image [SIDE, SIDE] as dlib's extract_feature_pixel_values and regression_tree find
    them, one number at a time; complex numbers turn and scale. The corners of dlib's rectangles are the
    middles of pixels, whose places are half a pixel further on here."""
    shape = parts["shape"] @ [1, 1j]
    points, corner = shape.copy(), SIDE * complex(0.5 - side / 2, middle - side / 2)
    last = SIDE * side - 1  # its last row and column, from the first on
    start = shape - shape.mean()
    for stage in range(len(parts["first"])):
        turn = (start.conj() * (points - points.mean())).sum() / (abs(start) ** 2).sum()
        levels = []
        for pixel, (x, y) in zip(parts["pixels"][stage], parts["offsets"][stage], strict=True):
            place = corner + last * (turn * complex(x, y) + points[pixel])
            column, row = round(place.real), round(place.imag)
            levels.append(grey[row, column] if 0 <= row < SIDE and 0 <= column < SIDE else 0.0)
        moves = 0
        for tree in range(parts["first"].shape[1]):
            place = 0
            while place < parts["first"].shape[2]:
                a, b = (levels[parts[name][stage, tree, place]] for name in ("first", "second"))
                place = 2 * place + (1 if a - b > parts["thresholds"][stage, tree, place] else 2)
            moves += parts["leaves"][stage, tree, place - parts["first"].shape[2]]
        points = points + moves.reshape(-1, 2) @ [1, 1j]
    points = (corner + last * points + 0.5 + 0.5j) / SIDE
    return np.stack([points.real, points.imag], 1)


def test_points_are_those_that_dlib_finds(few_trees):
    parts = random_trees()
    images = torch.rand(3, 1, 9, 9, generator=torch.Generator().manual_seed(0))
    large = F.interpolate(images, size=(SIDE, SIDE), mode="bicubic").clamp(0, 1)
    expected = [
        np.median([followed(parts, 255 * grey[0].numpy(), side, 0.5 + low) for side, low in SQUARES], axis=0)
        for grey in large
    ]
    found = aligner_of(parts).points(images).numpy()
    assert np.allclose(found, expected, atol=1e-5)
    assert np.ptp(found, axis=0).max() > 0.002  # the images decide


def test_the_file_is_read_as_it_was_written(few_trees, tmp_path, monkeypatch):
    parts = write_trees(tmp_path / LANDMARKS, monkeypatch)
    read = read_trees(tmp_path / LANDMARKS)
    assert set(read) == set(parts)
    for name, values in parts.items():
        assert np.array_equal(read[name].double().numpy(), values), name


def test_a_file_that_was_cut_off_or_damaged_is_refused(few_trees, tmp_path, monkeypatch):
    write_trees(tmp_path / LANDMARKS, monkeypatch)
    content = (tmp_path / LANDMARKS).read_bytes()
    for wrong in (content[:-1], b"", bytes(len(content)), content[:500] + b"\x00" + content[501:]):
        (tmp_path / LANDMARKS).write_bytes(wrong)
        with pytest.raises(ConfigError, match=rf"{LANDMARKS} is not the published file, or is damaged"):
            read_trees(tmp_path / LANDMARKS)


def test_without_the_file_the_message_says_where_it_belongs(tmp_path):
    with pytest.raises(ConfigError, match=rf"{LANDMARKS} cannot be read .* must lie beside dlib's"):
        read_trees(tmp_path / LANDMARKS)


def spots(places, spread=0.03, size=96):
    """Images with a bright spot at each of the places [N, P, 2], shares of the side."""
    centres = (torch.arange(size) + 0.5) / size
    x, y = ((centres - places[..., k, None]) ** 2 for k in range(2))
    return torch.exp(-(y[..., :, None] + x[..., None, :]) / 2 / spread**2).sum(1, keepdim=True).clamp(0, 1)


@pytest.mark.parametrize(("degrees", "size", "move"), [(0, 0.9, 0.0), (25, 0.7, 0.08), (-15, 0.8, -0.05)])
def test_eyes_and_nose_come_to_the_places_of_dlib(monkeypatch, degrees, size, move):
    targets = [(torch.tensor(MEAN_FACE) - 0.5) / side + 0.5 for side in CROPS]
    target = targets[0]
    angle = torch.tensor(degrees / 180 * torch.pi)
    turn = size * torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()]).view(2, 2)
    seen = ((target - 0.5) @ turn.T + 0.5 + torch.tensor([move, -move]))[None]
    aligner = FaceAligner()
    monkeypatch.setattr(aligner, "points", lambda images: seen)
    image = spots(seen)
    crops = aligner(image, 96)
    assert crops.shape == (1, N_CROPS, 96, 96) and torch.equal(crops[:, -1:], image)  # the whole image
    for crop, target, side in zip(crops[0], targets, CROPS, strict=False):
        spread = 0.03 / size * CROPS[0] / side
        assert torch.allclose(crop[None, None], spots(target[None], spread), atol=0.25)
        assert crop[tuple((target * 96).long().flip(1).T)].min() > 0.8
    back = aligner.back(crops, image)
    assert back.shape == crops.shape and torch.allclose(back, image.expand_as(back), atol=0.25)


def test_places_are_exact_in_reduced_precision(few_trees):
    aligner, images = aligner_of(random_trees()), torch.rand(2, 3, 48, 48)
    expected = aligner(images, 60)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(aligner(images, 60), expected)
    assert expected.shape == (2, 3 * N_CROPS, 60, 60) and expected.min() >= 0 and expected.max() <= 1


def test_the_places_of_eyes_and_nose_are_those_of_dlib():
    """Both eyes at one height, on both sides of the middle; the nose below it, as in its aligned faces."""
    right, inner_right, left, inner_left, nose = np.array(MEAN_FACE)
    assert np.allclose((right + left)[0], (inner_right + inner_left)[0], atol=0.001)
    assert np.allclose([right[1], inner_right[1]], [left[1], inner_left[1]], atol=0.001)
    assert right[0] > inner_right[0] > nose[0] > inner_left[0] > left[0]
    assert np.allclose(nose - (right + left) / 2, [0, 0.414], atol=0.001)


def test_trees_that_know_nothing_see_the_mean_face_in_the_middle_square():
    """From the places of aligned faces to those in the middle one of three squares only the size changes."""
    for side, matrix in zip(CROPS, FaceAligner().matrices(torch.rand(2, 1, 48, 48)), strict=True):
        assert torch.equal(*matrix)
        assert torch.allclose(matrix[0, :, :2], torch.eye(2) * 0.9 * side, atol=0.03)
        x, y = (matrix[0, :, 2] + 1) / 2  # of the middle of an aligned face
        assert abs(x - 0.5) < 0.01 and abs(y - 0.55) < 0.01
