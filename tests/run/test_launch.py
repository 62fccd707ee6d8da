"""Trainings on several devices, tried with two processes on the CPU."""

import dataclasses
import os
import threading
import time

import numpy as np
import pytest
import torch
from conftest import tiny_competition

from fer_utils import Config, ConfigError, TrainingError, fit, launch, launch_members, load_competition
from fer_utils.files import REPOSITORY, write_json
from fer_utils.run import launch as launcher
from fer_utils.run import train
from fer_utils.run.processes import _crash, _message

KNOBS = {
    "image_size": 20, "width": 0.25, "epochs": 3, "batch_size": 27, "precision": "fp32", "device": "cpu",
    "dropout": 0.0, "mixup": 0.2, "clip_norm": 1.0, "class_weight": 0.5,
    "sam": 0.05,
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tiny_folder):
    return tiny_folder


@pytest.fixture(scope="module")
def competition(folder):
    return load_competition(str(folder), image_size=20)


def config_of(folder, out, **knobs):
    return Config(**(KNOBS | {"data": str(folder), "out": str(out)} | knobs))


# A module that Python imports at start: the second process fails in the middle of the second epoch.
FAILING = """import os
if os.environ.get("RANK") == "1":
    from fer_utils.learning import augment
    calls, mix = [], augment.mix
    def broken(*arguments):
        calls.append(1)
        if len(calls) == 4: raise RuntimeError("no more electricity")
        return mix(*arguments)
    augment.mix = broken
"""
# And here the leader alone, that the time is over.
TIME_IS_OVER = """import os
if os.environ.get("RANK") == "0":
    from fer_utils.run.time_and_memory import TimeLimit
    TimeLimit.is_over = lambda self, learner: learner.epoch == 2 and learner.step == 1
"""


@pytest.mark.once  # with Kaggle's packages test_notebooks.py trains by two processes
def test_two_processes_train_as_one_does_and_go_on_to_the_same_bytes(
    folder, competition, tmp_path, monkeypatch, capfd
):
    """In one test, for each start of two processes takes ten seconds: an undisturbed training, and one that
    fails, is stopped by the time, and goes on."""
    alone = launch(config_of(folder, tmp_path / "alone", n_devices="1"), competition)
    capfd.readouterr()
    together = launch(config_of(folder, tmp_path / "together", n_devices="2"), competition)
    printed = capfd.readouterr().out
    # The order of summation differs, and training makes rounding grow: 1e-3 after three epochs, not bytes.
    columns = ["train_loss", "valid_loss", "valid_loss_average"]
    assert np.allclose(together.history[columns], alone.history[columns], rtol=1e-3)
    assert together.history.train_accuracy.tolist() == alone.history.train_accuracy.tolist()
    assert np.allclose(together.saved_probs(), alone.saved_probs(), atol=1e-3)
    assert together.metrics["training"]["n_devices"] == 2
    assert printed.count("epoch   1/3") == 1  # one writer, one speaker
    assert printed.count("pixel tables") == 0  # the notebook has printed the summary

    config = config_of(folder, tmp_path / "cut", n_devices="2", checkpoint_seconds=0.0)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{REPOSITORY}")
    (tmp_path / "sitecustomize.py").write_text(FAILING)
    with pytest.raises(TrainingError, match="process 1 failed:(.|\n)*no more electricity"):
        launch(config, competition)
    assert not (tmp_path / "cut" / "metrics.json").exists()
    (tmp_path / "sitecustomize.py").write_text(TIME_IS_OVER)
    stopped = launch(config, competition)
    assert "resuming after epoch 1 and step 1 of the next" in capfd.readouterr().out
    assert stopped.metrics["training"]["out_of_time"] and len(stopped.history) == 2
    (tmp_path / "sitecustomize.py").unlink()
    again = launch(config, competition)
    assert "resuming after epoch 2 and step 1 of the next" in capfd.readouterr().out
    assert not again.metrics["training"]["out_of_time"]
    for name in ("model.safetensors", "history.csv", "submission.csv"):
        assert (again.out / name).read_bytes() == (together.out / name).read_bytes()


def test_the_run_on_two_devices_is_known_again(folder, competition, tmp_path, capsys):
    launch(config_of(folder, tmp_path, n_devices="1"), competition)
    launch(config_of(folder, tmp_path, n_devices="auto"), competition)
    assert "finished: nothing to do" in capsys.readouterr().out


def test_other_data_than_launch_was_given_are_refused_without_a_traceback(
    folder, competition, tmp_path, monkeypatch
):
    """What the processes of a launch do, in this one: the flow above starts real ones."""
    config = config_of(folder, tmp_path / "run", n_devices="2")
    given, error = [], tmp_path / "0" / "error.json"
    error.parent.mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(launcher.Processes, "run", lambda self, config, variables, n: given.append(variables))
        patch.setattr(launcher, "load_run", lambda out: out)
        launch(config, tiny_competition())
    assert given[0]["FER_FINGERPRINT"] != competition.fingerprint
    monkeypatch.setenv("FER_FINGERPRINT", given[0]["FER_FINGERPRINT"])
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(error))
    (tmp_path / "stderr.txt").write_text("pages of torchrun's own words")
    assert train.main([str(write_json(tmp_path / "config.json", config.to_dict()))]) == 1
    message = _message(tmp_path, 1)
    assert (
        message.startswith("DataError: ") and "other images or labels than those given to launch" in message
    )
    assert "\n" not in message


@pytest.mark.once
def test_members_side_by_side_are_those_trained_alone(folder, competition, tmp_path, capfd):
    members = [config_of(folder, tmp_path / f"seed{s}", seed=s, epochs=1) for s in range(2)]
    runs = launch_members(members, n_devices=2)
    printed = capfd.readouterr().out
    assert "seed0: epoch   1/1" in printed and "seed1: epoch   1/1" in printed
    assert "seed0:   train " in printed and "seed1:   train " not in printed, "the data are told once"
    for seed, run in enumerate(runs):
        alone = launch(config_of(folder, tmp_path / f"alone{seed}", seed=seed, epochs=1), competition)
        assert np.allclose(run.saved_probs(), alone.saved_probs(), atol=1e-5)


@pytest.mark.once
def test_interrupted_members_end_and_the_next_do_not_begin(folder, tmp_path, monkeypatch):
    def interrupt(started):
        while not (tmp_path / "first" / "config.json").exists():  # it is training
            time.sleep(0.1)
        raise KeyboardInterrupt

    monkeypatch.setattr(launcher, "wait", interrupt)
    members = [config_of(folder, tmp_path / name, epochs=10_000) for name in ("first", "second")]
    others = set(threading.enumerate())  # an earlier test may have left some
    with pytest.raises(KeyboardInterrupt):
        launch_members(members)
    deadline = time.monotonic() + 120  # a busy machine takes its time to end a process
    while any(thread.name.startswith("ThreadPool") for thread in set(threading.enumerate()) - others):
        assert time.monotonic() < deadline, "a member goes on"
        time.sleep(0.1)
    assert not (tmp_path / "second").exists()
    assert not (tmp_path / "first" / "metrics.json").exists()


def test_members_keep_the_device_that_was_asked_for(folder, tmp_path, monkeypatch, two_gpus):
    """Not the one they were given: a run must be readable on another machine."""
    seen = []

    def run(self, config, variables, label):
        seen.append((config.device, variables["CUDA_VISIBLE_DEVICES"]))
        time.sleep(0.05)

    monkeypatch.setattr(launcher.Processes, "run", run)
    monkeypatch.setattr(launcher, "load_run", lambda out: out)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")
    launch_members([config_of(folder, tmp_path / str(k), device="auto") for k in range(4)])
    assert {device for device, _ in seen} == {"auto"} and {gpu for _, gpu in seen} == {"5", "7"}


def test_members_need_folders_of_their_own(folder, tmp_path):
    with pytest.raises(ConfigError, match="out: every run needs a folder of its own"):
        launch_members([config_of(folder, tmp_path), config_of(folder, tmp_path, seed=1)])


# --- how many devices ---


@pytest.fixture
def two_gpus(monkeypatch):
    monkeypatch.setattr(launcher, "choose_device", lambda name: torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


@pytest.fixture
def fitted(monkeypatch):
    """The configs that `fit` is called with, in this process."""
    configs = []
    monkeypatch.setattr(launcher, "fit", lambda config, competition: configs.append(config))
    return configs


def test_auto_is_one_device(folder, competition, tmp_path, two_gpus, fitted):
    config = config_of(folder, tmp_path)
    launch(config, competition)
    assert fitted == [config]


def test_a_finished_run_is_read_in_this_process(folder, competition, tmp_path, capsys):
    config = config_of(folder, tmp_path, epochs=1)
    launch(config, competition)
    launch(dataclasses.replace(config, n_devices="2"), competition)
    assert "finished: nothing to do" in capsys.readouterr().out


def test_more_gpus_than_there_are_is_an_error(folder, competition, tmp_path, two_gpus):
    with pytest.raises(ConfigError, match="there are 2 cuda devices here, not 3"):
        launch(config_of(folder, tmp_path, n_devices="3"), competition)


def test_a_batch_must_be_large_enough_to_share(folder, competition, tmp_path):
    with pytest.raises(ConfigError, match="n_devices: 2 devices need batches of 4"):
        launch(config_of(folder, tmp_path, n_devices="2", batch_size=3), competition)


def test_fit_itself_refuses_several_devices(folder, competition, tmp_path):
    with pytest.raises(ConfigError, match="use launch"):
        fit(config_of(folder, tmp_path, n_devices="2"), competition)


def test_the_command_line_trains_and_reports_errors(folder, tmp_path, capsys):
    good = write_json(tmp_path / "good.json", config_of(folder, tmp_path / "run", epochs=1).to_dict())
    assert launcher.main([str(good)]) == 0
    assert "valid accuracy" in capsys.readouterr().out
    bad = write_json(tmp_path / "bad.json", {"epoch": 1})
    assert launcher.main([str(bad)]) == 1
    assert "did you mean 'epochs'" in capsys.readouterr().err


def test_a_crash_is_told_from_its_cause_on():
    words = "warning\nterminate called after throwing an instance of 'c10::Error'\n" + "frame\n" * 2000
    assert _crash(words).startswith("terminate called after") and len(_crash(words)) == 3000
    assert _crash("a\n" * 4000 + "the end") == ("a\n" * 4000 + "the end")[-3000:]
