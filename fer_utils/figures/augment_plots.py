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
    """The face [1, C, H, W] transformed by exactly `value`; positive shifts go to the right and down."""
    own = dict.fromkeys(AUGMENTATION, torch.zeros_like(face[:, :1, :1, :1]))
    own[name] = torch.full_like(own[name], value)
    if name in ("brightness", "contrast"):
        return relight(face, 1 + own["contrast"], own["brightness"])
    if name in ("hue", "saturation"):
        return recolour(face, own["hue"], 1 + own["saturation"])
    return affine(face, own["rotate"], own["scale"], -own["shift"], -own["shift"], own["shear"])


def ranges(face: Tensor, config: Config, ax: Axes, generator: torch.Generator, columns: int = 9) -> Axes:
    """A row for each transform that is on, from one end of its range at this strength to the other. `flip`
    has its two outcomes, `erase` boxes from the smallest to the largest of 200 draws."""
    rows, captions = {}, []
    for name in AUGMENTATION:
        strength = getattr(config, name)
        if strength == 0 or (name in ("hue", "saturation") and face.shape[1] == 1):
            continue
        if name == "flip":
            tiles, below = torch.cat([face, face.flip(-1)]), ["as it is", "mirrored"] + [""] * (columns - 2)
        elif name == "erase":
            tiles, below = _boxes(face, columns, generator)
        else:
            tiles, below = _row(face, name, np.linspace(-strength, strength, columns))
        rows[f"{name} {strength:g}"] = tiles
        captions += below
    return face_rows(rows or {"no transform is on": face}, ax, captions)


def growing(
    face: Tensor, steps: Mapping[str, tuple[float, Sequence[float]]], ax: Axes, generator: torch.Generator
) -> Axes:
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
    tiles, captions = [], []
    for value in values:
        tiles.append(at_strength(face, name, value))
        text = "0" if value == 0 else f"{value:+.2g}" if abs(value) < 1 else f"{value:+.3g}"
        captions.append(text + _cut_off(face, tiles[-1]) * (name in ("brightness", "contrast")))
    return torch.cat(tiles), captions


def _cut_off(face: Tensor, tile: Tensor) -> str:
    """The share of the pixels that a change of light makes black or white, in any colour, in its own line."""
    share = float((((tile == 0) | (tile == 1)) & (tile != face)).any(1).float().mean())
    return f"\n{share:.0%} cut off" if share >= 0.005 else ""


def _boxes(face: Tensor, columns: int, generator: torch.Generator) -> tuple[Tensor, list[str]]:
    """The face under boxes of all sizes, and captions."""
    draws = random_erase(face.expand(200, -1, -1, -1), 1.0, generator)
    areas = (draws != face).float().mean((1, 2, 3))
    chosen = areas.argsort()[torch.linspace(0, len(areas) - 1, columns).long()]
    return draws[chosen], [f"{area:.0%} covered" for area in areas[chosen].tolist()]


def label_captions(targets: Tensor, class_names: Sequence[str]) -> list[str]:
    """The labels of each target [N, C] with their shares in percent, the largest first; one alone without."""
    captions = []
    for row in (100 * targets).tolist():
        shares = sorted(zip(row, class_names, strict=True), reverse=True)
        lines = [f"{name} {_percent(share)}" for share, name in shares if share >= 0.05]
        captions.append("\n".join(lines) if len(lines) > 1 else shares[0][1])
    return captions


def _percent(share: float) -> str:
    return "<1 %" if share < 0.5 else ">99 %" if share >= 99.5 else f"{share:.0f} %"


def batch_images(
    before: Tensor, mixed: Tensor, shares: Tensor, labels: Tensor, class_names: Sequence[str], ax: Axes
) -> Axes:
    """Images of a batch with their labels int64 [B] (before `label_smoothing`), from
    `training_loop.first_batch`; where they are mixed, below the image and its partner."""
    captions = _mixed_labels(shares, labels, class_names)
    if torch.equal(shares, torch.eye(len(shares), device=shares.device)):
        return face_grid(mixed[:24], ax, 12, captions[:24])
    partner, own = _partners(shares), [class_names[label] for label in labels]
    rows = {"image": before[:12], "partner": before[partner][:12], "in the batch": mixed[:12]}
    return face_rows(rows, ax, own[:12] + [own[k] for k in partner[:12]] + captions[:12])


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
    own, state = [class_names[label] for label in labels], generator.get_state()
    rows, captions = {"image": images, "partner": images}, {"image": own}
    for name, alphas in {"mixup": (alpha, 0.0), "cutmix": (0.0, alpha)}.items():
        generator.set_state(state)  # the partners are drawn first: the same for both
        rows[name], shares = mix(images, torch.eye(len(images), device=images.device), *alphas, generator)
        partner = _partners(shares)
        rows["partner"], captions["partner"] = images[partner], [own[k] for k in partner]
        captions[name] = _mixed_labels(shares, labels, class_names)
    return face_rows(rows, ax, sum(captions.values(), []))


def _mixed_labels(shares: Tensor, labels: Tensor, class_names: Sequence[str]) -> list[str]:
    """The captions of images that are mixed by these shares [N, N]."""
    return label_captions(shares @ F.one_hot(labels, len(class_names)).to(shares), class_names)


def _partners(shares: Tensor) -> Tensor:
    """The other image in each mixture [N, N], or the image itself, where there is none."""
    others = shares.clone().fill_diagonal_(0)
    itself = torch.arange(len(shares), device=shares.device)
    return torch.where(others.sum(1) > 0, others.argmax(1), itself)
