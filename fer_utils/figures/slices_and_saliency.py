"""Figures of slices, saliency, label intervals and learning: each draws on its `ax` and returns it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.offsetbox import AnnotationBbox, OffsetImage
from matplotlib.patches import Rectangle

from fer_utils.figures.faces import class_means, face_grid
from fer_utils.figures.plots import dots_with_intervals
from fer_utils.figures.style import BLUE, DARK, GREY, RED, YELLOW, class_colors, label_rows


def intervals(
    names: Sequence[str], table: pd.DataFrame, ax: Axes, value: str, significant: np.ndarray
) -> Axes:
    """A dot with its interval (columns `low` and `high`) for each row, the first on top; `significant` ones,
    bool [N], are coloured by their sign."""
    colors = np.where(significant, np.where(table[value] > 0, BLUE, RED), GREY)
    ax.axvline(0, color=DARK, lw=1, ls=":")
    dots_with_intervals(ax, table[value], table.low, table.high, colors)
    return label_rows(ax, names)


def face_map(plane: np.ndarray, images: np.ndarray, labels: np.ndarray, class_names: Sequence[str], ax: Axes,
             clusters: np.ndarray) -> Axes:  # fmt: skip
    """Images as dots in the plane [N, 2], coloured by class, with the most central face of each cluster."""
    for k, (name, color) in enumerate(zip(class_names, class_colors(class_names), strict=True)):
        ax.scatter(*plane[labels == k].T, 5, color=color, label=name, alpha=0.7, lw=0)
    for cluster in np.unique(clusters):
        members = np.flatnonzero(clusters == cluster)
        middle = np.median(plane[members], axis=0)
        nearest = members[((plane[members] - middle) ** 2).sum(1).argmin()]
        face = OffsetImage(images[nearest, 0], zoom=34 / images.shape[-1], cmap="gray", clim=(0, 255))
        ax.add_artist(AnnotationBbox(face, middle, pad=0.1, bboxprops={"lw": 0.5}))
        label = {"ha": "center", "fontsize": 8, "bbox": {"facecolor": "white", "lw": 0, "pad": 0.5}}
        ax.annotate(str(cluster), middle, (0, 19), textcoords="offset points", zorder=9, **label)
    ax.set(xticks=[], yticks=[], title="Last layer, by t-SNE")
    ax.legend(frameon=False, markerscale=3, loc="upper left", bbox_to_anchor=(1, 1))
    return ax


def region_boxes(mean_face: np.ndarray, regions: Mapping[str, tuple[slice, slice]], ax: Axes) -> Axes:
    """The boxes of `saliency.face_regions` on the mean face [H, W]."""
    ax.imshow(mean_face, cmap="gray")
    for name, (rows, columns) in regions.items():
        left, top = columns.start - 0.5, rows.start - 0.5
        size = columns.stop - columns.start, rows.stop - rows.start
        ax.add_patch(Rectangle((left, top), *size, fill=False, color=YELLOW, lw=1.5))
        box = {"facecolor": YELLOW, "pad": 0.5, "lw": 0}
        ax.text(left + 0.5, top + 0.5, name, fontsize=7, va="top", bbox=box)
    ax.set(xticks=[], yticks=[], title="Hidden regions")
    ax.grid(visible=False)
    return ax


def mean_maps(
    images: np.ndarray, maps: np.ndarray, labels: np.ndarray, class_names: Sequence[str], ax: Axes
) -> Axes:
    """The mean map [N, H, W] of each class over its mean face."""
    present, counts = np.unique(labels, return_counts=True)
    faces, heat = (class_means(values, labels, class_names)[present] for values in (images, maps))
    captions = [f"{class_names[k]}\nn = {n:,}" for k, n in zip(present, counts, strict=True)]
    return face_grid(faces.astype(np.uint8), ax, max(1, len(present)), captions, maps=heat)


def loss_bars(table: pd.DataFrame, ax: Axes) -> Axes:
    """Points of accuracy lost without each part of the face, from `saliency.occlusion_table`."""
    errors = np.stack([table.lost - table.low, table.high - table.lost])
    ax.barh(range(len(table)), table.lost, xerr=errors, color=BLUE, ecolor=DARK)
    ax.axvline(0, color=DARK, lw=1)
    ax.set(xlabel="points of accuracy lost, 95 % interval", title=f"Without it (n = {table.n.iloc[0]:,})")
    return label_rows(ax, table.index)


def learning_curve(table: pd.DataFrame, ax: Axes) -> Axes:
    """Accuracy by the number of training images, from `next_steps.learning_curve_table`; its last row is an
    estimate."""
    points = 100 * table[["accuracy", "low", "high"]]
    errors = np.stack([points.accuracy - points.low, points.high - points.accuracy])
    for rows, style, color, label in (
        (slice(0, -1), "o-", BLUE, "measured"),
        (slice(-1, None), "o", RED, "twice the images, estimated"),
    ):
        ax.errorbar(table.n[rows], points.accuracy[rows], errors[:, rows], fmt=style, color=color, capsize=3,
                    label=label)  # fmt: skip
    ax.plot(table.n[-2:], points.accuracy[-2:], ls=":", color=RED)
    ax.set_xscale("log", base=2)
    ax.set_xticks(table.n, [f"{n:,}" for n in table.n])
    ax.set(xlabel="training images", ylabel="valid accuracy (%)", title="Learning curve")
    ax.legend(frameon=False, loc="lower right")
    return ax


def slice_gaps(table: pd.DataFrame, ax: Axes) -> Axes:
    """The gap of every slice, from `slices.score_slices`."""
    names = [f"{row.what} {row.which} (n = {row.n:,})" for row in table.itertuples()]
    intervals(names, 100 * table[["gap", "low", "high"]], ax, "gap", (table.p_corrected < 0.05).to_numpy())
    ax.set(xlabel="points of accuracy above what its classes reach, 95 % interval", title="Slices")
    ax.tick_params(axis="y", labelsize=8)
    return ax
