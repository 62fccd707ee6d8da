"""What all figures share: the colours, the style, axes with a row for each name, and PNG files."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import seaborn as sns
from matplotlib import rcParamsDefault
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager

from fer_utils.files import OutputError, atomic_write
from fer_utils.tensorboard_log import track_figure

# One colour for each expression in every figure: those of Petroff's ten (2021, arXiv:2107.02270; matplotlib's
# "petroff10") that are the furthest apart. The eight differ by at least 16 in CAM02-UCS, in normal sight and
# without red, green or blue cones (a test measures it). "uncertain", no expression, has a ninth.
EXPRESSION_COLORS = {
    "angry": "#e76300",
    "disgust": "#a96b59",
    "fear": "#832db6",
    "happy": "#ffa90e",
    "sad": "#3f90da",
    "surprise": "#92dadd",
    "neutral": "#94a4a2",
    "contempt": "#717581",
    "uncertain": "#b9ac70",
}
# Splits have colours of their own, darker than any expression's, and lines of their own.
SPLIT_COLORS = {"train": "#000000", "valid": "#900000", "test": "#00564e"}
# The second sign of lines, so that no figure depends on colour alone.
LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (8, 2)), (0, (1, 1)), (0, (3, 1, 1, 1)))
# Everything else: two things to distinguish, what is not significant, axes and error bars, boxes on an image.
BLUE, RED, GREY, DARK, YELLOW = "#0072b2", "#c1272d", "#8c8c8c", "#444444", "#e69f00"

# For class names in Chinese, Japanese and Korean, which matplotlib's own font lacks.
EAST_ASIAN = (
    *("Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans CJK KR", "WenQuanYi Micro Hei", "Microsoft YaHei"),
    *("SimHei", "Yu Gothic", "Malgun Gothic", "PingFang SC", "Hiragino Sans GB", "Apple SD Gothic Neo"),
)


def set_style() -> None:
    """Set the style of all figures. Their background is white, so they can be read in a dark theme too."""
    installed = {font.name for font in fontManager.ttflist}
    settings = {
        "font.sans-serif": [*rcParamsDefault["font.sans-serif"], *(f for f in EAST_ASIAN if f in installed)],
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
    sns.set_theme(style="whitegrid", rc=settings)


def class_colors(class_names: Sequence[str]) -> list[str]:
    """A colour for each class: that of the expression, or a spare one for any other name, in alphabetical
    order, so that a class has the same colour in whatever order a figure shows it."""
    others = sorted(set(class_names) - set(EXPRESSION_COLORS))
    spare = sns.color_palette("husl", max(1, len(others))).as_hex()
    colors = EXPRESSION_COLORS | dict(zip(others, spare, strict=False))
    return [colors[name] for name in class_names]


def label_rows(ax: Axes, names: Sequence[str]) -> Axes:
    """Name the rows at heights 0, 1, ... of the axes, the first on top."""
    ax.set(yticks=range(len(names)), yticklabels=list(names), ylim=(len(names) - 0.5, -0.5))
    ax.grid(axis="y", visible=False)
    return ax


def save_figure(fig: Figure, out: str | Path, name: str) -> Path:
    """Write the figure to `out`/figures/`name`.png, and where the run in `out` is tracked also there.

    Raises:
        OutputError: it cannot be written, or the folder is a link, which may lead anywhere.
    """
    path = Path(out) / "figures" / f"{name}.png"
    if path.parent.is_symlink():
        advice = "remove it, figures are written into the run's own folder"
        raise OutputError(f"{path.parent} is a link: {advice}")
    with atomic_write(path) as temporary:
        fig.savefig(temporary, bbox_inches="tight")
    track_figure(path, Path(out))
    return path


def png_bytes(fig: Figure, dpi: int) -> bytes:
    """The figure as a PNG, the same bytes each time; the figure is closed."""
    buffer = io.BytesIO()
    fig.savefig(buffer, format="png", dpi=dpi, bbox_inches="tight", metadata={"Software": None})
    plt.close(fig)
    return buffer.getvalue()
