"""What a random layout draws: classes, splits, images, columns; and the images that carry their truth."""

from __future__ import annotations

import io
import random
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

FER = ["angry", "disgust", "fear", "happy", "sad", "surprise", "neutral"]
SPELLINGS = (
    ["angry", "disgust", "fear", "happy", "sad", "surprise", "neutral", "contempt"],
    ["anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral", "contempt"],
    ["angry", "disgusted", "fearful", "happy", "sad", "suprise", "normal", "contempt"],
)
CANON = {word: name for words in SPELLINGS for word, name in zip(words, SPELLINGS[0], strict=True)}
STRANGE = ("alert drowsy yawning", "no_pain mild_pain strong_pain worst_pain", "bored engaged distracted")
LISTS = ("list", "list a split", "lists in parts")
COLUMN_SPLITS = {
    "usage": ("Training", "PublicTest", "PrivateTest"),
    "plain": ("train", "val", "test"),
    "capitals": ("TRAIN", "VALID", "TEST"),
    "long": ("training", "validation", "testing"),
    "dev/eval": ("train", "dev", "eval"),
    "short": ("tr", "va", "te"),
    "is_test": ("0", None, "1"),
    "letters": ("A", "B", "C"),
}
NAMES_FILES = ("csv", "json list", "json dict", "json id2label", "txt", "txt numbered", "yaml", "yaml dict")
FOLDER_SPLITS = ("train val test", "Train Valid Test", "training validation testing", "train dev test")
ROLES = {  # the usual names of a column, and somebody's own
    "image": ("image filename file image_path path", "pic shot portrait frame_file"),
    "word": ("emotion expression class_name", "mood feeling expr_name affect"),
    "number": ("label class target", "mood_code expr code"),
    "split": ("split Usage set partition", "which_set part_of phase subset"),
    "key": ("id image_id", "face_id sample_code shot_no"),
    "pixels": ("pixels feature", "px grey_values raster"),
}


@dataclass(eq=False)
class Picture:
    """`number` and `level` (class) are drawn into the pixels; `key` is the id in a column of its own."""

    number: int
    level: int
    split: str
    stem: str = ""
    file: str = ""
    key: str = ""


@dataclass
class Layout:
    """A layout that was written, what is true of it, and the way to draw from it.

    Attributes:
        top: the folder that the paths in lists start from.
        at: the path to load.
        words: the class of each level as the data spell it.
        nameless: whether `class N` is right: "no", "yes" (nothing tells more) or "either".
        answer: the lines of a perfect submission, ids alone where `columns` is given; None: no sample.
        asked: the test image of each line.
        columns: the level of each column of probabilities.
        parameter, way_out: what decides an undecidable layout; arguments: what it is loaded with.
    """

    seed: int
    at: Path
    top: Path = Path()
    rng: random.Random = None
    words: list[str] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)
    nameless: str = "no"
    answer: list[list[str]] | None = None
    columns: list[int] | None = None
    asked: list[Picture] = field(default_factory=list)
    parameter: str = ""
    way_out: dict[str, str] = field(default_factory=dict)
    arguments: dict[str, str] = field(default_factory=dict)
    drawn: dict[str, str] = field(default_factory=dict)
    column: dict[str, str] = field(default_factory=dict)
    strange: bool = False
    base: int = 0

    def draw(self, axis: str, *options):
        self.drawn[axis] = self.rng.choice(options)
        return self.drawn[axis]

    def maybe(self, share: float) -> bool:
        return self.rng.random() < share

    def of(self, *splits: str) -> list[Picture]:
        return [p for p in self.pictures if p.split in splits]

    def code(self, level: int) -> str:
        return str(level + self.base)

    def __getattr__(self, axis: str):  # what was drawn, "" where the axis does not apply
        return self.__dict__.get("drawn", {}).get(axis, "")


def face(picture: Picture) -> np.ndarray:
    """48x48 grey: the bits of the number and their opposites above, a bright bar at the class below."""
    bits = [picture.number >> b & 1 for b in range(8)]
    image = np.full((48, 48), 90, np.uint8)
    image[:16] = np.kron(np.array([bits, [1 - b for b in bits]]), np.full((8, 6), 190)) + 30
    image[16:, picture.level * 6 : picture.level * 6 + 6] = 235
    image[16:] += np.random.default_rng(picture.number).integers(0, 20, (32, 48), dtype=np.uint8)
    return image


def decode(images: np.ndarray) -> list[tuple[int, int]]:
    """(number, level) of each of uint8 [N, 1, 48, 48]; number -1 where it is none of ours."""
    images = images.reshape(-1, 48, 48).astype(float)
    bits = images[:, :16].reshape(-1, 2, 8, 8, 6).mean((2, 4)) > 125
    numbers = np.where((bits[:, 0] != bits[:, 1]).all(1), bits[:, 0] @ (1 << np.arange(8)), -1)
    levels = images[:, 16:].reshape(-1, 32, 8, 6).mean((1, 3)).argmax(1)
    return list(zip(numbers.tolist(), levels.tolist(), strict=True))


def encoded(a: Layout, picture: Picture, suffix: str) -> bytes:
    image, buffer = Image.fromarray(face(picture)), io.BytesIO()
    if a.size == 64:
        image = image.resize((64, 64))
    image.convert("RGB" if a.colour else "L").save(buffer, "PNG" if suffix == ".png" else "JPEG", quality=95)
    return buffer.getvalue()


def save_pictures(a: Layout) -> None:
    for picture in a.pictures:
        path = a.top / picture.file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(a, picture, path.suffix))


def draw_classes(a: Layout) -> None:
    shapes = ("class folders",) * 3 + LISTS[:2] * 3 + LISTS[2:] + ("pixels", "pixels a split") * 2
    shape = a.draw("structure", *shapes, "file names", "parquet", "arrays")
    a.strange = a.maybe(0.15) and shape != "file names"
    words = a.rng.choice(STRANGE).split() if a.strange else list(a.rng.choice(SPELLINGS))
    a.rng.shuffle(words)
    words = words if a.strange else words[: a.rng.randint(3, 8)]
    options = {
        "class folders": ("words",) * 5 + ("numbered words", "names beside", "numbers"),
        "file names": ("words",),
        "parquet": ("words", "metadata", "names beside", "numbers"),
        "arrays": ("words", "names beside", "numbers"),
    }.get(shape, ("words", "words", "both", "names beside", "numbers") + ("folders",) * (shape in LISTS))
    coding = a.draw("labels", *options, *("fer2013",) * (shape == "pixels"))
    a.base = 0 if coding in ("words", "metadata") else a.draw("base", 0, 0, 1)
    if coding == "fer2013":
        a.base, a.strange, words, a.drawn["base"] = 0, False, FER, 0
    case = a.draw("case", str.lower, str.lower, str.title, str.upper) if not a.strange else str
    a.drawn["case"] = getattr(case, "__name__", "")
    a.words, a.drawn["strange words"] = [case(word) for word in words], a.strange
    if shape == "list" and a.strange and coding == "words":
        a.draw("rival column", True, True, False)
    a.nameless = "yes" if coding == "numbers" else "no"
    if coding == "names beside":
        a.draw("names file", *NAMES_FILES)


def draw_pictures(a: Layout) -> None:
    """Which splits there are, and who is in them: each class three times in training."""
    fer = a.labels == "fer2013"
    splits = a.draw("splits", "train", "train test", "train test", "train valid", *("train valid test",) * 3)
    splits = a.drawn["splits"] = (
        "train valid test" if fer else "train" if a.drawn.get("rival column") else splits
    )
    a.draw("test labels", "shown", "hidden", "hidden")
    if "test" not in splits or a.labels in ("folders", "fer2013"):
        a.drawn["test labels"] = "shown"
    words = [w for w in COLUMN_SPLITS if w not in ("letters", "is_test")]
    words = ["usage", "usage", "letters", *words] if splits.count(" ") == 2 else words[1:]
    if splits == "train test":  # eval could be either where there is no dev
        words = [word for word in words if word != "dev/eval"] + ["is_test"] * 2
    a.draw("split words", *words)
    if fer or a.structure not in (*LISTS[::2], "pixels"):
        a.drawn["split words"] = "usage" if fer else ""
    if a.drawn["split words"] == "letters":
        a.drawn["test labels"] = "shown"
    a.draw("folder words", *FOLDER_SPLITS)
    total = a.rng.randint(40, 48 if "pixels" in a.structure else 90)
    weights = [a.rng.uniform(0.3, 2) for _ in a.words]
    made = [(level, "train") for level in range(len(a.words)) for _ in range(3)]
    for split, share in (("valid", 0.15), ("test", 0.2)):
        levels = a.rng.choices(range(len(a.words)), weights, k=int(total * share))
        made += [(level, split) for level in [0, 1, *levels][: len(levels)] if split in splits]
    made += [(level, "train") for level in a.rng.choices(range(len(a.words)), weights, k=total - len(made))]
    a.rng.shuffle(made)
    a.pictures = [Picture(number, *each) for number, each in enumerate(made)]
    a.draw("size", 48, 48, 64), a.draw("colour", False, True)
    a.draw("suffix", ".png", ".jpg", ".jpg", ".jpeg", ".JPG")


def draw_stems(a: Layout, within) -> None:
    """Names of the files, unique or repeated over the groups of `within`; some are whole numbers."""
    form = a.draw("stems", "{:05}", "{}", "img_{:04}", "Face{}", "{:04x}a7")
    start, seen = a.rng.choice((0, 1)), Counter()
    for picture in a.pictures:
        group = within(picture)
        picture.stem = form.format(seen[group] * (7919 if "x" in form else 1) % 65536 + start)
        seen[group] += 1


def folder_word(a: Layout, split: str) -> str:
    return a.drawn["folder words"].split()[("train", "valid", "test").index(split)]
