"""Figures made of faces: rows and grids of images, mean faces, galleries with captions.

torch is imported for type checkers only: `01_eda` does not need it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fer_utils.competition import Split

if TYPE_CHECKING:
    from torch import Tensor


def face_grid(
    images: np.ndarray | Tensor,
    ax: Axes,
    columns: int = 10,
    captions: Sequence[str] | None = None,
    row_labels: Sequence[str] | None = None,
    maps: np.ndarray | None = None,
) -> Axes:
    """Images [N, 1, H, W] side by side in rows, with an optional caption under each or label per row, and
    with `maps` [N, H, W] drawn over them, bright where these are high.

    Images are uint8 or floats in 0..1, arrays or tensors of any device.
    """
    images = _grey_levels(images)
    n, height, width = len(images), *images.shape[2:]
    rows = max(1, -(-n // columns))
    gap, foot = max(2, width // 16), (height // 3 if captions is not None else 0)
    canvas = np.full((rows * (height + foot + gap), columns * (width + gap)), 255, np.uint8)
    heat = np.full(canvas.shape, np.nan) if maps is not None else None
    for i, image in enumerate(images[:, 0]):
        top, left = (i // columns) * (height + foot + gap), (i % columns) * (width + gap)
        place = np.s_[top : top + height, left : left + width]
        canvas[place] = image
        if heat is not None:
            heat[place] = maps[i]
        if captions is not None:
            below = left + width / 2, top + height + 1
            ax.text(*below, captions[i], ha="center", va="top", fontsize=8, linespacing=1.1)
    ax.imshow(canvas, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    if maps is not None and maps.any():
        ax.imshow(heat, cmap="inferno", vmin=0, vmax=np.nanquantile(heat, 0.99), alpha=0.45)
    ax.set(xticks=[], yticks=[])
    if row_labels is not None:
        ax.set_yticks([r * (height + foot + gap) + height / 2 for r in range(rows)], row_labels)
    ax.grid(visible=False)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    return ax


def faces_by_class(
    split: Split, class_names: Sequence[str], ax: Axes, columns: int = 12, seed: int = 0
) -> Axes:
    """A row of random faces of each class."""
    rng = np.random.default_rng(seed)
    blank = np.full((1, *split.images.shape[1:]), 255, np.uint8)
    rows = []
    for label in range(len(class_names)):
        members = np.flatnonzero(split.labels == label)
        chosen = rng.choice(members, min(columns, len(members)), replace=False)
        rows += [split.images[chosen], np.repeat(blank, columns - len(chosen), 0)]
    return face_grid(np.concatenate(rows), ax, columns, row_labels=class_names)


def mean_faces(split: Split, class_names: Sequence[str], ax: Axes) -> Axes:
    """The mean image of each class, with its contrast stretched to show the differences."""
    means = []
    for label in range(len(class_names)):
        members = split.images[split.labels == label]
        mean = members.mean(0, dtype=np.float64) if len(members) else np.full(split.images.shape[1:], 127.0)
        low, high = mean.min(), max(mean.max(), mean.min() + 1)
        means.append((255 * (mean - low) / (high - low)).astype(np.uint8))
    captions = [f"{name}\nn = {(split.labels == k).sum():,}" for k, name in enumerate(class_names)]
    return face_grid(np.stack(means), ax, columns=len(class_names), captions=captions)


def mean_differences(split: Split, class_names: Sequence[str], ax: Axes) -> Axes:
    """The mean image of each class minus the mean of all, without the difference in brightness: red is
    brighter, blue is darker."""
    overall = split.images.mean(0, dtype=np.float64)[0]
    gap = np.full((len(overall), max(2, len(overall) // 16)), np.nan)
    tiles = []
    for label in range(len(class_names)):
        members = split.images[split.labels == label]
        difference = members.mean(0, dtype=np.float64)[0] - overall if len(members) else 0 * overall
        tiles += [difference - difference.mean(), gap]
    canvas = np.concatenate(tiles[:-1], axis=1)
    limit = max(1, np.nanmax(np.abs(canvas)))
    ax.imshow(canvas, cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest")
    width = overall.shape[1]
    ax.set_xticks([width / 2 + k * (width + gap.shape[1]) for k in range(len(class_names))], class_names)
    ax.set(yticks=[], title=f"Mean of the class minus the mean of all (±{limit:.0f} grey levels)")
    ax.grid(visible=False)
    ax.spines[:].set_visible(False)
    return ax


def face_rows(
    rows: Mapping[str, np.ndarray | Tensor], ax: Axes, captions: Sequence[str] | None = None
) -> Axes:
    """Named rows of equally many images, each as for `face_grid`."""
    stacks = [_grey_levels(images) for images in rows.values()]
    return face_grid(np.concatenate(stacks), ax, len(stacks[0]), captions=captions, row_labels=list(rows))


def _grey_levels(images: np.ndarray | Tensor) -> np.ndarray:
    images = np.asarray(images.cpu() if hasattr(images, "cpu") else images)
    return images if images.dtype == np.uint8 else (255 * images).round().astype(np.uint8)


def label_captions(targets: Tensor, class_names: Sequence[str]) -> list[str]:
    """The two main classes of each target [N, C] with their shares: captions for mixup and cutmix."""
    rows = (100 * targets).round().int().tolist()
    ranked = [sorted(zip(row, class_names, strict=True), reverse=True)[:2] for row in rows]
    return ["\n".join(f"{name} {share} %" for share, name in pairs if share) for pairs in ranked]


def face_gallery(images: np.ndarray, captions: Sequence[str], columns: int = 8) -> Figure:
    """A figure of images [N, 1, H, W] with a caption of two lines under each; its height fits them."""
    rows, width = max(1, -(-len(images) // columns)), 11.0
    fig, ax = plt.subplots(figsize=(width, 0.3 + rows * 1.38 * width / columns))
    if len(images):
        face_grid(images, ax, columns, captions)
    else:
        ax.set_axis_off()
        ax.text(0.5, 0.5, "none", ha="center", transform=ax.transAxes)
    return fig


def table_gallery(images: np.ndarray, rows: pd.DataFrame, caption: str, columns: int = 8) -> Figure:
    """`face_gallery` of the images [N, 1, H, W] whose numbers are the index of `rows`.

    `caption` is a format string of the columns, for instance "is {true}\\nsaid {predicted} {confidence:.0%}".
    """
    captions = [caption.format(**row) for row in rows.to_dict("records")]
    return face_gallery(images[rows.index], captions, columns)
