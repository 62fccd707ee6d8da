"""Which device and which precision to train with, chosen by trying them."""

from __future__ import annotations

import copy
import math
import os
import platform
import re
import subprocess
import time
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from fer_utils.config import ConfigError
from fer_utils.files import REPOSITORY
from fer_utils.learning.models import blank_images

PACKAGES = ("torch", "torchvision", "numpy", "pandas", "scikit-learn", "timm")


def choose_device(name: str = "auto") -> torch.device:
    """The device called `name`; "auto" takes the first of cuda, mps, cpu on which an operation runs.

    Raises:
        ConfigError: the named device cannot run a single operation here.
    """
    problem = ""
    for candidate in ("cuda", "mps", "cpu") if name == "auto" else (name,):
        try:
            # is_available() can be true where the first real operation fails (an old GPU, a new torch).
            image = torch.ones(1, 1, 4, 4, device=candidate)
            F.conv2d(image, image).item()
            return torch.device(candidate)
        except (RuntimeError, AssertionError, ImportError) as error:
            problem = str(error).strip().split("\n")[0].split(". ")[0]  # torch adds pages of advice
    raise ConfigError(f"device {name!r} cannot be used here ({problem}); try 'auto' or 'cpu'")


def visible_gpu(index: int) -> str:
    """The value of CUDA_VISIBLE_DEVICES for a process that uses only this process's GPU `index`."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return visible.split(",")[index].strip() if visible else str(index)


def choose_precision(name: str, model: nn.Module, image_size: int) -> torch.dtype:
    """The type of the heavy operations: as named, or the fastest that is safe on the model's device.

    GPUs: bfloat16 from compute capability 8.0 (older ones claim it but emulate it), float16 below.
    CPUs: bfloat16 where training steps of this very model are clearly faster with it.

    Raises:
        ConfigError: float16 on a CPU.
    """
    device = next(model.parameters()).device
    if name == "fp16" and device.type == "cpu":
        raise ConfigError("precision fp16 needs a GPU: on a CPU try 'auto'")
    if name != "auto":
        return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[name]
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.get_device_capability(device) >= (8, 0) else torch.float16
    if device.type != "cpu":
        return torch.float32
    seconds = _step_seconds(model, image_size)
    return torch.bfloat16 if 1.25 * seconds[torch.bfloat16] < seconds[torch.float32] else torch.float32


def _step_seconds(model: nn.Module, image_size: int) -> dict[torch.dtype, float]:
    """Best of four times of a training step on the CPU, by type, measured alternately: seconds of its cores,
    since by the clock the same run beside others could train in another precision."""
    model = copy.deepcopy(model).train()
    images = blank_images(model, 32, image_size).contiguous(memory_format=torch.channels_last)
    best: dict[torch.dtype, float] = {}
    for dtype in (torch.float32, torch.bfloat16) * 4:
        start = time.process_time()
        with torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
            model(images).float().sum().backward()
        best[dtype] = min(best.get(dtype, math.inf), time.process_time() - start)
    return best


# What the bytes of a result depend on, beside the config and the data; of the names in `environment`.
DECIDES_BYTES = ("torch", "numpy", "timm", "device", "hardware", "threads", "precision")


def environment(device: torch.device, dtype: torch.dtype) -> dict[str, str | int]:
    """What a run records so that it can be repeated: versions, hardware, threads, git commit."""
    packages = dict.fromkeys(PACKAGES, "not installed")
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            packages[name] = version(name)
    return {
        "python": platform.python_version(),
        **packages,
        "device": device.type,
        "hardware": torch.cuda.get_device_name(device) if device.type == "cuda" else _cpu_name(),
        "threads": torch.get_num_threads(),
        "precision": str(dtype).removeprefix("torch."),
        "git_commit": _git_commit(),
    }


def _cpu_name() -> str:
    name, info = platform.processor() or platform.machine(), Path("/proc/cpuinfo")
    if info.is_file() and (found := re.search(r"^model name\s*:(.*)", info.read_text(), re.M)):
        name = found[1].strip()
    return f"{name}, {os.cpu_count()} cores"


def _git_commit() -> str:
    command = ["git", "-C", str(REPOSITORY), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=5).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"
