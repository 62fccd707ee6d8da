"""The figures of a report: each as two PNGs in base64, for a light and for a dark page."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.collections import QuadMesh
from matplotlib.colors import to_rgb, to_rgba
from matplotlib.figure import Figure

from fer_utils.figures import plots

# In inches: so narrow that the words in a figure are large enough where a phone makes it as narrow as itself.
# report.html.jinja makes it at most 28rem wide, where the small ones are nearly as large as the page's text.
WIDTH, DPI = 4.0, 200
# The page's own colours (report.html.jinja) and what matplotlib calls them.
PAPER, INK, LINE = "#14181d", "#e8ebee", "#2b333c"
_INKS = ("text.color", "axes.labelcolor", "xtick.color", "ytick.color")
_DARK = dict.fromkeys(_INKS, INK) | {"axes.edgecolor": LINE, "grid.color": LINE}
_DARK |= dict.fromkeys(("figure.facecolor", "axes.facecolor", "savefig.facecolor"), PAPER)
LEAST_CONTRAST = 4.5  # of lines and dots on the page (WCAG 2.1 wants 3)


def figure(draw: Callable[..., Any], height: float, rows: int = 1, width: float = WIDTH) -> dict[str, Any]:
    """What `draw` draws on its axes: `light` and `dark`, PNGs in base64, and `width` in inches."""
    images = {}
    for name, colors in (("light", {}), ("dark", _DARK)):
        with plt.rc_context():
            plots.set_style()
            # A class may have dollar signs in its name.
            plt.rcParams.update({"text.parse_math": False, **colors})
            fig, axs = plt.subplots(rows, figsize=(width, height))
            fig.get_layout_engine().set(hspace=0.06)
            draw(axs)
            if colors:
                _lighten(fig)
            images[name] = base64.b64encode(plots.png_bytes(fig, DPI)).decode()
    return images | {"width": width}


def _lighten(fig: Figure) -> None:
    """Make lines and dots that are drawn in colours of their own visible on dark paper."""
    legends = [*fig.legends, *(ax.get_legend() for ax in fig.axes)]
    lines = [line for legend in legends if legend for line in legend.get_lines()]
    for line in lines + [line for ax in fig.axes for line in ax.lines]:
        line.set_color(readable(line.get_color()))
    for ax in fig.axes:
        for group in ax.collections:
            if not isinstance(group, QuadMesh):  # a heatmap's colours mean something
                group.set_facecolor([readable(color) for color in group.get_facecolor()])
                group.set_edgecolor([readable(color) for color in group.get_edgecolor()])


def readable(color: Any) -> tuple[float, ...]:
    """A colour, mixed with white until it stands out from dark paper."""
    *mixed, alpha = to_rgba(color)
    while contrast(mixed, PAPER) < LEAST_CONTRAST:
        mixed = [0.9 * part + 0.1 for part in mixed]
    return (*mixed, alpha)


def contrast(one: Any, other: Any) -> float:
    """The contrast of two colours, from 1 to 21 (WCAG 2.1)."""
    low, high = sorted(map(_luminance, (one, other)))
    return (high + 0.05) / (low + 0.05)


def _luminance(color: Any) -> float:
    parts = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(color)]
    return sum(share * part for share, part in zip((0.2126, 0.7152, 0.0722), parts, strict=True))
