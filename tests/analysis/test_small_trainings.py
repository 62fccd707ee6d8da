"""Small trainings: no network predicts what it was trained on, each variant differs in one thing, none is
trained twice."""

import dataclasses
import sys
from importlib.util import find_spec

import numpy as np
import pytest
from conftest import tiny_competition

from fer_utils import Config, fit
from fer_utils.analysis import small_trainings as studies
from fer_utils.config import AUGMENTATION
from fer_utils.run.finished_run import load_run

EPOCHS, WIDTH = 2, 0.125
cleanlab = pytest.mark.skipif(find_spec("cleanlab") is None, reason="cleanlab is not installed, as on Kaggle")


@pytest.fixture(scope="module")
def competition():
    return tiny_competition()


@pytest.fixture(scope="module")
def run(tmp_path_factory, competition):
    parameters = {"image_size": 20, "model": "small", "width": 0.125, "epochs": 1}
    parameters |= {"precision": "fp32", "device": "cpu"}
    return fit(Config(out=str(tmp_path_factory.mktemp("studies") / "run"), **parameters), competition)


@pytest.fixture(scope="module")
def variants(run, competition):
    """The first seed of each."""
    found = studies.small_trainings(run, competition, n_folds=2, epochs=EPOCHS, width=WIDTH)
    return {name: runs[0] for name, runs in found[0].items()}


def test_each_training_image_is_predicted_by_a_network_not_trained_on_it(run, competition, tmp_path):
    config = studies.study_config(run.config, tmp_path, 60, EPOCHS, WIDTH)
    folds = studies.split_folds(competition.train, 2, run.config.split_seed)
    probs = studies.out_of_fold_probs(config, competition, 2)
    assert probs.shape == (60, 4)
    for fold in range(2):
        judge = load_run(tmp_path / f"fold{fold}of2")
        mine = competition.train.take(folds == fold)
        assert judge.saved("test", "ids").tolist() == mine.ids.tolist()
        assert np.allclose(judge.predict(mine.images), probs[folds == fold], atol=1e-5)
        others = dataclasses.replace(
            competition, train=competition.train.take(folds != fold), test=mine.without_labels()
        )
        assert judge.fingerprint == others.fingerprint
    assert set(folds) == {0, 1}


def test_variants_differ_from_the_base_in_one_thing(variants):
    base = variants["base"].config
    changed = {}
    for name, variant in variants.items():
        parameters = variant.config.to_dict().items()
        changed[name] = {key for key, value in parameters if value != getattr(base, key)} - {"out"}
    assert changed["base"] == changed.get("fixed", set()) == set()
    assert changed["longer"] == changed["half"] == changed["quarter"] == {"epochs"}
    assert changed["augmented"] == set(studies.STRENGTHS) - {"flip"} <= set(AUGMENTATION)
    same = {
        variant.fingerprint for name, variant in variants.items() if name in ("base", "longer", "augmented")
    }
    assert len(same) == 1


def test_parts_are_nested_and_learned_from_in_as_many_steps(competition, variants):
    folds = studies.split_folds(competition.train, 4, 0)
    for name, share in (("quarter", 1), ("half", 2)):
        part = dataclasses.replace(competition, train=competition.train.take(folds < share))
        variant = variants[name]
        assert variant.fingerprint == part.fingerprint
        assert variant.config.epochs == EPOCHS * 4 // share
        counts = np.bincount(part.train.labels)
        assert counts.max() - counts.min() <= 1


def test_further_seeds_differ_in_nothing_else(run, competition, tmp_path):
    config = studies.study_config(run.config, tmp_path, 60, 1, WIDTH)
    for name, (first, second) in studies.variant_runs(config, competition, None, 2).items():
        assert {**first.config.to_dict(), "seed": 1, "out": second.config.out} == second.config.to_dict(), (
            name
        )
        assert first.fingerprint == second.fingerprint and first.out != second.out
        assert not np.array_equal(first.saved_probs(), second.saved_probs())


def test_no_variant_reads_test_labels(run, tmp_path):
    labelled = tiny_competition(test_labels=np.arange(12) % 4)
    config = studies.study_config(run.config, tmp_path, 60, 1, WIDTH)
    for (variant,) in studies.variant_runs(config, labelled, None).values():
        assert "test" not in variant.metrics
        assert variant.fingerprint == load_run(variant.out).fingerprint


def test_what_is_done_is_only_read_again(run, competition, variants, capsys):
    before = {path: path.stat().st_mtime_ns for path in run.out.rglob("model.safetensors")}
    studies.small_trainings(run, competition, n_folds=2, epochs=EPOCHS, width=WIDTH)
    assert before == {path: path.stat().st_mtime_ns for path in run.out.rglob("model.safetensors")}
    lines = capsys.readouterr().out.splitlines()  # one for each training; the epochs are in log files
    with_fixes = find_spec("cleanlab") is not None
    assert len(lines) == 7 + with_fixes and all(": valid accuracy " in line for line in lines)
    assert "epoch" in next(run.out.glob("studies/*/base.log")).read_text()


@cleanlab
def test_an_edited_file_of_fixes_is_measured_anew(run, competition, variants):
    fixes = run.out / "label_fixes.csv"
    text = fixes.read_text()
    try:
        fixes.write_text("id,given,label\n1,happy,drop\n")
        edited, _, words = studies.small_trainings(run, competition, n_folds=2, epochs=EPOCHS, width=WIDTH)
        assert fixes.read_text() == "id,given,label\n1,happy,drop\n"
    finally:
        fixes.write_text(text)
    assert "is not this list" in words and "0 labels changed, 1 images left out" in words
    words = studies.small_trainings(run, competition, n_folds=2, epochs=EPOCHS, width=WIDTH)[2]
    assert "is not this list" not in words and "in the run's folder lists" in words
    assert edited["fixed"][0].out != variants["fixed"].out
    rest = dataclasses.replace(competition, train=competition.train.take(np.arange(60) != 1))
    assert edited["fixed"][0].fingerprint == rest.fingerprint


def test_a_slip_in_the_fixes_costs_only_their_row(run, competition, tmp_path):
    path = tmp_path / "fixes.csv"
    path.write_text("id,given,label\n1,happy,joyfull\n")
    config = studies.study_config(run.config, tmp_path / "out", 60, 1, WIDTH)
    runs = studies.variant_runs(config, competition, path)
    assert "fixed" not in runs and "base" in runs


@cleanlab
def test_a_run_that_learned_from_fixes_gets_no_second_file_of_them(run, competition, tmp_path):
    """Its `given` labels would be those of the first file and not of the data."""
    fixed = dataclasses.replace(
        run, out=tmp_path / "run", config=dataclasses.replace(run.config, label_fixes="x.csv")
    )
    variants, doubts, words = studies.small_trainings(fixed, competition, n_folds=2, epochs=1, width=WIDTH)
    assert doubts is not None and "fixed" not in variants
    assert words.endswith("No file lists them: this run was trained with `label_fixes` already.")
    assert not (fixed.out / "label_fixes.csv").exists()


def test_without_cleanlab_the_rest_goes_on(run, competition, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "cleanlab.filter", None)
    elsewhere = dataclasses.replace(run, out=tmp_path / "run")
    variants, doubts, words = studies.small_trainings(elsewhere, competition, 2, 1, WIDTH)
    assert doubts is None and not (elsewhere.out / "label_fixes.csv").exists()
    assert set(variants) == {"base", "quarter", "half", "longer", "augmented"}
    assert words.startswith("Not measurable here: cleanlab")


def test_small_trainings_have_the_data_parameters_of_the_run(run):
    config = dataclasses.replace(run.config, clean=True, split_seed=3, image_size=24, epochs=99, mixup=0.5)
    small = studies.study_config(config, "x", n_train=500, epochs=3, width=0.25)
    assert (small.clean, small.split_seed, small.image_size, small.seed) == (True, 3, 24, config.seed)
    assert (small.epochs, small.width, small.model, small.mixup, small.start_size) == (
        3,
        0.25,
        "small",
        0,
        28,
    )
    assert studies.study_config(config, "x", n_train=500, epochs=1, width=0.25).start_size == 0
    assert small.batch_size == 64
    assert studies.study_config(config, "x", 20_000, 3, 0.25).batch_size == 256
