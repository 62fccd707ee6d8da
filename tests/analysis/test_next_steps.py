"""What each change gains: by hand where it is measured, and nothing where it cannot be."""

import dataclasses
import json
import re
import shlex

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import papermill
import pytest
from conftest import tiny_competition

from fer_utils import Config, fit
from fer_utils.analysis import next_steps
from fer_utils.analysis.next_steps import MOST, advice, duration
from fer_utils.analysis.small_trainings import STRENGTHS
from fer_utils.figures import plots as figures
from fer_utils.figures import style
from fer_utils.files import REPOSITORY

pytestmark = pytest.mark.once

N = 1000
LABELS = np.arange(N) % 4


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    parameters = {"image_size": 20, "model": "small", "width": 0.125, "epochs": 1}
    parameters |= {"precision": "fp32", "device": "cpu"}
    parameters |= STRENGTHS
    return fit(Config(out=str(tmp_path_factory.mktemp("steps") / "run"), **parameters), tiny_competition())


HARD = np.random.default_rng(0).permutation(N)  # a network that is right more often errs on the hardest


@pytest.fixture
def variants_of(run, tmp_path):
    def make(**shares):
        """Runs whose predictions are right in these shares: a share for each seed."""
        variants = {}
        for name, seeds in shares.items():
            variants[name] = []
            for k, share in enumerate(seeds):
                out = tmp_path / f"{name}{k}"
                out.mkdir()
                probs = np.eye(4)[np.where(share * N > HARD, LABELS, (LABELS + 1) % 4)]
                np.savez(out / "valid.npz", labels=LABELS, probs=probs, probs_views=probs)
                variants[name].append(dataclasses.replace(run, out=out))
        return variants

    return make


RISING = {"quarter": (0.5, 0.51), "half": (0.6, 0.61), "base": (0.7, 0.71)}
NOISE = {"quarter": (0.827, 0.82), "half": (0.845, 0.85), "base": (0.829, 0.833)}


def test_what_helps_and_harms_is_told_from_what_may_be_chance(run, variants_of):
    variants = variants_of(**RISING, longer=(0.8, 0.82), augmented=(0.6, 0.62), fixed=(0.705, 0.71))
    table = next_steps.changes_table(run, LABELS, variants).set_index("name")
    assert table.gain["longer"] == pytest.approx(100 * (0.81 - 0.705))
    assert table.gain["augmented"] == pytest.approx(100 * (0.61 - 0.705))
    assert table.significant.to_dict() == {
        "longer": True, "half": True, "average": False, "fixed": False, "augmented": True,
    }  # fmt: skip
    assert table.gain.is_monotonic_decreasing and (table.low < table.gain).all()
    words = next_steps.describe_changes(table, variants)
    assert "Helps: twice the epochs, twice the images (estimated)." in words
    assert "Harms: this run's augmentation instead of light." in words and "2 seeds of each training" in words
    assert table.change["fixed"] == "labels as in label_fixes.csv"  # whatever that file holds


def test_augmentation_is_called_that_of_the_run_only_where_it_is(run, variants_of):
    variants = variants_of(base=(0.7, 0.71), augmented=(0.8, 0.81))
    for changes, words in (({}, "this run's"), ({"rotate": 5.0}, "stronger"), ({"shear": 5.0}, "stronger")):
        other = dataclasses.replace(run, config=dataclasses.replace(run.config, **changes))
        table = next_steps.changes_table(other, LABELS, variants)
        assert table.change[0] == f"{words} augmentation instead of light"


def test_averaging_is_against_the_mean_and_resamples_images_alone(run, variants_of):
    """Two seeds of 50 and 90 %: the mean of their probabilities follows one, whatever seeds are drawn."""
    table = next_steps.changes_table(run, LABELS, variants_of(base=(0.5, 0.9), longer=(0.5, 0.9)))
    width = (table.high - table.low).set_axis(table.name)
    assert width["average"] < 0.3 * width["longer"]
    assert "(against their mean)" in table.change[table.name == "average"].item()


def test_a_single_seed_proves_nothing(run, variants_of):
    variants = variants_of(**{name: seeds[:1] for name, seeds in RISING.items()}, longer=(0.9,))
    table = next_steps.changes_table(run, LABELS, variants).set_index("name")
    assert table.gain["longer"] > 15 and not table.significant.any()
    assert table.why["average"] == "not measured: needs two seeds"
    assert np.isnan(table.gain["half"]) and table.why["half"] == "the error does not fall measurably"
    words = next_steps.describe_changes(table, variants)
    assert "Helps: nothing, measurably" in words and "set study_seeds to 2" in words


def test_seeds_that_differ_more_than_the_recipes_are_no_gain(run, variants_of):
    table = next_steps.changes_table(run, LABELS, variants_of(base=(0.6, 0.7), longer=(0.62, 0.74)))
    assert table.gain[table.name == "longer"].item() > 2
    assert not table.significant[table.name == "longer"].item()


def test_noise_is_not_continued_to_twice_the_images(run, variants_of):
    """82.7, 84.5 and 82.9 %: the error does not fall, so more images neither help nor harm."""
    variants = variants_of(**NOISE)
    row = next_steps.changes_table(run, LABELS, variants).set_index("name").loc["half"]
    assert np.isnan(row.gain) and row.why == "the error does not fall measurably"
    curve = next_steps.learning_curve_table(variants, LABELS, 400)
    assert curve.n.tolist() == [100, 200, 400] and not curve.estimated.any()
    assert next_steps.describe_learning_curve(curve).startswith("**Not measurable here.**")
    ax = figures.learning_curve(curve, plt.figure().subplots())
    assert ax.get_legend() is None and len(ax.containers) == 1
    assert [text.get_text() for text in ax.get_xticklabels()] == ["100", "200", "400"]


def test_an_error_that_falls_is_continued(run, variants_of):
    variants = variants_of(**RISING)
    curve = next_steps.learning_curve_table(variants, LABELS, 400)
    assert curve.n.tolist() == [100, 200, 400, 800] and curve.estimated.tolist() == [False] * 3 + [True]
    assert curve.accuracy[:3].tolist() == pytest.approx([0.505, 0.605, 0.705])
    assert curve.accuracy[3] == pytest.approx(1 - 0.295 * 0.295 / 0.395)
    assert (curve.low < curve.accuracy).all() and (curve.accuracy < curve.high).all()
    assert "Twice the images would gain about 7.5 points" in next_steps.describe_learning_curve(curve)
    assert next_steps.next_doubling(1.0, 1.0) == 0


def test_colours_are_those_of_the_sentence_and_the_unmeasured_is_blank(run, variants_of):
    variants = variants_of(base=(0.7, 0.71), longer=(0.8, 0.81), augmented=(0.6, 0.61))
    table = next_steps.changes_table(run, LABELS, variants)
    ax = figures.gains(table, plt.figure().subplots())
    dots = ax.collections[-1]
    colors = dict(zip(table.name, map(matplotlib.colors.to_hex, dots.get_facecolors()), strict=False))
    assert (colors["longer"], colors["augmented"]) == (style.BLUE, style.RED)
    assert colors["average"] == style.GREY
    drawn = ~np.ma.getmaskarray(np.ma.masked_invalid(dots.get_offsets()[:, 0]))
    assert [name for name, is_drawn in zip(table.name, drawn, strict=True) if not is_drawn] == [
        "fixed",
        "half",
    ]
    assert [text.get_text().strip() for text in ax.texts][-2:] == table.why[-2:].tolist()
    assert "blue helps, red harms" in ax.get_title(loc="left") + ax.get_title()


def test_without_small_trainings_nothing_is_measured(run):
    table = next_steps.changes_table(run, LABELS, None)
    assert table.gain.isna().all() and (table.why == "not measured (studies is off)").all()
    assert next_steps.describe_changes(table, None) == "Not measurable here: no change was measured."
    ax = figures.gains(table, plt.figure().subplots())
    assert len(ax.get_xticks()) == 0 and len(ax.texts) == len(table)


def commands_in(text):
    """Notebook and parameters of each command, as a shell and papermill would read them."""
    for block in re.findall(r"```\n(.*?)\n```", text, re.S):
        for line in block.replace("\\\n", " ").split("\n"):
            words = shlex.split(line)
            yield words[1], {words[k + 1]: words[k + 2] for k, word in enumerate(words) if word == "-p"}


def test_at_most_three_things_are_advised_with_commands_that_work(run, variants_of):
    variants = variants_of(**RISING, longer=(0.8, 0.82), augmented=(0.78, 0.79), fixed=(0.76, 0.77))
    light = dataclasses.replace(run, config=dataclasses.replace(run.config, rotate=5.0))
    text = advice(light, next_steps.changes_table(light, LABELS, variants), variants, "/data/faces")
    assert [line[:8] for line in text.splitlines() if "Try" in line] == [f"**{k}. Try" for k in (1, 2, 3)]
    assert MOST == 3 and "+10.5 points (95 % interval +" in text and "Undecided" not in text
    found = list(commands_in(text))
    assert len(found) == 3 and found[0][1]["epochs"] == "2" and found[1][1]["rotate"] == "12.0"
    assert found[2][1]["label_fixes"].endswith("label_fixes.csv")
    for notebook, parameters in found:
        assert parameters["data"] == "/data/faces"
        known = papermill.inspect_notebook(REPOSITORY / notebook)
        assert set(parameters) <= set(known)
        assert len({parameters["out"], *[str(light.out)]}) == 2  # never into the run itself


def test_a_command_repeats_the_recipe_of_the_run(run, variants_of):
    config = Config.from_dict({"preset": "best", "data": "x", "out": "outputs/a", "seed": 3, "epochs": 50})
    other = dataclasses.replace(run, config=config)
    variants = variants_of(base=(0.7, 0.71), longer=(0.8, 0.81))
    text = advice(other, next_steps.changes_table(other, LABELS, variants), variants)
    ((_, parameters), *_) = commands_in(text)
    assert parameters["preset"] == "best" and set(parameters) == {"preset", "data", "out", "seed", "epochs"}
    values = {name: json.loads(value) if value.isdecimal() else value for name, value in parameters.items()}
    again = Config.from_dict(values)
    assert dataclasses.replace(again, out=config.out, epochs=50) == config


def test_a_gain_of_few_epochs_is_not_promised_to_a_long_training(run, variants_of):
    variants = variants_of(base=(0.7, 0.71), longer=(0.8, 0.81), fixed=(0.75, 0.76))
    for epochs in (1, 46):
        other = dataclasses.replace(run, config=dataclasses.replace(run.config, epochs=epochs))
        text = advice(other, next_steps.changes_table(other, LABELS, variants), variants)
        promised = "**1. Try twice the epochs: +10.0 points" in text
        assert promised == (epochs == 1)
        last = (
            "**2. Try twice the epochs: the gain from 46 to 92 epochs was not measured**; from 1 to 2 epochs "
            "of the small network it was +10.0 points" in text
        )
        assert last == (epochs == 46)


def test_averaging_is_advised_with_all_its_commands(run, variants_of, monkeypatch):
    variants = variants_of(base=(0.7, 0.71), longer=(0.7, 0.7))
    changes = next_steps.changes_table(run, LABELS, variants)
    changes.loc[changes.name == "average", ["gain", "low", "high", "significant"]] = 2.0, 1.0, 3.0, True
    training, ensemble = list(commands_in(advice(run, changes, variants)))[:2]
    assert training[1]["seed"] == "1" and ensemble[0] == "notebooks/05_ensemble.ipynb"
    assert "It may be nothing against the best of them" in advice(run, changes, variants)
    assert ensemble[1]["runs"] == f"{run.out}, {training[1]['out']}"


def test_a_small_network_that_has_not_learned_is_said(run, variants_of):
    variants = variants_of(base=(0.26,), longer=(0.6,))
    text = advice(run, next_steps.changes_table(run, LABELS, variants), variants, folds=2)
    assert "The small network has not learned" in text and "Undecided" not in text
    assert "always answering angry reaches 25.0 %" in text
    ((_, parameters),) = commands_in(text)
    assert parameters["study_epochs"] == "6" and parameters["folds"] == "2"


def test_one_seed_is_the_reason_given(run, variants_of):
    variants = variants_of(base=(0.5,), longer=(0.7,))
    text = advice(run, next_steps.changes_table(run, LABELS, variants), variants)
    assert "**Undecided, since one seed may be chance: twice the epochs**" in text


def test_too_little_evidence_names_the_measurement_that_would_decide(run, variants_of):
    variants = variants_of(base=(0.7, 0.71), longer=(0.71, 0.72))
    text = advice(run, next_steps.changes_table(run, LABELS, variants), variants)
    assert text.startswith("**No change helps measurably, so none is advised.**") and "Try" not in text
    assert "**Undecided: " in text and "4 seeds of each training, not 2" in text
    table = next_steps.changes_table(run, LABELS, variants)
    row = table[table.change == re.search(r"Undecided: (.*?)\*\*", text)[1]].iloc[0]
    half = (row.high - row.low) / 2 / np.sqrt(2)
    assert f"would narrow the interval to about ±{half:.1f} points" in text
    ((notebook, parameters),) = commands_in(text)
    assert notebook == "notebooks/04_error_analysis.ipynb" and parameters["study_seeds"] == "4"
    nothing = advice(run, next_steps.changes_table(run, LABELS, None), None)
    assert nothing.startswith("**Nothing was measured, so nothing is advised.**")
    assert [notebook for notebook, _ in commands_in(nothing)] == ["notebooks/04_error_analysis.ipynb"]


def test_what_harms_or_is_there_already_is_not_advised(run, variants_of):
    variants = variants_of(base=(0.7, 0.71), longer=(0.5, 0.5), augmented=(0.8, 0.81))
    text = advice(run, next_steps.changes_table(run, LABELS, variants), variants)  # it has these strengths
    assert "twice the epochs" not in text and "augmentation" not in text


def test_durations_have_the_unit_that_people_use():
    assert [duration(seconds) for seconds in (40.4, 720, 12_000)] == ["40 s", "12 min", "3.3 h"]
