"""What another network costs and gains on this processor: python -m benchmarks.networks

`medium`, the network of the CPU's presets, with one change at a time. Prints the parameters, the operations
and the time of a training step next to medium's, in Markdown. `--train NAME --data FOLDER` trains one of them
as the preset `quick` trains `medium`, in a folder that `fer_utils.analysis.paired_comparison` can compare.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.timing import take_turns
from fer_utils.config import Config
from fer_utils.data.load import load_competition
from fer_utils.learning.models import (
    MODELS,
    FaceNet,
    ModelOptions,
    Residual,
    conv_norm,
    create_model,
    medium,
    model_cost,
)
from fer_utils.run.train import fit

CPU = torch.device("cpu")
BLOCKS = ((64, 64, 1), (64, 128, 2), (128, 128, 1), (128, 256, 2), (256, 256, 1))  # of medium


class Places(nn.Module):
    """Weigh each place of each channel before the average over the map (global depthwise convolution: Chen et
    al. 2018, MobileFaceNets); starts as the plain average."""

    def __init__(self, channels: int, size: int = 6):
        super().__init__()
        self.weights = nn.Parameter(torch.zeros(channels, size, size))

    def forward(self, features: Tensor) -> Tensor:
        weights = F.interpolate(self.weights[None], features.shape[2:], mode="bilinear", align_corners=False)
        return features * (1 + weights)


class Inverted(nn.Module):
    """A 7 x 7 convolution of each channel alone, then four times the channels and back (Liu et al. 2022,
    ConvNeXt), with batch normalization."""

    def __init__(self, channels: int):
        super().__init__()
        own = nn.Conv2d(channels, channels, 7, padding=3, groups=channels, bias=False)
        self.own = nn.Sequential(own, nn.BatchNorm2d(channels))
        self.wide = nn.Conv2d(channels, 4 * channels, 1)
        self.narrow = conv_norm(4 * channels, channels, 1)

    def forward(self, features: Tensor) -> Tensor:
        return features + self.narrow(F.relu(self.wide(self.own(features))))


def _stem(options: ModelOptions) -> nn.Module:
    return nn.Sequential(conv_norm(options.inputs, options.channels(64), 6, 2), nn.ReLU())


def _network(
    options: ModelOptions,
    shapes: Sequence[tuple[int, int, int]] = BLOCKS,
    stem: nn.Module | None = None,
    excite: bool = False,
    end: Callable[[int], nn.Module] | None = None,
) -> nn.Module:
    parts = [stem or _stem(options)]
    for inputs, outputs, stride in shapes:
        parts.append(Residual(options.channels(inputs), options.channels(outputs), stride, excite))
    channels = options.channels(shapes[-1][1])
    if end is not None:
        parts.append(end(channels))
    return FaceNet(nn.Sequential(*parts), channels, options.num_classes, options.dropout)


def places(options: ModelOptions) -> nn.Module:
    """A weight for each place of the last maps."""
    return _network(options, end=Places)


def excite(options: ModelOptions) -> nn.Module:
    """Squeeze-and-excitation in every block."""
    return _network(options, excite=True)


def full_size_stem(options: ModelOptions) -> nn.Module:
    """Two convolutions in the stem, the first at full size with half the channels."""
    half, whole = options.channels(32), options.channels(64)
    first = nn.Sequential(conv_norm(options.inputs, half), nn.ReLU())
    return _network(options, stem=nn.Sequential(first, conv_norm(half, whole, stride=2), nn.ReLU()))


def deeper(options: ModelOptions) -> nn.Module:
    """No block at 24 x 24, one more at 12 x 12 and at 6 x 6."""
    return _network(options, ((64, 128, 2), *[(128, 128, 1)] * 2, (128, 256, 2), *[(256, 256, 1)] * 2))


def fourth_stage(options: ModelOptions) -> nn.Module:
    """One more block, at 3 x 3 with twice the channels."""
    return _network(options, (*BLOCKS, (256, 512, 2)))


def convnext(options: ModelOptions) -> nn.Module:
    """Five blocks of ConvNeXt's kind, with half as many channels more."""
    a, b, c = (options.channels(base) for base in (96, 192, 384))
    blocks = [
        nn.Sequential(conv_norm(options.inputs, a, 6, 2), nn.ReLU()),
        Inverted(a),
        conv_norm(a, b, 2, 2),
    ]
    blocks += [Inverted(b), Inverted(b), conv_norm(b, c, 2, 2), Inverted(c), Inverted(c)]
    return FaceNet(
        nn.Sequential(*blocks, nn.BatchNorm2d(c), nn.ReLU()), c, options.num_classes, options.dropout
    )


NETWORKS = {
    build.__name__: build for build in (places, excite, full_size_stem, deeper, fourth_stage, convnext)
}


def step_of(model: nn.Module, images: Tensor, labels: Tensor) -> Callable[[], None]:
    """A function that goes forward and back once."""

    def step() -> None:
        model.zero_grad()
        F.cross_entropy(model(images), labels).backward()

    return step


def main() -> None:
    """Time all networks, or train one."""
    parser = argparse.ArgumentParser("python -m benchmarks.networks", description=__doc__.split("\n\n")[0])
    parser.add_argument("--seconds", type=float, default=20, help="for each comparison")
    parser.add_argument("--batch", type=int, default=256, help="images in a step that is timed")
    parser.add_argument("--train", choices=NETWORKS, help="the network to train")
    parser.add_argument("--data", default="auto", help="the competition's folder")
    parser.add_argument(
        "--out", default="outputs/networks", help="where the run goes, in a folder of its own"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=8)
    options = parser.parse_args()
    torch.set_num_threads(1)
    MODELS.update(NETWORKS)
    if options.train:
        name = options.train
        own = {"model": name, "data": options.data, "out": f"{options.out}/{name}-seed{options.seed}"}
        own |= {"seed": options.seed, "epochs": options.epochs, "precision": "fp32", "device": "cpu"}
        config = Config.from_dict({"preset": "quick", **own})
        fit(config, load_competition(config.data, **config.data_options))
        return
    images = torch.rand(options.batch, 1, 48, 48).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(0, 7, (options.batch,))
    print("| network | parameters, M | multiply-adds, M | a training step, times that of `medium` |")
    print("|---|---|---|---|")
    models = {
        name: create_model(name, 7, width=Config.width).to(memory_format=torch.channels_last).train()
        for name in (medium.__name__, *NETWORKS)
    }
    base = step_of(models.pop(medium.__name__), images, labels)
    for name, model in models.items():
        ratio = take_turns(base, step_of(model, images, labels), options.seconds, CPU)[2]
        parameters, operations = model_cost(model, 48)
        what = f"`{name}`: {NETWORKS[name].__doc__.splitlines()[0].rstrip('.').lower()}"
        print(f"| {what} | {parameters / 1e6:.2f} | {operations / 1e6:.0f} | {ratio:.2f} |", flush=True)


if __name__ == "__main__":
    main()
