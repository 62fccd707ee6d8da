"""Checkpoints: a run cut at any step ends as an undisturbed one, and a damaged file never stops it."""

import dataclasses
import io
import json
import os
import pickle

import numpy as np
import pytest
import torch

from fer_utils import fit
from fer_utils.competition import DataError
from fer_utils.config import Config, ConfigError
from fer_utils.files import OutputError
from fer_utils.learning.training_loop import Learner, TrainingError
from fer_utils.run import checkpoint, train
from fer_utils.run.checkpoint import CheckpointFile, read_checkpoint
from fer_utils.run.time_and_memory import position

KNOBS = {"image_size": 20, "model": "small", "width": 0.125, "epochs": 3, "batch_size": 16, "device": "cpu"}
KNOBS |= {"precision": "fp32", "mixup": 0.2, "start_size": 16, "clip_norm": 1.0, "optimizer": "muon"}
KNOBS |= {"checkpoint_seconds": 0.0}
KEPT = ("model.safetensors", "history.csv", "submission.csv")


def config_of(out, **knobs):
    return Config(**(KNOBS | {"out": str(out)} | knobs))


def kept(out):
    return {name: (out / name).read_bytes() for name in KEPT}


@pytest.fixture(scope="module")
def whole(tiny, tmp_path_factory):
    return kept(fit(config_of(tmp_path_factory.mktemp("whole")), tiny).out)


def cut(config, competition, monkeypatch, saves, error=KeyboardInterrupt):
    """Train until the checkpoint has been written `saves` times, then die; tells where that was."""
    save, done = CheckpointFile.save, []

    def save_and_die(self, *arguments):
        save(self, *arguments)
        done.append(position(arguments[0]))
        if len(done) == saves:
            raise error

    with monkeypatch.context() as patch:
        patch.setattr(CheckpointFile, "save", save_and_die)
        with pytest.raises(error):
            fit(config, competition)
    return done[-1]


# An epoch has 4 steps. Cut within the first, after its last step, after its end, in a later one, at the end
@pytest.mark.parametrize("saves", [1, 3, 4, 5, 8, 12, 15])
def test_cut_after_any_step_it_ends_with_the_same_bytes(saves, tiny, whole, tmp_path, monkeypatch, capsys):
    position = cut(config_of(tmp_path), tiny, monkeypatch, saves)
    run = fit(config_of(tmp_path), tiny)
    assert kept(run.out) == whole
    assert f"resuming after {position} from" in capsys.readouterr().out
    assert run.metrics["training"]["resumed"] == 1
    assert len(run.metrics["training"]["epoch_seconds"]) == 3
    assert not list(tmp_path.glob("checkpoint*"))


def test_it_goes_on_in_the_precision_of_its_checkpoint(tiny, tmp_path, monkeypatch):
    """Muon's, too, though a new measurement finds another one faster."""
    config = config_of(tmp_path, optimizer="muon")
    cut(config, tiny, monkeypatch, saves=7)
    other = Learner(config, tiny, torch.device("cpu"), precision="bf16")
    assert other.optimizer.dtype == other.dtype == torch.bfloat16
    assert CheckpointFile(tmp_path).load(other)
    assert other.optimizer.dtype == other.dtype == torch.float32


@pytest.mark.parametrize("optimizer, average", [("sgd", 0.998), ("adamw", 0.0)])
def test_every_optimizer_goes_on_where_it_was(optimizer, average, tiny, tmp_path, monkeypatch):
    knobs = {"optimizer": optimizer, "ema_decay": average, "learning_rate": 0.02}
    whole = kept(fit(config_of(tmp_path / "whole", **knobs), tiny).out)
    cut(config_of(tmp_path / "cut", **knobs), tiny, monkeypatch, saves=7)
    assert kept(fit(config_of(tmp_path / "cut", **knobs), tiny).out) == whole


def test_a_network_that_draws_from_numpy_or_python_goes_on_the_same(tiny, tmp_path, monkeypatch):
    import random

    def noisy(batch, config, generator):
        return batch + (np.random.rand() + random.random()) / 10  # noqa: NPY002 - as such networks do

    monkeypatch.setattr("fer_utils.learning.training_loop.augment", noisy)
    whole = kept(fit(config_of(tmp_path / "whole"), tiny).out)
    cut(config_of(tmp_path / "cut"), tiny, monkeypatch, saves=7)
    np.random.seed(99)  # noqa: NPY002
    random.seed(99)
    assert kept(fit(config_of(tmp_path / "cut"), tiny).out) == whole


def damage(path, how):
    content = bytearray(path.read_bytes())
    if how == "cut":
        content = content[: len(content) // 2]
    elif how == "flipped":
        content[len(content) // 3] ^= 1
    elif how == "empty":
        content = b""
    path.write_bytes(content)


@pytest.mark.parametrize("how", ["cut", "flipped", "empty"])
def test_a_damaged_checkpoint_falls_back_to_the_one_before(how, tiny, whole, tmp_path, monkeypatch, capsys):
    cut(config_of(tmp_path), tiny, monkeypatch, saves=7)
    damage(tmp_path / "checkpoint.pt", how)
    run = fit(config_of(tmp_path), tiny)
    printed = capsys.readouterr().out
    assert "WARNING" in printed and "checkpoint.pt is damaged" in printed
    assert "resuming after epoch 1 and step 1 of the next" in printed  # the sixth was after step 1
    assert kept(run.out) == whole


def test_the_damaged_one_does_not_replace_the_good_one_before_a_new_one_is_whole(
    tiny, whole, tmp_path, monkeypatch
):
    cut(config_of(tmp_path), tiny, monkeypatch, saves=7)
    damage(tmp_path / "checkpoint.pt", "cut")
    replace = os.replace

    def killed(source, target):
        if str(target).endswith("checkpoint.pt"):
            raise KeyboardInterrupt  # the last moment before the new one has its name
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            fit(config_of(tmp_path), tiny)
    run = fit(config_of(tmp_path), tiny)
    assert run.metrics["training"]["resumed"] == 1 and kept(run.out) == whole


def test_a_full_disk_at_the_last_moment_keeps_both(tiny, tmp_path, monkeypatch):
    learner = Learner(config_of(tmp_path), tiny, torch.device("cpu"))
    file = CheckpointFile(tmp_path)
    file.save(learner)
    learner.epoch = 1
    file.save(learner)
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    learner.epoch = 2
    with pytest.raises(OutputError, match="the disk is full"):
        file.save(learner)
    assert [read_checkpoint(path)["epoch"] for path in (file.path, file.previous)] == [1, 0]


def test_one_that_may_not_be_read_is_not_taken_for_damaged(tiny, tmp_path, monkeypatch):
    cut(config_of(tmp_path), tiny, monkeypatch, saves=7)
    (tmp_path / "kept").mkdir()
    os.replace(tmp_path / "checkpoint.pt", tmp_path / "kept" / "checkpoint.pt")
    monkeypatch.setattr("pathlib.Path.is_file", lambda path: True)
    with pytest.raises(OutputError, match=r"checkpoint\.pt cannot be read"):
        CheckpointFile(tmp_path).load(Learner(config_of(tmp_path), tiny, torch.device("cpu")))


def test_results_of_something_else_are_not_mixed_with_a_run(tiny, tmp_path):
    (tmp_path / "metrics.json").write_text("{}")
    with pytest.raises(ConfigError, match="has results without a record"):
        fit(config_of(tmp_path), tiny)
    assert (tmp_path / "metrics.json").read_text() == "{}"


def test_a_run_whose_config_was_written_by_a_script_again_goes_on(tiny, whole, tmp_path, monkeypatch):
    cut(config_of(tmp_path), tiny, monkeypatch, saves=7)
    (tmp_path / "config.json").write_text(json.dumps(config_of(tmp_path).to_dict()))
    run = fit(config_of(tmp_path), tiny)
    assert run.metrics["training"]["resumed"] == 1 and kept(run.out) == whole
    assert fit(config_of(tmp_path), tiny).metrics == run.metrics


def test_killed_on_its_last_line_it_is_finished(tiny, whole, tmp_path, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        patch.setattr(CheckpointFile, "remove", lambda self: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            fit(config_of(tmp_path), tiny)
    assert CheckpointFile(tmp_path).exists
    assert kept(fit(config_of(tmp_path), tiny).out) == whole
    assert not CheckpointFile(tmp_path).exists


def test_the_precision_is_measured_once(tiny, tmp_path, monkeypatch):
    """A run killed before its first checkpoint must not come to another choice."""
    seconds = {torch.float32: 2.0, torch.bfloat16: 1.0}
    monkeypatch.setattr("fer_utils.learning.device._step_seconds", lambda *_: seconds)
    config = config_of(tmp_path, precision="auto", epochs=1)
    with monkeypatch.context() as patch:
        patch.setattr(train, "_run_epochs", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            fit(config, tiny)
    seconds[torch.bfloat16] = 3.0
    run = fit(config, tiny)
    record = json.loads((run.out / "config.json").read_text())["record"]
    assert record["environment"]["precision"] == "bfloat16" and run.config.precision == "auto"


def test_with_all_of_them_damaged_it_begins_anew(tiny, whole, tmp_path, monkeypatch, capsys):
    cut(config_of(tmp_path), tiny, monkeypatch, saves=7)
    damage(tmp_path / "checkpoint.pt", "cut")
    damage(tmp_path / "checkpoint-previous.pt", "flipped")
    assert kept(fit(config_of(tmp_path), tiny).out) == whole
    printed = capsys.readouterr().out
    assert printed.count("WARNING") == 2 and "resuming after" not in printed


def test_killed_between_its_two_renames_it_goes_on_from_the_previous(tiny, whole, tmp_path, monkeypatch):
    cut(config_of(tmp_path), tiny, monkeypatch, saves=7)
    os.remove(tmp_path / "checkpoint.pt")
    run = fit(config_of(tmp_path), tiny)
    assert run.metrics["training"]["resumed"] == 1 and kept(run.out) == whole


def test_killed_while_writing_the_results_it_writes_them_again(tiny, whole, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("fer_utils.run.folder.write_submission", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            fit(config_of(tmp_path), tiny)
    assert not (tmp_path / "metrics.json").exists() and (tmp_path / "checkpoint.pt").exists()
    assert kept(fit(config_of(tmp_path), tiny).out) == whole


def test_a_checkpoint_of_another_config_or_other_data_is_refused(tiny, tmp_path, monkeypatch):
    cut(config_of(tmp_path), tiny, monkeypatch, saves=3)
    os.remove(tmp_path / "config.json")  # as if only the checkpoint had been copied
    with pytest.raises(ConfigError, match="momentum: 0.9 there, 0.8 now"):
        fit(config_of(tmp_path, momentum=0.8), tiny)
    with pytest.raises(DataError, match="other data"):
        fit(config_of(tmp_path), dataclasses.replace(tiny, train=tiny.train.take(np.arange(48))))


def test_what_was_left_half_written_by_a_killed_process_is_cleared_away(tiny, tmp_path):
    left = tmp_path / f".checkpoint-{'0' * 32}.pt"
    left.write_bytes(b"half")
    mine = tmp_path / ".notes-of-mine.txt"
    mine.write_text("keep")
    fit(config_of(tmp_path, epochs=1), tiny)
    assert not left.exists() and mine.exists()


# --- what may not be written or read ---


def test_weights_that_are_no_numbers_do_not_replace_good_ones(tiny, tmp_path):
    learner = Learner(config_of(tmp_path), tiny, torch.device("cpu"))
    file = CheckpointFile(tmp_path)
    file.save(learner)
    before = file.path.read_bytes()
    with torch.no_grad():
        next(learner.model.parameters()).view(-1)[0] = float("nan")
    with pytest.raises(TrainingError, match="weights that are not numbers"):
        file.save(learner)
    assert file.path.read_bytes() == before


class Harmful:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("as_pickle", [True, False])
def test_a_forged_checkpoint_runs_no_code(as_pickle, tiny, whole, tmp_path, capsys):
    harm = Harmful(str(tmp_path / "harm"))
    buffer = io.BytesIO()
    torch.save({"model": harm}, buffer)
    content = pickle.dumps(harm) if as_pickle else buffer.getvalue()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "checkpoint.pt").write_bytes(content)
    with pytest.raises(DataError, match="holds no checkpoint"):
        read_checkpoint(tmp_path / "run" / "checkpoint.pt")
    assert kept(fit(config_of(tmp_path / "run"), tiny).out) == whole
    assert "WARNING" in capsys.readouterr().out
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize("content", [[1, 2], {"epoch": 1}, "text"])
def test_a_checkpoint_that_holds_something_else_is_named(content, tmp_path):
    buffer = io.BytesIO()
    torch.save(content, buffer)
    (tmp_path / "checkpoint.pt").write_bytes(buffer.getvalue())
    with pytest.raises(DataError, match="holds no checkpoint of this version"):
        read_checkpoint(tmp_path / "checkpoint.pt")


# --- when it is written ---


@pytest.mark.parametrize(
    ("seconds", "age", "cost", "epoch_over", "expected"),
    [
        (60, 30, 1.0, True, True),  # cheap against the time since the last one
        (60, 10, 1.0, True, False),  # an epoch on a fast GPU: it would take a tenth of the time
        (60, 59, 0.0, False, False),
        (60, 61, 1.0, False, True),
        (60, 60, 9.0, False, False),
        (0, 0, 9.0, False, True),  # nothing may be lost, whatever it costs
    ],
)
def test_it_is_written_when_due_and_cheap(seconds, age, cost, epoch_over, expected, tmp_path, monkeypatch):
    file = CheckpointFile(tmp_path)
    file.cost = cost
    monkeypatch.setattr(checkpoint.time, "perf_counter", lambda: file.written + age)
    assert file.due(Config(checkpoint_seconds=float(seconds)), epoch_over) is expected


def test_long_epochs_are_saved_within_and_short_ones_are_not(tiny, tmp_path, monkeypatch):
    places = []
    monkeypatch.setattr(CheckpointFile, "save", lambda _, learner, *__: places.append(position(learner)))
    fit(config_of(tmp_path / "a", epochs=1), tiny)
    assert places == [f"epoch 0 and step {step} of the next" for step in (1, 2, 3, 4)] + ["epoch 1"]
    places.clear()
    fit(config_of(tmp_path / "b", epochs=1, checkpoint_seconds=60.0), tiny)
    assert places == ["epoch 1"]
