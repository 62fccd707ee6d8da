"""Figures of slices, saliency, label intervals and learning: each draws on its `ax` and returns it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from fer_utils.figures.faces import class_means, face_grid
from fer_utils.figures.plots import dots_with_intervals
from fer_utils.figures.style import BLUE, DARK, GREY, RED, YELLOW, label_rows


def error_rows(images: np.ndarray, errors: pd.DataFrame, axs: Sequence[Axes], seed: int = 0) -> None:
    """A row of random faces for each of the most frequent kinds of error, one kind on each of `axs`, with the
    certainty of the answer under each face; `errors` are rows of `predictions.prediction_table`."""
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


def intervals(
    names: Sequence[str], table: pd.DataFrame, ax: Axes, value: str, significant: np.ndarray
) -> Axes:
    """A dot with its interval (columns `low` and `high`) for each row, the first on top; `significant` ones,
    bool [N], are coloured by their sign. A row without a value has no dot."""
    colors = np.where(significant, np.where(table[value] > 0, BLUE, RED), GREY)
    ax.axvline(0, color=DARK, lw=1, ls=":")
    dots_with_intervals(ax, (table[value], table.low, table.high), colors)
    return label_rows(ax, names)


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
    """The mean map [N, H, W] of each class over its mean face; the title names the classes without any."""
    present, counts = np.unique(labels, return_counts=True)
    faces, heat = (class_means(values, labels, class_names)[present] for values in (images, maps))
    captions = [f"{class_names[k]}\nn = {n:,}" for k, n in zip(present, counts, strict=True)]
    face_grid(faces.astype(np.uint8), ax, max(1, len(present)), captions, maps=heat)
    absent = [name for k, name in enumerate(class_names) if k not in present]
    title = "Mean map of the correct predictions"
    ax.set_title(title + f"; none is correct for {', '.join(absent)}" * bool(absent))
    return ax


def loss_bars(table: pd.DataFrame, ax: Axes) -> Axes:
    """Points of accuracy lost without each part of the face, from `saliency.occlusion_table`."""
    errors = np.stack([table.lost - table.low, table.high - table.lost])
    ax.barh(range(len(table)), table.lost, xerr=errors, color=BLUE, ecolor=DARK)
    ax.axvline(0, color=DARK, lw=1)
    ax.set(xlabel="points of accuracy lost, 95 % interval", title=f"Without it (n = {table.n.iloc[0]:,})")
    return label_rows(ax, table.index)


def gains(changes: pd.DataFrame, ax: Axes) -> Axes:
    """What each change gains, from `next_steps.changes_table`; where it was not measured, why."""
    intervals(changes.change, changes, ax, "gain", changes.significant.to_numpy(bool))
    for row, why in enumerate(changes.why):
        ax.text(0, row, f" {why}", va="center", fontsize=9, color=DARK, style="italic")
    if changes.gain.isna().all():
        ax.set(xticks=[], xlim=(-1, 1))
    ax.set_xlabel("points of accuracy, 95 % interval")
    ax.set_title("Gain: blue helps, red harms, grey may be nothing")
    return ax


def learning_curve(table: pd.DataFrame, ax: Axes) -> Axes:
    """Accuracy by the number of training images, from `next_steps.learning_curve_table`."""
    points = 100 * table[["accuracy", "low", "high"]]
    errors = np.stack([points.accuracy - points.low, points.high - points.accuracy]).clip(min=0)
    parts = {"measured": (~table.estimated, "o-", BLUE)}
    if table.estimated.any():
        parts["twice the images, estimated"] = (table.estimated, "o", RED)
    for label, (rows, style, color) in parts.items():
        look = {"fmt": style, "color": color, "capsize": 3, "label": label}
        ax.errorbar(table.n[rows], points.accuracy[rows], errors[:, rows.to_numpy(bool)], **look)
    if table.estimated.any():
        ax.plot(table.n[-2:], points.accuracy[-2:], ls=":", color=RED)
        ax.legend(frameon=False, loc="lower right")
    ax.set_xscale("log", base=2)
    ax.set_xticks(table.n, [f"{n:,}" for n in table.n])
    ax.set(xlabel="training images", ylabel="valid accuracy (%)", title="Learning curve")
    return ax


def slice_gaps(table: pd.DataFrame, ax: Axes) -> Axes:
    """The gap of every slice, from `slices.score_slices`."""
    names = [f"{row.what} {row.which} (n = {row.n:,})" for row in table.itertuples()]
    intervals(names, 100 * table[["gap", "low", "high"]], ax, "gap", (table.p_corrected < 0.05).to_numpy())
    ax.set(xlabel="points of accuracy above what its classes reach, 95 % interval", title="Slices")
    ax.tick_params(axis="y", labelsize=8)
    return ax
