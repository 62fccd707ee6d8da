"""Tiny competitions in the layouts of real ones, written by the tests that need them.

The brightness of an image tells its true class, so a test can answer perfectly and knows the submission.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from fer_utils.competition import FER_CLASSES, Competition, Split
from fer_utils.data.submission_csv import write_submission

STEP = 26
NUMBERS = tuple(f"class {n}" for n in range(7))  # integers whose meaning nothing says


@dataclass(frozen=True)
class Expected:
    """What must come out of a competition.

    Attributes:
        layout: the reader that recognises it.
        names: class name for each level of brightness.
        counts: training, validation (None: made here) and test images (0: no test split).
        answers: the submission file of a perfect answer; None without a test split.
        test_labels: whether the data tells them.
    """

    layout: str
    names: tuple[str, ...]
    counts: tuple[int, int | None, int]
    answers: str | None = None
    test_labels: bool = False


def face(level: int, number: int, size: int = 48) -> np.ndarray:
    """An image of its own for every number, whose mean brightness tells the level (0..8)."""
    noise = np.random.default_rng(number).integers(-5, 6, (size, size))
    return (14 + STEP * level + noise).astype(np.uint8)


def levels(images: np.ndarray) -> np.ndarray:
    """The levels of uint8 [N, 1, H, W]."""
    return np.round((images.mean((1, 2, 3)) - 14) / STEP).astype(int)


def pixels(level: int, number: int, size: int = 48) -> str:
    return " ".join(map(str, face(level, number, size).ravel()))


def save(path: Path, level: int, number: int, size: int = 48, mode: str = "L") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(face(level, number, size)).convert(mode).save(path)


def write(path: Path, lines: Iterable[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def told(split: Split, competition: Competition) -> set[tuple[int, str]]:
    """Level and class name of every image."""
    return {
        (level, competition.class_names[label])
        for level, label in zip(levels(split.images), split.labels, strict=True)
    }


def right(competition: Competition, names: Iterable[str]) -> Competition:
    """Whether every labelled image has the name of its level."""
    for split in (competition.train, competition.valid):
        assert told(split, competition) <= set(enumerate(names))
    return competition


def answers(competition: Competition, tmp_path: Path) -> list[str]:
    """The lines of the submission file of a perfect answer."""
    classes = levels(competition.test.images) % len(competition.class_names)
    path = write_submission(
        competition, np.eye(len(competition.class_names))[classes], tmp_path / "answers.csv"
    )
    return path.read_text().splitlines()


def _usage(row: int) -> str:
    return "Training" if row < 28 else "PublicTest" if row < 35 else "PrivateTest"


def _default(ids: Iterable[object], labels: Iterable[object]) -> str:
    return "id,label\n" + "".join(f"{i},{label}\n" for i, label in zip(ids, labels, strict=True))


def fer2013_csv(root: Path) -> Expected:
    rows = [f"{row % 7},{pixels(row % 7, row)},{_usage(row)}" for row in range(42)]
    write(root / "fer2013" / "fer2013.csv", ["emotion,pixels,Usage", *rows])
    answers = _default(range(35, 42), range(7))
    return Expected("fer2013.csv", FER_CLASSES, (28, 7, 7), answers, test_labels=True)


def icml_face_data(root: Path) -> Expected:
    rows = [f"{row % 7},{_usage(row)},{pixels(row % 7, row)}" for row in range(42)]
    write(root / "icml_face_data.csv", ["emotion, Usage, pixels", *rows])
    answers = _default(range(35, 42), range(7))
    return Expected("fer2013.csv", FER_CLASSES, (28, 7, 7), answers, test_labels=True)


def icml_competition(root: Path) -> Expected:
    icml_face_data(root)
    write(root / "train.csv", ["emotion,pixels", *(f'{r % 7},"{pixels(r % 7, r)}"' for r in range(28))])
    write(root / "test.csv", ["pixels", *(f'"{pixels(r % 7, 90 + r)}"' for r in range(14))])
    write(root / "example_submission.csv", ["0"] * 14)
    answers = "".join(f"{r % 7}\n" for r in range(14))
    return Expected("pixel tables", FER_CLASSES, (28, None, 14), answers)


def ntu_spring(root: Path) -> Expected:
    write(root / "train.csv", ["label,feature", *(f"{r % 7},{pixels(r % 7, r)}" for r in range(35))])
    write(root / "test.csv", ["id,feature", *(f"{r},{pixels((r + 2) % 7, 90 + r)}" for r in range(5))])
    answers = _default(range(5), [(r + 2) % 7 for r in range(5)])
    return Expected("pixel tables", NUMBERS, (35, None, 5), answers)


def strongemorec(root: Path) -> Expected:
    write(root / "data/train.csv", ["emotion,pixels", *(f"{r % 7},{pixels(r % 7, r)}" for r in range(28))])
    write(root / "data/test.csv", ["pixels", *(pixels((r * 3) % 7, 90 + r) for r in range(6))])
    write(root / "sampleSubmission.csv", ["Id,Category", *(f"{r},3" for r in reversed(range(6)))])
    answers = "Id,Category\n" + "".join(f"{r},{r * 3 % 7}\n" for r in reversed(range(6)))
    return Expected("pixel tables", FER_CLASSES, (28, None, 6), answers)


def train_with_usage(root: Path) -> Expected:
    rows = [f"{r % 7},{pixels(r % 7, r)},{_usage(r)}" for r in range(35)]
    write(root / "train.csv", ["emotion,pixels,Usage", *rows])
    write(root / "test.csv", ["id,pixels", *(f"{r},{pixels(6 - r, 90 + r)}" for r in range(7))])
    write(root / "sample_submission.csv", ["id,emotion", *(f"{r},0" for r in range(7))])
    answers = "id,emotion\n" + "".join(f"{r},{6 - r}\n" for r in range(7))
    return Expected("pixel tables", FER_CLASSES, (28, 7, 7), answers)


def two_pixel_sizes_three_classes(root: Path) -> Expected:
    """Semicolons, Windows line ends, a byte-order mark, 32 x 32 pixels and string labels."""
    words = ("Happy", "Sad", "Neutral")
    lines = ["Emotion;Pixels", *(f"{words[r % 3]};{pixels(r % 3, r, 32)}" for r in range(30))]
    root.mkdir(parents=True, exist_ok=True)
    (root / "train.csv").write_bytes(("\ufeff" + "\r\n".join(lines) + "\r\n").encode())
    write(root / "test.csv", ["id;pixels", *(f"t{r};{pixels(r, 90 + r, 32)}" for r in range(3))])
    answers = _default(["t0", "t1", "t2"], words)
    return Expected("pixel tables", ("happy", "sad", "neutral"), (30, None, 3), answers)


ALPHABETICAL = tuple(sorted(FER_CLASSES))


def _class_tree(
    root: Path, folders: Iterable[str], each: int, start: int = 0, name: str = "{:05}.png", **options
) -> None:
    for level, folder in enumerate(folders):
        for i in range(each):
            number = start + each * level + i
            save(root / folder / name.format(number), level, number, **options)


def msambare(root: Path) -> Expected:
    _class_tree(root / "train", ALPHABETICAL, 4)
    _class_tree(root / "test", ALPHABETICAL, 1, start=500)
    answers = _default([f"{c}/{500 + i:05}.png" for i, c in enumerate(ALPHABETICAL)], ALPHABETICAL)
    return Expected("class folders", ALPHABETICAL, (28, None, 7), answers, test_labels=True)


def jonathanoheix(root: Path) -> Expected:
    """Colour, 64 x 64, and the whole set once more inside itself, as on Kaggle."""
    for home in ("images", "images/images"):
        _class_tree(root / home / "train", ALPHABETICAL, 4, size=64, mode="RGB")
        _class_tree(root / home / "validation", ALPHABETICAL, 1, start=500, size=64, mode="RGB")
    return Expected("class folders", ALPHABETICAL, (28, 7, 0))


def doubled_levels(root: Path) -> Expected:
    words = ["Anger", "Disgusted", "FEAR", "happiness", "sadness", "Surprised", "calm"]
    home = root / "facial-expression-dataset"
    _class_tree(home / "train" / "train", words, 4)
    _class_tree(home / "test" / "test", words, 1, start=500)
    order = sorted(range(7), key=lambda i: words[i])
    answers = _default([f"{words[i]}/{500 + i:05}.png" for i in order], [words[i] for i in order])
    return Expected("class folders", FER_CLASSES, (28, None, 7), answers, test_labels=True)


def flat_test(root: Path) -> Expected:
    """The layout of our own copy of FER2013 as folders."""
    _class_tree(root / "train", ALPHABETICAL, 4)
    _class_tree(root / "valid", ALPHABETICAL, 1, start=500)
    for r in range(7):
        save(root / "test" / f"{r:04}.png", (r * 2) % 7, 900 + r)
    write(root / "sample_submission.csv", ["filename,emotion", *(f"{r:04}.png,neutral" for r in range(7))])
    answers = "filename,emotion\n" + "".join(f"{r:04}.png,{ALPHABETICAL[r * 2 % 7]}\n" for r in range(7))
    return Expected("class folders", ALPHABETICAL, (28, 7, 7), answers)


def single_root(root: Path) -> Expected:
    words = [f"{i} {name}" for i, name in enumerate(FER_CLASSES)]
    _class_tree(root / "processed_data", words, 4)
    return Expected("class folders", FER_CLASSES, (28, None, 0))


def spaces_and_contempt(root: Path) -> Expected:
    """Eight classes, so the data's own order; spaces in the path."""
    words = [*(name.title() for name in FER_CLASSES), "Contempt"]
    home = root / "archive (3)"
    _class_tree(home / "Train", words, 4)
    _class_tree(home / "Test", words, 1, start=500)
    order = sorted(range(8), key=lambda i: words[i])
    answers = _default([f"{words[i]}/{500 + i:05}.png" for i in order], [words[i] for i in order])
    return Expected("class folders", (*FER_CLASSES, "contempt"), (32, None, 8), answers, test_labels=True)


def raf_folders(root: Path) -> Expected:
    """Numbered folders; the names of the files are RAF-DB's own."""
    raf = ("surprise", "fear", "disgust", "happy", "sad", "angry", "neutral")
    folders = list(map(str, range(1, 8)))
    _class_tree(root / "DATASET" / "train", folders, 4, name="train_{:05}_aligned.png")
    _class_tree(root / "DATASET" / "test", folders, 1, start=500, name="test_{:04}_aligned.png")
    answers = _default([f"{i + 1}/test_{500 + i:04}_aligned.png" for i in range(7)], range(1, 8))
    return Expected("class folders", raf, (28, None, 7), answers, test_labels=True)


def raf_lists(root: Path) -> Expected:
    expected = raf_folders(root)
    names = {"train": [f"train_{n:05}_aligned.png" for n in range(28)]}
    names["test"] = [f"test_{500 + n:04}_aligned.png" for n in range(7)]
    for split, files in names.items():
        rows = [f"{file},{n * 7 // len(files) + 1}" for n, file in enumerate(files)]
        write(root / f"{split}_labels.csv", ["image,label", *rows])
    answers = _default(names["test"], range(1, 8))
    return Expected("image list", expected.names, (28, None, 7), answers, test_labels=True)


def raf_original(root: Path) -> Expected:
    """One list without a header, blanks between, names without the suffix that the files have."""
    raf = ("surprise", "fear", "disgust", "happy", "sad", "angry", "neutral")
    names = [f"train_{n:05}" for n in range(28)] + [f"test_{n:04}" for n in range(7)]
    for n, name in enumerate(names):
        save(root / "Image" / "aligned" / f"{name}_aligned.png", n % 7, n)
    lines = [f"{name}.png {n % 7 + 1}" for n, name in enumerate(names)]
    write(root / "EmoLabel" / "list_patition_label.txt", lines)
    answers = _default([f"test_{n:04}.png" for n in range(7)], range(1, 8))
    return Expected("image list", raf, (28, None, 7), answers, test_labels=True)


def skillbox(root: Path) -> Expected:
    words = ["anger", "contempt", "disgust", "fear", "happy", "neutral", "sad", "surprise", "uncertain"]
    _class_tree(root / "train", words, 4, size=60, mode="RGB")
    rows = [f"{n},./train/{words[n // 4]}/{n:05}.png,{words[n // 4]}" for n in range(36)]
    write(root / "train.csv", [",image_path,emotion", *rows])
    for r in range(9):
        save(root / "test_kaggle" / f"{r}.png", (r * 4) % 9, 900 + r, size=60, mode="RGB")
    order = [3, 1, 0, 2, 8, 7, 6, 5, 4]
    write(root / "sample_submission.csv", ["image_path,emotion", *(f"{r}.png,anger" for r in order)])
    answers = "image_path,emotion\n" + "".join(f"{r}.png,{words[r * 4 % 9]}\n" for r in order)
    return Expected("image list", ("angry", *words[1:]), (36, None, 9), answers)


def ntu_fall(root: Path) -> Expected:
    """Integer ids, padded to five digits in training and four in test: 7 means two different files."""
    for n in range(28):
        save(root / "train_img" / f"{n:05}.png", n % 7, n)
    for n in range(14):
        save(root / "test_img" / f"{n:04}.png", (n + 3) % 7, 900 + n)
    write(root / "train.csv", ["id,label", *(f"{n},{n % 7}" for n in range(28))])
    write(root / "sample_submission.csv", ["id,label", *(f"{n},0" for n in range(14))])
    answers = _default(range(14), [(n + 3) % 7 for n in range(14)])
    return Expected("image list", NUMBERS, (28, None, 14), answers)


def affectnet(root: Path) -> Expected:
    """A list beside class folders that disagree with it on one image; the list is right."""
    words = ["anger", "contempt", "disgust", "fear", "happy", "neutral", "sad", "surprise"]
    _class_tree(root, words, 4)
    save(root / "anger" / "00090.png", 4, 90)
    rows = [f"{n},{words[n // 4]}/{n:05}.png,{words[n // 4]},0.8" for n in range(32)]
    write(root / "labels.csv", [",pth,label,relFCs", *rows, "32,anger/00090.png,happy,0.9"])
    return Expected("image list", ("angry", *words[1:]), (33, None, 0))


def bits_pilani(root: Path) -> Expected:
    """Integers 1..5 of unknown meaning; the sample's placeholder 0 is none of them."""
    for n in range(25):
        save(root / "train" / f"a{n}.png", n % 5, n)
    for n in range(5):
        save(root / "test" / f"b{n}.png", n, 900 + n)
    write(root / "train.csv", ["Id,Class", *(f"a{n},{n % 5 + 1}" for n in range(25))])
    write(root / "sampleSubmission.csv", ["Id,Class", *(f"b{n},0" for n in range(5))])
    answers = "Id,Class\n" + "".join(f"b{n},{n + 1}\n" for n in range(5))
    return Expected("image list", tuple(f"class {n}" for n in range(1, 6)), (25, None, 5), answers)


def muxspace(root: Path) -> Expected:
    """Mixed case, and images in no list."""
    words = ["anger", "HAPPINESS", "neutral", "Sadness"]
    for n in range(24):
        save(root / "images" / f"Person_{n:04}.png", n % 4, n)
    save(root / "images" / "nobody.png", 0, 99)
    spell = [str.lower, str.upper]
    rows = [f"628,Person_{n:04}.png,{spell[n // 4 % 2](words[n % 4])}" for n in range(24)]
    write(root / "legend.csv", ["user.id,image,emotion", *rows])
    return Expected("image list", ("angry", "happy", "neutral", "sad"), (24, None, 0))


SIDE = 20  # of the images with a column for every pixel: wide tables are slow to read


def column_per_pixel(root: Path) -> Expected:
    """A column for every pixel, as MNIST's relatives have it."""
    header = ",".join(f"pixel_{i}" for i in range(SIDE**2))
    rows = [f"{r % 7},{_columns(r % 7, r)}" for r in range(35)]
    write(root / "train.csv", [f"label,{header}", *rows])
    write(root / "test.csv", [f"id,{header}", *(f"{r + 5},{_columns(6 - r, 90 + r)}" for r in range(7))])
    return Expected("pixel tables", NUMBERS, (35, None, 7), _default(range(5, 12), range(6, -1, -1)))


def _columns(level: int, number: int) -> str:
    return pixels(level, number, SIDE).replace(" ", ",")


def column_per_pixel_without_header(root: Path) -> Expected:
    """Nothing but numbers: the label behind the pixels."""
    write(root / "training.csv", [f"{_columns(r % 5, r)},{r % 5 + 1}" for r in range(30)])
    write(root / "testing.csv", [_columns(4 - r, 90 + r) for r in range(5)])
    names = tuple(f"class {n}" for n in range(1, 6))
    return Expected("pixel tables", names, (30, None, 5), _default(range(5), range(5, 0, -1)))


def colour_pixel_strings(root: Path) -> Expected:
    """Red, green and blue of every pixel in one string, tabs between the columns."""
    words = ("happy", "sad", "surprise")
    rows = [f"{words[r % 3]}\t{_thrice(r % 3, r)}" for r in range(30)]
    write(root / "train.tsv", ["class\tfeatures", *rows])
    write(root / "test.tsv", ["image_id\tfeatures", *(f"x{r}\t{_thrice(r, 90 + r)}" for r in range(3))])
    return Expected("pixel tables", words, (30, None, 3), _default(["x0", "x1", "x2"], words))


def _thrice(level: int, number: int) -> str:
    return " ".join(f"{value} {value} {value}" for value in pixels(level, number).split())


FER_PLUS = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt")
PLUS_NAMES = ("neutral", "happy", "surprise", "sad", "angry", "disgust", "fear", "contempt")


def _plus_votes(level: int) -> str:
    """Ten votes of which eight are for the level, one for its neighbour and one for unknown."""
    votes = [0] * 10
    votes[level] += 8
    votes[(level + 1) % 8] += 1
    votes[8] += 1
    return ",".join(map(str, votes))


def _plus_usage(row: int) -> str:
    return "Training" if row < 32 else "PublicTest" if row < 40 else "PrivateTest"


def fer_plus_beside_fer2013(root: Path) -> Expected:
    """FER+'s votes for the rows of fer2013.csv, whose own labels are wrong; the last row is no face."""
    rows = [f"{row // 7 % 7},{pixels(row % 8, row)},{_plus_usage(row)}" for row in range(48)]
    write(root / "fer2013.csv", ["emotion,pixels,Usage", *rows, f"0,{pixels(0, 99)},Training"])
    lines = [f"{_plus_usage(row)},fer{row:07}.png,{_plus_votes(row % 8)}" for row in range(48)]
    header = "Usage,Image name,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF"
    write(root / "fer2013new.csv", [header, *lines, "Training,,0,0,0,0,0,0,0,0,0,10"])
    answers = _default(range(40, 48), FER_PLUS)
    return Expected("FER+ votes", PLUS_NAMES, (32, 8, 8), answers, test_labels=True)


def fer_plus_folders(root: Path) -> Expected:
    """A list without a header in each of FER+'s folders."""
    for folder, rows in (("Train", range(32)), ("Valid", range(32, 40)), ("Test", range(40, 48))):
        home = root / "data" / f"FER2013{folder}"
        for row in rows:
            save(home / f"fer{row:07}.png", row % 8, row)
        lines = [f'fer{row:07}.png,"(0, 0, 48, 48)",{_plus_votes(row % 8)}' for row in rows]
        write(home / "label.csv", lines)
    answers = _default([f"fer{row:07}.png" for row in range(40, 48)], FER_PLUS)
    return Expected("image list", PLUS_NAMES, (32, 8, 8), answers, test_labels=True)


def one_hot_list(root: Path) -> Expected:
    """Roboflow's _classes.csv in each folder: a column for every class, 1 in one of them."""
    words = ("Angry", "Happy", "Sad", "Neutral")
    for split, each, start in (("train", 6, 0), ("valid", 2, 300), ("test", 1, 600)):
        rows = []
        for n in range(4 * each):
            save(root / split / f"{start + n}.jpg.rf.png", n % 4, start + n)
            rows.append(f"{start + n}.jpg.rf.png, " + ", ".join(str(int(i == n % 4)) for i in range(4)))
        write(root / split / "_classes.csv", ["filename, Angry, Happy, Sad, Neutral", *rows])
    answers = _default([f"{600 + n}.jpg.rf.png" for n in range(4)], [w.lower() for w in words])
    return Expected("image list", ("angry", "happy", "sad", "neutral"), (24, 8, 4), answers, test_labels=True)


def json_lines(root: Path) -> Expected:
    """metadata.jsonl in the folder of every split, as Hugging Face's image folders have it."""
    words = ("joy", "anger", "fear")
    for split, each, start in (("train", 8, 0), ("test", 1, 600)):
        rows = []
        for n in range(3 * each):
            save(root / split / f"{start + n:04}.png", n % 3, start + n)
            rows.append(json.dumps({"file_name": f"{start + n:04}.png", "label": words[n % 3]}))
        write(root / split / "metadata.jsonl", rows)
    answers = _default([f"{600 + n:04}.png" for n in range(3)], words)
    return Expected("image list", ("happy", "angry", "fear"), (24, None, 3), answers, test_labels=True)


def json_dictionary(root: Path) -> Expected:
    """{picture: label}, and test images that only the sample names."""
    for n in range(20):
        save(root / "images" / f"{n:03}.png", n % 2, n)
    labels = {f"{n:03}.png": ("sad", "happy")[n % 2] for n in range(16)}
    write(root / "labels.json", [json.dumps(labels)])
    write(root / "sample_submission.csv", ["image,label", *(f"{n:03}.png,sad" for n in range(16, 20))])
    answers = "image,label\n" + "".join(f"{n:03}.png,{('sad', 'happy')[n % 2]}\n" for n in range(16, 20))
    return Expected("image list", ("sad", "happy"), (16, None, 4), answers)


def hugging_face_parquet(root: Path) -> Expected:
    """Encoded images in two shards, the names of the classes in the file's metadata."""
    import pyarrow as pa
    import pyarrow.parquet

    words = ["anger", "disgust", "fear", "happy", "sad", "surprise", "neutral"]
    features = {"info": {"features": {"label": {"names": words, "_type": "ClassLabel"}}}}
    files = {"train-00000-of-00002": range(14), "train-00001-of-00002": range(14, 28)}
    (root / "data").mkdir(parents=True)
    for stem, rows in {**files, "test-00000-of-00001": range(900, 907)}.items():
        encoded = []
        for row in rows:
            buffer = io.BytesIO()
            Image.fromarray(face(row % 7, row)).save(buffer, "PNG")
            encoded.append({"bytes": buffer.getvalue(), "path": f"{row}.png"})
        table = pa.table({"image": encoded, "label": pa.array([row % 7 for row in rows], pa.int64())})
        table = table.replace_schema_metadata({"huggingface": json.dumps(features)})
        pyarrow.parquet.write_table(table, root / "data" / f"{stem}.parquet")
    answers = _default(range(7), [words[row % 7] for row in range(900, 907)])
    return Expected("parquet images", FER_CLASSES, (28, None, 7), answers, test_labels=True)


def parquet_pixels(root: Path) -> Expected:
    """train.csv and test.csv turned into parquet; the pixels are lists of integers."""
    root.mkdir(parents=True, exist_ok=True)
    train = {"emotion": [r % 7 for r in range(28)], "pixels": [face(r % 7, r).ravel() for r in range(28)]}
    pd.DataFrame(train).to_parquet(root / "train.parquet")
    test = {"id": [f"t{r}" for r in range(7)], "pixels": [face(6 - r, 90 + r).ravel() for r in range(7)]}
    pd.DataFrame(test).to_parquet(root / "test.parquet")
    answers = _default([f"t{r}" for r in range(7)], range(6, -1, -1))
    return Expected("pixel tables", FER_CLASSES, (28, None, 7), answers)


def _stack(rows: Iterable[tuple[int, int]], size: int = 48) -> np.ndarray:
    return np.stack([face(level, number, size) for level, number in rows])


def npz(root: Path) -> Expected:
    """One file of named arrays; one-hot labels."""
    root.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(
        root / "fer.npz",
        x_train=_stack((r % 7, r) for r in range(28))[..., None],
        y_train=np.eye(7)[np.arange(28) % 7],
        x_val=_stack((r, 100 + r) for r in range(7))[..., None],
        y_val=np.eye(7)[np.arange(7)],
        x_test=_stack((6 - r, 200 + r) for r in range(7))[..., None],
    )
    return Expected("arrays", NUMBERS, (28, 7, 7), _default(range(7), range(6, -1, -1)))


def npy(root: Path) -> Expected:
    """A file per array, images as numbers from 0 to 1, labels as words."""
    root.mkdir(parents=True, exist_ok=True)
    words = np.array(["happy", "sad", "fear"])
    np.save(root / "train_images.npy", (_stack((r % 3, r) for r in range(30)) / 255).astype(np.float32))
    np.save(root / "train_labels.npy", words[np.arange(30) % 3])
    np.save(root / "test_images.npy", (_stack((r, 90 + r) for r in range(3)) / 255).astype(np.float32))
    return Expected("arrays", tuple(words.tolist()), (30, None, 3), _default(range(3), words))


def hdf5(root: Path) -> Expected:
    """The HDF5 file that PyTorch recipes for FER2013 make of its CSV: an array for each split and column."""
    import h5py

    root.mkdir(parents=True, exist_ok=True)
    with h5py.File(root / "data.h5", "w") as file:
        for name, n, start in (("Training", 28, 0), ("PublicTest", 7, 100), ("PrivateTest", 7, 200)):
            file[f"{name}_pixel"] = _stack((r % 7, start + r) for r in range(n))
            file[f"{name}_label"] = np.arange(n) % 7
    return Expected("arrays", NUMBERS, (28, 7, 7), _default(range(7), range(7)), test_labels=True)


def csc411(root: Path) -> Expected:
    """MATLAB files of the University of Toronto's course: 32 x 32 x N, labels from 1."""
    from scipy.io import savemat

    root.mkdir(parents=True, exist_ok=True)

    def last(rows: Iterable[tuple[int, int]]) -> np.ndarray:
        return np.moveaxis(_stack(rows, 32), 0, 2)

    labels = (np.arange(28) % 7 + 1)[:, None].astype(np.uint8)
    identity = np.arange(28)[:, None]
    train = {"tr_images": last((r % 7, r) for r in range(28)), "tr_labels": labels, "tr_identity": identity}
    savemat(root / "labeled_images.mat", train)
    savemat(root / "unlabeled_images.mat", {"unlabeled_images": last((0, 300 + r) for r in range(50))})
    savemat(root / "public_test_images.mat", {"public_test_images": last((r, 100 + r) for r in range(4))})
    savemat(root / "hidden_test_images.mat", {"hidden_test_images": last((r, 200 + r) for r in range(4, 7))})
    write(root / "sample.csv", ["Id,Prediction", *(f"{r + 1},0" for r in range(7))])
    answers = "Id,Prediction\n" + "".join(f"{r + 1},{r + 1}\n" for r in range(7))
    return Expected("arrays", tuple(f"class {n}" for n in range(1, 8)), (28, None, 7), answers)


def yolo(root: Path) -> Expected:
    """AffectNet as Kaggle has it for YOLO: a text file for each image."""
    words = ["Anger", "Contempt", "Disgust", "Fear", "Happy", "Neutral", "Sad", "Surprise"]
    home = root / "YOLO_format"
    write(home / "data.yaml", ["train: ../train/images", f"nc: {len(words)}", f"names: {words}"])
    for split, each, start in (("train", 4, 0), ("valid", 1, 300), ("test", 1, 600)):
        for n in range(8 * each):
            save(home / split / "images" / f"{start + n}.png", n % 8, start + n, size=96, mode="RGB")
            box = f"{n % 8} 0.5 0.5 0.9 0.9"
            write(home / split / "labels" / f"{start + n}.txt", [box, "0 0.1 0.1 0.05 0.05"][: 1 + n % 2])
    names = ("angry", "contempt", "disgust", "fear", "happy", "neutral", "sad", "surprise")
    answers = _default([f"images/{600 + n}.png" for n in range(8)], range(8))
    return Expected("label files", names, (32, 8, 8), answers, test_labels=True)


def jaffe(root: Path) -> Expected:
    """The label and the person stand in the name: KA.AN1.39.tiff."""
    codes, persons = ("AN", "DI", "FE", "HA", "SA", "SU", "NE"), ("KA", "KL", "KM", "KR", "MK", "NA", "NM")
    for n in range(28):
        save(root / "jaffe" / f"{persons[n // 4]}.{codes[n % 7]}{n // 7}.{n}.tiff", n % 7, n, size=64)
    write(root / "jaffe" / "README.txt", ["The Japanese Female Facial Expression database"])
    return Expected("labels in file names", FER_CLASSES, (28, None, 0))


def words_in_names(root: Path) -> Expected:
    for n in range(24):
        save(root / "train" / f"S{n:03}_{('happy', 'sad', 'anger')[n % 3]}_{n}.png", n % 3, n)
    for n in range(3):
        save(root / "test" / f"{n:03}.png", n, 900 + n)
    answers = _default([f"{n:03}.png" for n in range(3)], ["happy", "sad", "anger"])
    return Expected("labels in file names", ("happy", "sad", "angry"), (24, None, 3), answers)


COMPETITIONS: dict[str, Callable[[Path], Expected]] = {
    builder.__name__: builder
    for builder in (
        fer2013_csv,
        icml_face_data,
        icml_competition,
        ntu_spring,
        strongemorec,
        train_with_usage,
        two_pixel_sizes_three_classes,
        msambare,
        jonathanoheix,
        doubled_levels,
        flat_test,
        single_root,
        spaces_and_contempt,
        raf_folders,
        raf_lists,
        raf_original,
        skillbox,
        ntu_fall,
        affectnet,
        bits_pilani,
        muxspace,
        column_per_pixel,
        column_per_pixel_without_header,
        colour_pixel_strings,
        fer_plus_beside_fer2013,
        fer_plus_folders,
        one_hot_list,
        json_lines,
        json_dictionary,
        hugging_face_parquet,
        parquet_pixels,
        npz,
        npy,
        hdf5,
        csc411,
        yolo,
        jaffe,
        words_in_names,
    )
}
