"""A device is one on which an operation ran; precision is what was measured; the record names both."""

import json
import re
import subprocess
import time
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fer_utils.config import ConfigError
from fer_utils.files import REPOSITORY
from fer_utils.learning import device as module
from fer_utils.learning.device import choose_device, choose_precision, environment
from fer_utils.learning.models import create_model

CPU = torch.device("cpu")
BF16, FP16, FP32 = torch.bfloat16, torch.float16, torch.float32


def on_gpu():
    """Something that says that its weights are on a GPU."""
    return SimpleNamespace(parameters=lambda: iter([SimpleNamespace(device=torch.device("cuda"))]))


# --- device ---


def test_auto_finds_a_device_that_works():
    device = choose_device("auto")
    assert torch.ones(2, device=device).sum().item() == 2
    assert choose_device() == device


def test_the_cpu_can_be_chosen():
    assert choose_device("cpu") == CPU


@pytest.mark.parametrize("name", ["gpu", "CPU", "", "cuda:99", "meta", "hpu", "mps:7", "xla"])
def test_a_device_that_does_not_exist_or_work_is_a_short_config_error(name):
    with pytest.raises(ConfigError, match="cannot be used here .*try 'auto' or 'cpu'") as caught:
        choose_device(name)
    assert f"device {name!r}" in str(caught.value) and len(str(caught.value)) < 400


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_cuda_without_a_gpu_is_a_config_error():
    with pytest.raises(ConfigError, match="device 'cuda' cannot be used here"):
        choose_device("cuda")


def test_a_gpu_that_is_there_but_fails_is_passed_over(monkeypatch):
    def only_on_the_cpu(images, weight):
        if images.device.type != "cpu":
            raise RuntimeError("no kernel image is available for execution on the device")
        return F.conv2d(images, weight)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(module, "F", SimpleNamespace(conv2d=only_on_the_cpu))
    assert choose_device("auto") == CPU


# --- precision ---


@pytest.mark.parametrize(("name", "dtype"), [("fp32", FP32), ("bf16", BF16)])
def test_a_named_precision_is_taken_without_a_measurement(monkeypatch, name, dtype):
    monkeypatch.setattr(module, "_step_seconds", lambda *_: pytest.fail("measured"))
    assert choose_precision(name, nn.Linear(1, 1), 48) == dtype


def test_half_precision_is_refused_on_a_cpu_and_taken_on_a_gpu():
    with pytest.raises(ConfigError, match="fp16 needs a GPU"):
        choose_precision("fp16", nn.Linear(1, 1), 48)
    assert choose_precision("fp16", on_gpu(), 48) == FP16


@pytest.mark.parametrize(
    ("fp32_seconds", "bf16_seconds", "chosen"),
    [(1.0, 0.5, BF16), (1.0, 2.0, FP32), (1.0, 0.95, FP32), (1.0, 0.79, BF16)],
)
def test_auto_on_a_cpu_takes_bf16_only_where_it_is_clearly_faster(
    monkeypatch, fp32_seconds, bf16_seconds, chosen
):
    monkeypatch.setattr(module, "_step_seconds", lambda *_: {FP32: fp32_seconds, BF16: bf16_seconds})
    assert choose_precision("auto", nn.Linear(1, 1), 48) == chosen


@pytest.mark.parametrize(("capability", "chosen"), [((7, 5), FP16), ((8, 0), BF16), ((12, 0), BF16)])
def test_auto_on_a_gpu_goes_by_its_capability_and_not_by_its_claims(monkeypatch, capability, chosen):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: capability)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *_: True)  # as a T4 says
    assert choose_precision("auto", on_gpu(), 48) == chosen


@pytest.mark.parametrize("training", [True, False])
def test_measuring_tries_both_types_and_leaves_the_model_alone(training):
    model = create_model("small", 3, width=0.125).train(training)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    seconds = module._step_seconds(model, 16)
    assert set(seconds) == {FP32, BF16} and min(seconds.values()) > 0
    assert model.training is training and all(p.grad is None for p in model.parameters())
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_what_waits_for_others_is_not_slower():
    class Waits(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Conv2d(1, 4, 3)

        def forward(self, images):
            if not torch.is_autocast_enabled("cpu"):
                time.sleep(0.05)  # as a process does whose core another one holds
            return self.layer(images)

    seconds = module._step_seconds(Waits(), 16)
    assert seconds[FP32] < 0.04


# --- the record ---


def test_the_record_holds_versions_hardware_threads_and_precision():
    record = environment(CPU, BF16)
    assert record["torch"].startswith(torch.__version__.split("+")[0])
    assert record["device"] == "cpu" and record["precision"] == "bfloat16"
    assert record["threads"] == torch.get_num_threads()
    assert re.fullmatch(r"3\.\d+\.\d+.*", record["python"])
    assert re.search(r"\S, \d+ cores$", record["hardware"])
    assert {"torchvision", "numpy", "pandas", "scikit-learn", "timm", "git_commit"} <= set(record)
    assert json.loads(json.dumps(record)) == record


def test_the_record_contains_no_paths_of_this_machine():
    text = json.dumps(environment(CPU, FP32))
    assert str(REPOSITORY) not in text and str(Path.home()) not in text.replace(" ", "")
    assert not any(str(value).startswith("/") for value in environment(CPU, FP32).values())


def test_a_package_that_is_not_installed_is_recorded_as_such(monkeypatch):
    def without_timm(name):
        if name == "timm":
            raise PackageNotFoundError(name)
        return "1.0"

    monkeypatch.setattr(module, "version", without_timm)
    record = environment(CPU, FP32)
    assert record["timm"] == "not installed" and record["numpy"] == "1.0"


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError("git"),
        subprocess.CalledProcessError(128, "git"),
        subprocess.TimeoutExpired("git", 5),
    ],
)
def test_without_git_the_commit_is_unknown(monkeypatch, error):
    def fails(*_, **__):
        raise error

    monkeypatch.setattr(subprocess, "run", fails)
    assert environment(CPU, FP32)["git_commit"] == "unknown"
