"""Corrections of training labels: a CSV that a person edits and training reads."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from fer_utils.competition import POOLED, Competition, DataError, Split, image_groups
from fer_utils.data.decode_images import BLANK_CONTRAST, light
from fer_utils.data.known_expressions_and_splits import canonical
from fer_utils.data.tables import open_table
from fer_utils.files import find_path

LEAVE_OUT = "drop"


def apply_fixes(
    competition: Competition, path: str | Path, left_out: Collection[str] = ()
) -> tuple[Split, str]:
    """Give training images the labels that a CSV names; validation and test labels never change.

    The file has the columns `id` (as in the competition), `given` (the label it has now, which guards against
    a file made for other data) and `label` (the one it gets: a class name, or "drop" to leave the image
    out); others are ignored. Votes of such an image become votes for the new label alone. An image that is
    in the validation split now, or among the ids `left_out` before, is skipped.

    Returns:
        the training split, and a line that says what was changed.

    Raises:
        DataError: no such file, a column is missing, or a row does not fit; the row is named.
    """
    path = find_path(path)
    train, names = competition.train, list(competition.class_names)
    rows = pd.Series(np.arange(len(train)), index=train.ids).groupby(level=0).agg(list)
    labels, votes = train.labels.copy(), None if train.votes is None else train.votes.copy()
    bare = {id_.lstrip("0"): str(id_) for id_ in train.ids if id_.startswith("0")}
    dropped, skipped, elsewhere = np.zeros(len(train), bool), 0, {*competition.valid.ids, *left_out}
    elsewhere |= {f"{POOLED}{id_}" for id_ in competition.valid.ids}
    for line, fix in _read(path).iterrows():
        where = f"{path}, row {line}"
        given, label = (_class_name(fix[column], names) for column in ("given", "label"))
        if label not in [*names, LEAVE_OUT]:
            raise DataError(f"{where}: unknown label {label!r}; known are {', '.join([*names, LEAVE_OUT])}")
        if fix.id not in rows.index:
            padded = bare.get(fix.id)
            if padded is None and fix.id in elsewhere:
                skipped += 1
                continue
            hint = f" (there is {padded!r}: spreadsheets drop leading zeros)" if padded else ""
            raise DataError(f"{where}: no training image has the id {fix.id!r}{hint}")
        if len(rows[fix.id]) > 1:
            raise DataError(f"{where}: the id {fix.id!r} names {len(rows[fix.id])} training images")
        (row,) = rows[fix.id]
        if names[train.labels[row]] != given:
            raise DataError(
                f"{where}: the label of {fix.id!r} is {names[train.labels[row]]!r} and not {given!r}: "
                "the file was made for other data"
            )
        dropped[row] = label == LEAVE_OUT
        if label not in (LEAVE_OUT, given):
            labels[row] = names.index(label)
            if votes is not None:
                votes[row] = votes[row].sum() * (np.arange(len(names)) == labels[row])
    changed = (labels != train.labels).sum()
    note = f"label_fixes: {changed:,} labels changed, {dropped.sum():,} images left out"
    note += f", {skipped:,} skipped that are not in train now" if skipped else ""
    return replace(train, labels=labels, votes=votes).take(~dropped), f"{note} ({path.name})"


def _read(path: Path) -> pd.DataFrame:
    """The rows of the file under their line numbers, as a spreadsheet may have written them."""
    table = open_table(path)
    options = {"sep": table.separator, "encoding": table.encoding, "skipinitialspace": True}
    options |= {"na_filter": False, "skip_blank_lines": False}  # cells stay text, lines keep their numbers
    try:
        cells = pd.read_csv(path, header=None, dtype=str, index_col=False, **options)
    except ValueError as error:
        raise DataError(f"label_fixes: {path} cannot be read ({error})") from error
    cells = cells.fillna("").apply(lambda column: column.str.strip())
    cells.index += 1
    cells = cells[(cells != "").any(axis=1)]
    fixes = cells.iloc[1:].set_axis(cells.iloc[0].str.lower().tolist(), axis=1)
    if missing := [name for name in ("id", "given", "label") if name not in fixes]:
        raise DataError(f"label_fixes: {path} lacks the column {', '.join(missing)}")
    if len(repeated := fixes.id[fixes.id.duplicated()]):
        raise DataError(f"{path}, row {repeated.index[0]}: {repeated.iloc[0]!r} appears twice")
    return fixes[["id", "given", "label"]]


def _class_name(text: str, names: list[str]) -> str:
    """The class that a cell names, whatever its capitals or form; the text itself where it names none."""
    known = {name.lower(): name for name in [*names, LEAVE_OUT]}
    return known.get(text.lower()) or known.get(canonical(text) or "", text)


def clean_training(train: Split) -> tuple[Split, str]:
    """Leave out what teaches a network nothing or wrongly: all but the first of exact copies, images whose
    copies carry different labels, and blank ones.

    Returns:
        the rest, and a line that says what was left out.
    """
    groups = pd.Series(image_groups(train.images))
    blank = light(train.images)[1] < BLANK_CONTRAST
    conflict = (pd.Series(train.labels).groupby(groups).transform("nunique").to_numpy() > 1) & ~blank
    repeats = groups.duplicated().to_numpy() & ~conflict & ~blank
    note = (
        f"clean: left out of train {repeats.sum():,} repeats, {conflict.sum():,} "
        f"images labelled in conflict and {blank.sum():,} blank ones"
    )
    return train.take(~(conflict | blank | repeats)), note
