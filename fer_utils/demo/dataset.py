"""The demo data set: drawn faces with the defects of real data."""

from __future__ import annotations

import numpy as np
import pandas as pd

from fer_utils.competition import FER_CLASSES, Competition, Split, SubmissionFormat
from fer_utils.demo.action_units import ACTION_UNITS, prototype_units
from fer_utils.demo.drawing import draw_faces

COMPANIONS = {"angry": (10,), "disgust": (10,), "fear": (25,), "happy": (25,)}

# The share of each of `FER_CLASSES`, about as in FER2013 (Goodfellow et al. 2013), and its wrong labels.
SHARES = (0.14, 0.02, 0.14, 0.25, 0.17, 0.11, 0.17)
MISTAKEN_FOR = {
    "angry": ("disgust", "sad", "neutral"),
    "disgust": ("angry", "angry", "sad"),
    "fear": ("surprise", "surprise", "sad"),
    "happy": ("neutral", "neutral", "surprise"),
    "sad": ("neutral", "neutral", "fear"),
    "surprise": ("fear", "fear", "happy"),
    "neutral": ("sad", "sad", "angry"),
}

# Shares of images with a deliberate defect: real competitions have them, and an audit should find them.
DEFECTS = {
    "train": {"wrong label": 0.04, "copy": 0.007, "conflicting copy": 0.003, "blank": 0.001},
    "valid": {"wrong label": 0.04, "copy": 0.004, "blank": 0.001},  # of an image in train, as in FER2013
    "test": {"copy": 0.004, "blank": 0.001},
}

# Red, green and blue of skins in light, from pale to dark.
SKINS = ((255, 219, 190), (241, 194, 150), (224, 172, 120), (198, 134, 90), (141, 85, 60))

NOTES = (
    "DEMONSTRATION DATA: drawn faces, NOT the competition. No number on them says anything of real faces.",
    "Drawn from facial action units; some labels are wrong on purpose: fer_utils.demo.dataset.demo_truth().",
)


def _sample_units(classes, rng):
    """Sample action units [N, 15] for class indices [N]: some weak, some with an AU missing or too many."""
    shape = (len(classes), len(ACTION_UNITS))
    active = prototype_units()[classes] * (rng.random(shape) > 0.06)
    active += prototype_units(COMPANIONS)[classes] * (rng.random(shape) < 0.4)
    units = active * rng.uniform(0.45, 1, (len(classes), 1)) * rng.uniform(0.6, 1.2, shape)
    stray = rng.uniform(0, 0.5, shape) * (rng.random(shape) < 0.05)
    return np.clip(np.maximum(units, stray), 0, 1)


def _plan(name, count, rng, train):
    """Choose the class and the defect of each image of a split; columns as in `demo_truth`."""
    limits = np.cumsum(SHARES)[:-1]
    truth = rng.permutation(np.searchsorted(limits, (np.arange(count) + 0.5) / count))
    ids = [str(row) if name == "test" else f"{name}_{row:05d}" for row in range(count)]
    plan = pd.DataFrame({"id": ids, "truth": truth, "label": truth, "defect": "", "copy_of": -1})
    ends = np.cumsum([round(share * count) for share in DEFECTS[name].values()])
    for defect, rows in zip(DEFECTS[name], np.split(rng.permutation(count), ends), strict=False):
        plan.loc[rows, "defect"] = defect
    train = plan if train is None else train
    intact, copies = np.flatnonzero(train.defect == ""), np.flatnonzero(plan.defect.str.endswith("copy"))
    sources = rng.choice(intact, len(copies), replace=len(intact) < len(copies))
    plan.loc[copies, "copy_of"] = sources
    plan.loc[copies, ["truth", "label"]] = train.loc[sources, ["truth", "label"]].to_numpy()
    mistakes = np.array([[FER_CLASSES.index(other) for other in MISTAKEN_FOR[true]] for true in FER_CLASSES])
    wrong = np.flatnonzero(plan.defect.isin(["wrong label", "conflicting copy"]))
    plan.loc[wrong, "label"] = mistakes[plan.truth[wrong], rng.integers(3, size=len(wrong))]
    return plan


def _plans(seed, **counts):
    """Plan splits of so many images each, train first since the others copy from it."""
    plans: dict[str, pd.DataFrame] = {}
    for stream, (name, count) in enumerate(counts.items()):
        plans[name] = _plan(name, count, np.random.default_rng([seed, stream]), plans.get("train"))
    return plans


def demo_truth(n_train: int = 5000, n_valid: int = 1500, seed: int = 0) -> dict[str, pd.DataFrame]:
    """The true classes and the defects of what `make_demo` draws from the same arguments.

    Returns:
        For "train" and "valid" a frame with a row per image: `id`; `truth`, the class index that was drawn;
        `label`, the one in the competition, wrong if it differs; `defect`, a name in `DEFECTS` or empty;
        `copy_of`, the row of train that it repeats, or -1. A blank image shows no face.
    """
    return _plans(seed, train=n_train, valid=n_valid)


def _draw_split(plan, rng, size, train):
    """Draw a split as planned: uint8 [N, 1, size, size]; it copies from `train`, or from itself if None."""
    images = draw_faces(_sample_units(plan.truth.to_numpy(), rng), rng, size=size)
    copies, blanks = np.flatnonzero(plan.copy_of >= 0), np.flatnonzero(plan.defect == "blank")
    images[copies] = (images if train is None else train)[plan.copy_of[copies]]
    images[blanks] = rng.integers(256, size=(len(blanks), 1, 1, 1))
    return images


def _tinted(images: np.ndarray) -> np.ndarray:
    """Grey faces [N, 1, H, W] in the colour of a skin, [N, 3, H, W], about as bright as before; which colour
    follows from the pixels, so that copies stay copies."""
    tones = np.array(SKINS) / (np.array(SKINS) @ [0.299, 0.587, 0.114])[:, None]
    chosen = tones[images.sum((1, 2, 3), dtype=np.int64) % len(tones)]
    return (images * chosen[:, :, None, None]).clip(0, 255).astype(np.uint8)


def make_demo(
    n_train: int = 5000,
    n_valid: int = 1500,
    n_test: int = 1500,
    seed: int = 0,
    size: int = 48,
    color: bool = False,
) -> Competition:
    """Draw the demo competition: seven expressions, imbalanced, with the `DEFECTS` that `demo_truth` lists.

    The same arguments give the same bytes; train does not depend on the sizes of the other splits. The
    `size` in pixels is even, 24 to 256 (else DataError); with `color` faces have the colours of skins.
    """
    plans = _plans(seed, train=n_train, valid=n_valid, test=n_test)
    splits, train = {}, None
    for stream, (name, plan) in enumerate(plans.items()):
        images = _draw_split(plan, np.random.default_rng([seed, 3 + stream]), size, train)
        train = images if train is None else train
        labels = None if name == "test" else plan.label.to_numpy(np.int64)
        splits[name] = Split(_tinted(images) if color else images, labels, plan.id.to_numpy(str))
    template = pd.DataFrame({"id": plans["test"].id, "emotion": "0"}, dtype=str)
    values = tuple(range(len(FER_CLASSES)))
    form = SubmissionFormat(template, "emotion", np.arange(n_test), tuple(map(str, values)))
    origin = {"source": "demo", "layout": "demo", "notes": NOTES, "is_demo": True}
    return Competition(**splits, class_names=FER_CLASSES, label_values=values, submission=form, **origin)
