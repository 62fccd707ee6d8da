"""Submissions: read the form of the sample, write the predictions, validate the written file."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from fer_utils.competition import Competition, DataError, SubmissionFormat
from fer_utils.data.image_paths import find_rows
from fer_utils.data.known_column_names import COLUMNS, rank
from fer_utils.data.known_expressions_and_splits import as_int, canonical, is_number, pattern
from fer_utils.data.roles.class_names import Coding, natural
from fer_utils.data.roles.sample_answers import answers_by_class
from fer_utils.data.tables import Table, read_as_written
from fer_utils.files import atomic_write


def default_format(ids: Sequence[str], label_values: Sequence[int | str]) -> SubmissionFormat:
    """The form where the competition gives none: `id,label` in the order of the test split."""
    template = pd.DataFrame({"id": list(map(str, ids)), "label": ""})
    return SubmissionFormat(template, "label", np.arange(len(ids)), tuple(map(str, label_values)))


def read_format(
    table: Table, ids: Mapping[str, Sequence[str]], coding: Coding, by_row: bool = False, label: str = ""
) -> SubmissionFormat:
    """Read the form of the predictions from a sample submission.

    Args:
        table: the sample.
        ids: what the test images are called, [N] each, by the column that says it; the likeliest first. The
            sample may write them in another way (zero-padded, without a suffix).
        coding: how the training labels are written.
        by_row: nothing but its row names a test image, so that a sample may count them.
        label: the column of the training labels: one of that name is for the predictions.

    Raises:
        DataError: the sample is empty, names an image twice or one that the test split does not have, or may
            count rows or mean file names; or its coding of the classes is not known.
    """
    if table.header and len(table.columns) == 1 and coding.index(table.columns[0]) >= 0:
        table = replace(table, header=False)  # a sample of nothing but words
    template = read_as_written(table)
    if template.empty:
        raise DataError(
            f"{table.path} has a header and no lines: write a line for each test image, or move it away"
        )
    if len(set(template.columns)) < len(template.columns):
        names = ", ".join(map(str, template.columns))
        raise DataError(f"{table.path} row 1: two columns have one name ({names}): rename one")
    position = _label_position(table, label)
    probabilities = _probability_columns(table, template, coding)
    id_position = _id_position(table, {position, *probabilities})
    rows, ids_from = _match_rows(table, template, id_position, ids, by_row)
    written = {id_position, *(probabilities or [position])}
    if kept := [str(name) for i, name in enumerate(template.columns) if i not in written and name != ""]:
        ids_from += f"; {', '.join(kept)} stays as in the sample"
    return SubmissionFormat(
        template=template,
        label_column=template.columns[position],
        rows=rows,
        ids_from=ids_from,
        label_values=() if probabilities else answers_by_class(table, template.iloc[:, position], coding),
        header=table.header,
        separator=" " if table.separator == r"\s+" else table.separator,
        source=table.path.name,
        encoding=table.encoding,
        probability_columns=tuple(template.columns[i] for i in probabilities),
    )


def _label_position(table: Table, label: str = "") -> int:
    """The column of a sample for the predictions: that called as in training, or by a known name, else the
    last that is not called as ids are."""
    if label and label in table.columns:  # no name is that of a row's number
        return table.columns.index(label)
    columns = [i for i, name in enumerate(table.columns) if name in COLUMNS["label"]]
    if columns:
        return min(columns, key=lambda i: rank("label", table.columns[i]))
    free = [i for i, name in enumerate(table.columns) if name not in (*COLUMNS["id"], *COLUMNS["image"])]
    return free[-1] if free else len(table.columns) - 1


def _id_position(table: Table, taken: set[int]) -> int | None:
    """The column that names the images: by its name, else the first; None if there is none."""
    free = [i for i in range(len(table.columns)) if i not in taken]
    named = [i for role in ("image", "id") for i in free if table.columns[i] in COLUMNS[role]]
    return next(iter([*named, *free]), None)


def sample_ids(table: Table) -> list[str]:
    """The ids in a sample submission; none if it holds only labels."""
    position = _id_position(table, {_label_position(table)})
    return [] if position is None else read_as_written(table).iloc[:, position].str.strip().tolist()


def _probability_columns(table: Table, template: pd.DataFrame, coding: Coding) -> list[int]:
    """The positions of the columns for the probability of each class, in the order of the classes; none if
    the sample wants one label for each image.

    Raises:
        DataError: there are such columns, and not one for each class.
    """
    if not table.header:
        return []
    numeric = [i for i in range(len(table.columns)) if template.iloc[:, i].map(is_number).all()]
    classes = {i: _class_of_column(table.columns[i], coding) for i in numeric}
    found = {index: i for i, index in classes.items() if index >= 0}
    if len(found) == len(coding.class_names):
        unknown = [table.columns[i] for i in numeric if classes[i] < 0 and canonical(table.columns[i])]
        if unknown:
            raise DataError(
                f"{table.path.name} wants a probability of {', '.join(unknown)} too, which no training "
                "image has. Is part of the data missing? If not, remove the column, and add zeros to submit"
            )
        return [found[index] for index in range(len(coding.class_names))]
    if len(found) < 2 and len(numeric) < max(3, len(coding.class_names)):
        return []
    if not found and any(name in COLUMNS["label"] for name in table.columns):
        return []  # its other numbers are about the images
    if len(found) > len(coding.class_names) / 2:
        absent = [name for index, name in enumerate(coding.class_names) if index not in found]
        raise DataError(f"{table.path.name} has no column for the probability of {', '.join(absent)}")
    raise DataError(
        f"{table.path.name} wants a column of probabilities for each class, but its columns "
        f"({', '.join(table.columns)}) cannot be matched to the classes ({', '.join(coding.class_names)}). "
        "classes='0=angry, 1=happy, ...' names the numbers"
    )


def _class_of_column(name: str, coding: Coding) -> int:
    """The class that a column is named for: happy, prob_happy, class_3 or 3; -1 if for none."""
    ends = [name, *(name[match.end() :] for match in re.finditer(r"[\s_.:(-]+", name))]
    return next((index for end in ends if (index := coding.index(end.rstrip(")"))) >= 0), -1)


def _match_rows(
    table: Table,
    template: pd.DataFrame,
    position: int | None,
    ids: Mapping[str, Sequence[str]],
    by_row: bool,
) -> tuple[np.ndarray, str]:
    """The test row of each line of the sample, and why: by a column of its name, by equal values, by the file
    that an id means, and by position where nothing else names an image."""
    n = len(next(iter(ids.values())))
    if position is None:
        if len(template) != n:
            raise DataError(
                f"{table.path.name} has {len(template):,} lines without ids, but there are {n:,} test images"
            )
        order = "file names" if "their files" in ids and not by_row else "rows"
        files = list(ids["their files"]) if order == "file names" else []
        if len({*map(pattern, files)}) == 1 and files != sorted(files, key=natural):
            raise DataError(
                f"{table.path.name} has no ids, and the names of the test files have two orders (10 before 2 "
                "as text, and after it as numbers): give it a first column with the names of the files"
            )
        return np.arange(n), f"none, so predictions are in the order of the {order}"
    wanted, name = template.iloc[:, position].str.strip().tolist(), table.columns[position]
    if len(twice := np.flatnonzero(pd.Series(wanted).duplicated())):
        raise DataError(f"{table.place(twice[0])}: id {wanted[twice[0]]!r} appears twice")
    # A column of that name is the only one meant.
    column, rows, is_equal = find_rows(wanted, {name: ids[name]} if name in ids else ids)
    quoted = column if column.startswith("their ") else f"the column {column!r}"
    if is_equal:
        return np.array(rows), f"equal to {quoted}"
    counted = [as_int(id_) for id_ in wanted] in (list(range(n)), list(range(1, n + 1)))
    if None not in rows and by_row and counted and rows != list(range(n)):
        raise DataError(
            f"the ids of {table.path.name} may count the rows of the test table, or mean the numbers in "
            f"{quoted} ({wanted[0]} as in {ids[column][rows[0]]}): columns='id=...' names that of the ids"
        )
    if None not in rows:
        same = f"{wanted[0]} is {ids[column][rows[0]]}"
        return np.array(rows), f"{quoted}, written in another way ({same})"
    if by_row and counted:
        return np.arange(n), "row numbers in the order of the test table, as no column fits"
    row = rows.index(None)
    if 2 * rows.count(None) < len(wanted):
        raise DataError(
            f"{table.place(row)} asks for id {wanted[row]!r}: {rows.count(None):,} of the {len(wanted):,} "
            "images that it asks for are missing. Is the download complete? Test ids are "
            f"{', '.join(map(str, ids[column][:3]))}, ..."
        )
    raise DataError(
        f"{table.place(row)} asks for id {wanted[row]!r}, which no test image has "
        f"({rows.count(None):,} of {len(wanted):,} such rows); "
        f"test ids ({column}) are {', '.join(map(str, ids[column][:3]))}, ... "
        "columns='id=...' names the column of the ids"
    )


def _test_format(competition: Competition) -> SubmissionFormat:
    if competition.test is None or competition.submission is None:
        raise DataError(
            f"{competition.source or 'this data'} has no test split, so there is nothing to submit"
        )
    return competition.submission


def write_submission(competition: Competition, probs: np.ndarray, path: str | Path) -> Path:
    """Write the most probable class of each test image, or the probability of each class, in the
    competition's own form, and validate the file.

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
        raise DataError(f"probs must be {wanted} (test images, classes), got {probs.shape}")
    if not np.isfinite(probs).all():
        raise DataError(f"probs of test image {np.argwhere(~np.isfinite(probs))[0, 0]} are not finite")
    sums = probs.sum(1, dtype=np.float64)
    row = int(np.abs(sums - 1).argmax())
    if abs(sums[row] - 1) > 1e-3:
        raise DataError(f"probs of test image {row} sum to {sums[row]:.4f} instead of 1: apply softmax first")
    table = form.template.copy()
    if form.probability_columns:
        shares = probs[form.rows] / sums[form.rows, None]
        for column, share in zip(form.probability_columns, shares.T, strict=True):
            table[column] = [f"{value:.6f}" for value in share]
    else:
        table[form.label_column] = [form.label_values[pred] for pred in probs.argmax(1)[form.rows]]
    with atomic_write(path) as temporary:
        options = {"header": form.header, "sep": form.separator, "encoding": form.encoding}
        table.to_csv(temporary, index=False, lineterminator="\n", **options)
    validate_submission(competition, path)
    return Path(path)


def validate_submission(competition: Competition, path: str | Path) -> None:
    """Check a submission on disk: the template's header, columns, ids and order, and only allowed labels.

    Raises:
        DataError: the first thing that is wrong, with its row.
    """
    form, path = _test_format(competition), Path(path)
    options = {"sep": form.separator, "encoding": form.encoding, "dtype": str, "na_filter": False}
    try:
        table = pd.read_csv(path, header=None, skip_blank_lines=False, **options).fillna("")
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {str(error).strip()}") from error
    columns = list(form.template.columns)
    names = table.iloc[0].tolist() if form.header else columns
    if table.shape[1] != len(columns) or names != columns:
        found = names if form.header else f"{table.shape[1]} columns"
        raise DataError(f"{path.name} row 1: found {found}, the form wants {columns}")
    table = table.iloc[int(form.header) :].set_axis(columns, axis=1)
    written = list(form.probability_columns) or [form.label_column]
    frames = [frame.drop(columns=written) for frame in (table, form.template)]
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
    cells = table[written]
    if form.probability_columns:
        probs = cells.apply(pd.to_numeric, errors="coerce")  # no number becomes NaN, which fits nothing
        fits = (probs >= 0).all(axis=1) & ((probs.sum(axis=1, skipna=False) - 1).abs() < 1e-3)
    else:
        fits = cells[form.label_column].isin(form.label_values)
    if not fits.all():
        row = int(fits.to_numpy().argmin())
        label = f"label {cells.iat[row, 0]!r} is none of {', '.join(form.label_values)}"
        why = label
        if form.probability_columns:
            why = f"the probabilities sum to {probs.iloc[row].sum():.4f}, not to 1"
            why = why if (probs.iloc[row] >= 0).all() else "a probability is negative or not a number"
        raise DataError(f"{path.name} row {row + 1 + form.header}: {why}")
