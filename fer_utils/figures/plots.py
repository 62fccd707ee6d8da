"""Every figure of the notebooks: each function draws on the `ax` it is given and returns it."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fer_utils.competition import Competition, Split
from fer_utils.files import OutputError, atomic_write

# One colour per expression, the same in every figure; chosen to differ for colour-blind readers too.
EXPRESSION_COLORS = {
    "angry": "#d1495b",
    "disgust": "#6a994e",
    "fear": "#7b5ea7",
    "happy": "#edae49",
    "sad": "#30638e",
    "surprise": "#f08a4b",
    "neutral": "#8d99ae",
    "contempt": "#a47551",
    "uncertain": "#444444",
}


def set_style() -> None:
    """Set the look of all figures: light paper of their own, so they read in a dark theme too."""
    sns.set_theme(style="whitegrid", font_scale=1.0)
    plt.rcParams.update(
        {
            "figure.facecolor": "white",
            "savefig.facecolor": "white",
            "figure.dpi": 100,
            "savefig.dpi": 130,
            "axes.titlelocation": "left",
            "axes.titleweight": "bold",
            "axes.spines.top": False,
            "axes.spines.right": False,
            "grid.color": "#e6e6e6",
            "figure.constrained_layout.use": True,
        }
    )


def save_figure(fig: Figure, out: str | Path, name: str) -> Path:
    """Write the figure to `out`/figures/`name`.png.

    Raises:
        OutputError: it cannot be written, or the folder is a link, which may lead anywhere.
    """
    path = Path(out) / "figures" / f"{name}.png"
    if path.parent.is_symlink():
        raise OutputError(
            f"{path.parent} is a link: remove it, figures are written into the run's own folder"
        )
    with atomic_write(path) as temporary:
        fig.savefig(temporary, bbox_inches="tight")
    return path


def png_bytes(fig: Figure, dpi: int) -> bytes:
    """The figure as a PNG, the same bytes for the same picture; it is closed."""
    buffer = io.BytesIO()
    fig.savefig(buffer, format="png", dpi=dpi, bbox_inches="tight", metadata={"Software": None})
    plt.close(fig)
    return buffer.getvalue()


def class_colors(class_names: Sequence[str]) -> list[str]:
    """A colour for each class: the expression's own, or a spare one for a name that is not an expression.

    Spare colours go by the alphabet, so that a class keeps its colour in whatever order a figure shows it.
    """
    strangers = sorted(set(class_names) - set(EXPRESSION_COLORS))
    spare = dict(zip(strangers, sns.color_palette("husl", max(1, len(strangers))).as_hex(), strict=False))
    return [EXPRESSION_COLORS.get(name) or spare[name] for name in class_names]


def class_counts(competition: Competition, ax: Axes) -> Axes:
    """Share of each class in every labelled split, the counts written on the bars."""
    labelled = {name: split for name, split in competition.splits.items() if split.labels is not None}
    names, colors = competition.class_names, class_colors(competition.class_names)
    height = 0.8 / len(labelled)
    for row, (split_name, split) in enumerate(labelled.items()):
        counts = np.bincount(split.labels, minlength=len(names))
        places = np.arange(len(names)) + (row - (len(labelled) - 1) / 2) * height
        bars = ax.barh(
            places, 100 * counts / max(1, counts.sum()), height * 0.92, color=colors, alpha=1 - 0.3 * row
        )
        ax.bar_label(bars, [f"{split_name} {count:,}" for count in counts], fontsize=8, padding=3)
    ax.set(yticks=range(len(names)), yticklabels=names, xlabel="share of the split (%)", title="Classes")
    ax.margins(x=0.16)
    ax.invert_yaxis()
    ax.grid(axis="y", visible=False)
    return ax


def learning_curves(
    history: pd.DataFrame, axs: Sequence[Axes], chosen_epoch: int | None = None
) -> Sequence[Axes]:
    """Loss on the first of two axes, accuracy on the second, by epoch; the chosen epoch is marked."""
    lines = {"train": ("train", "#8d99ae"), "valid": ("valid, weights", "#30638e")}
    for ax, quantity, factor, unit in ((axs[0], "loss", 1, ""), (axs[1], "accuracy", 100, " (%)")):
        for prefix, (label, color) in lines.items():
            ax.plot(
                history.epoch, factor * history[f"{prefix}_{quantity}"], "o-", ms=3, color=color, label=label
            )
        if f"valid_{quantity}_average" in history:
            average = factor * history[f"valid_{quantity}_average"]
            ax.plot(history.epoch, average, "o-", ms=3, color="#d1495b", label="valid, moving average")
        if chosen_epoch is not None:
            ax.axvline(chosen_epoch, color="#444444", lw=1, ls=":", label=f"chosen: epoch {chosen_epoch}")
        ax.set(xlabel="epoch", ylabel=f"{quantity}{unit}", title=quantity.capitalize())
        ax.xaxis.get_major_locator().set_params(integer=True)
    axs[1].legend(frameon=False)
    return axs


def confusion(counts: np.ndarray, class_names: Sequence[str], ax: Axes) -> Axes:
    """Confusion as the share of each true class (rows), with counts below the shares."""
    counts = np.asarray(counts)
    shares = 100 * counts / counts.sum(1, keepdims=True).clip(min=1)
    text = [
        [f"{s:.0f} %\n{c:,}" for s, c in zip(*rows, strict=True)] for rows in zip(shares, counts, strict=True)
    ]
    sns.heatmap(
        shares, annot=np.array(text), fmt="", cmap="Blues", vmin=0, vmax=100, square=True, cbar=False,
        xticklabels=class_names, yticklabels=class_names, annot_kws={"fontsize": 8}, linewidths=1, ax=ax,
    )  # fmt: skip
    ax.set(xlabel="predicted", ylabel="true", title="Confusion")
    ax.tick_params(axis="x", rotation=40)
    ax.tick_params(axis="y", rotation=0)
    return ax


def recall_bars(table: pd.DataFrame, ax: Axes) -> Axes:
    """Recall of each class with its 95 % interval, from `metrics.per_class_table`."""
    errors = 100 * np.stack([table.recall - table.recall_low, table.recall_high - table.recall])
    bars = ax.barh(
        table.index,
        100 * table.recall,
        xerr=errors.clip(min=0),
        color=class_colors(table.index),
        ecolor="#444444",
    )
    ax.bar_label(bars, [f" n = {n:,}" for n in table.n], label_type="edge", fontsize=8, padding=2)
    ax.set(xlabel="recall (%), 95 % interval", title="Recall by class", xlim=(0, 112))
    ax.grid(axis="y", visible=False)
    return ax


def reliability(table: pd.DataFrame, ax: Axes, label: str = "", color: str = "#30638e") -> Axes:
    """Accuracy against confidence, from `metrics.calibration_table`; dot area shows how many pictures."""
    ax.plot([0, 1], [0, 1], color="#444444", lw=1, ls=":")
    ax.plot(table.confidence, table.accuracy, color=color, lw=1)
    ax.scatter(table.confidence, table.accuracy, 10 + 200 * table.n / table.n.sum(), color=color, label=label)
    ax.set(
        xlabel="confidence", ylabel="accuracy", xlim=(0, 1), ylim=(0, 1), title="Calibration", aspect="equal"
    )
    return ax


def accuracy_intervals(scores: dict[str, dict[str, Any]], ax: Axes) -> Axes:
    """Accuracy with its 95 % interval for several named results, from `metrics.evaluate`."""
    names = list(scores)
    accuracy = np.array([100 * scores[name]["accuracy"] for name in names])
    low = accuracy - [100 * scores[name]["ci_low"] for name in names]
    high = np.array([100 * scores[name]["ci_high"] for name in names]) - accuracy
    ax.errorbar(accuracy, range(len(names)), xerr=[low, high], fmt="o", color="#30638e", capsize=3)
    for row, value in enumerate(accuracy):
        ax.annotate(f"{value:.1f}", (value, row), xytext=(0, 7), textcoords="offset points", ha="center")
    ax.set(yticks=range(len(names)), yticklabels=names, xlabel="valid accuracy (%), 95 % interval")
    ax.margins(y=0.25)
    ax.invert_yaxis()
    ax.grid(axis="y", visible=False)
    return ax


def histogram_by_class(
    values: np.ndarray, split: Split, class_names: Sequence[str], ax: Axes, name: str
) -> Axes:
    """Smoothed distribution of one value per picture [N], a line for each class."""
    frame = pd.DataFrame({name: values, "class": np.array(class_names)[split.labels]})
    palette = dict(zip(class_names, class_colors(class_names), strict=True))
    sns.kdeplot(
        frame, x=name, hue="class", hue_order=list(class_names), palette=palette, common_norm=False,
        cut=0, warn_singular=False, ax=ax,
    )  # fmt: skip
    ax.set(ylabel="density", title=name.capitalize())
    return ax


def histogram_by_split(table: pd.DataFrame, name: str, ax: Axes) -> Axes:
    """Smoothed distribution of one column of `audit.picture_table`, a line for each split."""
    present = [split for split in table["split"].cat.categories if (table["split"] == split).any()]
    sns.kdeplot(
        table, x=name, hue="split", hue_order=present, common_norm=False,
        palette=["#8d99ae", "#30638e", "#d1495b"][: len(present)], cut=0, warn_singular=False, ax=ax,
    )  # fmt: skip
    ax.set(ylabel="density", title=name.capitalize())
    return ax


def answer_shares(preds: np.ndarray, class_names: Sequence[str], ax: Axes) -> Axes:
    """How often each class is answered among class indices [N]."""
    shares = 100 * np.bincount(preds, minlength=len(class_names)) / len(preds)
    bars = ax.bar(class_names, shares, color=class_colors(class_names))
    ax.bar_label(bars, [f"{share:.1f}" for share in shares], fontsize=9)
    ax.set(ylabel="share of the test split (%)", title="What the submission answers")
    ax.grid(axis="x", visible=False)
    return ax
