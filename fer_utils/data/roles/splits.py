"""Which images are for training, for validation and for the test: said by tables, folders, a column or the
sample submission, once for every image."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from fer_utils.competition import DataError
from fer_utils.data.files.file_index import folder_split, stem, table_split
from fer_utils.data.known_column_names import COLUMNS, is_split_name
from fer_utils.data.known_expressions_and_splits import (
    HIDDEN,
    MAYBE_HIDDEN,
    SPLITS,
    STRAY_SHARE,
    as_pairs,
    column_splits,
    split_of,
    split_words,
)
from fer_utils.data.layouts.found_pictures import Pictures
from fer_utils.data.roles.doubtful_splits import check_alone, check_unknown, refuse_flag, without_training
from fer_utils.data.roles.split_columns import by_columns, doubtful_flags, is_proven

# Short for a split, or the name of a person or a place.
_SHORT = re.compile(r"[\W\d_]*(te|va|vl)[\W\d_]*", re.IGNORECASE)
_MAY_BE_PERSON = re.compile(r"[\W\d_]*(dev|public|private)[\W\d_]*", re.IGNORECASE)
SOURCES = ("tables", "folders", "column", "file names")


@dataclass
class Division:
    """The split of each image.

    Attributes:
        splits: [N], "train", "valid", "test", or None where nothing says it.
        rejected: why an image belongs to no split although it should, by row.
        left_out: why an image is not used, by row.
        columns: the columns that say it, which are no labels.
    """

    splits: list[str | None]
    notes: list[str] = field(default_factory=list)
    rejected: dict[int, str] = field(default_factory=dict)
    left_out: dict[int, str] = field(default_factory=dict)
    columns: set[str] = field(default_factory=set)


def parse_splits(splits: str) -> dict[str, str] | str:
    """What a person said about the splits: "auto", "none", one of `SOURCES`, or the split of some cells from
    "train=A, valid=fold 0".

    Raises:
        DataError: text of another form.
    """
    if not isinstance(splits, str):
        raise DataError(f"splits must be text, got {splits!r}")
    if splits in ("auto", "none", *SOURCES):
        return splits
    pairs = as_pairs(splits)
    if not all(cell and name in SPLITS for name, cell in pairs):
        others = ", ".join(SOURCES)
        raise DataError(
            f"splits must be auto, none, {others}, or like 'train=A, valid=B, test=C', got {splits!r}"
        )
    return {cell.lower(): name for name, cell in pairs}


def find_division(pictures: Pictures, splits: str, column: str = "") -> Division:
    """The split of each image. Tables come before folders and those before a column, if they name at least
    two splits; what one leaves open, the next decides. A person may have said all (`parse_splits`) or named
    the column.

    Raises:
        DataError: folders and a column contradict each other, or nothing fits what was said.
    """
    said = parse_splits(splits)
    if said == "none":
        return Division(["train"] * len(pictures), ["splits of the data are not used (splits='none')"])
    if isinstance(said, dict):
        return _as_said(pictures, said, column)
    flags = doubtful_flags(pictures)
    sure = {column, *(flags if said == "column" else (c for c in flags if is_proven(pictures, c)))}
    cells = {c: pictures.rows[c].unique() for c in pictures.table_columns()}
    columns = [c for c in cells if column_splits(c, cells[c], c in sure)]
    none, reasons = [None] * len(pictures), {}
    parts, files = pictures.parts, pictures.files or none
    found = {
        "tables": [table_split(part) if part else None for part in parts],
        "folders": _by_folder(files),
        "column": by_columns(pictures, [column] if column else columns, sure, reasons),
        "file names": _by_file_name(files),
    }
    found |= {source: none for source in SOURCES if said not in ("auto", source)}
    kinds = {source: set(values) - {None} for source, values in found.items()}
    if said != "auto" and not kinds[said]:
        raise DataError(f"splits={said!r}: the {said} of these images name no split")
    if kinds["tables"] == {"valid"} and not any("train" in splits for splits in kinds.values()):
        check_alone(
            [part for part, split in zip(parts, found["tables"], strict=True) if split], len(pictures)
        )
    is_open = all(len(splits) < 2 for splits in kinds.values())
    if said == "auto" and (doubtful := [c for c in flags if c not in sure and (is_open or c == "valid")]):
        refuse_flag(pictures, doubtful[0], next((s for s in SOURCES if kinds[s] and s != "column"), "none"))
    is_said = bool(column) or said != "auto"
    check_unknown(pictures, set(SPLITS) if is_said else set().union(*kinds.values()), is_open)
    if "train" not in kinds["column"] and _covers_only_tests(found):  # public and private rows of the test
        found["column"], kinds["column"] = none, set()
    alone = without_training(pictures, found, [column] if column else columns)
    extra = [row for row, part in enumerate(parts) if re.search(r"un-?_?label", stem(part).lower())]
    left_out = dict.fromkeys(extra, "an unlabelled extra")
    if "train" in kinds["folders"] and len(kinds["folders"]) > 1:
        rows = zip(files, parts, found["folders"], strict=True)
        strays = [row for row, (file, part, split) in enumerate(rows) if file and not part and not split]
        left_out |= dict.fromkeys(strays, "outside of the folders of the splits")
    _refine_tables(found, kinds, left_out)
    if len(kinds["folders"]) > 1 and len(kinds["column"]) > 1:
        _agree(found)
    # What names one split alone decides what the others leave open; a folder "test" around all is no split.
    sources = [s for s in found if "train" in kinds[s] or None in found[s]]
    sources.sort(key=lambda source: len(kinds[source]) < 2)
    division = [next((found[s][row] for s in sources if found[s][row]), None) for row in range(len(pictures))]
    notes = [f"splits: from the {source}" for source in sources if len(kinds[source]) > 1][:1] + alone
    rejected = {row: why for row, why in reasons.items() if division[row] is None and row not in left_out}
    return Division(division, notes, rejected, left_out, {*columns, column})


def _by_folder(files: Sequence[str | None]) -> list[str | None]:
    """The split that a folder of each file names: one level whose folders are all splits, else the innermost
    such folder; all folders seen together."""
    paths = [(file or "").split("/")[:-1] for file in files]
    for level in range(max(map(len, paths), default=0)):
        names = [path[level] if len(path) > level else "" for path in paths]
        if len(set(names)) > 1 and (splits := _all_named(names)):
            return splits
    folders = [next(filter(split_of, reversed(path)), "") for path in paths]
    words = split_words({*folders} - {""})
    if "train" not in words.values():  # TE beside AB and MK is a person
        doubtful = filter(_MAY_BE_PERSON.fullmatch, words)
        persons = {*filter(_SHORT.fullmatch, words), *(name for name in doubtful if _is_person(name, paths))}
        words = {folder: None if folder in persons else split for folder, split in words.items()}
    return [words.get(folder) for folder in folders]


def _is_person(folder: str, paths: Sequence[Sequence[str]]) -> bool:
    """Whether at least two other folders hold folders of the same names: Ann/happy and dev/happy."""
    below: dict[str, set[str]] = {}
    for path in paths:
        for name, inner in zip(path, path[1:], strict=False):
            below.setdefault(name, set()).add(inner)
    alike = [name for name, inner in below.items() if inner == below.get(folder) and not split_of(name)]
    return len(alike) > 1


def _by_file_name(files: Sequence[str | None]) -> list[str | None]:
    """The split that one word of every file's name says, the first, the second, the last or so: RAF-DB has
    train_00001.jpg."""
    words = [re.findall(r"[^\W\d_]{2,}", stem(file or "")) for file in files]
    fewest = min(map(len, words), default=0)
    for place in (*range(fewest), *range(-1, -fewest - 1, -1)):
        if len({*(splits := _all_named([some[place] for some in words]) or [])}) > 1:
            return splits
    return [None] * len(files)


def _all_named(names: Sequence[str]) -> list[str] | None:
    """The splits that names stand for; None unless each stands for one, and some for training."""
    words = split_words(set(names))
    whole = "train" in words.values() and None not in words.values()
    return [words[name] for name in names] if whole else None


def _as_said(pictures: Pictures, wanted: Mapping[str, str], column: str) -> Division:
    """The split of each image by the cells, folders or tables that a person named. What is not named keeps
    the split that its own word means.

    Raises:
        DataError: nothing holds a cell, or several columns hold all of them.
    """
    sources: dict[str, list[list[str]]] = {
        "the tables": [[part.lower(), stem(part).lower()] for part in pictures.parts],
        "the folders": [
            (file or "").lower().split("/")[-2::-1] for file in pictures.files
        ],  # innermost first
    }
    for name in [column] if column else [c for c in pictures.rows if pictures.rows[c].nunique() <= 100]:
        cells = [(cell or "").lower() for cell in pictures.cells(name)]
        sources[name] = [[cell, f"{name} {cell}"] for cell in cells]
    holds = {name: set().union(*cells) & set(wanted) for name, cells in sources.items()}
    if missing := [cell for cell in wanted if not any(cell in found for found in holds.values())]:
        raise DataError(
            f"splits: no table, folder or column holds {missing[0]!r}, which should be {wanted[missing[0]]}"
        )
    most = max(map(len, holds.values()))
    best = [name for name, found in holds.items() if len(found) == most]
    best = [name for name in best if is_split_name(name)] or best
    own = [name for name in best if name not in pictures.layouts] or best
    own = [name for name in own if name not in COLUMNS["label"]] or own
    if len(own) > 1 and own[0] in pictures.rows.columns:
        ways = " or ".join(f"columns='split={name}'" for name in own)
        raise DataError(f"splits: the columns {', '.join(map(repr, own))} hold these cells: {ways} decides")
    names = own[:1] if most == len(wanted) else [name for name in sources if holds[name]]
    result: list[str | None] = [None] * len(pictures)
    for name in names:
        # The name before a cell may be that of a split: is_test no.
        plain = 1 if name in pictures.rows else None
        words = sorted({cell for cells in sources[name] for cell in cells[:plain]})
        others = split_words(words) if name in own else {}
        for row, cells in enumerate(sources[name]):
            found = next((wanted[cell] for cell in cells if cell in wanted), None)
            result[row] = found or result[row] or next((others[c] for c in cells if others.get(c)), None)
    tests = [None] * len(result)  # test.csv and the folder test stay the test, unless another was named
    if "test" not in wanted.values() or "train" not in {*wanted.values(), *result}:
        words = [(stem(part), folder_split(file or "")) for part, file in _parts_and_files(pictures)]
        tests = ["test" if "test" in (split_of(table), folder) else None for table, folder in words]
    result = [split or test for split, test in zip(result, tests, strict=True)]
    if "train" not in {*wanted.values(), *result}:
        result = [split or "train" for split in result]
    left = {row: "in none of the splits that were named" for row, split in enumerate(result) if split is None}
    used = set() if wanted.keys() <= HIDDEN | MAYBE_HIDDEN else set(names)  # hidden labels are labels
    return Division(result, ["splits: as they were named"], {}, left, used)


def _parts_and_files(pictures: Pictures) -> zip:
    return zip(pictures.parts, pictures.files or [None] * len(pictures), strict=True)


def _refine_tables(
    found: dict[str, list[str | None]], kinds: dict[str, set[str]], left_out: dict[int, str]
) -> None:
    """Let a column divide the rows of a training table further, unless it contradicts the other tables."""
    if len(kinds["tables"]) < 2 or not kinds["column"]:
        return
    pairs = list(zip(found["tables"], found["column"], strict=True))
    if any(t and c and t != c for t, c in pairs if t != "train"):
        return  # the tables were made of another division last
    for row, (table, column) in enumerate(pairs):
        if table == "train" and column and column != "train":
            if column in kinds["tables"]:
                why = f"{column} rows of a training table, as another table holds the {column} split"
                left_out[row] = why
            else:
                found["tables"][row] = column


def _covers_only_tests(found: Mapping[str, Sequence[str | None]]) -> bool:
    """Whether a column only names images that tables or folders have for the test."""
    rows = [row for row, cell in enumerate(found["column"]) if cell]
    return bool(rows) and any({found[s][row] for row in rows} == {"test"} for s in ("tables", "folders"))


def _agree(found: Mapping[str, Sequence[str | None]]) -> None:
    """Raise a DataError if folders and a column put images into different splits."""
    pairs = Counter(pair for pair in zip(found["folders"], found["column"], strict=True) if None not in pair)
    differ = [(n, pair) for pair, n in pairs.items() if pair[0] != pair[1]]
    if sum(n for n, _ in differ) > STRAY_SHARE * pairs.total() and len(set(found["tables"]) - {None}) < 2:
        n, (folder, column) = max(differ)
        raise DataError(
            f"{n:,} images lie in a folder for {folder} while a column says {column}: "
            "splits='folders' or splits='column' decides which of the two is meant"
        )
