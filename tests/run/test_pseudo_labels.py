"""Pseudo-labels: test images are learned by the answers of an earlier run, never by their own labels."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch
from conftest import tiny_competition
from torch.nn import functional as F

from fer_utils.analysis.ensemble import save_ensemble, score_ensemble
from fer_utils.competition import DataError
from fer_utils.config import Config
from fer_utils.learning.augment import mix
from fer_utils.learning.optim import class_weights
from fer_utils.run import train
from fer_utils.run.results import headline, print_results
from fer_utils.run.soft_and_pseudo_labels import pseudo_labelled, training_set
from fer_utils.run.train import fit
from tools.report import write_report

TINY = {"image_size": 20, "model": "small", "width": 0.125, "epochs": 2, "batch_size": 16}
TINY |= {"precision": "fp32", "device": "cpu"}
CPU = torch.device("cpu")


def config_of(out, **knobs):
    return Config.from_dict(TINY | {"pseudo_threshold": 0.0, "out": str(out)} | knobs)


def weights_of(run):
    return (run.out / "model.safetensors").read_bytes()


def save_answers(folder, probs):
    """Replace what the run in `folder` answered for the test images."""
    with np.load(folder / "test.npz") as arrays:
        np.savez(folder / "test.npz", **(dict(arrays) | {"probs_views": probs.astype(np.float32)}))


@pytest.fixture(scope="module")
def first(tiny, tmp_path_factory):
    return fit(config_of(tmp_path_factory.mktemp("first") / "run"), tiny)


@pytest.fixture
def source(first, tmp_path):
    """A copy of the first run, to be changed."""
    return shutil.copytree(first.out, tmp_path / "source")


def test_test_images_follow_the_training_images_with_the_saved_answers(tiny, first):
    config = config_of("outputs/x", pseudo=str(first.out), pseudo_weight=1.0)
    pseudo = pseudo_labelled(config, tiny)
    images, labels, targets = training_set(config, tiny, pseudo, CPU)
    answers = first.saved_probs("test")
    assert np.array_equal(images, np.concatenate([tiny.train.images, tiny.test.images]))
    assert np.array_equal(labels, np.r_[tiny.train.labels, answers.argmax(1)])
    assert np.allclose(targets, np.concatenate([np.eye(4)[tiny.train.labels], answers]))
    assert targets.dtype == torch.float32


def test_uncertain_answers_and_copies_of_validation_images_are_left_out_and_counted(tiny, source, capsys):
    images = tiny.test.images.copy()
    images[:3] = tiny.valid.images[5:8]
    competition = dataclasses.replace(tiny, test=dataclasses.replace(tiny.test, images=images))
    probs = np.tile([0.7, 0.1, 0.1, 0.1], (12, 1))
    probs[[0, 10, 11]] = [0.4, 0.2, 0.2, 0.2]
    save_answers(source, probs)
    config = config_of("outputs/x", pseudo=str(source), pseudo_threshold=0.6)
    assert pseudo_labelled(config, competition).ids.tolist() == [str(k) for k in range(3, 10)]
    printed = capsys.readouterr().out
    assert "learns from 7 of 12 test images (3 are copies of validation images, 2 too unc" in printed
    with pytest.raises(DataError, match="0 of 12 test images can be learned.*lower pseudo_threshold"):
        pseudo_labelled(dataclasses.replace(config, pseudo_threshold=0.8), competition)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_weight_scales_the_loss_also_with_label_smoothing_and_mixup(tiny, first, smoothing):
    knobs = {"pseudo": str(first.out), "label_smoothing": smoothing}

    def targets_at(weight):
        config = config_of("outputs/x", **knobs, pseudo_weight=weight)
        return training_set(config, tiny, pseudo_labelled(config, tiny), CPU)[2]

    def loss(targets):
        logits = torch.linspace(-2, 3, targets.numel()).reshape(targets.shape)
        return F.cross_entropy(logits, targets, reduction="none", label_smoothing=smoothing)

    quarter, whole = targets_at(0.25), targets_at(1.0)
    assert torch.allclose(loss(quarter)[60:], 0.25 * loss(whole)[60:], atol=1e-6)
    assert torch.equal(quarter[:60], whole[:60])
    images, generator = torch.zeros(72, 1, 4, 4), torch.Generator()
    rows = torch.eye(72)
    shares = mix(images, rows, 0.4, 0.0, generator.manual_seed(0))[1]
    mixed = mix(images, quarter, 0.4, 0.0, generator.manual_seed(0))[1]
    assert torch.allclose(mixed, shares @ quarter, atol=1e-6)  # weights blend as the images do


def test_the_labels_of_the_test_split_are_never_read(first, tmp_path):
    runs = [
        fit(
            config_of(tmp_path / str(label), pseudo=str(first.out)),
            tiny_competition(test_labels=np.full(12, label)),
        )
        for label in (0, 1)
    ]
    assert weights_of(runs[0]) == weights_of(runs[1])
    assert runs[0].metrics["valid"] == runs[1].metrics["valid"]


def test_a_run_says_that_it_is_transductive(tiny, first, tmp_path, capsys):
    run = fit(config_of(tmp_path / "run", pseudo=str(first.out)), tiny)
    assert weights_of(run) != weights_of(first)
    record = json.loads((run.out / "config.json").read_text())["record"]
    assert record["transductive"] == "learned from 12 test images"
    said = "transductive: learned from 12 test images, without their labels"
    assert said in headline(run, tiny)
    capsys.readouterr()
    print_results(run)
    assert said in capsys.readouterr().out
    page = write_report(run, None, tmp_path / "page.html").read_text()
    assert said in page and str(first.out.parent) not in page
    print_results(first)
    assert "transductive" not in capsys.readouterr().out + headline(first, tiny)


def test_an_ensemble_serves_as_well(tiny, first, tmp_path):
    members = np.stack([first.saved_probs()])
    scores = score_ensemble(members, tiny.valid.labels, tiny.class_names)
    save_ensemble([first], tiny, tmp_path / "ensemble", scores)
    runs = [
        fit(config_of(tmp_path / name, pseudo=str(folder)), tiny)
        for name, folder in (("a", first.out), ("b", tmp_path / "ensemble"))
    ]
    assert weights_of(runs[0]) == weights_of(runs[1])


def test_an_interrupted_run_ends_as_an_undisturbed_one(tiny, first, tmp_path, monkeypatch):
    knobs = {"pseudo": str(first.out), "epochs": 3, "checkpoint_seconds": 0.0}
    whole = fit(config_of(tmp_path / "whole", **knobs), tiny)
    report = train.Progress.report

    def interrupt(self, row, seconds):
        if row["epoch"] == 2:
            raise KeyboardInterrupt
        report(self, row, seconds)

    with monkeypatch.context() as patch:
        patch.setattr(train.Progress, "report", interrupt)
        with pytest.raises(KeyboardInterrupt):
            fit(config_of(tmp_path / "cut", **knobs), tiny)
    assert (tmp_path / "cut" / "checkpoint.pt").exists()
    again = fit(config_of(tmp_path / "cut", **knobs), tiny)
    assert weights_of(again) == weights_of(whole)
    assert again.metrics["training"]["resumed"] == 1


def test_what_cannot_serve_is_refused_before_any_work(tiny, first, source, tmp_path):
    def refused(match, competition=tiny, folder=first.out):
        with pytest.raises(DataError, match=match):
            fit(config_of(tmp_path / "run", pseudo=str(folder)), competition)
        assert not (tmp_path / "run").exists()

    refused("no file or folder", folder=tmp_path / "nowhere")
    refused("not a finished run", folder=tmp_path)
    refused("has other classes", tiny_competition(5))
    refused("has no test split to learn from", dataclasses.replace(tiny, test=None, submission=None))
    for name in ("valid", "test"):
        split = tiny.splits[name]
        other = dataclasses.replace(split, ids=split.ids[::-1].copy())
        refused(f"has other {name} images", dataclasses.replace(tiny, **{name: other}))
    relabelled = dataclasses.replace(tiny.valid, labels=tiny.valid.labels[::-1].copy())
    refused("has other valid images", dataclasses.replace(tiny, valid=relabelled))
    (source / "checkpoint.pt").write_bytes(b"")
    refused("stopped by max_hours", folder=source)
    (source / "checkpoint.pt").unlink()
    (source / "test.npz").unlink()
    refused("predicted no test split", folder=source)


def test_what_learned_from_a_run_that_learned_from_test_images_says_so_too(tiny, first, tmp_path):
    learned = fit(config_of(tmp_path / "learned", pseudo=str(first.out), epochs=1), tiny)
    for knobs in ({"teacher": str(learned.out)}, {"weights": str(learned.out / "model.safetensors")}):
        run = fit(config_of(tmp_path / next(iter(knobs)), epochs=1, **knobs), tiny)
        said = f"transductive: learned from {next(iter(knobs.values()))}, which learned from 12 test images"
        assert said in headline(run, tiny)


def test_a_weight_of_classes_weighs_images_and_leaves_the_smoothing_even(tiny):
    """Against the definition: each image's smoothed loss, times the weight of its class."""
    train_split = tiny.train.take(np.r_[0:60:4, 1:30])
    competition = dataclasses.replace(tiny, train=train_split)
    config = config_of("outputs/x", class_weight=1.0, label_smoothing=0.2)
    _, labels, targets = training_set(config, competition, None, CPU)
    logits = torch.randn(len(labels), 4, generator=torch.Generator().manual_seed(0))
    found = F.cross_entropy(logits, targets, label_smoothing=0.2)
    counts = torch.bincount(labels, minlength=4)
    weights = len(labels) / (4 * counts)  # equal totals, one on average
    each = F.cross_entropy(logits, labels, label_smoothing=0.2, reduction="none")
    assert torch.allclose(found, (each * weights[labels]).mean(), atol=1e-5)
    smoothed = 0.8 * targets + 0.2 / 4
    totals = [smoothed[labels == k].sum().item() for k in range(4)]
    assert np.allclose(totals, len(labels) / 4), "every class counts the same"


def test_a_weight_of_classes_weighs_the_answers_for_test_images_too(tiny, first):
    competition = dataclasses.replace(tiny, train=tiny.train.take(np.r_[0:60:4, 1:30]))
    config = config_of("outputs/x", pseudo=str(first.out), label_smoothing=0.0)
    pseudo = pseudo_labelled(config, competition)
    plain, weighted = (
        training_set(dataclasses.replace(config, class_weight=power), competition, pseudo, CPU)[2]
        for power in (0.0, 1.0)
    )
    counts = torch.bincount(torch.tensor(competition.train.labels))
    assert len(counts.unique()) > 1 and torch.allclose(weighted, plain * class_weights(counts, 1.0))
