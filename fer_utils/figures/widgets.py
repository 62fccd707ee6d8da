"""Widgets for JupyterLab: sliders for augmentation, and a browser of faces with filters and pages.

Outside interactive sessions (papermill, Kaggle's batch runs) there are none; the static figures remain.
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
from fer_utils.figures.style import png_bytes
from fer_utils.learning.augment import augment
from fer_utils.progress import interactive

ANY, PAGE = "any", 24
DPI = 110  # sharp enough for a screen, and quick to draw when a page is turned
FULL_WIDTH = {"width": "100%", "max_width": "960px"}


def draw_strengths(faces: Tensor, config: Config, generator: torch.Generator) -> plt.Figure:
    """Draws of `faces` [N, C, H, W] in 0..1 at the strengths of `config`, twelve in a row."""
    fig, ax = plt.subplots(figsize=(11, 0.95 * -(-len(faces) // 12)))
    face_grid(augment(faces, config, generator), ax, columns=12)
    return fig


def try_strengths(
    faces: Tensor, config: Config, highest: Mapping[str, float], generator: torch.Generator
) -> Any:
    """Sliders for the parameters in `highest`, from 0 to these values and set as in `config`, above `faces`
    augmented at these strengths; None outside interactive sessions."""
    if not interactive():
        return None
    import ipywidgets as w

    sliders, picture = [], w.Image(format="png", layout=FULL_WIDTH)

    def show(*_: object) -> None:
        strengths = {slider.description: slider.value for slider in sliders}
        picture.value = png_bytes(draw_strengths(faces, replace(config, **strengths), generator), DPI)

    for name, high in highest.items():
        options = {"max": high, "step": high / 100, "description": name, "continuous_update": False}
        sliders.append(w.FloatSlider(getattr(config, name), **options))
        sliders[-1].observe(show, "value")
    show()
    columns = w.GridBox(sliders, layout={"grid_template_columns": "repeat(2, 340px)"})
    return w.VBox([columns, picture])


def chosen_faces(
    table: pd.DataFrame, confidence: tuple[float, float] = (0.0, 1.0), **values: str
) -> pd.DataFrame:
    """Rows of a prediction table with these `values` in its columns ("any" allows all) and a confidence
    between the two bounds, inclusive; the most confident first."""
    chosen = table.confidence.between(*confidence)
    for column, value in values.items():
        chosen &= (table[column] == value) | (value == ANY)
    return table[chosen].sort_values("confidence", ascending=False, kind="stable")


def browse_faces(
    images: np.ndarray, table: pd.DataFrame, by: Sequence[str], caption: str, **start: str
) -> Any:
    """A browser of faces: a menu for each column in `by`, a range of confidence, pages of `PAGE` faces; None
    outside interactive sessions.

    Args:
        images: uint8 [N, C, H, W]; the table's index names the rows.
        table: columns `confidence`, those of `by` and those of the caption.
        caption: as for `table_gallery`.
        start: the first choice of menus; the others, and a choice that no face has, start with "any".
    """
    if not interactive():
        return None
    import ipywidgets as w

    menus = []
    for column in by:
        options = [ANY, *sorted(table[column].astype(str).unique())]
        value = start[column] if start.get(column) in options else ANY
        menus.append(w.Dropdown(options=options, value=value, description=column, layout={"width": "260px"}))
    confidence = w.FloatRangeSlider(
        value=(0, 1), min=0, max=1, step=0.05, description="confidence", readout_format=".0%",
        continuous_update=False, layout={"width": "360px"},
    )  # fmt: skip
    back, forth = w.Button(description="previous"), w.Button(description="next")
    place, picture = w.Label(), w.Image(format="png", layout=FULL_WIDTH)
    first = 0  # row of the first face shown

    def show(row: int) -> None:
        nonlocal first
        first = row
        chosen = chosen_faces(table, confidence.value, **{menu.description: menu.value for menu in menus})
        shown = chosen.iloc[first : first + PAGE]
        place.value = f"faces {first + 1:,} to {first + len(shown):,} of {len(chosen):,}"
        if chosen.empty:
            place.value = "no face fits these choices"
        back.disabled, forth.disabled = first == 0, first + PAGE >= len(chosen)
        picture.value = png_bytes(table_gallery(images, shown, caption, columns=8), DPI)

    for control in (*menus, confidence):
        control.observe(lambda _: show(0), "value")
    back.on_click(lambda _: show(max(0, first - PAGE)))
    forth.on_click(lambda _: show(first + PAGE))
    show(0)
    controls = w.HBox([*menus, confidence], layout={"flex_flow": "row wrap"})
    return w.VBox([controls, w.HBox([back, forth, place]), picture])
