"""Figures made of faces: rows and grids of images, mean faces, galleries with captions.

torch is imported for type checkers only: `01_eda` does not need it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fer_utils.competition import Split
from fer_utils.data.decode_images import with_channels

if TYPE_CHECKING:
    from torch import Tensor


def face_grid(
    images: np.ndarray | Tensor,
    ax: Axes,
    columns: int = 10,
    captions: Sequence[str] = (),
    row_labels: Sequence[str] = (),
    maps: np.ndarray | None = None,
    cmap: str = "gray",
) -> Axes:
    """Images [N, 1 or 3, H, W] side by side in rows, with an optional caption under each or label per row,
    and with `maps` [N, H, W] drawn over them, bright where these are high.

    Images are uint8 or floats in 0..1, arrays or tensors of any device.
    """
    images = _grey_levels(images)
    n, channels, height, width = images.shape
    rows, gap = max(1, -(-n // columns)), max(2, width // 16)
    down, across = height + gap + height // 3 * bool(len(captions)), width + gap

    def draw(planes: np.ndarray, **options: Any) -> None:
        empty = np.nan if planes.shape[3] == 1 else 0.0  # both stay white
        tiles = np.full((rows * columns, down, across, planes.shape[3]), empty)
        tiles[:n, :height, :width] = planes
        canvas = tiles.reshape(rows, columns, down, across, -1).swapaxes(1, 2)
        ax.imshow(canvas.reshape(rows * down, columns * across, -1), interpolation="nearest", **options)

    if channels == 1:
        draw(images[:, 0, :, :, None], cmap=cmap, vmin=0, vmax=255)
    else:  # a fourth channel says where there is an image
        opaque = np.full((n, 1, height, width), 255, np.uint8)
        draw(np.concatenate([images, opaque], 1).transpose(0, 2, 3, 1) / 255)
    if maps is not None and maps.any():
        draw(maps[..., None], cmap="inferno", vmin=0, vmax=np.quantile(maps, 0.99), alpha=0.45)
    for i, caption in enumerate(captions):
        below = (i % columns) * across + width / 2, (i // columns) * down + height + 1
        caption = re.sub(r"(?<=\d)%", " %", caption)  # as in the texts; format's percent has no space
        ax.text(*below, caption, ha="center", va="top", fontsize=8, linespacing=1.1)
    ax.set(xticks=[], yticks=[])
    ax.set_yticks(np.arange(len(row_labels)) * down + height / 2, row_labels)
    ax.grid(visible=False)
    sns.despine(ax=ax, left=True, bottom=True)
    return ax


def faces_by_class(
    split: Split, class_names: Sequence[str], ax: Axes, columns: int = 12, seed: int = 0
) -> Axes:
    """A row of random faces of each class."""
    rng, rows = np.random.default_rng(seed), {}
    for label, name in enumerate(class_names):
        members = np.flatnonzero(split.labels == label)
        rows[name] = split.images[rng.choice(members, min(columns, len(members)), replace=False)]
    return face_rows(rows, ax)


def mean_faces(split: Split, class_names: Sequence[str], ax: Axes) -> Axes:
    """The mean image of each class, with its contrast stretched to show the differences."""
    means = class_means(split.images, split.labels, class_names)
    low = means.min((1, 2, 3), keepdims=True)
    stretched = (means - low) / np.maximum(means.max((1, 2, 3), keepdims=True) - low, 1)
    captions = [f"{name}\nn = {(split.labels == k).sum():,}" for k, name in enumerate(class_names)]
    return face_grid(np.nan_to_num(stretched), ax, len(class_names), captions)


def mean_differences(split: Split, class_names: Sequence[str], ax: Axes) -> Axes:
    """The mean image of each class minus the mean of all, without the difference in brightness: red is
    brighter, blue is darker."""
    images = with_channels(split.images, 1)
    differences = class_means(images, split.labels, class_names) - images.mean(0)
    differences = np.nan_to_num(differences - differences.mean((1, 2, 3), keepdims=True))
    limit = max(1, np.abs(differences).max())
    face_grid(0.5 + differences / (2 * limit), ax, len(class_names), class_names, cmap="RdBu_r")
    ax.set_title(
        f"Mean of the class minus the mean of all: full red +{limit:.0f}, full blue -{limit:.0f} grey levels"
    )
    return ax


def class_means(values: np.ndarray, labels: np.ndarray, class_names: Sequence[str]) -> np.ndarray:
    """The mean of images or maps [N, ...] in each class: float64 [C, ...]; nan for a class without any."""
    means = np.full((len(class_names), *values.shape[1:]), np.nan)
    for label in np.unique(labels):
        means[label] = values[labels == label].mean(0, dtype=np.float64)
    return means


def face_rows(rows: Mapping[str, np.ndarray | Tensor], ax: Axes, captions: Sequence[str] = ()) -> Axes:
    """Named rows of images, each as for `face_grid`; a shorter one ends with white, for which `captions` has
    an empty text."""
    columns, stacks = max(map(len, rows.values())), []
    for images in map(_grey_levels, rows.values()):
        white = np.full((columns - len(images), *images.shape[1:]), 255, np.uint8)
        stacks += [images, white]
    return face_grid(np.concatenate(stacks), ax, columns, captions, list(rows))


def _grey_levels(images: np.ndarray | Tensor) -> np.ndarray:
    images = np.asarray(images.cpu() if hasattr(images, "cpu") else images)
    return images if images.dtype == np.uint8 else (255 * images).round().astype(np.uint8)


def face_gallery(images: np.ndarray, captions: Sequence[str], columns: int = 8) -> Figure:
    """A figure of images [N, 1, H, W] with a caption of two lines under each; its height fits them."""
    rows = max(1, -(-len(images) // columns))
    fig, ax = plt.subplots(figsize=(11, 0.3 + rows * 15.18 / columns))
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


def error_rows(images: np.ndarray, errors: pd.DataFrame, axs: Sequence[Axes], seed: int = 0) -> None:
    """A row of random faces for each of the most frequent kinds of error, one kind on each of `axs`, with the
    confidence of the answer under each face; `errors` are rows of `predictions.prediction_table`."""
    kinds = errors.true + " taken for " + errors.predicted
    commonest = kinds.value_counts().index[: len(axs)]
    for ax in axs[len(commonest) :]:
        ax.set_axis_off()
    if errors.empty:
        axs[0].set_title("There are no errors")
    for ax, kind in zip(axs, commonest, strict=False):
        rows = errors[kinds == kind].sample(frac=1, random_state=seed)[:12]
        face_grid(images[rows.index], ax, 12, [f"{sure:.0%}" for sure in rows.confidence])
        ax.set_title(f"{kind}: {(kinds == kind).sum():,} errors")


def mean_maps(
    images: np.ndarray, maps: np.ndarray, labels: np.ndarray, class_names: Sequence[str], ax: Axes
) -> Axes:
    """The mean map [N, H, W] of each class over its mean face; the title names the classes without any."""
    present, counts = np.unique(labels, return_counts=True)
    faces, heat = (class_means(values, labels, class_names)[present] for values in (images, maps))
    captions = [f"{class_names[k]}\nn = {n:,}" for k, n in zip(present, counts, strict=True)]
    face_grid(faces.astype(np.uint8), ax, max(1, len(present)), captions, maps=heat)
    absent = [name for k, name in enumerate(class_names) if k not in present]
    title = "Mean map of the correct predictions"
    ax.set_title(title + f"; none is correct for {', '.join(absent)}" * bool(absent))
    return ax
