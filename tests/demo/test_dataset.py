"""The demo set: do action units move the right part of the face, and are its defects where the key says?"""

import numpy as np
import pytest
from sklearn.linear_model import RidgeClassifier

from fer_utils.competition import FER_CLASSES, DataError, image_groups
from fer_utils.demo import dataset as demo
from fer_utils.demo import drawing
from fer_utils.demo.action_units import ACTION_UNITS, PROTOTYPES, prototype_units
from fer_utils.demo.dataset import demo_truth, make_demo
from fer_utils.demo.drawing import draw_faces

COUNTS = {"n_train": 1000, "n_valid": 300, "n_test": 250}


@pytest.fixture(scope="module")
def competition():
    return make_demo(**COUNTS, seed=3)


@pytest.fixture(scope="module")
def truth():
    return demo_truth(1000, 300, seed=3)


def plain_face(*units):
    """The plain face [48, 48] with these action units at full intensity."""
    return draw_faces(np.isin(ACTION_UNITS, units)[None].astype(float), variety=0.0)[0, 0].astype(int)


def darkest_row(face, rows, columns):
    return rows.start + face[rows, columns].mean(1).argmin()


def linear_accuracy(images, labels):
    pixels, half = images[:, :, ::2, ::2].reshape(len(images), -1) / 255.0, len(images) // 2
    return RidgeClassifier(alpha=75).fit(pixels[:half], labels[:half]).score(pixels[half:], labels[half:])


@pytest.mark.parametrize("unit", ACTION_UNITS)
def test_each_unit_shows_and_only_on_its_part_of_the_face(unit):
    changed = np.abs(plain_face(unit) - plain_face()) > 2
    assert changed.sum() > 12, "the unit does not show"
    if unit in (1, 2, 4, 5, 7):
        assert not changed[30:].any(), "an upper-face unit moved the mouth"
    if unit in (15, 16, 20, 23, 25, 26):
        assert not changed[:24].any(), "a lower-face unit moved eyes or brows"


def test_lip_corners_rise_in_happiness_and_fall_in_sadness():
    lips, middle, corner = slice(30, 42), slice(22, 26), slice(16, 18)
    bend = {}
    for name in ("happy", "neutral", "sad"):
        face = plain_face(*PROTOTYPES[name])
        bend[name] = darkest_row(face, lips, corner) - darkest_row(face, lips, middle)
    assert bend["happy"] < bend["neutral"] - 1 and bend["neutral"] + 1 < bend["sad"]


def test_brows_rise_in_surprise_and_lower_in_anger():
    brows, inner = slice(10, 20), slice(26, 29)
    rows = [darkest_row(plain_face(*units), brows, inner) for units in [(1, 2), (), (4,)]]
    assert rows[0] < rows[1] < rows[2]


def test_jaw_drop_opens_a_dark_mouth_and_lid_raise_shows_white():
    lips, eyes = np.s_[30:46, 14:34], np.s_[18:27, 10:21]
    assert (plain_face(26)[lips] < 40).sum() > (plain_face()[lips] < 40).sum() + 12
    white = [plain_face(*units)[eyes].max(1).mean() for units in [(5,), (), (7,)]]
    assert white[0] > white[1] > white[2]


def test_prototypes_are_the_published_ones():
    units = prototype_units()
    assert units.shape == (7, 15)
    assert set(np.array(ACTION_UNITS)[units[FER_CLASSES.index("fear")] > 0]) == {1, 2, 4, 5, 7, 20, 26}
    assert len(np.unique(draw_faces(units, variety=0.0).reshape(7, -1), axis=0)) == 7


def test_competition_keeps_the_contract(competition):
    assert competition.class_names == FER_CLASSES and competition.label_values == tuple(range(7))
    assert competition.layout == competition.source == "demo" and competition.is_demo
    assert "NOT the competition" in competition.notes[0] and "DEMONSTRATION" in competition.summary()
    assert {f"n_{name}": len(split) for name, split in competition.splits.items()} == COUNTS
    assert competition.test.labels is None and competition.train.labels.dtype == np.int64
    for split in competition.splits.values():
        assert split.images.shape[1:] == (1, 48, 48) and len(set(split.ids)) == len(split)


def test_sample_submission(competition):
    form = competition.submission
    assert list(form.template) == ["id", "emotion"] and form.label_column == "emotion" and form.header
    assert list(form.template.id) == list(competition.test.ids) == [str(row) for row in range(250)]
    assert all(isinstance(cell, str) for cell in form.template.to_numpy().ravel())
    assert list(form.rows) == list(range(250)) and form.label_values == tuple("0123456")


def test_same_seed_same_bytes_whatever_the_chunks_and_other_splits(competition, monkeypatch):
    monkeypatch.setattr(drawing, "CHUNK", 37)
    assert make_demo(**COUNTS, seed=3).fingerprint == competition.fingerprint
    other = make_demo(n_train=1000, n_valid=40, n_test=1, seed=3)
    np.testing.assert_array_equal(other.train.images, competition.train.images)


def test_another_seed_is_another_set():
    first, second = (make_demo(60, 20, 20, seed=seed) for seed in (0, 1))
    assert len(set(image_groups(np.concatenate([first.train.images, second.train.images])))) > 110


def test_classes_are_imbalanced_like_fer2013(truth):
    shares = truth["train"].truth.value_counts(normalize=True).sort_index()
    assert shares.idxmax() == FER_CLASSES.index("happy") and 0.22 < shares.max() < 0.28
    assert shares.idxmin() == FER_CLASSES.index("disgust") and 0.012 < shares.min() < 0.03


@pytest.mark.parametrize("name", ["train", "valid"])
def test_key_lists_the_wrong_labels(competition, truth, name):
    key, split = truth[name], competition.splits[name]
    assert list(key.id) == list(split.ids) and list(key.label) == list(split.labels)
    wrong = key.truth != key.label
    assert 0.03 < wrong.mean() < 0.05
    assert set(key.defect[wrong]) <= {"wrong label", "conflicting copy"}
    assert wrong[key.defect == "wrong label"].all()


def test_copies_conflicts_and_blanks_are_where_the_key_says(competition, truth):
    images, key = competition.train.images, truth["train"]
    blank = images.min((1, 2, 3)) == images.max((1, 2, 3))
    assert list(np.flatnonzero(blank)) == list(np.flatnonzero(key.defect == "blank")) and blank.any()
    copies = np.flatnonzero(key.copy_of >= 0)
    assert 0.008 < len(copies) / len(images) < 0.012
    assert len(set(image_groups(images[~blank]))) == (~blank).sum() - len(copies)
    np.testing.assert_array_equal(images[copies], images[key.copy_of[copies]])
    labels = competition.train.labels
    conflicts = labels[copies] != labels[key.copy_of[copies]]
    assert conflicts.sum() == (key.defect == "conflicting copy").sum() > 0


def test_a_handful_of_train_images_come_again(competition):
    seen = {image.tobytes() for image in competition.train.images}
    for split in (competition.valid, competition.test):
        leaks = sum(image.tobytes() in seen for image in split.images)
        assert 0 < leaks <= 0.01 * len(split)


def test_expressions_are_separable_but_hardly_by_a_linear_model(competition, truth):
    """A linear model reads plain faces well, and those of the demo set little better than chance."""
    classes = truth["train"].truth.to_numpy()
    rng = np.random.default_rng(0)
    plain = draw_faces(demo._sample_units(classes, rng), rng, variety=0.05)
    assert linear_accuracy(plain, classes) > 0.75
    assert 0.25 < linear_accuracy(competition.train.images, classes) < 0.6


@pytest.mark.parametrize("size", [47, 8, 258])
def test_sizes_that_cannot_be_drawn_are_refused(size):
    with pytest.raises(DataError, match="size must be an even number from 24 to 256"):
        make_demo(5, 5, 5, size=size)


@pytest.mark.parametrize("size", [24, 50, 96])
def test_small_sets_and_other_sizes(size):
    tiny = make_demo(1, 1, 1, size=size)
    assert tiny.train.images.shape == (1, 1, size, size) and tiny.train.images.std() > 10
