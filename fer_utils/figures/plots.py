"""Figures of data, training and errors: each function draws on the `ax` it is given and returns it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.patches import Rectangle

from fer_utils.competition import Competition
from fer_utils.figures.style import (  # noqa: F401 (notebooks use plots.set_style and others)
    BLUE,
    DARK,
    GREY,
    LINES,
    RED,
    SPLIT_COLORS,
    YELLOW,
    class_colors,
    label_rows,
    png_bytes,
    save_figure,
    set_style,
)


def class_counts(competition: Competition, ax: Axes) -> Axes:
    """Share of each class in every labelled split, with the counts on the bars."""
    labelled = {name: split for name, split in competition.splits.items() if split.labels is not None}
    names, height = competition.class_names, 0.8 / len(labelled)
    for row, (split_name, split) in enumerate(labelled.items()):
        counts = np.bincount(split.labels, minlength=len(names))
        places = np.arange(len(names)) + (row - (len(labelled) - 1) / 2) * height
        shares = 100 * counts / max(1, counts.sum())
        bars = ax.barh(places, shares, height * 0.92, color=class_colors(names), alpha=1 - 0.3 * row)
        ax.bar_label(bars, [f"{split_name} {count:,}" for count in counts], fontsize=8, padding=3)
    ax.set(xlabel="share of the split (%)", title="Classes")
    ax.margins(x=0.16)
    return label_rows(ax, names)


def learning_curves(history: pd.DataFrame, axs: Sequence[Axes], chosen_epoch: int) -> Sequence[Axes]:
    """Loss on the first of two axes, accuracy on the second, by epoch; the chosen epoch is marked. One legend
    below is that of both."""
    lines = {
        "train_{}": ("train", "o-", SPLIT_COLORS["train"]),
        "valid_{}": ("valid, weights", "s--", SPLIT_COLORS["valid"]),
        "valid_{}_average": ("valid, moving average", "^-.", BLUE),
    }
    for ax, quantity, factor, unit in ((axs[0], "loss", 1, ""), (axs[1], "accuracy", 100, " (%)")):
        for column, (label, look, color) in lines.items():
            if (name := column.format(quantity)) in history:
                ax.plot(history.epoch, factor * history[name], look, ms=4, color=color, label=label)
        ax.axvline(chosen_epoch, color=DARK, lw=1, ls=":", label=f"chosen: epoch {chosen_epoch}")
        ax.set(xlabel="epoch", ylabel=f"{quantity}{unit}", title=quantity.capitalize())
        ax.xaxis.get_major_locator().set_params(integer=True)
    fig, (handles, labels) = axs[0].figure, axs[0].get_legend_handles_labels()
    columns = 4 if fig.get_figwidth() > 6 else 2
    fig.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False, fontsize=9)
    return axs


def curves_together(histories: Mapping[str, pd.DataFrame], ax: Axes) -> Axes:
    """The validation accuracy of several runs by epoch, of the better of weights and moving average; at most
    as many as there are LINES. A dot marks the best epoch of each."""
    colors = sns.color_palette("colorblind", len(LINES))
    for (name, history), look, color in zip(histories.items(), LINES, colors, strict=False):
        accuracy = 100 * history.filter(regex="^valid_accuracy").max(axis=1)
        ax.plot(history.epoch, accuracy, linestyle=look, color=color, label=name)
        ax.plot(history.epoch[accuracy.idxmax()], accuracy.max(), "o", ms=5, color=color)
    ax.set(xlabel="epoch", ylabel="valid accuracy (%)", title="Validation accuracy")
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.figure.legend(loc="outside lower center", ncols=1, frameon=False, fontsize=9)
    return ax


def confusion_matrix(counts: np.ndarray, class_names: Sequence[str], ax: Axes, cmap: Any = "Blues") -> Axes:
    """The share of each true class (row) that is predicted as each class, with counts below the shares. The
    row of a class without images stays empty."""
    counts = np.asarray(counts)
    n = counts.sum(1, keepdims=True)
    shares = np.where(n, 100 * counts / n.clip(min=1), np.nan)
    text = [f"{share:.0f} %\n{count:,}" for share, count in zip(shares.flat, counts.flat, strict=True)]
    sns.heatmap(
        shares, annot=np.reshape(text, counts.shape), fmt="", cmap=cmap, vmin=0, vmax=100, square=True,
        cbar=False, xticklabels=class_names, yticklabels=class_names, annot_kws={"fontsize": 8}, linewidths=1,
        linecolor=ax.get_facecolor(), ax=ax,
    )  # fmt: skip
    ax.set(xlabel="predicted", ylabel="true", title="Confusion matrix")
    ax.tick_params(axis="x", rotation=40)
    ax.tick_params(axis="y", rotation=0)
    return ax


def recall_bars(table: pd.DataFrame, ax: Axes) -> Axes:
    """Recall of each class with its 95 % interval, from `metrics.per_class_table`, the lowest on top."""
    table = table.loc[table.recall.where(table.n > 0).sort_values(kind="stable").index]
    errors = 100 * np.stack([table.recall - table.recall_low, table.recall_high - table.recall])
    colors = class_colors(table.index)
    bars = ax.barh(range(len(table)), 100 * table.recall, xerr=errors.clip(min=0), color=colors, ecolor=DARK)
    ax.bar_label(bars, [f" n = {n:,}" for n in table.n], label_type="edge", fontsize=8, padding=2)
    ax.set(xlabel="recall (%), 95 % interval", title="Recall by class, lowest on top", xlim=(0, 112))
    return label_rows(ax, table.index)


def reliability(table: pd.DataFrame, ax: Axes, label: str = "", color: str = BLUE) -> Axes:
    """Accuracy against confidence, from `metrics.calibration_table`; dot area shows the number of images.
    Dots of less than 20, which say little, are left out where there are larger ones."""
    table = table[table.n >= min(20, table.n.max())]
    sure, right = 100 * table.confidence, 100 * table.accuracy
    ax.plot([0, 100], [0, 100], color=DARK, lw=1, ls=":")
    ax.plot(sure, right, "o-", ms=3, color=color, lw=1, label=label)  # dots of one size for the legend
    ax.scatter(sure, right, 10 + 200 * table.n / table.n.sum(), color=color, clip_on=False, zorder=3)
    ax.set(xlabel="confidence (%)", ylabel="accuracy (%)", xlim=(0, 100), ylim=(0, 100), aspect="equal")
    ax.set_title("Calibration")
    return ax


def accuracy_intervals(scores: dict[str, dict[str, Any]], ax: Axes) -> Axes:
    """Accuracy with its 95 % interval for several named results, from `metrics.evaluate`."""
    points = 100 * pd.DataFrame(scores).loc[["accuracy", "ci_low", "ci_high"]].T.astype(float)
    dots_with_intervals(ax, (points.accuracy, points.ci_low, points.ci_high), BLUE)
    for row, value in enumerate(points.accuracy):
        ax.annotate(f"{value:.1f}", (value, row), xytext=(0, 7), textcoords="offset points", ha="center")
    ax.set(xlabel="valid accuracy (%), 95 % interval")
    return label_rows(ax, points.index)


def dots_with_intervals(ax: Axes, points: Any, colors: Any, offset: float = 0, label: str = "") -> None:
    """A dot with a horizontal interval for each row of `points`: values, lower and upper ends. Those that are
    nan are left out."""
    values, low, high = points
    places = np.arange(len(values)) + offset
    ax.hlines(places, low, high, colors=colors, lw=2)
    ax.scatter(values, places, color=colors, zorder=3, label=label)


def boxes(table: pd.DataFrame, name: str, by: str, ax: Axes) -> Axes:
    """Median, quartiles and the middle 90 % of one column of `audit.image_table` for each "label" or "split"
    that occurs."""
    there = [category for category in table[by].cat.categories if (table[by] == category).any()]
    values = [table[name][table[by] == category] for category in there]
    colors = [SPLIT_COLORS[split] for split in there] if by == "split" else class_colors(there)
    look = {
        "whis": (5, 95),
        "showfliers": False,
        "patch_artist": True,
        "medianprops": {"color": DARK, "lw": 2},
    }
    drawn = ax.boxplot(values, positions=range(len(there)), orientation="horizontal", widths=0.6, **look)
    for box, color in zip(drawn["boxes"], colors, strict=True):
        box.set(facecolor=(*to_rgb(color), 0.45), edgecolor=color)
    kind = "class" if by == "label" else by
    ax.set(xlabel=f"{name} (grey levels)", title=f"{name.capitalize()} by {kind}")
    return label_rows(ax, there)


def predicted_shares(
    preds: np.ndarray, train_labels: np.ndarray, class_names: Sequence[str], ax: Axes
) -> Axes:
    """How often each class is predicted, from class indices [N], beside its share of the training labels."""
    places = np.arange(len(class_names))
    filled = {"color": class_colors(class_names), "label": "predicted"}
    outlined = {"facecolor": "none", "edgecolor": DARK, "label": "in training"}
    for classes, offset, look in ((preds, -0.2, filled), (train_labels, 0.2, outlined)):
        shares = 100 * np.bincount(classes, minlength=len(class_names)) / len(classes)
        bars = ax.bar(places + offset, shares, 0.38, **look)
        ax.bar_label(bars, [f"{share:.1f}" for share in shares], fontsize=8)
    ax.set(ylabel="share (%)", title="Predictions in the submission")
    ax.set_xticks(places, class_names)
    ax.margins(y=0.12)
    for key in ax.legend(frameon=False).legend_handles[:1]:
        key.set_color(DARK)  # of all classes, not of the first
    ax.grid(visible=False)
    return ax


def precision_and_recall(table: pd.DataFrame, ax: Axes) -> Axes:
    """Both for each class with their 95 % intervals, from `metrics.per_class_table`; a class that is never
    predicted has no precision."""
    shares = 100 * table.drop(columns=["n", "n_predicted"])
    for name, color, offset in (("recall", BLUE, -0.15), ("precision", RED, 0.15)):
        values, low, high = (shares[name + end] for end in ("", "_low", "_high"))
        dots_with_intervals(ax, (values.where(low.notna()), low, high), color, offset, label=name)
    ax.set(xlabel="share (%), 95 % interval", title="Precision and recall")
    ax.legend(frameon=False, loc="lower left")
    return label_rows(ax, [f"{name} (n = {n:,})" for name, n in table.n.items()])


def coverage(table: pd.DataFrame, ax: Axes) -> Axes:
    """Accuracy by the share of predictions kept, from `metrics.coverage_table`."""
    points = 100 * table
    ax.fill_between(points.coverage, points.ci_low, points.ci_high, color=BLUE, alpha=0.2, lw=0)
    ax.plot(points.coverage, points.accuracy, "o-", ms=4, color=BLUE)
    ax.set(xlabel="most certain predictions kept (%)", ylabel="accuracy among them (%)")
    ax.set_title("Accuracy against coverage")
    return ax


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
        ax.text(left + 0.5, top + 0.5, name, fontsize=9, va="top", bbox=box)
    ax.set(xticks=[], yticks=[], title="Hidden regions")
    ax.grid(visible=False)
    return ax


def loss_bars(table: pd.DataFrame, ax: Axes) -> Axes:
    """Points of accuracy lost without each part of the face, from `saliency.occlusion_table`."""
    errors = np.stack([table.lost - table.low, table.high - table.lost])
    ax.barh(range(len(table)), table.lost, xerr=errors, color=BLUE, ecolor=DARK)
    ax.axvline(0, color=DARK, lw=1)
    title = f"What hiding each costs (n = {table.n.iloc[0]:,})"
    ax.set(xlabel="points of accuracy lost, 95 % interval", title=title)
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
    """The gap of every slice, from `error_slices.score_slices`."""
    names = [f"{row.what} {row.which} (n = {row.n:,})" for row in table.itertuples()]
    intervals(names, 100 * table[["gap", "low", "high"]], ax, "gap", (table.p_corrected < 0.05).to_numpy())
    ax.set(xlabel="accuracy minus that expected from its classes (points), 95 % interval", title="Slices")
    return ax
