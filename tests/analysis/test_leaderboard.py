"""Leaderboard scores: kept with the submission they are of, and compared honestly with validation."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from scipy.stats import pearsonr

from fer_utils import ConfigError, DataError, runs
from fer_utils.analysis.leaderboard import leaderboard_in_words, read_scores, standing, store_score
from fer_utils.learning.metrics import wilson_interval
from tests.analysis.test_all_runs import make_run, touch

pytestmark = pytest.mark.once


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "submission.csv").write_text("id,label\n" + "0,1\n" * 500)
    return tmp_path


def table_of(valid, public, n=1000, public_n=1000.0, metric="accuracy", tries=1):
    valid, public = np.array(valid), np.array(public)
    half = 1.96 * np.sqrt(valid * (1 - valid) / n)
    columns = {"value": valid, "ci_low": valid - half, "ci_high": valid + half, "public": public}
    names = [f"run{k}" for k in range(len(valid))]
    fixed = {
        "n": n,
        "public_n": public_n,
        "rows": 500.0,
        "metric": metric,
        "kind": "run",
        "fingerprint": "f",
        "tried": [" ".join(f"{run}-{k}" for k in range(tries)) for run in names],
        "edited": np.nan,
    }
    return pd.DataFrame({"run": names, **columns}).assign(**fixed)


def test_a_score_is_kept_with_the_hash_of_its_submission_and_the_private_one_is_added(folder):
    store_score(folder, 0.71)
    digest = read_scores(folder)[0]["sha256"]
    assert standing(folder) == {"tried": digest, "rows": 500, "public": 0.71, "note": ""}
    store_score(folder, 0.71, private=0.69, public_n=250)
    assert standing(folder) == {
        "tried": digest, "rows": 500, "public": 0.71, "private": 0.69, "public_n": 250, "note": ""
    }  # fmt: skip
    assert len(read_scores(folder)) == 2 and len(digest) == 64


def test_the_score_of_a_changed_submission_is_no_longer_its_score(folder):
    store_score(folder, 0.71)
    (folder / "submission.csv").write_text("id,label\n0,0\n")
    changed = standing(folder)
    assert "public" not in changed and changed["note"] == "its score 0.71 is of another submission.csv"
    store_score(folder, 0.5)
    assert standing(folder)["public"] == 0.5 and len(standing(folder)["tried"].split()) == 2
    (folder / "submission.csv").unlink()
    assert "another submission" in standing(folder)["note"]


@pytest.fixture
def answered(tmp_path):
    """A run that answered a, b, a, b, c for test images named 10 to 14, asked for in another order."""
    run = make_run(tmp_path / "answered", 0.7)
    arrays = {"ids": np.array(["10", "11", "12", "13", "14"]), "probs_views": np.eye(3)[[0, 1, 0, 1, 2]]}
    np.savez(run / "test.npz", **arrays)
    (run / "submission.csv").write_text("id,label\n14,c\n13,b\n12,a\n11,b\n10,a\n")
    return run


@pytest.mark.parametrize("rows", ["14,c 13,b 12,a 11,b 10,a", "10,1 11,2 12,1 13,2 14,3"])
def test_the_answers_of_the_run_are_known_in_any_order_and_coding_whatever_the_time(answered, rows, capsys):
    (answered / "submission.csv").write_text("\n".join(["id,label", *rows.split()]))
    touch(answered / "submission.csv", 5)
    store_score(answered, 0.71)
    assert standing(answered)["note"] == "" and "WARNING" not in capsys.readouterr().out


def test_labels_that_look_like_ids_are_not_taken_for_them(answered):
    (answered / "submission.csv").write_text("label,id\n12,14\n11,13\n10,12\n11,11\n10,10\n")
    touch(answered / "submission.csv", 5)
    store_score(answered, 0.71)
    assert standing(answered)["note"] == ""


@pytest.mark.parametrize("saved", [True, False])
def test_the_score_of_an_edited_submission_is_kept_but_not_compared(answered, saved, capsys):
    (answered / "submission.csv").write_text("id,label\n14,c\n13,a\n12,a\n11,b\n10,a\n")
    if not saved:  # then the time says it
        (answered / "test.npz").unlink()
        touch(answered / "submission.csv", 5)
    store_score(answered, 0.55)
    said = "submission.csv is not what this run wrote"
    warning = f"WARNING: {said}: its score is kept, but not compared with validation\n"
    assert capsys.readouterr().out == warning and standing(answered)["public"] == 0.55
    table = runs(answered.parent)
    assert table.note[0].startswith(said)
    assert leaderboard_in_words(table) == [f"answered: not compared, since {said}."]
    scored = table_of([0.6, 0.65, 0.7, 0.75, 0.8], [0.61, 0.7, 0.69, 0.7, 0.1])
    scored.loc[4, "edited"] = 1
    assert "n = 4 runs" in leaderboard_in_words(scored)[-2]


@pytest.mark.parametrize("content", ["", "id,label\n10,a\n", "\x00\x01", "id,label\n" + "1,a\n" * 6])
def test_what_is_no_table_of_all_test_images_is_refused(answered, content):
    (answered / "submission.csv").write_text(content)
    with pytest.raises(DataError, match=r"submission\.csv"):
        store_score(answered, 0.55)
    assert read_scores(answered) == []


def test_a_sample_that_wants_fewer_images_or_no_ids_is_no_fault(answered):
    for content in ("id,label\n10,a\n11,b\n14,c\n", "angry\nhappy\nangry\nhappy\nsad\n"):
        (answered / "submission.csv").write_text(content)
        touch(answered / "submission.csv", -5)
        store_score(answered, 0.55)
        assert standing(answered)["note"] == "", content


def test_what_cannot_be_a_score_is_refused_and_nothing_is_lost(folder, tmp_path):
    store_score(folder, 0.71)
    for wrong in (float("nan"), float("inf")):
        with pytest.raises(ConfigError, match="PUBLIC must be a finite number.*0.7132"):
            store_score(folder, wrong)
    with pytest.raises(ConfigError, match="PRIVATE must be"):
        store_score(folder, 0.7, private=float("nan"))
    with pytest.raises(ConfigError, match="N must be at least 1, got 0"):
        store_score(folder, 0.7, public_n=0)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty has no submission\.csv"):
        store_score(tmp_path / "empty", 0.7)
    with pytest.raises(DataError, match="no file or folder"):
        store_score(tmp_path / "none", 0.7)
    assert [score["public"] for score in read_scores(folder)] == [0.71]


@pytest.mark.parametrize("content", ["{", "3", "[3]", "{}x", '[{"sha256": ""}]', '[{"public": "x"}]'])
def test_a_damaged_memory_is_named_and_not_overwritten(folder, content):
    path = folder / "leaderboard.json"
    path.write_text(content)
    for work in (lambda: standing(folder), lambda: store_score(folder, 0.7)):
        with pytest.raises(DataError, match=r"leaderboard\.json is damaged"):
            work()
    assert path.read_text() == content
    path.write_text(json.dumps([]))
    assert standing(folder) == {"tried": ""}


@pytest.mark.parametrize(
    ("public", "verdict"),
    [(0.72, "inside what"), (0.68, "inside what"), (0.80, "above what"), (0.60, "below what")],
)
def test_a_public_score_is_inside_what_validation_predicts_or_above_or_below(public, verdict):
    first = leaderboard_in_words(table_of([0.7], [public]))[0]
    assert f"public {100 * public:.1f} %, valid 70.0 % (67.2 to 72.8, n = 1,000)" in first
    assert f"{verdict} validation predicts." in first


def test_the_interval_of_the_difference_is_newcombes():
    """Newcombe 1998, table II, (a): 56/70 and 48/80, hybrid score without correction: 0.0524 to 0.3339."""
    low, high = wilson_interval(48, 80)
    table = table_of([48 / 80], [56 / 70], n=80, public_n=70.0).assign(ci_low=low, ci_high=high)
    assert "difference +20.0 points (+5.2 to +33.4)" in leaderboard_in_words(table)[0]


def test_an_unknown_number_of_images_is_said():
    lines = leaderboard_in_words(table_of([0.7], [0.9], public_n=np.nan))
    assert "above what validation predicts (if all 500 rows count: N=... says how many do)" in lines[0]
    assert "public rests on at most 500 images" in lines[-1]


def test_how_far_the_two_correlate_has_an_interval_or_is_not_known():
    valid, public = [0.6, 0.65, 0.7, 0.75, 0.8], [0.61, 0.7, 0.69, 0.7, 0.79]
    r, (low, high) = pearsonr(valid, public)[0], pearsonr(valid, public).confidence_interval()
    known = leaderboard_in_words(table_of(valid, public))[-2]
    assert f"r = {r:.2f} (95 % interval {low:.2f} to {high:.2f}, n = 5 runs)" in known
    for few in ([0.7, 0.6, 0.65], [0.7] * 5):
        assert "not known yet" in leaderboard_in_words(table_of(few, few))[-2]


def test_choosing_by_the_leaderboard_is_warned_of_with_its_size_and_the_tries():
    """Of 10 normals the highest is expected at 1.54 standard deviations (Blom's formula: 1.55)."""
    line = leaderboard_in_words(table_of([0.5, 0.5], [0.5, 0.4], public_n=2500.0, tries=5))[-1]
    assert "rests on 2,500 images, and the best of 10 tries is too high by about 1.5 points, by" in line


def test_of_an_unknown_number_of_images_the_luck_of_the_best_is_a_lower_bound():
    """Fewer images than the 500 of the submission vary more."""
    unknown, few = (
        leaderboard_in_words(table_of([0.5, 0.5], [0.5, 0.4], public_n=n, tries=5))[-1]
        for n in (np.nan, 125.0)
    )
    assert "at most 500 images, and the best of 10 tries is too high by at least 3.5 points, by" in unknown
    assert "rests on 125 images, and the best of 10 tries is too high by about 6.9 points, by" in few


def test_tries_on_other_data_are_not_counted():
    other = table_of([0.5], [0.5]).assign(fingerprint="g", tried="a b c d")
    lines = leaderboard_in_words(pd.concat([table_of([0.5], [0.5], tries=2), other], ignore_index=True))
    assert "the best of 2 tries" in lines[2] and "the best of 4 tries" in lines[5]


def test_a_copied_folder_is_no_further_try_and_no_further_run(answered):
    store_score(answered, 0.71)
    for k in range(4):
        shutil.copytree(answered, answered.parent / f"copy{k}")
    lines = leaderboard_in_words(runs(answered.parent))
    assert "not known yet: 1 scored" in lines[-2] and "the best of 1 tries" in lines[-1]


def test_scores_that_are_no_accuracies_are_not_compared_and_none_says_nothing():
    assert leaderboard_in_words(table_of([0.7], [np.nan])) == []
    for table in (table_of([0.7], [1.3]), table_of([0.7], [0.7], metric="macro_f1")):
        assert leaderboard_in_words(table) == [
            "run0: not compared, since only accuracies (from 0 to 1) have an interval."
        ]
    for kind, reason in (
        ("run", "it has no validation score"),
        ("ensemble", "it is not validated: its runs have different validation images"),
    ):
        table = table_of([np.nan], [0.7]).assign(kind=kind)
        assert leaderboard_in_words(table) == [f"run0: not compared, since {reason}."]
