"""Small trainings: no network predicts what it was trained on, each variant differs in one thing, none is
trained twice."""

import dataclasses

import numpy as np
import pytest
from conftest import tiny_competition

from fer_utils import Config, fit
from fer_utils.analysis import next_steps
from fer_utils.analysis import small_trainings as studies
from fer_utils.analysis.label_doubts import cleanlab_is_installed
from fer_utils.analysis.predictions import hardest_class
from fer_utils.analysis.slices import score_slices
from fer_utils.run.finished_run import load_run

EPOCHS, WIDTH = 2, 0.125


@pytest.fixture(scope="module")
def competition():
    return tiny_competition()


@pytest.fixture(scope="module")
def run(tmp_path_factory, competition):
    parameters = {"image_size": 20, "width": 0.125, "epochs": 1, "precision": "fp32", "device": "cpu"}
    return fit(Config(out=str(tmp_path_factory.mktemp("studies") / "run"), **parameters), competition)


@pytest.fixture(scope="module")
def variants(run, competition):
    return studies.small_trainings(run, competition, n_folds=2, epochs=EPOCHS, width=WIDTH)[1]


def test_each_training_picture_is_predicted_by_a_network_not_trained_on_it(run, competition, tmp_path):
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
    assert changed["longer"] == changed["half"] == changed["quarter"] == {"epochs"} >= changed["rarer"]
    assert changed["seed"] == {"seed"}
    assert changed["augmented"] <= set(studies.AUGMENTATION)
    same = {variant.fingerprint for name, variant in variants.items() if name in ("base", "longer", "seed")}
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


def test_half_of_the_hardest_class_is_left_out(run, competition, variants):
    confusion = np.array(run.metrics["valid"]["views"]["confusion"])
    hardest = (confusion.sum(1) - confusion.diagonal()).argmax()
    folds, labels = studies.split_folds(competition.train, 4, 0), competition.train.labels
    part = dataclasses.replace(competition, train=competition.train.take((labels != hardest) | (folds < 2)))
    assert variants["rarer"].fingerprint == part.fingerprint
    counts = np.bincount(part.train.labels)
    assert counts[hardest] <= 8 and np.delete(counts, hardest).tolist() == [15, 15, 15]


def test_no_variant_reads_test_labels(run, tmp_path):
    labelled = tiny_competition(test_labels=np.arange(12) % 4)
    config = studies.study_config(run.config, tmp_path, 60, 1, WIDTH)
    for variant in studies.variant_runs(config, labelled, 0, None).values():
        assert "test" not in variant.metrics
        assert variant.fingerprint == load_run(variant.out).fingerprint


def test_what_is_done_is_only_read_again(run, competition, variants, capsys):
    before = {path: path.stat().st_mtime_ns for path in run.out.rglob("model.safetensors")}
    studies.small_trainings(run, competition, n_folds=2, epochs=EPOCHS, width=WIDTH)
    assert before == {path: path.stat().st_mtime_ns for path in run.out.rglob("model.safetensors")}
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("base ") and "n = 20" in line for line in lines)
    assert not any("epoch" in line for line in lines)  # they are in the log


@pytest.mark.skipif(not cleanlab_is_installed(), reason="cleanlab is not installed, as on Kaggle")
def test_an_edited_file_of_fixes_is_measured_anew(run, competition, variants):
    fixes = run.out / "label_fixes.csv"
    text = fixes.read_text()
    try:
        fixes.write_text("id,given,label\n1,happy,drop\n")
        _, edited = studies.small_trainings(run, competition, n_folds=2, epochs=EPOCHS, width=WIDTH)
    finally:
        fixes.write_text(text)
    assert edited["fixed"].out != variants["fixed"].out
    rest = dataclasses.replace(competition, train=competition.train.take(np.arange(60) != 1))
    assert edited["fixed"].fingerprint == rest.fingerprint


def test_a_slip_in_the_fixes_costs_only_their_row(run, competition, tmp_path, capsys):
    path = tmp_path / "fixes.csv"
    path.write_text("id,given,label\n1,happy,joyfull\n")
    config = studies.study_config(run.config, tmp_path / "out", 60, 1, WIDTH)
    runs = studies.variant_runs(config, competition, 0, path)
    assert "fixed" not in runs and "base" in runs
    assert "row 2: unknown label 'joyfull'" in capsys.readouterr().out


@pytest.mark.skipif(not cleanlab_is_installed(), reason="cleanlab is not installed, as on Kaggle")
def test_a_run_that_learned_from_fixes_gets_no_second_file_of_them(run, competition, tmp_path):
    """Its `given` labels would be those of the first file and not of the data."""
    fixed = dataclasses.replace(
        run, out=tmp_path / "run", config=dataclasses.replace(run.config, label_fixes="x.csv")
    )
    doubts, variants = studies.small_trainings(fixed, competition, n_folds=2, epochs=1, width=WIDTH)
    assert doubts is not None and "fixed" not in variants
    assert not (fixed.out / "label_fixes.csv").exists()


def test_without_cleanlab_the_rest_goes_on(run, competition, tmp_path, monkeypatch):
    monkeypatch.setattr(studies, "cleanlab_is_installed", lambda: False)
    elsewhere = dataclasses.replace(run, out=tmp_path / "run")
    doubts, variants = studies.small_trainings(elsewhere, competition, 2, 1, WIDTH)
    assert doubts is None and not (elsewhere.out / "label_fixes.csv").exists()
    assert set(variants) == {"base", "quarter", "half", "rarer", "longer", "augmented", "seed"}


def test_small_trainings_have_the_data_parameters_of_the_run(run):
    config = dataclasses.replace(run.config, clean=True, split_seed=3, image_size=24, epochs=99, mixup=0.5)
    small = studies.study_config(config, "x", n_train=500, epochs=3, width=0.25)
    assert (small.clean, small.split_seed, small.image_size, small.seed) == (True, 3, 24, config.seed)
    assert (small.epochs, small.width, small.model, small.mixup, small.start_size) == (3, 0.25, "small", 0, 0)
    assert small.batch_size == 64
    assert studies.study_config(config, "x", 20_000, 3, 0.25).batch_size == 256


# --- next steps ---


def test_every_change_is_ranked_with_its_basis(run, competition, variants):
    labels = competition.valid.labels
    correct = run.saved_probs().argmax(1) == labels
    slices = score_slices({("brightness", "lowest"): np.arange(20) < 10}, correct, labels)
    table = next_steps.changes_table(run, labels, slices, variants)
    assert len(table) == 8
    bounds = [
        f"more of {competition.class_names[hardest_class(run)]}",
        "help where pictures look unusual",
        "calibrate",
    ]
    measured = 5 if cleanlab_is_installed() else 4
    assert table.change[measured : measured + 3].tolist() == bounds
    assert table.gain[:measured].is_monotonic_decreasing and not table.significant[measured:].any()
    assert table.basis.str.len().min() > 20
    by_hand = {
        name: 5 * int(sum(variant.saved_probs().argmax(1) == labels)) for name, variant in variants.items()
    }
    gains = table.set_index("change").gain
    assert gains[bounds[0]] == pytest.approx(by_hand["base"] - by_hand["rarer"])
    assert gains["longer training"] == pytest.approx(by_hand["longer"] - by_hand["base"])
    assert gains["stronger augmentation"] == pytest.approx(by_hand["augmented"] - by_hand["base"])
    assert gains["calibrate"] == 0
    alone = next_steps.changes_table(run, labels, slices)
    assert alone.gain.isna().sum() == 6
    assert alone.basis[alone.gain.isna()].eq("not measured: switch studies on").all()


def test_the_next_doubling_lowers_the_error_by_the_same_factor():
    half, whole = np.arange(1000) < 600, np.arange(1000) < 700
    gain = next_steps.next_doubling(half, whole)
    assert gain["difference"] == pytest.approx(0.3 - 0.3 * 0.75)
    assert 0.04 < gain["ci_low"] < gain["difference"] < gain["ci_high"] < 0.1
    assert next_steps.next_doubling(whole, half)["difference"] < 0
    perfect = np.ones(10, bool)
    assert next_steps.next_doubling(perfect, perfect)["difference"] == 0


def test_the_curve_has_the_three_parts_and_the_next_doubling(competition, variants):
    labels = competition.valid.labels
    table = next_steps.learning_curve_table(variants, labels, 60)
    assert table.n.tolist() == [15, 30, 60, 120]
    for row, name in enumerate(("quarter", "half", "base")):
        assert table.accuracy[row] == variants[name].metrics["valid"]["views"]["accuracy"]
    half, base = (variants[name].saved_probs().argmax(1) == labels for name in ("half", "base"))
    assert table.accuracy[3] - table.accuracy[2] == pytest.approx(
        next_steps.next_doubling(half, base)["difference"]
    )


def test_slices_that_fail_for_sure_promise_what_they_lack(run):
    labels = np.arange(20) % 4
    import pandas as pd

    rows = [("brightness", "lowest", 10, 0.3, 0.5, -0.2, -0.3, -0.1, 0.001, 0.01),
            ("sharpness", "lowest", 10, 0.3, 0.5, -0.2, -0.3, 0.1, 0.1, 0.9)]  # fmt: skip
    columns = ["what", "which", "n", "accuracy", "expected", "gap", "low", "high", "p", "p_corrected"]
    table = next_steps.changes_table(run, labels, pd.DataFrame(rows, columns=columns))
    row = table[table.change.str.startswith("imitate")].iloc[0]
    assert row.change == "imitate brightness in augmentation"
    assert row.gain == pytest.approx(10) and not row.significant
