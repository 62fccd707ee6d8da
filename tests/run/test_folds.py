"""Cross-validation: folds trained in their own folders, predictions out of fold, one submission."""

import dataclasses
import json
import shutil
from contextlib import nullcontext

import numpy as np
import pandas as pd
import pytest
from conftest import tiny_competition

from fer_utils import Config, ConfigError, DataError, fit, launch, load_competition, load_run
from fer_utils.analysis import all_runs, ensemble, label_doubts, small_trainings
from fer_utils.analysis.paired_comparison import check_same_images, on_common_images, same_validation
from fer_utils.data import load
from fer_utils.run import launch as launching
from fer_utils.run.results import headline, print_results
from fer_utils.run.soft_and_pseudo_labels import check_targets
from fer_utils.run.time_and_memory import OutOfTime
from tools.report import main as report
from tools.report_ensemble import load_ensemble

TINY = {"model": "small", "width": 0.125, "epochs": 2, "batch_size": 16, "image_size": 20}
TINY |= {"precision": "fp32", "device": "cpu"}


def side_by_side(configs, n_devices="auto"):
    """In place of processes."""
    assert n_devices == 1
    return [fit(config, load_competition(config.data, **config.data_options)) for config in configs]


@pytest.fixture(scope="module")
def config(tiny_folder, tmp_path_factory) -> Config:
    out = tmp_path_factory.mktemp("cv") / "run"
    return Config(data=str(tiny_folder), out=str(out), cv=3, metric="macro_f1", **TINY)


@pytest.fixture(scope="module")
def run(config):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(launching, "launch_members", side_by_side)
        return launch(config, load_competition(config.data, **config.data_options))


def test_every_labelled_image_is_predicted_by_a_network_that_did_not_see_it(run, config):
    whole = run.load_data()
    assert len(run.folds) == 3 and len(whole.valid) == 60 == len(set(whole.valid.ids))
    assert np.array_equal(run.saved("valid", "ids"), whole.valid.ids)
    assert np.array_equal(run.saved("valid", "labels"), whole.valid.labels)
    start = 0
    for k, fold in enumerate(run.folds):
        data = fold.load_data()
        assert not config.of_fold(k).differing(fold.config) and fold.out == run.out / f"fold{k}"
        assert not set(data.valid.ids) & set(data.train.ids)
        rows = slice(start, start + len(data.valid))
        assert np.array_equal(run.saved_probs()[rows], fold.saved_probs())
        assert np.array_equal(whole.valid.images[rows], data.valid.images)
        start = rows.stop
    assert start == 60


def test_the_test_split_gets_the_average(run):
    expected = np.mean([fold.saved_probs("test") for fold in run.folds], axis=0)
    assert np.array_equal(run.saved_probs("test"), expected)
    data = run.load_data()
    assert np.allclose(run.predict(data.test.images), expected, atol=1e-5)
    answers = pd.read_csv(run.folder.submission).emotion
    assert answers.tolist() == [data.label_values[k] for k in expected.argmax(1)]


def test_scores_and_words(run, capsys):
    right = run.saved_probs().argmax(1) == run.saved("valid", "labels")
    scores = run.metrics["valid"]["views"]
    assert scores["accuracy"] == right.mean() and scores["n"] == 60 and scores["metric"]["n"] == 60
    accuracies = [fold.metrics["valid"]["views"]["accuracy"] for fold in run.folds]
    assert run.metrics["cv"]["accuracies"] == accuracies
    assert run.metrics["cv"]["sd"] == pytest.approx(np.std(accuracies, ddof=1))
    assert run.metrics["valid"]["without_copies"] is None
    said = headline(run, run.load_data())
    assert "Out of fold" in said and "one of 3 networks" in said and "n = 60" in said
    print_results(run)
    assert "n = 60" in capsys.readouterr().out
    assert len(run.history) == 2
    losses = [fold.history.train_loss[0] for fold in run.folds]
    assert run.history.train_loss[0] == pytest.approx(np.mean(losses))


def test_it_is_a_run_like_any_other(run, config, capsys):
    again = launch(config, load_competition(config.data, **config.data_options))
    assert "nothing to do" in capsys.readouterr().out and again.metrics == run.metrics
    loaded = load_run(run.out)
    assert loaded.config.cv == 3 and [fold.out for fold in loaded.folds] == [fold.out for fold in run.folds]
    with pytest.raises(DataError, match="a network for each fold"):
        _ = loaded.model
    with pytest.raises(ConfigError, match="another config"):
        launch(dataclasses.replace(config, seed=5), load_competition(config.data, **config.data_options))
    assert report([str(run.out), "--no-faces"]) == 0


def test_a_missing_fold_is_named(run, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(run.out, copy)
    (copy / "fold1" / "model.safetensors").unlink()
    with pytest.raises(DataError, match=r"fold1: not a finished run, model.safetensors is missing"):
        load_run(copy)
    (copy / "oof.npz").unlink()
    with pytest.raises(DataError, match="not a finished run"):
        load_run(copy)


def test_doubtful_labels_come_from_the_folds(run):
    pytest.importorskip("cleanlab")
    data, first = run.load_data(), run.folds[0].load_data()
    variants, doubts, words = small_trainings.small_trainings(run, data, 3, 1, 0.125, 1, first)
    expected = label_doubts.doubtful_labels(run.saved_probs(), data.train.labels, data.class_names)
    pd.testing.assert_frame_equal(doubts, expected)
    assert np.array_equal(variants["base"][0].saved("valid", "ids"), first.valid.ids)
    assert not list(run.out.glob("studies/*/fold*"))
    assert "may be slightly too high" in words  # the folds' networks know the labels that judge


def test_a_run_of_folds_teaches_none_of_them(run):
    """Its networks have learned what validates the first fold, whose data its record describes."""
    student = dataclasses.replace(run.folds[0].config, teacher=str(run.out), out="outputs/student")
    with pytest.raises(DataError, match="was validated on other images"):
        check_targets(student, run.folds[0].load_data())


def test_runs_of_different_folds_are_averaged_and_not_scored(run, tmp_path):
    folds = list(run.folds)
    assert same_validation([run, run]) and not same_validation(folds)
    assert on_common_images(folds) == []
    with pytest.raises(DataError, match="other valid images"):
        check_same_images(folds)
    check_same_images(folds, valid=False)
    data = folds[0].load_data()
    ensemble.save_ensemble(folds, data, tmp_path / "average", None)
    folder = ensemble.RunFolder(tmp_path / "average")
    expected = np.mean([fold.saved_probs("test") for fold in folds], axis=0)
    assert np.array_equal(folder.predictions("test", "probs_views"), expected)
    names = folder.metrics()["members"]
    assert [(folder.path / name).resolve() for name in names] == [fold.out.resolve() for fold in folds]
    assert folder.metrics() == {"members": names, "validated": False}
    assert folder.submission.read_bytes() == run.folder.submission.read_bytes()
    with pytest.raises(DataError, match="holds a run"):
        ensemble.save_ensemble(folds, data, run.out, None)
    with pytest.raises(DataError, match="no test split"):
        ensemble.save_ensemble(folds, dataclasses.replace(data, test=None), tmp_path / "none", None)
    assert report([str(tmp_path / "average"), "--no-faces"]) == 1


@pytest.fixture(scope="module")
def plain(tiny_folder, run):
    """A run whose validation images are a part of those of the folds, and lie elsewhere among them."""
    config = Config(data=str(tiny_folder), out=str(run.out.parent / "plain"), split_seed=5, **TINY)
    return fit(config, load_competition(config.data, **config.data_options))


def test_an_average_with_folds_is_measured_on_the_images_in_common(run, plain, tmp_path):
    found = on_common_images([run, plain])
    ids = plain.saved("valid", "ids")
    assert len(ids) < 60 and all(np.array_equal(part.saved("valid", "ids"), ids) for part in found)
    places = {name: k for k, name in enumerate(run.saved("valid", "ids"))}
    answers = [run.saved_probs()[[places[name] for name in ids]], plain.saved_probs()]
    assert np.array_equal(found[0].saved_probs(), answers[0])
    data = found[0].load_data()
    assert np.array_equal(data.valid.images, plain.load_data().valid.images)
    result = ensemble.score_runs(found, data)
    assert result["ensemble"]["n"] == len(ids) == len(data.valid)
    said = f"measured on the {len(ids)} images that all runs were validated on; of run out of fold: there one"
    assert result["measured_on"].startswith(said) and said in ensemble.describe_result(result)
    out = run.out.parent / "both"
    ensemble.save_ensemble(found, data, out, result | {"chosen": [0, 1]})
    folder = ensemble.RunFolder(out)
    assert np.array_equal(folder.predictions("valid", "ids"), ids)
    assert np.allclose(folder.predictions("valid", "probs_views"), np.mean(answers, axis=0))
    assert folder.metrics()["measured_on"] == result["measured_on"]
    again = load_ensemble(out)
    assert np.array_equal(again.members[0].saved_probs(), answers[0])
    assert report([str(out)]) == 0 and said in (out / "report.html").read_text()
    assert said in all_runs.runs(out.parent).set_index("run").note["both"]


def test_networks_that_learned_validation_images_give_no_pseudo_labels(run, plain, tmp_path):
    """The average of `run` for the test split comes from networks that learned those of `plain`."""
    found = on_common_images([run, plain])
    data = found[1].load_data()
    ensemble.save_ensemble(found, data, tmp_path / "both", ensemble.score_runs(found, data))
    config = dataclasses.replace(plain.config, out=str(tmp_path / "new"), pseudo=str(tmp_path / "both"))
    with pytest.raises(DataError, match="name one of its runs, or an ensemble whose runs share"):
        fit(config, data)


def test_only_the_same_images_are_in_common(run, plain, tmp_path):
    def changed(name, **arrays):
        shutil.copytree(plain.out, tmp_path / name)
        with np.load(plain.out / "valid.npz") as saved:
            np.savez(tmp_path / name / "valid.npz", **(dict(saved) | arrays))
        return dataclasses.replace(plain, out=tmp_path / name)

    ids, labels = plain.saved("valid", "ids"), plain.saved("valid", "labels")
    assert on_common_images([run, changed("fixed", labels=(labels + 1) % 4)]) == []
    assert on_common_images([run, changed("other", ids=np.char.add("x", ids))]) == []
    # Row numbers of the data's own validation split: pooled with the training split they have another name.
    shutil.copytree(run.out, tmp_path / "pooled")
    with np.load(run.out / "oof.npz") as saved:
        names = saved["ids"].copy().astype("U20")
        names[np.flatnonzero(~np.isin(names, ids))[:1]] = f"valid/{ids[0]}"
        np.savez(tmp_path / "pooled" / "oof.npz", **(dict(saved) | {"ids": names}))
    assert on_common_images([dataclasses.replace(run, out=tmp_path / "pooled"), plain]) == []


def test_hours_that_end_before_the_last_fold_resume_there(config, tmp_path, monkeypatch):
    short = dataclasses.replace(config, out=str(tmp_path / "short"), max_hours=3.0)
    hours = []

    def some(configs, n_devices="auto"):
        hours.extend(part.max_hours for part in configs)
        return side_by_side(configs[:2], n_devices)

    data = load_competition(config.data, **config.data_options)
    monkeypatch.setattr(launching, "launch_members", some)
    with pytest.raises(OutOfTime, match="after 2 of 3 folds; the same call resumes there"):
        launch(short, data)
    assert hours == [1.0, 2.0, 3.0]  # an equal share for each
    assert not (tmp_path / "short" / "metrics.json").exists()
    monkeypatch.setattr(launching, "launch_members", side_by_side)
    assert launch(short, data).metrics["valid"]["views"]["n"] == 60


def test_a_fold_that_ran_out_of_time_resumes(run, config, tmp_path, monkeypatch):
    copy = tmp_path / "copy"
    shutil.copytree(run.out, copy)
    metrics = json.loads((copy / "metrics.json").read_text())
    metrics["training"]["out_of_time"] = True
    (copy / "metrics.json").write_text(json.dumps(metrics))
    monkeypatch.setattr(launching, "launch_members", side_by_side)
    again = dataclasses.replace(config, out=str(copy))
    result = launch(again, load_competition(again.data, **again.data_options))
    assert not result.metrics["training"]["out_of_time"]


def test_other_data_than_the_folds_read_are_refused_before_any_training(config, tmp_path, monkeypatch):
    """Their processes read `config.data` again, and would train on all of it."""
    monkeypatch.setattr(launching, "launch_members", lambda *_: pytest.fail("a fold was trained"))
    again = dataclasses.replace(config, out=str(tmp_path / "run"))
    read = load_competition(config.data, **config.data_options)
    half = dataclasses.replace(read, train=read.train.take(np.arange(0, len(read.train), 2)))
    not_pooled = load_competition(config.data, image_size=20)
    for other in (half, not_pooled):
        with pytest.raises(DataError, match="than those given to launch.*With cv each fold reads data again"):
            launch(again, other)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["teacher", "pseudo"])
def test_what_goes_on_from_an_earlier_run_is_trained_fold_by_fold(run, config, name):
    """No run has the validation images of all folds; that of a fold has those of this fold."""
    for earlier in (run.out, run.folds[0].out):
        with pytest.raises(ConfigError, match=f"{name} must be 'none' with cv, .*n_folds 3, fold, pool_"):
            dataclasses.replace(config, **{name: str(earlier)})
    alone = {"n_folds": 3, "fold": 1, "pool_valid": True}
    for k in range(3):
        new = dataclasses.replace(config, cv=0, **alone, **{name: str(run.folds[k].out)})
        refused = pytest.raises(DataError, match=name) if k != 1 else nullcontext()
        with refused:
            check_targets(new, load_competition(new.data, **new.data_options))


def test_what_cannot_be_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="at least 2 folds, got 1"):
        Config(cv=1)
    with pytest.raises(ConfigError, match="use launch"):
        fit(Config(out=str(tmp_path / "run"), cv=2, **TINY), tiny_competition())
    assert not (tmp_path / "run").exists()


def test_the_demo_has_folds_too(monkeypatch):
    whole = load.make_demo
    monkeypatch.setattr(load, "make_demo", lambda **options: whole(500, 150, 20, **options))
    parts = [load_competition("demo", image_size=24, **folds(k)) for k in (0, 1)]
    assert all(len(part.train) + len(part.valid) == 650 and part.is_demo for part in parts)
    assert not set(parts[0].valid.ids) & set(parts[1].valid.ids)
    assert "fold 1 of 2" in " ".join(parts[1].notes)


def folds(k: int) -> dict:
    options = Config(cv=2).of_fold(k).data_options
    return {name: options[name] for name in ("n_folds", "fold", "pool_valid", "seed")}
