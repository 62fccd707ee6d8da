"""From a path to a `Competition`: find the data, recognise its layout, read it, make a validation split."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np

from fer_utils.competition import Competition, DataError, Rejected, Split, SubmissionFormat
from fer_utils.data.class_names import Coding, find_coding, named_classes
from fer_utils.data.column_names import COLUMNS
from fer_utils.data.corrections import apply_fixes, clean_training
from fer_utils.data.files.cache import Cache, Reading
from fer_utils.data.files.download import download
from fer_utils.data.files.tree import Tree
from fer_utils.data.layouts.raw_data import RawData, RawSplit
from fer_utils.data.locate import around, open_data, search_data
from fer_utils.data.splits import joined, split_off
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
    """Read a competition; what was read is cached for the next time.

    Args:
        data: a folder, file, zip or tar; "kaggle:competition/<slug>" or "kaggle:dataset/<owner>/<slug>" to
            download; "demo" for drawn faces; "auto" to search the FER_DATA environment variable,
            /kaggle/input and data/ in the repository, and to use the demo if nothing is found.
        image_size: side of the square images; others are resized.
        seed, n_folds, fold: which images become the validation split, if the data has none or with
            `pool_valid`.
        pool_valid: add the validation split of the data to the training images first, so that training uses
            all but one fold of both (not for the demo).
        layout: the name of one of `layouts.LAYOUTS`, if "auto" chooses the wrong one.
        columns: the columns of tables by role, if their names are not recognised: a dictionary, or
            "label=mood, image=file"; the roles are label, pixels, usage, image and id.
        clean: drop repeats, copies with different labels and blank images from the training split.
        label_fixes: a CSV of other labels for training images (`corrections.apply_fixes`), or "none".
        allow_rejected: continue although more than 1 % of the images cannot be read.

    Raises:
        DataError: no such data, no known layout, too many unreadable images, or fixes that do not fit.
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
    if wrong := sorted(set(columns) - set(COLUMNS)):
        raise DataError(f"columns: unknown {', '.join(wrong)}; known are {', '.join(COLUMNS)}")
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
    """The competition with its training split cleaned and corrected, if the options say so."""
    whole = competition
    if clean:
        train, note = clean_training(competition.train)
        competition = replace(competition, train=train, notes=(*competition.notes, note))
    if str(label_fixes) != "none":
        train, note = apply_fixes(competition, label_fixes, left_out=whole.train.ids)
        competition = replace(competition, train=train, notes=(*competition.notes, note))
    return competition


def _read(path: Path, image_size: int, layout: str, columns: dict[str, str], allow_rejected: bool) -> Reading:
    with ExitStack() as stack:
        tree, (used, *others) = open_data(path, stack, layout, columns)
        raw = used.read(tree, image_size)
        raw.notes += [f"also recognised, not used: {other.name} (layout={other.name!r})" for other in others]
        return _assemble(raw, tree, path, used.name, allow_rejected)


def _assemble(raw: RawData, tree: Tree, path: Path, layout: str, allow_rejected: bool) -> Reading:
    """What a layout read, with labels as class indices and the form of the submission."""
    if "train" not in raw.splits or raw.splits["train"].labels is None:
        raise DataError(f"{path}: no labelled training pictures ({layout})")
    total = sum(len(part.ids) for part in raw.splits.values()) + len(raw.rejected)
    parts = {name: raw.splits[name] for name in ("train", "valid") if name in raw.splits}
    labels = [label for part in parts.values() for label in part.labels or ()]
    coding = find_coding(labels, is_fer=raw.is_fer, may_be_raf=raw.is_files, names=named_classes(tree))
    splits = {name: _labelled(part, coding, raw) for name, part in parts.items()}
    if "test" in raw.splits:
        splits["test"] = _test(raw.splits["test"], coding, raw.notes)
    form = _format(tree, splits.get("test"), coding, raw)
    if len(raw.rejected) > MAX_REJECTED_SHARE * total and not allow_rejected:
        first = "\n".join(f"  {item.place}: {item.reason}" for item in raw.rejected[:5])
        raise DataError(
            f"{path}: {len(raw.rejected):,} of about {total:,} pictures cannot be read, more than "
            f"{MAX_REJECTED_SHARE:.0%}; pass allow_rejected=True to continue without them. First:\n{first}"
        )
    notes = tuple(filter(None, [coding.note, *raw.notes]))
    return Reading(splits, coding.class_names, coding.label_values, form, layout, notes, tuple(raw.rejected))


def _split(reading: Reading, path: Path, folds: tuple[int, int, int], pool_valid: bool) -> Competition:
    """The competition; its validation split is made here if the data has none or it is to be pooled."""
    train, valid = reading.splits["train"], reading.splits.get("valid")
    note = "valid split: came with the data"
    if valid is None or pool_valid:
        pooled = "" if valid is None else "; the valid split of the data is among them"
        train, valid, note = split_off(train if valid is None else joined(train, valid), *folds)
        note += pooled
    if not len(train) or not len(valid):
        raise DataError(f"{path}: {len(train)} training and {len(valid)} validation pictures are too few")
    same = {name: value for name, value in vars(reading).items() if name not in ("splits", "notes")}
    notes = (note, *reading.notes)
    return Competition(train, valid, reading.splits.get("test"), source=str(path), notes=notes, **same)


def _labelled(part: RawSplit, coding: Coding, raw: RawData) -> Split:
    """A split for training or validation; images without a known label are rejected."""
    if part.labels is None:
        raise DataError("the validation split has no labels")
    labels, votes = coding.indices(part.labels), None
    unknown = np.flatnonzero(labels < 0)
    if part.votes is None:
        for row in unknown:
            reason = f"unknown label {part.labels[row]!r}" if part.labels[row].strip() else "no label"
            raw.rejected.append(Rejected(part.places[row], reason))
    else:
        votes = np.zeros((len(labels), len(coding.class_names)), np.float32)
        for name, column in zip(raw.vote_names, part.votes.T, strict=True):
            if (index := coding.index(name)) >= 0:  # no face and unknown are not counted
                votes[:, index] = column
        if len(unknown):
            what = "most votes say no face or unknown, or they tie"
            raw.notes.append(f"{len(unknown):,} pictures left out: {what}")
    split = Split(part.images, labels, np.array(part.ids, dtype=str), votes)
    return split.take(labels >= 0) if len(unknown) else split


def _test(part: RawSplit, coding: Coding, notes: list[str]) -> Split:
    """The test split, with its labels only if the data gives all of them."""
    first: dict[str, str] = {}
    for id_, place in zip(part.ids, part.places, strict=True):
        if id_ in first:
            raise DataError(f"{place}: test id {id_!r} stands there twice, first in {first[id_]}")
        first[id_] = place
    labels, why = None, ""
    if part.labels is not None:
        labels = coding.indices(part.labels)
        if len(labels) > 1 and (labels == labels[0]).all():
            why = "all are the same, as placeholders are"
        elif (labels < 0).any():
            why = f"{(labels < 0).sum():,} of them are no class of the training data"
    if why:
        notes.append(f"test labels left out: {why}")
    return Split(part.images, None if why else labels, np.array(part.ids, dtype=str))


def _format(tree: Tree, test: Split | None, coding: Coding, raw: RawData) -> SubmissionFormat | None:
    """The form of the sample submission, or the default; None without a test split."""
    sample, notes = tree.sample, raw.notes
    if test is None:
        notes += [f"{sample} ignored: there are no test pictures"] if sample else []
        return None
    if sample is None:
        notes.append("no sample submission: predictions are written as id,label")
        return default_format(test.ids, coding.label_values)
    form = read_format(tree.files[sample], test.ids.tolist(), coding)
    if raw.is_files and len(form.template.columns) == 1:
        notes.append(f"{sample} names no pictures: predictions are in the order of the file names")
    pairs = zip(coding.class_names, form.label_values, strict=True)
    labels = ", ".join(value if value == name else f"{name} = {value}" for name, value in pairs)
    notes.append(f"predictions are written as in {sample}: {labels}")
    if len(form.rows) < len(test):
        notes.append(f"{sample} asks for {len(form.rows):,} of the {len(test):,} test pictures")
    return form
