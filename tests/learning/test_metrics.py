"""Numbers against published values, scikit-learn, and counts by hand."""

import json
import math

import numpy as np
import pytest
from scipy.special import softmax
from sklearn import metrics as sk

from fer_utils.learning.metrics import (
    at_temperature,
    calibration_error,
    calibration_table,
    coverage_table,
    cross_calibrated,
    describe,
    describe_gain,
    evaluate,
    fit_temperature,
    holm,
    log_loss,
    paired_test,
    per_class_table,
    wilson_interval,
)

NAMES = ("angry", "happy", "sad")


def probs_of(preds, confidence=0.8, classes=3):
    """Probabilities whose highest, `confidence`, is at each of `preds`."""
    probs = np.full((len(preds), classes), (1 - confidence) / (classes - 1))
    probs[np.arange(len(preds)), preds] = confidence
    return probs


def random_case(n=500, classes=3, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    logits = rng.normal(size=(n, classes))
    logits[np.arange(n), labels] += 1
    return softmax(logits, axis=1), labels


def calibrated_case(n=20_000):
    """Labels drawn from the probabilities themselves."""
    rng = np.random.default_rng(0)
    probs = rng.dirichlet([1, 1, 1], n)
    return probs, (probs.cumsum(1) > rng.random((n, 1))).argmax(1)


# --- Wilson ---


@pytest.mark.parametrize(
    ("hits", "n", "low", "high"),
    # Newcombe 1998, Statistics in Medicine 17:857, table I, method 3
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_interval_equals_the_published_ones(hits, n, low, high):
    assert wilson_interval(hits, n) == pytest.approx((low, high), abs=5e-5)


def test_wilson_interval_mirrors_and_narrows():
    low, high = wilson_interval(20, 20)
    assert (1 - high, 1 - low) == pytest.approx(wilson_interval(0, 20))
    assert np.diff(wilson_interval(700, 1000)) < np.diff(wilson_interval(70, 100))
    assert wilson_interval(np.int64(81), np.int64(263)) == wilson_interval(81, 263)


def test_wilson_interval_of_nothing_is_not_a_number():
    assert all(math.isnan(end) for end in wilson_interval(0, 0))


# --- evaluate ---


def test_a_case_counted_by_hand():
    labels = np.array([0, 0, 0, 1, 1, 2])
    scores = evaluate(probs_of([0, 0, 1, 1, 1, 0]), labels, NAMES)
    assert scores["n"] == 6 and scores["accuracy"] == pytest.approx(4 / 6)
    assert scores["confusion"] == [[2, 1, 0], [0, 2, 0], [1, 0, 0]]
    assert scores["per_class"]["angry"] == pytest.approx(
        {"precision": 2 / 3, "recall": 2 / 3, "f1": 2 / 3, "n": 3}
    )
    assert scores["per_class"]["happy"] == pytest.approx({"precision": 2 / 3, "recall": 1, "f1": 0.8, "n": 2})
    assert scores["per_class"]["sad"] == {"precision": 0, "recall": 0, "f1": 0, "n": 1}
    assert scores["macro_f1"] == pytest.approx((2 / 3 + 0.8 + 0) / 3)
    assert scores["balanced_accuracy"] == pytest.approx((2 / 3 + 1 + 0) / 3)
    assert scores["log_loss"] == pytest.approx(-(4 * math.log(0.8) + 2 * math.log(0.1)) / 6)
    assert scores["calibration_error"] == pytest.approx(0.8 - 4 / 6)
    assert (scores["ci_low"], scores["ci_high"]) == wilson_interval(4, 6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_numbers_equal_those_of_scikit_learn(dtype):
    probs, labels = random_case()
    scores, preds = evaluate(probs.astype(dtype), labels, NAMES), probs.argmax(1)
    assert scores["accuracy"] == pytest.approx(sk.accuracy_score(labels, preds))
    assert scores["macro_f1"] == pytest.approx(sk.f1_score(labels, preds, average="macro"))
    assert scores["balanced_accuracy"] == pytest.approx(sk.balanced_accuracy_score(labels, preds))
    assert scores["log_loss"] == pytest.approx(sk.log_loss(labels, probs), rel=1e-5)
    assert scores["confusion"] == sk.confusion_matrix(labels, preds).tolist()


def test_a_class_that_is_missing_from_the_split_does_not_lower_a_perfect_score():
    labels = np.array([0, 0, 2, 2])
    scores = evaluate(probs_of(labels), labels, NAMES)
    assert scores["accuracy"] == scores["macro_f1"] == scores["balanced_accuracy"] == 1
    assert scores["per_class"]["happy"] == {"precision": 0, "recall": 0, "f1": 0, "n": 0}
    assert np.shape(scores["confusion"]) == (3, 3)


def test_a_missing_class_that_is_predicted_counts_as_in_scikit_learn():
    labels, preds = np.array([0, 0, 2, 2]), [0, 1, 2, 2]
    scores = evaluate(probs_of(preds), labels, NAMES)
    assert scores["macro_f1"] == pytest.approx(sk.f1_score(labels, preds, average="macro", zero_division=0))
    assert scores["balanced_accuracy"] == pytest.approx(0.75)


def test_a_probability_of_zero_for_the_truth_keeps_the_log_loss_finite():
    scores = evaluate(np.array([[1.0, 0.0, 0.0]]), np.array([1]), NAMES)
    assert math.isfinite(scores["log_loss"]) and scores["log_loss"] > 20


def test_scores_go_to_json_and_back():
    probs, labels = random_case()
    scores = evaluate(probs.astype(np.float32), labels, NAMES)
    assert json.loads(json.dumps(scores)) == scores


def test_the_sentence_names_interval_and_n():
    scores = {"accuracy": 0.7012, "ci_low": 0.686, "ci_high": 0.716, "n": 3589}
    assert describe(scores) == "70.1 % (95 % interval 68.6 to 71.6, n = 3,589)"


# --- calibration ---


def test_calibration_table_and_error_by_hand():
    # Four at 0.9 of which two are right, six at 0.6 of which three are right.
    preds = np.zeros(10, int)
    probs = np.concatenate([probs_of(preds[:4], 0.9, 2), probs_of(preds[4:], 0.6, 2)])
    labels = np.array([0, 0, 1, 1, 0, 0, 0, 1, 1, 1])
    table = calibration_table(probs, labels)
    assert table.confidence.tolist() == pytest.approx([0.6, 0.9])
    assert table.accuracy.tolist() == [0.5, 0.5] and table.n.tolist() == [6, 4]
    assert calibration_error(probs, labels) == pytest.approx(0.4 * 0.4 + 0.6 * 0.1)


def test_full_confidence_falls_into_the_last_bin_and_is_calibrated_when_right():
    probs = probs_of([0, 1, 2], confidence=1.0)
    assert calibration_table(probs, np.array([0, 1, 2])).index.tolist() == [14]
    assert calibration_error(probs, np.array([0, 1, 2])) == 0
    assert calibration_error(probs, np.array([1, 2, 0])) == 1


def test_labels_drawn_from_the_probabilities_are_nearly_calibrated():
    probs, labels = calibrated_case()
    assert calibration_error(probs, labels) < 0.015
    assert calibration_table(probs, labels).n.sum() == 20_000


# --- comparison ---


def paired_case(gained, lost, both=30, neither=10):
    """Predictions of two runs: only the first is right `gained` times, only the second `lost` times."""
    preds = np.repeat([0, 1, 0, 1], [gained, lost, both, neither])
    other = np.repeat([1, 0, 0, 1], [gained, lost, both, neither])
    return preds, other, np.zeros(len(preds), int)


def test_mcnemar_exact_by_hand():
    result = paired_test(*paired_case(8, 2, both=60, neither=30))
    assert (result["gained"], result["lost"], result["n"]) == (8, 2, 100)
    assert result["p"] == pytest.approx(2 * (1 + 10 + 45) / 2**10)
    half = 1.96 * math.sqrt(8 + 2 - 6**2 / 100) / 100
    assert result["difference"] == pytest.approx(0.06)
    assert (result["ci_low"], result["ci_high"]) == pytest.approx((0.06 - half, 0.06 + half))


def test_exchanging_the_two_runs_exchanges_the_signs():
    preds, other, labels = paired_case(12, 4)
    there, back = paired_test(preds, other, labels), paired_test(other, preds, labels)
    assert back["difference"] == -there["difference"] and back["p"] == pytest.approx(there["p"])
    assert (back["gained"], back["lost"]) == (there["lost"], there["gained"])


def test_equal_predictions_differ_in_nothing():
    preds, _, labels = paired_case(3, 3)
    result = paired_test(preds, preds, labels)
    assert result["p"] == 1 and result["difference"] == result["ci_low"] == result["ci_high"] == 0


def test_different_errors_on_the_same_image_are_no_gain():
    result = paired_test(np.array([1, 0]), np.array([2, 0]), np.array([0, 0]))
    assert result["gained"] == result["lost"] == 0 and result["p"] == 1


@pytest.mark.parametrize(
    ("gained", "lost", "verdict"),
    [(13, 3, "evidence of a gain"), (3, 13, "evidence of a loss"), (12, 4, "no evidence of a difference")],
)
def test_the_verdict_is_that_of_the_five_per_cent_level(gained, lost, verdict):
    """The exact p are 0.021 and 0.077."""
    assert describe_gain(paired_test(*paired_case(gained, lost))).endswith(f": {verdict}")


# --- per class ---


def test_per_class_table_puts_the_weakest_first_with_intervals_of_recall():
    labels = np.array([0] * 10 + [1] * 20 + [2] * 5)
    preds = np.array([0] * 7 + [1] * 3 + [1] * 20 + [2] * 1 + [0] * 4)
    table = per_class_table(evaluate(probs_of(preds), labels, NAMES))
    assert table.index.tolist() == ["sad", "angry", "happy"] and table.f1.is_monotonic_increasing
    assert table.n.tolist() == [5, 10, 20] and table.n.dtype.kind == "i"
    for name, hits, n in (("angry", 7, 10), ("happy", 20, 20), ("sad", 1, 5)):
        assert (table.recall_low[name], table.recall_high[name]) == wilson_interval(hits, n)


def test_a_class_that_is_never_predicted_has_no_precision():
    """It is not 0 %: nothing was predicted that could be wrong."""
    table = per_class_table(evaluate(probs_of(np.array([0, 0, 0])), np.array([0, 0, 2]), NAMES))
    assert math.isnan(table.precision["sad"]) and table.recall["sad"] == 0
    assert table.precision["angry"] == pytest.approx(2 / 3)


def test_per_class_table_of_a_split_without_one_class():
    labels = np.array([0, 0, 2])
    table = per_class_table(evaluate(probs_of(labels), labels, NAMES))
    assert table.n["happy"] == 0 and math.isnan(table.recall_low["happy"])


# --- temperature and coverage ---


def test_the_temperature_that_was_laid_on_is_found_again():
    """Labels drawn from the probabilities themselves are calibrated at 1, and at T after a sharpening by
    T."""
    probs, labels = calibrated_case()
    assert fit_temperature(probs, labels) == pytest.approx(1, abs=0.03)
    for temperature in (0.5, 2.0):
        sharpened = at_temperature(probs, 1 / temperature)
        assert fit_temperature(sharpened, labels) == pytest.approx(temperature, rel=0.05)


def test_without_an_error_confidence_stays_bounded():
    """Of 50 images that a good network names right, nobody may conclude that it is never wrong."""
    rng = np.random.default_rng(0)
    sure = rng.uniform(0.75, 0.97, 50)
    probs = np.stack([sure, 1 - sure], axis=1)
    assert 0.2 < fit_temperature(probs, np.zeros(50, int)) < 1
    assert at_temperature(probs, fit_temperature(probs, np.zeros(50, int))).max() < 0.999999


def test_temperature_keeps_every_prediction_and_one_changes_nothing():
    probs, _ = random_case()
    for temperature in (0.3, 3.0):
        other = at_temperature(probs, temperature)
        assert (other.argmax(1) == probs.argmax(1)).all()
        assert np.allclose(other.sum(1), 1)
    assert np.allclose(at_temperature(probs, 1.0), probs)


def test_cross_calibration_fits_each_half_on_the_other():
    """Where the labels are noise, the fit on its own images would promise something; the other half's does
    not."""
    rng = np.random.default_rng(0)
    probs, labels = random_case(4000)
    sharp = at_temperature(probs, 0.3)
    calibrated = cross_calibrated(sharp, labels)
    assert log_loss(calibrated, labels) < log_loss(sharp, labels) - 0.1
    assert calibration_error(calibrated, labels) < 0.05 < calibration_error(sharp, labels)
    half = rng.permutation(4000) < 2000
    temperature = fit_temperature(sharp[half], labels[half])
    assert np.allclose(calibrated[~half], at_temperature(sharp[~half], temperature))


def test_coverage_keeps_the_surest_first():
    confidence = np.array([0.9, 0.8, 0.7, 0.6])
    probs = np.column_stack([confidence, 1 - confidence])
    table = coverage_table(probs, np.array([0, 0, 1, 0])).set_index("coverage").loc[[0.5, 0.8, 1.0]]
    assert table.n.tolist() == [2, 3, 4]
    assert table.accuracy.tolist() == pytest.approx([1, 2 / 3, 3 / 4])
    assert table.threshold.tolist() == pytest.approx([0.8, 0.7, 0.6])
    assert (table.ci_low < table.accuracy).all()
    assert coverage_table(*random_case(1000)).n.tolist() == [500, 600, 700, 800, 900, 950, 1000]


def test_precision_has_its_interval_from_what_was_predicted():
    probs, labels = random_case()
    table = per_class_table(evaluate(probs, labels, NAMES))
    preds = probs.argmax(1)
    for k, name in enumerate(NAMES):
        row = table.loc[name]
        assert row.n_predicted == (preds == k).sum()
        hits = ((preds == k) & (labels == k)).sum()
        assert (row.precision_low, row.precision_high) == wilson_interval(hits, (preds == k).sum())


def test_holm_by_hand():
    assert holm(np.array([0.01, 0.04, 0.03])).tolist() == pytest.approx([0.03, 0.06, 0.06])
    assert holm(np.array([0.9, 0.8])).tolist() == [1, 1]
