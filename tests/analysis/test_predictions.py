"""Error tables, and ensembles that are chosen on validation and scored cross-fitted."""

import dataclasses
import json
import shutil
from unittest.mock import Mock

import numpy as np
import pandas as pd
import pytest

from fer_utils.analysis import all_runs
from fer_utils.analysis.ensemble import (
    agreement,
    choose_members,
    cross_fitted_probs,
    describe_submission,
    load_runs,
    member_table,
    save_ensemble,
    score_ensemble,
    score_runs,
)
from fer_utils.analysis.paired_comparison import check_same_images
from fer_utils.analysis.predictions import (
    confused_pairs,
    describe_calibration,
    headlines,
    prediction_table,
)
from fer_utils.competition import DataError
from fer_utils.config import Config
from fer_utils.data.submission_csv import validate_submission
from fer_utils.learning.metrics import calibrated_log_loss, evaluate
from fer_utils.run.folder import RunFolder
from fer_utils.run.train import fit
from tools.report_ensemble import load_ensemble


@pytest.fixture(scope="module")
def runs(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    parameters = {"image_size": 20, "model": "small", "width": 0.125, "epochs": 1}
    parameters |= {"precision": "fp32", "device": "cpu"}
    return [fit(Config(out=str(folder / f"seed{seed}"), seed=seed, **parameters), tiny) for seed in range(3)]


def test_the_prediction_table_has_labels_and_predictions(runs, tiny):
    table = prediction_table(runs[0], tiny)
    assert len(table) == 20
    assert table.correct.mean() == pytest.approx(runs[0].metrics["valid"]["views"]["accuracy"])
    assert (table.true == np.array(tiny.class_names)[tiny.valid.labels]).all()
    assert np.allclose(table.confidence, runs[0].saved_probs().max(1))


def test_another_number_of_images_is_refused(runs, tiny):
    fewer = dataclasses.replace(tiny, valid=tiny.valid.take(np.arange(5)))
    with pytest.raises(DataError, match="predicted 20 valid images, .* has 5"):
        prediction_table(runs[0], fewer)


def test_pairs_count_both_directions(runs, tiny):
    table = prediction_table(runs[0], tiny).iloc[:6].copy()
    table["true"] = ["sad", "sad", "fear", "sad", "happy", "happy"]
    table["predicted"] = ["fear", "fear", "sad", "happy", "happy", "happy"]
    table["correct"] = table.true == table.predicted
    pairs = confused_pairs(table)
    assert pairs.pair.tolist() == ["fear / sad", "happy / sad"]
    assert pairs.errors.tolist() == [3, 1]
    assert pairs.mostly[0] == "sad taken for fear"
    assert pairs.mostly_errors[0] == 2
    assert pairs.share.tolist() == [0.75, 0.25]
    assert confused_pairs(table[table.correct]).empty
    table.loc[table.index[1], "predicted"] = "sad"
    table["correct"] = table.true == table.predicted
    assert confused_pairs(table).mostly[0] == "one way, as many as the other"


def members_of(*rows):
    """Members [M, N, 2] from the probability of class 1 for each image."""
    ones = np.array(rows)
    return np.stack([1 - ones, ones], axis=2)


def test_members_are_added_only_while_they_help():
    labels = np.array([1, 1, 0, 0])
    members = members_of([0.9, 0.4, 0.1, 0.4], [0.4, 0.9, 0.4, 0.1], [0.01, 0.01, 0.99, 0.99])
    assert sorted(choose_members(members, labels)) == [0, 1]


def test_a_member_is_not_refused_for_making_the_average_less_sure():
    # Two members of equal worth that err on different images: their average is right more often, less sure.
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 600)
    sides = np.where(labels == 1, 1, -1)
    members = members_of(*(0.5 + 0.2 * np.tanh(sides * 0.8 + rng.normal(0, 1, (2, 600)))))
    assert sorted(choose_members(members, labels)) == [0, 1]
    assert calibrated_log_loss(members.mean(0), labels) < calibrated_log_loss(members[0], labels)


def test_calibrated_log_loss_does_not_depend_on_confidence():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 300)
    logits = rng.normal(0, 1, (300, 3)) + 2 * np.eye(3)[labels]
    losses = []
    for sharpness in (0.5, 1.0, 2.0):
        odds = np.exp(logits * sharpness)
        losses.append(calibrated_log_loss(odds / odds.sum(1, keepdims=True), labels))
    assert np.ptp(losses) < 1e-4


@pytest.mark.once
def test_cross_fitting_does_not_reward_luck():
    # Members that guess: the chosen one looks good on the images that chose it, not on the others.
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 300)
    members = members_of(*rng.uniform(0.05, 0.95, (60, 300)))
    chosen = members[choose_members(members, labels)].mean(0).argmax(1) == labels
    cross_fitted = cross_fitted_probs(members, labels).argmax(1) == labels
    assert chosen.mean() > 0.6
    assert abs(cross_fitted.mean() - 0.5) < 0.08


def test_an_ensemble_is_saved_with_a_valid_submission(runs, tiny, tmp_path):
    found = load_runs(str(runs[0].out.parent / "seed*"), at_least=2)
    assert [run.out for run in found] == [run.out for run in runs]
    members = np.stack([run.saved_probs() for run in found])
    result = score_ensemble(members, tiny.valid.labels, tiny.class_names)
    chosen = [found[k] for k in result["chosen"]]
    save_ensemble(chosen, tiny, tmp_path, {"ensemble": result["ensemble"]})
    validate_submission(tiny, tmp_path / "submission.csv")
    named = json.loads((tmp_path / "metrics.json").read_text())["members"]
    assert [(tmp_path / name).resolve() for name in named] == [run.out.resolve() for run in chosen]
    with np.load(tmp_path / "valid.npz") as arrays:
        accuracy = (arrays["probs_views"].argmax(1) == tiny.valid.labels).mean()
    assert accuracy == result["ensemble"]["accuracy"]


@pytest.fixture
def alike(runs, tmp_path):
    """Runs of two ensembles, whose last folders have the same name; a stranger of that name lies beside."""
    for run, place in zip(runs, ("cpu/member0", "sgd/member0", "member0"), strict=True):
        shutil.copytree(run.out, tmp_path / place)
    config = tmp_path / "member0" / "config.json"
    content = json.loads(config.read_text())
    content["record"]["fingerprint"] = "another's"
    config.write_text(json.dumps(content))
    return load_runs(f"{tmp_path}/cpu/member*, {tmp_path}/sgd/member*", at_least=2)


def test_runs_whose_last_folders_are_called_the_same_are_told_apart(alike, tiny, tmp_path):
    names, result = ["cpu/member0", "sgd/member0"], score_runs(alike, tiny) | {"chosen": [0, 1]}
    assert member_table(alike, result).run.tolist() == names
    assert agreement(alike).index.tolist() == agreement(alike).columns.tolist() == names
    save_ensemble(alike, tiny, tmp_path / "both", result)
    assert describe_submission(alike, [1], tmp_path / "both").endswith(", from sgd/member0")
    assert json.loads((tmp_path / "both" / "metrics.json").read_text())["members"] == [
        "../cpu/member0",
        "../sgd/member0",
    ]
    loaded = load_ensemble(tmp_path / "both")
    assert [run.out for run in loaded.members] == [run.out.resolve() for run in alike]
    assert loaded.names == names
    row = all_runs.runs(tmp_path).set_index("run").loc["both"]
    assert (row.changed, row.fingerprint) == (f"average of {', '.join(names)}", alike[0].fingerprint)


def test_members_in_the_folder_of_the_ensemble_are_called_as_they_always_were(runs, tiny, tmp_path):
    for k, run in enumerate(runs[:2]):
        shutil.copytree(run.out, tmp_path / "both" / f"member{k}")
        shutil.copytree(runs[2].out, tmp_path / f"member{k}")
    members = load_runs(str(tmp_path / "both" / "member*"))
    save_ensemble(members, tiny, tmp_path / "both", score_runs(members, tiny) | {"chosen": [0, 1]})
    assert json.loads((tmp_path / "both" / "metrics.json").read_text())["members"] == ["member0", "member1"]
    shutil.move(tmp_path / "both", tmp_path / "moved")
    found = [run.out for run in load_ensemble(tmp_path / "moved").members]
    assert found == [(tmp_path / "moved" / f"member{k}").resolve() for k in range(2)]


def test_older_ensembles_with_two_members_of_one_name_are_still_read(alike, tiny, tmp_path):
    save_ensemble(alike, tiny, tmp_path / "both", score_runs(alike, tiny) | {"chosen": [0, 1]})
    path = tmp_path / "both" / "metrics.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"members": ["member0", "member0"]}))
    old = load_ensemble(tmp_path / "both")
    assert (old.members, old.names) == ([], ["member0 (1)", "member0 (2)"])
    row = all_runs.runs(tmp_path).set_index("run").loc["both"]
    assert (row.state, row.fingerprint) == ("finished", ""), "nothing of the stranger beside it"


def test_an_average_that_is_cut_has_no_scores_of_the_one_before(runs, tiny, tmp_path, monkeypatch):
    save_ensemble(runs[:2], tiny, tmp_path, score_runs(runs[:2], tiny))
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(RunFolder, "write_submission", Mock(side_effect=KeyboardInterrupt))
        save_ensemble(runs[2:], tiny, tmp_path, score_runs(runs[2:], tiny))
    assert not (tmp_path / "metrics.json").exists()
    result = score_runs(runs[2:], tiny)
    save_ensemble(runs[2:], tiny, tmp_path, result)
    assert RunFolder(tmp_path).metrics()["ensemble"]["accuracy"] == result["ensemble"]["accuracy"]


def test_an_average_inherits_nothing_of_the_one_before(runs, tiny, tmp_path):
    save_ensemble(runs, tiny, tmp_path, score_runs(runs, tiny))
    save_ensemble(runs, dataclasses.replace(tiny, test=None), tmp_path, score_runs(runs, tiny))
    assert {path.name for path in tmp_path.iterdir()} == {"valid.npz", "metrics.json"}
    before = (tmp_path / "metrics.json").read_bytes()
    lost = dataclasses.replace(runs[0], out=tmp_path / "lost")
    with pytest.raises(DataError, match="cannot be used"):
        save_ensemble([lost], tiny, tmp_path, score_runs(runs[:1], tiny))
    assert (tmp_path / "metrics.json").read_bytes() == before  # what cannot be averaged replaces nothing


def test_an_ensemble_never_overwrites_a_run(runs, tiny):
    with pytest.raises(DataError, match="holds a run"):
        save_ensemble(runs, tiny, runs[0].out, {})


def test_a_class_that_validation_lacks_is_not_the_weakest(runs, tiny):
    scores = evaluate(np.eye(4)[[0, 1, 1, 3]], np.array([0, 1, 3, 3]), tiny.class_names)  # nothing of class 2
    run = dataclasses.replace(runs[0], metrics={"valid": {"views": scores}})
    table = prediction_table(runs[0], tiny)
    text = headlines(run, table)
    assert f"Weakest class (lowest F1): {tiny.class_names[1]}; 100 % of its 1 images" in text
    assert "Never predicted" not in text


def answers(run, tiny, preds, labels, confidence):
    """A run and its prediction table, with these answers."""
    probs = np.full((len(preds), 4), (1 - confidence) / 3)
    probs[np.arange(len(preds)), preds] = confidence
    run = dataclasses.replace(run, metrics={"valid": {"views": evaluate(probs, labels, tiny.class_names)}})
    names = np.array(tiny.class_names)
    table = pd.DataFrame({"true": names[labels], "predicted": names[preds], "correct": preds == labels})
    return run, table.assign(confidence=confidence)


def test_headlines_say_what_is_there(runs, tiny):
    labels, preds = np.arange(20) % 4, np.where(np.arange(20) % 4 == 2, 3, np.arange(20) % 4)
    text = headlines(*answers(runs[0], tiny, preds, labels, 0.9))
    assert "75.0 %" in text and "Never predicted: sad." in text
    assert "Most confused: neutral / sad, 100 % of the 5 errors; 5 of 5 are sad taken for neutral." in text
    assert "Errors with more than 80 % confidence: 5. Look for wrong labels among them first." in text
    assert "mean confidence is 15.0 points higher than its accuracy" in text
    unsure = headlines(*answers(runs[0], tiny, preds, labels, 0.5))
    assert "Errors with more than 80 % confidence: 0." in unsure and "Look for" not in unsure
    assert "confidence is 25.0 points lower" in unsure
    right = headlines(*answers(runs[0], tiny, labels, labels, 0.9))
    assert "Most confused" not in right and "Errors" not in right and "Never" not in right


def test_headlines_of_one_class(runs, tiny):
    text = headlines(*answers(runs[0], tiny, np.zeros(20, int), np.zeros(20, int), 0.9))
    assert "100.0 %" in text and "nan" not in text and "Never" not in text


def test_calibration_is_praised_only_where_it_helps():
    def sentence(before, after, log_loss=0.8):
        rows = {"calibration_error": [before, after], "log_loss": [0.9, log_loss], "temperature": [1.0, 0.84]}
        return describe_calibration(pd.DataFrame(rows, ["as it is", "calibrated"]))

    good, mixed, bad = sentence(0.048, 0.025), sentence(0.02, 0.03), sentence(0.02, 0.03, 0.95)
    assert mixed.startswith("**One temperature lowers the log loss, and not the calibration error:**")
    assert good.startswith("**One temperature makes it better:**")
    assert "is 4.8 points as it is and 2.5 calibrated, each half by the other" in good
    assert "Fitted on all, the temperature is 0.84." in good
    assert bad.startswith("**One temperature does not help here:**")


def test_one_run_is_no_ensemble(runs):
    with pytest.raises(DataError, match="names 1 runs, 2 are needed"):
        load_runs(f"{runs[0].out}, {runs[0].out}", at_least=2)


def test_a_pattern_that_matches_nothing_is_an_error(runs, tmp_path):
    assert load_runs("none") == load_runs("") == []
    both = load_runs(f"{runs[0].out}, none, {runs[0].out.parent}/seed[01]")
    assert [run.out for run in both] == [runs[0].out, runs[1].out]
    odd = shutil.copytree(runs[0].out, tmp_path / "seed[1]")
    assert [run.out for run in load_runs(str(odd))] == [odd]
    with pytest.raises(DataError, match="matches no finished run"):
        load_runs(str(runs[0].out.parent / "sead*"))


def test_members_on_other_data_are_refused(runs):
    stranger = dataclasses.replace(runs[1], class_names=("other", *runs[1].class_names[1:]))
    with pytest.raises(DataError, match="seed1 has other classes"):
        check_same_images([runs[0], runs[2], stranger])
