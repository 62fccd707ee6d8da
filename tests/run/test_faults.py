"""What a machine refuses ends in words, a whole previous state and freed memory."""

import gc
import os
import weakref
from contextlib import contextmanager

import pytest
import torch

from fer_utils import Config, fit
from fer_utils.files import OutputError
from fer_utils.learning import training_loop as learner
from fer_utils.learning.training_loop import TrainingError
from fer_utils.run.checkpoint import CheckpointFile

KNOBS = {"image_size": 20, "model": "small", "width": 0.125, "epochs": 3, "batch_size": 16, "device": "cpu"}
KNOBS |= {"precision": "fp32", "checkpoint_seconds": 0.0}
KEPT = ("model.safetensors", "history.csv", "submission.csv")


def config_of(out, **knobs):
    return Config(**(KNOBS | {"out": str(out)} | knobs))


def kept(out):
    return {name: (out / name).read_bytes() for name in KEPT}


def fail_after(monkeypatch, steps, error):
    """Let the step after so many fail, once."""
    step, done = learner._step, []

    def failing(*arguments):
        done.append(1)
        if len(done) == steps:
            raise error
        return step(*arguments)

    monkeypatch.setattr(learner, "_step", failing)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), "Try batch_size 8 "),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory"),
         "Try batch_size 8 "),
        (MemoryError(), "Try batch_size 8 "),
        (RuntimeError("CUDA error: unspecified launch failure\nCUDA kernel errors might be"),
         r"the device failed \(CUDA error: unspecified launch failure\)\. Restart"),
        (RuntimeError("NCCL Error 2: unhandled system error"), "the device failed"),
    ],
)  # fmt: skip
def test_a_refusal_is_explained_and_the_run_goes_on_later(error, words, tiny, tmp_path, monkeypatch):
    whole = kept(fit(config_of(tmp_path / "whole"), tiny).out)
    with monkeypatch.context() as patch:
        fail_after(patch, 7, error)
        with pytest.raises(TrainingError, match=words):
            fit(config_of(tmp_path / "cut"), tiny)
    run = fit(config_of(tmp_path / "cut"), tiny)
    assert run.metrics["training"]["resumed"] == 1 and kept(run.out) == whole


def test_a_mistake_in_the_code_stays_what_it_is(tiny, tmp_path, monkeypatch):
    fail_after(monkeypatch, 2, RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="mat1 and mat2") as caught:
        fit(config_of(tmp_path), tiny)
    assert not isinstance(caught.value, TrainingError)


def test_the_memory_of_a_failed_training_is_given_back(tiny, tmp_path, monkeypatch):
    models = []
    step = learner._step

    def failing(one, *arguments):
        models.append(weakref.ref(one.model))
        if len(models) == 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return step(one, *arguments)

    monkeypatch.setattr(learner, "_step", failing)
    with pytest.raises(TrainingError) as caught:  # the error is still at hand, as in a notebook
        fit(config_of(tmp_path), tiny)
    gc.collect()
    assert models[0]() is None and "batch_size" in str(caught.value)


# --- files that cannot be written, for real ---


@contextmanager
def small_files(limit):
    """No file may grow beyond `limit` bytes: writes then fail as on a full disk."""
    resource = pytest.importorskip("resource", reason="Windows has no such limit")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_no_room_for_a_checkpoint_keeps_the_last_one(tiny, tmp_path, monkeypatch):
    whole = kept(fit(config_of(tmp_path / "whole"), tiny).out)
    out = tmp_path / "cut"
    with monkeypatch.context() as patch:
        fail_after(patch, 6, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            fit(config_of(out), tiny)
    before = (out / "checkpoint.pt").read_bytes()
    with small_files(20_000), pytest.raises(OutputError, match=r"checkpoint\.pt cannot be written"):
        fit(config_of(out), tiny)
    assert (out / "checkpoint.pt").read_bytes() == before
    assert not [path for path in out.iterdir() if path.name.startswith(".checkpoint")]
    assert kept(fit(config_of(out), tiny).out) == whole


def test_no_room_for_the_weights_leaves_no_half_file(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(CheckpointFile, "save", lambda *_: None)  # it would fail before
    with small_files(20_000), pytest.raises(OutputError, match=r"model\.safetensors cannot be written"):
        fit(config_of(tmp_path), tiny)
    assert {path.name for path in tmp_path.iterdir()} == {".lock", "config.json", "history.csv", "error.txt"}


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="needs a user whom permissions bind")
def test_a_folder_without_permission_is_named_before_any_work(tiny, tmp_path):
    (tmp_path / "run").mkdir(mode=0o500)
    with pytest.raises(OutputError, match="run cannot be written: permission is denied"):
        fit(config_of(tmp_path / "run"), tiny)


def test_a_file_in_place_of_the_folder_is_named(tiny, tmp_path):
    (tmp_path / "run").write_text("mine")
    with pytest.raises(OutputError, match="a file stands where a folder should be"):
        fit(config_of(tmp_path / "run"), tiny)
    assert (tmp_path / "run").read_text() == "mine"
