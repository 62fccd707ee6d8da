"""From the images that lie there to labelled splits: which is the split, the label, the class and the id is
proven by the data, said by a person, or refused."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from fer_utils.competition import DataError, Rejected, SubmissionFormat
from fer_utils.data.files.file_index import stem
from fer_utils.data.image_paths import find_rows, image_stem
from fer_utils.data.known_expressions_and_splits import (
    SPLITS,
    STRAY_SHARE,
    are_counted,
    canonical,
    vote_label,
)
from fer_utils.data.layouts.found_pictures import FOLDERS, LABEL_FILES, LISTS, NAMES, Pictures
from fer_utils.data.roles import checks
from fer_utils.data.roles.class_name_files import fitting_names, parse_classes
from fer_utils.data.roles.class_names import FER, RAF, Coding, check_misspelt, check_single, find_coding
from fer_utils.data.roles.decide_label_column import find_labels
from fer_utils.data.roles.ids import (
    find_form_of_predictions,
    find_ids,
    find_persons,
    is_one_table,
    may_divide,
    originals,
)
from fer_utils.data.roles.splits import Division, find_division
from fer_utils.data.roles.user_options import UserOptions
from fer_utils.data.roles.votes_and_hidden_labels import Labels, is_hidden
from fer_utils.data.submission_csv import sample_ids
from fer_utils.data.tables import Table

MOST_TIES = 0.05  # of the images that several people labelled
REPEAT = "listed before"
_UNLABELLED = {
    LISTS: "in no list",
    FOLDERS: "in no class folder",
    NAMES: "no expression in their names",
    LABEL_FILES: "no label file that can be read",
}
_RAF_NAME = re.compile(r"(train|test)_\d+_aligned")


@dataclass
class Understanding:
    """What the images of one proposal are.

    Attributes:
        rows: the rows of each split, in order.
        ids: [N], what each image is called.
        form: of the predictions; None without test images.
        groups: [N], the person on each image; None if unknown.
    """

    pictures: Pictures
    rows: dict[str, list[int]]
    labels: Labels
    coding: Coding
    ids: list[str]
    form: SubmissionFormat | None
    groups: list[str | None] | None
    notes: list[str]
    rejected: list[Rejected]

    @property
    def layout(self) -> str:
        """The name of the reader."""
        return self.labels.layout


def understand(
    pictures: Pictures, sample: Table | None, named: Mapping[str, Mapping[int, str]], said: UserOptions
) -> Understanding | None:
    """The splits, labels, classes and ids of the images, also by the sample submission, the files that name
    classes (`named_classes`) and what a person said; None if there is nothing to learn from.

    Raises:
        DataError: the data can be understood in several ways; names them and what decides.
    """
    if not {said.column("label"), said.column("split")} - {""} <= set(pictures.rows.columns):
        return None
    division = find_division(pictures, said.splits, said.column("split"))
    if sample is not None and "test" not in division.splits and said.splits == "auto":
        asked_for = _divide_by_sample(pictures, division, sample)
    else:
        asked_for = []
    if said.splits == "auto":
        checks.check_beside(pictures, division)
    not_labels = {*division.columns, said.column("id"), said.column("subject")}
    splits = ["test" if row in division.left_out else split for row, split in enumerate(division.splits)]
    labels = find_labels(pictures, splits, said, not_labels, named.values())
    if labels is None:
        return None
    checks.check_test_is_there(pictures, asked_for, labels, sample)
    if said.splits == "auto":
        checks.check_unnamed(pictures, division, labels)
        checks.check_copies(pictures, division)
    _hide_labels(pictures, division, labels)
    _merge_repeats(pictures, division, labels)
    rows = _divide(pictures, division, labels)
    if not rows["train"]:
        if rows["valid"] and (part := pictures.parts[rows["valid"][0]]):
            raise DataError(
                f"{part} seems to be for validation, and no image for training has a label: "
                f"splits='train={stem(part)}' trains on it"
            )
        return None
    coding = _coding(pictures, rows, labels, named, said)
    ids = find_ids(pictures, labels, rows, said)
    notes = [*division.notes, *labels.notes, coding.note, *pictures.notes, *_counted(pictures, division)]
    form = find_form_of_predictions(pictures, sample, rows["test"], labels, coding, ids, notes, said)
    groups = find_persons(pictures, said, [*rows["train"], *rows["valid"]], notes)
    notes += checks.never_trained(rows, labels, coding)
    if groups is None and said.splits == said.groups == "auto":
        notes += checks.check_twins(pictures, rows["train"], labels)
    if groups is None and not rows["valid"]:
        notes += may_divide(pictures, rows, labels)
    if groups is None and said.groups == "auto":
        groups = originals(pictures.files, [*rows["train"], *rows["valid"]], notes)
    rows = {split: found for split, found in rows.items() if found}
    notes = [note for note in notes if note]
    rejected = [Rejected(pictures.places[row], why) for row, why in division.rejected.items()]
    return Understanding(pictures, rows, labels, coding, ids, form, groups, notes, rejected)


def _divide_by_sample(pictures: Pictures, division: Division, sample: Table) -> list[int]:
    """Make the images that the sample submission names the test split, where nothing else names one;
    returns their rows."""
    wanted = sample_ids(sample)
    columns = {"id": pictures.ids, "file": pictures.files} if pictures.files else {}
    columns |= {c: pictures.cells(c) for c in pictures.table_columns()}
    columns = {name: cells for name, cells in columns.items() if pd.Index(filter(None, cells)).is_unique}
    if not wanted or not columns:
        return []
    name, rows, _ = find_rows(wanted, columns)
    if None in rows or len(set(rows)) == len(pictures):
        return []
    for row in rows:
        division.splits[row] = "test"
    division.notes.append(f"test: the images that {sample.name} names, by {name}")
    return rows


def _hide_labels(pictures: Pictures, division: Division, labels: Labels) -> None:
    """Make a validation split whose labels are hidden (blank, -1, one and the same) part of the test
    split.

    Raises:
        DataError: another column seems to hold its labels.
    """
    shown = {split: Counter() for split in SPLITS}
    for label, split in zip(labels.values, division.splits, strict=True):
        if split:
            shown[split]["" if is_hidden(label) else label] += 1
    valid, classes = shown["valid"], shown["train"].keys() - {""}
    is_constant = len(valid) == 1 and valid.total() >= max(5, len(classes)) and len(classes) > 1
    if valid and (valid[""] > (1 - STRAY_SHARE) * valid.total() or is_constant):
        checks.check_elsewhere(pictures, division, labels, classes)
        division.splits[:] = ["test" if split == "valid" else split for split in division.splits]
        division.notes.append("the valid split shows no labels: it is part of the test split")


def _merge_repeats(pictures: Pictures, division: Division, labels: Labels) -> None:
    """Rows of a list that name one image several times, by different people, become one row with votes."""
    found: dict[str, list[int]] = defaultdict(list)
    for row, file in enumerate(pictures.files):
        if file and division.splits[row] != "test" and not is_hidden(labels.values[row]):
            found[file].append(row)
    tested = {file for file, split in zip(pictures.files, division.splits, strict=False) if split == "test"}
    for file in found.keys() & tested:
        division.left_out |= dict.fromkeys(found.pop(file), "also in the test split")
    repeated = {file: rows for file, rows in found.items() if len(rows) > 1}
    checks.check_boxes(pictures, repeated)
    if not repeated or labels.votes is not None:
        return
    votes = {rows[0]: Counter(labels.values[row] for row in rows) for rows in found.values()}
    winners = {row: vote_label(list(counts.values()), list(counts)) for row, counts in votes.items()}
    for row in (row for rows in repeated.values() for row in rows[1:]):
        division.left_out[row], division.splits[row] = REPEAT, None
    differ = [row for row, counts in votes.items() if len(counts) > 1]
    ties = [row for row in differ if not winners[row]]
    if len(ties) > MOST_TIES * len(found):
        raise DataError(
            f"{len(ties):,} images are listed several times with labels that differ and no majority (as "
            f"{pictures.places[ties[0]]}): cut out the faces, or keep one row for each image"
        )
    if differ:
        labels.vote_names = tuple(sorted(set().union(*votes.values())))
        labels.votes = np.zeros((len(pictures), len(labels.vote_names)), np.float32)
        for row, counts in votes.items():
            labels.votes[row] = [counts[name] for name in labels.vote_names]
            labels.values[row] = winners[row]
    what = f"the labels of {len(differ):,} differ and count as votes" if differ else "their labels agree"
    labels.notes.append(f"{len(repeated):,} images are listed several times: {what}")


def _divide(pictures: Pictures, division: Division, labels: Labels) -> dict[str, list[int]]:
    """The rows of each split, in order. Images without a label are the test split where the data has no
    other."""
    rows: dict[str, list[int]] = {"train": [], "valid": [], "test": []}
    hidden: list[int] = []
    is_list = labels.layout == LISTS
    order = range(len(pictures))
    if pictures.files and not is_list:
        order = sorted((row for row in order if pictures.files[row]), key=lambda row: pictures.files[row])
    has_test = "test" in division.splits
    both = zip(division.splits, pictures.parts, strict=True)
    tested = is_list and any(split == "test" and part for split, part in both)
    for row in order:
        if row in division.left_out or row in division.rejected:
            continue
        split = division.splits[row] or "train"
        if tested and split == "test" and not pictures.parts[row] and is_hidden(labels.values[row]):
            division.left_out[row] = "in no list"
            continue
        if split == "test" or not is_hidden(labels.values[row]):
            rows[split].append(row)
        elif pictures.files and not (is_list and pictures.parts[row]):
            division.left_out[row] = _UNLABELLED.get(labels.layout, "no label")
        elif labels.votes is not None:
            division.left_out[row] = "most votes say no face or unknown, or they tie"
        else:
            hidden.append(row)
    if rows["test"] and is_one_table(pictures, rows["test"]):
        rows["test"].sort()  # as it lists them: a sample may count its rows
    # Many rows without a label are the test split, if the data has no other; a few are faults.
    if not has_test and len(hidden) > STRAY_SHARE * len(pictures):
        rows["test"] = hidden
        division.notes.append(f"test: the {len(hidden):,} images without a label")
    else:
        division.rejected |= dict.fromkeys(hidden, "no label")
    return rows


def _counted(pictures: Pictures, division: Division) -> list[str]:
    """Why images are left out, and how many."""
    rows: dict[str, list[int]] = defaultdict(list)
    for row, why in division.left_out.items():
        rows[why].append(row)
    rows.pop(REPEAT, None)
    return [
        f"left out: {len(r):,} images, {why} (such as {pictures.places[r[0]]})" for why, r in rows.items()
    ]


# ---------------------------------------------------------------- classes


def _coding(
    pictures: Pictures,
    rows: Mapping[str, Sequence[int]],
    labels: Labels,
    named: Mapping[str, Mapping[int, str]],
    said: UserOptions,
) -> Coding:
    """The classes, by the strongest evidence: a person, another column, the file's own metadata, a file that
    lists them, the form of FER2013 or RAF-DB.

    Raises:
        DataError: two files, or a file and a column, name the classes differently.
    """
    values, valid = (
        [v for row in rows[split] if not is_hidden(v := labels.values[row])] for split in ("train", "valid")
    )
    words = set(values)
    known = set(map(canonical, words)) - {None}
    # anger/ in the validation folder is the angry/ of the training folder.
    values += [v for v in valid if v in words or canonical(v) not in known]
    if said.classes == "auto":
        check_misspelt(values)
        if labels.layout != FOLDERS:  # a folder happy+surprise is a class
            check_single(values)
    plain = find_coding(values)
    codes = list(plain.numbers) if isinstance(plain.label_values[0], int) else None
    if said.classes != "auto":
        names = parse_classes(said.classes, None if codes is None else sorted(codes))
        if codes is not None and (missing := sorted(set(codes) - set(names))):
            raise DataError(f"classes names no class for the number {missing[0]}, which the data has")
        coding = find_coding(values, names=names, source="classes=")
        if codes is None and (unknown := [word for word in names.values() if coding.index(word) < 0]):
            raise DataError(
                f"classes names {unknown[0]!r}, but the labels are {', '.join(coding.class_names)}"
            )
        return coding
    evidence = {"another column": labels.names, "the file's metadata": pictures.names.get(labels.column)}
    if labels.layout == LABEL_FILES:  # YOLO counts from 0
        named = {file: dict(names) for file, names in named.items()}
    evidence |= {file: _fitting(names, codes, plain) for file, names in named.items()}
    evidence = {source: names for source, names in evidence.items() if names}
    if evidence:
        _check_agreement(evidence)
        source, names = next(iter(evidence.items()))
        return find_coding(values, names=names, source=source)
    form = FER if labels.column == "emotion" and pictures.layout in ("pixel tables", "fer2013.csv") else ""
    stems = [image_stem(file) for row in rows["train"] if pictures.files and (file := pictures.files[row])]
    is_raf = stems and sum(_RAF_NAME.fullmatch(s) is not None for s in stems) > 0.9 * len(stems)
    if is_raf or any(stem(pictures.parts[row]) == "list_patition_label" for row in rows["train"][:1]):
        form = RAF
    return find_coding(values, form=form)


def _fitting(names: Mapping[int, str], codes: Sequence[int] | None, plain: Coding) -> dict[int, str] | None:
    """Class names from a file if they fit the labels of the data: all numbers, or all words."""
    if codes is not None:
        return fitting_names(names, codes)
    known = {plain.index(word) for word in names.values()}
    return dict(names) if are_counted(names) and known >= set(range(len(plain.class_names))) else None


def _check_agreement(evidence: Mapping[str, Mapping[int, str]]) -> None:
    """Raise a DataError if two sources name a number differently."""
    (first, names), *others = evidence.items()
    for other, words in others:
        for number in names.keys() & words.keys():
            one, two = (canonical(w[number]) or w[number].strip().lower() for w in (names, words))
            if one != two:
                raise DataError(
                    f"{first} says that {number} is {names[number]!r}, and {other} that it is "
                    f"{words[number]!r}. classes='word for the lowest number, next word, ...' decides"
                )
