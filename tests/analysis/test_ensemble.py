"""What the figure of an ensemble says of the gain, on runs where it is real, absent or negative."""

from types import SimpleNamespace

import numpy as np
import pytest

from fer_utils.analysis.ensemble import (
    choose_members,
    describe_submission,
    gain_table,
    member_configs,
    score_ensemble,
    verdict,
)
from fer_utils.config import ConfigError
from fer_utils.run.folder import RunFolder

NAMES = ("happy", "sad")
LABELS = np.random.default_rng(0).integers(0, 2, 600)


def member(right, sure=0.8):
    """Probabilities of a run that is right where bool [N] says so."""
    chosen = np.where(right, LABELS, 1 - LABELS)
    return np.where(np.eye(2)[chosen] == 1, sure, 1 - sure)


def independent(n, accuracy=0.8):
    rng = np.random.default_rng(1)
    return np.stack([member(rng.random(len(LABELS)) < accuracy) for _ in range(n)])


def test_a_gain_is_said_where_errors_differ():
    text = verdict(score_ensemble(independent(5), LABELS, NAMES))
    assert text.startswith("Averaging, members chosen on the other half, against the most accurate run:\n+")
    assert text.endswith("evidence of a gain") and "no evidence" not in text


def test_no_gain_is_said_where_errors_are_nearly_the_same():
    right = np.arange(len(LABELS)) % 5 > 0
    runs = np.stack([member(right ^ (np.arange(len(LABELS)) == k), 0.7 + 0.1 * k) for k in range(3)])
    text = verdict(score_ensemble(runs, LABELS, NAMES))
    assert text.endswith("no evidence of a difference") or text.startswith("One run alone")


def test_a_loss_is_said():
    result = score_ensemble(independent(3), LABELS, NAMES)
    bad = {"difference": -0.05, "ci_low": -0.07, "ci_high": -0.03, "p": 0.001}
    assert verdict(result | {"cross_fitted_against_best": bad}).endswith("evidence of a loss")


def test_gains_are_over_the_most_accurate_run_whatever_its_log_loss():
    digits = np.arange(len(LABELS)) % 10
    careful, accurate = member(digits > 2, 0.75), member(digits > 1, 0.999)
    result = score_ensemble(np.stack([careful, accurate]), LABELS, NAMES)
    assert result["scores"][0]["log_loss"] < result["scores"][1]["log_loss"]
    assert result["best"] == 1


def test_the_best_alone_is_no_ensemble():
    good, bad = member(np.arange(len(LABELS)) % 10 > 0), member(np.arange(len(LABELS)) % 2 > 0, 0.99)
    result = score_ensemble(np.stack([good, bad]), LABELS, NAMES)
    assert result["chosen"] == [0]
    assert verdict(result) == "One run alone, that of the lowest log loss:\nno other lowers it in an average"
    assert gain_table(["good", "bad"], result)[""][1] == "good alone, chosen"


def test_the_submission_of_one_run_again_need_not_be_submitted(tmp_path):
    runs = [
        SimpleNamespace(out=tmp_path / name, folder=RunFolder(tmp_path / name)) for name in ("one", "two")
    ]
    for folder in (*(run.out for run in runs), tmp_path / "average"):
        folder.mkdir()
        (folder / "submission.csv").write_text("id,label\n0,1\n")
    again = "from one alone: the same file as"
    assert again in describe_submission(runs, [0], tmp_path / "average")
    assert describe_submission(runs, [0, 1], tmp_path / "average").endswith("submission.csv, from one, two")
    (runs[0].out / "submission.csv").write_text("id,label\n0,2\n")
    assert describe_submission(runs, [0], tmp_path / "average").endswith("submission.csv, from one")


def test_no_number_of_averaged_runs_is_named_where_a_half_averages_none():
    """The second run helps on one half of the images only, so the other half chooses the first alone."""
    half = np.random.default_rng(0).permutation(len(LABELS)) < len(LABELS) // 2
    rng = np.random.default_rng(1)
    first, wrong = member(rng.random(len(LABELS)) < 0.8), member(np.zeros(len(LABELS), bool), 0.99)
    second = np.where(half[:, None], member(rng.random(len(LABELS)) < 0.8), wrong)
    runs = np.stack([first, second])
    assert [choose_members(runs[:, part], LABELS[part]) for part in (half, ~half)][1] == [0]
    result = score_ensemble(runs, LABELS, NAMES) | {"chosen": [0, 1]}
    assert "2 runs" not in verdict(result) and "members chosen on the other half" in verdict(result)


@pytest.mark.parametrize("seed", range(3))
def test_guessing_runs_gain_nothing_cross_fitted(seed):
    rng = np.random.default_rng(seed)
    runs = np.stack([member(rng.random(len(LABELS)) < 0.5, 0.6) for _ in range(8)])
    text = verdict(score_ensemble(runs, LABELS, NAMES))
    assert "evidence of a gain" not in text


@pytest.mark.parametrize("name", ["data", "out", "seed", "device", "max_hours", "n_devices", "cv"])
def test_what_a_recipe_would_lose_is_refused_with_what_to_set_instead(name):
    """As 05_ensemble calls it; also where it stands in the second of the recipes that take turns."""
    shared = {"data": "auto", "out": "outputs/x", "seed": 0, "device": "cpu", "max_hours": 0.0}
    instead = {"n_devices": "leave it out", "cv": "train it with 03_training.*in the parameter runs"}
    message = instead.get(name, f"set the notebook's own parameter {name}")
    with pytest.raises(ConfigError, match=f"recipe cannot have {name}: {message}"):
        member_configs(f"epochs: 2; model: small, {name}: 3", 1, shared)
    assert member_configs("epochs: 2; model: small", 1, shared)[0].epochs == 2
