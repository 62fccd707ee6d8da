"""Training: every knob acts, an interrupted run ends as an undisturbed one, test labels are out of reach."""

import dataclasses
import json
import math

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import tiny_competition
from safetensors.torch import load_file

from fer_utils.competition import DataError
from fer_utils.config import Config, ConfigError
from fer_utils.data.submission_csv import validate_submission
from fer_utils.learning import training_loop as learner
from fer_utils.learning.training_loop import TrainingError
from fer_utils.run import checkpoint, train
from fer_utils.run.checkpoint import read_checkpoint
from fer_utils.run.soft_and_pseudo_labels import training_targets
from fer_utils.run.train import fit

TINY = {"image_size": 20, "model": "small", "width": 0.125, "epochs": 2, "batch_size": 16}
TINY |= {"precision": "fp32", "device": "cpu"}


@pytest.fixture(autouse=True)
def a_checkpoint_after_every_epoch(monkeypatch):
    monkeypatch.setattr(checkpoint, "SHARE_OF_TIME", math.inf)


def run_of(tmp_path, competition, **knobs):
    return fit(Config.from_dict(TINY | {"out": str(tmp_path)} | knobs), competition)


def in_colour(competition):
    """The same images, reddish."""
    splits = {
        name: dataclasses.replace(
            split, images=(split.images * np.array([1, 0.7, 0.5]).reshape(1, 3, 1, 1)).astype(np.uint8)
        )
        for name, split in competition.splits.items()
    }
    return dataclasses.replace(competition, **splits)


def outcome(run):
    """All that a run leaves which does not depend on the clock."""
    weights = load_file(run.out / "model.safetensors")
    history = run.history.to_csv()
    return weights, history, run.saved_probs("valid", views=True)


def same(first, second):
    weights, others = first[0], second[0]
    return (
        weights.keys() == others.keys()
        and all(weights[name].equal(others[name]) for name in weights)
        and first[1] == second[1]
        and np.array_equal(first[2], second[2])
    )


@pytest.fixture(scope="module")
def plain_run(tiny, tmp_path_factory):
    return run_of(tmp_path_factory.mktemp("plain"), tiny)


def test_a_run_leaves_all_its_files_and_a_valid_submission(plain_run, tiny):
    files = {path.name for path in plain_run.out.iterdir()}
    predictions = {"valid.npz", "test.npz", "submission.csv"}
    assert files == {"config.json", "history.csv", "model.safetensors", "metrics.json"} | predictions
    validate_submission(tiny, plain_run.out / "submission.csv")
    answers = pd.read_csv(plain_run.out / "submission.csv").label
    assert (answers == plain_run.saved_probs("test").argmax(1)).all()


def test_metrics_agree_with_the_saved_predictions(plain_run, tiny):
    for kind, views in (("plain", False), ("views", True)):
        accuracy = (plain_run.saved_probs("valid", views).argmax(1) == tiny.valid.labels).mean()
        assert plain_run.metrics["valid"][kind]["accuracy"] == pytest.approx(accuracy)
    assert "test" not in plain_run.metrics  # its labels are hidden


def test_the_net_learns(tiny, tmp_path):
    run = run_of(
        tmp_path, tiny, epochs=12, width=0.25, erase=0.0, shift=0.0, rotate=0.0, flip=0.0, views="plain"
    )
    assert run.metrics["valid"]["plain"]["accuracy"] > 0.8


def test_the_record_tells_versions_data_and_classes(plain_run, tiny):
    record = json.loads((plain_run.out / "config.json").read_text())["record"]
    assert record["fingerprint"] == tiny.fingerprint
    assert record["class_names"] == list(tiny.class_names)
    assert record["environment"]["torch"] == torch.__version__.split("+")[0]


# One changed value for each knob that `fit` reads; those of loading and of places are tested elsewhere.
CHANGED = {
    "seed": 1, "model": "medium", "width": 0.25, "dropout": 0.5, "drop_path": 0.5,
    "sam": 0.5, "epochs": 3, "batch_size": 30,
    "optimizer": "adamw", "learning_rate": 0.05, "momentum": 0.5, "weight_decay": 0.1, "schedule": "cosine",
    "warmup": 0.5, "start_size": 16, "label_smoothing": 0.3, "soft_labels": True, "class_weight": 1.0,
    "ema_decay": 0.0, "clip_norm": 0.01, "patience": 1, "precision": "bf16", "flip": 0.0,
    "rotate": 30.0, "scale": 0.3,
    "shift": 0.2, "shear": 10.0, "brightness": 0.4, "contrast": 0.5, "hue": 0.2, "saturation": 0.5,
    "erase": 0.9, "mixup": 0.4,
    "cutmix": 0.4, "views": "shift",
}  # fmt: skip
ELSEWHERE = {"data", "out", "device", "n_devices", "checkpoint_seconds", "image_size", "aspect"}
ELSEWHERE |= {"max_hours", "color", "metric", "cv", "track"}
ELSEWHERE |= {"split_seed", "n_folds", "fold", "layout", "columns", "clean", "label_fixes", "allow_rejected"}
ELSEWHERE |= {"classes", "splits", "groups", "pool_valid", "pretrained", "teacher", "teacher_weight"}
ELSEWHERE |= {"pseudo", "pseudo_weight", "pseudo_threshold"}  # test_pseudo_labels.py
ELSEWHERE |= {"auxiliary", "auxiliary_weight"}  # test_second_task.py
ELSEWHERE |= {"weights", "layer_decay", "head_epochs"}  # tests/learning/test_pretrained.py


def test_every_knob_has_a_changed_value_here():
    assert set(CHANGED) | ELSEWHERE == {field.name for field in dataclasses.fields(Config)}


@pytest.mark.parametrize("knob", CHANGED)
def test_every_knob_changes_something(knob, tmp_path):
    competition = tiny_competition()
    train_split = competition.train.take(np.r_[0:60:4, 1:30])  # class weights need unequal classes
    votes = 3 * np.eye(4, dtype=np.float32)[train_split.labels] + 1
    train_split = dataclasses.replace(train_split, votes=votes)
    competition = dataclasses.replace(competition, train=train_split)
    competition = in_colour(competition) if knob in ("hue", "saturation") else competition
    # AdamW needs its own rate; patience acts only when accuracy stands still
    shared = {"learning_rate": 0.02} if knob == "optimizer" else {}
    shared |= {"learning_rate": 1e-7, "ema_decay": 0.0, "epochs": 4} if knob == "patience" else {}
    shared |= {"model": "medium", "width": 0.25} if knob == "drop_path" else {}
    base = run_of(tmp_path / "base", competition, **shared)
    other = run_of(tmp_path / "other", competition, **(shared | {knob: CHANGED[knob]}))
    assert not same(outcome(base), outcome(other))


def test_soft_labels_are_the_shares_of_the_votes(tiny, tmp_path):
    votes = np.array([[3, 1, 0, 0], [0, 0, 0, 2]], np.float32)
    train_split = dataclasses.replace(tiny.train.take(np.arange(2)), votes=votes)
    shares = training_targets(Config(soft_labels=True), dataclasses.replace(tiny, train=train_split))
    assert shares.tolist() == [[0.75, 0.25, 0, 0], [0, 0, 0, 1]]
    with pytest.raises(DataError, match="soft_labels: tiny has one label for each image and no votes"):
        run_of(tmp_path, tiny, soft_labels=True)


def test_votes_for_one_class_each_train_as_labels_do(tiny, plain_run, tmp_path):
    votes = 7 * np.eye(4, dtype=np.float32)[tiny.train.labels]
    voted = dataclasses.replace(tiny, train=dataclasses.replace(tiny.train, votes=votes))
    run = run_of(tmp_path, voted, soft_labels=True)
    assert (run.out / "model.safetensors").read_bytes() == (plain_run.out / "model.safetensors").read_bytes()


def test_the_same_config_gives_the_same_bytes(plain_run, tiny, tmp_path):
    again = run_of(tmp_path, tiny)
    for name in ("model.safetensors", "submission.csv"):
        assert (again.out / name).read_bytes() == (plain_run.out / name).read_bytes()
    assert same(outcome(again), outcome(plain_run))


def test_an_interrupted_run_goes_on_and_ends_the_same(tiny, tmp_path, monkeypatch):
    knobs = {"epochs": 4, "mixup": 0.2, "start_size": 16}
    whole = run_of(tmp_path / "whole", tiny, **knobs)
    report, seen = train.Progress.report, []

    def interrupt(self, row, seconds):
        seen.append(row["epoch"])
        if row["epoch"] == 2 and len(seen) == 2:
            raise KeyboardInterrupt
        report(self, row, seconds)

    monkeypatch.setattr(train.Progress, "report", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run_of(tmp_path / "cut", tiny, **knobs)
    assert not (tmp_path / "cut" / "metrics.json").exists()
    again = run_of(tmp_path / "cut", tiny, **knobs)
    assert seen == [1, 2, 3, 4]  # the second start did not repeat the first two epochs
    assert same(outcome(again), outcome(whole))
    assert not (tmp_path / "cut" / "checkpoint.pt").exists()


def test_the_score_without_copies_leaves_known_images_out(tiny, tmp_path):
    valid = tiny.valid.take(np.arange(20))
    valid.images[:5] = tiny.train.images[:5]
    run = run_of(tmp_path, dataclasses.replace(tiny, valid=valid), epochs=1)
    assert run.metrics["valid"]["views"]["n"] == 20
    assert run.metrics["valid"]["without_copies"]["n"] == 15
    right = run.saved_probs().argmax(1) == valid.labels
    assert run.metrics["valid"]["without_copies"]["accuracy"] == pytest.approx(right[5:].mean())


def test_a_finished_run_asked_for_again_does_nothing(plain_run, tiny, capsys):
    before = {path.name: path.stat().st_mtime_ns for path in plain_run.out.iterdir()}
    again = run_of(plain_run.out, tiny)
    assert "finished: nothing to do" in capsys.readouterr().out
    assert again.metrics == plain_run.metrics
    assert before == {path.name: path.stat().st_mtime_ns for path in plain_run.out.iterdir()}


def test_another_config_in_the_same_folder_is_refused_by_name(plain_run, tiny):
    with pytest.raises(ConfigError, match="label_smoothing: 0.1 there, 0.2 now"):
        run_of(plain_run.out, tiny, label_smoothing=0.2)


def test_a_folder_in_which_nothing_was_trained_yet_takes_another_config(tiny, tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(train, "train_epoch", interrupt)
        with pytest.raises(KeyboardInterrupt):
            run_of(tmp_path, tiny, label_smoothing=0.3)
    assert (tmp_path / "config.json").is_file()
    assert run_of(tmp_path, tiny, label_smoothing=0.0).config.label_smoothing == 0


def test_changed_data_have_another_fingerprint_even_as_a_copy_of_hashed_ones(tiny):
    before = tiny.fingerprint
    assert dataclasses.replace(tiny, valid=tiny.train).fingerprint != before
    assert dataclasses.replace(tiny).fingerprint == before


def test_other_data_in_the_same_folder_is_refused(plain_run):
    with pytest.raises(DataError, match="other data"):
        run_of(plain_run.out, tiny_competition(n_classes=5))


def test_test_labels_change_nothing_but_the_test_score(tmp_path):
    runs = [
        run_of(tmp_path / str(label), tiny_competition(test_labels=np.full(12, label))) for label in (0, 1)
    ]
    assert same(outcome(runs[0]), outcome(runs[1]))
    assert (runs[0].out / "submission.csv").read_bytes() == (runs[1].out / "submission.csv").read_bytes()
    assert runs[0].metrics["valid"] == runs[1].metrics["valid"]
    assert runs[0].metrics["test"]["plain"]["confusion"] != runs[1].metrics["test"]["plain"]["confusion"]


def test_a_loss_that_is_no_number_stops_and_keeps_the_last_checkpoint(tiny, tmp_path):
    # Weights grow a hundredfold each step, so the loss overflows soon after the first, gentle, steps.
    knobs = {"learning_rate": 10.0, "weight_decay": 10.0, "epochs": 50, "warmup": 0.9, "momentum": 0.0}
    with pytest.raises(TrainingError, match=r"training diverged to .* in epoch \d+; .*lower learning_rate"):
        run_of(tmp_path, tiny, **knobs)
    state = read_checkpoint(tmp_path / "checkpoint.pt")
    assert state["epoch"] >= 1
    assert all(np.isfinite(row["train_loss"]) for row in state["history"])
    assert all(torch.isfinite(weight).all() for weight in state["model"].values())
    assert "TrainingError: training diverged" in (tmp_path / "error.txt").read_text()
    with pytest.raises(TrainingError):
        run_of(tmp_path, tiny, **knobs)  # the note of an earlier failure is in nobody's way


def test_patience_stops_early(tiny, tmp_path, capsys):
    run = run_of(tmp_path, tiny, patience=2, epochs=30, learning_rate=1e-8, ema_decay=0.0)
    assert len(run.history) < 30
    assert "stopped early" in capsys.readouterr().out


def test_no_test_split_gives_no_submission(tiny, tmp_path):
    run = run_of(tmp_path, dataclasses.replace(tiny, test=None, submission=None))
    assert not (run.out / "submission.csv").exists()
    assert run.metrics["valid"]["plain"]["n"] == 20


def test_unlabelled_training_images_are_refused(tiny, tmp_path):
    with pytest.raises(DataError, match="train split"):
        run_of(tmp_path, dataclasses.replace(tiny, train=tiny.train.without_labels()))


@pytest.mark.parametrize("model", ["large", "vgg_bn", "resnet18", "timm/test_resnet"])
def test_other_networks_train_too(model, tiny, tmp_path):
    width = {"large": 0.125, "vgg_bn": 0.125}.get(model, 1.0)
    # Muon takes seconds for each of the steps of a network as large as ResNet-18.
    run = run_of(tmp_path, tiny, model=model, width=width, epochs=1, batch_size=30, optimizer="sgd")
    assert run.saved_probs("test").shape == (12, 4)


def test_every_step_of_every_epoch_has_its_own_draws_and_its_place_in_the_schedule(tiny, monkeypatch):
    net = learner.Learner(Config(**TINY), tiny, torch.device("cpu"))
    augment, factor, seeds, places = learner.augment, learner.learning_rate_factor, [], []
    monkeypatch.setattr(
        learner,
        "augment",
        lambda batch, config, g: seeds.append(g.initial_seed()) or augment(batch, config, g),
    )
    monkeypatch.setattr(
        learner, "learning_rate_factor", lambda place, config: places.append(place) or factor(place, config)
    )
    for epoch in range(2):
        learner.train_epoch(net, torch.tensor(tiny.train.images), torch.tensor(tiny.train.labels), epoch)
    assert len(set(seeds)) == 8 and places == [step / 8 for step in range(8)]


def test_the_better_of_weights_and_average_is_kept_and_a_tie_goes_to_the_lower_loss(tiny, monkeypatch):
    net = learner.Learner(Config(**TINY), tiny, torch.device("cpu"))
    with torch.no_grad():
        for p in net.average.model.parameters():
            p.fill_(0.5)
    right = torch.eye(4)[torch.tensor(tiny.valid.labels)]
    sure = iter([1.0, 3.0, 2.0, 2.0])  # weights and average of two epochs, all of them right
    monkeypatch.setattr(learner, "_valid_logits", lambda *_: next(sure) * right)
    for net.epoch in range(2):
        learner.validate(net, tiny.valid)
    assert (net.best["kind"], net.best["epoch"]) == ("average", 1)
    state = net.average.model.state_dict()
    assert all(torch.equal(net.best["state"][name], tensor) for name, tensor in state.items())


@torch.no_grad()
def test_validation_learns_nothing_and_asks_one_image_as_it_asks_many(tiny):
    net = learner.Learner(Config(**TINY), tiny, torch.device("cpu"))
    before = {name: tensor.clone() for name, tensor in net.model.state_dict().items()}
    whole = learner._valid_logits(net, net.model, tiny.valid.images)
    assert all(torch.equal(before[name], tensor) for name, tensor in net.model.state_dict().items())
    assert torch.allclose(
        learner._valid_logits(net, net.model, tiny.valid.images[[3]]), whole[3:4], atol=1e-5
    )


def test_progressive_resizing_grows_to_the_full_size():
    config = Config(epochs=12, start_size=28, image_size=48)
    sizes = [learner.size_of_epoch(config, epoch) for epoch in range(12)]
    assert sizes[0] == 28
    assert sizes == sorted(sizes)
    assert sizes[8:] == [48] * 4
    assert learner.size_of_epoch(Config(epochs=3, start_size=18, image_size=50), 0) == 18
    assert learner.size_of_epoch(Config(epochs=3, start_size=18, image_size=50), 2) == 50


def test_batches_are_equal_and_hold_every_image_once():
    batches = learner.batches(65, Config(batch_size=16), 0)
    assert batches.shape == (5, 13)
    assert sorted(batches.flatten().tolist()) == list(range(65))


def test_what_does_not_divide_sits_an_epoch_out_and_not_always_the_same():
    config = Config(batch_size=16)
    absent = [
        set(range(67)) - set(learner.batches(67, config, epoch).flatten().tolist()) for epoch in range(9)
    ]
    assert {len(rows) for rows in absent} == {2}
    assert len(set.union(*absent)) > 6


@pytest.mark.parametrize(("size", "most"), [(2, 0.01), (4, 0.01), (64, 0.002), (128, 0.01), (256, 0.001)])
def test_small_batches_leave_few_images_out(size, most):
    rows = learner.batches(28_709, Config(batch_size=size), 0)
    assert size - 2 <= rows.shape[1] <= size and rows.shape[1] > 1
    assert 1 - rows.numel() / 28_709 <= most


def test_a_size_at_which_nothing_is_left_of_the_images_is_refused(tmp_path):
    competition = tiny_competition(size=160)
    with pytest.raises(ConfigError, match="start_size 28 is too small for small"):
        fit(Config(**(TINY | {"image_size": 160, "out": str(tmp_path)})), competition)


def test_the_command_line_trains_and_names_the_submission(tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(train, "load_competition", lambda data, **options: tiny)
    (tmp_path / "config.json").write_text(json.dumps(TINY | {"out": str(tmp_path / "run")}))
    assert train.main([str(tmp_path / "config.json")]) == 0
    printed = capsys.readouterr().out
    assert str(tmp_path / "run" / "submission.csv") in printed
    assert "95 % interval" in printed
    # the record a run leaves is itself a config that repeats it
    assert train.main([str(tmp_path / "run" / "config.json")]) == 0
    assert "nothing to do" in capsys.readouterr().out


def test_the_command_line_splits_the_data_as_the_notebook_does(tiny, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(train, "load_competition", lambda data, **options: seen.append(options) or tiny)
    config = Config.from_dict(TINY | {"out": str(tmp_path / "run"), "seed": 1, "split_seed": 2, "epochs": 1})
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict()))
    assert train.main([str(tmp_path / "config.json")]) == 0
    assert seen == [config.data_options]
    assert seen[0]["seed"] == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"lerning_rate": 0.1}', "did you mean 'learning_rate'"),
        ("{", "not valid JSON"),
        ("[]", "one JSON object"),
    ],
)
def test_the_command_line_refuses_a_bad_config(text, message, tmp_path, capsys):
    (tmp_path / "config.json").write_text(text)
    assert train.main([str(tmp_path / "config.json")]) == 1
    assert message in capsys.readouterr().err


def test_images_that_would_fill_a_gpu_stay_on_the_host(tiny, monkeypatch):
    images = tiny.train.images
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (images.nbytes, images.nbytes))
    assert learner.place(images, torch.device("cuda")).device.type == "cpu"
