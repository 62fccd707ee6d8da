"""Words in other languages, and forms in which people and programs write lists, labels and pixels."""

import io
import json

import numpy as np
import pandas as pd
import pytest
from competitions import _class_tree, answers, face, flat_test, pixels, right, save, write
from PIL import Image

from fer_utils.competition import FER_CLASSES, DataError
from fer_utils.data.load import load_competition

# What data mean does not depend on the versions of packages; test_layouts.py does.
pytestmark = pytest.mark.once


def counts(competition):
    return tuple(0 if split is None else len(split) for split in competition.splits.values())


def listed(root, splits=()):
    """28 images and labels.csv; an image's split by its number where `splits` names some."""
    rows = []
    for n in range(28):
        save(root / "images" / f"{n}.png", n % 7, n)
        rows.append(f"{n}.png,{FER_CLASSES[n % 7]}" + (f",{splits[n]}" if splits else ""))
    write(root / "labels.csv", ["image,emotion" + ",part" * bool(splits), *rows])


# ---------------------------------------------------------------- splits


@pytest.mark.parametrize(
    "names",
    [
        ("训练集", "验证集", "测试集"), ("entrenamiento", "validación", "prueba"), ("tr", "va", "te"),
        ("eğitim", "doğrulama", "test"), ("treino", "validacao", "teste"), ("학습", "검증", "시험"),
    ],
)  # fmt: skip
def test_folders_for_splits_in_other_languages(tmp_path, names):
    for part, name in enumerate(names):
        for n in range(14):
            save(tmp_path / name / FER_CLASSES[n % 7] / f"{n}.png", n % 7, 100 * part + n)
    assert counts(right(load_competition(tmp_path), FER_CLASSES)) == (14, 14, 14)


@pytest.mark.parametrize(
    "form", ["{word}_{split}_{n}.png", "s{n}_{split}_{word}.png", "{word}_{n}.{split}.png"]
)
def test_the_split_is_a_word_anywhere_in_the_file_names(tmp_path, form):
    for n in range(42):
        split = "train" if n < 28 else "test"
        save(tmp_path / form.format(word=FER_CLASSES[n % 7], split=split, n=n), n % 7, n)
    competition = right(load_competition(tmp_path), FER_CLASSES)
    assert len(competition.test) == 14 and "splits: from the file names" in competition.notes


@pytest.mark.parametrize("name", ["val.txt", "validation_list.txt", "split.json"])
def test_a_list_of_validation_images_leaves_the_rest_for_training(tmp_path, name):
    listed(tmp_path)
    names = [f"{n}.png" for n in range(7)]
    if name == "split.json":
        (tmp_path / name).write_text(json.dumps({"val": names, "train": [f"{n}.png" for n in range(7, 28)]}))
    else:
        write(tmp_path / name, names)
    assert counts(right(load_competition(tmp_path), FER_CLASSES)) == (21, 7)


@pytest.mark.parametrize("name", ["validated.csv", "public_figures.csv"])
def test_a_list_by_a_word_like_validation_is_refused(tmp_path, name):
    listed(tmp_path)
    write(tmp_path / name, ["image", *(f"{n}.png" for n in range(7))])
    with pytest.raises(DataError, match=f"{name} seems to be for validation"):
        load_competition(tmp_path)


def test_tables_divide_whatever_a_column_called_set_holds(tmp_path):
    listed(tmp_path)
    for name, rows in {"train": range(21), "test": range(21, 28)}.items():
        write(tmp_path / f"{name}.csv", ["image,set", *(f"{n}.png,KDEF{n % 8}" for n in rows)])
    assert len(load_competition(tmp_path).test) == 7


def test_a_person_whose_initials_could_be_a_split(tmp_path):
    for n in range(28):
        save(tmp_path / ("AB", "MK", "TE", "VA")[n % 4] / f"{FER_CLASSES[n % 7]}_{n}.png", n % 7, n)
    assert counts(right(load_competition(tmp_path), FER_CLASSES)) == (25, 3)


def test_a_list_of_row_numbers_is_refused(tmp_path):
    listed(tmp_path)
    write(tmp_path / "test_idx.txt", map(str, range(7)))
    with pytest.raises(DataError, match="test_idx.txt holds numbers, which may be those of rows"):
        load_competition(tmp_path)


def test_a_table_of_parts_is_not_named_for_one_of_them(tmp_path):
    """CelebA's list_eval_partition.csv."""
    listed(tmp_path)
    write(
        tmp_path / "list_eval_partition.csv", ["image,partition", *(f"{n}.png,{n // 10}" for n in range(28))]
    )
    with pytest.raises(DataError, match="splits='train=0, valid=1, test=2' says it"):
        load_competition(tmp_path)
    assert counts(load_competition(tmp_path, splits="train=0, valid=1, test=2")) == (10, 10, 8)


# ---------------------------------------------------------------- labels


@pytest.mark.parametrize("column", ["{}", "emotion_{}"])
@pytest.mark.parametrize("form", [str, int])  # True and False as pandas writes them, or 1 and 0
def test_a_column_for_each_expression(tmp_path, column, form):
    listed(tmp_path)
    rows = [[f"{n}.png", *(form(n % 7 == k) for k in range(7))] for n in range(28)]
    header = ",".join(["image", *map(column.format, FER_CLASSES)])
    write(tmp_path / "labels.csv", [header, *(",".join(map(str, row)) for row in rows)])
    assert right(load_competition(tmp_path), FER_CLASSES).class_names == FER_CLASSES


def test_a_rare_word_that_holds_an_expression_is_a_class(tmp_path):
    words = ["normal"] * 40 + ["drowsy"] * 40 + ["abnormal"] * 4
    for n, word in enumerate(words):
        save(tmp_path / word / f"{n}.png", sorted(set(words)).index(word), n)
    assert len(load_competition(tmp_path).class_names) == 3


@pytest.mark.parametrize("name", ["shares.csv", "attributes.csv"])
def test_shares_of_a_model_and_attributes_are_no_labels(tmp_path, name):
    """As DeepFace writes them, beside folders of classes."""
    rows = []
    for n in range(28):
        save(tmp_path / FER_CLASSES[n % 7] / f"{n}.png", n % 7, n)
        cells = [0.1, 0.2, 0.7] if name == "shares.csv" else [True, n % 2 > 0, False]
        rows.append(",".join(map(str, [f"{n}.png", *cells])))
    write(tmp_path / name, ["image,emotion_angry,emotion_happy,emotion_sad", *rows])
    right(load_competition(tmp_path), FER_CLASSES)


@pytest.mark.parametrize("wrong", ["hapy", "suprize", "Angy"])
def test_a_misspelt_expression_is_no_class(tmp_path, wrong):
    listed(tmp_path)
    text = (tmp_path / "labels.csv").read_text().replace("0.png,angry", f"0.png,{wrong}", 1)
    (tmp_path / "labels.csv").write_text(text)
    with pytest.raises(DataError, match=f"0.png: unknown label '{wrong}'"):
        load_competition(tmp_path)
    assert load_competition(tmp_path, allow_rejected=True).class_names == FER_CLASSES


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("README.txt", "({n}={word}) "), ("README.txt", "{n} - {word}\n"),
        ("README.md", "| {n} | {word} |\n"), ("README.md", "- {word}: {n}\n"),
        ("README.md", "| {word} | {n} |\n"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("more", [0, 1])  # a class that the data do not have
def test_a_text_tells_what_the_numbers_mean(tmp_path, name, form, more):
    order = [*sorted(FER_CLASSES), *["contempt"] * more]
    write(tmp_path / "train.csv", ["emotion,pixels", *(f"{n % 7},{pixels(n % 7, n)}" for n in range(28))])
    (tmp_path / name).write_text("Labels:\n" + "".join(form.format(n=n, word=w) for n, w in enumerate(order)))
    right(load_competition(tmp_path), order)


def test_a_numbered_list_in_a_text_is_no_coding(tmp_path):
    for n in range(28):
        save(tmp_path / "train" / str(n % 7 + 1) / f"{n}.png", n % 7, n)
    (tmp_path / "README.md").write_text("".join(f"{n}. {word}\n" for n, word in enumerate(FER_CLASSES, 1)))
    assert load_competition(tmp_path).class_names == tuple(f"class {n}" for n in range(1, 8))


def test_numbers_in_other_shares_than_fer2013_has_are_not_named(tmp_path):
    rows = [f"{n % 7},{pixels(n % 7, n, 16)}" for n in range(700)]
    write(tmp_path / "train.csv", ["emotion,pixels", *rows])
    assert load_competition(tmp_path).class_names == tuple(f"class {n}" for n in range(7))
    few = [row for n, row in enumerate(rows) if n % 7 != 1 or n < 100]
    write(tmp_path / "train.csv", ["emotion,pixels", *few, *rows[2:90:7]])
    assert load_competition(tmp_path).class_names == FER_CLASSES


def test_more_words_than_numbers_may_start_at_either(tmp_path):
    for n in range(28):
        save(tmp_path / str(n % 7 + 1) / f"{n}.png", n % 7, n)
    write(tmp_path / "classes.txt", [*FER_CLASSES, "contempt"])
    assert load_competition(tmp_path).class_names == tuple(f"class {n}" for n in range(1, 8))


def test_folders_of_numbered_classes(tmp_path):
    for n in range(28):
        save(tmp_path / "train" / f"class_{n % 7}" / f"{n}.png", n % 7, n)
    right(load_competition(tmp_path), [f"class_{n}" for n in range(7)])


@pytest.mark.parametrize("form", ["splits beside", "names among records", "COCO without categories"])
def test_json_with_splits(tmp_path, form):
    listed(tmp_path)
    (tmp_path / "labels.csv").unlink()
    records = [{"file": f"{n}.png", "emotion": FER_CLASSES[n % 7]} for n in range(28)]
    names = [f"{n}.png" for n in range(21, 28)]
    images = [{"id": n, "file_name": f"{n}.png"} for n in range(28)]
    boxes = [{"image_id": n, "category_id": n % 7, "bbox": [0, 0, 9, 9]} for n in reversed(range(28))]
    content = {
        "splits beside": {"annotations": records, "splits": {"train": ["0.png"], "test": names}},
        "names among records": {"train": records[:21], "test": names},
        "COCO without categories": {"images": images, "annotations": boxes},
    }
    (tmp_path / "labels.json").write_text(json.dumps(content[form]))
    if form == "splits beside":
        with pytest.raises(DataError, match="no known layout"):
            load_competition(tmp_path)
    elif form == "names among records":
        assert len(right(load_competition(tmp_path), FER_CLASSES).test) == 7
    else:
        right(load_competition(tmp_path), [f"class {n}" for n in range(7)])


@pytest.mark.parametrize("form", ["by class", "wrapped", "CreateML"])
def test_json_that_other_programs_write(tmp_path, form):
    listed(tmp_path)
    (tmp_path / "labels.csv").unlink()
    names = {word: [f"{n}.png" for n in range(28) if FER_CLASSES[n % 7] == word] for word in FER_CLASSES}
    pairs = [(name, word) for word, some in names.items() for name in some]
    small, large = ({"coordinates": {"x": 9, "y": 9, "width": side, "height": side}} for side in (5, 30))
    content = {
        "by class": {**names, "angry": names["angry"][:3]},
        "wrapped": {"info": {"year": 2020}, "annotations": [{"file": f, "emotion": w} for f, w in pairs]},
        "CreateML": [
            {"image": f, "annotations": [{"label": "angry", **small}, {"label": w, **large}]}
            for f, w in pairs
        ],
    }
    (tmp_path / "labels.json").write_text(json.dumps(content[form]))
    assert sum(counts(right(load_competition(tmp_path), FER_CLASSES))) == 28 - (form == "by class")


# ---------------------------------------------------------------- images and their names


@pytest.mark.parametrize("name", ["submit_sample.csv", "sample_sub.csv", "upload_example.csv"])
def test_a_sample_by_other_names(tmp_path, name):
    flat_test(tmp_path)
    (tmp_path / "sample_submission.csv").unlink(missing_ok=True)
    ids = [path.name for path in (tmp_path / "test").glob("*")]
    write(tmp_path / name, ["face,mood", *(f"{id_},sad" for id_ in ids)])
    assert answers(load_competition(tmp_path), tmp_path)[0] == "face,mood"


def test_numbers_of_clips_name_no_images(tmp_path):
    for n in range(28):
        save(tmp_path / f"clip{n // 2}" / f"{n + 1:06}.png", n % 7, n)
    write(tmp_path / "labels.csv", ["clip,emotion", *(f"{n + 1},{FER_CLASSES[n % 7]}" for n in range(14))])
    with pytest.raises(DataError, match="no known layout"):
        load_competition(tmp_path)


def test_the_number_of_a_frame_counts_in_the_folder_of_its_video(tmp_path):
    rows = []
    for video in range(1, 8):
        for frame in range(1, 8):
            level = (2 * video + frame) % 7  # not the same with the two exchanged
            save(tmp_path / str(video) / f"{frame}.png", level, 10 * video + frame)
            rows.append(f"{video},{frame},{FER_CLASSES[level]}")
    write(tmp_path / "labels.csv", ["video,frame,emotion", *rows])
    right(load_competition(tmp_path), FER_CLASSES)


@pytest.mark.parametrize("frame", ["{:04}", "{}"])
def test_folders_of_videos_are_no_classes(tmp_path, frame):
    rows = []
    for video in range(1, 8):
        for number in range(1, 5):
            name = "frame" * (frame == "{}") + frame.format(number)
            save(tmp_path / str(video) / f"{name}.png", (video + number) % 7, 10 * video + number)
            numbers = f"{video},{number}" if frame == "{:04}" else f"{video}"
            rows.append(f"{numbers},{FER_CLASSES[(video + number) % 7]}")
    header = "video,frame,emotion" if frame == "{:04}" else "video,emotion"
    write(tmp_path / "labels.csv", [header, *rows])
    message = 'columns="image=frame" says that' if frame == "{:04}" else "expressions in its column 'emotion'"
    with pytest.raises(DataError, match=message):
        load_competition(tmp_path)
    if frame == "{:04}":
        right(load_competition(tmp_path, columns="image=frame"), FER_CLASSES)


def test_a_list_of_the_test_in_words_is_no_doubt_about_folders_of_numbers(tmp_path):
    for n in range(28):
        save(tmp_path / "train" / str(n % 7) / f"{n}.png", n % 7, n)
        save(tmp_path / "test" / f"t{n}.png", n % 7, 500 + n)
    write(
        tmp_path / "test_labels.csv",
        ["image,emotion", *(f"t{n}.png,{FER_CLASSES[n % 7]}" for n in range(28))],
    )
    write(tmp_path / "pred.csv", ["id,emotion", *(f"{n},{FER_CLASSES[n % 3]}" for n in range(28))])
    assert load_competition(tmp_path).class_names == tuple(f"class {n}" for n in range(7))


def parquet(path, **columns):
    pd.DataFrame(columns).to_parquet(path)


def encoded(level, number, size=48):
    file = io.BytesIO()
    Image.fromarray(face(level, number, size)).save(file, "PNG")
    return file.getvalue()


def test_of_two_columns_of_images_the_one_that_is_called_so(tmp_path):
    small, large = (
        [encoded(k, n, size) for n in range(28) for k in [0 if size == 16 else n % 7]] for size in (16, 48)
    )
    words = [FER_CLASSES[n % 7] for n in range(28)]
    parquet(tmp_path / "train.parquet", thumbnail=small, image=large, label=words)
    right(load_competition(tmp_path), FER_CLASSES)
    parquet(tmp_path / "train.parquet", thumbnail=small, full=large, label=words)
    with pytest.raises(DataError, match="images are in the columns thumbnail, full"):
        load_competition(tmp_path)
    right(load_competition(tmp_path, columns="image=full"), FER_CLASSES)


def test_the_labels_of_parquet_images_may_lie_beside(tmp_path):
    parquet(tmp_path / "train.parquet", id=list(range(28)), image=[encoded(n % 7, n) for n in range(28)])
    write(tmp_path / "train.csv", ["id,label", *(f"{n},{FER_CLASSES[n % 7]}" for n in reversed(range(28)))])
    right(load_competition(tmp_path), FER_CLASSES)


def test_the_labels_of_training_are_not_those_of_the_test(tmp_path):
    for name, start in {"train": 0, "test": 500}.items():
        faces = [encoded(n % 7, start + n) for n in range(28)]
        parquet(tmp_path / f"{name}.parquet", id=list(range(28)), image=faces)
    write(tmp_path / "train.csv", ["id,label", *(f"{n},{FER_CLASSES[n % 7]}" for n in range(28))])
    assert right(load_competition(tmp_path), FER_CLASSES).test.labels is None


def test_a_column_of_other_bytes_holds_no_images(tmp_path):
    words = [FER_CLASSES[n % 7] for n in range(28)]
    faces, names = [encoded(n % 7, n) for n in range(28)], [f"{n}.png".encode() for n in range(28)]
    parquet(tmp_path / "train.parquet", filename=names, face=faces, label=words)
    right(load_competition(tmp_path), FER_CLASSES)


def test_a_parquet_list_of_files(tmp_path):
    listed(tmp_path)
    frame = pd.read_csv(tmp_path / "labels.csv")
    (tmp_path / "labels.csv").unlink()
    frame.to_parquet(tmp_path / "labels.parquet")
    right(load_competition(tmp_path, columns="image=image"), FER_CLASSES)


def test_numbered_arrays_of_which_the_meaning_is_not_known_are_refused(tmp_path):
    faces = np.stack([face(n % 7, n) for n in range(28)])
    np.savez(tmp_path / "train.npz", faces, np.arange(28) // 4, np.arange(28) % 7)
    with pytest.raises(DataError, match=r"The arrays hold:\n.*arr_0.*28 x 48 x 48 integers"):
        load_competition(tmp_path)


def test_features_from_0_to_1_are_no_pixels(tmp_path):
    rows = [",".join(f"{x:.4f}" for x in np.random.default_rng(n).random(256)) for n in range(28)]
    header = ",".join(f"hog_{k}" for k in range(256))
    write(tmp_path / "train.csv", [f"emotion,{header}", *(f"{n % 7},{row}" for n, row in enumerate(rows))])
    with pytest.raises(DataError):
        load_competition(tmp_path)


def test_arrays_that_numpy_numbered(tmp_path):
    np.savez(tmp_path / "train.npz", np.stack([face(n % 7, n) for n in range(28)]), np.arange(28) % 7)
    np.savez(tmp_path / "test.npz", np.stack([face(n, 500 + n) for n in range(7)]))
    assert counts(right(load_competition(tmp_path), [f"class {n}" for n in range(7)])) == (25, 3, 7)


@pytest.mark.parametrize("form", ["one column", "a column for each"])
def test_pixels_from_0_to_1(tmp_path, form):
    shown = [face(n % 7, n, 16).ravel() / 255 for n in range(28)]
    mark = " " if form == "one column" else ","
    header = "pixels" if form == "one column" else ",".join(f"pixel{k}" for k in range(256))
    rows = [f"{FER_CLASSES[n % 7]},{mark.join(f'{x:.6f}' for x in row)}" for n, row in enumerate(shown)]
    write(tmp_path / "train.csv", [f"emotion,{header}", *rows])
    right(load_competition(tmp_path), FER_CLASSES)


def test_pixels_that_numpy_cut_are_refused(tmp_path):
    rows = [f'{n % 7},"[10 20 30 ... {n} 12 13]"' for n in range(28)]
    write(tmp_path / "train.csv", ["emotion,pixels", *rows])
    with pytest.raises(DataError, match="the pixels were cut when they were written"):
        load_competition(tmp_path)


# ---------------------------------------------------------------- what is told


def test_what_is_beside_the_images_is_told(tmp_path):
    _class_tree(tmp_path / "data" / "train", FER_CLASSES, 4)
    for n in range(28):
        save(tmp_path / "old" / "train" / FER_CLASSES[n % 7] / f"{n}.png", n % 7, 900 + n)
    for n in range(2):
        (tmp_path / "data" / "train" / "angry" / f"IMG_{n}.HEIC").write_bytes(b"heic")
    told = load_competition(tmp_path).summary()
    assert "training images lie in data/train, old/train" in told
    assert "not read: 2 files beside the images, such as data/train/angry/IMG_0.HEIC" in told


def test_persons_in_folders_are_told(tmp_path):
    for n in range(28):
        save(tmp_path / f"subject{n % 4:02}" / f"{FER_CLASSES[n % 7]}_{n}.png", n % 7, n)
    note = "if subject00, subject01, subject02, ... are persons, groups='folder 1' keeps each on one side"
    assert note in load_competition(tmp_path).summary()
    assert note not in load_competition(tmp_path, groups="folder 1").summary()


def test_a_class_that_only_validation_shows_is_told(tmp_path):
    _class_tree(tmp_path / "train", FER_CLASSES, 4)
    _class_tree(tmp_path / "valid", (*FER_CLASSES, "contempt"), 2)
    assert "no training image shows what validation images do: contempt (2)" in (
        load_competition(tmp_path).summary()
    )


def test_images_without_a_suffix_are_told(tmp_path):
    for n in range(28):
        save(tmp_path / "train" / FER_CLASSES[n % 7] / f"{n}.png", n % 7, n)
    for path in list(tmp_path.rglob("*.png")):
        path.rename(path.with_suffix(""))
    with pytest.raises(DataError, match="files without a suffix, such as .*: name images .png or .jpg"):
        load_competition(tmp_path)


def test_a_second_sample_is_told(tmp_path):
    flat_test(tmp_path)
    ids = sorted(path.name for path in (tmp_path / "test").glob("*"))
    for name, some in {"sample_submission.csv": ids, "sample_submission_2.csv": ids[:2]}.items():
        write(tmp_path / name, ["id,label", *(f"{id_},sad" for id_ in some)])
    told = load_competition(tmp_path)
    assert "also there, not used: sample_submission_2.csv" in told.summary() and len(
        told.submission.rows
    ) == len(ids)


def test_a_workbook_with_two_full_sheets_is_refused(tmp_path, monkeypatch):
    listed(tmp_path)
    sheet = pd.read_csv(tmp_path / "labels.csv", dtype=str)
    (tmp_path / "labels.csv").rename(tmp_path / "labels.xlsx")
    sheets = {"train": sheet, "notes": sheet.head(0)}
    monkeypatch.setattr(pd, "read_excel", lambda *_, **__: sheets)
    right(load_competition(tmp_path), FER_CLASSES)
    sheets["test"] = sheet
    with pytest.raises(DataError, match="labels.xlsx has the sheets train, test: save each as a csv file"):
        load_competition(tmp_path, seed=1, image_size=32)
