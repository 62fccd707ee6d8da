"""All runs of a folder: one row each with its state, seeds averaged, nothing read that is not needed."""

import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import tiny_competition

from fer_utils import Config, DataError, TrainingError, fit, runs
from fer_utils.analysis.leaderboard import store_score
from fer_utils.learning.metrics import wilson_interval
from fer_utils.run import train


def scores(accuracy, n=1000):
    low, high = wilson_interval(round(accuracy * n), n)
    return {"accuracy": accuracy, "ci_low": low, "ci_high": high, "n": n, "macro_f1": accuracy - 0.1}


def make_run(path, accuracy=0.6, fingerprint="f" * 64, **parameters):
    """The files of a finished run, without weights."""
    path.mkdir(parents=True)
    record = {"fingerprint": fingerprint, "class_names": ["a", "b"], "environment": {"device": "cpu"}}
    config = Config(**{"data": "demo", "out": str(path), **parameters}).to_dict()
    (path / "config.json").write_text(json.dumps(config | {"record": record}))
    for name in ("model.safetensors", "valid.npz"):
        (path / name).write_bytes(b"")
    (path / "history.csv").write_text(f"epoch,valid_accuracy\n1,0.2\n2,{accuracy}\n")
    (path / "submission.csv").write_text("id,label\n0,1\n1,0\n")
    training = {"epochs": 2, "seconds": 90.0, "n_devices": 1}
    views = {"views": scores(accuracy), "plain": scores(accuracy)}
    (path / "metrics.json").write_text(json.dumps({"training": training, "valid": views}))
    return path


def make_ensemble(path, members, accuracy=0.7):
    path.mkdir(parents=True)
    (path / "metrics.json").write_text(json.dumps({"members": members, "ensemble": scores(accuracy)}))
    return path


def touch(path, minutes):
    time = path.stat().st_mtime + 60 * minutes
    os.utime(path, (time, time))


def states(folder):
    return runs(folder).set_index("run").state.to_dict()


def notes(folder):
    return runs(folder).set_index("run").note.to_dict()


def test_a_run_is_one_row_with_what_it_changed_and_reached(tmp_path):
    make_run(tmp_path / "x", 0.61, epochs=3, width=0.75, seed=4, data="demo", device="cpu")
    (row,) = runs(tmp_path).itertuples()
    assert (row.run, row.kind, row.state, row.note) == ("x", "run", "finished", "")
    assert row.changed == "epochs 3, width 0.75"
    assert (row.seed, row.value, row.n, row.metric) == (4, 0.61, 1000, "accuracy")
    assert (row.ci_low, row.ci_high) == pytest.approx(wilson_interval(610, 1000))
    assert (row.epochs, row.seconds, row.device, row.data) == (2, 90, "cpu", "demo")
    assert row.fingerprint == "f" * 64 and row.tried == "" and np.isnan(row.public)


def test_what_the_fewest_runs_share_stands_first(tmp_path):
    for k, own in enumerate(({}, {"pseudo": "outputs/first"}, {"pseudo": "outputs/first", "width": 2.0})):
        make_run(tmp_path / f"x{k}", epochs=3, batch_size=32, **own)
    assert set(runs(tmp_path).changed) == {
        "epochs 3, batch_size 32",
        "pseudo outputs/first, epochs 3, batch_size 32",
        "width 2.0, pseudo outputs/first, epochs 3, batch_size 32",
    }


def test_what_learned_from_test_images_is_marked_and_an_average_with_it_too(tmp_path):
    config = make_run(tmp_path / "x") / "config.json"
    values = json.loads(config.read_text())
    values["record"]["transductive"] = "learned from 12 test images"
    config.write_text(json.dumps(values))
    make_run(tmp_path / "other")
    make_ensemble(tmp_path / "both", ["x", "other"])
    assert notes(tmp_path) == {"x": "transductive", "other": "", "both": "transductive"}


def test_runs_that_differ_in_the_seed_alone_are_averaged_and_the_best_group_is_first(tmp_path):
    for seed, accuracy in enumerate((0.60, 0.62, 0.67)):
        make_run(tmp_path / f"a{seed}", accuracy, seed=seed)
    make_run(tmp_path / "again", 0.60, seed=0)  # a repetition is no further seed
    make_run(tmp_path / "wide", 0.64, width=2.0)
    make_run(tmp_path / "other data", 0.99, fingerprint="a" * 64)
    table = runs(tmp_path).set_index("run")
    assert list(table.index) == ["wide", "a0", "again", "a1", "a2", "other data"]
    group = table.loc[["a0", "again", "a1", "a2"]]
    assert np.allclose(group["mean"], 0.63) and np.allclose(group.sd, np.std([0.60, 0.62, 0.67], ddof=1))
    assert (group.seeds == 3).all() and table.seeds["wide"] == 1 and np.isnan(table.sd["wide"])


def test_seeds_that_go_on_from_their_own_runs_are_averaged(tmp_path):
    for seed in range(3):
        make_run(tmp_path / f"own{seed}", 0.6, seed=seed, weights=f"outputs/a/seed{seed}/model.safetensors")
        make_run(tmp_path / f"one{seed}", 0.7, seed=seed, teacher="outputs/v1/run, outputs/v12")
        make_run(tmp_path / f"other{seed}", 0.8, seed=seed, weights=f"outputs/a/seed{2 - seed}")
    table = runs(tmp_path).set_index("run")
    assert table.seeds.to_dict() == {
        **{f"own{seed}": 3 for seed in range(3)},
        **{f"one{seed}": 3 for seed in range(3)},
        **{f"other{seed}": 1 for seed in range(3)},
    }
    assert table.changed["own1"] == "weights outputs/a/seed1/model.safetensors"


def test_ensembles_and_their_members_are_rows_and_never_one_group(tmp_path):
    make_run(tmp_path / "both" / "member0", 0.6, fingerprint="e" * 64)
    make_ensemble(tmp_path / "both2", ["member0"])
    (tmp_path / "both" / "metrics.json").write_text(
        json.dumps({"members": ["member0"], "ensemble": scores(0.8)})
    )
    table = runs(tmp_path).set_index("run")
    assert table.kind.to_dict() == {"both": "ensemble", "both/member0": "run", "both2": "ensemble"}
    assert table.fingerprint["both"] == "e" * 64 and table.fingerprint["both2"] == ""  # members are elsewhere
    assert (table.seeds == 1).all() and table.value["both"] == 0.8
    assert table.changed["both"] == "average of member0"


def test_members_are_found_in_the_ensemble_or_where_it_says_and_those_of_older_files_beside_it(tmp_path):
    for place, fingerprint in (("both/member0", "e"), ("member0", "f"), ("seed1", "f"), ("far/seed1", "d")):
        make_run(tmp_path / place, fingerprint=64 * fingerprint)
    make_ensemble(tmp_path / "named", ["../far/seed1"])
    make_ensemble(tmp_path / "older", ["seed1"])
    (tmp_path / "both" / "metrics.json").write_text(
        json.dumps({"members": ["member0"], "ensemble": scores(0.8)})
    )
    for name in ("both/member0", "far/seed1"):
        touch(tmp_path / name / "metrics.json", 5)
    table = runs(tmp_path).set_index("run")
    assert table.fingerprint.str[0][["both", "named", "older"]].tolist() == ["e", "d", "f"]
    assert table.state[["both", "named", "older"]].tolist() == ["stale", "stale", "finished"]
    touch(tmp_path / "member0" / "metrics.json", 50)  # of the same name beside the ensemble
    assert notes(tmp_path)["both"].count("metrics.json") == 1


def test_another_metric_stands_with_its_own_interval_and_the_lowest_log_loss_is_first(tmp_path):
    for name, value in (("high", 0.9), ("low", 0.8)):
        path = make_run(tmp_path / name, 0.6, metric="log_loss", width=1 + value) / "metrics.json"
        metrics = json.loads(path.read_text())
        own = {"name": "log_loss", "value": value, "ci_low": value - 0.1, "ci_high": value + 0.1, "n": 1000}
        metrics["valid"]["views"]["metric"] = own
        path.write_text(json.dumps(metrics))
    table = runs(tmp_path)
    assert list(table.run) == ["low", "high"] and set(table.metric) == {"log_loss"}
    assert list(table.value) == [0.8, 0.9] and list(table.ci_high) == pytest.approx([0.9, 1.0])


def test_folds_and_averages_that_nothing_validates_have_a_row(tmp_path):
    folds = make_run(tmp_path / "folds", 0.6, cv=2)
    for name in ("model.safetensors", "valid.npz"):
        (folds / name).unlink()
    (folds / "oof.npz").write_bytes(b"")
    for k in range(2):
        make_run(folds / f"fold{k}", 0.6, n_folds=2, fold=k, pool_valid=True)
    (tmp_path / "average").mkdir()
    (tmp_path / "average" / "metrics.json").write_text('{"members": ["folds"], "validated": false}')
    assert states(tmp_path) == dict.fromkeys(("folds", "average"), "finished"), (
        "folds have no rows of their own"
    )
    (folds / "oof.npz").unlink()
    assert {"folds/fold0", "folds/fold1"} < set(states(tmp_path)), "until they are combined"
    average = runs(tmp_path).set_index("run").loc["average"]
    assert np.isnan(average.value) and average.fingerprint == "f" * 64 and average.metric == "accuracy"
    assert average.note == "not validated: its runs have different validation images"


def test_unfinished_failed_and_late_runs_are_marked(tmp_path):
    for name in ("running", "failed", "late", "whole"):
        make_run(tmp_path / name)
    for name in ("running", "late"):
        (tmp_path / name / "checkpoint.pt").write_bytes(b"")
    for name in ("running", "failed"):
        (tmp_path / name / "metrics.json").unlink()
    (tmp_path / "failed" / "error.txt").write_text("TrainingError: training diverged\n")
    (tmp_path / "planned").mkdir()
    (tmp_path / "planned" / "config.json").write_text('{"epochs": 3}')  # a person's, no run
    assert states(tmp_path) == {
        "whole": "finished", "late": "out of time", "running": "unfinished", "failed": "failed"
    }  # fmt: skip
    assert notes(tmp_path)["failed"] == "TrainingError: training diverged"
    assert runs(tmp_path).seeds.max() == 1, "only what is finished counts"


def test_what_ended_a_training_is_said_until_it_is_repaired(tmp_path, monkeypatch):
    tiny, sizes = (
        tiny_competition(),
        {"image_size": 20, "model": "small", "width": 0.125, "epochs": 1, "device": "cpu"},
    )
    config = Config(**sizes, precision="fp32", out=str(tmp_path / "x"))

    def fail(*_):
        raise TrainingError("training diverged")

    with monkeypatch.context() as patch, pytest.raises(TrainingError):
        patch.setattr(train, "train_epoch", fail)
        fit(config, tiny)
    assert states(tmp_path) == {"x": "failed"} and "diverged" in notes(tmp_path)["x"]
    fit(config, tiny)
    assert states(tmp_path) == {"x": "finished"}


def test_newer_data_members_or_submissions_make_a_run_stale(tmp_path):
    (data := tmp_path / "faces").mkdir()
    (data / "train.csv").write_text("x")
    (fixes := tmp_path / "fixes.csv").write_text("x")
    make_run(tmp_path / "data", data=str(data))
    make_run(tmp_path / "gone", data=str(tmp_path / "nowhere"))
    make_run(tmp_path / "fixed", label_fixes=str(fixes))
    (votes := tmp_path / "votes.csv").write_text("x")
    make_run(tmp_path / "voted", auxiliary=str(votes))
    make_run(tmp_path / "edited")
    make_ensemble(tmp_path / "average", ["edited", "data"])
    assert set(states(tmp_path).values()) == {"finished"}
    touch(data / "train.csv", 5)
    touch(fixes, 5)
    touch(votes, 5)
    touch(tmp_path / "edited" / "submission.csv", 5)
    touch(tmp_path / "data" / "metrics.json", 5)
    stale = {"data", "fixed", "voted", "edited", "average"}
    assert {run for run, state in states(tmp_path).items() if state == "stale"} == stale
    said = notes(tmp_path)
    assert said["data"].startswith("faces changed since") and said["edited"].startswith("submission.csv")
    assert said["gone"] == ""


def test_a_scored_submission_that_is_put_back_is_not_stale(tmp_path):
    path = make_run(tmp_path / "x") / "submission.csv"
    content = path.read_bytes()
    store_score(tmp_path / "x", 0.6)
    path.write_text("id,label\n0,0\n1,0\n")
    touch(path, 5)
    assert states(tmp_path) == {"x": "stale"}
    assert notes(tmp_path)["x"].startswith(
        "its score 0.6 is of another submission.csv; submission.csv changed"
    )
    path.write_bytes(content)
    touch(path, 5)
    assert states(tmp_path) == {"x": "finished"} and notes(tmp_path)["x"] == ""


@pytest.mark.parametrize(
    ("file", "content", "note"),
    [
        ("metrics.json", "{", "metrics.json is damaged"),
        ("metrics.json", "[]", "holds no names"),
        ("metrics.json", '{"training": 3, "valid": 4}', "lacks what a run writes"),
        ("metrics.json", '{"training": {}, "valid": {"views": {}}}', "lacks what a run writes"),
        ("config.json", "\x00", "config.json is damaged"),
        ("config.json", '{"record": {}}', "its record lacks the fingerprint"),
        ("config.json", '{"future": 1, "record": {"fingerprint": "", "class_names": []}}', "'future'"),
        ("config.json", None, "config.json is missing"),
        ("model.safetensors", None, "model.safetensors is missing"),
        ("leaderboard.json", "[{}]", "leaderboard.json is damaged"),
    ],
)
def test_a_damaged_folder_is_a_row_that_says_so_and_the_others_are_there(tmp_path, file, content, note):
    make_run(tmp_path / "good")
    path = make_run(tmp_path / "bad") / file
    path.unlink(missing_ok=True)
    if content is not None:
        path.write_text(content)
    assert states(tmp_path) == {"good": "finished", "bad": "damaged"}
    assert note in notes(tmp_path)["bad"]


def test_a_folder_without_runs_or_none_at_all_is_an_error_that_names_it(tmp_path):
    with pytest.raises(DataError, match=f"{tmp_path} holds no run: train one"):
        runs(tmp_path)
    with pytest.raises(DataError, match="no file or folder"):
        runs(tmp_path / "none")


def test_neither_data_nor_weights_nor_predictions_are_read(tmp_path, monkeypatch):
    """What makes 200 runs quick."""
    data = tmp_path / "data.csv"
    data.write_text("x")
    for seed in range(5):
        make_run(tmp_path / f"run{seed}", seed=seed, data=str(data))
    opened, read_bytes = [], Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: opened.append(path) or read_bytes(path))
    monkeypatch.setattr(np, "load", None)
    monkeypatch.setattr(pd, "read_csv", None)
    assert len(runs(tmp_path)) == 5 and not opened
