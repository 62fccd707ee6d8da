"""Corrections of training labels: a CSV that a person edits and training reads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from fer_utils.faces import Competition, DataError, Split
from fer_utils.files import find_path

LEAVE_OUT = "drop"


def apply_fixes(competition: Competition, path: str | Path) -> tuple[Split, str]:
    """Give training pictures the labels that a CSV names; validation and test labels never change.

    The file has the columns `id` (as in the competition), `given` (the label it has now, which guards against
    a file made for other data) and `label` (the one it gets: a class name, or "drop" to leave the picture
    out); others are ignored. Votes of such a picture become votes for the new label alone. A picture that is
    in the validation split now is skipped.

    Returns:
        the training split, and a line that says what was changed.

    Raises:
        DataError: no such file, a column is missing, or a row does not fit; the row is named.
    """
    path = find_path(path)
    train, class_names = competition.train, list(competition.class_names)
    fixes = _read(path)
    rows = pd.Series(np.arange(len(train)), index=train.ids).groupby(level=0).agg(list)
    labels, votes = train.labels.copy(), None if train.votes is None else train.votes.copy()
    left_out, skipped = np.zeros(len(train), bool), 0
    elsewhere = set(competition.valid.ids)
    for line, fix in zip(range(2, len(fixes) + 2), fixes.itertuples(), strict=True):
        where = f"{path}, row {line}"
        if fix.id not in rows.index:
            if fix.id not in elsewhere:
                raise DataError(f"{where}: no training picture has the id {fix.id!r}")
            skipped += 1
            continue
        if fix.label not in [*class_names, LEAVE_OUT]:
            raise DataError(
                f"{where}: unknown label {fix.label!r}; known are {', '.join([*class_names, LEAVE_OUT])}"
            )
        if len(rows[fix.id]) > 1:
            raise DataError(f"{where}: the id {fix.id!r} names {len(rows[fix.id])} training pictures")
        (row,) = rows[fix.id]
        if class_names[train.labels[row]] != fix.given:
            raise DataError(
                f"{where}: the label of {fix.id!r} is {class_names[train.labels[row]]!r} and not "
                f"{fix.given!r}: the file was made for other data"
            )
        if fix.label == LEAVE_OUT:
            left_out[row] = True
        elif fix.label != fix.given:
            labels[row] = class_names.index(fix.label)
            if votes is not None:
                votes[row] = votes[row].sum() * (np.arange(len(class_names)) == labels[row])
    changed = (labels != train.labels).sum()
    note = f"label_fixes: {changed:,} labels changed, {left_out.sum():,} pictures left out"
    note += f", {skipped:,} of the validation split skipped" if skipped else ""
    return Split(train.images, labels, train.ids, votes).take(~left_out), f"{note} ({path.name})"


def _read(path: Path) -> pd.DataFrame:
    try:
        fixes = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise DataError(f"label_fixes: {path} cannot be read ({error})") from error
    missing = [name for name in ("id", "given", "label") if name not in fixes]
    if missing:
        raise DataError(f"label_fixes: {path} lacks the column {', '.join(missing)}")
    repeated = fixes.id[fixes.id.duplicated()]
    if len(repeated):
        raise DataError(f"{path}, row {repeated.index[0] + 2}: {repeated.iloc[0]!r} stands there twice")
    return fixes[["id", "given", "label"]]
