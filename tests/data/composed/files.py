"""Class folders, labels in file names, parquet, arrays, files that name the classes, litter and zips."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from tests.data.composed.draws import Layout, Picture, draw_stems, encoded, face, folder_word, save_pictures


def class_folders(a: Layout) -> None:
    form = a.draw("numbering", "{}_{}", "{}. {}", "{}-{}") if a.labels == "numbered words" else "{1}"
    form = "{0}" if a.labels in ("numbers", "names beside") else form
    classes = [form.format(a.code(k), word) for k, word in enumerate(a.words)]
    inside = (
        a.draw("split folder", "outside", "outside", "inside") == "inside"
        and a.drawn["test labels"] == "shown"
    )
    a.drawn["split folder"] = "" if a.splits == "train" else "inside" if inside else "outside"
    persons = a.draw("persons", "none", "none", "none", "above", "below")
    above = a.draw("above", "", "", "images", "Data set")
    hidden = a.drawn["test labels"] == "hidden"
    repeat = (
        a.draw("names repeated", False, False, "over classes") if hidden or "test" not in a.splits else False
    )
    draw_stems(a, lambda p: p.level if repeat and p.split != "test" else -1)
    for p in a.pictures:
        split, person = folder_word(a, p.split) if a.splits != "train" else "", f"P{p.number % 3 + 1:02}"
        parts = [split] if hidden and p.split == "test" else [
            "" if inside else split, person if persons == "above" else "", classes[p.level],
            split if inside else "", person if persons == "below" else ""]  # fmt: skip
        p.file = "/".join(part for part in (above, *parts, p.stem + a.suffix) if part)
    save_pictures(a)


def file_names(a: Layout) -> None:
    form = a.draw("name form", "{word}_{n:04}", "{n:04}_{word}", "p{n:03}-{word}-a")
    a.drawn["test labels"] = "hidden"
    above = a.draw("above", "", "images")
    draw_stems(a, lambda p: 0)
    for p in a.pictures:
        if p.split != "test":
            p.stem = form.format(word=a.words[p.level], n=p.number)
        split = folder_word(a, p.split) if a.splits != "train" else "faces"
        p.file = "/".join(part for part in (above, split, p.stem + a.suffix) if part)
    save_pictures(a)


def label_values(a: Layout, pictures: list[Picture]) -> list:
    return [a.words[p.level] if a.labels == "words" else p.level + a.base for p in pictures]


def parquet(a: Layout) -> None:
    column = a.draw("label column", "label", "emotion")
    for split in a.splits.split():
        group, word = a.of(split), {"valid": "validation"}.get(split, split)
        images = [{"bytes": encoded(a, p, a.suffix), "path": None} for p in group]
        hidden = split == "test" and a.drawn["test labels"] == "hidden"
        table = {"image": images, column: label_values(a, group)}
        if hidden and (a.labels == "words" or a.draw("hidden as", "-1", "no column") == "no column"):
            del table[column]
        elif hidden:
            table[column] = [-1] * len(group)
        features = {"image": {"_type": "Image"}}
        if a.labels == "metadata":
            features |= {column: {"names": a.words, "_type": "ClassLabel"}} if column in table else {}
        meta = {"huggingface": json.dumps({"info": {"features": features}})}
        (a.top / "data").mkdir(exist_ok=True)
        path = a.top / f"data/{word}-00000-of-00001.parquet"
        pq.write_table(pa.table(table).replace_schema_metadata(meta), path)


def arrays(a: Layout) -> None:
    form = a.draw("arrays as", "X_{}.npy y_{}.npy", "{}_images.npy {}_labels.npy", "one npz", "npz a split")
    channel = (1,) * a.draw("channel", 0, 1)
    whole = {}
    for split in a.splits.split():
        group, word = a.of(split), {"valid": "val"}.get(split, split)
        values = [
            np.stack([face(p).reshape(48, 48, *channel) for p in group]),
            np.array(label_values(a, group)),
        ]
        values = values[:1] if split == "test" and a.drawn["test labels"] == "hidden" else values
        if form.endswith(".npy"):
            for name, value in zip(form.format(word, word).split(), values, strict=False):
                np.save(a.top / name, value)
        elif form == "npz a split":
            np.savez(a.top / f"{word}.npz", **dict(zip(("images", "labels"), values, strict=False)))
        whole |= dict(zip((f"x_{word}", f"y_{word}"), values, strict=False))
    if form == "one npz":
        np.savez(a.top / "faces.npz", **whole)


def names_beside(a: Layout) -> None:
    pairs = [(int(a.code(k)), word) for k, word in enumerate(a.words)]
    shown = a.rng.sample(pairs, len(pairs))
    csv_name, head = a.rng.choice((("label_map.csv", "id,name"), ("classes.csv", "code,meaning")))
    name, content = {
        "csv": (csv_name, "\n".join([head] + [f"{k},{w}" for k, w in shown])),
        "json list": ("classes.json", json.dumps(a.words)),
        "json dict": ("class_indices.json", json.dumps({w: k for k, w in pairs})),
        "json id2label": ("label_map.json", json.dumps({str(k): w for k, w in shown})),
        "txt": ("classes.txt", "\n".join(a.words)),
        "txt numbered": ("labels.txt", "\n".join(f"{k} {w}" for k, w in pairs)),
        "yaml": ("data.yaml", "names: [" + ", ".join(a.words) + "]"),
        "yaml dict": ("dataset.yaml", "\n".join(["names:"] + [f"  {k}: {w}" for k, w in pairs])),
    }[a.drawn["names file"]]  # fmt: skip
    (a.top / name).write_text(content + "\n")


LITTER = {
    "mac": (".DS_Store", "Thumbs.db", "__MACOSX/._face.jpg"),
    "papers": ("README.md", "LICENSE", "requirements.txt"),
    "docs": ("docs/figure.png", "README.md"),
    "persons": ("persons.csv",),
    "empty": ("tmp/",),
    "none": (),
}


def litter(a: Layout) -> None:
    text = {
        "requirements.txt": "numpy\npillow>=10\n",
        "persons.csv": "person,age,gender\nP01,31,female\nP02,44,male\n",
    }
    for name in LITTER[a.draw("litter", "none", *LITTER)]:
        path = a.top / name
        (path if name.endswith("/") else path.parent).mkdir(parents=True, exist_ok=True)
        if name.endswith(".png"):
            Image.fromarray(np.arange(120 * 160, dtype=np.uint32).reshape(120, 160).astype(np.uint8)).save(
                path
            )
        elif not name.endswith("/"):
            path.write_text(text.get(name, "Faces of volunteers, see the paper.\n"))


def zipped(folder: Path, target: Path, within: Path) -> None:
    with zipfile.ZipFile(target, "w") as archive:
        for path in sorted(folder.rglob("*")):
            archive.write(path, path.relative_to(within).as_posix())
    shutil.rmtree(folder)


def pack(a: Layout) -> None:
    train = a.top / folder_word(a, "train")
    how = a.draw(
        "packed", *("no",) * 6, "path is a zip", "zip inside", *("train zipped",) * 2 * train.is_dir()
    )
    if how == "train zipped":
        zipped(train, train.with_suffix(".zip"), a.top)
    elif how != "no":
        target = a.at.with_name("faces.zip")
        zipped(a.at, target, a.at)
        a.at = target
        if how == "zip inside":
            a.at = target.parent / "download"
            a.at.mkdir()
            shutil.move(target, a.at)
