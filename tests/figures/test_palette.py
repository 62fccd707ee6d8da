"""The palette: expressions and splits differ for people without red, green or blue cones too."""

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from fer_utils.competition import FER_CLASSES
from fer_utils.figures import style

EIGHT = [*FER_CLASSES, "contempt"]
# Linear RGB as people without one kind of cones see it (Machado et al. 2009, severity 1.0).
MACHADO = {
    "normal": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}
TO_XYZ = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
CAT02 = np.array([[0.7328, 0.4296, -0.1624], [-0.7036, 1.6975, 0.0061], [0.0030, 0.0136, 0.9834]])
HPE = np.array([[0.38971, 0.68898, -0.07868], [-0.22981, 1.18340, 0.04641], [0, 0, 1]])
WHITE = np.array([95.047, 100, 108.883])
# sRGB's surround: average, a background of 20 %, an adapting luminance of 64 / pi / 5.
LIGHT, BACKGROUND, SURROUND = 64 / np.pi / 5, 0.2, 0.69


def cam02ucs(colors, vision):
    """CAM02-UCS [N, 3] of colours as seen with this vision (Moroney et al. 2002; Luo et al. 2006)."""
    rgb = np.array([to_rgb(color) for color in colors])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    seen = (linear @ np.transpose(MACHADO[vision])).clip(0, 1)
    k = 1 / (5 * LIGHT + 1)
    level = 0.2 * k**4 * 5 * LIGHT + 0.1 * (1 - k**4) ** 2 * np.cbrt(5 * LIGHT)
    adapted = 1 - np.exp((-LIGHT - 42) / 92) / 3.6
    induction, base = 0.725 * BACKGROUND**-0.2, 1.48 + np.sqrt(BACKGROUND)

    def cones(xyz):
        sharp = xyz @ CAT02.T
        sharp = sharp * (adapted * 100 / (CAT02 @ WHITE) + 1 - adapted)
        power = (level * np.abs(narrow := sharp @ np.linalg.inv(CAT02).T @ HPE.T) / 100) ** 0.42
        return np.sign(narrow) * 400 * power / (power + 27.13) + 0.1

    def achromatic(r, g, b):
        return (2 * r + g + b / 20 - 0.305) * induction

    r, g, b = cones(100 * seen @ np.transpose(TO_XYZ)).T
    red, yellow = r - 12 * g / 11 + b / 11, (r + g - 2 * b) / 9
    hue = np.arctan2(yellow, red)
    lightness = 100 * (achromatic(r, g, b) / achromatic(*cones(WHITE))) ** (SURROUND * base)
    eccentric = (np.cos(hue + 2) + 3.8) / 4 * 50000 / 13 * induction
    t = eccentric * np.hypot(red, yellow) / (r + g + 1.05 * b)
    colourful = t**0.9 * np.sqrt(lightness / 100) * (1.64 - 0.29**BACKGROUND) ** 0.73 * level**0.25
    m = np.log1p(0.0228 * colourful) / 0.0228
    return np.stack([1.7 * lightness / (1 + 0.007 * lightness), m * np.cos(hue), m * np.sin(hue)], axis=1)


def distances(colors, others, vision):
    one, other = cam02ucs(colors, vision), cam02ucs(others, vision)
    return np.linalg.norm(one[:, None] - other[None], axis=2)


def nearest(names, palette, vision):
    colors = [palette[name] for name in names]
    return distances(colors, colors, vision)[np.triu_indices(len(colors), 1)].min()


def test_the_colour_space_is_the_published_one():
    """Against colorspacious 1.1.2: `cspace_convert(rgb, "sRGB1", "CAM02-UCS")`."""
    expected = [[52.8, 36.75, 12.15], [55.42, -11.93, -24.65], [100.0, -1.91, -1.15]]
    assert cam02ucs(["#d81b42", "#3a86c8", "#ffffff"], "normal") == pytest.approx(np.array(expected), abs=0.1)


@pytest.mark.parametrize(
    ("vision", "smallest"),
    [("normal", 18.7), ("protanopia", 16.7), ("deuteranopia", 16.3), ("tritanopia", 17.2)],
)
def test_any_two_expressions_differ_in_every_vision(vision, smallest):
    distance = nearest(EIGHT, style.EXPRESSION_COLORS, vision)
    assert distance == pytest.approx(smallest, abs=0.1) and distance >= 15
    assert nearest(style.EXPRESSION_COLORS, style.EXPRESSION_COLORS, vision) > 14  # with "uncertain"


def test_the_palette_before_would_not_have_passed():
    """It claimed to be safe: anger and disgust were 10 apart without green cones."""
    before = dict(zip("ab", ("#d81b42", "#1f6b2c"), strict=True))
    assert nearest("ab", before, "normal") > 40 > 15 > nearest("ab", before, "deuteranopia")


@pytest.mark.parametrize("vision", MACHADO)
def test_splits_have_colours_of_their_own(vision):
    splits, expressions = list(style.SPLIT_COLORS.values()), list(style.EXPRESSION_COLORS.values())
    assert nearest(style.SPLIT_COLORS, style.SPLIT_COLORS, vision) >= 15
    assert distances(splits, expressions, vision).min() >= 15


def test_lines_have_a_second_sign():
    assert len(set(style.LINES)) >= len(EIGHT)
