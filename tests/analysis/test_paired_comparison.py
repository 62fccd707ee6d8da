"""Two recipes on the same images: refused where they are not the same, never called better by luck."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
from conftest import tiny_competition

from fer_utils import Config, ConfigError, fit
from fer_utils.analysis import paired_comparison
from fer_utils.analysis.paired_comparison import (
    check_same_images,
    compare,
    describe_comparison,
    on_common_images,
    outcomes,
    resampled_means,
)
from fer_utils.competition import DataError
from fer_utils.learning.metrics import at_temperature

pytestmark = pytest.mark.once  # with Kaggle's packages test_notebooks.py compares two runs


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    parameters = {"image_size": 20, "model": "small", "width": 0.125, "epochs": 1}
    parameters |= {"precision": "fp32", "device": "cpu"}
    return fit(Config(out=str(tmp_path_factory.mktemp("runs") / "run"), **parameters), tiny_competition())


def runs_like(run, folder, correct, labels):
    """Copies of `run` whose predictions are right where `correct` [R, N] is."""
    runs = []
    for k, hits in enumerate(correct):
        out = folder / f"run{len(list(folder.iterdir()))}-{k}"
        out.mkdir()
        probs = np.eye(4)[np.where(hits, labels, (labels + 1) % 4)]
        for split in ("valid", "test"):
            ids = np.arange(len(labels)).astype(str)
            np.savez(out / f"{split}.npz", ids=ids, labels=labels, probs=probs, probs_views=probs)
        metrics = json.loads(json.dumps(run.metrics))
        metrics["valid"]["views"]["accuracy"] = float(hits.mean())
        config = dataclasses.replace(run.config, seed=k)
        runs.append(dataclasses.replace(run, out=out, metrics=metrics, config=config))
    return runs


def test_a_planted_gain_is_found_with_its_faces(run, tmp_path):
    labels = np.arange(1000) % 4
    base = np.arange(1000) < 600
    better = base.copy()
    better[600:650] = True
    better[:5] = False
    new, old = runs_like(run, tmp_path, [better], labels), runs_like(run, tmp_path, [base], labels)
    result = compare(new, old)
    assert result["difference"] == pytest.approx(0.045)
    assert result["ci_low"] > 0.03 and result["ci_high"] < 0.06
    assert result["gained"].tolist() == list(range(600, 650))
    assert result["lost"].tolist() == list(range(5))
    assert result["verdict"] == "evidence of a gain"
    text = describe_comparison(result)
    assert "gained 50, lost 5" in text
    assert text.startswith(f"{new[0].out.name} against {old[0].out.name}: +4.50 points")
    assert compare(old, new)["verdict"] == "evidence of a loss"
    test = result["tests"].iloc[0]
    assert (test.run, test.against, test.gained, test.lost) == (new[0].out.name, old[0].out.name, 50, 5)
    assert [test.accuracy, test["accuracy of the other"]] == pytest.approx([64.5, 60])
    ends = test.ci_low, test.ci_high  # by the formula for paired shares
    assert (result["ci_low"], result["ci_high"]) == pytest.approx(ends, abs=0.0015)


def test_a_gain_that_chance_explains_is_no_evidence(run, tmp_path):
    """12 gained and 4 lost: the exact p is 0.077."""
    labels, places = np.arange(1000) % 4, np.arange(1000)
    new, old = runs_like(run, tmp_path, [(places > 3) & (places < 612), places < 600], labels)
    assert compare([new], [old])["verdict"] == "no evidence of a difference"


def test_the_largest_differences_come_first(run, tmp_path):
    labels, places = np.arange(40) % 4, np.arange(40)
    new = runs_like(run, tmp_path, [places >= 10, (places >= 10) & (places != 12)], labels)
    old = runs_like(run, tmp_path, [(places != 15) & (places > 2)] * 2, labels)
    result = compare(new, old)
    assert result["gained"].tolist() == [15] and result["lost"].tolist() == [*range(3, 10), 12]


def test_more_confidence_alone_is_no_lower_log_loss(run, tmp_path):
    labels = np.arange(1000) % 4
    sides = runs_like(run, tmp_path, [np.arange(1000) < 600] * 2, labels)
    for side, temperature in zip(sides, (1.0, 0.4), strict=True):
        with np.load(side.out / "valid.npz") as arrays:
            saved = dict(arrays)
        probs = at_temperature(0.7 * saved["probs"] + 0.075, temperature)
        np.savez(side.out / "valid.npz", **saved | {"probs_views": probs})
    assert compare(sides[:1], sides[1:])["loss_difference"] == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize(("shift", "common"), [(300, 500), (301, 0)])
def test_too_few_common_images_measure_nothing(run, tmp_path, shift, common):
    labels = np.zeros(800, int)
    one, other = runs_like(run, tmp_path, [labels == 0] * 2, labels)
    with np.load(one.out / "valid.npz") as saved:
        np.savez(other.out / "valid.npz", **dict(saved) | {"ids": (np.arange(800) + shift).astype(str)})
    assert [len(part.valid_rows) for part in on_common_images([one, other])] == [common] * 2 * (common > 0)


def test_log_loss_tells_what_accuracy_does_not(run, tmp_path):
    """Less certain where it is wrong, and not one more image right."""
    labels, wrong = np.arange(1000) % 4, np.arange(1000) >= 600
    (old,) = runs_like(run, tmp_path, [~wrong], labels)
    with np.load(old.out / "valid.npz") as arrays:
        saved = dict(arrays)
    certain = 0.7 * saved["probs"] + 0.075
    saved["probs_views"] = certain.astype(np.float32)
    np.savez(old.out / "valid.npz", **saved)
    new = dataclasses.replace(old, out=shutil.copytree(old.out, tmp_path / "better"))
    moved = 0.1 * (np.eye(4)[labels] - saved["probs"])  # to the right class
    np.savez(new.out / "valid.npz", **saved | {"probs_views": (certain + moved).astype(np.float32)})
    result = compare([new], [old])
    assert result["difference"] == 0 and result["verdict"] == "no evidence of a difference"
    assert result["loss_low"] < result["loss_difference"] < result["loss_high"] < 0
    expected = f"{result['loss_difference']:+.4f} ({result['loss_low']:+.4f} to {result['loss_high']:+.4f})"
    expected += ": evidence of a gain"
    assert f"Calibrated log loss, the lower the better: {expected}" in describe_comparison(result)
    swapped = compare([old], [new])
    assert "evidence of a loss" in describe_comparison(swapped)
    assert swapped["loss_low"] == pytest.approx(-result["loss_high"])


def test_the_same_predictions_are_no_evidence(run, tmp_path):
    labels = np.arange(400) % 4
    one = runs_like(run, tmp_path, [np.arange(400) < 300], labels)
    result = compare(one, one)
    assert (result["difference"], result["ci_low"], result["ci_high"]) == (0, 0, 0)
    assert "no evidence" in describe_comparison(result)


def test_the_luck_of_seeds_widens_the_interval(run, tmp_path):
    """Seeds that differ by more than the recipes do: no evidence, though each pair by itself looks sure."""
    labels, places = np.arange(1000) % 4, np.arange(1000)
    new = runs_like(run, tmp_path, [places < n for n in (560, 640, 660)], labels)
    old = runs_like(run, tmp_path, [places < n for n in (540, 600, 640)], labels)
    result = compare(new, old)
    assert len(result["tests"]) == 3 and (result["tests"].p < 0.05).all()
    assert result["ci_low"] < 0 < result["ci_high"]
    assert result["verdict"] == "no evidence of a difference"
    assert "3 seeds against 3 seeds" in describe_comparison(result)
    mixed = compare(new[:1], old)
    assert mixed["verdict"].startswith("no verdict") and mixed["seeds"] == (1, 3)
    steady = compare(
        runs_like(run, tmp_path, [places < n for n in (640, 645, 650)], labels),
        runs_like(run, tmp_path, [places < n for n in (600, 605, 610)], labels),
    )
    assert steady["verdict"] == "evidence of a gain"


def test_few_seeds_spread_as_much_as_their_mean_does():
    """With nothing but the luck of seeds: the standard error of their mean, from n - 1 degrees of freedom."""
    for accuracies in ((0.7, 0.8), (0.7, 0.72, 0.8)):
        seeds = np.repeat(accuracies, 50).reshape(len(accuracies), 50)
        expected = np.std(accuracies, ddof=1) / len(accuracies) ** 0.5
        assert resampled_means([seeds]).std() == pytest.approx(expected, rel=0.05)
    assert resampled_means([np.full((1, 9), 0.7)]).std() == pytest.approx(0)


def test_two_seeds_give_no_verdict_on_very_many_images(run, tmp_path, monkeypatch):
    labels, places = np.arange(1000) % 4, np.arange(1000)
    new = runs_like(run, tmp_path, [places < n for n in (640, 645, 650)], labels)
    old = runs_like(run, tmp_path, [places < n for n in (600, 605, 610)], labels)
    assert compare(new[:2], old[:2])["verdict"] == "evidence of a gain"
    monkeypatch.setattr(paired_comparison, "MANY", 999)
    assert compare(new[:2], old[:2])["verdict"].startswith("no verdict: on so many images train three")
    assert compare(new, old)["verdict"] == "evidence of a gain"
    assert compare(new[:1], old[:1])["verdict"] == "evidence of a gain"  # McNemar's test, of these two alone


def test_it_is_said_how_the_recipes_differ(run, tmp_path):
    labels = np.arange(40) % 4
    one, seed = runs_like(run, tmp_path, [labels == 0, labels == 1], labels)
    other = dataclasses.replace(seed, config=dataclasses.replace(seed.config, epochs=7))
    same = dataclasses.replace(one, config=dataclasses.replace(one.config, device="cpu", out="b"))
    elsewhere = dataclasses.replace(seed, fingerprint="trained on more")
    for old, words in (
        (seed, "They differ in nothing but the seed: this is one recipe"),
        (same, "They differ in nothing: this is one recipe"),
        (other, f"differ in their parameters: epochs 1 in {one.out.name}, 7 in {other.out.name}."),
        (elsewhere, "other data to train on"),
    ):
        assert words in describe_comparison(compare([one], [old]))
    assert compare([one, seed], [other])["names"] == [f"{one.out.name} and 1 more", other.out.name]


def test_recipes_whose_last_folders_are_called_the_same_are_told_apart(run, tmp_path):
    labels = np.arange(40) % 4
    new, old = runs_like(run, tmp_path, [labels == 0, labels == 1], labels)
    new, old = (
        dataclasses.replace(one, out=shutil.copytree(one.out, tmp_path / folder / "member0"))
        for one, folder in ((new, "cpu"), (old, "sgd"))
    )
    old = dataclasses.replace(old, config=dataclasses.replace(old.config, epochs=7))
    result = compare([new], [old])
    assert result["names"] == ["cpu/member0", "sgd/member0"] == [*result["tests"].loc[0, ["run", "against"]]]
    assert "epochs 1 in cpu/member0, 7 in sgd/member0" in describe_comparison(result)


def test_other_images_labels_or_classes_are_refused(run, tmp_path):
    labels = np.arange(40) % 4
    one, other = (runs_like(run, tmp_path, [labels == 0], some)[0] for some in (labels, labels[::-1]))
    with pytest.raises(DataError, match="other valid labels"):
        check_same_images([one, other])
    short = runs_like(run, tmp_path, [labels[:20] == 0], labels[:20])[0]
    with pytest.raises(DataError, match="other valid images"):
        compare([one], [short])
    with pytest.raises(DataError, match="other classes"):
        check_same_images([one, dataclasses.replace(one, class_names=("a", "b", "c", "d"))])
    (one.out / "test.npz").unlink()
    with pytest.raises(DataError, match="test.npz"):
        check_same_images([one, *runs_like(run, tmp_path, [labels == 0], labels)])


def test_runs_that_learned_from_other_labels_can_be_compared(run):
    check_same_images([run, dataclasses.replace(run, fingerprint="trained with fixes")])


@pytest.mark.parametrize("name", ["teacher", "weights", "pseudo"])
def test_each_seed_may_go_on_from_the_earlier_run_of_its_own(run, tmp_path, name):
    labels = np.arange(40) % 4
    runs = runs_like(run, tmp_path, [labels == 0, labels == 1], labels)

    def naming(*earlier):
        configs = [
            dataclasses.replace(one.config, **{name: path}) for one, path in zip(runs, earlier, strict=True)
        ]
        return [dataclasses.replace(one, config=config) for one, config in zip(runs, configs, strict=True)]

    own = naming("x-1/base-seed0, y10/seed0", "x-1/base-seed1, y10/seed1")
    assert "in nothing but the seed" in compare(own[1:], own[:1])["recipes"]
    compare(own, runs[:1])
    compare(naming("x/seed0, x/seed1", "x/seed0, x/seed1"), runs[:1])
    for others in (("x/seed0", "x/seed2"), ("x/seed0", "y/seed1"), ("x/seed10", "x/seed11")):
        with pytest.raises(ConfigError, match=f"is not another seed of .*{name}"):
            compare(naming(*others), runs[:1])


def test_another_recipe_is_no_other_seed(run, tmp_path):
    labels = np.arange(40) % 4
    one, other = runs_like(run, tmp_path, [labels == 0, labels == 1], labels)
    other = dataclasses.replace(other, config=dataclasses.replace(other.config, epochs=7))
    with pytest.raises(ConfigError, match="is not another seed of .*epochs: 1 there, 7 now"):
        compare([one, other], [one])


def test_outcomes_in_words():
    result = {"gained": np.array([1]), "lost": np.array([2])}
    correct = np.array([True, True, False, False])
    assert outcomes(result, correct).tolist() == ["both right", "gained", "lost", "both wrong"]
