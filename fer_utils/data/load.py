"""From a path to a `Competition`: find the data, recognise its layout, read it, make a validation split."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np

from fer_utils.competition import Competition, DataError, Rejected, Split
from fer_utils.config import ASPECTS, COLORS, check_choice
from fer_utils.data.corrections import apply_fixes, clean_training
from fer_utils.data.decode_images import ImageFormat, changes, coloured
from fer_utils.data.files.cache import Cache
from fer_utils.data.files.download import download
from fer_utils.data.folds import joined, shared_persons, split_off
from fer_utils.data.known_column_names import COLUMNS
from fer_utils.data.known_expressions_and_splits import as_pairs
from fer_utils.data.layouts.registry import LAYOUTS
from fer_utils.data.locate import around, open_data, search_data
from fer_utils.data.roles.class_name_files import read_classes
from fer_utils.data.roles.class_names import meant_by
from fer_utils.data.roles.decide_roles import Understanding
from fer_utils.data.roles.splits import parse_splits
from fer_utils.data.roles.user_options import UserOptions
from fer_utils.data.roles.votes_and_hidden_labels import is_hidden
from fer_utils.demo.dataset import make_demo
from fer_utils.files import find_path

MAX_REJECTED_SHARE = 0.01
CAME_WITH_DATA = "valid split: came with the data"  # a note
ON_KAGGLE = re.compile(r"kaggle:|https?://(www\.)?kaggle\.com/")
LOOKED_AT, MIN_COLOUR_SHARE = 256, 0.05  # images for "auto", and the share with colours for rgb
SIZES = (32, 48, 64, 96)  # of which image_size "auto" is one: larger ones take a CPU too long


def load_competition(
    data: str | Path = "auto",
    *,
    image_size: int | str = "auto",
    color: str = "auto",
    aspect: str = "crop",
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
            download; "demo" for drawn faces; "auto" to search $FER_DATA, /kaggle/input and data/ in the
            repository, else the demo.
        image_size: side of the square images; "auto": 32, 48, 64 or 96, nearest to most images (demo: 48).
        color: "grey", "rgb", or "auto": rgb where more than one image in twenty has colours.
        aspect: of images that are not square: "crop" keeps the middle, "pad" all of it between grey bars.
        seed, n_folds, fold: which images become the validation split, if the data has none or with
            `pool_valid`, which adds that of the data to the training images first.
        layout: one of `registry.LAYOUTS`, if several fit.
        columns: by role (`known_column_names.COLUMNS`): a dictionary, or "label=mood, image=file".
        classes: their names by ascending numbers, "angry, happy"; or "0=angry, 3=happy"; or a file.
        splits: which cells, folders or tables are which split, "train=A, valid=B, test=C"; "tables",
            "folders", "column" or "file names" if these contradict each other; "none" to train on all.
        groups: column or folder level ("folder 1") of the persons, kept on one side of a split; or "none".
        clean: drop repeats, copies with different labels and blank images from the training split.
        label_fixes: a CSV of other labels for training images (`corrections.apply_fixes`), or "none".
        allow_rejected: continue although more than 1 % of the images cannot be read.

    Raises:
        ConfigError: no such `color`, `aspect` or `layout`.
        DataError: no such data, no known layout, too many unreadable images, or fixes that do not fit.
    """
    _check_words(color=color, aspect=aspect, layout=str(layout))
    _check_numbers(image_size, n_folds, fold, seed)
    parse_splits(splits)
    said = UserOptions(layout, parse_columns(columns), read_classes(classes), splits, groups)
    if data == "auto":
        data = search_data()
    if data == "demo":  # and no folder of that name, Path("demo")
        return _corrected(_demo(image_size, color, (n_folds, fold, seed), pool_valid), label_fixes, clean)
    if isinstance(data, str) and ON_KAGGLE.match(data):
        data = download(data)
    path = find_path(data)
    options = (said, image_size, color, aspect, allow_rejected)
    cache = Cache(path, around(path), repr(options))
    if (reading := cache.load()) is None:
        reading = cache.keep(_read(path, *options))
    return _corrected(_split(reading, path, (n_folds, fold, seed), pool_valid), label_fixes, clean)


def parse_columns(columns: Mapping[str, str] | str) -> dict[str, str]:
    """Columns by role from a dictionary, or from text: "auto" or such as "label=mood, image=file".

    Raises:
        DataError: no such role, or text of another form.
    """
    if columns == "auto":
        return {}
    named = dict(as_pairs(columns)) if isinstance(columns, str) else columns
    if not isinstance(named, Mapping) or not all(named.values()):
        raise DataError(f"columns must be like 'label=mood, image=file' or a dictionary, got {columns!r}")
    if wrong := sorted(set(named) - set(COLUMNS)):
        raise DataError(f"columns: unknown {', '.join(wrong)}; known are {', '.join(COLUMNS)}")
    return dict(named)


def _demo(image_size: int | str, color: str, folds: tuple[int, int, int], pool_valid: bool) -> Competition:
    size = 48 if image_size == "auto" else image_size
    if size % 2 or not 24 <= size <= 256:
        raise DataError(f"image_size must be an even number from 24 to 256 for the demo, got {size}")
    demo = make_demo(seed=folds[-1], size=size, color=color == "rgb")
    return _split(demo, Path(demo.source), folds, pool_valid) if pool_valid else demo


def _check_words(**given: str) -> None:
    choices = {"color": COLORS, "aspect": ASPECTS, "layout": ("auto", *LAYOUTS)}
    for name, value in given.items():
        check_choice(name, value, choices[name])


def _check_numbers(image_size: int | str, n_folds: int, fold: int, seed: int) -> None:
    for name, value in {"image_size": image_size, "n_folds": n_folds, "fold": fold, "seed": seed}.items():
        if not isinstance(value, int) and (name, value) != ("image_size", "auto"):
            raise DataError(f"{name} must be a whole number, got {value!r}")
    if image_size != "auto" and not 8 <= image_size <= 1024:
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


def _read(
    path: Path, said: UserOptions, image_size: int | str, color: str, aspect: str, allow_rejected: bool
) -> Competition:
    with ExitStack() as stack:  # archives stay unpacked until the images are decoded
        understanding, others = open_data(path, stack, said)
        wanted, notes = _format(understanding, image_size, color, aspect)
        return _decoded(understanding, wanted, [*understanding.notes, *notes], others, path, allow_rejected)


def _hint(label: str | None) -> str:
    meant = meant_by(label or "")
    return f": did you mean {meant!r}?" if meant else ""


def _decoded(
    found: Understanding,
    wanted: ImageFormat,
    notes: list[str],
    others: list[str],
    path: Path,
    allow_rejected: bool,
) -> Competition:
    """The images decoded, with labels as class indices; no validation split where the data has none."""
    rejected = list(found.rejected)
    splits = dict.fromkeys(("train", "valid", "test"))
    total, forms = len(rejected), Counter()
    for name, rows in found.rows.items():
        images, wrong, seen = found.pictures.read(rows, wanted)
        forms.update(seen)
        total += len(rows)
        for k in wrong:
            is_missing = found.pictures.files and found.pictures.files[rows[k]] is None
            wrong[k] += f" ({found.ids[rows[k]]})" if is_missing else ""
            wrong[k] += " (test: predicted from a grey image)" if name == "test" else ""
        values = [found.labels.values[row] for row in rows]
        labels, votes = found.coding.indices(values), None
        if name == "test":
            labels = _test_labels(labels, values, notes)
        else:
            unknown = [k for k in np.flatnonzero(labels < 0).tolist() if k not in wrong]
            wrong |= {k: f"unknown label {values[k]!r}{_hint(values[k])}" for k in unknown}
            votes = _votes(found, rows)
        rejected += [Rejected(found.pictures.places[rows[k]], why) for k, why in wrong.items()]
        split = Split(images, labels, _texts(found.ids, rows), votes, _texts(found.groups, rows))
        keep = [k for k in range(len(rows)) if k not in wrong or name == "test"]
        splits[name] = split.take(keep) if len(keep) < len(rows) else split
    if len(rejected) > MAX_REJECTED_SHARE * total and not allow_rejected:
        first = "\n".join(f"  {item.place}: {item.reason}" for item in rejected[:5])
        is_few = 2 * len(rejected) < total  # otherwise all of the data is something else
        way_out = "; pass allow_rejected=True to continue without them" if is_few else ""
        raise DataError(
            f"{path}: {len(rejected):,} of about {total:,} images cannot be read, more than "
            f"{100 * MAX_REJECTED_SHARE:.0f} %{way_out}. First:\n{first}"
        )
    return Competition(
        **splits,
        class_names=found.coding.class_names,
        label_values=found.coding.label_values,
        submission=found.form,
        layout=found.layout,
        notes=(*notes, *changes(forms, wanted), *others),
        rejected=tuple(rejected),
    )


def _format(
    found: Understanding, image_size: int | str, color: str, aspect: str
) -> tuple[ImageFormat, list[str]]:
    """Size and channels as they are set, or as some of the training images suggest; and what they say."""
    notes = []
    if "auto" in (image_size, color):
        rows = found.rows["train"]
        # At random: every second image may be the grey copy of the one before.
        some = np.random.default_rng(0).permutation(len(rows))[:LOOKED_AT]
        images, broken, forms = found.pictures.read([rows[k] for k in sorted(some)], ImageFormat(32, 3))
    if image_size == "auto":
        image_size = SIZES[1]
        if sides := [min(shape) for (shape, _), count in forms.items() for _ in range(count)]:
            middle = float(np.median(sides))
            image_size = min(SIZES, key=lambda size: abs(np.log(size / middle)))
            more = "; a larger image_size keeps more detail and takes longer" * (middle > SIZES[-1])
            notes.append(f"image_size {image_size}: the images have {middle:.0f} pixels{more}")
    if color == "auto":
        share = float(np.delete(coloured(images), list(broken)).mean()) if len(images) > len(broken) else 0.0
        color = "rgb" if share > MIN_COLOUR_SHARE else "grey"
        if color == "rgb":
            seen = f"{100 * share:.0f} % of the images looked at have colours"
            notes.append(f"in colour: {seen} (color='grey': without)")
    return ImageFormat(image_size, 3 if color == "rgb" else 1, aspect), notes


def _split(reading: Competition, path: Path, folds: tuple[int, int, int], pool_valid: bool) -> Competition:
    """The competition; its validation split is made here if the data has none or it is to be pooled."""
    train, valid = reading.train, reading.valid
    note, more = CAME_WITH_DATA, []
    if valid is None or pool_valid:
        pooled = "" if valid is None else "; the valid split of the data is among them"
        train, valid, note = split_off(train if valid is None else joined(train, valid), *folds)
        note += pooled
    else:
        more = shared_persons(train, valid)
    if not len(train) or not len(valid):
        persons = train.groups if len(train) else valid.groups
        n_folds, fold, _ = folds
        why = ""
        if persons is not None:
            n = len(np.unique(persons))
            why = (
                f". Part {fold} of {n_folds} holds a class of one person or photo alone: choose another fold"
            )
            if n < n_folds:
                why = f". There are {n} persons or photos for {n_folds} parts: choose n_folds of at most {n}"
            why = ". All show one person" if n == 1 else why
            why += ". groups='none' divides them as if each were alone"
        elif len(train) + len(valid) < n_folds:
            why = f". Part {fold} of {n_folds} is empty: choose a smaller n_folds"
        raise DataError(f"{path}: {len(train)} training and {len(valid)} validation images are too few{why}")
    return replace(reading, train=train, valid=valid, source=str(path), notes=(note, *more, *reading.notes))


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


def _test_labels(labels: np.ndarray, values: list[str | None], notes: list[str]) -> np.ndarray | None:
    """The labels of the test images only if the data gives all of them."""
    if all(map(is_hidden, values)):
        return None
    if len(labels) > 1 and (labels == labels[0]).all():
        notes.append("test labels left out: all are the same, as placeholders are")
    elif unknown := (labels < 0).sum():
        notes.append(f"test labels left out: {unknown:,} of them are no class of the training data")
    else:
        return labels
    return None
