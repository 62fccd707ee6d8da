"""Figures of augmentation: transforms from one end of their range to the other, and what a batch holds.

Faces are float images [N, 1 or 3, H, W] with values in 0..1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from torch import Tensor
from torch.nn import functional as F

from fer_utils.config import AUGMENTATION, Config
from fer_utils.figures.faces import face_grid, face_rows
from fer_utils.learning.augment import affine, mix, random_erase, recolour, relight


def at_strength(face: Tensor, name: str, value: float) -> Tensor:
    """The face [1, C, H, W] transformed by exactly `value`, without chance; shifts go along the diagonal."""
    own, zero = torch.full_like(face[:, :1, :1, :1], value), torch.zeros_like(face[:, :1, :1, :1])
    if name == "brightness":
        return relight(face, zero + 1, own)
    if name == "contrast":
        return relight(face, own + 1, zero)
    if name in ("hue", "saturation"):
        return recolour(face, own if name == "hue" else zero, own + 1 if name == "saturation" else zero + 1)
    angle, change, shift, slant = (
        own if name == step else zero for step in ("rotate", "scale", "shift", "shear")
    )
    return affine(face, angle, change, shift, shift, slant)


def ranges(face: Tensor, config: Config, ax: Axes, generator: torch.Generator, columns: int = 9) -> Axes:
    """A row for each transform that is on, from one end of its range at this strength to the other. `flip`
    has its two outcomes, `erase` boxes from the smallest to the largest of 200 draws."""
    rows, captions = {}, []
    colours = () if face.shape[1] == 3 else ("hue", "saturation")
    for name in (name for name in AUGMENTATION if getattr(config, name) and name not in colours):
        strength, label = getattr(config, name), f"{name} {getattr(config, name):g}"
        if name == "flip":
            rows[label] = torch.cat(
                [face, face.flip(-1), torch.ones_like(face).expand(columns - 2, -1, -1, -1)]
            )
            captions += ["as it is", "mirrored"] + [""] * (columns - 2)
        elif name == "erase":
            rows[label], areas = _boxes(face, columns, generator)
            captions += [f"{area:.0%} covered" for area in areas]
        else:
            values = np.linspace(-strength, strength, columns)
            rows[label], below = _row(face, name, values)
            captions += below
    return face_rows(rows, ax, captions)


def growing(face: Tensor, steps: Mapping[str, tuple[float, Sequence[float]]], ax: Axes,
            generator: torch.Generator) -> Axes:  # fmt: skip
    """A row for each transform in `steps`, at these strengths (ascending) in both directions; those from the
    limit on, the first of each pair, are marked as too much. `erase` covers the face with 0, 1, ... boxes."""
    rows, captions = {}, []
    for name, (limit, strengths) in steps.items():
        values: Sequence[float] = [-value for value in reversed(strengths)] + [0, *strengths]
        if name == "erase":
            values, tiles = range(len(values)), [face]
            for _ in values[1:]:
                tiles.append(random_erase(tiles[-1], 1.0, generator))
            rows["boxes of erase"], below = torch.cat(tiles), [str(n) for n in values]
        else:
            rows[name], below = _row(face, name, values)
        marks = ["\ntoo much" * (abs(value) >= limit) for value in values]
        captions += [text.split("\n")[0] + mark for text, mark in zip(below, marks, strict=True)]
    return face_rows(rows, ax, captions)


def _row(face: Tensor, name: str, values: Sequence[float]) -> tuple[Tensor, list[str]]:
    """The face at each value, and captions: the value, and below it the share of pixels that are cut off."""
    tiles = [at_strength(face, name, value) for value in values]
    lit = name in ("brightness", "contrast")
    return torch.cat(tiles), [
        _signed(value) + (_cut_off(face, tile) if lit else "")
        for value, tile in zip(values, tiles, strict=True)
    ]


def _signed(value: float) -> str:
    return "0" if value == 0 else f"{value:+.2g}" if abs(value) < 1 else f"{value:+.3g}"


def _cut_off(face: Tensor, tile: Tensor) -> str:
    """Of the pixels, the shares that a change of light makes black or white, in any colour, in a line of its
    own."""
    shares = {
        word: float(((tile == end) & (face != end)).any(1).float().mean())
        for end, word in ((0, "black"), (1, "white"))
    }
    words = [f"{share:.0%} {word}" for word, share in shares.items() if share >= 0.005]
    return "\n" + ", ".join(words) if words else ""


def _boxes(face: Tensor, columns: int, generator: torch.Generator) -> tuple[Tensor, list[float]]:
    draws = random_erase(face.expand(200, -1, -1, -1), 1.0, generator)
    areas = (draws != face).float().mean((1, 2, 3)).cpu()
    chosen = areas.argsort()[torch.linspace(0, len(areas) - 1, columns).long()]
    return draws[chosen.to(draws.device)], areas[chosen].tolist()


def label_captions(targets: Tensor, class_names: Sequence[str]) -> list[str]:
    """The labels of each target [N, C] with their shares in percent, the largest first; one alone without."""
    captions = []
    for row in (100 * targets).tolist():
        found = [(share, name) for share, name in zip(row, class_names, strict=True) if share >= 0.05]
        shares = [
            (f"{share:.0f}" if 0.5 <= share < 99.5 else "<1" if share < 1 else ">99") for share, _ in found
        ]
        ranked = sorted(zip(found, shares, strict=True), reverse=True)
        lines = [name if len(found) == 1 else f"{name} {text} %" for (_, name), text in ranked]
        captions.append("\n".join(lines))
    return captions


def batch_pictures(
    before: Tensor, mixed: Tensor, shares: Tensor, labels: Tensor, class_names: Sequence[str], ax: Axes
) -> Axes:
    """Pictures of a batch with their labels (before `label_smoothing`), from `training_loop.first_batch`;
    where they are mixed, below the picture and its partner.

    Args:
        labels: int64 [B], of the batch.
    """
    targets = F.one_hot(labels, len(class_names)).float().to(shares.device)
    captions = label_captions(shares @ targets, class_names)
    if torch.equal(shares, torch.eye(len(shares), device=shares.device)):
        return face_grid(mixed[:24], ax, 12, captions[:24])
    partner = _partners(shares)
    own = label_captions(targets, class_names)
    rows = {"picture": before[:12], "partner": before[partner][:12], "in the batch": mixed[:12]}
    return face_rows(rows, ax, own[:12] + [own[k] for k in partner[:12].tolist()] + captions[:12])


def blends(
    images: Tensor,
    labels: Tensor,
    class_names: Sequence[str],
    alpha: float,
    ax: Axes,
    generator: torch.Generator,
) -> Axes:
    """Images [N, C, H, W], their partners, and their blends by mixup and by cutmix with this alpha, each with
    its label or labels."""
    targets = F.one_hot(labels, len(class_names)).float().to(images.device)
    own, state = label_captions(targets, class_names), generator.get_state()
    rows, captions = {"picture": images}, [*own]
    for name, alphas in {"mixup": (alpha, 0.0), "cutmix": (0.0, alpha)}.items():
        generator.set_state(state)  # the partners are drawn first: the same for both
        mixed, shares = mix(images, torch.eye(len(images), device=images.device), *alphas, generator)
        partner = _partners(shares)
        if "partner" not in rows:
            rows["partner"] = images[partner]
            captions += [own[k] for k in partner.tolist()]
        rows[name] = mixed
        captions += label_captions(shares @ targets, class_names)
    return face_rows(rows, ax, captions)


def _partners(shares: Tensor) -> Tensor:
    """The other picture in each mixture [N, N], or the picture itself, where there is none."""
    others = shares.clone().fill_diagonal_(0)
    itself = torch.arange(len(shares), device=shares.device)
    return torch.where(others.sum(1) > 0, others.argmax(1), itself)
