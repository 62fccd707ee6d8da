"""Tiny competitions with known copies, conflicts and blanks."""

import dataclasses
import json

import numpy as np
import pytest

from fer_utils.analysis.audit import (
    audit,
    conflicting,
    duplicate_groups,
    picture_table,
    pictures,
)
from fer_utils.analysis.audit_summary import findings
from fer_utils.competition import Competition, Rejected, Split
from fer_utils.data.images import light

CLASSES = ("happy", "sad", "fear")
FACES = np.random.default_rng(0).integers(0, 256, (12, 1, 16, 16), dtype=np.uint8)
GREY = np.full((1, 16, 16), 90, np.uint8)


def split(pictures, labels, name):
    labels = None if labels is None else np.array(labels, np.int64)
    return Split(np.stack(pictures), labels, np.array([f"{name}{i}" for i in range(len(pictures))]))


@pytest.fixture
def competition():
    """Face 0 is in train three times with two labels, 1 also in valid, 2 also in test, 3 in those two."""
    return Competition(
        train=split([FACES[i] for i in (0, 0, 0, 1, 2, 4)] + [GREY], [0, 0, 1, 0, 2, 0, 1], "train"),
        valid=split([FACES[i] for i in (1, 3, 5)], [0, 1, 2], "valid"),
        test=split([FACES[i] for i in (2, 2, 3, 6)], [0, 0, 0, 0], "test"),
        class_names=CLASSES,
        label_values=(0, 1, 2),
        rejected=(Rejected("a.png", "not a picture"),),
    )


def test_counts_what_was_put_in(competition):
    report = audit(competition, picture_table(competition))
    assert report["n"] == {"train": 7, "valid": 3, "test": 4}
    assert report["counts"]["train"] == {"happy": 4, "sad": 2, "fear": 1}
    assert report["counts"]["valid"] == {"happy": 1, "sad": 1, "fear": 1}
    assert report["n_unique"] == 8
    assert report["exact_copies"] == {"valid_in_train": 1, "test_in_train": 2, "test_in_valid": 1}
    assert report["copies_within"] == {"train": 2, "valid": 0, "test": 1}
    assert report["duplicate_groups"] == 4
    assert report["labelled_repeatedly"] == 2  # faces 0 and 1; the test labels of 2 and 3 do not count
    assert report["conflicting_groups"] == 1
    assert report["blank"] == {"train": 1, "valid": 0, "test": 0}
    assert report["rejected"] == [{"place": "a.png", "reason": "not a picture"}]
    assert json.loads(json.dumps(report, allow_nan=False)) == report


def test_names_the_conflicting_pictures(competition):
    table = picture_table(competition)
    duplicates = duplicate_groups(table)
    (row,) = conflicting(duplicates).itertuples()
    assert row.votes == {"happy": 2, "sad": 1}
    assert (row.n, row.train, row.valid, row.test, row.first) == (3, 3, 0, 0, 0)
    assert duplicates.n.tolist() == [3, 3, 2, 2]
    assert (pictures(competition, table.loc[duplicates["first"]]) == FACES[[0, 2, 1, 3]]).all()
    assert pictures(competition, table[:0]).shape == (0, 1, 16, 16)


def test_test_labels_change_nothing(competition):
    hidden = dataclasses.replace(competition, test=competition.test.without_labels())
    assert audit(hidden, picture_table(hidden)) == audit(competition, picture_table(competition))


def test_without_a_test_split(competition):
    competition = dataclasses.replace(competition, test=None)
    report = audit(competition, picture_table(competition))
    assert report["exact_copies"] == {"valid_in_train": 1, "test_in_train": 0, "test_in_valid": 0}
    assert "test" not in report["light"]
    assert findings(report)


def test_light_is_the_mean_and_deviation_of_the_grey_levels():
    brightness, contrast = light(np.concatenate([FACES, GREY[None], np.full((1, 1, 16, 16), 255, np.uint8)]))
    assert brightness[:12] == pytest.approx(FACES.mean((1, 2, 3)))
    assert contrast[:12] == pytest.approx(FACES.std((1, 2, 3)))
    assert brightness[12:].tolist() == [90, 255]
    assert contrast[12:].tolist() == [0, 0]


def test_light_that_gives_the_class_away_is_named():
    faces = np.random.default_rng(1).integers(0, 100, (400, 1, 16, 16), dtype=np.uint8)
    faces[:200] += 100
    telling = split(faces, [0] * 200 + [1] * 200, "train")
    random = split(faces, [0, 1] * 200, "train")
    shares, texts = [], []
    for train in (telling, random):
        competition = Competition(train, train, None, ("happy", "sad"), (0, 1))
        report = audit(competition, picture_table(competition))
        shares.append(report["light_by_class"]["brightness"])
        texts.append(" ".join(findings(report)))
    assert shares[0] > 0.95 > 0.05 > shares[1]
    assert "Light tells classes apart" in texts[0]
    assert "Light says little" in texts[1]


def test_a_split_in_another_light_is_named():
    faces = np.random.default_rng(1).integers(0, 100, (400, 1, 16, 16), dtype=np.uint8)
    train = split(faces, [0, 1] * 200, "train")
    for lift, verdict in ((0, "they look alike"), (90, "more brightness in augmentation bridges it")):
        valid = split(faces + np.uint8(lift), [0, 1] * 200, "valid")
        competition = Competition(train, valid, None, ("happy", "sad"), (0, 1))
        assert verdict in " ".join(findings(audit(competition, picture_table(competition))))


def test_findings_say_each_defect_and_only_those(competition):
    text = " ".join(findings(audit(competition, picture_table(competition))))
    assert "happy is the commonest (57.1 %), fear the rarest (14.3 %, n = 1): 4.0 to 1" in text
    assert "gives 33.3 % valid accuracy" in text
    assert "1 valid pictures (33.3 %) are also in train" in text
    assert "Of 2 pictures labelled more than once, 1 (50.0 %)" in text
    assert "Blank pictures teach nothing: 1 in train." in text
    assert "a.png" in text
    clean = Competition(
        split(FACES[:3], [0, 1, 2], "train"), split(FACES[3:6], [0, 1, 2], "valid"), None, CLASSES, (0, 1, 2)
    )
    text = " ".join(findings(audit(clean, picture_table(clean))))
    assert "No picture occurs twice." in text
    assert "The 3 classes are equally common in train: 1 pictures each." in text
    assert "by up to ±50.0 points" in text  # three pictures say next to nothing
    assert "they look alike" in text and "Light says little" in text  # what differs is chance
    assert not any(word in text for word in ("Blank", "carry different", "could not be read"))


def test_a_class_without_pictures_is_counted_as_zero(competition):
    names = (*CLASSES, "neutral")
    competition = dataclasses.replace(competition, class_names=names, label_values=(0, 1, 2, 3))
    report = audit(competition, picture_table(competition))
    assert report["counts"]["train"]["neutral"] == report["counts"]["valid"]["neutral"] == 0
    assert "none of them is neutral" in " ".join(findings(report))
