"""Near copies, faces that are none, and splits that differ: found where they were put, and nowhere else."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from fer_utils.analysis.audit import audit, face_distance, image_table, split_drift
from fer_utils.analysis.audit_summary import findings
from fer_utils.analysis.near_copies import near_copies, near_copies_of, near_report
from fer_utils.competition import Competition, Split
from fer_utils.demo.dataset import make_demo

FACES = make_demo(400, 10, 10, seed=3).train.images[:240]


def split(images, labels=None):
    images = np.asarray(images, np.uint8)
    labels = np.arange(len(images)) % 3 if labels is None else np.asarray(labels)
    return Split(images, labels.astype(np.int64), np.arange(len(images)).astype(str))


def competition(train, valid, test=None):
    return Competition(train, valid, test, ("happy", "sad", "fear"), (0, 1, 2))


def shifted(image, by=1):
    return np.roll(image, by, axis=-1)


def lit(image):
    return (image * 0.6 + 40).astype(np.uint8)


def recompressed(image):
    small = Image.fromarray(image[0]).resize((36, 36)).resize((48, 48))
    return np.asarray(small)[None]


CHANGES = {
    "shifted": shifted,
    "lit": lit,
    "recompressed": recompressed,
    "mirrored": lambda image: image[..., ::-1],
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_copy_is_found_and_told_from_others(change):
    changed = np.stack([CHANGES[change](image) for image in FACES[:6]])
    data = competition(split(FACES[:100]), split(np.concatenate([changed, FACES[200:230]])))
    table = image_table(data)
    pairs = near_copies(data, table)
    pairs = pairs[pairs.mirrored == (change == "mirrored")]
    found = {(a, b) for a, b in zip(pairs["first"], pairs["second"], strict=True)}
    assert {(row, 100 + row) for row in range(6)} <= found
    assert (near_copies_of(data.valid.images, data.train.images)[:6]).all()


def test_each_pair_once_and_no_image_with_itself():
    images = np.concatenate([FACES[:30], FACES[:30], [shifted(FACES[0]), shifted(FACES[0], -1)]])
    data = competition(split(images), split(FACES[200:210]))
    pairs = near_copies(data, image_table(data))
    plain = pairs[~pairs.mirrored]
    assert not plain.duplicated(["first", "second"]).any() and (plain["first"] < plain["second"]).all()
    assert {(0, 60), (0, 61), (60, 61)} <= set(zip(plain["first"], plain["second"], strict=True))
    assert not (plain["second"].between(30, 59)).any()  # exact copies are another matter
    assert pairs.similarity.is_monotonic_decreasing


def test_images_that_are_all_alike_stay_few_pairs():
    film = np.stack([np.clip(FACES[0].astype(int) + n % 3, 0, 255) for n in range(60)]).astype(np.uint8)
    film[:, 0, 0, 0] = np.arange(60)
    data = competition(split(film), split(FACES[200:210]))
    assert 60 <= len(near_copies(data, image_table(data)).query("not mirrored")) <= 300


def test_more_images_than_one_block_give_the_same_pairs(monkeypatch):
    data = competition(
        split(FACES[:40]), split([shifted(FACES[5]), shifted(FACES[30]), FACES[20][..., ::-1]])
    )
    table = image_table(data)
    whole, known = near_copies(data, table), near_copies_of(data.train.images, data.valid.images)
    monkeypatch.setattr("fer_utils.analysis.near_copies._BLOCK", 16)
    pd.testing.assert_frame_equal(near_copies(data, table), whole)
    assert known[[5, 20, 30]].all() and (near_copies_of(data.train.images, data.valid.images) == known).all()


def test_near_begins_at_the_correlations_that_were_measured():
    """Copies of 60 images in ever more noise."""
    noise = np.random.default_rng(0).normal(size=(60, 1, 48, 48)) * np.linspace(5, 30, 60).reshape(
        60, 1, 1, 1
    )
    noisy = (FACES[:60] + noise).clip(0, 255)
    data = competition(split(FACES[:60]), split(np.concatenate([noisy, noisy[..., ::-1]])))
    least = near_copies(data, image_table(data)).groupby("mirrored").similarity.min()
    assert 0.92 <= least[False] < 0.93 and 0.94 <= least[True] < 0.95


def test_blank_images_are_in_no_pair():
    faint = (FACES[:2] * 0.04 + 90).astype(np.uint8)
    data = competition(split(np.concatenate([FACES[:20], faint])), split(shifted(faint)))
    table = image_table(data)
    assert table.blank.tolist() == [False] * 20 + [True] * 4
    assert not near_copies(data, table)[["first", "second"]].isin(range(20, 24)).any(axis=None)


def test_counts_by_split_and_label():
    train, valid = (
        split(FACES[:50], np.zeros(50)),
        split([FACES[0], shifted(FACES[1]), lit(FACES[2])], [0, 1, 0]),
    )
    test = split([recompressed(FACES[3]), shifted(valid.images[1], -1)]).without_labels()
    data = competition(train, valid, test)
    table = image_table(data)
    report = near_report(data, table, near_copies(data, table).query("not mirrored"))
    assert report["valid_in_train"] == 2  # the exact copy is not counted again
    assert report["test_in_train"] == 1 and report["test_in_valid"] == 1
    assert report["conflicting_pairs"] == 1 and report["labelled_pairs"] == 2
    assert json.loads(json.dumps(report)) == report


def test_both_ways_to_count_say_the_same():
    """Among copies that are hardly near, a few are nearer one way round than the other."""
    noise = np.random.default_rng(0).normal(0, 18, FACES[:100].shape)
    hardly = np.roll(FACES[:100], 2, -1) + noise
    data = competition(split(FACES[:100]), split(hardly.clip(0, 255)))
    table = image_table(data)
    pairs = near_copies(data, table)
    report = near_report(data, table, pairs)
    known = near_copies_of(data.valid.images, data.train.images)
    assert 0 < report["valid_in_train"] == known.sum() < 100
    between = pairs[(pairs["first"] < 100) & (pairs["second"] >= 100)]
    assert set(between["second"] - 100) == set(np.flatnonzero(known))
    film = np.repeat(FACES[:1], 60, axis=0)  # of each image `near_copies` lists only the most alike
    film[:, 0, 0, 0] = np.arange(60)
    data = competition(split(film[:30]), split(film[30:]))
    table = image_table(data)
    report = near_report(data, table, near_copies(data, table))
    assert report["valid_in_train"] == near_copies_of(film[30:], film[:30]).sum() == 30


def test_nothing_near():
    noise = np.random.default_rng(0).integers(0, 256, (60, 1, 48, 48))
    data = competition(split(noise[:40]), split(noise[40:]))
    table = image_table(data)
    pairs = near_copies(data, table)
    assert pairs.empty and list(pairs) == ["first", "second", "similarity", "mirrored"]
    report = near_report(data, table, pairs)
    assert set(report.values()) == {0}
    assert not any("Nearly" in sentence for sentence in findings(audit(data, table, report)))


def test_blank_copies_are_copies():
    grey = np.full((1, 1, 48, 48), 90, np.uint8)
    assert near_copies_of(grey, np.concatenate([FACES[:3], grey])).all()
    assert not near_copies_of(grey, FACES[:3]).any()


@pytest.mark.parametrize("size", [8, 20, 64])
def test_any_size(size):
    images = np.random.default_rng(1).integers(0, 256, (30, 1, size, size), dtype=np.uint8)
    changed = (images[:5] * 0.5 + 20).astype(np.uint8)
    assert near_copies_of(changed, images).all()
    assert len(face_distance(images)) == 30


def test_what_is_no_face_leads_the_list():
    text = np.full((48, 48), 250, np.uint8)
    text[10:40:6, 4:44:2] = 0
    distance = face_distance(np.concatenate([FACES, text[None, None]]))
    assert distance.argmax() == len(FACES)
    assert (distance >= 0).all() and (distance <= 1.5).all()


def test_splits_from_one_source_and_from_two():
    drawn = make_demo(700, 300, 10, seed=1)
    table = image_table(drawn)
    same = split_drift(drawn, table).loc["train, valid"]
    assert same.low < 0.5 < same.high + 0.05
    blurred = np.stack([recompressed(image) // 2 for image in drawn.valid.images])
    other = dataclasses.replace(drawn, valid=dataclasses.replace(drawn.valid, images=blurred))
    table = image_table(other)
    drift = split_drift(other, table)
    assert drift.loc["train, valid"].low > 0.9 and drift.loc["train, valid"].n == "700 and 300"
    text = " ".join(findings(audit(other, table, drift=drift)))
    assert "they differ, so expect another score there" in text


@pytest.mark.parametrize(
    ("auc", "low", "high", "said"),
    [(0.51, 0.49, 0.53, "it cannot tell them apart"), (0.52, 0.505, 0.535, "they differ a little"),
     (0.6, 0.56, 0.64, "they differ, so expect another score"), (0.5, 0.3, 0.7, "too few images to say")],
)  # fmt: skip
def test_the_verdict_on_two_splits_is_that_of_the_interval(auc, low, high, said):
    drawn = make_demo(100, 60, 10, seed=1)
    drift = pd.DataFrame({"n": "5 and 5", "auc": auc, "low": low, "high": high}, ["train, valid"])
    assert said in findings(audit(drawn, image_table(drawn), drift=drift))[-1]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [(4, "10.0 % disagree: a rough measure of how noisy the labels are."),
     (20, "50.0 % disagree: any two images would in 50.0 %. Therefore many pairs are different faces")],
)  # fmt: skip
def test_the_sentences_say_what_was_counted(wrong, said):
    labels = np.arange(60) % 2
    train = split(FACES[:60], labels)
    valid = split([shifted(image) for image in FACES[:40]], labels[:40] ^ (np.arange(40) < wrong))
    data = competition(train, valid)
    table = image_table(data)
    report = audit(data, table, near_report(data, table, near_copies(data, table)))
    text = " ".join(findings(report))
    assert f"{report['near_copies']['valid_in_train']} more valid images" in text
    assert said in text
