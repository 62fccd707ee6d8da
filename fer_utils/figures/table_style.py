"""Tables as people read them: words for columns, percents and points with one digit, nothing for nan."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
from pandas.api.types import is_float_dtype, is_integer_dtype
from pandas.io.formats.style import Styler


def readable(table: pd.DataFrame, columns: Mapping[str, str] | None = None) -> Styler:
    """The columns named in `columns`, under their words, without an index; else all columns.

    A column of shares is shown in percent if its words end in "%", and in points if they end in "points".
    Other numbers have two digits, counts have thousands separators; where there is no value, it says "none".
    """
    chosen = table.copy() if columns is None else table[list(columns)].rename(columns=dict(columns))
    formats: dict[str, Any] = {}
    for words in chosen:
        if words.endswith(("%", "points")):
            chosen[words] = 100 * chosen[words].astype(float)
            formats[words] = "{:+.1f}" if words.endswith("points") else "{:.1f}"
        elif is_float_dtype(chosen[words]):
            formats[words] = _number
        elif is_integer_dtype(chosen[words]):
            formats[words] = "{:,}"
    return chosen.style.format(formats, na_rep="none").hide()


def _number(value: float) -> str:
    return f"{value:.1f}" if abs(value) >= 1 else f"{value:.2g}"
