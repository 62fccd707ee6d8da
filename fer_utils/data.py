"""From a path to a `Competition`: find it, recognise its layout, read it, split off validation pictures."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from fer_utils.faces import Competition, DataError, Rejected, Split, SubmissionFormat, picture_groups
from fer_utils.files import REPOSITORY, find_path, is_archive, opened
from fer_utils.labels import Coding, find_coding, is_class_name, split_of
from fer_utils.layouts import Layout, describe_unknown, recognise
from fer_utils.parts import Part, Raw
from fer_utils.submission import default_format, read_format
from fer_utils.tables import TABLE_SUFFIXES
from fer_utils.trees import Tree, folder_split, scan, stem, unpacked

KAGGLE_INPUT = Path("/kaggle/input")
REPOSITORY_DATA = REPOSITORY / "data"
MAX_REJECTED_SHARE = 0.01


def load_competition(
    data: str | Path = "auto",
    *,
    image_size: int = 48,
    seed: int = 0,
    n_folds: int = 10,
    fold: int = 0,
    allow_rejected: bool = False,
) -> Competition:
    """Read a competition from wherever it lies.

    Args:
        data: a folder, file, zip or tar; "demo" for drawn faces; "auto" to search the FER_DATA environment
            variable, /kaggle/input and data/ in the repository, and fall back on the demo.
        image_size: side of the square pictures; others are resized.
        seed, n_folds, fold: which pictures become the validation split where the data has none.
        allow_rejected: go on although more than 1 % of the pictures cannot be read.

    Raises:
        DataError: nothing there, no known layout, or too much that cannot be read.
    """
    _check_options(image_size, n_folds, fold)
    if str(data) == "auto":
        data = _search(image_size)
    if str(data) == "demo":
        from fer_utils.demo import make_demo  # drawing is needed only here

        return make_demo(seed=seed, size=image_size)
    path = find_path(data)
    with ExitStack() as stack:
        tree, layouts = _open(path, stack)
        if not layouts:
            raise DataError(describe_unknown(tree, str(path)))
        raw = layouts[0].read(tree, image_size)
        raw.notes.extend(f"also recognised, not used: {layout.name}" for layout in layouts[1:])
        return _assemble(raw, tree, path, layouts[0].name, (n_folds, fold, seed), allow_rejected)


def _check_options(image_size: int, n_folds: int, fold: int) -> None:
    if image_size < 8:
        raise DataError(f"image_size must be at least 8, got {image_size}")
    if n_folds < 2 or not 0 <= fold < n_folds:
        raise DataError(f"fold must be in 0..n_folds - 1 and n_folds at least 2, got {fold} of {n_folds}")


# ---------------------------------------------------------------- finding


def _open(path: Path, stack: ExitStack) -> tuple[Tree, list[Layout]]:
    """The files at a path and the layouts they fit; archives are opened where something is missing."""
    tree = _tree(stack.enter_context(opened(path)))
    layouts = recognise(tree)
    for _ in range(2):  # fer2013.tar.gz in a zip
        if layouts and not _archived_split(tree):
            break
        if not tree.archives:
            break
        tree = unpacked(tree, stack)
        layouts = recognise(tree)
    return tree, layouts


def _tree(path: Path) -> Tree:
    """The files of a folder; of a table itself, with the folder around it if it only lists pictures."""
    if path.is_dir():
        return scan(path)
    alone = Tree({path.name: path})
    if not alone.tables or alone.tables[path.name].column("pixels") is not None:
        return alone
    around = scan(path.parent)
    names = {path.name, around.sample, *around.images} - {None}
    return Tree({name: file for name, file in around.files.items() if name in names})


def _archived_split(tree: Tree) -> bool:
    """Whether an archive is named for a split that no folder or table holds (Kaggle's test.zip)."""
    held = {split_of(stem(name)) for name in tree.tables} | {folder_split(name) for name in tree.images}
    return bool({split_of(stem(name)) for name in tree.archives} - held - {None})


def _search(image_size: int) -> str | Path:
    """The data that "auto" stands for; says in one line what was chosen."""
    if os.environ.get("FER_DATA"):
        path = os.environ["FER_DATA"]
        print(f"data: {path} (from the environment variable FER_DATA)")
        return path
    for root in (KAGGLE_INPUT, REPOSITORY_DATA):
        found = _candidates(root, set()) if root.is_dir() else []
        if found:
            others = f"; also there, not used: {', '.join(map(str, found[1:]))}" if found[1:] else ""
            print(f"data: {found[0]} (found below {root}{others})")
            return found[0]
    print(
        "data: DEMO FACES, NOT A COMPETITION: nothing readable in FER_DATA, "
        f"{KAGGLE_INPUT} or {REPOSITORY_DATA}; these faces are drawn by fer_utils.demo"
    )
    return "demo"


def _candidates(folder: Path, visited: set[str]) -> list[Path]:
    """Folders and archives below `folder` that hold data, sorted, each as high up as it is one set."""
    if (real := os.path.realpath(folder)) in visited:  # a loop of links
        return []
    visited.add(real)
    entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    folders = [entry for entry in entries if entry.is_dir()]
    archives = [entry for entry in entries if is_archive(entry) and entry.is_file()]
    has_tables = any(entry.name.lower().endswith(TABLE_SUFFIXES[:2]) for entry in entries)
    has_splits = any(
        split_of(stem(entry.name)) or is_class_name(entry.name) for entry in [*folders, *archives]
    )
    # A folder whose own entries tell splits is one set; otherwise each folder in it may be one.
    if (has_tables or has_splits) and (archives or recognise(scan(folder))):
        return [folder]
    found = [candidate for entry in folders for candidate in _candidates(entry, visited)] + archives
    return found or ([folder] if recognise(scan(folder)) else [])


# ---------------------------------------------------------------- putting together


def _assemble(
    raw: Raw, tree: Tree, path: Path, layout: str, folds: tuple[int, int, int], allow_rejected: bool
) -> Competition:
    """The competition from what a reader found."""
    if "train" not in raw.parts or raw.parts["train"].labels is None:
        raise DataError(f"{path}: no labelled training pictures ({layout})")
    total = sum(len(part.ids) for part in raw.parts.values()) + len(raw.rejected)
    labels = [label for split in ("train", "valid") for label in (_part_labels(raw, split))]
    coding = find_coding(labels, is_fer=raw.is_fer, may_be_raf=raw.is_files)
    train = _labelled(raw.parts["train"], coding, raw)
    if "valid" in raw.parts:
        valid, note = _labelled(raw.parts["valid"], coding, raw), "valid split: came with the data"
    else:
        train, valid, note = _split_off(train, *folds)
    test = _test(raw, coding)
    form = _format(tree, test, coding, raw)
    _check_rejected(raw.rejected, total, path, allow_rejected)
    if not len(train) or not len(valid):
        raise DataError(f"{path}: {len(train)} training and {len(valid)} validation pictures are too few")
    return Competition(
        train=train,
        valid=valid,
        test=test,
        class_names=coding.class_names,
        label_values=coding.label_values,
        submission=form,
        source=str(path),
        layout=layout,
        notes=tuple(filter(None, [note, coding.note, *raw.notes])),
        rejected=tuple(raw.rejected),
    )


def _part_labels(raw: Raw, split: str) -> list[str]:
    part = raw.parts.get(split)
    return part.labels if part is not None and part.labels is not None else []


def _labelled(part: Part, coding: Coding, raw: Raw) -> Split:
    """A split for training or validation; pictures without a known label are rejected."""
    if part.labels is None:
        raise DataError("the validation split has no labels")
    labels = np.array([coding.index(label) for label in part.labels], np.int64)
    for row in np.flatnonzero(labels < 0):
        reason = f"unknown label {part.labels[row]!r}" if part.labels[row].strip() else "no label"
        raw.rejected.append(Rejected(part.places[row], reason))
    split = Split(part.images, labels, np.array(part.ids, dtype=str))
    return split if (labels >= 0).all() else split.take(labels >= 0)


def _test(raw: Raw, coding: Coding) -> Split | None:
    """The test split, with its labels only if the data tells all of them."""
    part = raw.parts.get("test")
    if part is None:
        return None
    labels = None
    if part.labels is not None:
        labels = np.array([coding.index(label) for label in part.labels], np.int64)
        if (labels < 0).any():
            raw.notes.append(
                f"test labels left out: {(labels < 0).sum():,} of them are no class of the training data"
            )
            labels = None
    return Split(part.images, labels, np.array(part.ids, dtype=str))


def _format(tree: Tree, test: Split | None, coding: Coding, raw: Raw) -> SubmissionFormat | None:
    if test is None:
        if tree.sample:
            raw.notes.append(f"{tree.sample} ignored: there are no test pictures")
        return None
    if tree.sample is None:
        raw.notes.append("no sample submission: answers are written as id,label")
        return default_format(test.ids, coding.label_values)
    form = read_format(tree.files[tree.sample], test.ids.tolist(), coding)
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


# ---------------------------------------------------------------- validation split


def split_folds(split: Split, n_folds: int = 10, seed: int = 0) -> np.ndarray:
    """Deal the pictures of a labelled split into folds: int64 [N], 0..n_folds - 1.

    Exact copies share a fold. Over the distinct pictures the folds are as equal as can be, in size and in
    every class, however small a class is. (scikit-learn's grouped splitter is far too slow for as many
    groups, and the plain one refuses classes smaller than the number of folds.)
    """
    groups = picture_groups(split.images)
    _, first = np.unique(groups, return_index=True)
    shuffled = np.random.default_rng(seed).permutation(len(first))
    # Dealt out class by class like cards, each picture goes to the next fold.
    order = shuffled[np.argsort(split.labels[first][shuffled], kind="stable")]
    folds = np.empty(len(first), np.int64)
    folds[order] = np.arange(len(first)) % n_folds
    return folds[groups]


def _split_off(split: Split, n_folds: int, fold: int, seed: int) -> tuple[Split, Split, str]:
    """Part a labelled split into training and validation pictures, and say how."""
    folds = split_folds(split, n_folds, seed)
    note = (
        f"valid split: made here, fold {fold} of {n_folds} of the training pictures (seed {seed}), "
        "stratified by class, exact copies kept together"
    )
    return split.take(folds != fold), split.take(folds == fold), note
