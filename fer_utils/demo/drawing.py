"""Faces drawn from action units, a batch at a time.

Only + - * / and square roots are used, which IEEE 754 defines to the last bit: exp or sin would depend on the
machine. Lengths are in half frames: x and y run from -1 to 1, y downwards.
"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from fer_utils.competition import DataError
from fer_utils.demo.action_units import sample_features

CHUNK = 32  # faces drawn at a time, few enough for the processor's cache; it changes no image


def _cover(distance, blur):
    """How much of each pixel lies where `distance` is negative, with an edge `blur` wide."""
    return np.clip(0.5 - distance * (1 / blur), 0, 1)


def _line(distance, half_width, blur):
    """A line where `distance` is about zero."""
    return _cover(np.abs(distance) - half_width, blur)


def _spot(x, y, radius_x, radius_y):
    """A soft spot: 1 in the middle, 0 from the radius on."""
    distance = np.square(x * (1 / radius_x)) + np.square(y * (1 / radius_y))
    return np.square(np.clip(1 - distance, 0, 1))


def _disc(x, y, radius, blur):
    return _cover(np.sqrt(x * x + y * y) - radius, blur)


def _waves(phase):
    """A triangle wave of period 1 between 0 and 1."""
    return np.abs(phase - np.floor(phase) - 0.5) * 2


def _paint(canvas, mask, tone):
    canvas += mask * (tone - canvas)


def _shade(canvas, mask):
    canvas *= 1 - mask


def _draw_head(canvas, f, u, v, px):
    """Background, hair behind, neck, ears, head and hair in front. Returns the head's mask."""
    canvas += f.background * (1 + 0.25 * v * f.light_y + 0.5 * u * f.light_x)
    curl = f.curl * (_waves(3.1 * u + 1.3 * v) + _waves(2.7 * v - 1.9 * u) - 1)
    height = np.where(v < 0, np.float32(0.97), f.chin)
    narrow = f.head_width * (1 - f.jaw * np.clip(v, 0, 1) ** 2)
    radius = np.sqrt((u / narrow) ** 2 + (v / height) ** 2)
    edge = (radius - 1) * f.head_width  # about the distance to the outline of the head
    strands = _waves(6.3 * u - 2 * u * v + f.gaze_x * 30) + _waves(10.7 * u - 4 * u * v)
    tone = f.hair * (0.9 + 0.1 * strands) + 0.14 * _spot(u + f.light_x, v + 0.8, 0.55, 0.16)
    behind = _cover(edge * (1 + 0.35 * np.clip(v, 0, 1)) - f.volume + curl, px) * _cover(v - f.sides, 0.1)
    _paint(canvas, behind, tone * 0.9)
    neck = _cover(np.abs(u) - 0.4 - 0.9 * np.clip(v - 0.92, 0, 1), px) * _cover(0.5 - v, px)
    _paint(canvas, neck, f.skin * 0.62)
    ears = _disc(2 * (np.abs(u) - f.head_width - 0.01), v - 0.02, 0.18, 2 * px)
    _paint(canvas, ears * (1 - behind * (f.sides > 0.2)), f.skin * 0.8)
    head = _cover(edge, px)
    _paint(canvas, head, f.skin * (1.06 - 0.26 * radius * radius * radius))
    aside = np.abs(u - 0.1 * f.slant)
    hairline = f.slant * u + f.curve * aside * (0.4 + aside) + 0.02 * strands - f.hairline
    front = _cover(v - hairline + curl, px * 1.3)
    _paint(canvas, front * _cover(edge - f.volume + curl, px), tone)
    return head


def _draw_skin(canvas, f, x, y, px):
    """Shading and wrinkles between the features: forehead, furrow, nose, folds, cheeks."""
    _shade(canvas, f.forehead * _spot(x, y + 0.58, 0.45, 0.15) * _waves(y * 11 + x * x * 2) ** 2)
    _shade(canvas, f.furrow * _line(np.abs(x) - 0.05, 0.008, px) * _spot(x, y + 0.31, 0.3, 0.16))
    _shade(canvas, f.nose_wrinkle * _spot(x, y + 0.08, 0.2, 0.2) * _waves(y * 10 - np.abs(x) * 3))
    _shade(canvas, 0.16 * _spot(np.abs(x) - 0.17, y + 0.18, 0.14, 0.2))  # inner corners of the eye sockets
    _paint(canvas, 0.25 * _spot(x, y - f.nose_y + 0.09, 0.09, 0.28), 1)  # ridge and tip
    sign = np.float32(1) - 2 * (f.light_x > 0)
    _shade(canvas, 0.16 * _spot(x - sign * 0.1, y - f.nose_y + 0.12, 0.08, 0.3))
    a = np.abs(x)
    _shade(canvas, 0.6 * _spot(a - f.nose_width * 0.62, y - f.nose_y, 0.065, 0.05))
    _shade(canvas, 0.3 * _spot(a - f.nose_width * 1.25, y - f.nose_y + 0.03, 0.05, 0.08))
    _shade(canvas, 0.2 * _spot(x, y - f.nose_y - 0.045, 0.16, 0.05))
    down = (y - f.nose_y + 0.02) / 0.42
    fold = a - f.nose_width - 0.06 - 0.55 * (f.mouth_width - 0.08) * down * (1.6 - 0.6 * down)
    _shade(canvas, f.fold * _line(fold, 0.015, 0.08) * np.clip(4 * down * (1 - down), 0, 1))
    _paint(canvas, f.cheek * _spot(a - 0.43, y - 0.17, 0.22, 0.17), 1)
    _shade(canvas, f.cheek * 0.7 * _spot(a - 0.47, y - 0.37, 0.2, 0.12))


def _draw_eye(canvas, f, a, y, px):
    """One eye with its lids; `a` runs from the middle of the face outwards."""
    x, y = (a - f.eye_x) / f.eye_width, y - f.eye_y
    bow = 1 - x * x
    upper, lower = -f.lid_upper * bow, f.lid_lower * bow
    near = np.clip(6 - 5 * np.abs(x), 0, 1)
    _shade(canvas, 0.25 * _line(y - upper + 0.075, 0.012, px) * near)  # crease of the upper lid
    _shade(canvas, f.lid_bag * _line(y - lower - 0.06, 0.012, px) * near)
    fan = y / (np.abs(a - f.eye_x) + 0.05)  # crow's feet: rays from the outer corner
    temple = _spot(a - f.eye_x - f.eye_width - 0.1, y, 0.13, 0.17)
    _shade(canvas, f.crow_feet * temple * _waves(fan * 3 + 0.5))
    opening = _cover(upper - y, px) * _cover(y - lower, px)
    _paint(canvas, opening, 0.55 + 0.4 * f.skin)
    over_x, over_y = a - f.eye_x - f.look, y - f.gaze_y + 0.01
    _paint(canvas, opening * _disc(over_x, over_y, 0.098, px), f.iris)
    _paint(canvas, opening * _disc(over_x, over_y, 0.05, px), 0.03)
    _paint(canvas, opening * _spot(over_x + 0.03, over_y + 0.04, 0.045, 0.045), 1)
    _shade(canvas, 0.8 * _line(y - upper + 0.01, 0.018, px) * near)  # lashes
    _shade(canvas, 0.3 * _line(y - lower - 0.008, 0.008, px) * near)


def _draw_brow(canvas, f, a, y, px):
    along = (a - f.brow_inner_x) / (f.brow_outer_x - f.brow_inner_x)
    middle = f.brow_inner_y + (f.brow_outer_y - f.brow_inner_y) * along
    middle -= 4 * f.brow_arch * along * (1 - along)
    ends = np.clip(0.5 + along * 8, 0, 1) * np.clip(0.5 + (1 - along) * 5, 0, 1)
    brow = ends * _line(y - middle, f.brow_size * (1.05 - 0.6 * np.clip(along, 0, 1)), px * 1.2)
    _paint(canvas, 0.85 * brow, np.minimum(f.hair, f.skin * 0.55) * 0.8)


def _draw_mouth(canvas, f, x, y, px):
    """Lips, and what an open mouth shows: dark, teeth, tongue."""
    t = x / f.mouth_width
    y = y - f.mouth_y - f.tilt * np.clip(t, -1.2, 1.2)
    bow = 1 - t * t
    rest = f.corner_y * (np.clip(t * t, 0, 1.4) - 0.35)  # the line of the closed mouth
    upper, lower = rest - f.open_upper * bow, rest + f.open_lower * bow
    cupid = bow * (1 - 0.35 * np.clip(1 - np.abs(t) * 3, 0, 1))
    lips = _cover(upper - f.lip_upper * cupid - y, px) * _cover(y - lower - f.lip_lower * bow, px)
    _shade(canvas, 0.2 * _spot(x, y - f.open_lower - f.lip_lower - 0.11, 0.2, 0.07))  # under the lower lip
    _paint(canvas, 0.75 * lips, f.skin * 0.62)
    _paint(canvas, 0.3 * lips * _spot(x, y - lower - f.lip_lower * 0.5, 0.14, 0.04), 1)
    inside = _cover(upper - y, px) * _cover(y - lower, px) * np.clip(12 - 11 * np.abs(t), 0, 1)
    _paint(canvas, inside, 0.07)
    _paint(canvas, inside * 0.6 * _spot(x, y - lower, 0.17, 0.1), f.skin * 0.6)  # tongue
    _paint(canvas, inside * _cover(y - upper - f.teeth_upper, px), 0.93)
    _paint(canvas, inside * _cover(lower - f.teeth_lower - y, px), 0.9)
    _shade(canvas, 0.72 * _line(y - upper, 0.016, px) * np.clip(6 - 5.5 * np.abs(t), 0, 1))
    _shade(canvas, 0.35 * _spot(np.abs(t) - 1.05, (y - f.corner_y * 0.65) * 5, 0.25, 0.35))  # corners


def _draw_beard(canvas, f, x, y, px):
    jaw = _cover(0.66 - 0.8 * x * x - y, 0.22)
    moustache = 0.8 * _spot(x, y - f.mouth_y + f.lip_upper + f.open_upper + 0.09 - 0.5 * x * x, 0.33, 0.1)
    _paint(canvas, f.beard * np.maximum(jaw, moustache) * f.head, np.minimum(f.hair, f.skin * 0.55))


def _draw_glasses(canvas, f, x, y, px):
    a = np.abs(x)
    radius = np.sqrt(((a - f.eye_x) / 0.25) ** 2 + ((y - f.eye_y) / 0.21) ** 2)
    frame = _line((radius - 1) * 0.22, 0.016, px)
    bridge = _line(y - f.eye_y + 0.04, 0.014, px) * _cover(0.25 - np.abs(a - f.eye_x), px) * f.head
    _paint(canvas, f.glasses * 0.85 * np.maximum(frame, bridge), 0.1)
    _paint(canvas, f.glasses * 0.12 * _cover(radius - 1, px * 2) * _waves(x + y + f.gaze_x * 9), 1)


def _draw_cover(canvas, f, x, y, px):
    """A hand, or something dark, that reaches over part of the face."""
    along = f.cover_cos * x + f.cover_sin * y - f.cover_reach
    across = f.cover_cos * y - f.cover_sin * x - f.cover_side
    finger = _waves(across * 6.5)
    shape = _cover(0.12 * finger * finger - along, px) * _cover(np.abs(across) - 0.231, px)
    _paint(canvas, f.cover * shape, f.cover_tone * (1 - 0.4 * finger * finger * finger))


def _draw_chunk(left, right, grain, size):
    """Draw faces from the features of their halves, name -> float32 [n, 1, 1], and the film grain [n, S, S].
    Returns uint8 [n, S, S]."""
    f = SimpleNamespace(**{name: (left[name] + right[name]) / 2 for name in left})
    f.tilt = (right["corner_y"] - left["corner_y"]) / 2
    grid = ((np.arange(size) + 0.5) * 2 / size - 1).astype(np.float32)
    x, y = (grid[None, None, :] - f.shift_x) / f.zoom, (grid[None, :, None] - f.shift_y) / f.zoom
    u, v = f.cos * x + f.sin * y, f.cos * y - f.sin * x
    x, y = u - f.yaw * (1 - 1.3 * u * u), v - f.pitch * (1 - v * v)  # features slide over a head that turns
    px = np.float32(2.2 / size)
    canvas = np.zeros_like(u)
    f.head = _draw_head(canvas, f, u, v, px)
    _draw_beard(canvas, f, x, y, px)
    _draw_skin(canvas, f, x, y, px)
    rows, low = slice(size // 16, size * 3 // 4), slice(size // 2, size)  # windows that no pose leaves
    for half, side, columns in ((left, -1, slice(size * 2 // 3)), (right, 1, slice(size // 3, size))):
        window, h = np.s_[:, rows, columns], SimpleNamespace(**half, look=side * f.gaze_x)
        _draw_eye(canvas[window], h, side * x[window], y[window], px)
        _draw_brow(canvas[window], h, side * x[window], y[window], px)
    _draw_mouth(canvas[:, low], f, x[:, low], y[:, low], px)
    _draw_glasses(canvas, f, x, y, px)
    _draw_cover(canvas, f, u, v, px)
    return _photograph(canvas, f, grid, grain)


def _photograph(canvas, f, grid, grain):
    """Light, lens and sensor: float32 [n, S, S] to uint8."""
    canvas *= 1 + f.light_x * grid[None, None, :] + f.light_y * grid[None, :, None]
    np.clip(canvas, 0, 1, out=canvas)
    canvas += f.bend * canvas * (1 - canvas)
    for view in (canvas, canvas.swapaxes(1, 2)):
        view[:, 1:-1] += f.blur * (view[:, 2:] + view[:, :-2] - 2 * view[:, 1:-1])
    blocks = canvas.reshape(len(canvas), len(grid) // 2, 2, len(grid) // 2, 2)
    mean = blocks[:, :, :1] + blocks[:, :, 1:]
    mean = (mean[..., :1] + mean[..., 1:]) / 4
    blocks += np.clip(f.soft, 0, 1)[..., None, None] * (mean - blocks)
    return (np.clip(canvas * f.gain + f.noise * grain, 0, 1) * 255 + 0.5).astype(np.uint8)


def draw_faces(
    action_units: np.ndarray, seed: int | np.random.Generator = 0, variety: float = 1.0, size: int = 48
) -> np.ndarray:
    """Draw one face for each row of action units; the same seed and count give the same persons.

    Args:
        action_units: [N, 15] intensities between 0 (at rest) and 1 (full), in the order of `ACTION_UNITS`.
        seed: of the persons, poses, light and everything else that is random.
        variety: how much these vary: 0 draws one plain face, 1 as in the demo set.
        size: height and width in pixels, even, 24 to 256.

    Returns:
        uint8 [N, 1, size, size].

    Raises:
        DataError: the size is odd or out of range.
    """
    if size % 2 or not 24 <= size <= 256:
        raise DataError(f"size must be an even number from 24 to 256, got {size}")
    rng, count = np.random.default_rng(seed), len(action_units)
    halves = sample_features(action_units, rng, variety)
    # One sheet of film grain, nearly normal as the sum of four uniforms; each image shows a part of it.
    grain = (rng.random((4, 2**17 + size * size), dtype=np.float32).sum(0) - 2) * np.float32(3**0.5)
    starts = rng.integers(2**17, size=count)
    images = np.empty((count, 1, size, size), np.uint8)
    for first in range(0, count, CHUNK):
        part = slice(first, first + CHUNK)
        left, right = ({name: value[part] for name, value in half.items()} for half in halves)
        pieces = grain[starts[part, None] + np.arange(size * size)]
        images[part, 0] = _draw_chunk(left, right, pieces.reshape(-1, size, size), size)
    return images
