"""The peers' published input pipelines and recipes, written again with torchvision.

usef-kh is Khaireddin and Chen 2021 (arXiv 2105.03588), LetheSec and WuJie1010 are GitHub users whose FER2013
repositories are the most copied. Their images pass one by one through PIL, as in their code.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from fer_utils.config import Config
from fer_utils.learning.models import create_model


def same_operations(config: Config) -> v2.Compose:
    """torchvision's transforms of the kinds and with the numbers of `augment`, one draw for each call. (Its
    brightness is a factor, and it fills borders and boxes with black.)"""
    scale = (1 - config.scale, 1 + config.scale)
    return v2.Compose(
        [
            v2.RandomHorizontalFlip(config.flip),
            v2.RandomAffine(
                config.rotate,
                (config.shift, config.shift),
                scale,
                interpolation=v2.InterpolationMode.BILINEAR,
            ),
            v2.ColorJitter(config.brightness, config.contrast),
            v2.RandomErasing(config.erase, (0.02, 0.2)),
        ]
    )


def per_image(config: Config) -> v2.Compose:
    """`same_operations` on a PIL image, as tutorials and most repositories do it."""
    flip, affine, light, erase = same_operations(config).transforms
    to_tensor = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True)]
    return v2.Compose([v2.ToPILImage(), flip, affine, light, *to_tensor, erase])


class Crops(nn.Module):
    """Several crops of an image [K, 1, h, w], each erased by itself."""

    def __init__(self, crop: v2.Transform, erase: float):
        super().__init__()
        self.crop = crop
        self.to_tensor = v2.Compose(
            [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.RandomErasing(erase)]
        )

    def forward(self, image: Image) -> Tensor:
        return torch.stack([self.to_tensor(one) for one in self.crop(image)])


def usef_kh() -> v2.Compose:
    """Ten crops of 40 pixels from every image, all trained on."""
    return v2.Compose(
        [
            v2.ToPILImage(),
            v2.RandomResizedCrop(48, scale=(0.8, 1.2)),
            v2.RandomApply([v2.RandomAffine(0, translate=(0.2, 0.2))], 0.5),
            v2.RandomHorizontalFlip(),
            v2.RandomApply([v2.RandomRotation(10)], 0.5),
            Crops(v2.TenCrop(40), 0.5),
        ]
    )


def lethesec() -> v2.Compose:
    """The same with colour jitter and five crops."""
    return v2.Compose(
        [
            v2.ToPILImage(),
            v2.RandomResizedCrop(48, scale=(0.8, 1.2)),
            v2.RandomApply([v2.ColorJitter(0.5, 0.5, 0.5)], 0.5),
            v2.RandomApply([v2.RandomAffine(0, translate=(0.2, 0.2))], 0.5),
            v2.RandomHorizontalFlip(),
            v2.RandomApply([v2.RandomRotation(10)], 0.5),
            Crops(v2.FiveCrop(40), 0.5),
        ]
    )


def wujie1010() -> v2.Compose:
    """A random crop of 44 pixels and a flip."""
    to_tensor = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True)]
    return v2.Compose([v2.ToPILImage(), v2.RandomCrop(44), v2.RandomHorizontalFlip(), *to_tensor])


@dataclass(frozen=True)
class Recipe:
    """What a peer trains with.

    Attributes:
        model: its network, by the name that `create_model` knows.
        transform: an image [1, H, W] to a tensor [1, h, w], or to several [K, 1, h, w].
        crop: side in pixels of what the network sees.
        epochs: as published.
        schedule: of the learning rate: "plateau" (three quarters of it after 5 epochs without a better
            validation accuracy) or "steps" (nine tenths of it every 5 epochs, first after 85).
        clip: the greatest value of a gradient; 0: any.
    """

    name: str
    model: str
    dropout: float
    transform: v2.Compose
    crop: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    nesterov: bool
    epochs: int
    schedule: str
    clip: float = 0.0

    def build(self, num_classes: int, device: torch.device) -> tuple[nn.Module, torch.optim.Optimizer]:
        """Its network and its optimizer, at the rate it starts with."""
        model = create_model(self.model, num_classes, dropout=self.dropout).to(device)
        return model, torch.optim.SGD(
            model.parameters(),
            self.learning_rate,
            momentum=0.9,
            nesterov=self.nesterov,
            weight_decay=self.weight_decay,
        )


RECIPES = (
    Recipe("usef-kh", "vgg_bn", 0.2, usef_kh(), 40, 64, 0.01, 1e-4, True, 300, "plateau"),
    Recipe(
        "WuJie1010 (ResNet18)", "resnet18", 0.5, wujie1010(), 44, 128, 0.01, 5e-4, False, 250, "steps", 0.1
    ),
)


class Pictures(Dataset):
    """Images one by one through a transform."""

    def __init__(self, images: np.ndarray, labels: np.ndarray, transform: v2.Compose):
        self.images, self.labels, self.transform = images, labels, transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, row: int) -> tuple[Tensor, int]:
        return self.transform(torch.from_numpy(self.images[row])), int(self.labels[row])


def loader(
    images: np.ndarray, labels: np.ndarray, transform: v2.Compose, batch_size: int, workers: int = 0
) -> DataLoader:
    """Shuffled batches, as the peers make them."""
    return DataLoader(
        Pictures(images, labels, transform), batch_size, shuffle=True, drop_last=True, num_workers=workers
    )
