"""The layouts of a competition's data: one small reader each, and the rule that recognises it by content."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePosixPath

from fer_utils.labels import canonical, is_class_name, split_of
from fer_utils.parts import Listed, Raw, read_listed, read_pixels
from fer_utils.tables import Table, read_column, sample_ids
from fer_utils.trees import Tree, folder_split, locate, stem


@dataclass(frozen=True)
class Layout:
    """A reader: its name, what it looks for (told when nothing fits), how it recognises and reads a tree."""

    name: str
    looks_for: str
    recognise: Callable[[Tree], bool]
    read: Callable[[Tree, int], Raw]


# ---------------------------------------------------------------- tables of pixels


def _pixel_tables(tree: Tree) -> dict[str, Table]:
    return {name: table for name, table in tree.tables.items() if table.column("pixels") is not None}


def _whole_table(tree: Tree) -> str | None:
    """The table that holds all splits by its Usage column, as fer2013.csv and icml_face_data.csv do."""
    for name, table in _pixel_tables(tree).items():
        if split_of(stem(name)) is None and None not in (table.column("label"), table.column("usage")):
            return name
    return None


def _split_tables(tree: Tree) -> dict[str, str]:
    """The pixel tables of train.csv + test.csv and their like, by split; without a labelled one none.

    The labelled table nearest the top leads; a folder with a labelled table of its own is other data.
    """
    tables = _pixel_tables(tree)
    labelled = {name for name, table in tables.items() if table.column("label") is not None}
    leads = [name for name in labelled if split_of(stem(name)) in ("train", None)]
    if not leads:
        return {}
    lead = min(leads, key=lambda name: (name.count("/"), split_of(stem(name)) != "train", name))
    home = PurePosixPath(lead).parent
    foreign = {PurePosixPath(name).parent for name in leads} - {home}
    chosen = {"train": lead}
    for name in sorted(tables, key=lambda name: PurePosixPath(name).parent != home):
        split = split_of(stem(name)) or "train"
        split = "test" if name not in labelled else split  # nobody validates on hidden labels
        if PurePosixPath(name).parent not in foreign:
            chosen.setdefault(split, name)
    return chosen


def _is_fer2013(tree: Tree) -> bool:
    # A sample submission asks for the pictures of the test table beside it, so that one leads then.
    return _whole_table(tree) is not None and not (tree.sample and "test" in _split_tables(tree))


def _read_fer2013(tree: Tree, size: int) -> Raw:
    return _read_tables(tree, {"train": _whole_table(tree)}, size)


def _is_split_tables(tree: Tree) -> bool:
    tables = _split_tables(tree)
    return bool(tables) and (len(tables) > 1 or _whole_table(tree) is None)


def _read_split_tables(tree: Tree, size: int) -> Raw:
    return _read_tables(tree, _split_tables(tree), size)


def _read_tables(tree: Tree, names: dict[str, str], size: int) -> Raw:
    raw = Raw({}, is_fer={"emotion", "pixels", "usage"} <= set(tree.tables[names["train"]].columns))
    for split, name in names.items():
        parts = read_pixels(tree.tables[name], split, size, raw)
        if raw.parts and (extra := set(parts) & set(raw.parts)):
            raw.notes.append(
                f"{', '.join(sorted(extra))} rows of {names['train']} ignored: {name} holds them"
            )
        raw.parts.update(parts)
    if ignored := sorted(set(_pixel_tables(tree)) - set(names.values())):
        raw.notes.append(f"also there, not used: {', '.join(ignored)}")
    return raw


# ---------------------------------------------------------------- class folders


def _class_item(name: str) -> tuple[str, str | None, Listed]:
    """The data set (folders above the split), split and label that a picture's folders tell."""
    *folders, _ = name.split("/")
    named = [i for i, folder in enumerate(folders) if split_of(folder)]
    first, last = (named[0], named[-1]) if named else (0, -1)
    below = folders[last + 1 :]
    known = [folder for folder in below if canonical(folder)]
    label = known[-1] if known else (below[-1] if below else None)
    split = split_of(folders[last]) if named else None
    return "/".join(folders[:first]), split, Listed(name, label, name.split("/", last + 1)[-1], name)


def _class_folders(tree: Tree) -> tuple[dict[str, list[Listed]], list[str]]:
    """The pictures by split, and the data sets beside the one chosen; nothing without two classes."""
    found: dict[str, dict[str | None, list[Listed]]] = defaultdict(lambda: defaultdict(list))
    for name in tree.images:
        home, split, item = _class_item(name)
        found[home][split].append(item)
    leads = [home for home in found if _is_labelled(found[home].get("train", []), any_name=True)]
    if leads:
        lead, *others = sorted(leads, key=lambda home: (home.count("/") + bool(home), home))
        homes = [lead, *sorted(set(found) - set(leads))]
        splits = {}
        for split in ("train", "valid", "test"):
            splits[split] = next((found[home][split] for home in homes if found[home].get(split)), [])
    else:
        # One root without splits: everything is for training.
        splits, others = {"train": [item for item in found[""].get(None, []) if item.label]}, []
        if not _is_labelled(splits["train"], any_name=False):
            return {}, []
    splits["train"] = [item for item in splits["train"] if item.label]
    return {split: items for split, items in splits.items() if items}, others


def _is_labelled(items: list[Listed], any_name: bool) -> bool:
    labels = {item.label for item in items} - {None}
    return len(labels if any_name else {label for label in labels if is_class_name(label)}) >= 2


def _has_class_folders(tree: Tree) -> bool:
    return bool(_class_folders(tree)[0])


def _read_class_folders(tree: Tree, size: int) -> Raw:
    splits, others = _class_folders(tree)
    notes = [f"also there, not used: {', '.join(others)}"] if others else []
    if any(item.label is None for item in splits.get("valid", [])):
        splits.setdefault("test", splits.pop("valid"))
    return read_listed(tree, splits, size, notes)


# ---------------------------------------------------------------- image lists


def _lists(tree: Tree) -> dict[str, str]:
    """The tables that name pictures, by split: a labelled one must be there, with its files."""
    chosen: dict[str, str] = {}
    for name, table in sorted(tree.tables.items(), key=lambda item: split_of(stem(item[0])) is None):
        image, label = table.column("image"), table.column("label")
        if image is None or table.column("pixels") is not None or image == label:
            continue
        split = split_of(stem(name)) or ("train" if label is not None else None)
        if label is None and split != "test":
            continue
        some = read_column(table, "image", limit=50)
        found = [file for file in locate(some, tree.images, split) if file]
        if split and found and len(found) >= len(some) / 2:
            chosen.setdefault(split, name)
    return chosen if "train" in chosen else {}


def _read_lists(tree: Tree, size: int) -> Raw:
    chosen = _lists(tree)
    splits: dict[str, list[Listed]] = {}
    for split, name in chosen.items():
        for item_split, item in _list_items(tree, tree.tables[name], split):
            splits.setdefault(item_split, []).append(item)
    notes = [f"labels from {', '.join(chosen.values())}"]
    used = {item.file for items in splits.values() for item in items}
    if "test" not in splits and (test := _unlisted_test(tree, used)):
        splits["test"] = test
        used |= {item.file for item in test}
    if unused := len(set(tree.images) - used):
        notes.append(f"{unused:,} pictures are in no list and were not used")
    if differ := sum(_folder_differs(item) for items in splits.values() for item in items):
        notes.append(f"folder and list disagree on {differ:,} labels: the list was taken")
    return read_listed(tree, splits, size, notes)


def _list_items(tree: Tree, table: Table, split: str) -> list[tuple[str, Listed]]:
    """The pictures that a table lists, with their splits."""
    names = read_column(table, "image")
    labels = read_column(table, "label") or [None] * len(names)
    files = locate(names, tree.images, split)
    if usage := read_column(table, "usage"):
        splits = [split_of(cell) or split for cell in usage]
    elif split_of(stem(table.path.name)) is None:
        splits = _splits_by_name(files, split)
    else:
        splits = [split] * len(names)
    return [
        (row_split, Listed(file, label, name, file or table.place(row)))
        for row, (name, label, file, row_split) in enumerate(zip(names, labels, files, splits, strict=True))
    ]


def _splits_by_name(files: list[str | None], default: str) -> list[str]:
    """Splits from the folders or names of the files (RAF-DB's test_0001.jpg), if all of them tell."""
    splits = [file and (folder_split(file) or split_of(stem(file))) for file in files]
    told = {split for split, file in zip(splits, files, strict=True) if file}
    if None in told or "train" not in told:
        return [default] * len(files)
    return [split or default for split in splits]


def _unlisted_test(tree: Tree, used: set[str | None]) -> list[Listed]:
    """The test pictures that no table lists: those in test folders, else those the sample asks for."""
    free = [name for name in tree.images if name not in used]
    in_folders = [_class_item(name)[2] for name in free if folder_split(name) == "test"]
    if in_folders or not tree.sample:
        return [Listed(item.file, None, item.id, item.place) for item in in_folders]
    ids = sample_ids(tree.files[tree.sample])
    return [
        Listed(file, None, id_, file)
        for id_, file in zip(ids, locate(ids, free, "test"), strict=True)
        if file
    ]


def _folder_differs(item: Listed) -> bool:
    folder = canonical(item.file.split("/")[-2]) if item.file and "/" in item.file else None
    label = canonical(item.label) if item.label else None
    return None not in (folder, label) and folder != label


# ---------------------------------------------------------------- the registry, in order of preference

LAYOUTS = (
    Layout(
        "fer2013.csv",
        "a table with columns emotion, pixels and Usage",
        _is_fer2013,
        _read_fer2013,
    ),
    Layout(
        "pixel tables",
        "train.csv with a label and a pixels column, and test.csv with a pixels column",
        _is_split_tables,
        _read_split_tables,
    ),
    Layout(
        "image list",
        "a table with an image and a label column whose images are found among the files",
        lambda tree: bool(_lists(tree)),
        _read_lists,
    ),
    Layout(
        "class folders",
        "train/<class>/ with pictures, at least two classes",
        _has_class_folders,
        _read_class_folders,
    ),
)


def recognise(tree: Tree) -> list[Layout]:
    """The layouts that the tree fits, the preferred one first."""
    return [layout for layout in LAYOUTS if layout.recognise(tree)]


def describe_unknown(tree: Tree, source: str) -> str:
    """What to tell when no layout fits: what was seen, level by level, and what was looked for."""
    levels: dict[int, list[str]] = defaultdict(list)
    for name in sorted(tree.files):
        parts = name.split("/")
        for depth in range(min(len(parts), 4)):
            entry = "/".join(parts[: depth + 1]) + ("/" if depth + 1 < len(parts) else "")
            if entry not in levels[depth][-1:]:
                levels[depth].append(entry)
    seen = [
        f"  {', '.join(names[:6])}{f', ... ({len(names):,})' if len(names) > 6 else ''}"
        for names in levels.values()
    ]
    tables = [f"  {name}: columns {', '.join(t.columns[:8])}" for name, t in list(tree.tables.items())[:5]]
    return "\n".join(
        [f"{source}: no known layout. Seen:", *(seen or ["  nothing"])]
        + (["The tables hold:", *tables] if tables else [])
        + ["Looked for:", *(f"  {layout.name}: {layout.looks_for}" for layout in LAYOUTS)]
    )
