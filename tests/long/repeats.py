"""The same config, data and versions give the same bytes: again, from a notebook, with other threads."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from tests.long.common import Trial, finish, notebook, results, training


def trials(folder: Path, data: Path, quick: bool) -> Iterator[Trial]:
    """`lost` counts the runs whose bytes differ."""
    finish(training(data, folder / "first"))
    expected = results(folder / "first")
    again = 1 if quick else 3
    for k in range(again):
        finish(training(data, folder / f"again{k}"))
    differ = sum(results(folder / f"again{k}") != expected for k in range(again))
    yield Trial("the module again, same threads", again, differ, "CPU")
    finish(notebook(data, folder / "notebook"))
    yield Trial("from notebook 03", 1, results(folder / "notebook") != expected, "CPU")
    command, environment = training(data, folder / "first")
    repeat = [*command[:-1], str(folder / "first" / "config.json"), "--out", str(folder / "repeated")]
    finish((repeat, environment))
    yield Trial("from its own config.json", 1, results(folder / "repeated") != expected, "CPU")
    finish(training(data, folder / "two", threads=2))
    same = results(folder / "two") == expected
    note = "the same bytes" if same else difference(folder / "two", folder / "first")
    yield Trial("2 threads instead of 1 (the count is part of the record)", 1, 0, note)
    for _ in range(torch.cuda.device_count() and 1):
        yield on_gpu(folder / "gpu", data)


def difference(first: Path, second: Path) -> str:
    """How far the validation probabilities of two runs lie apart."""
    pair = [np.load(out / "valid.npz", allow_pickle=False)["probs"] for out in (first, second)]
    same = 100 * (pair[0].argmax(1) == pair[1].argmax(1)).mean()
    return (
        f"probabilities differ by up to {np.abs(pair[0] - pair[1]).max():.1e}, {same:.1f} % of answers agree"
    )


def on_gpu(folder: Path, data: Path) -> Trial:
    """Measured and told, not promised."""
    for name in ("first", "second"):
        finish(training(data, folder / name, device="cuda", precision="auto"))
    same = results(folder / "first") == results(folder / "second")
    note = "the same bytes" if same else difference(folder / "first", folder / "second")
    return Trial("twice on a GPU (not promised)", 1, 0, f"{torch.cuda.get_device_name()}: {note}")
