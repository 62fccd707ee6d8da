"""The figures of the error analysis: as in `plots`, each function draws on the `ax` it is given and returns
it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.offsetbox import AnnotationBbox, OffsetImage
from matplotlib.patches import Rectangle

from fer_utils.figures.faces import face_grid
from fer_utils.figures.plots import class_colors

BLUE, RED, GREY = "#30638e", "#d1495b", "#8d99ae"


def intervals(names: Sequence[str], table: pd.DataFrame, ax: Axes, value: str, sure: np.ndarray) -> Axes:
    """A dot with its interval (columns `low` and `high`) for each row, the first on top; those that are
    `sure` [N] to differ from 0 are coloured."""
    places = np.arange(len(table))
    colors = np.where(sure, np.where(table[value] > 0, BLUE, RED), GREY)
    ax.axvline(0, color="#444444", lw=1, ls=":")
    ax.hlines(places, table.low, table.high, colors=colors, lw=2)
    ax.scatter(table[value], places, color=colors, zorder=3)
    ax.set(yticks=places, yticklabels=list(names), ylim=(len(table) - 0.5, -0.5))
    ax.grid(axis="y", visible=False)
    return ax


def precision_and_recall(table: pd.DataFrame, ax: Axes) -> Axes:
    """Both for each class with their 95 % intervals, from `metrics.per_class_table`."""
    for name, color, offset in (("recall", BLUE, -0.15), ("precision", RED, 0.15)):
        places = np.arange(len(table)) + offset
        ax.hlines(places, 100 * table[f"{name}_low"], 100 * table[f"{name}_high"], color=color, lw=2)
        ax.scatter(100 * table[name], places, color=color, zorder=3, label=name)
    labels = [f"{name} (n = {n:,})" for name, n in zip(table.index, table.n, strict=True)]
    ax.set(
        yticks=range(len(table)), yticklabels=labels, xlabel="%, 95 % interval", title="Precision and recall"
    )
    ax.invert_yaxis()
    ax.grid(axis="y", visible=False)
    ax.legend(frameon=False, loc="lower left")
    return ax


def coverage(table: pd.DataFrame, ax: Axes) -> Axes:
    """Accuracy by the share of answers kept, from `metrics.coverage_table`."""
    ax.fill_between(
        100 * table.coverage, 100 * table.ci_low, 100 * table.ci_high, color=BLUE, alpha=0.2, lw=0
    )
    ax.plot(100 * table.coverage, 100 * table.accuracy, "o-", ms=4, color=BLUE)
    ax.set(
        xlabel="surest answers kept (%)", ylabel="accuracy among them (%)", title="Accuracy against coverage"
    )
    return ax


def face_map(plane: np.ndarray, images: np.ndarray, labels: np.ndarray, class_names: Sequence[str], ax: Axes,
             clusters: np.ndarray, size: float = 0.7) -> Axes:  # fmt: skip
    """Pictures as dots in the plane [N, 2], coloured by class, with the most typical face of each cluster."""
    colors = class_colors(class_names)
    for k, name in enumerate(class_names):
        ax.scatter(*plane[labels == k].T, 5, color=colors[k], label=name, alpha=0.7, lw=0)
    for cluster in np.unique(clusters):
        members = np.flatnonzero(clusters == cluster)
        middle = np.median(plane[members], axis=0)
        nearest = members[((plane[members] - middle) ** 2).sum(1).argmin()]
        picture = OffsetImage(
            images[nearest, 0], zoom=size * 48 / images.shape[-1], cmap="gray", clim=(0, 255)
        )
        box = AnnotationBbox(picture, middle, pad=0.1, bboxprops={"lw": 0.5})
        ax.add_artist(box)
        label = {"ha": "center", "fontsize": 8, "bbox": {"facecolor": "white", "lw": 0, "pad": 0.5}}
        ax.annotate(str(cluster), middle, (0, 27 * size), textcoords="offset points", zorder=9, **label)
    ax.set(xticks=[], yticks=[], title="Last layer, by t-SNE")
    ax.legend(frameon=False, markerscale=3, loc="upper left", bbox_to_anchor=(1, 1))
    return ax


def region_boxes(mean_face: np.ndarray, regions: Mapping[str, tuple[slice, slice]], ax: Axes) -> Axes:
    """The boxes of `saliency.face_regions` on the mean face [H, W]."""
    ax.imshow(mean_face, cmap="gray")
    for name, (rows, columns) in regions.items():
        left, top = columns.start - 0.5, rows.start - 0.5
        size = columns.stop - columns.start, rows.stop - rows.start
        ax.add_patch(Rectangle((left, top), *size, fill=False, color="#edae49", lw=1.5))
        box = {"facecolor": "#edae49", "pad": 0.5, "lw": 0}
        ax.text(left + 0.5, top + 0.5, name, fontsize=7, va="top", bbox=box)
    ax.set(xticks=[], yticks=[], title="What is hidden")
    ax.grid(visible=False)
    return ax


def mean_maps(
    images: np.ndarray, maps: np.ndarray, labels: np.ndarray, class_names: Sequence[str], ax: Axes
) -> Axes:
    """The mean map [N, H, W] of each class over its mean face."""
    rows = [labels == k for k in range(len(class_names))]
    present = [k for k, mine in enumerate(rows) if mine.any()]
    faces = np.array([images[rows[k]].mean(0) for k in present]).reshape(-1, *images.shape[1:])
    means = np.array([maps[rows[k]].mean(0) for k in present]).reshape(-1, *maps.shape[1:])
    captions = [f"{class_names[k]}\nn = {rows[k].sum():,}" for k in present]
    return face_grid(faces.astype(np.uint8), ax, max(1, len(present)), captions, maps=means)


def loss_bars(table: pd.DataFrame, ax: Axes) -> Axes:
    """Points of accuracy lost with each part of the face, from `saliency.occlusion_table`."""
    errors = np.stack([table.lost - table.low, table.high - table.lost])
    ax.barh(table.index, table.lost, xerr=errors, color=BLUE, ecolor="#444444")
    ax.axvline(0, color="#444444", lw=1)
    ax.set(xlabel="points of accuracy lost, 95 % interval", title=f"Without it (n = {table.n.iloc[0]:,})")
    ax.invert_yaxis()
    ax.grid(axis="y", visible=False)
    return ax


def learning_curve(table: pd.DataFrame, ax: Axes) -> Axes:
    """Accuracy by the number of training pictures, from `levers.curve_table`; its last row is an estimate."""
    points = 100 * table[["accuracy", "low", "high"]]
    errors = np.stack([points.accuracy - points.low, points.high - points.accuracy])
    measured, ahead = slice(0, -1), slice(-1, None)
    for rows, style, color, label in (
        (measured, "o-", BLUE, "measured"),
        (ahead, "o", RED, "twice the pictures, estimated"),
    ):
        ax.errorbar(table.n[rows], points.accuracy[rows], errors[:, rows], fmt=style, color=color, capsize=3,
                    label=label)  # fmt: skip
    ax.plot(table.n[-2:], points.accuracy[-2:], ls=":", color=RED)
    ax.set_xscale("log", base=2)
    ax.set_xticks(table.n, [f"{n:,}" for n in table.n])
    ax.set(xlabel="training pictures", ylabel="valid accuracy (%)", title="Learning curve")
    ax.legend(frameon=False, loc="lower right")
    return ax


def slice_gaps(table: pd.DataFrame, ax: Axes) -> Axes:
    """The gap of every slice, from `slices.score_slices`."""
    names = [f"{row.what} {row.which} (n = {row.n:,})" for row in table.itertuples()]
    intervals(names, 100 * table[["gap", "low", "high"]], ax, "gap", (table.p_corrected < 0.05).to_numpy())
    ax.set(xlabel="points of accuracy against what its classes reach, 95 % interval", title="Slices")
    ax.tick_params(axis="y", labelsize=8)
    return ax
