"""Submissions: read the form of the sample, write the predictions, validate the written file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from fer_utils.competition import Competition, DataError, SubmissionFormat
from fer_utils.data.cells import read_frame, sample_id_position, sample_label_position
from fer_utils.data.class_names import Coding
from fer_utils.data.files.tree import locate
from fer_utils.data.images import IMAGE_SUFFIXES
from fer_utils.data.labels import as_int, canonical
from fer_utils.data.tables import Table, open_table
from fer_utils.files import atomic_write


def default_format(ids: Sequence[str], label_values: Sequence[int | str]) -> SubmissionFormat:
    """The form where the competition gives none: `id,label` in the order of the test split."""
    template = pd.DataFrame({"id": list(map(str, ids)), "label": ""})
    return SubmissionFormat(template, "label", np.arange(len(ids)), tuple(map(str, label_values)))


def read_format(path: Path, ids: Sequence[str], coding: Coding) -> SubmissionFormat:
    """Read the form of the predictions from a sample submission.

    Args:
        path: the sample.
        ids: [N] of the test split; they may be written differently there (zero-padded, without a suffix).
        coding: how the training labels are written.

    Raises:
        DataError: the sample names a picture twice or one that the test split does not have.
    """
    table = open_table(path)
    if sum(canonical(name) is not None for name in table.columns) >= 2:
        raise DataError(
            f"{path.name} wants a column of probabilities for each class ({', '.join(table.columns)}), and "
            "this project predicts one label for each image: rename the file to get predictions as id,label"
        )
    template = read_frame(table)
    position = sample_label_position(table)
    label_column = template.columns[position]
    id_position = sample_id_position(table)
    wanted = None if id_position is None else template.iloc[:, id_position].str.strip().tolist()
    return SubmissionFormat(
        template=template,
        label_column=label_column,
        rows=_match_rows(table, wanted, len(template), list(map(str, ids))),
        label_values=_label_values(template[label_column].str.strip().tolist(), coding),
        header=table.header,
        separator=" " if table.separator == r"\s+" else table.separator,
        source=path.name,
    )


def _match_rows(table: Table, wanted: list[str] | None, n_lines: int, ids: list[str]) -> np.ndarray:
    """The test row of each line of the sample, by id, or by position where it has no ids."""
    name = table.path.name
    if wanted is None:
        if n_lines != len(ids):
            raise DataError(
                f"{name} has {n_lines:,} lines without ids, but there are {len(ids):,} test pictures"
            )
        return np.arange(len(ids))
    if len(twice := np.flatnonzero(pd.Series(wanted).duplicated())):
        raise DataError(f"{table.place(twice[0])}: id {wanted[twice[0]]!r} appears twice")
    row_of = {id_: row for row, id_ in enumerate(ids)}
    found = wanted if row_of.keys() >= set(wanted) else locate(wanted, ids)
    if None not in found:
        return np.array([row_of[id_] for id_ in found])
    named = any(id_.lower().endswith(IMAGE_SUFFIXES) for id_ in ids)  # 1 is 1.png or nothing
    if not named and [as_int(id_) for id_ in wanted] == list(range(1, len(ids) + 1)):
        return np.arange(len(ids))  # lines counted from 1
    row = found.index(None)
    raise DataError(
        f"{table.place(row)} asks for id {wanted[row]!r}, which no test picture has "
        f"({found.count(None):,} of {len(wanted):,} such rows); test ids are {', '.join(ids[:3])}, ..."
    )


def _label_values(cells: Sequence[str], coding: Coding) -> tuple[str, ...]:
    """The text to write for each class: the training labels' own, or as the sample's cells show."""
    own = tuple(map(str, coding.label_values))
    seen = {cell for cell in cells if cell}
    if not seen or seen <= set(own):
        return own
    if all(as_int(cell) is not None for cell in seen):
        return _numbers(set(map(as_int, seen)), own)
    by_class = {coding.index(cell): cell for cell in sorted(seen, reverse=True)}
    names = coding.class_names
    by_class |= {names.index(canonical(cell)): cell for cell in seen if canonical(cell) in names}
    by_class.pop(-1, None)
    if not by_class:
        return own
    words = names if all(as_int(value) is not None for value in own) else own
    styles = (str.lower, str.upper, str.capitalize)
    style = next((s for s in styles if all(word == s(word) for word in by_class.values())), str)
    return tuple(by_class.get(index, style(word)) for index, word in enumerate(words))


def _numbers(seen: set[int], own: Sequence[str]) -> tuple[str, ...]:
    """Number labels for a sample of numbers: counted as in training, or in the order of the classes."""
    codes = list(map(as_int, own))
    if None in codes:
        first = 1 if max(seen) == len(own) else 0
        return tuple(map(str, range(first, first + len(own))))
    if min(codes) == 0 and max(seen) == max(codes) + 1 and 0 not in seen:
        return tuple(str(code + 1) for code in codes)
    if min(codes) == 1 and seen == {code - 1 for code in codes}:
        return tuple(str(code - 1) for code in codes)
    return tuple(own)


def _test_format(competition: Competition) -> SubmissionFormat:
    if competition.test is None or competition.submission is None:
        raise DataError(
            f"{competition.source or 'this data'} has no test split, so there is nothing to submit"
        )
    return competition.submission


def write_submission(competition: Competition, probs: np.ndarray, path: str | Path) -> Path:
    """Write the most probable class of each test picture in the competition's own form, and validate it.

    Args:
        competition: with a test split.
        probs: float [N_test, C], rows sum to 1.
        path: the file to write; it appears only when it is whole.

    Raises:
        DataError: no test split, or probs of the wrong shape, not finite or not summing to 1.
    """
    form = _test_format(competition)
    probs, wanted = np.asarray(probs), (len(competition.test), len(competition.class_names))
    if probs.shape != wanted:
        raise DataError(f"probs must be {wanted} (test pictures, classes), got {probs.shape}")
    if not np.isfinite(probs).all():
        raise DataError(f"probs of test picture {np.argwhere(~np.isfinite(probs))[0, 0]} are not finite")
    sums = probs.sum(1, dtype=np.float64)
    row = int(np.abs(sums - 1).argmax()) if len(sums) else None
    if row is not None and abs(sums[row] - 1) > 1e-3:
        raise DataError(
            f"probs of test picture {row} sum to {sums[row]:.4f} instead of 1: apply softmax first"
        )
    preds = probs.argmax(1)
    table = form.template.copy()
    table[form.label_column] = [form.label_values[pred] for pred in preds[form.rows]]
    with atomic_write(path) as temporary:
        table.to_csv(temporary, index=False, header=form.header, sep=form.separator, lineterminator="\n")
    validate_submission(competition, path)
    return Path(path)


def read_submission(competition: Competition, path: str | Path) -> np.ndarray:
    """Read a submission back as int64 preds [N_test], -1 for pictures that the competition does not ask for.

    Raises:
        DataError: see `validate_submission`.
    """
    form, path = _test_format(competition), Path(path)
    options = {"sep": form.separator, "dtype": str, "na_filter": False, "skip_blank_lines": False}
    try:
        table = pd.read_csv(path, header=None, **options).fillna("")
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {str(error).strip()}") from error
    columns = list(form.template.columns)
    names = table.iloc[0].tolist() if form.header else columns
    if table.shape[1] != len(columns) or names != columns:
        found = names if form.header else f"{table.shape[1]} columns"
        raise DataError(f"{path.name} row 1: found {found}, the form wants {columns}")
    table = table.iloc[int(form.header) :].set_axis(columns, axis=1)
    frames = [frame.drop(columns=form.label_column) for frame in (table, form.template)]
    got, wanted = (list(map(tuple, frame.to_numpy().tolist())) for frame in frames)
    for row, (got_id, wanted_id) in enumerate(zip(got, wanted, strict=False), 1 + form.header):
        if got_id != wanted_id:
            twice = " (it appears twice)" if got.count(got_id) > 1 else ""
            raise DataError(
                f"{path.name} row {row}: id {','.join(got_id)!r}{twice}, "
                f"the form wants {','.join(wanted_id)!r} here"
            )
    if len(got) != len(wanted):
        raise DataError(f"{path.name} has {len(got):,} predictions, the form wants {len(wanted):,}")
    for row, label in enumerate(table[form.label_column], 1 + form.header):
        if label not in form.label_values:
            raise DataError(
                f"{path.name} row {row}: label {label!r} is none of {', '.join(form.label_values)}"
            )
    preds = np.full(len(competition.test), -1, np.int64)
    preds[form.rows] = [form.label_values.index(label) for label in table[form.label_column]]
    return preds


def validate_submission(competition: Competition, path: str | Path) -> None:
    """Check a submission on disk: the template's header, columns, ids and order, and only allowed labels.

    Raises:
        DataError: the first thing that is wrong, with its row.
    """
    read_submission(competition, path)
