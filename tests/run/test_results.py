"""Sentences on a finished run: each is tried on data where its opposite holds."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from fer_utils.config import Config
from fer_utils.learning.metrics import evaluate
from fer_utils.run.results import curves_in_words, headline, shares_in_words


def finished(labels, preds, config=None, losses=(2.0, 1.0), train_accuracy=0.5, chosen=None, sizes=None):
    """What the sentences read of a run that answers `labels` with `preds`."""
    scores = evaluate(np.eye(4)[preds], np.array(labels), ("angry", "happy", "sad", "neutral"))
    epochs = np.arange(1, len(losses) + 1)
    history = pd.DataFrame({"epoch": epochs, "train_loss": losses, "train_accuracy": train_accuracy})
    history["size"] = sizes or [48] * len(losses)
    metrics = {
        "valid": {"plain": scores, "views": scores},
        "training": {"chosen_epoch": chosen or len(losses)},
    }
    folder = SimpleNamespace(record=lambda: None)
    return SimpleNamespace(
        metrics=metrics, history=history, config=config or Config(), folds=(), folder=folder
    )


def of(competition, labels, **changed):
    valid = dataclasses.replace(
        competition.valid,
        images=np.zeros((len(labels), 1, 20, 20), np.uint8),
        labels=np.array(labels),
        ids=np.arange(len(labels)).astype(str),
    )
    return dataclasses.replace(competition, valid=valid, **changed)


LABELS = [0] * 50 + [1] * 150 + [2] * 100


def test_the_headline_names_accuracy_interval_and_the_commonest_class(tiny):
    said = headline(finished(LABELS, LABELS), of(tiny, LABELS))
    assert "Valid accuracy 100.0 % (95 % interval 98.7 to 100.0, n = 300)" in said
    assert "seed 0; always answering happy reaches 50.0 %" in said
    assert "Not shown" not in said and "Drawn" not in said
    assert "Drawn demo faces" in headline(finished(LABELS, LABELS), of(tiny, LABELS, is_demo=True))


@pytest.mark.parametrize("hits", [150, 155])  # as good as guessing, and better by less than chance explains
def test_what_is_not_better_than_guessing_says_so_with_the_likely_cause(tiny, hits):
    preds = LABELS[:hits] + [3] * (300 - hits)
    said = headline(finished(LABELS, preds), of(tiny, LABELS))
    assert "Not shown to be better than guessing" in said and "train longer" in said
    small = Config(epochs=1, start_size=28, image_size=48)
    said = headline(finished(LABELS, preds, small), of(tiny, LABELS))
    assert "type start_size = 0" in said and "labels" not in said


def test_curves_that_fall_or_do_not_and_runs_that_overfit_or_do_not():
    half = LABELS[:150] + [3] * 150  # 50 %, 95 % interval ± 5.6
    said = curves_in_words(finished(LABELS, half))
    assert "The last epoch was the best: try epochs 4 with another out." in said
    assert "0.0 points below validation accuracy, which is known to ± 5.6: no sign of overfitting." in said
    said = curves_in_words(finished(LABELS, half, losses=(2, 1, 1), train_accuracy=0.7, chosen=2))
    assert "No epoch after epoch 2 was better" in said
    assert "In epoch 2 accuracy on augmented training images is 20.0 points above" in said
    assert "it overfits: try more augmentation" in said
    assert "no sign of overfitting" in curves_in_words(
        finished(LABELS, half, train_accuracy=0.54)
    )  # within the noise
    for losses in ((1.0, 1.0), (1.0, 2.0)):
        said = curves_in_words(finished(LABELS, half, losses=losses))
        assert "did not fall: try another learning_rate" in said and "try epochs" not in said
    assert "try epochs 2 with another out" in curves_in_words(finished(LABELS, half, losses=(1.0,)))


def test_the_curves_of_folds_and_of_a_run_out_of_time_are_told_as_they_are():
    run = finished(LABELS, LABELS, losses=(3, 2, 1), chosen=2)
    run.folds = [finished(LABELS, LABELS, losses=(3, 2, 1), chosen=epoch) for epoch in (1, 2, 3)]
    assert "The folds were best in epochs 1 to 3 of 3 (median 2)." in curves_in_words(run)
    run = finished(LABELS, LABELS, config=Config(epochs=46))
    run.metrics["training"]["out_of_time"] = True
    said = curves_in_words(run)
    assert (
        "The last epoch was the best: run the same again, which goes on." in said and "try epochs" not in said
    )


def test_images_that_grow_during_training_are_told():
    same = curves_in_words(finished(LABELS, LABELS, losses=(3, 2, 1)))
    assert "grew" not in same
    said = curves_in_words(finished(LABELS, LABELS, losses=(3, 2, 1), sizes=[28, 48, 48]))
    assert "Training images grew from 28 pixels in epoch 1 to 48 in epoch 2" in said


def test_class_shares_of_a_submission_differ_beyond_chance_or_not():
    names, rng = ("angry", "happy", "sad"), np.random.default_rng(0)
    train = rng.choice(3, 3000, p=(0.5, 0.48, 0.02))
    same = rng.choice(3, 500, p=(0.5, 0.48, 0.02))
    assert shares_in_words(same, train, names) == (
        "Shares that differ from training beyond chance (n = 500, p < 0.05 after Holm's correction for 3 "
        "classes): none."
    )
    never = np.where(same == 2, 0, same)  # a class that is never predicted
    assert "sad 0.0 % (training " in shares_in_words(never, train, names)
    assert shares_in_words(never[:20], train, names).endswith("none.")  # too few to tell
    assert "angry 100.0 %" in shares_in_words(np.zeros(500, int), train, names)


def test_a_run_that_ended_by_its_time_limit_says_so_first(tiny):
    run = finished(LABELS, LABELS, Config(epochs=9))
    assert "OUT OF TIME" not in headline(run, of(tiny, LABELS))
    run.metrics["training"] |= {"out_of_time": True, "epochs": 4}
    said = headline(run, of(tiny, LABELS))
    assert said.startswith("**OUT OF TIME after 4 of 9 epochs: run the same again to resume there**")
