"""The metric of a competition: its value, its interval, and what it chooses."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
from conftest import tiny_competition
from sklearn import metrics as sk

from fer_utils import Config, ConfigError, fit, load_run
from fer_utils.analysis.ensemble import (
    choose_members,
    common_metric,
    cross_fitted_probs,
    member_table,
    score_ensemble,
)
from fer_utils.config import METRICS
from fer_utils.learning.competition_metric import describe_score, goodness, metric_score, readable
from fer_utils.learning.metrics import cross_calibrated, evaluate, log_loss
from fer_utils.run.results import headline, print_results
from fer_utils.run.soft_and_pseudo_labels import warnings_for

TINY = {"image_size": 20, "model": "small", "width": 0.125, "epochs": 3, "batch_size": 16}
TINY |= {"precision": "fp32", "device": "cpu"}
NAMES = ("angry", "happy", "sad", "neutral")


def made(seed: int = 0, n: int = 400, classes: int = 4):
    """Labels [N] and probabilities [N, C] that are right more often than not; the last class is rare."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(classes, n, p=[0.4, 0.3, 0.25, 0.05])
    logits = rng.normal(size=(n, classes)) + 1.5 * np.eye(classes)[labels]
    return labels, np.exp(logits) / np.exp(logits).sum(1, keepdims=True)


def test_every_metric_equals_scikit_learn():
    labels, probs = made()
    preds = probs.argmax(1)
    expected = {
        "accuracy": sk.accuracy_score(labels, preds),
        "macro_f1": sk.f1_score(labels, preds, average="macro"),
        "balanced_accuracy": sk.balanced_accuracy_score(labels, preds),
        "log_loss": -log_loss(cross_calibrated(probs, labels), labels),
        "kappa": sk.cohen_kappa_score(labels, preds),
    }
    assert list(expected) == list(METRICS)
    for name, value in expected.items():
        assert goodness(name, probs, labels) == pytest.approx(value)
    scores = evaluate(probs, labels, NAMES)
    for name in ("accuracy", "macro_f1", "balanced_accuracy"):
        assert scores[name] == pytest.approx(goodness(name, probs, labels))
    one = np.zeros(9, int)
    assert goodness("kappa", np.eye(4)[one], one) == 0  # chance alone gets it right


def test_classes_that_never_occur_are_no_part_of_a_mean():
    labels, probs = np.array([0, 0, 1, 1]), np.eye(4)[[0, 0, 1, 2]]
    assert goodness("macro_f1", probs, labels) == pytest.approx((1 + 2 / 3 + 0) / 3)
    assert goodness("balanced_accuracy", probs, labels) == pytest.approx(0.75)


@pytest.mark.parametrize("name", ["macro_f1", "log_loss", "kappa"])
def test_the_interval_covers_the_value_and_shrinks_with_n(name):
    few, many = (metric_score(name, *reversed(made(n=n))) for n in (100, 2500))
    for found in (few, many):
        assert found["ci_low"] < found["value"] < found["ci_high"]
    assert many["ci_high"] - many["ci_low"] < 0.4 * (few["ci_high"] - few["ci_low"])
    assert many == metric_score(name, *reversed(made(n=2500)))
    assert describe_score(many).startswith(f"{readable(name)} {many['value']:.3f} (95 % interval ")
    assert (many["value"] > 0) and readable("macro_f1") == "macro F1"


def test_a_gain_is_measured_on_the_same_images():
    labels, probs = made()
    worse = probs.copy()
    worse[:80] = worse[:80, ::-1]
    gain = metric_score("macro_f1", probs, labels, worse)
    assert gain["value"] == pytest.approx(
        goodness("macro_f1", probs, labels) - goodness("macro_f1", worse, labels)
    )
    assert gain["ci_low"] > 0
    assert metric_score("log_loss", probs, labels, worse)["ci_high"] < 0  # lower is better
    same = metric_score("kappa", probs, labels, probs)
    assert same["value"] == same["ci_low"] == same["ci_high"] == 0


def test_a_metric_of_ones_own_is_found_by_its_path(tmp_path, monkeypatch):
    (tmp_path / "own_metric.py").write_text(
        "def happy_recall(labels, probs):\n"
        "    return (probs.argmax(1) == labels)[labels == 1].mean()\n"
        "def broken(labels, probs):\n"
        "    return float('nan')\n"
        "number = 3\n"
        "def loss(labels, probs):\n"
        "    return (probs.argmax(1) != labels).mean()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    labels, probs = made()
    expected = (probs.argmax(1) == labels)[labels == 1].mean()
    assert goodness("own_metric:happy_recall", probs, labels) == pytest.approx(expected)
    assert readable("own_metric:happy_recall") == "happy recall"
    with pytest.raises(ConfigError, match="gave nan on the validation split"):
        goodness("own_metric:broken", probs, labels)
    for name, message in (
        ("own_metric:nothing", "cannot be imported"),
        ("no_such_file:f", "cannot be imported"),
        ("own_metric:number", "is not a function"),
        ("own_metric:loss", "gave 0 for right answers and 1 for wrong ones: higher must be better"),
        ("sklearn.metrics:log_loss", "higher must be better"),
        ("sklearn.metrics:f1_score", "failed on labels int .N. and probabilities"),
        ("own_metric:broken", "gave nan for right answers"),
    ):
        with pytest.raises(ConfigError, match=message):
            fit(Config(out=str(tmp_path / "run"), metric=name, **TINY), tiny_competition())
    assert not (tmp_path / "run").exists()
    with pytest.raises(ConfigError, match="did you mean 'macro_f1'"):
        Config(metric="macrof1")


def scripted(monkeypatch, values):
    """Let the metric of each validation be the next of `values`."""
    left = iter(values)
    monkeypatch.setattr("fer_utils.learning.training_loop.goodness", lambda *_: next(left))


def test_the_metric_chooses_the_epoch(tmp_path, monkeypatch, capsys):
    scripted(monkeypatch, [0.1, 0.9, 0.3])
    config = Config(out=str(tmp_path / "run"), metric="macro_f1", ema_decay=0.0, **TINY)
    run = fit(config, tiny_competition())
    assert run.metrics["training"]["chosen_epoch"] == 2
    assert run.history.valid_metric.tolist() == [0.1, 0.9, 0.3]
    for kind in ("plain", "views"):
        saved = run.saved_probs(views=kind == "views")
        found = run.metrics["valid"][kind]["metric"]
        assert found == metric_score("macro_f1", saved, run.saved("valid", "labels"))
    first = headline(load_run(run.out), tiny_competition()).splitlines()[0]
    assert (
        first
        == f"**Valid {describe_score(run.metrics['valid']['views']['metric'])}**, which chose the epoch."
    )
    print_results(run)
    assert f"valid {describe_score(run.metrics['valid']['views']['metric'])}" in capsys.readouterr().out


def test_patience_counts_epochs_without_a_better_metric(tmp_path, monkeypatch):
    scripted(monkeypatch, [0.5, 0.4, 0.3, 0.9, 0.1, 0.1])
    parameters = TINY | {"epochs": 6, "patience": 2}
    config = Config(out=str(tmp_path / "run"), metric="kappa", ema_decay=0.0, **parameters)
    assert len(fit(config, tiny_competition()).history) == 3


def test_accuracy_leaves_everything_as_it_was(tmp_path):
    run = fit(Config(out=str(tmp_path / "run"), **TINY), tiny_competition())
    assert "valid_metric" not in run.history and "metric" not in json.dumps(run.metrics)


def test_the_form_of_the_sample_suggests_the_metric():
    labels = tiny_competition()
    table = pd.DataFrame({"id": labels.test.ids} | dict.fromkeys(NAMES, "0"), dtype=str)
    form = dataclasses.replace(labels.submission, template=table, probability_columns=NAMES)
    probabilities = dataclasses.replace(labels, submission=form)
    said = warnings_for(Config(**TINY), probabilities)
    assert any("asks for probabilities" in line and "metric = 'log_loss'" in line for line in said)
    assert not warnings_for(Config(metric="log_loss", **TINY), probabilities)
    assert not warnings_for(Config(**TINY), labels)
    assert any("asks for labels" in line for line in warnings_for(Config(metric="log_loss", **TINY), labels))


def test_the_members_of_the_cross_fitted_score_are_chosen_by_the_metric_too():
    labels, good = made()
    by_share = good * [0.4, 0.3, 0.25, 0.05]  # better by log loss, worse by balanced accuracy
    members = np.stack([good, by_share / by_share.sum(1, keepdims=True)])
    by_metric, by_loss = (
        goodness("balanced_accuracy", cross_fitted_probs(members, labels, name), labels)
        for name in ("balanced_accuracy", "accuracy")
    )
    found = score_ensemble(members, labels, NAMES, metric="balanced_accuracy")["cross_fitted"]
    assert found["balanced_accuracy"] == pytest.approx(by_metric) and by_metric > by_loss + 0.01


def test_an_ensemble_is_chosen_and_scored_by_the_metric_of_its_runs(tmp_path):
    labels, good = made()
    half = made(seed=1)[1]
    rare_right = good.copy()
    rare_right[labels == 3] = np.eye(4)[3]
    members = np.stack([half, good, rare_right])
    assert choose_members(members, labels, "balanced_accuracy")[0] == 2
    result = score_ensemble(members, labels, NAMES, metric="balanced_accuracy")
    values = [found["metric"]["value"] for found in result["scores"]]
    assert values == pytest.approx([goodness("balanced_accuracy", probs, labels) for probs in members])
    assert result["ensemble"]["metric"]["name"] == "balanced_accuracy" and "metric_gain" in result
    runs = [
        fit(Config(out=str(tmp_path / f"r{k}"), metric="macro_f1", seed=k, **TINY), tiny_competition())
        for k in range(2)
    ]
    assert common_metric(runs) == "macro_f1"
    probs = np.stack([run.saved_probs() for run in runs])
    found = score_ensemble(probs, runs[0].saved("valid", "labels"), NAMES, metric="macro_f1")
    assert "macro F1" in member_table(runs, found).columns
    other = dataclasses.replace(runs[0], config=dataclasses.replace(runs[0].config, metric="kappa"))
    assert common_metric([other, runs[1]]) == "accuracy"


OF_PEOPLE = """from sklearn.metrics import roc_auc_score
def auc(labels, probs): return roc_auc_score(labels, probs, multi_class="ovr")
def mean_recall(labels, probs):
    hits = probs.argmax(1) == labels
    return sum(hits[labels == k].mean() for k in range(probs.shape[1])) / probs.shape[1]
"""


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("function", ["auc", "mean_recall"])
def test_a_metric_that_resamples_without_a_class_cannot_have_is_scored_nevertheless(
    function, tiny, tmp_path, monkeypatch, capsys
):
    (tmp_path / f"of_people_{function}.py").write_text(OF_PEOPLE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("fer_utils.learning.competition_metric.RESAMPLES", 200)
    metric = f"of_people_{function}:{function}"
    rare = dataclasses.replace(tiny, valid=tiny.valid.take(np.r_[0:20:4, 1:20:4, 2:20:4, 3]))
    run = fit(Config(**TINY, out=str(tmp_path / "run"), metric=metric), rare)
    found = run.metrics["valid"]["plain"]["metric"]
    assert found["ci_low"] <= found["value"] <= found["ci_high"]
    print_results(run)
    assert "95 % interval" in capsys.readouterr().out
    absent = dataclasses.replace(tiny, valid=tiny.valid.take(np.r_[0:20:4, 1:20:4, 2:20:4]))
    with pytest.raises(ConfigError, match="metric .* on the .*validation split"):
        fit(Config(**TINY, out=str(tmp_path / "absent"), metric=metric), absent)


def test_a_metric_without_an_interval_says_so():
    found = {"name": "m:auc", "value": None, "ci_low": None, "ci_high": None, "n": 3}
    assert describe_score(found) == "auc cannot be computed (no interval, n = 3)"
