"""Where a person explores in JupyterLab: sliders for augmentation, faces to filter and to page through.

Where nobody looks (papermill, Kaggle's batch runs) the notebooks show their static figures alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from torch import Tensor

from fer_utils.config import Config
from fer_utils.figures.faces import face_grid, table_gallery
from fer_utils.figures.plots import png_bytes
from fer_utils.learning.augment import augment
from fer_utils.progress import interactive

ANY = "any"
PAGE = 24
# Fine enough for a screen, and quick enough to draw while somebody turns pages.
DPI = 110
FULL_WIDTH = {"width": "100%", "max_width": "960px"}


def draw_strengths(faces: Tensor, config: Config, generator: torch.Generator) -> plt.Figure:
    """Draws of `faces` [N, 1, H, W] in 0..1 at the strengths of `config`, twelve in a row."""
    fig, ax = plt.subplots(figsize=(11, 0.95 * -(-len(faces) // 12)))
    face_grid(augment(faces, config, generator), ax, columns=12)
    return fig


def try_strengths(
    faces: Tensor, config: Config, highest: Mapping[str, float], generator: torch.Generator
) -> Any:
    """Sliders for the knobs in `highest`, up to these values, that start at `config`, over `faces` at those
    strengths; None where nobody looks."""
    if not interactive():
        return None
    import ipywidgets as w

    sliders = {
        knob: w.FloatSlider(
            getattr(config, knob), max=high, step=high / 100, description=knob, continuous_update=False
        )
        for knob, high in highest.items()
    }
    picture = w.Image(format="png", layout=FULL_WIDTH)

    def show(*_: object) -> None:
        strengths = {knob: slider.value for knob, slider in sliders.items()}
        picture.value = png_bytes(draw_strengths(faces, replace(config, **strengths), generator), DPI)

    for slider in sliders.values():
        slider.observe(show, "value")
    show()
    columns = w.GridBox(list(sliders.values()), layout={"grid_template_columns": "repeat(2, 340px)"})
    return w.VBox([columns, picture])


def chosen_faces(
    table: pd.DataFrame, confidence: tuple[float, float] = (0.0, 1.0), **values: str
) -> pd.DataFrame:
    """Rows of a prediction table whose columns hold these `values` ("any" allows all) and whose confidence
    lies between the two, both included; the most confident first."""
    for column, value in values.items():
        if value != ANY:
            table = table[table[column] == value]
    low, high = confidence
    return table[table.confidence.between(low, high)].sort_values(
        "confidence", ascending=False, kind="stable"
    )


def browse_faces(
    images: np.ndarray, table: pd.DataFrame, by: Sequence[str], caption: str, **start: str
) -> Any:
    """A browser of faces: a menu for each column in `by`, a range of confidence, and pages of `PAGE` faces.

    Args:
        images: uint8 [N, 1, H, W]; the table's index names the rows.
        table: columns `confidence`, those of `by` and those of the caption.
        caption: as for `table_gallery`.
        start: what the menus show at first; those left out, or that no face has, show "any".

    Returns:
        The widget to show, or None where nobody looks.
    """
    if not interactive():
        return None
    import ipywidgets as w

    menus = {}
    for column in by:
        options = [ANY, *sorted(table[column].astype(str).unique())]
        value = start.get(column, ANY) if start.get(column) in options else ANY
        menus[column] = w.Dropdown(
            options=options, value=value, description=column, layout={"width": "260px"}
        )
    confidence = w.FloatRangeSlider(
        value=(0, 1),
        min=0,
        max=1,
        step=0.05,
        description="confidence",
        readout_format=".0%",
        continuous_update=False,
        layout={"width": "360px"},
    )
    back, forth = w.Button(description="previous"), w.Button(description="next")
    place, picture = w.Label(), w.Image(format="png", layout=FULL_WIDTH)
    first = [0]  # row of the first face shown

    def show() -> None:
        chosen = chosen_faces(table, confidence.value, **{name: menu.value for name, menu in menus.items()})
        shown = chosen.iloc[first[0] : first[0] + PAGE]
        place.value = page_words(first[0], len(shown), len(chosen))
        back.disabled, forth.disabled = first[0] == 0, first[0] + PAGE >= len(chosen)
        picture.value = png_bytes(table_gallery(images, shown, caption, columns=8), DPI)

    def turn(to: int) -> None:
        first[0] = to
        show()

    for control in (*menus.values(), confidence):
        control.observe(lambda _: turn(0), "value")
    back.on_click(lambda _: turn(max(0, first[0] - PAGE)))
    forth.on_click(lambda _: turn(first[0] + PAGE))
    show()
    wrapped = {"flex_flow": "row wrap"}
    return w.VBox(
        [w.HBox([*menus.values(), confidence], layout=wrapped), w.HBox([back, forth, place]), picture]
    )


def page_words(first: int, shown: int, chosen: int) -> str:
    """Where a person is: "faces 25 to 48 of 311"."""
    return (
        f"faces {first + 1:,} to {first + shown:,} of {chosen:,}" if chosen else "no face fits these choices"
    )
