"""Tiny competitions with known copies, conflicts and blanks."""

import dataclasses
import json
from statistics import NormalDist

import numpy as np
import pytest

from fer_utils.analysis.audit import (
    auc_interval,
    audit,
    conflicting,
    duplicate_groups,
    image_table,
    images_of,
)
from fer_utils.analysis.audit_summary import findings, light_findings
from fer_utils.competition import Competition, Rejected, Split
from fer_utils.data.decode_images import light
from fer_utils.files import REPOSITORY

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
        rejected=(Rejected("a.png", "not an image"),),
    )


def test_counts_what_was_put_in(competition):
    report = audit(competition, image_table(competition))
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
    assert report["rejected"] == [{"place": "a.png", "reason": "not an image"}]
    assert json.loads(json.dumps(report, allow_nan=False)) == report


def test_names_the_conflicting_images(competition):
    table = image_table(competition)
    duplicates = duplicate_groups(table)
    (row,) = conflicting(duplicates).itertuples()
    assert row.votes == {"happy": 2, "sad": 1}
    assert (row.n, row.train, row.valid, row.test, row.first) == (3, 3, 0, 0, 0)
    assert duplicates.n.tolist() == [3, 3, 2, 2]
    assert (images_of(competition, table.loc[duplicates["first"]]) == FACES[[0, 2, 1, 3]]).all()
    assert images_of(competition, table[:0]).shape == (0, 1, 16, 16)


def test_test_labels_change_nothing(competition):
    hidden = dataclasses.replace(competition, test=competition.test.without_labels())
    assert audit(hidden, image_table(hidden)) == audit(competition, image_table(competition))


def test_without_a_test_split(competition):
    competition = dataclasses.replace(competition, test=None)
    report = audit(competition, image_table(competition))
    assert report["exact_copies"] == {"valid_in_train": 1, "test_in_train": 0, "test_in_valid": 0}
    assert "test" not in report["light"]
    assert findings(report)


def test_light_is_the_mean_and_deviation_of_the_grey_levels():
    brightness, contrast = light(np.concatenate([FACES, GREY[None], np.full((1, 1, 16, 16), 255, np.uint8)]))
    assert brightness[:12] == pytest.approx(FACES.mean((1, 2, 3)))
    assert contrast[:12] == pytest.approx(FACES.std((1, 2, 3)))
    assert brightness[12:].tolist() == [90, 255]
    assert contrast[12:].tolist() == [0, 0]


def lit(by_class, n, seed=1):
    """Noise of `n` images a class, lighter by `by_class` levels; what its light says on the classes."""
    faces = np.random.default_rng(seed).integers(0, 100, (n * len(CLASSES), 1, 16, 16), dtype=np.uint8)
    faces += np.random.default_rng(seed).integers(0, 90, (len(faces), 1, 1, 1), dtype=np.uint8)
    labels = np.arange(len(faces)) % len(CLASSES)
    train = split(faces + np.array(by_class, np.uint8)[labels][:, None, None, None], labels, "train")
    competition = Competition(train, train, None, CLASSES, (0, 1, 2))
    report = audit(competition, image_table(competition))
    return report["light_by_class"], " ".join(light_findings(report))


def test_the_class_that_light_gives_away_is_named_with_its_numbers():
    rows, text = lit([0, 60, 0], n=300)
    (row,) = (row for row in rows if (row["label"], row["value"]) == ("sad", "brightness"))
    assert row["low"] > 0.8 and row["n"] == 300 and row["mean"] > row["others"][1] + 50
    assert f"The brightness alone separates sad from the others with an AUC of {row['auc']:.2f}" in text
    assert f"its mean is {row['mean']:.0f}, theirs {row['others'][0]:.0f} to {row['others'][1]:.0f}" in text
    assert "safe" not in text and "not measurable" not in text


def test_other_classes_that_stand_out_are_said_to_be_higher_or_lower():
    for by_class, side in (([0, 60, 0], "lower"), ([0, 60, 60], "higher")):
        rows, text = lit(by_class, n=300)
        (auc,) = (row["auc"] for row in rows if (row["label"], row["value"]) == ("fear", "brightness"))
        assert f"fear (brightness, {auc:.2f}: {side})" in text and (auc > 0.5) == (side == "higher")


def test_where_light_says_nothing_no_class_is_named():
    _, text = lit([0, 0, 0], n=400)
    assert "No class stands out by light" in text and "Varying light in augmentation is safe" in text
    assert "separates" not in text


@pytest.mark.parametrize("n", [3, 12])
def test_with_few_images_light_is_not_measurable(n):
    _, text = lit([0, 0, 0], n)
    assert "light tells classes apart is not measurable here" in text
    assert "safe" not in text and "separates" not in text


@pytest.mark.once
def test_noise_seldom_names_a_class():
    assert sum("separates" in lit([0, 0, 0], 60, seed)[1] for seed in range(40)) <= 2


def test_the_area_under_the_curve_is_that_of_all_pairs():
    rows, _ = lit([0, 9, 0], n=30)
    (row,) = (row for row in rows if (row["label"], row["value"]) == ("sad", "brightness"))
    assert 0.5 < row["auc"] < 0.7
    rng = np.random.default_rng(0)
    for auc in (0.5, 0.8):  # the spread over 400 draws is the error
        gap = np.sqrt(2) * NormalDist().inv_cdf(auc)
        draws = [(rng.normal(gap, 1, (50, 1)) > rng.normal(0, 1, 80)).mean() for _ in range(400)]
        assert np.mean(draws) == pytest.approx(auc, abs=0.01)
        low, high = auc_interval(auc, 50, 80, reach=1)
        assert np.std(draws) == pytest.approx((high - low) / 2, rel=0.15)


def test_a_split_in_another_light_is_named():
    faces = np.random.default_rng(1).integers(0, 100, (400, 1, 16, 16), dtype=np.uint8)
    train = split(faces, [0, 1] * 200, "train")
    for lift, verdict in ((0, "they look alike"), (90, "more `brightness` in augmentation bridges it")):
        valid = split(faces + np.uint8(lift), [0, 1] * 200, "valid")
        competition = Competition(train, valid, None, ("happy", "sad"), (0, 1))
        assert verdict in " ".join(findings(audit(competition, image_table(competition))))


def test_findings_say_each_defect_and_only_those(competition):
    text = " ".join(findings(audit(competition, image_table(competition))))
    assert "happy is the commonest (57.1 %), fear the rarest (14.3 %, n = 1): 4.0 to 1" in text
    assert "gives 33.3 % valid accuracy" in text
    assert "1 valid images (33.3 %) are also in train" in text
    assert "Of 2 images labelled more than once, 1 (50.0 %)" in text
    assert "Blank images teach nothing: 1 in train." in text
    assert "a.png" in text
    clean = Competition(
        split(FACES[:3], [0, 1, 2], "train"), split(FACES[3:6], [0, 1, 2], "valid"), None, CLASSES, (0, 1, 2)
    )
    text = " ".join(findings(audit(clean, image_table(clean))))
    assert "No image occurs twice." in text
    assert "The 3 classes are equally common in train: 1 images each." in text
    assert "by up to ±50.0 points" in text  # three images say next to nothing
    assert "too few images to say more" in text and "not measurable here" in text  # what differs is chance
    assert not any(word in text for word in ("Blank", "carry different", "could not be read"))


def test_a_class_without_images_is_counted_as_zero(competition):
    names = (*CLASSES, "neutral")
    competition = dataclasses.replace(competition, class_names=names, label_values=(0, 1, 2, 3))
    report = audit(competition, image_table(competition))
    assert report["counts"]["train"]["neutral"] == report["counts"]["valid"]["neutral"] == 0
    text = " ".join(findings(report))
    assert "none of them is neutral" in text
    assert "No image in train is neutral: no model can learn that." in text and "to 1" not in text


def test_what_01_says_of_fer2013_is_what_its_audit_counted():
    notebook = json.loads((REPOSITORY / "notebooks/01_eda.ipynb").read_text(encoding="utf-8"))
    said = " ".join("".join(notebook["cells"][0]["source"]).split())
    counted = (REPOSITORY / "outputs/reference/audit.md").read_text(encoding="utf-8")
    pairs = {
        "35,887 images": "images among the 35,887 |",
        "one class is sixteen times as common as another": "16.5 to 1 |",
        "8 % of the images of the validation and of the test split": "280 (7.8 %) / 288 (8.0 %) |",
        "as many have a near copy there": "274 (7.6 %) / 300 (8.4 %) |",
        "47 images carry different labels": "with different labels | 1,273; 47 (3.7 %) |",
        "surprise is brighter than the other classes": "146, and 121 to 136 grey levels |",
        "the images least like a face are mostly text and drawings": "15 are text",
    }
    for words, number in pairs.items():
        assert words in said and number in counted, words
    assert round(280 / 35.89) == round(288 / 35.89) == 8
