"""Facial action units, and what each of them moves in a drawn face.

An expression is a set of action units (AUs): the movements of single facial muscles in the Facial Action
Coding System (Ekman and Friesen 1978). `FEATURES` says what each AU moves in the drawing; the rest of a face
(person, pose, light) is random. Lengths are in half frames: x and y run from -1 to 1, y downwards.
"""

from __future__ import annotations

import numpy as np

from fer_utils.competition import FER_CLASSES

ACTION_UNITS = (1, 2, 4, 5, 6, 7, 9, 10, 12, 15, 16, 20, 23, 25, 26)  # the columns of every `action_units`

# Which AUs make an expression (Ekman and Friesen 1978), and one that often comes along with it.
PROTOTYPES = {
    "angry": (4, 5, 7, 23),
    "disgust": (9, 15, 16),
    "fear": (1, 2, 4, 5, 7, 20, 26),
    "happy": (6, 12),
    "sad": (1, 4, 15),
    "surprise": (1, 2, 5, 26),
    "neutral": (),
}

# name: (at rest, range over persons and images, {AU: movement at full intensity})
FEATURES: dict[str, tuple[float, float, dict[int, float]]] = {
    "shift_x": (0.0, 0.05, {}),
    "shift_y": (0.03, 0.045, {}),
    "zoom": (0.94, 0.06, {}),
    "roll": (0.0, 0.13, {}),  # sine of the angle
    "yaw": (0.0, 0.17, {}),
    "pitch": (0.0, 0.1, {}),
    "head_width": (0.74, 0.06, {}),
    "chin": (0.93, 0.04, {26: 0.07, 16: 0.01}),
    "jaw": (0.22, 0.12, {12: -0.06, 26: 0.05}),
    "skin": (0.68, 0.16, {}),
    "hair": (0.24, 0.17, {}),
    "brow_inner_x": (0.17, 0.03, {4: -0.055, 9: -0.02}),
    "brow_outer_x": (0.6, 0.03, {4: -0.02}),
    "brow_inner_y": (-0.33, 0.03, {1: -0.14, 4: 0.075, 9: 0.05}),
    "brow_outer_y": (-0.32, 0.035, {1: 0.03, 2: -0.12, 4: 0.025}),
    "brow_arch": (0.05, 0.025, {1: -0.02, 2: 0.04, 4: -0.02}),
    "brow_size": (0.05, 0.018, {}),
    "eye_x": (0.36, 0.03, {}),
    "eye_y": (-0.08, 0.02, {}),
    "eye_width": (0.2, 0.02, {5: 0.005}),
    "lid_upper": (0.1, 0.02, {4: -0.015, 5: 0.07, 6: -0.02, 7: -0.035, 9: -0.025}),
    "lid_lower": (0.07, 0.012, {5: 0.015, 7: -0.03, 6: -0.05, 9: -0.02}),
    "iris": (0.22, 0.12, {}),
    "gaze_x": (0.0, 0.04, {}),
    "gaze_y": (0.0, 0.02, {}),
    "crow_feet": (0.0, 0.05, {6: 0.4}),
    "lid_bag": (0.06, 0.06, {6: 0.3, 7: 0.2}),
    "cheek": (0.05, 0.04, {6: 0.12, 12: 0.12}),
    "furrow": (0.0, 0.06, {4: 0.5}),
    "forehead": (0.03, 0.05, {1: 0.22, 2: 0.22}),
    "nose_y": (0.2, 0.025, {9: -0.05, 10: -0.015}),
    "nose_width": (0.1, 0.02, {9: 0.035, 12: 0.012}),
    "nose_wrinkle": (0.0, 0.03, {9: 0.55}),
    "fold": (0.06, 0.07, {12: 0.28, 10: 0.35, 9: 0.3, 20: 0.1}),
    "mouth_y": (0.5, 0.03, {12: -0.01, 26: 0.03, 9: -0.02}),
    "mouth_width": (0.28, 0.03, {12: 0.09, 15: -0.01, 20: 0.13, 23: -0.06, 26: -0.07}),
    "corner_y": (0.0, 0.025, {12: -0.17, 15: 0.14, 20: 0.03}),
    "lip_upper": (0.055, 0.015, {23: -0.03, 20: -0.015, 12: -0.01}),
    "lip_lower": (0.075, 0.02, {23: -0.04, 20: -0.015, 12: -0.01}),
    "open_upper": (0.0, 0.0, {9: 0.015, 10: 0.06, 20: -0.03, 25: 0.02, 26: 0.1}),
    "open_lower": (0.0, 0.004, {16: 0.075, 20: -0.06, 25: 0.06, 26: 0.2}),
    "teeth_upper": (0.015, 0.015, {10: 0.04, 12: 0.08, 20: 0.05}),
    "teeth_lower": (0.0, 0.01, {16: 0.06, 20: 0.02}),
    "light_x": (0.12, 0.24, {}),
    "light_y": (-0.08, 0.14, {}),
    "gain": (1.0, 0.2, {}),
    "bend": (0.0, 0.35, {}),  # stands for gamma
    "background": (0.52, 0.34, {}),
    "blur": (0.06, 0.06, {}),
    "soft": (0.0, 0.6, {}),  # as in a small image enlarged, or strong JPEG compression
    "noise": (0.009, 0.009, {}),
}

# The lowest value of some features: a lid or lip turned inside out would be drawn outside the eye or mouth.
MINIMUM = {"lid_upper": 0.025, "lid_lower": 0.01, "lip_upper": 0.012, "lip_lower": 0.015}
MINIMUM |= {"open_upper": 0.0, "open_lower": 0.0, "teeth_upper": 0.0, "teeth_lower": 0.0}

# Height, curve and slant of the hairline, how far the sides reach down, volume, curl.
HAIR = ("hairline", "curve", "slant", "sides", "volume", "curl")
HAIR_STYLES = np.array(
    [
        [0.74, 0.40, 0.00, -0.05, 0.05, 0.01],  # short
        [0.68, 0.35, 0.25, 0.00, 0.08, 0.01],  # parted on the side
        [0.57, 0.12, 0.05, 0.60, 0.12, 0.01],  # fringe, half long
        [0.76, 0.80, 0.00, 1.40, 0.14, 0.01],  # long, parted in the middle
        [0.68, 0.35, 0.00, 0.10, 0.15, 0.06],  # curly
        [0.86, 0.10, 0.00, -0.15, 0.03, 0.00],  # receding
        [1.30, 0.00, 0.00, -2.00, 0.00, 0.00],  # bald
    ],
    dtype=np.float32,
)


def prototype_units(table: dict[str, tuple[int, ...]] = PROTOTYPES) -> np.ndarray:
    """The AUs of each class at full intensity: float64 [7, 15], rows as `FER_CLASSES`."""
    return np.array([[unit in table.get(name, ()) for unit in ACTION_UNITS] for name in FER_CLASSES], float)


def _sample_extras(rng, count, variety):
    """Hair style, beard, glasses, and what covers part of the face: name -> [count]."""
    style = rng.integers(len(HAIR_STYLES), size=count) * (variety > 0)
    extras = dict(zip(HAIR, HAIR_STYLES[style].T, strict=True))
    extras["beard"] = variety * rng.uniform(0.4, 0.9, count) * (rng.random(count) < 0.12)
    extras["glasses"] = variety * (rng.random(count) < 0.12)
    extras["cover"] = variety * (rng.random(count) < 0.08)
    direction = rng.uniform(-1, 1, (2, count))
    extras["cover_cos"], extras["cover_sin"] = direction / np.sqrt(direction[0] ** 2 + direction[1] ** 2)
    extras["cover_reach"], extras["cover_side"] = rng.uniform(0.1, 0.5, count), rng.uniform(-0.3, 0.3, count)
    extras["cover_tone"] = rng.choice([0.15, 0.45, 0.6, 0.7], count)
    return extras


def sample_features(
    action_units: np.ndarray, rng: np.random.Generator, variety: float
) -> list[dict[str, np.ndarray]]:
    """Sample persons and images, and move their features by the AUs [N, 15].

    Returns:
        for the left and the right half of the faces, name -> float32 [N, 1, 1].
    """
    count = len(action_units)
    uneven = variety * rng.uniform(-0.25, 0.25, action_units.shape)
    extras = _sample_extras(rng, count, variety)
    base = {
        name: rest + variety * spread * rng.uniform(-1, 1, count)
        for name, (rest, spread, _) in FEATURES.items()
    }
    extras |= {"sin": base["roll"], "cos": np.sqrt(1 - base["roll"] ** 2)}
    halves = []
    for share in (1 + uneven, 1 - uneven):
        units = dict(zip(ACTION_UNITS, (action_units * share).T, strict=True))
        half = dict(extras)
        for name, (_, _, moves) in FEATURES.items():
            moved = base[name] + sum(units[unit] * by for unit, by in moves.items())
            half[name] = np.maximum(moved, MINIMUM.get(name, -np.inf))
        halves.append({name: np.float32(value)[:, None, None] for name, value in half.items()})
    return halves
