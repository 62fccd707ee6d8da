"""From a path to a `Competition`: find it, recognise its layout, read it, split off validation pictures."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np

from fer_utils.competition import Competition, DataError, Rejected, Split, SubmissionFormat
from fer_utils.data.class_names import Coding, find_coding, named_classes
from fer_utils.data.corrections import apply_fixes, clean_training
from fer_utils.data.files.cache import Cache, Reading
from fer_utils.data.files.download import download
from fer_utils.data.files.tree import Tree
from fer_utils.data.labels import canonical
from fer_utils.data.layouts.raw_data import RawData, RawSplit
from fer_utils.data.locate import around, check_roles, open_data, search_data
from fer_utils.data.splits import _joined, _split_off
from fer_utils.data.submission import default_format, read_format
from fer_utils.demo.dataset import make_demo
from fer_utils.files import find_path

MAX_REJECTED_SHARE = 0.01


def load_competition(
    data: str | Path = "auto",
    *,
    image_size: int = 48,
    seed: int = 0,
    n_folds: int = 10,
    fold: int = 0,
    pool_valid: bool = False,
    layout: str = "auto",
    columns: Mapping[str, str] | str = "auto",
    clean: bool = False,
    label_fixes: str | Path = "none",
    allow_rejected: bool = False,
) -> Competition:
    """Read a competition from wherever it lies; what was read is kept for the next time.

    Args:
        data: a folder, file, zip or tar; "kaggle:competition/<slug>" or "kaggle:dataset/<owner>/<slug>" to
            download; "demo" for drawn faces; "auto" to search the FER_DATA environment variable,
            /kaggle/input and data/ in the repository, and fall back on the demo.
        image_size: side of the square pictures; others are resized.
        seed, n_folds, fold: which pictures become the validation split, where the data has none or
            `pool_valid` is on.
        pool_valid: put the validation split that came with the data among the training pictures first, so
            that all but one fold of both are learned from (the demo's stays apart).
        layout: the name of one of `layouts.LAYOUTS`, where "auto" takes the wrong one.
        columns: the columns of tables by role, where their names are not recognised: a dictionary, or
            "label=mood, image=file"; the roles are label, pixels, usage, image and id.
        clean: leave out of the training split repeats of a picture, pictures labelled differently in
            different places, and blank ones.
        label_fixes: a CSV of other labels for training pictures (`corrections.apply_fixes`), or "none".
        allow_rejected: continue although more than 1 % of the pictures cannot be read.

    Raises:
        DataError: nothing there, no known layout, too much that cannot be read, or fixes that do not fit.
    """
    _check_options(image_size, n_folds, fold, seed)
    columns = parse_columns(columns)
    if str(data) == "auto":
        data = search_data()
    if str(data) == "demo":
        return _corrected(make_demo(seed=seed, size=image_size), label_fixes, clean)
    if str(data).startswith("kaggle:"):
        data = download(str(data))
    path = find_path(data)
    options = {"size": image_size, "layout": layout, "columns": columns, "allow_rejected": allow_rejected}
    cache = Cache(path, around(path), options)
    reading = cache.load()
    if reading is None:
        reading = _read(path, image_size, layout, columns, allow_rejected)
        cache.save(reading)
    return _corrected(_split(reading, path, (n_folds, fold, seed), pool_valid), label_fixes, clean)


def parse_columns(columns: Mapping[str, str] | str) -> dict[str, str]:
    """Columns by role from a dictionary, or from text: "auto" or such as "label=mood, image=file".

    Raises:
        DataError: no such role, or text of another form.
    """
    if columns == "auto":
        return {}
    if not isinstance(columns, (str, Mapping)):
        raise DataError(f"columns must be text or a dictionary, got {columns!r}")
    if isinstance(columns, str):
        pairs = [pair.partition("=") for pair in columns.split(",") if pair.strip()]
        if any(not sign or not name.strip() for _, sign, name in pairs):
            raise DataError(f"columns must be like 'label=mood, image=file', got {columns!r}")
        columns = {role.strip(): name.strip() for role, _, name in pairs}
    check_roles(columns)
    return dict(columns)


def _check_options(image_size: int, n_folds: int, fold: int, seed: int) -> None:
    for name, value in {"image_size": image_size, "n_folds": n_folds, "fold": fold, "seed": seed}.items():
        if not isinstance(value, int):
            raise DataError(f"{name} must be a whole number, got {value!r}")
    if not 8 <= image_size <= 1024:
        raise DataError(f"image_size must be from 8 to 1024, got {image_size}")
    if seed < 0:
        raise DataError(f"seed must not be negative, got {seed}")
    if n_folds < 2 or not 0 <= fold < n_folds:
        raise DataError(f"fold must be in 0..n_folds - 1 and n_folds at least 2, got {fold} of {n_folds}")


def _corrected(competition: Competition, label_fixes: str | Path, clean: bool) -> Competition:
    """The competition with its training split corrected and cleaned, where that is asked for."""
    whole = competition
    if clean:
        competition = _with_train(competition, *clean_training(competition.train))
    if str(label_fixes) != "none":
        fixed = apply_fixes(competition, label_fixes, left_out=whole.train.ids)
        competition = _with_train(competition, *fixed)
    return competition


def _with_train(competition: Competition, train: Split, note: str) -> Competition:
    return replace(competition, train=train, notes=(*competition.notes, note))


# ---------------------------------------------------------------- putting together


def _read(path: Path, image_size: int, layout: str, columns: dict[str, str], allow_rejected: bool) -> Reading:
    with ExitStack() as stack:
        tree, layouts = open_data(path, stack, layout, columns)
        raw = layouts[0].read(tree, image_size)
        raw.notes.extend(
            f"also recognised, not used: {other.name} (layout={other.name!r})" for other in layouts[1:]
        )
        return _assemble(raw, tree, path, layouts[0].name, allow_rejected)


def _assemble(raw: RawData, tree: Tree, path: Path, layout: str, allow_rejected: bool) -> Reading:
    """What a reader found, with its labels as classes and its form of the answers."""
    if "train" not in raw.splits or raw.splits["train"].labels is None:
        raise DataError(f"{path}: no labelled training pictures ({layout})")
    total = sum(len(part.ids) for part in raw.splits.values()) + len(raw.rejected)
    labels = [label for split in ("train", "valid") for label in _part_labels(raw, split)]
    coding = find_coding(labels, is_fer=raw.is_fer, may_be_raf=raw.is_files, names=named_classes(tree))
    splits = {
        name: _labelled(raw.splits[name], coding, raw) for name in ("train", "valid") if name in raw.splits
    }
    if (test := _test(raw, coding)) is not None:
        splits["test"] = test
    form = _format(tree, test, coding, raw)
    _check_rejected(raw.rejected, total, path, allow_rejected)
    return Reading(
        splits=splits,
        class_names=coding.class_names,
        label_values=coding.label_values,
        submission=form,
        layout=layout,
        notes=tuple(filter(None, [coding.note, *raw.notes])),
        rejected=tuple(raw.rejected),
    )


def _split(reading: Reading, path: Path, folds: tuple[int, int, int], pool_valid: bool) -> Competition:
    """The competition, with a validation split made where the data has none, or where it is to be pooled."""
    train = reading.splits["train"]
    if "valid" in reading.splits and pool_valid:
        train, valid, note = _split_off(_joined(train, reading.splits["valid"]), *folds)
        note = f"{note}; the valid split of the data is among them"
    elif "valid" in reading.splits:
        valid, note = reading.splits["valid"], "valid split: came with the data"
    else:
        train, valid, note = _split_off(train, *folds)
    if not len(train) or not len(valid):
        raise DataError(f"{path}: {len(train)} training and {len(valid)} validation pictures are too few")
    return Competition(
        train=train,
        valid=valid,
        test=reading.splits.get("test"),
        class_names=reading.class_names,
        label_values=reading.label_values,
        submission=reading.submission,
        source=str(path),
        layout=reading.layout,
        notes=(note, *reading.notes),
        rejected=reading.rejected,
    )


def _part_labels(raw: RawData, split: str) -> list[str]:
    part = raw.splits.get(split)
    return part.labels if part is not None and part.labels is not None else []


def _labelled(part: RawSplit, coding: Coding, raw: RawData) -> Split:
    """A split for training or validation; pictures without a known label are rejected."""
    if part.labels is None:
        raise DataError("the validation split has no labels")
    labels = np.array([coding.index(label) for label in part.labels], np.int64)
    unknown = np.flatnonzero(labels < 0)
    if part.votes is not None and len(unknown):
        raw.notes.append(
            f"{len(unknown):,} pictures left out: most votes say no face or unknown, or they tie"
        )
    for row in unknown if part.votes is None else ():
        reason = f"unknown label {part.labels[row]!r}" if part.labels[row].strip() else "no label"
        raw.rejected.append(Rejected(part.places[row], reason))
    split = Split(part.images, labels, np.array(part.ids, dtype=str), _votes(part, coding, raw))
    return split if not len(unknown) else split.take(labels >= 0)


def _votes(part: RawSplit, coding: Coding, raw: RawData) -> np.ndarray | None:
    """The votes float32 [N, C] in the order of the classes; those for no face or unknown are not counted."""
    if part.votes is None:
        return None
    columns = {
        coding.index(name): i for i, name in enumerate(raw.vote_names) if canonical(name) != "uncertain"
    }
    votes = np.zeros((len(part.ids), len(coding.class_names)), np.float32)
    for index, column in columns.items():
        if index >= 0:
            votes[:, index] = part.votes[:, column]
    return votes


def _test(raw: RawData, coding: Coding) -> Split | None:
    """The test split, with its labels only if the data tells all of them."""
    part = raw.splits.get("test")
    if part is None:
        return None
    first: dict[str, str] = {}
    for id_, place in zip(part.ids, part.places, strict=True):
        if id_ in first:
            raise DataError(f"{place}: test id {id_!r} stands there twice, first in {first[id_]}")
        first[id_] = place
    labels = None
    if part.labels is not None:
        labels = np.array([coding.index(label) for label in part.labels], np.int64)
        if len(labels) > 1 and len(set(labels.tolist())) == 1:
            raw.notes.append("test labels left out: all are the same, as placeholders are")
            labels = None
        elif (labels < 0).any():
            raw.notes.append(
                f"test labels left out: {(labels < 0).sum():,} of them are no class of the training data"
            )
            labels = None
    return Split(part.images, labels, np.array(part.ids, dtype=str))


def _format(tree: Tree, test: Split | None, coding: Coding, raw: RawData) -> SubmissionFormat | None:
    if test is None:
        if tree.sample:
            raw.notes.append(f"{tree.sample} ignored: there are no test pictures")
        return None
    if tree.sample is None:
        raw.notes.append("no sample submission: answers are written as id,label")
        return default_format(test.ids, coding.label_values)
    form = read_format(tree.files[tree.sample], test.ids.tolist(), coding)
    if raw.is_files and len(form.template.columns) == 1:
        raw.notes.append(f"{tree.sample} names no pictures: answers stand in the order of the file names")
    pairs = zip(coding.class_names, form.label_values, strict=True)
    labels = ", ".join(value if value == name else f"{name} = {value}" for name, value in pairs)
    raw.notes.append(f"answers are written as in {tree.sample}: {labels}")
    if len(form.rows) < len(test):
        raw.notes.append(f"{tree.sample} asks for {len(form.rows):,} of the {len(test):,} test pictures")
    return form


def _check_rejected(rejected: list[Rejected], total: int, path: Path, allow_rejected: bool) -> None:
    if len(rejected) > MAX_REJECTED_SHARE * total and not allow_rejected:
        first = "\n".join(f"  {item.place}: {item.reason}" for item in rejected[:5])
        raise DataError(
            f"{path}: {len(rejected):,} of about {total:,} pictures cannot be read, more than "
            f"{MAX_REJECTED_SHARE:.0%}; pass allow_rejected=True to go on without them. The first:\n{first}"
        )
