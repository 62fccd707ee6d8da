"""The benchmarks: fair turns, peers' pipelines of the right shape, results kept beside each other."""

import ast
import json
import math
import sys
import time
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import tiny_competition
from torch.nn import functional as F

from benchmarks import __main__ as command
from benchmarks import fastai_first_submission as first_submission
from benchmarks import (
    label_noise,
    networks,
    peers,
    people,
    time_to_accuracy,
    train_peer,
    training_step,
    views,
    weight_gradient,
)
from benchmarks.timing import Row, Settings, take_turns
from fer_utils import Config, ConfigError, DataError
from fer_utils.config import PRESETS
from fer_utils.files import REPOSITORY
from fer_utils.learning.models import ModelOptions, create_model, medium
from fer_utils.learning.predict import view_probs

pytestmark = pytest.mark.once

CPU = torch.device("cpu")


def test_turns_alternate_and_the_ratio_is_taken_turn_by_turn():
    calls = []

    def slow():
        calls.append("other")
        time.sleep(0.02)

    ours, other, ratio, n = take_turns(lambda: calls.append("ours"), slow, 0.1, CPU)
    assert calls[:4] == ["ours", "other"] * 2  # the first pair warms up
    assert n >= 3 and len(calls) == 2 * (n + 1)
    assert other >= 0.02 and ours < other and ratio > 1


@pytest.mark.parametrize(
    "transform, shape",
    [
        (peers.usef_kh(), (10, 1, 40, 40)),
        (peers.lethesec(), (5, 1, 40, 40)),
        (peers.wujie1010(), (1, 44, 44)),
        (peers.per_image(Config()), (1, 48, 48)),
        (peers.same_operations(Config()), (1, 48, 48)),
    ],
)
def test_the_peers_pipelines_give_what_their_networks_take(transform, shape):
    image = torch.randint(0, 256, (1, 48, 48), dtype=torch.uint8)
    out = transform(image if len(shape) != 3 or shape[-1] == 44 else image.float() / 255)
    assert out.shape == shape
    assert out.dtype == torch.float32


def test_a_peer_trains_for_its_minutes_and_is_looked_at_after_each(tiny, monkeypatch):
    monkeypatch.setattr(time_to_accuracy, "load_competition", lambda data: tiny)
    recipe = peers.Recipe(
        "tiny", "resnet18", 0.0, peers.per_image(Config()), 20, 8, 0.01, 1e-4, True, 1, "steps"
    )
    looks = list(time_to_accuracy.peer_run(recipe, Settings(True, "tiny", CPU, 1), [0.005, 0.02]))
    assert [minutes for minutes, _, _ in looks] == [0.005, 0.02]
    assert all(0 <= accuracy <= 1 for _, accuracy, _ in looks)
    assert 0 < looks[0][2] < looks[1][2]


def test_each_preset_of_the_device_is_timed_from_the_data_to_its_accuracy(tiny, monkeypatch):
    presets = []

    def our_run(settings, preset, seed):
        presets.append((preset, seed))
        return {"seconds": 60.0 * len(presets), "accuracy": 0.65, "recipe": "small", "text": "65 %"}

    monkeypatch.setattr(time_to_accuracy, "our_run", our_run)
    monkeypatch.setattr(
        time_to_accuracy, "peer_run", lambda recipe, settings, minutes: ((m, 0.5, 1.0) for m in minutes)
    )
    rows = list(time_to_accuracy.rows(Settings(False, "tiny", CPU, 2)))
    assert presets == [(preset, seed) for preset in ("quick", "standard", "best") for seed in (0, 1)]
    assert {preset for presets in time_to_accuracy.RUNGS.values() for preset in presets} <= set(PRESETS)
    assert [row.ours_value for row in rows[:3]] == pytest.approx([65.0] * 3)
    against = [row for row in rows if row.other != "-"]
    assert len(against) == 3 * len(peers.RECIPES) and all(row.ratio == pytest.approx(15) for row in against)
    assert any("60.00 %" in row.what for row in rows) and not any("70.00 %" in row.what for row in rows)


def test_the_bare_step_learns_nothing_but_steps(tiny):
    from fer_utils.learning.training_loop import Learner

    learner = Learner(
        Config(model="small", width=0.125, image_size=20, precision="fp32", batch_size=8), tiny, CPU
    )
    before = [p.clone() for p in learner.model.parameters()]
    training_step.bare_step(learner)()
    moved = [not torch.equal(a, b) for a, b in zip(before, learner.model.parameters(), strict=True)]
    assert any(moved)


def test_results_of_sections_stand_beside_each_other(tmp_path, monkeypatch, capsys):
    path = tmp_path / "results.json"
    monkeypatch.setattr(command, "RESULTS", path)
    monkeypatch.setattr(command, "matrix_rate", lambda *_: 1e9)
    row = Row("ours", "theirs", 3.0, 1.5, "images/s", 2.0, 5, "a note")
    empty = Row("alone", "-", 3.0, math.nan, "s", math.nan, 1)
    monkeypatch.setattr("benchmarks.start_up.rows", lambda settings: iter([row]))
    monkeypatch.setattr("benchmarks.growth.rows", lambda settings: iter([empty]))
    assert command.main(["--quick", "start_up"]) == 0
    assert command.main(["--quick", "growth"]) == 0
    results = json.loads(path.read_text())
    assert set(results) == {"start_up", "growth"}
    assert results["start_up"]["rows"][0]["ratio"] == 2.0
    assert results["growth"]["rows"][0]["ratio"] is None
    assert results["start_up"]["machine"]["torch"] and results["start_up"]["quick"]
    assert "a note" in capsys.readouterr().out


def test_an_unknown_section_is_an_error(capsys):
    with pytest.raises(SystemExit):
        command.main(["start-up"])
    assert "known are reading, input_pipeline" in capsys.readouterr().err


def test_missing_data_is_a_clear_error(tmp_path, capsys):
    assert command.main(["--data", str(tmp_path / "none"), "input_pipeline"]) == 1
    assert "none" in capsys.readouterr().err


# --- peers retrained ---


def small_peer(schedule="steps", **changes):
    return peers.Recipe(
        "tiny", "small", 0.0, peers.per_image(Config()), 16, 20, 0.01, 1e-4, True, 3, schedule, **changes
    )


def test_a_peer_is_chosen_by_validation_and_answers_the_test(tiny, tmp_path):
    assert train_peer.train_peer(small_peer(clip=0.1), tiny, tmp_path, CPU)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    history = pd.read_csv(tmp_path / "history.csv")
    assert len(history) == metrics["training"]["epochs"] == 3
    best = history.valid_accuracy.idxmax()
    assert metrics["training"]["chosen_epoch"] == best + 1
    assert metrics["valid"]["views"]["accuracy"] == pytest.approx(history.valid_accuracy[best])
    assert (np.load(tmp_path / "valid.npz")["labels"] == tiny.valid.labels).all()
    assert len((tmp_path / "submission.csv").read_text().splitlines()) == 13


def test_an_interrupted_peer_goes_on_to_the_same_end(tiny, tmp_path):
    for schedule in ("steps", "plateau"):
        whole, cut = tmp_path / f"{schedule}-whole", tmp_path / f"{schedule}-cut"
        train_peer.train_peer(small_peer(schedule), tiny, whole, CPU)
        while not train_peer.train_peer(small_peer(schedule), tiny, cut, CPU, minutes=1e-6):
            assert not (cut / "metrics.json").exists()
        assert (cut / "history.csv").read_bytes() == (whole / "history.csv").read_bytes()
        assert (cut / "submission.csv").read_bytes() == (whole / "submission.csv").read_bytes()


def test_the_published_rates_fall_as_published():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], 0.01)
    schedule, rates = train_peer.make_schedule(small_peer(), optimizer), []
    for _ in range(91):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates[84] == 0.01 and rates[85] == pytest.approx(0.009) and rates[90] == pytest.approx(0.0081)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], 0.01)
    schedule, rates = train_peer.make_schedule(small_peer("plateau"), optimizer), []
    for accuracy in [0.1, 0.5, *[0.4] * 6, 0.6]:
        schedule.step(accuracy)
        rates.append(optimizer.param_groups[0]["lr"])
    assert rates[6] == 0.01 and rates[7] == rates[8] == pytest.approx(0.0075)


def test_a_peer_goes_on_from_its_own_checkpoint_only(tiny, tmp_path):
    train_peer.train_peer(small_peer(), tiny, tmp_path, CPU, epochs=1)
    with pytest.raises(ConfigError, match="is of tiny, seed 0: choose another --out"):
        train_peer.train_peer(small_peer(), tiny, tmp_path, CPU, epochs=1, seed=1)
    with pytest.raises(DataError, match="is of other data"):
        train_peer.train_peer(small_peer(), tiny_competition(5), tmp_path, CPU, epochs=1)
    (tmp_path / "checkpoint.pt").write_bytes((tmp_path / "checkpoint.pt").read_bytes()[:1000])
    with pytest.raises(DataError, match="checkpoint.pt is damaged .*remove it to begin again"):
        train_peer.train_peer(small_peer(), tiny, tmp_path, CPU, epochs=1)


def test_ten_crops_see_the_corners_and_their_mirror_images():
    class Corner(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(1))

        def forward(self, images):
            return torch.stack([images[:, 0, 0, 0], images[:, 0, -1, -1]], 1) * self.weight

    images = np.zeros((1, 1, 6, 6), np.uint8)
    images[0, 0, 0, 0] = 255  # seen by one of the ten crops at its first pixel
    ten = train_peer.crop_probs(Corner(), images, 4)
    logits = np.log(ten[0])
    assert logits[0] - logits[1] == pytest.approx(0.1, abs=1e-5)
    assert np.allclose(train_peer.crop_probs(Corner(), images, 4, 1), 0.5)


# --- next to fastai ---

USER = """
import sys, time, pandas as pd
from pathlib import Path
data, out, epochs = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
print("epoch     train_loss  valid_loss  accuracy  time")
for epoch in range(epochs):
    print(f"{epoch}         2.035179    1.995997    0.160000  00:03")
ballast = bytearray(100_000_000)
time.sleep(60 if epochs > 2 else 1.5)
print("valid accuracy 0.428571")
pd.read_csv(data / "sample_submission.csv").to_csv(out / "submission.csv", index=False)
"""


@pytest.fixture
def small_fer2013(tmp_path, monkeypatch):
    """A folder with the three files, and a user whose code takes no time; where results would be kept."""
    rng, folder = np.random.default_rng(0), tmp_path / "data"
    folder.mkdir()
    pixels = [" ".join(map(str, rng.integers(0, 256, 48 * 48))) for _ in range(48)]
    usage = ["Training"] * 28 + ["PublicTest"] * 14
    train = pd.DataFrame({"emotion": [k % 7 for k in range(42)], "pixels": pixels[:42], "Usage": usage})
    train.to_csv(folder / "train.csv", index=False)
    pd.DataFrame({"id": range(6), "pixels": pixels[42:]}).to_csv(folder / "test.csv", index=False)
    pd.DataFrame({"id": range(6), "emotion": 0}).to_csv(folder / "sample_submission.csv", index=False)
    (tmp_path / "user.py").write_text(f'"""A user."""\n{USER}')
    monkeypatch.setattr(first_submission, "USER_CODE", tmp_path / "user.py")
    monkeypatch.setattr(first_submission, "RESULTS", tmp_path / "results.json")
    monkeypatch.setattr(first_submission, "VERSIONS", {"fastai": "python torch numpy"})
    return folder


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is read from /proc")
def test_a_first_submission_is_watched_from_outside(small_fer2013, tmp_path, capsys):
    options = ["fastai", "--data", str(small_fer2013), "--epochs", "2", "--out", str(tmp_path / "out")]
    assert first_submission.main(options) == 0
    row = json.loads((tmp_path / "results.json").read_text())["fastai"]
    assert row["valid"]["n"] == 14 and row["valid"]["accuracy"] == pytest.approx(6 / 14)
    assert 0 < row["first_seconds"] < row["submission"] - 1 < row["end"]  # it sleeps for 1.5 between them
    assert row["memory"] > 100 and row["largest_process"] > 100
    assert row["machine"]["torch"] == torch.__version__.split("+")[0]
    assert "42.9 % (21.4 to 67.4), n = 14" in capsys.readouterr().out
    with pytest.raises(SystemExit):  # a second one would find what the first has left
        first_submission.main(options)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is read from /proc")
def test_a_first_submission_that_comes_too_late_is_none(small_fer2013, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(first_submission, "LIMIT", 3.0)
    options = ["fastai", "--data", str(small_fer2013), "--epochs", "3", "--out", str(tmp_path / "out")]
    assert first_submission.main([*options, "--trial"]) == 1
    assert "| not in time | - |" in capsys.readouterr().out
    assert not (tmp_path / "results.json").exists()


def test_what_users_type_is_counted():
    code = first_submission.USER_CODE.read_text(encoding="utf-8")
    statements = [node for node in ast.parse(code).body[1:]]  # without the docstring
    (by_hand,) = (node for node in statements if isinstance(node, ast.If))
    lines = {line for node in statements for line in range(node.lineno, node.end_lineno + 1)}
    assert first_submission.typed_lines("fastai-bf16") == len(lines)
    only = by_hand.end_lineno - by_hand.lineno + 1
    assert first_submission.typed_lines("fastai") == len(lines) - only
    assert first_submission.typed_lines("ours") == 1


def test_our_first_submission_is_what_make_runs(tmp_path):
    run = first_submission.command("ours", sys.executable, "DATA", tmp_path, 12)
    recipe = (REPOSITORY / "Makefile").read_text().split("\nsubmission:")[1].split("\n\n")[0]
    written = recipe.replace("\\\n", " ").replace('"', "").replace("$(DATA)", "DATA")
    ours = " ".join(run[2:]).replace(str(tmp_path), "$(OUT)").split(" -p ")[0]
    assert ours in " ".join(written.replace("$(PAPERMILL)", "papermill").split())
    changed = run[run.index("-p") :]
    assert changed[:3] == ["-p", "width", "0.25"] and changed[-3:] == ["-p", "epochs", "12"]
    assert first_submission.EPOCHS["ours"] == Config().epochs  # so that nobody has to type them


def test_the_table_next_to_fastai_equals_the_measurement():
    section = (REPOSITORY / "outputs/reference/README.md").read_text(encoding="utf-8")
    section = section.split("## Next to fastai")[1].split("\n## ")[0]
    if first_submission.RESULTS.is_file():
        results = json.loads(first_submission.RESULTS.read_text(encoding="utf-8"))
        assert first_submission.table(results) in section
    else:
        assert "not measured yet" in section


def test_votes_tell_what_the_network_does_not_know():
    rng = np.random.default_rng(0)
    labels = np.arange(400) % 4
    probs = rng.dirichlet(np.ones(4), 400)  # knows nothing
    said = np.eye(4)[np.where(rng.random(400) < 0.8, labels, rng.integers(0, 4, 400))] * 9 + 1
    alone, both = people.with_votes(probs, said, labels)
    assert (alone == labels).mean() < 0.4 and (both == labels).mean() > 0.75
    alone, both = people.with_votes(0.96 * np.eye(4)[labels] + 0.01, rng.integers(1, 9, (400, 4)), labels)
    assert (alone == labels).all() and (both == labels).all()


def test_errors_are_sorted_by_what_people_said():
    votes = np.zeros((4, 10), int)
    votes[0, 3] = 10  # all gave the label, the network too
    votes[1, 0], votes[1, 4] = 2, 8  # most gave the network's answer
    votes[2, 2], votes[2, 5] = 5, 5  # no majority
    votes[3, 9] = 10  # no face
    labels, answers = np.array([3, 0, 2, 1]), np.array([3, 4, 5, 6])
    table = people.by_votes(votes, labels, answers).set_index("people who gave the label")
    assert table["images"].to_dict() == dict(zip(table.index, [1, 1, 0, 1, 0, 1], strict=True))
    assert table.loc["9 to 10", "accuracy"] == 1 and table.loc["9 to 10", "of all errors"] == 0
    sides = people.by_side(votes, labels, answers)
    assert list(sides) == [0, pytest.approx(1 / 3), pytest.approx(1 / 3), pytest.approx(1 / 3)]


def test_a_set_of_views_is_chosen_on_the_other_half():
    labels = np.zeros(400, int)
    luck = np.random.default_rng(1).random((20, 1, 400, 2))  # of sets that know nothing the best is lucky
    lucky = (luck.argmax(3) == labels).mean(2).max()
    fitted = (views.cross_fitted(luck, labels).argmax(2) == labels).mean()
    assert fitted < lucky - 0.02
    good = np.concatenate([luck, np.broadcast_to([0.9, 0.1], (1, 1, 400, 2))])
    assert (views.cross_fitted(good, labels).argmax(2) == labels).all()


def test_weights_of_one_network_average_to_itself():
    images = np.random.default_rng(0).integers(0, 256, (600, 1, 24, 24), dtype=np.uint8)
    one, other = (create_model("small", 7, width=0.125) for _ in range(2))
    same, mixed = (views.with_average_weights(pair, images) for pair in ([one, one], [one, other]))
    assert torch.equal(same.classifier.weight, one.classifier.weight)
    assert torch.allclose(mixed.classifier.weight, (one.classifier.weight + other.classifier.weight) / 2)
    assert not torch.equal(same.features[0][1].running_mean, one.features[0][1].running_mean)


def test_the_views_of_the_package_are_among_those_compared():
    images = np.random.default_rng(0).integers(0, 256, (3, 1, 48, 48), dtype=np.uint8)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48 * 48, 7))
    for name, package in (("`mirror`", "mirror"), (views.BASE, "shift"), ("`zoom`", "zoom")):
        (moves,) = (moves for key, moves in views.SETS.items() if key.split(":")[0] == name.split(":")[0])
        ours = np.mean([views.moved_probs(model, images, one) for one in moves], axis=(0, 1))
        assert np.allclose(ours, view_probs(model, images, package).mean(0), atol=1e-6)


@pytest.mark.parametrize("stride", [1, 2])
def test_all_ways_to_a_weight_gradient_give_the_same(stride):
    images = weight_gradient.channels_last(torch.randn(3, 5, 6, 6))
    weights = torch.randn(4, 5, 3, 3, requires_grad=True)
    answers = F.conv2d(images, weights, stride=stride, padding=1)
    grads = torch.randn_like(answers)
    (expected,) = torch.autograd.grad(answers, weights, grads)
    for way in (weight_gradient.by_torch, weight_gradient.by_patches, weight_gradient.by_places):
        assert torch.allclose(way(images, grads, stride), expected, atol=1e-4)


@pytest.mark.parametrize("build", networks.NETWORKS.values(), ids=networks.NETWORKS)
def test_the_networks_that_are_tried_take_images_of_every_size_of_a_training(build):
    torch.manual_seed(0)
    model = build(ModelOptions(7, 0.25, 0.0)).eval()
    for size in (28, 48):
        assert model(torch.rand(2, 1, size, size)).shape == (2, 7)


def test_targets_of_classes_hold_the_mean_answer_to_each():
    labels, answers = np.array([0, 1, 0]), np.array([[1.0, 0.0], [0.5, 0.5], [0.6, 0.4]])
    expected = [[0.3 + 0.7 * 0.8, 0.7 * 0.2], [0.7 * 0.5, 0.3 + 0.7 * 0.5]]
    assert np.allclose(label_noise.confused(labels, answers), [expected[k] for k in labels])


def test_losses_against_wrong_labels_are_what_they_say():
    torch.manual_seed(0)
    model = create_model("medium", 7, width=0.125).eval()
    learner = SimpleNamespace(model=model, forward=model, config=Config(), epoch=0)
    images, labels = torch.rand(20, 1, 28, 28), torch.randint(0, 7, (20,))
    targets = F.one_hot(labels, 7).float()
    each = F.cross_entropy(model(images), labels, label_smoothing=0.1, reduction="none")
    for name, loss in label_noise.LOSSES.items():
        value, logits = loss(learner, images, targets)
        assert torch.allclose(logits, model(images), atol=1e-5), name
        if name in ("cross_entropy", "confusions", "trimmed"):
            assert value.item() == pytest.approx(each.mean().item(), rel=1e-5)
    learner.epoch = Config().epochs - 1
    without = label_noise.trimmed(learner, images, targets)[0]
    assert without.item() == pytest.approx(each.sort().values[:18].mean().item(), rel=1e-5)
    likely = model(images).softmax(1)[torch.arange(20), labels]
    generalized = label_noise.generalized(learner, images, targets)[0]
    assert generalized.item() == pytest.approx((2 * (1 - likely.sqrt())).mean().item(), rel=1e-5)
    flipped, mirrored = (label_noise.flipped(learner, some, targets)[0] for some in (images, images.flip(3)))
    distances = [
        flipped - each.mean(),
        mirrored - F.cross_entropy(model(images.flip(3)), labels, label_smoothing=0.1),
    ]
    assert distances[0] > 0 and torch.allclose(
        *distances, rtol=1e-3
    )  # it does not matter which one is mirrored


def test_weighed_places_start_as_the_plain_average():
    models = []
    for build in (networks.places, medium):
        torch.manual_seed(0)
        models.append(build(ModelOptions(7, 0.25, 0.0)).eval())
    images = torch.rand(2, 1, 48, 48)
    assert torch.allclose(models[0](images), models[1](images), atol=1e-6)
    with torch.no_grad():
        models[0].features[-1].weights[:, 0] = 5
    assert not torch.allclose(models[0](images), models[1](images), atol=1e-3)
