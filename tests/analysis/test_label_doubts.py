"""Doubtful labels are found and written to a file without losing what a person wrote."""

import dataclasses
import re

import numpy as np
import pandas as pd
import pytest

from fer_utils.analysis import label_doubts as doubts
from fer_utils.competition import Competition, Split
from fer_utils.data.corrections import apply_fixes
from fer_utils.demo.dataset import demo_truth

pytest.importorskip("cleanlab", reason="Kaggle's image lacks it")
NAMES = ("angry", "happy", "sad")


def noisy_case(n=900, wrong=0.1, skill=3.0, seed=0):
    """Probabilities of a good network, and labels of which a share is wrong."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(3, size=n)
    logits = rng.normal(size=(n, 3)) + skill * np.eye(3)[truth]
    is_wrong = rng.random(n) < wrong
    labels = np.where(is_wrong, (truth + 1) % 3, truth)
    return np.exp(logits) / np.exp(logits).sum(1, keepdims=True), labels, truth, is_wrong


def test_wrong_labels_are_found_and_ranked():
    probs, labels, truth, is_wrong = noisy_case()
    found = doubts.doubtful_labels(probs, labels, NAMES)
    assert is_wrong[found.row[:25]].mean() > 0.9
    assert is_wrong[found.row].sum() > 0.7 * is_wrong.sum()
    hits = found[is_wrong[found.row]]
    assert (hits.suggested == np.array(NAMES)[truth[hits.row]]).mean() > 0.9
    assert (found.given == np.array(NAMES)[labels[found.row]]).all()
    margin = found.suggested_probability - found.given_probability
    assert margin.is_monotonic_decreasing
    assert found.clear.equals(margin >= doubts.CLEAR) and 0 < found.clear.sum() < len(found)


def test_classes_without_images_are_no_problem():
    probs, labels, _, _ = noisy_case()
    wide = np.column_stack([probs[:, 0], np.full(len(probs), 1e-3), probs[:, 1:]])
    assert len(doubts.doubtful_labels(wide, np.array([0, 2, 3])[labels], ("a", "f", "h", "s")))


def test_suggestions_are_what_training_reads_and_are_never_overwritten(tiny, tmp_path):
    rows = {"row": [4, 7, 0], "given": ["angry", "neutral", "angry"], "suggested": ["sad", "happy", "sad"]}
    odds = {"given_probability": [0.1, 0.1, 0.3], "suggested_probability": [0.8, 0.7, 0.4]}
    table = pd.DataFrame(rows | odds | {"clear": [True, True, False]})
    path = tmp_path / "label_fixes.csv"
    fresh = doubts.write_suggestions(path, table, tiny)
    assert fresh.startswith("`label_fixes.csv` in the run's folder lists 3 of them.")
    assert doubts.write_suggestions(path, table, tiny) == fresh  # read again: the same list
    train, _ = apply_fixes(tiny, path)
    assert [tiny.class_names[train.labels[row]] for row in (4, 7, 0)] == ["sad", "happy", "angry"]
    path.write_text("id,given,label\n4,angry,drop\n")
    kept = doubts.write_suggestions(path, table, tiny)
    assert path.read_text() == "id,given,label\n4,angry,drop\n"
    assert kept.startswith("**`label_fixes.csv` in the run's folder is not this list.**")
    assert "0 labels changed, 1 images left out. For a new one, move it away" in kept
    path.write_text("id,given,label\n4,angry,joyfull\n")
    kept = doubts.write_suggestions(path, table, tiny)
    assert "Its gain is not measured: " in kept and "row 2: unknown label 'joyfull'" in kept
    assert "joyfull" in path.read_text()


def test_conflicts_of_near_copies_are_counted_by_pair():
    """20 photographs taken twice: the second a little brighter, 4 of them under another label."""
    rng = np.random.default_rng(0)
    first = rng.integers(0, 200, (20, 1, 24, 24)).astype(np.uint8)
    second = (first + rng.integers(0, 9, first.shape)).astype(np.uint8)
    labels = np.arange(20) % 2
    others = np.where(np.arange(20) < 4, 1 - labels, labels)
    ids = np.arange(40).astype(str)
    train = Split(np.concatenate([first, second]), np.concatenate([labels, others]), ids)
    valid = Split(rng.integers(0, 255, (4, 1, 24, 24)).astype(np.uint8), np.arange(4) % 2, ids[:4])
    data = Competition(train, valid, None, ("happy", "sad"), (0, 1))
    text = doubts.describe_conflicts(data)
    assert "4 of 20 pairs" in text and "at least about 10.6 % of all labels are wrong (95 % interval" in text
    assert pytest.approx(1 - 4 / 20, abs=1e-3) == (1 - 0.1056) ** 2
    low, high = map(float, re.search(r"interval ([\d.]+) to ([\d.]+)\)", text).groups())
    assert 1 < low < 10.6 < high < 30
    text = doubts.describe_conflicts(dataclasses.replace(data, train=train.take(np.arange(20))))
    assert "not measurable here" in text and "%" not in text
    # Persons who show every expression look alike, and their labels differ.
    labels = np.concatenate([np.arange(20) % 2, (np.arange(20) < 12) ^ (np.arange(20) % 2)])
    alike = dataclasses.replace(train, labels=labels.astype(np.int64))
    text = doubts.describe_conflicts(dataclasses.replace(data, train=alike))
    assert "not measurable here" in text and "different faces that look alike" in text


def test_the_finding_is_judged_by_what_the_demo_drew():
    """All labels that are wrong on purpose, and as many others: half of them hits, none missed."""
    truth = demo_truth()["train"]
    wrong = np.flatnonzero(truth.label != truth.truth)
    right = np.flatnonzero(truth.label == truth.truth)[: len(wrong)]
    rows = np.arange(5000)
    train = Split(np.zeros((5000, 1, 2, 2), np.uint8), truth.label.to_numpy(), truth.id.to_numpy(str))
    demo = Competition(train.take(rows[::-1]), train.take(rows[:2]), None, tuple("abcdefg"), tuple(range(7)))
    rows = 4999 - np.concatenate([wrong, right])
    found = pd.DataFrame({"row": rows, "clear": np.arange(len(rows)) < len(wrong)})
    demo = dataclasses.replace(demo, is_demo=True)
    text = doubts.describe_wrong_labels(demo, found)
    assert text.startswith(
        "Doubts that are really wrong labels: 50 of the first 50 (100 %, 95 % interval 93 to 100)"
    )
    n = len(wrong)
    assert f"{n} of the first {n} (100 %" in text and f"{n} of all {2 * n} (50 %" in text
    for nothing in (None, found[:0]):
        assert "no doubts to compare" in doubts.describe_wrong_labels(demo, nothing)


def test_doubts_are_told_with_the_skill_of_those_who_doubt():
    some = pd.DataFrame([(3, True), (5, False), (7, False)], columns=["row", "clear"])
    text = doubts.describe_doubts(some, 1200, 0.613)
    assert text.startswith("**3 of 1,200 training labels are doubtful, 1 of them clearly.**")
    assert "agree with 61 % of all labels" in text
    none = doubts.describe_doubts(some[:0], 1200, 0.613)
    assert none == "None of 1,200 training labels is doubtful; the networks agree with 61 %."


def test_one_class_gives_no_doubts():
    found = doubts.doubtful_labels(np.full((5, 3), 1 / 3), np.zeros(5, np.int64), NAMES)
    assert len(found) == 0 and "clear" in found


def test_images_that_share_an_id_are_left_out_of_the_suggestions(tiny, tmp_path):
    train = dataclasses.replace(tiny.train, ids=np.where(np.arange(60) == 5, "4", tiny.train.ids))
    columns = {"row": [4, 7], "given": ["angry", "neutral"], "suggested": ["sad", "happy"]}
    table = pd.DataFrame(columns | {"given_probability": 0.1, "suggested_probability": 0.8, "clear": True})
    words = doubts.write_suggestions(tmp_path / "f.csv", table, dataclasses.replace(tiny, train=train))
    assert "lists 1 of them" in words
    assert pd.read_csv(tmp_path / "f.csv").id.tolist() == [7]
    apply_fixes(dataclasses.replace(tiny, train=train), tmp_path / "f.csv")
