"""What images are called, the form in which predictions name them, and who is on them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import pandas as pd

from fer_utils.competition import DataError, SubmissionFormat
from fer_utils.data.files.file_index import below_split, stem
from fer_utils.data.known_column_names import ABOUT, COLUMNS, ROW_NUMBERS, boxes_in, rank
from fer_utils.data.known_expressions_and_splits import as_int, is_number, normal
from fer_utils.data.layouts.found_pictures import LISTS, Pictures
from fer_utils.data.roles.class_names import Coding
from fer_utils.data.roles.user_options import UserOptions
from fer_utils.data.roles.votes_and_hidden_labels import Labels
from fer_utils.data.submission_csv import default_format, read_format
from fer_utils.data.tables import Table

MOST_OF_ONE = 0.95  # of the images in folders of one expression each, such as classes
# What programs that write changed copies of an image beside it put before or behind its name.
_CHANGE = (
    r"(?:h?flip(?:ped)?|mirror(?:ed)?|aug(?:mented)?|rot(?:at\w+)?|nois[ey]|blur\w*|bright\w*|dark\w*|"
    r"shift\w*|zoom\w*|contrast\w*|shear\w*|crop(?:ped)?|hist\w*|gamma\w*)"
)
_CHANGED = re.compile(rf"[-_ .(]+{_CHANGE}", re.IGNORECASE)
_CHANGED_FIRST = re.compile(rf"{_CHANGE}[-_ .]+(.+)", re.IGNORECASE)
MOST_COPIES = 10  # of one image; a name with more is another thing: happy_crop_000, ..., beside happy


def _says_id(column: str) -> bool:
    return re.search(r"(^|[ _])id($|[ _])", column) is not None


def _id_columns(pictures: Pictures, rows: Sequence[int]) -> list[str]:
    """The columns that have another cell in each of some rows, those named as ids first."""
    frame = pictures.rows.iloc[list(rows)]
    others = {*ABOUT, *boxes_in(frame.columns)}
    columns = [c for c in pictures.table_columns() if c not in others and frame[c].is_unique]
    columns = [c for c in columns if not frame[c].isin([None, ""]).any()]
    columns = [c for c in columns if not (all(map(is_number, frame[c])) and None in map(as_int, frame[c]))]
    return sorted(columns, key=lambda c: (c in ROW_NUMBERS, rank("id", c), not _says_id(c)))


def is_one_table(pictures: Pictures, rows: Sequence[int]) -> bool:
    """Whether one table lists or holds all these images."""
    return len({pictures.parts[row] for row in rows}) == 1 and bool(pictures.parts[rows[0]])


def find_ids(
    pictures: Pictures, labels: Labels, rows: Mapping[str, Sequence[int]], said: UserOptions
) -> list[str]:
    """What each image is called: by the column that a person named, the list or the path; in tables of
    pixels by the id column or the row."""
    ids = list(pictures.ids)
    if forced := said.column("id"):
        cells = pictures.cells(forced) if forced in pictures.rows.columns else ids
        return [cell or id_ for cell, id_ in zip(cells, ids, strict=True)]
    if pictures.files:
        if labels.layout != LISTS:
            ids = [below_split(file) if file else id_ for file, id_ in zip(pictures.files, ids, strict=True)]
        test = rows["test"]
        if not _are_unique(ids, test) and _are_unique(pictures.files, test):
            for row in test:  # test/public/1.png and test/private/1.png
                ids[row] = below_split(pictures.files[row], outermost=True)
            if not _are_unique(ids, test):  # angry/test/1.png and happy/test/1.png
                for row in test:
                    ids[row] = pictures.files[row]
        return ids
    for found in rows.values():
        frame = pictures.rows.iloc[found]
        named = [c for c in pictures.table_columns() if c in COLUMNS["id"][:-1]]
        named = [c for c in named if not frame[c].isin([None, ""]).any()]
        columns = [c for c in _id_columns(pictures, found) if _says_id(c)]
        if found and (columns := [*sorted(named, key=lambda c: rank("id", c)), *columns]):
            cells = pictures.cells(columns[0])
            for row in found:
                ids[row] = cells[row]
        elif not _are_unique(ids, found) and len({pictures.parts[row] for row in found}) > 1:
            for row in found:  # row numbers of several tables
                ids[row] = f"{stem(pictures.parts[row])}/{ids[row]}"
    return ids


def _are_unique(cells: Sequence[str | None], rows: Sequence[int]) -> bool:
    return len({cells[row] for row in rows}) == len(rows)


def find_form_of_predictions(
    pictures: Pictures,
    sample: Table | None,
    rows: Sequence[int],
    labels: Labels,
    coding: Coding,
    ids: list[str],
    notes: list[str],
    said: UserOptions,
) -> SubmissionFormat | None:
    """The form of the sample submission, or the default; None without test images. Where the sample names
    the images by another column, that one becomes their ids, unless a person named theirs."""
    if not rows:
        notes += [f"{sample.name} ignored: there are no test images"] if sample else []
        return None
    _check_unique(pictures, ids, rows)
    if sample is None:
        notes.append("no sample submission: predictions are written as id,label")
        return default_format([ids[row] for row in rows], coding.label_values)
    columns = {"their ids": [ids[row] for row in rows]}
    others = [c for c in _id_columns(pictures, rows) if c != labels.column]
    if pictures.files and all(pictures.files[row] for row in rows):
        columns["their files"] = [pictures.files[row] for row in rows]
    columns |= {c: pictures.rows[c].iloc[list(rows)].tolist() for c in others}
    # Rows are counted in a table that holds or lists all test images.
    by_row = not pictures.files or is_one_table(pictures, rows)
    if not pictures.files and others and columns["their ids"] == [str(row) for row in range(len(rows))]:
        columns = {c: columns[c] for c in others}  # a row number is no id where a column is one
    by_row = by_row and not {*others} - {*ROW_NUMBERS}
    if forced := said.column("id"):
        columns, by_row = {forced: columns.get("their ids", [ids[row] for row in rows])}, False
    elif pictures.image_column:
        columns.setdefault(pictures.image_column, [ids[row] for row in rows])
    form = read_format(sample, columns, coding, by_row, labels.column)
    notes.append(f"ids of {sample.name}: {form.ids_from}")
    pairs = zip(coding.class_names, form.label_values, strict=False)
    text = ", ".join(value if value == name else f"{name} = {value}" for name, value in pairs)
    text = "a probability for each class" if form.probability_columns else text
    notes.append(f"predictions are written as in {sample.name}: {text}")
    if len(form.rows) < len(rows):
        notes.append(f"{sample.name} asks for {len(form.rows):,} of the {len(rows):,} test images")
    return form


def _check_unique(pictures: Pictures, ids: Sequence[str], rows: Sequence[int]) -> None:
    places, first = pictures.places, {}
    for row in rows:
        if (other := first.setdefault(ids[row], row)) != row:
            raise DataError(
                f"{places[row]}: test id {ids[row]!r} stands there twice, first in {places[other]}"
            )


def find_persons(
    pictures: Pictures, said: UserOptions, trained: list[int], notes: list[str]
) -> list[str | None] | None:
    """The person on each image, from the column or folder that a person named, else by a column's name."""
    wanted = normal(said.groups) if said.groups != "auto" else said.column("subject")
    if wanted == "none":
        return None
    if wanted and wanted not in pictures.rows.columns:
        raise DataError(
            f"groups: there is no column or folder level {wanted!r}; there are "
            f"{', '.join(pictures.rows.columns)}"
        )
    if not wanted:
        named = [c for c in pictures.table_columns() if c in COLUMNS["subject"]]
        named = [c for c in named if 2 <= pictures.rows[c].nunique() <= len(pictures) / 2]
        named = [c for c in named if not pictures.rows[c].iloc[trained].isin([None, ""]).any()]
        if not named:
            return None
        wanted = named[0]
    notes.append(f"persons: column {wanted!r} keeps the images of each on one side of a split made here")
    return pictures.cells(wanted)


def originals(files: Sequence[str | None], rows: Sequence[int], notes: list[str]) -> list[str] | None:
    """Each file's name without suffix, or that of the file of which it is a changed copy: 1 for 1_flip.png;
    None without such copies among some `rows`."""
    if not files:  # pixels in tables, arrays
        return None
    names = [(file or "").rpartition(".")[0] for file in files]
    there = {names[row] for row in rows} - {""}
    found: dict[str, list[int]] = {}
    for row in rows:
        folder, slash, last = names[row].rpartition("/")
        before = [last[: match.start()] for match in _CHANGED.finditer(last)][::-1]
        if match := _CHANGED_FIRST.fullmatch(last):
            before.append(match[1])
        original = next((name for word in before if (name := folder + slash + word) in there), None)
        if original:
            found.setdefault(original, []).append(row)
    copies = [row for some in found.values() if len(some) <= MOST_COPIES for row in some]
    if not copies:
        return None
    parent = {names[row]: name for name, some in found.items() if len(some) <= MOST_COPIES for row in some}
    notes.append(
        f"{len(copies):,} changed copies, such as {files[min(copies)]}, stay with their originals where a "
        "split is made here (groups='none': they do not)"
    )
    for row, name in enumerate(names):
        while name in parent:  # 1_flip_dark is one of 1_flip, and that of 1
            name = parent[name]
        names[row] = name
    return names


def may_divide(pictures: Pictures, rows: Mapping[str, Sequence[int]], labels: Labels) -> list[str]:
    """A note on a level of folders, each with several expressions, that may hold one person each (s01, s02,
    ...; or ann, bob, ...); else, without a test, on one of two folders, which may be splits: seen, unseen."""
    trained, two = list(rows["train"]), []
    for level in (c for c in pictures.rows if re.fullmatch(r"folder \d+", c) and c != labels.column):
        folders = pictures.rows[level].iloc[trained].tolist()
        names = sorted({name or "" for name in folders})
        shown = pd.DataFrame({"folder": folders, "label": [labels.values[row] for row in trained]})
        commonest = shown.value_counts(["folder", "label"]).groupby("folder").max().sum()
        if not 2 <= len(names) <= len(trained) / 2 or commonest >= MOST_OF_ONE * len(trained):
            continue
        if len(names) > 2:
            some = ", ".join(names[:3])
            return [f"if {some}, ... are persons, groups='{level}' keeps each on one side of a split"]
        if all(names) and not any(map(is_number, names)) and not rows["test"]:
            how = "splits='train={}, test={}'".format(*names)
            two = two or [f"{names[0]} and {names[1]} are trained on together: {how} divides them"]
    return two
