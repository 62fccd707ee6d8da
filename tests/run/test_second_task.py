"""A second task: other people's answers for the same training images."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import fit_members, tiny_competition
from torch.nn import functional as F

from fer_utils.competition import DataError
from fer_utils.config import Config, ConfigError
from fer_utils.data.load import load_competition
from fer_utils.learning.models import create_model
from fer_utils.learning.second_task import Auxiliary, auxiliary_task
from fer_utils.learning.training_loop import Learner, forward_backward
from fer_utils.run.finished_run import load_run
from fer_utils.run.folder import RunFolder
from fer_utils.run.launch import launch
from fer_utils.run.soft_and_pseudo_labels import training_set
from fer_utils.run.train import fit, train_from_file

TINY = {"image_size": 20, "model": "small", "width": 0.125, "epochs": 2, "batch_size": 16}
TINY |= {"precision": "fp32", "device": "cpu"}
CPU = torch.device("cpu")


def config_of(out, **knobs):
    return Config.from_dict(TINY | {"out": str(out)} | knobs)


def write_labels(folder, images, words, usage="Training"):
    """A competition of the same images with other labels."""
    pixels = [" ".join(map(str, image.ravel())) for image in images]
    folder.mkdir(exist_ok=True)
    table = pd.DataFrame({"emotion": words, "pixels": pixels, "Usage": usage})
    table.to_csv(folder / "train.csv", index=False)
    return str(folder)


@pytest.fixture
def ages(tiny, tmp_path):
    """Old or young, for the first 40 training images and for all validation and test images of `tiny`."""
    images = np.concatenate([tiny.train.images[:40], tiny.valid.images, tiny.test.images])
    words = np.where(np.arange(len(images)) % 3 == 0, "old", "young")
    return write_labels(tmp_path / "ages", images, words)


def test_answers_are_found_by_the_pixels(tiny, ages):
    task = auxiliary_task(config_of("x", auxiliary=ages), tiny)
    assert task.class_names == ("old", "young")
    old = (np.arange(40) % 3 == 0).astype(np.float32)
    assert np.array_equal(task.targets[:40], np.c_[old, 1 - old])
    assert not task.targets[40:].any()
    assert task.report == "auxiliary: 40 of 60 training images have answers for old, young"
    assert auxiliary_task(config_of("x"), tiny) is None


def test_answers_do_not_depend_on_the_order_and_of_copies_the_mean_counts(tiny, tmp_path):
    order = np.random.default_rng(0).permutation(60)
    images, words = tiny.train.images, np.array(["old", "young"])[np.arange(60) % 2]
    again = np.r_[order, [7, 7, 8]]
    said = np.r_[words[order], ["old", "old", "old"]]
    folder = write_labels(tmp_path / "ages", images[again], said)
    targets = auxiliary_task(config_of("x", auxiliary=folder), tiny).targets
    expected = np.eye(2, dtype=np.float32)[np.arange(60) % 2]
    expected[7] = [2 / 3, 1 / 3]  # "young" once, "old" twice
    assert np.allclose(targets, expected)


def test_shares_of_votes_are_learned(tiny, tmp_path, monkeypatch):
    votes = np.tile(np.array([[3, 1, 0, 0]], np.float32), (60, 1))
    voted = dataclasses.replace(tiny, train=dataclasses.replace(tiny.train, votes=votes))
    monkeypatch.setattr("fer_utils.learning.second_task.load_competition", lambda *_, **__: voted)
    targets = auxiliary_task(config_of("x", auxiliary="votes"), tiny).targets
    assert targets.tolist() == [[0.75, 0.25, 0, 0]] * 60


def test_the_targets_stand_beside_the_labels(tiny):
    task = Auxiliary(("old", "young"), np.tile(np.array([[0.25, 0.75]], np.float32), (60, 1)))
    pseudo = dataclasses.replace(tiny.test, labels=np.zeros(12, int), votes=np.full((12, 4), 0.25))
    config = config_of("x", auxiliary_weight=2.0)
    _, _, targets = training_set(config, tiny, pseudo, CPU, auxiliary=task)
    labels, second = targets[:60, :4], targets[:, 4:]
    assert np.array_equal(labels.argmax(1), tiny.train.labels)
    assert second[:60].tolist() == [[0.5, 1.5]] * 60
    assert not second[60:].any()  # of pseudo-labelled images nobody said anything


def test_the_loss_is_the_sum_of_both(tiny):
    learner = Learner(config_of("x").at_size(20), tiny, CPU, auxiliary=2)
    batch, labels = torch.rand(8, 1, 20, 20), torch.arange(8) % 4
    own, second = F.one_hot(labels, 4).float(), torch.rand(8, 2)
    second[0] = 0
    logits = learner.model(batch)
    loss, _ = forward_backward(learner, batch, torch.cat([own, second], 1), labels, 1.0)
    first = F.cross_entropy(logits[:, :4], own, label_smoothing=0.1)
    assert loss.item() == pytest.approx(first.item(), rel=1e-5)  # what history.csv compares with validation
    found = [p.grad.clone() for p in learner.model.parameters()]
    both = first - (second * logits[:, 4:].log_softmax(1)).sum() / 8
    expected = torch.autograd.grad(both, list(learner.model.parameters()))
    for one, other in zip(found, expected, strict=True):
        assert torch.allclose(one, other, atol=1e-6)


@pytest.mark.parametrize("name", ["small", "medium", "vgg_bn", "resnet18", "timm/test_resnet"])
def test_a_network_gives_the_second_task_only_while_it_trains(name):
    model = create_model(
        name, 4, image_size=32, auxiliary=3, **({"width": 0.125} if name[0] in "smv" else {})
    )
    images = torch.rand(2, 1, 32, 32)
    assert model.train()(images).shape == (2, 7)
    assert model.eval()(images).shape == (2, 4)


def test_a_run_learns_it_and_predicts_the_labels_alone(tiny, ages, tmp_path):
    plain = fit(config_of(tmp_path / "plain"), tiny)
    run = fit(config_of(tmp_path / "run", auxiliary=ages), tiny)
    assert run.auxiliary_names == ("old", "young") and plain.auxiliary_names == ()
    probs = run.predict(tiny.valid.images)
    assert probs.shape == (20, 4) and np.allclose(probs, run.saved_probs("valid"), atol=1e-6)
    assert not np.allclose(probs, plain.predict(tiny.valid.images), atol=1e-4)
    assert load_run(run.out).model.classifier.out_features == 6
    record = json.loads((run.out / "config.json").read_text())["record"]["auxiliary"]
    assert record["class_names"] == ["old", "young"] and record["images"] == 40


def test_its_network_is_right_on_the_second_task(tiny, tmp_path):
    """The second task has another answer than the labels: top or bottom half of the classes."""
    words = np.where(tiny.train.labels < 2, "top", "bottom")
    folder = write_labels(tmp_path / "halves", tiny.train.images, words)
    knobs = dict(epochs=12, width=0.25, shift=0.0, rotate=0.0, flip=0.0, auxiliary=folder)
    run = fit(config_of(tmp_path / "run", **knobs), tiny)
    probs = run.predict_auxiliary(tiny.valid.images)
    assert probs.shape == (20, 2) and np.allclose(probs.sum(1), 1, atol=1e-5)
    top = np.array(run.auxiliary_names)[probs.argmax(1)] == "top"
    assert (top == (tiny.valid.labels < 2)).mean() > 0.8
    assert run.predict(tiny.valid.images).shape == (20, 4)  # and the first one again


def test_a_run_without_a_second_task_cannot_answer_one(tiny, tmp_path):
    run = fit(config_of(tmp_path / "run", epochs=1), tiny)
    with pytest.raises(DataError, match="run has learned no second task: train with `auxiliary`"):
        run.predict_auxiliary(tiny.valid.images)


def test_validation_and_test_images_teach_nothing(tiny, tmp_path):
    weights, train_images = [], tiny.train.images.copy()
    train_images[58], train_images[59] = tiny.valid.images[0], tiny.test.images[0]
    copied = dataclasses.replace(tiny, train=dataclasses.replace(tiny.train, images=train_images))
    for flip in (0, 1):
        images = np.concatenate([tiny.train.images, tiny.valid.images, tiny.test.images])
        said = np.r_[np.arange(60) % 2, (np.arange(32) + flip) % 2]
        folder = write_labels(tmp_path / "ages", images, np.array(["old", "young"])[said])
        run = fit(config_of(tmp_path / f"run{flip}", auxiliary=folder), copied)
        weights.append((run.out / "model.safetensors").read_bytes())
    assert weights[0] == weights[1]


def test_data_without_the_training_images_are_refused(tiny, tmp_path):
    other = tiny_competition(4).train.images[:, :, ::-1]
    folder = write_labels(tmp_path / "other", other, np.array(["old", "young"])[np.arange(60) % 2])
    with pytest.raises(DataError, match="auxiliary: .*other has no image of the training split of tiny"):
        fit(config_of(tmp_path / "run", auxiliary=folder), tiny)
    with pytest.raises(DataError, match="auxiliary: .*nowhere"):
        fit(config_of(tmp_path / "run", auxiliary=str(tmp_path / "nowhere")), tiny)
    assert not (tmp_path / "run").exists()


def test_the_same_answers_may_lie_elsewhere(tiny, ages, tmp_path):
    run = fit(config_of(tmp_path / "run", auxiliary=ages), tiny)
    made = (run.out / "model.safetensors").stat().st_mtime_ns
    moved = shutil.move(ages, tmp_path / "moved")
    fit(config_of(tmp_path / "run", auxiliary=str(moved)), tiny)
    assert (run.out / "model.safetensors").stat().st_mtime_ns == made
    with pytest.raises(ConfigError, match="another config .auxiliary: '.*ages' there, 'none' now"):
        fit(config_of(tmp_path / "run"), tiny)


def test_the_data_themselves_are_no_second_task(tiny_folder, tmp_path):
    config = config_of(tmp_path / "run", auxiliary=str(tiny_folder), data=str(tiny_folder))
    with pytest.raises(DataError, match="auxiliary: .* has the same labels as data: name another labelling"):
        fit(config, load_competition(config.data, **config.data_options))


def test_images_that_cannot_be_read_have_no_answer(tiny, ages):
    table = Path(ages) / "train.csv"
    lines = table.read_text().splitlines()
    lines[3] = "old,1 2 three,Training"
    table.write_text("\n".join(lines))
    targets = auxiliary_task(config_of("x", auxiliary=ages), tiny).targets
    assert (targets.sum(1) > 0).nonzero()[0].tolist() == [0, 1, *range(3, 40)]


def test_other_answers_cannot_resume_or_repeat_a_run(tiny, tiny_folder, tmp_path):
    images, said = tiny.train.images, np.array(["old", "young"])[np.arange(60) % 2]
    folder = write_labels(tmp_path / "ages", images, said)
    config = config_of(tmp_path / "run", auxiliary=folder, data=str(tiny_folder), image_size=20)
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict()))
    train_from_file(str(tmp_path / "config.json"), None)
    first = (tmp_path / "run/model.safetensors").read_bytes()
    train_from_file(str(tmp_path / "run/config.json"), str(tmp_path / "again"))
    assert (tmp_path / "again/model.safetensors").read_bytes() == first
    write_labels(tmp_path / "ages", images, said[::-1])
    with pytest.raises(DataError, match="auxiliary has other answers .*: name the same ones, or"):
        fit(config, load_competition(config.data, **config.data_options))
    for out in (None, str(tmp_path / "third")):
        with pytest.raises(DataError, match="auxiliary has other answers .*: name the same ones, or"):
            train_from_file(str(tmp_path / "run/config.json"), out)
    assert not (tmp_path / "third").exists()
    shutil.rmtree(tmp_path / "ages")


def test_each_fold_learns_the_answers_for_its_own_training_images(tiny_folder, tmp_path, monkeypatch):
    monkeypatch.setattr("fer_utils.run.launch.launch_members", lambda configs, *_: fit_members(configs))
    images = tiny_competition().train.images
    folder = write_labels(tmp_path / "ages", images, np.array(["old", "young"])[np.arange(60) % 2])
    config = config_of(tmp_path / "run", auxiliary=folder, data=str(tiny_folder), cv=2, epochs=1)
    run = launch(config, load_competition(config.data, **config.data_options))
    for k, fold in enumerate(run.folds):
        record = json.loads((fold.out / "config.json").read_text())["record"]
        assert fold.auxiliary_names == ("old", "young"), k
        learned = set(range(60)) - {int(name) for name in fold.saved("valid", "ids")}
        assert record["auxiliary"]["images"] == len(learned - set(range(12)))  # those are test images, too
    images = images[:5]
    each = [fold.predict_auxiliary(images) for fold in run.folds]
    assert np.allclose(run.predict_auxiliary(images), np.mean(each, axis=0))
    train_from_file(str(run.out / "config.json"), None, launch)  # finished: nothing to do
    table = tmp_path / "ages/train.csv"
    table.write_text(table.read_text().replace("young", "x").replace("old", "young").replace("x", "old"))
    for out in (None, str(tmp_path / "again")):
        with pytest.raises(DataError, match="auxiliary has other answers than"):
            train_from_file(str(run.out / "config.json"), out, launch)
    with pytest.raises(DataError, match="auxiliary has other answers than"):
        launch(config, load_competition(config.data, **config.data_options))
    assert not (tmp_path / "again").exists()


def test_an_interrupted_run_ends_the_same(tiny, ages, tmp_path, monkeypatch):
    from fer_utils.run import train

    whole = fit(config_of(tmp_path / "whole", auxiliary=ages, mixup=0.2), tiny)
    config = config_of(tmp_path / "cut", auxiliary=ages, mixup=0.2, checkpoint_seconds=0.0)
    validate = train.validate

    def cut(learner, *given):
        if learner.epoch == 1:
            raise MemoryError
        return validate(learner, *given)

    monkeypatch.setattr(train, "validate", cut)
    with pytest.raises(Exception, match="memory"):
        fit(config, tiny)
    assert RunFolder(tmp_path / "cut").checkpoint.exists
    monkeypatch.setattr(train, "validate", validate)
    table = tmp_path / "ages/train.csv"
    said = table.read_text()
    table.write_text(said.replace("young", "old", 1))
    with pytest.raises(DataError, match="auxiliary has other answers .*: name the same ones, or"):
        fit(config, tiny)
    table.write_text(said)
    assert (fit(config, tiny).out / "model.safetensors").read_bytes() == (
        whole.out / "model.safetensors"
    ).read_bytes()
