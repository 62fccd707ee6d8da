"""How a network takes larger images at the cost of small ones: python -m benchmarks.larger_images

On the drawn faces in colour: the network for 48 pixels, and at 96 pixels that of this project, which pools
behind its first convolution, against a larger stride and against a second convolution in place of the pool.
Prints a table in Markdown.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Callable
from contextlib import redirect_stdout

from torch import nn

from benchmarks import timing
from fer_utils.config import Config
from fer_utils.data.load import load_competition
from fer_utils.learning import models
from fer_utils.run.train import fit

RECIPE = timing.RECIPE | {"data": "demo", "color": "rgb", "model": "medium", "width": 0.5, "epochs": 4}
RECIPE |= {"optimizer": "muon", "precision": "fp32", "device": "cpu"}
Stem = Callable[..., list[nn.Module]]


def main() -> None:
    """Train every arm with every seed and print the table."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks.larger_images", description=__doc__.split("\n\n")[0]
    )
    parser.add_argument("--seeds", type=int, default=2, help="of each arm")
    seeds = parser.parse_args().seeds
    print("| stem | size | million multiply-adds | valid, with views, of each seed | mean |")
    print("|---|---|---|---|---|")
    _arm("for 48 pixels", 48, models._stem, seeds)
    _arm("a pool (this project)", 96, models._stem, seeds)
    _arm("a larger stride", 96, _stride, seeds)
    _arm("a second convolution", 96, _second, seeds)


def _arm(name: str, size: int, stem: Stem, seeds: int) -> None:
    ours, models._stem, shares = models._stem, stem, []
    try:
        for seed in range(seeds):
            with tempfile.TemporaryDirectory() as out, redirect_stdout(sys.stderr):
                own = {"out": out, "seed": seed, "image_size": size, "start_size": 28 * size // 48}
                config = Config(**RECIPE, **own)
                run = fit(config, load_competition(config.data, **config.data_options))
            shares.append(100 * run.metrics["valid"]["views"]["accuracy"])
    finally:
        models._stem = ours
    cost = run.metrics["training"]["multiply_adds"] / 1e6
    values = ", ".join(f"{share:.1f} %" for share in shares)
    print(f"| {name} | {size} | {cost:.0f} | {values} | {statistics.mean(shares):.1f} % |", flush=True)


def _stride(options: models.ModelOptions, outputs: int, kernel: int, stride: int) -> list[nn.Module]:
    return models._unit(options.inputs, outputs, 2 * kernel, 2 * stride)


def _second(options: models.ModelOptions, outputs: int, kernel: int, stride: int) -> list[nn.Module]:
    first = models._unit(options.inputs, outputs // 2, kernel, stride)
    return [*first, *models._unit(outputs // 2, outputs, stride=2)]


if __name__ == "__main__":
    main()
