"""Figures of augmentation: both ends of every range, what is cut off, and the very images of a batch."""

import json
import re
from dataclasses import replace

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from fer_utils.config import AUGMENTATION, Config
from fer_utils.demo.dataset import make_demo
from fer_utils.figures import augment_plots
from fer_utils.figures.faces import face_rows
from fer_utils.files import REPOSITORY
from fer_utils.learning import training_loop
from fer_utils.learning.augment import augment, to_float

NAMES = ("happy", "sad", "fear")
OFF = replace(Config(), **dict.fromkeys(AUGMENTATION, 0.0))


@pytest.fixture
def ax():
    yield plt.figure().subplots()
    plt.close("all")


@pytest.fixture
def face():
    """Left half dark, right half bright: light cuts it off at both ends."""
    face = torch.full((1, 1, 24, 24), 0.1)
    face[..., 12:] = 0.9
    face[..., 2:6, 3:8] = 0.5
    return face


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def texts(ax):
    return [text.get_text() for text in ax.texts]


def rows_of(ax):
    return [label.get_text() for label in ax.get_yticklabels()]


@pytest.mark.parametrize(
    "name",
    ["rotate", "scale", "shift", "shear", "brightness", "contrast", "hue", "saturation"],
)
def test_the_ends_shown_are_those_of_training(name, face):
    face = face * torch.tensor([1, 0.7, 0.5]).view(1, 3, 1, 1) if name in ("hue", "saturation") else face
    """No draw goes beyond them: the largest changes of 4,000 draws come close to both, and not further."""
    strength = {"rotate": 20.0, "shear": 20.0}.get(name, 0.3)
    draws = augment(face.expand(4000, -1, -1, -1), replace(OFF, **{name: strength}), generator())
    ends = [augment_plots.at_strength(face, name, value) for value in (-strength, strength)]
    for end, other in (ends, ends[::-1]):
        assert (draws - end).abs().mean((1, 2, 3)).min() < 0.02
        assert (end - other).abs().mean() > 0.03, "the two ends differ"
    if name in ("brightness", "contrast"):
        measure = (lambda x: x.mean((1, 2, 3))) if name == "brightness" else (lambda x: x.std((1, 2, 3)))
        low, high = (float(measure(end)) for end in ends)
        assert low - 1e-4 <= measure(draws).min() and measure(draws).max() <= high + 1e-4


def test_positive_shifts_go_to_the_right_and_down():
    spot = torch.zeros(1, 1, 24, 24)
    spot[:, :, 12, 12] = 1
    for value, place in ((0.25, 18), (-0.25, 6)):
        shown = augment_plots.at_strength(spot, "shift", value)[0, 0]
        assert divmod(int(shown.argmax()), 24) == (place, place)


def test_ranges_has_a_row_for_each_transform_that_is_on_from_end_to_end(face, ax):
    config = replace(OFF, flip=0.5, brightness=0.2, erase=0.3, rotate=10.0)
    augment_plots.ranges(face, config, ax, generator(), columns=5)
    assert rows_of(ax) == ["flip 0.5", "rotate 10", "brightness 0.2", "erase 0.3"]
    below = texts(ax)
    assert below[:5] == ["as it is", "mirrored", "", "", ""]
    assert below[5:10] == ["-10", "-5", "0", "+5", "+10"]
    assert below[10].startswith("-0.2\n") and "cut off" in below[10] and below[12] == "0"
    assert below[14].startswith("+0.2\n") and "cut off" in below[14]
    areas = [int(text.split("%")[0]) for text in below[15:]]
    assert areas == sorted(areas) and areas[0] <= 4 and areas[-1] >= 16


def test_ranges_without_a_transform_says_so(face, ax):
    augment_plots.ranges(face, OFF, ax, generator(), columns=5)
    assert rows_of(ax) == ["no transform is on"]


def test_nothing_is_said_to_be_cut_off_where_nothing_is(ax):
    grey = torch.full((1, 1, 24, 24), 0.5)
    augment_plots.ranges(grey, replace(OFF, brightness=0.2, shift=0.5), ax, generator(), columns=3)
    assert texts(ax) == ["-0.5", "0", "+0.5", "-0.2", "0", "+0.2"]


def test_the_share_that_is_cut_off_is_counted(face, ax):
    augment_plots.ranges(face, replace(OFF, brightness=0.3), ax, generator(), columns=3)
    bright = augment_plots.at_strength(face, "brightness", 0.3)
    assert texts(ax)[2] == f"+0.3\n{100 * float((bright == 1).float().mean()):.0f} % cut off"


def test_too_much_is_marked_from_the_limit_on_in_both_directions(face, ax):
    steps = {"rotate": (45, [20, 45, 90]), "erase": (3, [1, 2, 3])}
    augment_plots.growing(face, steps, ax, generator())
    assert texts(ax)[:7] == [
        "-90\ntoo much", "-45\ntoo much", "-20", "0", "+20", "+45\ntoo much", "+90\ntoo much",
    ]  # fmt: skip
    assert [text.split("\n")[0] for text in texts(ax)[7:]] == list("0123456")
    assert ["too much" in text for text in texts(ax)[7:]] == [False] * 3 + [True] * 4


def cells():
    notebook = json.loads((REPOSITORY / "notebooks/02_augmentation.ipynb").read_text(encoding="utf-8"))
    return ["".join(cell["source"]) for cell in notebook["cells"]]


def test_the_limits_in_the_words_are_those_of_the_figure_and_the_defaults_are_less_than_half():
    (code,) = (text for text in cells() if text.startswith("steps = {"))
    (words,) = (text for text in cells() if '"Too much" is our judgement' in text)
    said = dict(re.findall(r"\*\*(\w+)\*\*, from ([\d.]+\d|\d)", words))
    drawn = {name: float(limit) for name, limit in re.findall(r'"(\w+)": \(([\d.]+),', code)}
    assert {name: float(limit) for name, limit in said.items()} == drawn
    for name, limit in drawn.items():
        assert getattr(Config(), name) < limit / 2
    short = cells()[0]
    words = {"rotate": "±{:.0f}° of rotation", "scale": "±{:.0%} of size", "shift": "±{:.0%} of shift"}
    for name, text in words.items():
        assert text.format(getattr(Config(), name)).replace("%", " %") in short
    assert "`brightness`, `contrast` and `erase`, off by default" in short
    assert Config().brightness == Config().contrast == Config().erase == 0


# --- what a batch holds ---


@pytest.mark.parametrize("mixing", [{}, {"mixup": 0.4}, {"cutmix": 1.0}, {"mixup": 0.4, "cutmix": 1.0}])
def test_the_batch_shown_is_the_first_that_training_sees(mixing, monkeypatch):
    competition = make_demo(60, 10, 10)
    config = Config(
        image_size=48, model="small", width=0.125, batch_size=16, seed=3, precision="fp32", **mixing
    )
    seen = []
    step = training_loop._step
    monkeypatch.setattr(training_loop, "_step", lambda *a: (seen.append(a[1:4]), step(*a))[1])
    cpu = torch.device("cpu")
    learner = training_loop.Learner(config, competition, cpu)
    labels = torch.tensor(competition.train.labels)
    training_loop.train_epoch(learner, training_loop.place(competition.train.images, cpu), labels, 0)
    rows, before, mixed, shares = training_loop.first_batch(config, competition.train.images, cpu)
    batch, targets, true = seen[0]
    assert torch.equal(true, labels[rows]) and torch.equal(batch.contiguous(), mixed)
    assert torch.allclose(targets, shares @ torch.eye(7)[labels[rows]], atol=1e-6)
    assert torch.equal(before, mixed) is not bool(mixing)


@pytest.mark.parametrize("alphas", [(0.0, 0.0), (1.0, 0.0), (0.0, 1.0)])
def test_images_of_a_batch_stand_with_partner_and_mixed_label(alphas, ax):
    images = make_demo(60, 10, 10).train.images
    config = Config(batch_size=16, start_size=0, mixup=alphas[0], cutmix=alphas[1])
    _, before, mixed, shares = training_loop.first_batch(config, images, torch.device("cpu"))
    labels = torch.arange(len(mixed)) % 3
    augment_plots.batch_images(before, mixed, shares, labels, NAMES, ax)
    if not any(alphas):
        assert texts(ax) == [NAMES[k] for k in labels]
        return
    assert rows_of(ax) == ["image", "partner", "in the batch"]
    own, partners, both = np.reshape(texts(ax), (3, 12))
    assert own.tolist() == [NAMES[k] for k in labels[:12]]
    for one, other, label in zip(own, partners, both, strict=True):
        assert {word for word in label.split() if word in NAMES} <= {one, other}
        assert sum(int(n) for n in re.findall(r"(\d+) %", label)) in (0, 99, 100, 101)
    pixels = ax.images[0].get_array().filled(255)
    step_down, step_across = pixels.shape[0] // 3, pixels.shape[1] // 12
    for k in range(12):  # a mixture by mixup is the average of what stands above it, with the share it says
        first, second, mixture = (
            pixels[row * step_down : row * step_down + 48, k * step_across : k * step_across + 48].astype(
                float
            )
            for row in range(3)
        )
        share = float(shares[k, k])
        if alphas[0]:
            assert np.abs(share * first + (1 - share) * second - mixture).max() < 2
        else:
            assert (((mixture == first) | (mixture == second)).mean()) == 1


def test_blends_show_the_same_partner_for_mixup_and_cutmix(ax):
    images = to_float(torch.from_numpy(make_demo(60, 10, 10).train.images[:6]))
    augment_plots.blends(images, torch.arange(6) % 3, NAMES, 1.0, ax, generator(1))
    assert rows_of(ax) == ["image", "partner", "mixup", "cutmix"]
    own, partners, mixup, cutmix = np.reshape(texts(ax), (4, 6))
    for k in range(6):
        for label in (mixup[k], cutmix[k]):
            assert {word for word in label.split() if word in NAMES} <= {own[k], partners[k]}


def test_labels_are_named_with_their_shares():
    targets = torch.tensor([[1.0, 0, 0], [0.25, 0.75, 0], [0, 0.5, 0.5]])
    assert augment_plots.label_captions(targets, NAMES) == [
        "happy",
        "sad 75 %\nhappy 25 %",
        "sad 50 %\nfear 50 %",
    ]


def test_a_share_too_small_to_round_is_not_left_out():
    targets = torch.tensor([[0.998, 0.002, 0], [0.5, 0.5, 0]])
    assert augment_plots.label_captions(targets, NAMES)[0] == "happy >99 %\nsad <1 %"


def test_a_pixel_counts_once_whatever_its_colours():
    face = torch.full((1, 3, 10, 10), 0.5)
    face[:, 0, :5] = 0.9  # red alone is cut off, in half of the pixels
    assert augment_plots._cut_off(face, (face + 0.1).clamp(max=1)) == "\n50% cut off"


def test_rows_of_different_lengths_keep_each_image_in_its_row(ax):
    rows = {"first": np.zeros((3, 1, 8, 8), np.uint8), "second": np.full((2, 1, 8, 8), 100, np.uint8)}
    drawn = np.asarray(face_rows(rows, ax).images[0].get_array())
    below = drawn[drawn.shape[0] // 2 :]
    assert (below[:8, :8] == 100).all() and not (below == 0).any()
