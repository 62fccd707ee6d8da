"""From a path to a `Competition`: find the data, recognise its layout, read it, make a validation split."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np

from fer_utils.competition import Competition, DataError, Rejected, Split
from fer_utils.config import check_choice
from fer_utils.data.column_names import COLUMNS
from fer_utils.data.corrections import apply_fixes, clean_training
from fer_utils.data.files.cache import Cache, Reading
from fer_utils.data.files.download import download
from fer_utils.data.images import changes, coloured
from fer_utils.data.layouts.registry import check_layout
from fer_utils.data.locate import around, open_data, search_data
from fer_utils.data.roles.divisions import parse_splits
from fer_utils.data.roles.labels import is_hidden
from fer_utils.data.roles.name_files import read_classes
from fer_utils.data.roles.said import Said
from fer_utils.data.roles.understanding import Understanding
from fer_utils.data.splits import joined, split_off
from fer_utils.demo.dataset import make_demo
from fer_utils.files import find_path

MAX_REJECTED_SHARE = 0.01
COLORS = ("auto", "grey", "rgb")
LOOKED_AT, MIN_COLOUR_SHARE = 256, 0.05  # pictures for "auto", and the share with colours for rgb


def load_competition(
    data: str | Path = "auto",
    *,
    image_size: int = 48,
    color: str = "auto",
    seed: int = 0,
    n_folds: int = 10,
    fold: int = 0,
    pool_valid: bool = False,
    layout: str = "auto",
    columns: Mapping[str, str] | str = "auto",
    classes: str = "auto",
    splits: str = "auto",
    groups: str = "auto",
    clean: bool = False,
    label_fixes: str | Path = "none",
    allow_rejected: bool = False,
) -> Competition:
    """Read a competition; what was read is cached for the next time.

    Args:
        data: a folder, file, zip or tar; "kaggle:competition/<slug>" or "kaggle:dataset/<owner>/<slug>" to
            download; "demo" for drawn faces; "auto" to search FER_DATA (an environment variable),
            /kaggle/input and data/ in the repository, else the demo.
        image_size: side of the square images; others are resized.
        color: "grey", "rgb", or "auto": rgb where more than one picture in twenty has colours.
        seed, n_folds, fold: which images become the validation split, if the data has none or with
            `pool_valid`, which adds that of the data to the training images first (not for the demo).
        layout: one of `registry.LAYOUTS`, if several fit.
        columns: columns by role: a dictionary, or "label=mood, image=file"; the roles are label, pixels,
            split, image, id and subject.
        classes: the names of the classes in ascending order of their numbers, "angry, happy"; or
            "0=angry, 3=happy"; or a file that lists them.
        splits: which cells, folders or tables are which split, "train=A, valid=B, test=C"; "tables",
            "folders", "column" or "file names" if these contradict each other; "none" to train on all.
        groups: the column or folder level ("folder 1" holds the file) of the person on each picture, who
            stays on one side of a split made here; "none", or "auto" to go by its name.
        clean: drop repeats, copies with different labels and blank images from the training split.
        label_fixes: a CSV of other labels for training images (`corrections.apply_fixes`), or "none".
        allow_rejected: continue although more than 1 % of the images cannot be read.

    Raises:
        DataError: no such data, no known layout, too many unreadable images, or fixes that do not fit.
    """
    _check_options(image_size, n_folds, fold, seed)
    check_choice("color", color, COLORS)
    said = Said(layout, parse_columns(columns), read_classes(classes), splits, groups)
    check_layout(layout)
    parse_splits(splits)
    if str(data) == "auto":
        data = search_data()
    if str(data) == "demo":
        return _corrected(make_demo(seed=seed, size=image_size, color=color == "rgb"), label_fixes, clean)
    if str(data).startswith("kaggle:"):
        data = download(str(data))
    path = find_path(data)
    options = (said, image_size, color, allow_rejected)
    cache = Cache(path, around(path), {"options": repr(options)})
    reading = cache.load()
    if reading is None:
        reading = _read(path, *options)
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


def _read(path: Path, said: Said, image_size: int, color: str, allow_rejected: bool) -> Reading:
    with ExitStack() as stack:  # archives stay unpacked until the pictures are decoded
        understanding, others = open_data(path, stack, said)
        return _assemble(understanding, others, path, image_size, color, allow_rejected)


def _assemble(
    found: Understanding, others: list[str], path: Path, size: int, color: str, allow_rejected: bool
) -> Reading:
    """The pictures decoded, with labels as class indices."""
    rejected = list(found.rejected)
    splits, notes = {}, list(found.notes)
    total, forms = len(rejected), Counter()
    channels, share = _channels(found, color)
    if share:
        notes.append(f"in colour: {share:.0%} of the pictures looked at have colours (color='grey': without)")
    for name, rows in found.rows.items():
        images, broken, seen = found.pictures.read(rows, size, channels)
        forms.update(seen)
        total += len(rows)
        for k, why in broken.items():
            why = why if found.has_file(rows[k]) else f"{why} ({found.ids[rows[k]]})"
            note = " (test: predicted from a grey picture)" if name == "test" else ""
            rejected.append(Rejected(found.pictures.places[rows[k]], why + note))
        if broken and name != "test":
            keep = [k for k in range(len(rows)) if k not in broken]
            images, rows = images[keep], [rows[k] for k in keep]
        if name == "test":
            splits[name] = _test(found, images, rows, notes)
        else:
            splits[name] = _labelled(found, images, rows, rejected)
    if len(rejected) > MAX_REJECTED_SHARE * total and not allow_rejected:
        first = "\n".join(f"  {item.place}: {item.reason}" for item in rejected[:5])
        raise DataError(
            f"{path}: {len(rejected):,} of about {total:,} pictures cannot be read, more than "
            f"{MAX_REJECTED_SHARE:.0%}; pass allow_rejected=True to continue without them. First:\n{first}"
        )
    notes = tuple([*notes, *changes(forms, size, channels), *others])
    coding = found.coding
    return Reading(
        splits, coding.class_names, coding.label_values, found.form, found.layout, notes, tuple(rejected)
    )


def _channels(found: Understanding, color: str) -> tuple[int, float]:
    """1 or 3 channels; and, where the pictures decide, the share of them with colours if it is enough."""
    if color != "auto":
        return (3 if color == "rgb" else 1), 0.0
    rows = found.rows["train"]
    images, broken, _ = found.pictures.read(rows[:: -(-len(rows) // LOOKED_AT)], 32, 3)
    share = float(np.delete(coloured(images), list(broken)).mean()) if len(images) > len(broken) else 0.0
    return (3, share) if share > MIN_COLOUR_SHARE else (1, 0.0)


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


def _labelled(found: Understanding, images: np.ndarray, rows: list[int], rejected: list[Rejected]) -> Split:
    """A split for training or validation; images without a known label are rejected."""
    values = [found.labels.values[row] for row in rows]
    labels = found.coding.indices(values)
    unknown = np.flatnonzero(labels < 0).tolist()
    rejected += [Rejected(found.pictures.places[rows[k]], f"unknown label {values[k]!r}") for k in unknown]
    split = Split(images, labels, _texts(found.ids, rows), _votes(found, rows), _texts(found.groups, rows))
    return split.take(labels >= 0) if unknown else split


def _texts(values: list[str | None] | None, rows: list[int]) -> np.ndarray | None:
    return None if values is None else np.array([values[row] or "" for row in rows], dtype=str)


def _votes(found: Understanding, rows: list[int]) -> np.ndarray | None:
    if found.labels.votes is None:
        return None
    votes = np.zeros((len(rows), len(found.coding.class_names)), np.float32)
    for name, column in zip(found.labels.vote_names, found.labels.votes[rows].T, strict=True):
        if (index := found.coding.index(name)) >= 0:  # no face and unknown are not counted
            votes[:, index] = column
    return votes


def _test(found: Understanding, images: np.ndarray, rows: list[int], notes: list[str]) -> Split:
    """The test split, with its labels only if the data gives all of them."""
    values = [found.labels.values[row] for row in rows]
    labels, why = found.coding.indices(values), ""
    if all(map(is_hidden, values)):
        labels = None
    elif len(labels) > 1 and (labels == labels[0]).all():
        why = "all are the same, as placeholders are"
    elif (labels < 0).any():
        why = f"{(labels < 0).sum():,} of them are no class of the training data"
    if why:
        notes.append(f"test labels left out: {why}")
    return Split(images, None if why else labels, _texts(found.ids, rows), None, _texts(found.groups, rows))
