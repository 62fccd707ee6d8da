"""Slices: attributes that measure what they say, and tests that find a planted failure and no other."""

import numpy as np
import pandas as pd
import pytest
import torch

from fer_utils.analysis import error_slices
from fer_utils.demo.dataset import make_demo
from fer_utils.learning.augment import view


@pytest.fixture(scope="module")
def faces():
    return make_demo(400, 10, 10).train.images


def changed(images, change):
    return change(torch.tensor(images).float()).clamp(0, 255).round().byte().numpy()


def test_attributes_follow_what_is_done_to_the_images(faces):
    table = error_slices.attribute_table(faces, faces)
    assert list(table) == list(error_slices.ATTRIBUTES)
    brighter = error_slices.attribute_table(changed(faces, lambda x: x * 0.5 + 60), faces)
    assert (brighter.contrast < table.contrast + 0.6).all()
    blurred = error_slices.attribute_table(
        changed(faces, lambda x: torch.nn.functional.avg_pool2d(x, 3, 1, 1)), faces
    )
    assert (blurred.sharpness < table.sharpness).mean() > 0.98
    larger = error_slices.attribute_table(changed(faces, lambda x: view(x, False, 0.0, 0.0, 1.2)), faces)
    smaller = error_slices.attribute_table(changed(faces, lambda x: view(x, False, 0.0, 0.0, 0.85)), faces)
    assert larger["face size"].mean() > table["face size"].mean() + 0.08
    assert smaller["face size"].mean() < table["face size"].mean() - 0.08


def test_mirrored_halves_are_symmetric_and_a_light_from_the_side_is_not(faces):
    symmetric = np.concatenate([faces[..., :24], faces[..., :24][..., ::-1]], axis=-1)
    assert error_slices.attribute_table(symmetric, faces).asymmetry[faces.std((1, 2, 3)) > 5].max() < 1e-3
    assert error_slices.attribute_table(faces, faces).asymmetry.median() > 0.1


def test_blank_images_have_attributes_too(faces):
    table = error_slices.attribute_table(np.full((2, 1, 48, 48), 7, np.uint8), faces)
    assert np.isfinite(table.to_numpy()).all()


def planted(n=3000, seed=0):
    """Right predictions in 90 % of one class and 50 % of the other; only dark images have fewer."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(2, size=n)
    attributes = pd.DataFrame({name: rng.random(n) for name in error_slices.ATTRIBUTES})
    dark = attributes.brightness < 0.2
    correct = rng.random(n) < np.where(labels == 0, 0.9, 0.5) - 0.3 * dark
    return attributes, labels, correct, rng


def test_a_planted_failure_is_found_and_no_other():
    attributes, labels, correct, rng = planted()
    masks = error_slices.slice_masks(attributes, rng.random(3000) < 0.1)
    assert len(masks) == 5 * 5 + 2
    table = error_slices.score_slices(masks, correct, labels)
    sure = table[(table.p_corrected < 0.05) & (table.gap < 0)]
    assert sure.what.tolist() == ["brightness"]
    assert sure.which.iloc[0].startswith("lowest")
    assert sure.gap.iloc[0] == pytest.approx(-0.24, abs=0.05)  # its own images are part of the expectation


def test_a_slice_of_a_hard_class_is_no_finding():
    attributes, labels, _, rng = planted()
    correct = rng.random(3000) < np.where(labels == 0, 0.9, 0.5)
    table = error_slices.score_slices({("class", "hard"): labels == 1}, correct, labels)
    assert table.accuracy[0] < 0.6
    assert table.gap[0] == pytest.approx(0)
    assert table.p[0] > 0.9


def test_p_values_are_uniform_where_nothing_is_to_be_found():
    rng = np.random.default_rng(0)
    labels = rng.integers(3, size=1000)
    p = []
    for _ in range(400):
        correct = rng.random(1000) < np.array([0.9, 0.7, 0.4])[labels]
        p.append(error_slices.score_slices({("a", "b"): rng.random(1000) < 0.3}, correct, labels).p[0])
    assert np.mean(np.array(p) < 0.05) == pytest.approx(0.05, abs=0.025)
    assert np.mean(np.array(p) < 0.5) == pytest.approx(0.5, abs=0.08)


def test_combinations_are_found_in_one_half_and_tested_on_the_other():
    attributes, labels, correct, _ = planted(6000)
    found = error_slices.found_slices(attributes, correct, labels)
    worst = found.iloc[0]
    assert "brightness <= 0.2" in worst.which
    assert worst.p_corrected < 0.01
    assert found.n.sum() <= 3000


def test_slices_of_a_property_with_few_values_are_unequal():
    """A face has one of 13 sizes; brightness differs from image to image."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (500, 1, 24, 24)).astype(np.uint8)
    attributes = error_slices.attribute_table(images, images[:50])
    assert attributes["face size"].nunique() <= 13 < attributes.brightness.nunique()
    masks = error_slices.slice_masks(attributes, np.zeros(500, bool))
    sizes = {name: {mask.sum() for (what, _), mask in masks.items() if what == name} for name in attributes}
    assert sizes["brightness"] == {100} and sizes["face size"] != {100}


def test_small_slices_are_left_out():
    attributes, _, _, _ = planted(100)
    known = np.arange(100) < 10
    assert set(error_slices.slice_masks(attributes, known)) == {("copy or near copy in training", "no")}


def test_the_sentence_names_planted_failures_only():
    attributes, labels, correct, rng = planted()
    masks = error_slices.slice_masks(attributes, rng.random(3000) < 0.1)
    text = error_slices.describe_slices(error_slices.score_slices(masks, correct, labels), 3000)
    assert "**27 slices tested, 1 measurably worse and " in text
    assert "Brightness lowest" in text and "points worse; without that gap the run would gain at most" in text
    chance = np.random.default_rng(1).random(3000) < 0.7
    text = error_slices.describe_slices(error_slices.score_slices(masks, chance, labels), 3000)
    assert text == "**27 slices tested, 0 measurably worse and 0 measurably better than their classes.**"
    nothing = error_slices.score_slices({}, correct, labels)
    assert error_slices.describe_slices(nothing, 3000) == "Not measurable here: no slice has 30 images."


def test_copies_are_no_advice_but_a_warning():
    """What was learned by heart is right more often; the rest is not to be mended by augmentation."""
    labels, has_copy = np.arange(2000) % 2, np.arange(2000) < 500
    correct = np.random.default_rng(0).random(2000) < np.where(has_copy, 0.95, 0.6)
    masks = {(error_slices.COPY, "yes"): has_copy, (error_slices.COPY, "no"): ~has_copy}
    text = error_slices.describe_slices(error_slices.score_slices(masks, correct, labels), 2000)
    assert "On the 500 images with a copy or near copy in training it is" in text and "it has seen" in text
    assert "would gain" not in text
    fewer = np.random.default_rng(0).random(2000) < np.where(has_copy, 0.5, 0.8)
    assert "seen" not in error_slices.describe_slices(error_slices.score_slices(masks, fewer, labels), 2000)
