"""Lists of files and tables of pixels."""

from __future__ import annotations

import csv
import random

from tests.data.composed.draws import (
    COLUMN_SPLITS,
    FER,
    ROLES,
    STRANGE,
    Layout,
    Picture,
    draw_stems,
    face,
    folder_word,
    save_pictures,
)


def draw_columns(a: Layout) -> None:
    """Names of the columns, each usual or somebody's own, and columns that are beside the point."""
    for role, both in ROLES.items():
        usual = a.draw(f"{role} column", "usual", "own") == "usual"
        a.column[role] = a.rng.choice(both[not usual].split())
    if a.drawn["split words"] == "is_test":
        a.column["split"] = "is_test"
    if a.labels == "fer2013":
        a.column.update(number="emotion", pixels="pixels", split="Usage")
    (
        a.draw("separator", ",", ",", ",", ";", "\t"),
        a.draw("quotes", False, False, True),
        a.draw("BOM", *[False] * 3, True),
    )
    a.draw("own ids", False, True), a.draw("index column", False, False, True)
    a.draw("extras", "none", "none", "age", "box", "age gender source", "confidence", "subject")
    if a.labels == "fer2013":
        a.drawn.update({"separator": ",", "own ids": False, "index column": False, "extras": "none"})
    if a.strange:  # other words could be the labels too
        a.drawn["extras"] = a.rng.choice(("none", "age", "box"))
    a.draw("line ends", "\n", "\n", "\r\n")
    if a.draw("plain", False, False, True) and a.labels != "both":  # nothing but names and labels
        a.drawn.update({"own ids": False, "index column": False, "extras": "none"})
    for p, n in zip(a.pictures, a.rng.sample(range(1000, 99999), len(a.pictures)), strict=True):
        p.key = f"S{n:05}"


def extra_columns(a: Layout, n: int) -> dict[str, list]:
    pick, made = a.rng.choice, {}
    columns = {
        "age": lambda: a.rng.randint(18, 70),
        "gender": lambda: pick(("male", "female")),
        "source": lambda: pick(("web", "studio", "film")),
        "confidence": lambda: round(a.rng.uniform(0.4, 1), 4),
        "subject": lambda: f"P{a.rng.randint(1, 9):02}",
        **{side: lambda: a.rng.randint(10, 200) for side in "xywh"},
    }
    for name in ["x", "y", "w", "h"] if a.extras == "box" else a.extras.replace("none", "").split():
        made[name] = [columns[name]() for _ in range(n)]
    return made


def rows(a: Layout, pictures: list[Picture], content: dict[str, list]) -> dict[str, list]:
    """The columns of a table of `pictures`, in random order; labels of hidden test rows as was drawn."""
    hidden = a.drawn["test labels"] == "hidden"
    columns = {}
    if a.drawn["own ids"]:
        columns[a.column["key"]] = [p.key for p in pictures]
    how = a.drawn.get("hidden as", "")
    for role in ("word", "number"):
        if role == "word" and a.labels not in ("words", "both") or role == "number" and a.labels == "words":
            continue
        hide = how if role == "number" else ""
        cells = [a.words[p.level] if role == "word" else a.code(p.level) for p in pictures]
        columns[a.column[role]] = [
            hide if hidden and p.split == "test" else c for p, c in zip(pictures, cells, strict=True)
        ]
    if hidden and how == "no column" and all(p.split == "test" for p in pictures):
        columns = {k: v for k, v in columns.items() if k not in (a.column["word"], a.column["number"])}
    if a.drawn["split words"] and len({p.split for p in pictures}) > 1:
        words = COLUMN_SPLITS[a.drawn["split words"]]
        columns[a.column["split"]] = [words[("train", "valid", "test").index(p.split)] for p in pictures]
    columns |= extra_columns(a, len(pictures))
    blocks = [[item] for item in columns.items()] + [list(content.items())]
    blocks.sort(key=lambda block: random.Random(f"{a.seed} {block[0][0]}").random())  # alike in all tables
    index = [("", list(range(len(pictures))))] * bool(a.drawn["index column"])
    return dict(index + [item for block in blocks for item in block])


def write_table(a: Layout, name: str, columns: dict[str, list], header: bool = True) -> None:
    separator = a.separator if header else a.drawn["separator without header"]
    lines = ([list(columns)] if header else []) + [list(row) for row in zip(*columns.values(), strict=True)]
    path = a.top / (name + {"\t": ".tsv", " ": ".txt"}.get(separator, ".csv"))
    with path.open("w", newline="", encoding="utf-8-sig" if a.BOM else "utf-8") as file:
        quoting = csv.QUOTE_ALL if a.quotes else csv.QUOTE_MINIMAL
        csv.writer(file, delimiter=separator, quoting=quoting, lineterminator=a.drawn["line ends"]).writerows(
            lines
        )


def reference(a: Layout, picture: Picture, kind: str) -> str:
    """How a list or a sample names an image."""
    path = picture.file
    if kind in ("windows", "absolute"):
        path = ("" if kind == "windows" else a.elsewhere) + path
        return path.replace("/", "\\") if kind == "windows" or a.elsewhere[1] == ":" else path
    if kind in ("path", "tail"):
        return path.split("/", 1)[-1] if kind == "tail" else path
    name, number = picture.stem + a.suffix, picture.stem.lstrip("0") or "0"
    return {"name": name, "stem": picture.stem, "int": number, "own": picture.key}[kind]


def lists(a: Layout) -> None:
    draw_columns(a)
    several = a.splits != "train" and a.drawn["split words"] != "letters"
    folders = a.draw("folders", "one", "one", "nested", *("split", "split") * several)
    folders = a.drawn["folders"] = "class" if a.labels == "folders" else folders
    repeat = folders == "split" and a.draw("names repeated", False, "over splits")
    draw_stems(a, lambda p: p.split if repeat else "")
    whole = a.stems in ("{:05}", "{}")
    above = a.draw("above", "", "images", "images", "data/faces")
    for p in a.pictures:
        middle = {"split": folder_word(a, p.split), "nested": f"{p.number % 4:02}", "class": a.words[p.level]}
        p.file = "/".join(filter(None, (above, middle.get(folders, ""), p.stem + a.suffix)))
    save_pictures(a)
    kind = a.draw(
        "reference", *("name", "stem", "path") * 2, "windows", "absolute", "tail", *("int",) * 2 * whole
    )
    a.elsewhere = a.rng.choice(("/home/ana/fer/", "C:/Users/Ana/fer data/"))
    a.drawn["index column"] = a.drawn["index column"] and not whole
    each = a.structure == "list a split"
    hidden = a.drawn["test labels"] == "hidden"
    listed = a.draw("test list", True, True, False) if hidden else True
    a.draw("hidden as", "", *("-1", "0") * (a.labels != "words"), *("no column",) * 2 * each)
    listed_pictures = a.of("train", "valid", *("test",) * listed)
    tables = {a.rng.choice(("labels", "annotations", "faces")): listed_pictures}
    if each:
        end = a.rng.choice(("", "_labels"))
        groups = {split: [p for p in listed_pictures if p.split == split] for split in a.splits.split()}
        tables = {folder_word(a, split) + end: group for split, group in groups.items() if group}
    if a.structure == "lists in parts":
        tables = {f"labels_part{k + 1}": listed_pictures[k::3] for k in range(3)}
    if a.drawn.get("rival column"):
        a.column["word"] = a.rng.choice(("tag1", "tag3"))
    made = {
        name: rows(a, g, {a.column["image"]: [reference(a, p, kind) for p in g]})
        for name, g in tables.items()
    }
    if a.drawn.get("rival column"):
        other = a.rng.choice([w for w in STRANGE if a.words[0] not in w.split()]).split()
        made = {k: {**t, "tag2": a.rng.choices(other, k=len(listed_pictures))} for k, t in made.items()}
        a.parameter, a.way_out = "columns", {"columns": f"label={a.column['word']}"}
    two = all(len(t) == 2 for t in made.values()) and not (whole and kind in ("int", "stem"))
    header = a.draw("header", True, False) if two else True
    if not header:
        a.draw("separator without header", ",", "\t", *(" ",) * 2 * (kind != "absolute"))
    for name, columns in made.items():
        write_table(a, name, columns, header)


def pixels(a: Layout) -> None:
    draw_columns(a)
    form = a.draw("pixels as", *("text",) * 5, "p{n}", "{r}x{c}", "g_{n:04}")
    form = a.drawn["pixels as"] = "text" if a.labels == "fer2013" else form
    usual = a.column["pixels"] == "pixels" and a.column["number"] in ROLES["number"][0].split()
    if usual and form == "text" and a.labels == "numbers" and (len(a.words), a.base) == (7, 0):
        a.words, a.nameless = FER, "either"  # so near to FER2013's form that its names are no guess
    each = a.structure == "pixels a split"
    a.draw("hidden as", "", *("-1", "0") * (a.labels != "words"), *("no column",) * 2 * each)
    groups = {folder_word(a, s): a.of(s) for s in a.splits.split()} if each else {"faces": a.pictures}
    for name, group in groups.items():
        grey = [face(p).ravel().tolist() for p in group]
        content = {a.column["pixels"]: [" ".join(map(str, row)) for row in grey]}
        if form != "text":
            keys = [form.format(n=n, r=n // 48 + 1, c=n % 48 + 1) for n in range(2304)]
            content = dict(zip(keys, map(list, zip(*grey, strict=True)), strict=True))
        write_table(a, name, rows(a, group, content))
