"""The networks: this project's own, two peers' for comparison, and any timm backbone by name."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fer_utils.config import Config, ConfigError, check_choice
from fer_utils.faces.face_network import MEAN, N_CROPS, SIZE, STD, FaceResNet, is_face_network
from fer_utils.learning.pretrained import HOW_TO_ATTACH, start_classifier

# Of the three channels of ImageNet's images, where timm names no others.
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


def conv_norm(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    """Convolution without bias, then batch normalization (Ioffe and Szegedy 2015)."""
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, padding=(kernel - 1) // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs))


class SqueezeExcite(nn.Module):
    """Scale each channel by a gate computed from the channel means (Hu et al. 2018)."""

    def __init__(self, channels: int, reduction: int = 8):
        super().__init__()
        self.reduce = nn.Linear(channels, channels // reduction)
        self.expand = nn.Linear(channels // reduction, channels)

    def forward(self, features: Tensor) -> Tensor:
        gate = self.expand(F.relu(self.reduce(features.mean((2, 3)))))  # [N, C]
        return features * torch.sigmoid(gate)[:, :, None, None]


class Residual(nn.Module):
    """Two 3x3 convolutions beside a shortcut (He et al. 2016); a stride is taken by average pooling there.

    In training an image takes only the shortcut with probability `drop_path` (Huang et al. 2016).
    """

    def __init__(
        self, inputs: int, outputs: int, stride: int = 1, excite: bool = False, drop_path: float = 0
    ):
        super().__init__()
        self.drop_path = drop_path
        self.first = conv_norm(inputs, outputs, stride=stride)
        self.second = conv_norm(outputs, outputs)
        self.excite = SqueezeExcite(outputs) if excite else nn.Identity()
        shortcut = [nn.AvgPool2d(stride, ceil_mode=True)] if stride > 1 else []
        shortcut += [conv_norm(inputs, outputs, kernel=1)] if inputs != outputs else []
        self.shortcut = nn.Sequential(*shortcut)

    def forward(self, features: Tensor) -> Tensor:
        residual = self.excite(self.second(F.relu(self.first(features))))
        if self.training and self.drop_path:
            keep = 1 - self.drop_path
            residual = residual * residual.new_empty(len(residual), 1, 1, 1).bernoulli_(keep) / keep
        return F.relu(residual + self.shortcut(features))


class FaceNet(nn.Module):
    """Images in 0..1 [N, 1 or 3, H, W] to logits [N, num_classes]: normalise, features, pool, classify."""

    def __init__(self, features: nn.Module, channels: int, num_classes: int, dropout: float):
        super().__init__()
        self.features = features
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(channels, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        pooled = self.features(normalise(images)).mean((2, 3))  # [N, C]
        return self.classifier(self.dropout(pooled))


class Normalised(nn.Module):
    """Any backbone behind a normalisation by `mean` and `std`; `fixed_features` [N, D] are not images. dlib's
    network is called with `aligned` images."""

    def __init__(self, backbone: nn.Module, mean: Sequence[float] = (0.5,), std: Sequence[float] = (0.25,)):
        super().__init__()
        self.backbone = backbone
        for name, values in {"mean": mean, "std": std}.items():  # [C, 1, 1]
            self.register_buffer(name, torch.tensor(values)[:, None, None], persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        if images.ndim == 2:
            return self.backbone(images)
        return self.backbone(normalise(images, self.mean, self.std))


def normalise(images: Tensor, mean: Tensor | float = 0.5, std: Tensor | float = 0.25) -> Tensor:
    """Images from 0..1 to about zero mean and unit spread, by constants. To standardise each image would undo
    the changes of brightness and contrast, and made no clear difference on FER2013 (PublicTest, n = 3,589,
    one seed, `small`, 5 epochs: 57.6 and 57.1 %)."""
    return (images - mean) / std


@dataclass(frozen=True)
class ModelOptions:
    """The arguments of every function in `MODELS`."""

    num_classes: int
    width: float
    dropout: float
    drop_path: float = 0.0
    inputs: int = 1  # 1 for grey images, 3 for red, green and blue
    image_size: int = 48

    def channels(self, base: int) -> int:
        """`base` channels at this width, a multiple of 8, which matrix units prefer."""
        return max(8, round(base * self.width / 8) * 8)


def small(options: ModelOptions) -> nn.Module:
    """For short trials: the first convolution already halves the costly full resolution; 1.1 M parameters."""
    a, b, c, d = (options.channels(base) for base in (32, 64, 128, 256))
    blocks = [*_stem(options, a, kernel=6, stride=2), *_unit(a, b), nn.MaxPool2d(2)]
    blocks += [*_unit(b, c), *_unit(c, c), nn.MaxPool2d(2), *_unit(c, d), *_unit(d, d)]
    return FaceNet(nn.Sequential(*blocks), d, options.num_classes, options.dropout)


def medium(options: ModelOptions) -> nn.Module:
    """For CPUs, at half its width by default: the same stem, five residual blocks; 2.7 M parameters."""
    a, b, c = (options.channels(base) for base in (64, 128, 256))
    shapes = ((a, a, 1), (a, b, 2), (b, b, 1), (b, c, 2), (c, c, 1))
    blocks = [*_stem(options, a, kernel=6, stride=2), *_residual_blocks(shapes, options)]
    return FaceNet(nn.Sequential(*blocks), c, options.num_classes, options.dropout)


def large(options: ModelOptions) -> nn.Module:
    """For GPUs: full-resolution stem, eight residual blocks with squeeze-and-excitation; 11 M parameters."""
    a, b, c, d = (options.channels(base) for base in (64, 128, 256, 512))
    shapes = ((a, a, 1), (a, a, 1), (a, b, 2), (b, b, 1), (b, c, 2), (c, c, 1), (c, d, 2), (d, d, 1))
    blocks = [*_stem(options, a), *_residual_blocks(shapes, options, excite=True)]
    return FaceNet(nn.Sequential(*blocks), d, options.num_classes, options.dropout)


def vgg_bn(options: ModelOptions) -> nn.Module:
    """The peers' VGG with batch normalization: four stages of two convolutions, two layers of 4096
    (the layout published by Khaireddin and Chen 2021, arXiv 2105.03588)."""
    widths = [options.inputs, *map(options.channels, (64, 128, 256, 512))]
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [*_unit(inputs, outputs), *_unit(outputs, outputs), nn.MaxPool2d(2)]
    # Pooled to 2 x 2 as on their 40-pixel crops, so the number of parameters is theirs at any image size.
    layers += [nn.AdaptiveAvgPool2d(2), nn.Flatten()]
    hidden = options.channels(4096)
    for inputs in (4 * widths[-1], hidden):
        layers += [nn.Linear(inputs, hidden), nn.ReLU(inplace=True), nn.Dropout(options.dropout)]
    return Normalised(nn.Sequential(*layers, nn.Linear(hidden, options.num_classes)))


def resnet18(options: ModelOptions) -> nn.Module:
    """The peers' ResNet-18 for small images: a 3x3 stem without pooling (He et al. 2016)."""
    from torchvision.models import resnet18 as torchvision_resnet18

    _refuse_width("resnet18", options.width, "it is a fixed published network; try 'large'")
    backbone = torchvision_resnet18(num_classes=options.num_classes)
    backbone.conv1 = nn.Conv2d(options.inputs, 64, 3, padding=1, bias=False)
    backbone.maxpool = nn.Identity()
    backbone.fc = nn.Sequential(nn.Dropout(options.dropout), backbone.fc)
    return Normalised(backbone)


def face_resnet(options: ModelOptions) -> nn.Module:
    """dlib's network for recognising faces, for its published weights (`face_network`); 22.9 M parameters."""
    _refuse_width("face_resnet", options.width, "it is a fixed published network")
    constants = (MEAN, STD) if options.inputs == 3 else ([sum(MEAN) / 3], STD[:1])
    network = FaceResNet(options.inputs, options.num_classes, options.dropout)
    return Normalised(network, *(tuple(values) * N_CROPS for values in constants))


MODELS: dict[str, Callable[[ModelOptions], nn.Module]] = {
    build.__name__: build for build in (small, medium, large, vgg_bn, resnet18, face_resnet)
}


def create_model(
    name: str,
    num_classes: int,
    *,
    width: float = 1.0,
    dropout: float = 0.0,
    drop_path: float = 0.0,
    pretrained: bool = False,
    image_size: int = 48,
    channels: int = 1,
    auxiliary: int = 0,
) -> nn.Module:
    """Build a network for images in 0..1 [N, channels, H, W] that gives logits [N, num_classes].

    With `auxiliary` its classifier has so many more outputs, of a second task that shares all other layers
    (multi-task learning, Caruana 1997): in training mode it gives logits [N, num_classes + auxiliary], and
    else the first ones alone, or in `second_task` the others.

    The parameters are those of `Config`. `image_size` matters to timm's networks of fixed size, and to the
    first layers of this project's own; `channels` is 1 for grey images, 3 for colours. timm's networks
    normalise as their published weights want.

    Raises:
        ConfigError: an unknown name, or an option that this network does not have."""
    outputs = num_classes + auxiliary
    if name.startswith("timm/"):
        _refuse_width(name, width, "choose another timm backbone instead")
        options = {"num_classes": outputs, "drop_rate": dropout, "pretrained": pretrained}
        options |= {"in_chans": channels} | ({"drop_path_rate": drop_path} if drop_path else {})
        backbone = _timm_backbone(name.removeprefix("timm/"), image_size, options)
        if pretrained:
            start_classifier(backbone)
        model = Normalised(backbone, *(_constants(backbone, key, channels) for key in ("mean", "std")))
        return _first_task_alone(model, num_classes) if auxiliary else model
    check_choice("model", name, [*MODELS, "timm/NAME"])
    if pretrained:
        raise ConfigError(f"pretrained is for timm/NAME; {name!r} takes weights from a file: set weights")
    model = MODELS[name](ModelOptions(outputs, width, dropout, drop_path, channels, image_size))
    if drop_path and not any(isinstance(module, Residual) for module in model.modules()):
        problem = f"drop_path must be 0 for {name}, which has no residual blocks that can be skipped"
        raise ConfigError(f"{problem}; try 'medium'")
    return _first_task_alone(model, num_classes) if auxiliary else model


def _first_task_alone(model: nn.Module, num_classes: int) -> nn.Module:
    """The model, which outside training gives the first `num_classes` logits only. (A hook leaves the names
    of its weights as they are.)"""
    model.asked = slice(num_classes)
    model.register_forward_hook(
        lambda module, _, logits: logits if module.training else logits[:, module.asked]
    )
    return model


@contextmanager
def second_task(model: nn.Module) -> Iterator[None]:
    """Within it, a network with an `auxiliary` task answers that one in evaluation mode."""
    first = model.asked
    model.asked = slice(first.stop, None)
    try:
        yield
    finally:
        model.asked = first


def check_start_size(model: nn.Module, config: Config, channels: int) -> None:
    """A ConfigError if the network cannot take the small images of the first epochs."""
    published = getattr(getattr(model, "backbone", None), "pretrained_cfg", {})
    if is_face_network(model) or published.get("fixed_input_size", False):
        raise ConfigError(f"start_size must be 0 for {config.model}, which takes images of one size")
    try:
        with torch.no_grad():
            model.eval()(torch.zeros(1, channels, config.start_size, config.start_size))
    except RuntimeError as error:
        raise ConfigError(
            f"start_size {config.start_size} is too small for {config.model}, whose first layers shrink "
            f"images of {config.image_size} pixels at once: set start_size to 0, or to half of image_size"
        ) from error
    finally:
        model.train()


def blank_images(model: nn.Module, n: int, image_size: int) -> Tensor:
    """Black images [n, C, image_size, image_size], as this network is called with them, on its device."""
    channels = next((module.in_channels for module in model.modules() if isinstance(module, nn.Conv2d)), 1)
    if is_face_network(model):
        image_size, channels = SIZE, N_CROPS * channels
    return torch.zeros(n, channels, image_size, image_size, device=next(model.parameters()).device)


def model_cost(model: nn.Module, image_size: int) -> tuple[int, int]:
    """Parameters, and multiply-accumulate operations for one image of `image_size` pixels."""
    from torch.utils.flop_counter import FlopCounterMode

    was_training = model.training
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.eval()(blank_images(model, 1, image_size))
    model.train(was_training)
    return sum(weights.numel() for weights in model.parameters()), counter.get_total_flops() // 2


def _refuse_width(name: str, width: float, advice: str) -> None:
    """A ConfigError where somebody set the width of a network that has only one; the default is nobody's."""
    if width not in (1, Config.width):
        raise ConfigError(f"width must be 1 for {name}: {advice}")


def _unit(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> list[nn.Module]:
    return [conv_norm(inputs, outputs, kernel, stride), nn.ReLU(inplace=True)]


def _stem(options: ModelOptions, outputs: int, kernel: int = 3, stride: int = 1) -> list[nn.Module]:
    """The first convolution. Images of 68 pixels and more are pooled behind it by 2, of 136 and more by 4, so
    that the blocks see maps as large as for 48 pixels and cost no more. On the drawn faces that was better
    than a larger stride or a second convolution in its place (outputs/reference/README.md)."""
    factor = 2 ** max(0, round(math.log2(options.image_size / 48)))
    pool = [nn.MaxPool2d(factor)] if factor > 1 else []
    return [*_unit(options.inputs, outputs, kernel, stride), *pool]


def _residual_blocks(
    shapes: tuple[tuple[int, int, int], ...], options: ModelOptions, excite: bool = False
) -> list[Residual]:
    """A block for each (inputs, outputs, stride). The probability of skipping one grows up to `drop_path` at
    the last, since all blocks depend on the first ones."""
    n = len(shapes)
    return [Residual(*shape, excite, options.drop_path * k / n) for k, shape in enumerate(shapes, 1)]


def _timm_backbone(name: str, image_size: int, options: dict[str, Any]) -> nn.Module:
    import timm

    if not timm.is_model(name.split(".")[0]):
        near = difflib.get_close_matches(name, timm.list_models(), n=3)
        hint = f": did you mean one of {', '.join(near)}?" if near else ""
        raise ConfigError(f"unknown timm model {name!r}{hint}")
    try:
        if getattr(timm.get_pretrained_cfg(name), "fixed_input_size", False):
            options = options | {"img_size": image_size}
        return timm.create_model(name, **options)
    except Exception as error:
        reason = f"({type(error).__name__}: {error})"
        if not options["pretrained"] or isinstance(error, TypeError):  # an option it does not have
            raise ConfigError(f"timm/{name} cannot be built {reason}") from error
        raise ConfigError(
            f"pretrained: the weights of timm/{name} are not available {reason}. Without internet they come "
            f"from a file: {HOW_TO_ATTACH}"
        ) from error


def _constants(backbone: nn.Module, key: str, channels: int) -> list[float]:
    """What a timm network's published weights expect as `key` ("mean" or "std") of each channel."""
    values = getattr(backbone, "pretrained_cfg", {}).get(key, IMAGENET[key])
    return list(values) if channels == 3 else [sum(values) / len(values)]
