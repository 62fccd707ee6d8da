"""What all figures share: the colours, the style, axes with a row for each name, and PNG files."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fer_utils.files import OutputError, atomic_write

# One colour for each expression in every figure. The first seven stay apart for colour-blind readers: they
# differ in lightness too (a test measures it).
EXPRESSION_COLORS = {
    "angry": "#d81b42",
    "disgust": "#1f6b2c",
    "fear": "#5b2aa8",
    "happy": "#d9b800",
    "sad": "#3a86c8",
    "surprise": "#f59a60",
    "neutral": "#a8a8a8",
    "contempt": "#5a3a10",
    "uncertain": "#4f4f4f",
}
SPLIT_COLORS = {"train": "#1b1b1b", "valid": "#00b39f", "test": "#9b1f73"}
# Everything else: two things to distinguish, what is not significant, axes and error bars, boxes on an image.
BLUE, RED, GREY, DARK, YELLOW = "#0072b2", "#d55e00", "#8c8c8c", "#444444", "#e69f00"


def set_style() -> None:
    """Set the style of all figures. Their background is white, so they can be read in a dark theme too."""
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


def class_colors(class_names: Sequence[str]) -> list[str]:
    """A colour for each class: that of the expression, or a spare one for any other name.

    Spare colours are given in alphabetical order, so a class has the same colour in whatever order a figure
    shows it.
    """
    others = sorted(set(class_names) - set(EXPRESSION_COLORS))
    colors = EXPRESSION_COLORS | dict(
        zip(others, sns.color_palette("husl", max(1, len(others))).as_hex(), strict=False)
    )
    return [colors[name] for name in class_names]


def label_rows(ax: Axes, names: Sequence[str]) -> Axes:
    """Name the rows at heights 0, 1, ... of the axes, the first on top."""
    ax.set(yticks=range(len(names)), yticklabels=list(names), ylim=(len(names) - 0.5, -0.5))
    ax.grid(axis="y", visible=False)
    return ax


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
    """The figure as a PNG, the same bytes each time; the figure is closed."""
    buffer = io.BytesIO()
    fig.savefig(buffer, format="png", dpi=dpi, bbox_inches="tight", metadata={"Software": None})
    plt.close(fig)
    return buffer.getvalue()
