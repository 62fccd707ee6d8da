"""Random transforms of a whole batch on its device, a different draw for every picture; and the fixed
views of test-time augmentation.

All functions take and return float pictures [N, 1, H, W] with values in 0..1.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from fer_utils.config import Config

# A view of test-time augmentation: mirrored?, shift right and down (fractions of the size), zoom.
# Fixed, so that a prediction is the same every time (peers draw theirs at random); the plain view first.
_SHIFTS = [(0.0, 0.0), (0.05, 0.0), (-0.05, 0.0), (0.0, 0.05), (0.0, -0.05)]
VIEWS: dict[str, list[tuple[bool, float, float, float]]] = {
    "plain": [(False, 0.0, 0.0, 1.0)],
    "mirror": [(flip, 0.0, 0.0, 1.0) for flip in (False, True)],
    "shift": [(flip, dx, dy, 1.0) for flip in (False, True) for dx, dy in _SHIFTS],
    "zoom": [(flip, 0.0, 0.0, zoom) for flip in (False, True) for zoom in (1.0, 0.92, 1.08)],
}


def to_float(images: Tensor) -> Tensor:
    """uint8 [N, 1, H, W] to float32 in 0..1."""
    return images.float().div_(255)


def augment(images: Tensor, config: Config, generator: torch.Generator) -> Tensor:
    """Draw one random variant of every picture, by the strengths in `config`; zero turns a step off exactly.

    The order: mirror, one affine warp (rotation, scale, shift, shear together, so that pixels are
    interpolated once), contrast and brightness, erasing.
    """
    images = random_flip(images, config.flip, generator)
    images = random_affine(images, config.rotate, config.scale, config.shift, config.shear, generator)
    images = random_light(images, config.brightness, config.contrast, generator)
    return random_erase(images, config.erase, generator)


def random_flip(images: Tensor, probability: float, generator: torch.Generator) -> Tensor:
    """Mirror each picture left to right with `probability`."""
    if probability == 0:
        return images
    chosen = _uniform(len(images), 0, 1, images, generator) < probability
    return _blend(images, images.flip(-1), chosen.view(-1, 1, 1, 1))


def random_affine(
    images: Tensor, rotate: float, scale: float, shift: float, shear: float, generator: torch.Generator
) -> Tensor:
    """Warp each picture by up to `rotate` degrees, a factor of 1 +- `scale`, `shift` of the size in both
    directions and `shear` degrees. Border pixels are repeated outwards."""
    if rotate == scale == shift == shear == 0:
        return images
    n = len(images)
    angle = _uniform(n, -rotate, rotate, images, generator) * (math.pi / 180)
    slant = torch.tan(_uniform(n, -shear, shear, images, generator) * (math.pi / 180))
    factor = 1 / (1 + _uniform(n, -scale, scale, images, generator))
    dx, dy = (_uniform(n, -2 * shift, 2 * shift, images, generator) for _ in range(2))
    cos, sin = torch.cos(angle) * factor, torch.sin(angle) * factor
    matrix = torch.stack([cos, slant * cos - sin, dx, sin, slant * sin + cos, dy], dim=1)
    return warp(images, matrix.view(n, 2, 3))


def random_light(images: Tensor, brightness: float, contrast: float, generator: torch.Generator) -> Tensor:
    """Scale each picture around its own mean by 1 +- `contrast` and add up to +- `brightness`."""
    if brightness == contrast == 0:
        return images
    n = len(images)
    gain = 1 + _uniform(n, -contrast, contrast, images, generator).view(-1, 1, 1, 1)
    offset = _uniform(n, -brightness, brightness, images, generator).view(-1, 1, 1, 1)
    mean = images.mean((1, 2, 3), keepdim=True)
    return torch.addcmul(mean * (1 - gain) + offset, images, gain).clamp_(0, 1)


def random_erase(images: Tensor, probability: float, generator: torch.Generator) -> Tensor:
    """Cover a rectangle of 2 to 20 % of the area with the picture's own mean (Zhong et al. 2017)."""
    if probability == 0:
        return images
    n, _, height, width = images.shape
    area = _uniform(n, 0.02, 0.2, images, generator)
    ratio = torch.exp(_uniform(n, -1, 1, images, generator) * math.log(3.0) / 2)
    box_h, box_w = torch.sqrt(area * ratio) * height, torch.sqrt(area / ratio) * width
    top = _uniform(n, 0, 1, images, generator) * (height - box_h)
    left = _uniform(n, 0, 1, images, generator) * (width - box_w)
    y = torch.arange(height, device=images.device).view(1, -1, 1) + 0.5
    x = torch.arange(width, device=images.device).view(1, 1, -1) + 0.5
    chosen = _uniform(n, 0, 1, images, generator) < probability
    inside_y = (y >= top.view(-1, 1, 1)) & (y < (top + box_h).view(-1, 1, 1)) & chosen.view(-1, 1, 1)
    inside_x = (x >= left.view(-1, 1, 1)) & (x < (left + box_w).view(-1, 1, 1))
    mask = inside_y.float() * inside_x.float()
    return _blend(images, images.mean((1, 2, 3), keepdim=True), mask.unsqueeze(1))


def mix(
    images: Tensor, targets: Tensor, mixup: float, cutmix: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Blend pictures and their targets [N, C] with those of a random partner.

    `mixup` and `cutmix` are the alpha of a Beta(alpha, alpha) draw, one draw for each picture
    (Zhang et al. 2018; Yun et al. 2019). With both on, half of the pictures get each.
    """
    if mixup == cutmix == 0:
        return images, targets
    n = len(images)
    partner = torch.randperm(n, generator=generator, device=images.device)
    use_cut = _uniform(n, 0, 1, images, generator) < (0.5 if mixup and cutmix else float(cutmix > 0))
    keep = torch.where(
        use_cut, _beta(n, cutmix or mixup, images, generator), _beta(n, mixup or cutmix, images, generator)
    )
    mask = _cut_mask(images, keep, generator)
    blend = torch.where(use_cut.view(-1, 1, 1, 1), mask, keep.view(-1, 1, 1, 1).expand_as(mask))
    share = torch.where(use_cut, mask.mean((1, 2, 3)), keep).unsqueeze(1)
    mixed = blend * images + (1 - blend) * images[partner]
    return mixed, share * targets + (1 - share) * targets[partner]


def warp(images: Tensor, matrix: Tensor) -> Tensor:
    """Resample each picture through its own affine `matrix` [N, 2, 3] (torch's affine_grid convention)."""
    height, width = images.shape[-2:]
    # affine_grid's own layout, [N, H, W, 2], is slow to fill on a CPU: two planes take a third of the time.
    x = torch.arange(1 - width, width, 2, device=images.device) / width
    y = torch.arange(1 - height, height, 2, device=images.device) / height
    across, down, offset = matrix.unbind(-1)  # each [N, 2]
    rows = down[:, :, None] * y + offset[:, :, None]
    planes = across[:, :, None, None] * x + rows[..., None]  # [N, 2, H, W]
    grid = planes.permute(0, 2, 3, 1)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)


def view(images: Tensor, flip: bool, dx: float, dy: float, zoom: float) -> Tensor:
    """One fixed view of every picture; the plain view returns its input untouched."""
    if (dx, dy, zoom) != (0.0, 0.0, 1.0):
        matrix = torch.tensor([[1 / zoom, 0, -2 * dx], [0, 1 / zoom, -2 * dy]], device=images.device)
        images = warp(images, matrix.expand(len(images), 2, 3))
    return images.flip(-1) if flip else images


def resize(images: Tensor, size: int) -> Tensor:
    """Pictures at `size` x `size` pixels, antialiased; untouched when they have that size."""
    if images.shape[-2:] == (size, size):
        return images
    return F.interpolate(images, size=(size, size), mode="bilinear", antialias=True, align_corners=False)


def _blend(images: Tensor, others: Tensor, mask: Tensor) -> Tensor:
    """`others` where `mask` is one, `images` where it is zero, exactly; on CPUs faster than torch.where."""
    return torch.lerp(images, others, mask.float())


def _uniform(n: int, low: float, high: float, like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.rand(n, generator=generator, device=like.device) * (high - low) + low


def _beta(n: int, alpha: float, like: Tensor, generator: torch.Generator) -> Tensor:
    """Beta(alpha, alpha) draws [N] from two gamma draws, which take a generator."""
    shape = torch.full((2, n), float(alpha), device=like.device)
    first, second = torch._standard_gamma(shape, generator=generator)
    return first / (first + second).clamp_min(1e-12)


def _cut_mask(images: Tensor, keep: Tensor, generator: torch.Generator) -> Tensor:
    """Masks [N, 1, H, W]: 0 in a random box of area 1 - `keep`, cut at the border, 1 elsewhere."""
    n, _, height, width = images.shape
    half = torch.sqrt(1 - keep) / 2
    cy, cx = (_uniform(n, 0, 1, images, generator) for _ in range(2))
    y = (torch.arange(height, device=images.device).view(1, -1, 1) + 0.5) / height
    x = (torch.arange(width, device=images.device).view(1, 1, -1) + 0.5) / width
    inside = ((y - cy.view(-1, 1, 1)).abs() < half.view(-1, 1, 1)) & (
        (x - cx.view(-1, 1, 1)).abs() < half.view(-1, 1, 1)
    )
    return (~inside).unsqueeze(1).float()
