"""The labels of images, and labels made of the votes of several people."""

from __future__ import annotations

import re
from collections.abc import Sequence, Set
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from fer_utils.competition import DataError
from fer_utils.data.known_column_names import ABOUT, COLUMNS
from fer_utils.data.known_expressions_and_splits import (
    EMPTY,
    HIDDEN,
    MAYBE_HIDDEN,
    STRAY_SHARE,
    as_int,
    canonical,
    is_number,
    vote_label,
)
from fer_utils.data.layouts.found_pictures import Pictures

TRUTH = {
    "True": "1",
    "False": "0",
    "true": "1",
    "false": "0",
    "TRUE": "1",
    "FALSE": "0",
    "1.0": "1",
    "0.0": "0",
}
# As pandas' get_dummies names the columns of a column "emotion": emotion_happy.
_DUMMY = re.compile(r"^(emotion|expression|label|class|is)[_ ]")


@dataclass
class Labels:
    """The labels of the images.

    Attributes:
        values: [N], as the data writes them; None or a hidden word where there is none.
        names: the words of the labels by their numbers, where one of the two is another column.
        votes: float32 [N, K] for `vote_names`; None where the data has single labels.
        layout: the name of the reader that gave them.
    """

    column: str
    values: list[str | None]
    names: dict[int, str] = field(default_factory=dict)
    votes: np.ndarray | None = None
    vote_names: tuple[str, ...] = ()
    layout: str = ""
    notes: list[str] = field(default_factory=list)


def is_hidden(label: str | None, marks: Set[str] = frozenset()) -> bool:
    """Whether a cell shows no label: it is none, or a word for that, also one of `marks`."""
    return label is None or (word := label.strip().lower()) in HIDDEN or word in marks


def hidden_marks(
    cells: Sequence[str | None], splits: Sequence[str | None], shown: Set[str]
) -> tuple[set[str], set[str]]:
    """Which of the words that may stand for a hidden label do so in a column, and which could be a class too.

    -1 beside three numbers from 0 on hides a label, and so does nan beside numbers or expressions alone; a
    word such as none only where no image to train on has it; what a person named as a label (`shown`) hides
    none.
    """
    rows: dict[str, set[str | None]] = {}
    for cell, split in zip(cells, splits, strict=True):
        if cell is not None:
            rows.setdefault(cell.strip().lower(), set()).add(split)
    hidden, doubtful = set(), set()
    others = rows.keys() - HIDDEN - MAYBE_HIDDEN
    numbers = [as_int(cell) for cell in others]
    is_plain = len(others) > 1 and (None not in numbers or all(map(canonical, others)))
    for mark in rows.keys() & MAYBE_HIDDEN - shown:
        if rows[mark] <= {"test", "valid"} or (mark in EMPTY and is_plain):
            hidden.add(mark)
        elif mark == "-1" and None not in numbers and len(numbers) > 1 and min(numbers) >= 0:
            (hidden if len(numbers) > 2 else doubtful).add(mark)
    return hidden, doubtful


def vote_columns(pictures: Pictures, rows: Sequence[int]) -> list[str]:
    """The columns with votes or shares for each expression, as in FER+ (Barsoum et al. 2016) and one-hot
    lists; further columns of a one-hot block are classes too."""
    columns = pictures.table_columns()
    words = {c: canonical(_DUMMY.sub("", c)) for c in columns}
    known = [c for c in columns if words[c]]
    if len({words[c] for c in known}) < 2:
        return []
    frame = _as_numbers(pictures.rows[columns].iloc[list(rows)].dropna(how="all"))
    dummies = [c for c in known if not canonical(c)]
    digits = frame[dummies].isin(["0", "1"]).all(axis=None)
    is_one_hot = digits and (frame[dummies].eq("1").sum(axis=1) == 1).mean() > 1 - STRAY_SHARE
    known = [c for c in known if c not in dummies or is_one_hot]  # otherwise a model's shares, or attributes
    if len({words[c] for c in known}) < 2 or frame.empty:
        return []
    numeric = [c for c in known if frame[c].map(is_number).mean() > 1 - 5 * STRAY_SHARE]
    if len(numeric) < len(known):
        return known if len(numeric) >= 2 and len(known) - len(numeric) == 1 else []
    others = {*COLUMNS["split"], *ABOUT}
    digits = [c for c in columns if set(frame[c].dropna()) <= {"0", "1"} and c not in others]
    ones = frame[digits].eq("1").sum(axis=1)
    if block := _counts(frame, known):
        return block
    block = digits if set(known) <= set(digits) and (ones <= 1).mean() > 0.99 else known
    return block if len(block) >= 3 or (block == digits and len(block) >= 2) else []


def _as_numbers(cells: pd.DataFrame) -> pd.DataFrame:
    """Cells with yes and no as 1 and 0, and with a point in place of a decimal comma."""

    def number(cell: str) -> str:
        return TRUTH.get(cell) or (cell.replace(",", ".") if re.fullmatch(r"\d+,\d+", cell) else cell)

    # By the different cells of a column: these are few, and their regular expressions slow.
    return cells.apply(lambda column: column.map({c: number(c) for c in column.dropna().unique()}))


def _counts(frame: pd.DataFrame, known: list[str]) -> list[str]:
    """The columns around those of expressions whose counts sum to one number in each row only together."""
    low, high = (frame.columns.get_loc(column) for column in (known[0], known[-1]))
    numbers = frame.apply(pd.to_numeric, errors="coerce")
    fits = (numbers.notna() & (numbers >= 0)).all().tolist()
    while low > 0 and fits[low - 1]:
        low -= 1
    while high + 1 < len(fits) and fits[high + 1]:
        high += 1
    block = list(frame.columns[low : high + 1])
    alone, together = numbers[known].sum(axis=1).nunique(), numbers[block].sum(axis=1).nunique()
    return block if len(block) > len(known) and together == 1 < alone else []


def voted(pictures: Pictures, names: list[str]) -> Labels:
    """The labels by majority of votes.

    Raises:
        DataError: a cell is no number or below zero.
    """
    cells = _as_numbers(pictures.rows[names])
    votes = cells.apply(pd.to_numeric, errors="coerce").to_numpy(np.float32, copy=True)
    listed = cells.notna().all(axis=1).to_numpy()
    wrong = ~(np.isfinite(votes) & (votes >= 0)) & listed[:, None]
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        place = pictures.parts[row] + f" row {row + 2 - pictures.parts.index(pictures.parts[row])}"
        raise DataError(f"{place}: {names[column]} holds {cells.iloc[row, column]!r}, which is not a count")
    votes[~listed] = 0
    empty = listed & (votes.sum(axis=1) == 0)
    if set(np.unique(votes)) <= {0, 1} and empty.sum() > STRAY_SHARE * listed.sum():
        raise DataError(
            f"{empty.sum():,} of {listed.sum():,} rows have no 1 in the columns {', '.join(names)}: is one "
            "for a class missing? columns='label=...' takes the label from another column"
        )
    words = tuple(_DUMMY.sub("", name) for name in names)
    values = [vote_label(row, words) if ok else None for row, ok in zip(votes.tolist(), listed, strict=True)]
    note = f"labels: by most votes of the columns {', '.join(names)}"
    return Labels("votes", values, votes=votes, vote_names=words, layout=pictures.layout, notes=[note])
