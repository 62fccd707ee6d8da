"""Random transforms of a batch on its device, with random numbers of its own for every image; and the fixed
views of test-time augmentation.

All functions take and return float images [N, C, H, W] with values in 0..1: C is 1 for grey, 3 for colours;
N_CROPS (of `fer_utils.faces.align`) times as many for the crops of a face, which count as one image.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from fer_utils.config import Config

IMAGES_OF_A_CORE = 64
# A view of test-time augmentation: mirrored?, shift right and down (fractions of the size), zoom.
# Fixed, so that predictions repeat; the plain view first.
_SHIFTS = [(0.0, 0.0), (0.05, 0.0), (-0.05, 0.0), (0.0, 0.05), (0.0, -0.05)]
VIEWS: dict[str, list[tuple[bool, float, float, float]]] = {
    "plain": [(False, 0.0, 0.0, 1.0)],
    "mirror": [(flip, 0.0, 0.0, 1.0) for flip in (False, True)],
    "shift": [(flip, dx, dy, 1.0) for flip in (False, True) for dx, dy in _SHIFTS],
    "zoom": [(flip, 0.0, 0.0, zoom) for flip in (False, True) for zoom in (1.0, 0.92, 1.08)],
}


def to_float(images: Tensor) -> Tensor:
    """uint8 [N, C, H, W] to float32 in 0..1. What is no image (`fixed_features`) keeps its values."""
    return images.float().div_(255) if images.dtype == torch.uint8 else images.float()


def channels_last(images: Tensor) -> Tensor:
    """Images [N, C, H, W] in the order in memory that convolutions are fastest with; features as they are."""
    return images.contiguous(memory_format=torch.channels_last) if images.ndim == 4 else images


def at_once(most: int, device: torch.device) -> int:
    """How many images to compute together without gradients: of few, what a layer says stays in the cache of
    a CPU's core (512 at once take 1.4 times as long)."""
    return min(most, IMAGES_OF_A_CORE * torch.get_num_threads()) if device.type == "cpu" else most


def augment(images: Tensor, config: Config, generator: torch.Generator) -> Tensor:
    """A random variant of every image, with the strengths in `config`; a step of strength zero does nothing.
    Rotation, scale, shift and shear are one warp, so that pixels are interpolated once."""
    images = random_flip(images, config.flip, generator)
    images = random_affine(images, config.rotate, config.scale, config.shift, config.shear, generator)
    images = random_light(images, config.brightness, config.contrast, generator)
    images = random_color(images, config.hue, config.saturation, generator)
    return random_erase(images, config.erase, generator)


def random_flip(images: Tensor, probability: float, generator: torch.Generator) -> Tensor:
    """Mirror each image left to right with `probability`."""
    if probability == 0:
        return images
    return torch.where(_uniform(images, 0, 1, generator) < probability, images.flip(-1), images)


def random_affine(
    images: Tensor, rotate: float, scale: float, shift: float, shear: float, generator: torch.Generator
) -> Tensor:
    """Warp each image by up to `rotate` degrees, a factor of 1 +- `scale`, `shift` of the size in both
    directions and `shear` degrees. Border pixels are repeated outwards."""
    if rotate == scale == shift == shear == 0:
        return images
    angle, slant = (_uniform(images, -limit, limit, generator) for limit in (rotate, shear))
    change = _uniform(images, -scale, scale, generator)
    dx, dy = (_uniform(images, -shift, shift, generator) for _ in range(2))
    return affine(images, angle, change, dx, dy, slant)


def affine(images: Tensor, angle: Tensor, change: Tensor, dx: Tensor, dy: Tensor, slant: Tensor) -> Tensor:
    """Warp each image by its own numbers, each [N, 1, 1, 1]: degrees, change of size (positive: larger),
    shifts as shares of the size (positive: to the left and up), degrees of shear."""
    factor, slant = 1 / (1 + change), torch.tan(slant * (math.pi / 180))
    cos, sin = (wave(angle * (math.pi / 180)) * factor for wave in (torch.cos, torch.sin))
    matrix = torch.stack([cos, slant * cos - sin, 2 * dx, sin, slant * sin + cos, 2 * dy], dim=1)
    return warp(images, matrix.view(-1, 2, 3))


def random_light(images: Tensor, brightness: float, contrast: float, generator: torch.Generator) -> Tensor:
    """Scale each image around its own mean by 1 +- `contrast` and add up to +- `brightness`."""
    if brightness == contrast == 0:
        return images
    gain = 1 + _uniform(images, -contrast, contrast, generator)
    offset = _uniform(images, -brightness, brightness, generator)
    return relight(images, gain, offset)


def relight(images: Tensor, gain: Tensor, offset: Tensor) -> Tensor:
    """Scale each image around its own mean by its `gain` and add its `offset`, both [N, 1, 1, 1]; what would
    be darker than black or brighter than white is cut off."""
    mean = images.mean((1, 2, 3), keepdim=True)
    return torch.addcmul(mean * (1 - gain) + offset, images, gain).clamp_(0, 1)


# From red, green and blue to luma and two axes of chroma (YIQ of NTSC, 1953), where a hue is an angle.
_YIQ = ((0.299, 0.587, 0.114), (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112))


def random_color(images: Tensor, hue: float, saturation: float, generator: torch.Generator) -> Tensor:
    """Turn the hues of each image by up to +- `hue` of the colour circle and scale its saturation by
    1 +- `saturation`. Grey images stay as they are."""
    if hue == saturation == 0 or images.shape[1] % 3:  # N_CROPS is no multiple of 3
        return images
    turn = _uniform(images, -hue, hue, generator)
    return recolour(images, turn, 1 + _uniform(images, -saturation, saturation, generator))


def recolour(images: Tensor, turn: Tensor, factor: Tensor) -> Tensor:
    """Images [N, 3 K, H, W] with their hues turned by a share of the colour circle and their saturation
    scaled, at the same brightness; both [N, 1, 1, 1]."""
    to_yiq = torch.tensor(_YIQ)
    cos, sin = (wave(2 * math.pi * turn) * factor for wave in (torch.cos, torch.sin))
    one, zero = torch.ones_like(cos), torch.zeros_like(cos)
    turned = torch.stack([one, zero, zero, zero, cos, -sin, zero, sin, cos], dim=1).view(-1, 3, 3)
    matrix = torch.linalg.inv(to_yiq).to(images.device) @ turned @ to_yiq.to(images.device)
    return torch.einsum("nij,nkjhw->nkihw", matrix, images.unflatten(1, (-1, 3))).flatten(1, 2).clamp_(0, 1)


def random_erase(images: Tensor, probability: float, generator: torch.Generator) -> Tensor:
    """Cover a rectangle of 2 to 20 % of the area with the image's own mean (Zhong et al. 2017). On
    a square image its longer side is at most 1.7 times the shorter one (in the paper 3.3)."""
    if probability == 0:
        return images
    height, width = images.shape[-2:]
    area = _uniform(images, 0.02, 0.2, generator)
    ratio = torch.exp(_uniform(images, -1, 1, generator) * math.log(3.0) / 2)
    box_h, box_w = torch.sqrt(area * ratio) * height, torch.sqrt(area / ratio) * width
    top = _uniform(images, 0, 1, generator) * (height - box_h)
    left = _uniform(images, 0, 1, generator) * (width - box_w)
    chosen = _uniform(images, 0, 1, generator) < probability
    y, x = _pixel_centres(images)
    inside_y, inside_x = (y >= top) & (y < top + box_h) & chosen, (x >= left) & (x < left + box_w)
    return torch.where(inside_y & inside_x, images.mean((1, 2, 3), keepdim=True), images)


def mix(
    images: Tensor, targets: Tensor, mixup: float, cutmix: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Blend images and their targets [N, C] with those of a random partner: `mixup` and `cutmix` are the
    alpha of a Beta draw for each image (Zhang et al. 2018; Yun et al. 2019). With both, half get each."""
    if mixup == cutmix == 0:
        return images, targets
    partner = torch.randperm(len(images), generator=generator, device=images.device)
    use_cut = _uniform(images, 0, 1, generator) < (0.5 if mixup and cutmix else float(cutmix > 0))
    cut, blended = (_beta(images, alpha, generator) for alpha in (cutmix or mixup, mixup or cutmix))
    keep = torch.where(use_cut, cut, blended)
    mask = _cut_mask(images, keep, generator)
    blend = torch.where(use_cut, mask, keep)
    share = torch.where(use_cut, mask.mean((1, 2, 3), keepdim=True), keep).view(-1, 1)
    mixed = blend * images + (1 - blend) * images[partner]
    return mixed, share * targets + (1 - share) * targets[partner]


def warp(images: Tensor, matrix: Tensor) -> Tensor:
    """Resample each image through its own affine `matrix` [N, 2, 3] (torch's affine_grid convention)."""
    height, width = images.shape[-2:]
    # affine_grid's own layout, [N, H, W, 2], is slow to fill on a CPU: two planes take a third of the time.
    x = torch.arange(1 - width, width, 2, device=images.device) / width
    y = torch.arange(1 - height, height, 2, device=images.device) / height
    across, down, offset = matrix.unbind(-1)  # each [N, 2]
    rows = down[:, :, None] * y + offset[:, :, None]
    planes = across[:, :, None, None] * x + rows[..., None]  # [N, 2, H, W]
    return F.grid_sample(images, planes.permute(0, 2, 3, 1), padding_mode="border", align_corners=False)


def view(images: Tensor, flip: bool, dx: float, dy: float, zoom: float) -> Tensor:
    """One fixed view of every image; the plain view is the input itself."""
    if (dx, dy, zoom) != (0.0, 0.0, 1.0):
        matrix = torch.tensor([[1 / zoom, 0, -2 * dx], [0, 1 / zoom, -2 * dy]], device=images.device)
        images = warp(images, matrix.expand(len(images), 2, 3))
    return images.flip(-1) if flip else images


def resize(images: Tensor, size: int) -> Tensor:
    """A batch at `size` x `size` pixels, antialiased, on its device: for training that begins with small
    images."""
    if images.shape[-2:] == (size, size):
        return images
    return F.interpolate(images, size=(size, size), mode="bilinear", antialias=True)


def _uniform(images: Tensor, low: float, high: float, generator: torch.Generator) -> Tensor:
    """A uniform draw for each image, [N, 1, 1, 1]."""
    return torch.rand(len(images), 1, 1, 1, generator=generator, device=images.device) * (high - low) + low


def _beta(images: Tensor, alpha: float, generator: torch.Generator) -> Tensor:
    """A Beta(alpha, alpha) draw for each image, [N, 1, 1, 1]: torch.distributions takes no generator."""
    shape = torch.full((2, len(images), 1, 1, 1), float(alpha), device=images.device)
    first, second = torch._standard_gamma(shape, generator=generator)
    return first / (first + second).clamp_min(1e-12)


def _cut_mask(images: Tensor, keep: Tensor, generator: torch.Generator) -> Tensor:
    """Masks [N, 1, H, W]: 0 in a random box of area 1 - `keep`, cut at the border, 1 elsewhere."""
    height, width = images.shape[-2:]
    half = torch.sqrt(1 - keep) / 2
    cy, cx = (_uniform(images, 0, 1, generator) for _ in range(2))
    y, x = _pixel_centres(images)
    return (((y / height - cy).abs() >= half) | ((x / width - cx).abs() >= half)).float()


def _pixel_centres(images: Tensor) -> tuple[Tensor, Tensor]:
    """Rows [H, 1] and columns [W] of the pixels' centres, in pixels."""
    height, width = images.shape[-2:]
    y, x = (torch.arange(n, device=images.device) + 0.5 for n in (height, width))
    return y.view(-1, 1), x
