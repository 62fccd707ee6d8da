"""Checks of a reading before it is believed: what two readings would explain is refused."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import combinations

from fer_utils.competition import DataError
from fer_utils.data.files.file_index import folder_split, stem, table_split
from fer_utils.data.image_paths import image_stem
from fer_utils.data.known_column_names import ABOUT, COLUMNS, boxes_in
from fer_utils.data.known_expressions_and_splits import SPLITS, STRAY_SHARE, canonical, pattern, split_of
from fer_utils.data.layouts.found_pictures import Pictures
from fer_utils.data.roles.class_names import Coding, check_same_start
from fer_utils.data.roles.splits import Division
from fer_utils.data.roles.votes_and_hidden_labels import Labels, is_hidden
from fer_utils.data.tables import Table

LEAST_TWINS, MOST_TWINS = 20, 0.9  # files of a folder, and the share whose names another folder has too
MOST_BESIDE = 6  # folders that may be versions of one another: raw, aligned, cropped
COUNTED = 1.5  # numbers of which most follow one another span no more than this times their number
_SEXES = {"male", "female", "males", "females", "man", "woman", "men", "women", "boys", "girls", "m", "f"}
_FOR_TRAINING = re.compile(r"(^|[^a-z])(extra|additional|more|aug|augment\w*|synthe\w*|generated)([^a-z]|$)")


def never_trained(rows: Mapping[str, Sequence[int]], labels: Labels, coding: Coding) -> list[str]:
    """A note on classes that only validation images show; a DataError if their numbers begin elsewhere."""
    train, valid = (Counter(coding.index(labels.values[row] or "") for row in rows[s]) for s in SPLITS[:2])
    only = [f"{coding.class_names[k]} ({valid[k]:,})" for k in sorted(valid.keys() - train.keys() - {-1})]
    check_same_start(*(sorted(coding.label_values[k] for k in found if k >= 0) for found in (train, valid)))
    return [f"no training image shows what validation images do: {', '.join(only)}"] if only else []


def check_test_is_there(
    pictures: Pictures, asked_for: Sequence[int], labels: Labels, sample: Table | None
) -> None:
    """Raise a DataError if the images that the sample submission names show their labels: then they are
    training images with the same names, and those of the test were not downloaded."""
    shown = [row for row in asked_for if not is_hidden(labels.values[row])]
    if sample is not None and len({labels.values[row] for row in shown}) > 1:
        raise DataError(
            f"{sample.name} asks for {len(asked_for):,} images, but those of these names have labels (such "
            f"as {pictures.places[shown[0]]}): the images of the test seem to be missing. Put them beside "
            f"the others; or, to train without a test, move {sample.name} elsewhere"
        )


def check_beside(pictures: Pictures, division: Division) -> None:
    """Raise a DataError if folders of the same classes lie beside those for training, in folders of unknown
    names: they may be the test."""
    files = {row: f for row, f in enumerate(pictures.files) if f and "/" in f and not pictures.parts[row]}
    trained = {file.split("/")[-2] for file in files.values() if folder_split(file) == "train"}
    files = {row: file for row, file in files.items() if file.split("/")[-2] in trained}
    beside = [f for row, f in files.items() if division.splits[row] is None or row in division.left_out]
    if beside:
        # The folder of a split lies above that of a class.
        above = beside[0].split("/")[-3::-1][:1]
        answer = f"splits='train=train, test={above[0]}' says so" if above else "move them into a folder test"
        raise DataError(
            f"{len(beside):,} images lie in folders of the same classes beside those for training, such as "
            f"{beside[0]}: are they the test? {answer}; splits='none' trains on all"
        )


def check_unnamed(pictures: Pictures, division: Division, labels: Labels) -> None:
    """Raise a DataError if, without a test, a table with labels lies beside that for training, and its name
    says no split: it may be the test, or a sample of the submission whose answers are made up."""
    if "test" in division.splits:
        return
    tables = {part: table_split(part) for part in dict.fromkeys(pictures.parts) if part}
    trained = [part for part, split in tables.items() if split == "train"]
    unnamed = {part for part, split in tables.items() if not split and not _FOR_TRAINING.search(part.lower())}
    rows = [row for row, part in enumerate(pictures.parts) if part in unnamed]
    rows = [row for row in rows if row not in division.left_out and not is_hidden(labels.values[row])]
    if trained and len(rows) > STRAY_SHARE * len(pictures):
        one, other = trained[0], pictures.parts[rows[0]]
        raise DataError(
            f"{other} beside {one}: is it the test, or for training too? splits='train={stem(one)}, "
            f"test={stem(other)}' makes it the test, and splits='train={stem(one)}, train={stem(other)}' "
            "trains on it. A sample of the submission must be called sample_submission.csv"
        )


def check_copies(pictures: Pictures, division: Division) -> None:
    """Raise a DataError if two tables of one split hold the same images: train.csv beside train_clean.csv."""
    for one, other, n in pictures.copies:
        splits: dict[str, set[str]] = {one: set(), other: set()}
        for row, part in enumerate(pictures.parts):
            if part in splits and row not in division.left_out:
                splits[part].add(division.splits[row] or "train")
        if splits[one] & splits[other]:
            raise DataError(
                f"the same {n:,} images are in {one} and in {other}: move one of the two out of the data"
            )


def check_elsewhere(pictures: Pictures, division: Division, labels: Labels, classes: Collection[str]) -> None:
    """Raise a DataError if a column that is empty for training holds classes of the validation images."""
    rows = {s: [row for row, split in enumerate(division.splits) if split == s] for s in ("train", "valid")}
    trained = set(map(canonical, classes)) - {None} or {*classes}
    for column in pictures.rows.columns.difference([labels.column, *ABOUT]):
        cells = pictures.rows[column]
        said = {canonical(cell) or cell for cell in cells.iloc[rows["valid"]].dropna()} - {""}
        is_empty = cells.iloc[rows["train"]].isin([None, ""]).mean() > 1 - STRAY_SHARE
        if is_empty and len(said & trained) > 1 and (said <= trained or column in COLUMNS["label"]):
            first = rows["valid"][0]
            folders = (pictures.files[first] or "").split("/") if pictures.files else []
            name = stem(pictures.parts[first]) or next(filter(split_of, folders), "")
            where = "their folders" if labels.column in pictures.layouts else f"the column {labels.column!r}"
            raise DataError(
                f"the labels of the validation images seem to be in the column {column!r}, and those for "
                f"training in {where}: write both into one column, or all images into folders. "
                f"splits='test={name}' makes them the test"
            )


def check_boxes(pictures: Pictures, repeated: Mapping[str, Sequence[int]]) -> None:
    """Raise a DataError if the rows of an image, by its file, have different boxes: these are faces of one
    photograph."""
    columns = [c for c in pictures.rows if c in boxes_in(pictures.rows.columns)]
    if not columns:
        return
    cells = list(pictures.rows[columns].itertuples(index=False, name=None))
    n = sum(len({cells[row] for row in rows}) > 1 for rows in repeated.values())
    if n > STRAY_SHARE * len({*pictures.files}):
        raise DataError(
            f"{n:,} images are listed several times with different boxes: cut the faces out first, or keep "
            "one row for each image"
        )


def check_twins(pictures: Pictures, rows: Iterable[int], labels: Labels) -> list[str]:
    """A note on folders side by side, such as raw/ and cropped/, that hold files of the same names and
    labels: each face may be there twice, for training and for validation.

    Raises:
        DataError: it must be so, as these names are no plain counts.
    """
    beside: dict[str, dict[str, dict[str, str]]] = defaultdict(lambda: defaultdict(dict))
    for row in (row for row in rows if pictures.files and pictures.files[row]):
        *folders, name = pictures.files[row].split("/")
        below = image_stem(name).removesuffix("_aligned")  # RAF-DB
        for level in reversed(range(len(folders))):
            beside["/".join([*folders[:level], ""])][folders[level]][below] = labels.values[row]
            below = f"{folders[level].lower()}/{below}"
    for above, found in beside.items():
        if len(found) > MOST_BESIDE or {name.lower() for name in found} <= _SEXES:  # 1.png of both
            continue
        for (one, names), (other, others) in combinations(found.items(), 2):
            both, few = names.keys() & others.keys(), min(len(names), len(others))
            if few < LEAST_TWINS or len(both) <= MOST_TWINS * few or pattern(one) == pattern(other):
                continue
            if sum(names[name] == others[name] for name in both) <= MOST_TWINS * len(both):
                continue  # the folders are classes
            said = f"{above}{one} and {above}{other} hold {len(both):,} files of the same names and labels"
            out = "if they show the same faces, move one of the two out of the data"
            if _are_counts(both):
                return [f"{said}: {out}"]
            raise DataError(f"{said}: {out}; if not, groups='none' reads both")
    return []


def _are_counts(names: Iterable[str]) -> bool:
    """Whether most folders only count the files of these names (with their folders): 1.png, 2.png, ..."""
    numbers: dict[str, list[int]] = defaultdict(list)
    for name in names:
        folder, _, last = name.rpartition("/")
        numbers[folder] += map(int, re.findall(r"\d+", last)[-1:])
    counted = [max(n) - min(n) < COUNTED * len(n) for n in numbers.values() if n]
    return 2 * sum(counted) > len(numbers)
