"""Small differences that real data have, each of which was once read wrongly, refused or passed over."""

import io
import json
import os
import shutil
import sys

import numpy as np
import pandas as pd
import pytest
from competitions import (
    ALPHABETICAL,
    NUMBERS,
    _class_tree,
    answers,
    face,
    fer_plus_beside_fer2013,
    flat_test,
    levels,
    pixels,
    right,
    save,
    write,
)
from PIL import Image

from fer_utils.competition import FER_CLASSES, DataError
from fer_utils.data import decode_images
from fer_utils.data.load import load_competition
from fer_utils.data.submission_csv import write_submission
from fer_utils.files import REPOSITORY

# ---------------------------------------------------------------- lists that are none


@pytest.mark.parametrize("name", ["predictions.csv", "sample_sub.csv", "old/submit_1.csv"])
def test_answers_of_another_day_are_not_trained_on(tmp_path, name):
    flat_test(tmp_path)
    write(
        tmp_path / name,
        ["filename,emotion", *(f"{r:04}.png,happy" if r else "0000.png,sad" for r in range(7))],
    )
    competition = right(load_competition(tmp_path), ALPHABETICAL)
    assert (
        competition.layout == "class folders" and len(competition.train) == 28 and len(competition.test) == 7
    )


def test_a_list_of_a_few_images_gives_way_to_class_folders(tmp_path):
    flat_test(tmp_path)
    write(
        tmp_path / "wrong_ones.csv",
        ["filename,emotion", "train/happy/00012.png,sad", "train/sad/00020.png,fear"],
    )
    competition = load_competition(tmp_path)
    assert competition.layout == "class folders" and len(competition.train) == 28


def test_the_list_that_names_more_is_taken(tmp_path):
    for n in range(20):
        save(tmp_path / "images" / f"{n}.png", n % 2, n)
    write(tmp_path / "a.csv", ["image,label", *(f"{n}.png,{('sad', 'happy')[1 - n % 2]}" for n in range(3))])
    write(tmp_path / "b.csv", ["image,label", *(f"{n}.png,{('sad', 'happy')[n % 2]}" for n in range(20))])
    right(load_competition(tmp_path), ("sad", "happy"))


def test_a_table_of_counts_is_neither_votes_nor_a_list(tmp_path):
    rows = [f"{r % 7},{pixels(r % 7, r)},{'Training' if r < 28 else 'PublicTest'}" for r in range(35)]
    write(tmp_path / "fer2013.csv", ["emotion,pixels,Usage", *rows])
    write(tmp_path / "class_counts.csv", [",".join(FER_CLASSES), "4,4,4,4,4,4,4"])
    assert load_competition(tmp_path).layout == "fer2013.csv"


def test_a_solution_file_beside_class_folders(tmp_path):
    flat_test(tmp_path)
    rows = [f"{r:04}.png,happy,{('Public', 'Private')[r % 2]}" for r in range(7)]
    write(tmp_path / "solution.csv", ["id,label,Usage", *rows])
    competition = load_competition(tmp_path)
    assert competition.layout == "class folders" and len(competition.train) == 28


# ---------------------------------------------------------------- what integers mean


@pytest.mark.parametrize("form", ["json", "json, the other way", "txt", "yaml"])
def test_a_file_that_names_the_classes_is_believed(tmp_path, form):
    words = ("neutral", "happy", "sad", "surprise", "fear", "disgust", "anger")  # AffectNet's order
    for n in range(28):
        save(tmp_path / "train" / str(n % 7) / f"{n:04}.png", n % 7, n)
    if form == "json":
        write(tmp_path / "label_map.json", [json.dumps({str(i): word for i, word in enumerate(words)})])
    elif form == "json, the other way":
        write(tmp_path / "classes.json", [json.dumps({word: i for i, word in enumerate(words)})])
    elif form == "txt":
        write(tmp_path / "classes.txt", words)
    else:
        write(tmp_path / "data.yaml", [f"names: {list(words)}"])
    competition = right(load_competition(tmp_path), (*words[:-1], "angry"))
    assert competition.class_names == FER_CLASSES
    assert any("labels named by" in note for note in competition.notes)


def test_numbered_classes_with_a_folder_for_each_person(tmp_path):
    for n in range(28):
        save(tmp_path / "train" / str(n % 7) / f"subject{n // 7}" / f"{n}.png", n % 7, n)
    right(load_competition(tmp_path), NUMBERS)


def test_a_misspelt_word_is_no_class(tmp_path):
    words = [FER_CLASSES[n % 7] for n in range(210)]
    words[3] = "hapyy"
    write(
        tmp_path / "train.csv", ["emotion,pixels", *(f"{w},{pixels(n % 7, n)}" for n, w in enumerate(words))]
    )
    competition = load_competition(tmp_path)
    assert competition.class_names == FER_CLASSES
    assert [str(item.reason) for item in competition.rejected] == ["unknown label 'hapyy'"]


def test_an_expression_of_another_name_keeps_its_images(tmp_path):
    """Roboflow's one-hot columns, one of them for a class that is in no list of ours."""
    words = ["Ahegao", "Angry", "Happy", "Sad"]
    rows = []
    for n in range(32):
        save(tmp_path / "train" / f"{n}.png", n % 4, n)
        rows.append(f"{n}.png," + ",".join(str(int(i == n % 4)) for i in range(4)))
    write(tmp_path / "train" / "_classes.csv", ["filename," + ",".join(words), *rows])
    competition = right(load_competition(tmp_path), ("ahegao", "angry", "happy", "sad"))
    assert len(competition.train) + len(competition.valid) == 32


def test_a_folder_of_figures_is_no_class(tmp_path):
    _class_tree(tmp_path, FER_CLASSES, 30)
    save(tmp_path / "docs" / "figure.png", 0, 999)
    competition = load_competition(tmp_path)
    assert competition.class_names == FER_CLASSES
    assert any("left out: 1 images, in no class folder" in note for note in competition.notes)


def test_blanks_and_quotes_after_commas(tmp_path):
    for n in range(20):
        save(tmp_path / "images" / f"{n}.png", n % 2, n)
    rows = [f'"{n}.png", "{("sad", "happy")[n % 2]}"' for n in range(20)]
    write(tmp_path / "labels.csv", ['"image", "label"', *rows])
    right(load_competition(tmp_path), ("sad", "happy"))


# ---------------------------------------------------------------- splits


def test_root_class_folders_with_a_test_folder(tmp_path):
    _class_tree(tmp_path, FER_CLASSES, 4)
    for r in range(7):
        save(tmp_path / "test" / f"{r}.png", r, 900 + r)
    write(tmp_path / "sample_submission.csv", ["id,label", *(f"{r}.png,sad" for r in range(7))])
    competition = load_competition(tmp_path)
    assert len(competition.test) == 7
    assert answers(competition, tmp_path)[1:] == [f"{r}.png,{FER_CLASSES[r]}" for r in range(7)]


def test_several_test_tables_are_joined_and_an_unlabelled_extra_is_none(tmp_path):
    write(tmp_path / "train.csv", ["emotion,pixels", *(f"{r % 7},{pixels(r % 7, r)}" for r in range(28))])
    for name, start in (("extra_unlabeled", 100), ("private_test", 204), ("public_test", 200)):
        write(tmp_path / f"{name}.csv", ["pixels", *(pixels((start + r) % 7, start + r) for r in range(4))])
    competition = load_competition(tmp_path)
    assert competition.test.ids.tolist() == [f"{n}_test/{r}" for n in ("public", "private") for r in range(4)]
    assert levels(competition.test.images).tolist() == [n % 7 for n in range(200, 208)]


def test_rows_of_a_split_that_is_none_are_not_trained_on(tmp_path):
    rows = []
    for n in range(40):
        save(tmp_path / "images" / f"{n}.png", n % 2, n)
        rows.append(f"{n}.png,{('sad', 'happy')[n % 2]},{'train' if n < 30 else 'leftover'}")
    write(tmp_path / "list.csv", ["image,label,split", *rows])
    competition = load_competition(tmp_path, allow_rejected=True)
    assert len(competition.train) + len(competition.valid) == 30
    assert {item.reason.partition(" (")[0] for item in competition.rejected} == {
        "its split 'leftover' names no split"
    }


def test_placeholders_in_the_test_table_are_no_labels(tmp_path):
    write(tmp_path / "train.csv", ["emotion,pixels", *(f"{r % 7},{pixels(r % 7, r)}" for r in range(28))])
    write(tmp_path / "test.csv", ["emotion,pixels", *(f"0,{pixels(r, 90 + r)}" for r in range(7))])
    competition = load_competition(tmp_path)
    assert competition.test.labels is None
    assert "test labels left out: all are the same, as placeholders are" in competition.notes


def test_votes_in_another_order_are_refused(tmp_path):
    fer_plus_beside_fer2013(tmp_path)
    header, *rows = (tmp_path / "fer2013new.csv").read_text().splitlines()
    write(tmp_path / "fer2013new.csv", [header, *reversed(rows)])
    with pytest.raises(DataError, match="fer2013new.csv row 3: PrivateTest, but fer2013.csv row 3: Training"):
        load_competition(tmp_path)


@pytest.mark.parametrize("names", ["train-0000{}-of-00002-{}a{}bc.parquet", "default/train/000{}.parquet"])
def test_all_shards_are_read(tmp_path, names):
    import pyarrow as pa
    import pyarrow.parquet

    for shard in range(2):
        rows = range(14 * shard, 14 * shard + 14)
        path = tmp_path / names.format(shard, shard, shard)
        path.parent.mkdir(parents=True, exist_ok=True)
        table = {"emotion": [r % 7 for r in rows], "pixels": [pixels(r % 7, r) for r in rows]}
        pyarrow.parquet.write_table(pa.table(table), path)
    competition = right(load_competition(tmp_path), FER_CLASSES)
    assert len(competition.train) + len(competition.valid) == 28


def test_ids_of_several_test_shards_stay_apart(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet

    for name, start in (
        ("train-00000-of-00001", 0),
        ("test-00000-of-00002", 100),
        ("test-00001-of-00002", 200),
    ):
        encoded = []
        for n in range(start, start + 14):
            buffer = io.BytesIO()
            Image.fromarray(face(n % 7, n)).save(buffer, "PNG")
            encoded.append({"bytes": buffer.getvalue(), "path": "x"})
        columns = {"image": encoded} | (
            {"label": [FER_CLASSES[n % 7] for n in range(14)]} if not start else {}
        )
        pyarrow.parquet.write_table(pa.table(columns), tmp_path / f"{name}.parquet")
    competition = right(load_competition(tmp_path), FER_CLASSES)
    assert len(set(competition.test.ids)) == 28
    assert levels(competition.test.images).tolist() == [n % 7 for n in (*range(100, 114), *range(200, 214))]


def test_a_few_images_without_a_label_do_not_cost_the_validation_split(tmp_path):
    _class_tree(tmp_path / "train", FER_CLASSES, 4)
    _class_tree(tmp_path / "valid", FER_CLASSES, 2, start=500)
    save(tmp_path / "valid" / "stray.png", 0, 999)
    competition = right(load_competition(tmp_path), FER_CLASSES)
    assert len(competition.valid) == 14 and competition.test is None
    assert any("left out: 1 images, in no class folder" in note for note in competition.notes)


def test_a_test_image_that_a_list_names_twice(tmp_path):
    flat_test(tmp_path)
    shutil.rmtree(tmp_path / "valid")
    write(tmp_path / "train.csv", ["image,label", *(f"{n:05}.png,{ALPHABETICAL[n // 4]}" for n in range(28))])
    write(tmp_path / "test.csv", ["image", "0001.png", "0002.png", "0001.png"])
    (tmp_path / "sample_submission.csv").unlink()
    with pytest.raises(DataError, match="test id '0001.png' stands there twice"):
        load_competition(tmp_path)


# ---------------------------------------------------------------- the form of the answers


def numbered_files(root):
    _class_tree(root / "train", FER_CLASSES, 4)
    for r in range(12):
        save(root / "test" / f"{r}.png", r % 7, 900 + r)


def test_ids_that_no_file_has_are_not_matched_by_position(tmp_path):
    numbered_files(tmp_path)
    write(tmp_path / "sample_submission.csv", ["id,label", *(f"{r + 1},sad" for r in range(12))])
    with pytest.raises(DataError, match="asks for id '12': 1 of the 12 images .*missing"):
        load_competition(tmp_path)


@pytest.mark.parametrize("form", ["{}", "prob_{}", "P({})"])
def test_a_column_for_each_class_gets_probabilities(tmp_path, form):
    numbered_files(tmp_path)
    header = "id," + ",".join(form.format(name) for name in reversed(FER_CLASSES))
    write(
        tmp_path / "sample_submission.csv", [header, *(f"{r}.png,0,0,0,0,0,0,0" for r in reversed(range(12)))]
    )
    competition = load_competition(tmp_path)
    probs = np.full((12, 7), 0.1) + 0.3 * np.eye(7)[levels(competition.test.images)]
    path = write_submission(competition, probs, tmp_path / "answers.csv")
    table = pd.read_csv(path)
    assert list(table) == header.split(",") and np.allclose(table.iloc[:, 1:].sum(axis=1), 1)
    expected = [form.format(FER_CLASSES[r % 7]) for r in reversed(range(12))]
    assert table.iloc[:, 1:].idxmax(1).tolist() == expected


@pytest.mark.parametrize(
    "classes, message",
    [
        ([*FER_CLASSES, "contempt"], "wants a probability of contempt too, which no training image has"),
        (FER_CLASSES[:-1], f"has no column for the probability of {FER_CLASSES[-1]}"),
    ],
)
def test_a_column_for_another_set_of_classes_is_refused(tmp_path, classes, message):
    numbered_files(tmp_path)
    lines = [",".join([f"{r}.png", *["0"] * len(classes)]) for r in range(12)]
    write(tmp_path / "sample_submission.csv", [",".join(["id", *classes]), *lines])
    with pytest.raises(DataError, match=message):
        load_competition(tmp_path)


def test_a_column_for_each_number_is_refused_unless_the_numbers_are_known(tmp_path):
    numbered_files(tmp_path)
    write(
        tmp_path / "sample_submission.csv",
        ["id,0,1,2,3,4,5,6", *(f"{r}.png,0,0,0,0,0,0,0" for r in range(12))],
    )
    with pytest.raises(DataError, match="wants a column of probabilities for each class.*classes="):
        load_competition(tmp_path)
    said = load_competition(tmp_path, classes=", ".join(FER_CLASSES))
    assert said.submission.probability_columns == tuple("0123456")


def test_a_sample_of_words_alone(tmp_path):
    numbered_files(tmp_path)
    write(tmp_path / "sample_submission.csv", ["sad"] * 12)
    with pytest.raises(DataError, match="has no ids.*10 before 2"):
        load_competition(tmp_path)
    for r in range(12):
        (tmp_path / "test" / f"{r}.png").rename(tmp_path / "test" / f"{r:02}.png")
    competition = load_competition(tmp_path)
    assert len(answers(competition, tmp_path)) == 12
    assert any("in the order of the file names" in note for note in competition.notes)


def test_answers_counted_from_0_for_labels_counted_from_1(tmp_path):
    write(tmp_path / "train.csv", ["emotion,pixels", *(f"{r % 7 + 1},{pixels(r % 7, r)}" for r in range(28))])
    write(tmp_path / "test.csv", ["id,pixels", *(f"{r},{pixels(r, 90 + r)}" for r in range(7))])
    write(tmp_path / "sample_submission.csv", ["Prediction,Id", *(f"{r},{r}" for r in range(7))])
    competition = load_competition(tmp_path)
    assert answers(competition, tmp_path) == ["Prediction,Id", *(f"{r},{r}" for r in range(7))]


# ---------------------------------------------------------------- names that are not in the table of names


@pytest.mark.parametrize(
    "header", ["name,label", "filepaths,labels,data set", "image_file,emotion_label", "where,what it shows"]
)
def test_columns_by_what_they_hold(tmp_path, header):
    for n in range(20):
        save(tmp_path / "pictures" / f"{n}.png", n % 2, n)
    extra = ",train" if header.count(",") == 2 else ""
    write(tmp_path / "list.csv", [header, *(f"{n}.png,{('sad', 'happy')[n % 2]}{extra}" for n in range(20))])
    right(load_competition(tmp_path), ("sad", "happy"))


def test_expw(tmp_path):
    lines = []
    for n in range(28):
        save(tmp_path / "origin" / f"face_{n}.png", n % 7, n)
        lines.append(f"face_{n}.png 0 5 5 40 40 63.2 {n % 7}")
    write(tmp_path / "label.lst", lines)
    right(load_competition(tmp_path), NUMBERS)


def test_a_list_beside_images_that_lie_there_twice(tmp_path):
    for home in ("images", "images/images"):
        for n in range(20):
            save(tmp_path / home / f"{n}.png", n % 2, n)
    write(tmp_path / "list.csv", ["image,label", *(f"{n}.png,{('sad', 'happy')[n % 2]}" for n in range(20))])
    competition = right(load_competition(tmp_path), ("sad", "happy"))
    assert len(competition.train) + len(competition.valid) == 20


def test_a_list_among_hundreds_of_text_files(tmp_path):
    for n in range(150):
        write(tmp_path / f"{n:03}.txt", ["a note, nothing else"])
    for n in range(20):
        save(tmp_path / "images" / f"{n}.png", n % 2, n)
    write(tmp_path / "zz.csv", ["image,label", *(f"{n}.png,{('sad', 'happy')[n % 2]}" for n in range(20))])
    right(load_competition(tmp_path), ("sad", "happy"))


def test_names_of_arrays_in_capitals(tmp_path):
    np.save(tmp_path / "TRAIN_IMAGES.npy", np.stack([face(n % 7, n) for n in range(28)]))
    np.save(tmp_path / "TRAIN_LABELS.npy", np.arange(28) % 7)
    for path in list(tmp_path.iterdir()):
        path.rename(path.with_suffix(".NPY"))
    right(load_competition(tmp_path), NUMBERS)


def test_arrays_named_xtrain_and_ytrain_beside_a_scalar(tmp_path):
    images = np.stack([face(n % 7, n) for n in range(28)])
    np.savez(tmp_path / "data.npz", Xtrain=images, ytrain=np.arange(28) % 7, num_classes=7)
    right(load_competition(tmp_path), NUMBERS)


# ---------------------------------------------------------------- safety


def test_parquet_names_no_files_elsewhere(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet

    Image.fromarray(face(3, 3)).save(tmp_path / "secret.png")
    (tmp_path / "data").mkdir()
    cells = [{"bytes": str(tmp_path / "secret.png"), "path": "x"}] * 28
    table = pa.table({"image": cells, "label": ["happy", "sad"] * 14})
    pyarrow.parquet.write_table(table, tmp_path / "data" / "train.parquet")
    with pytest.raises(DataError):
        load_competition(tmp_path / "data")


def test_aliases_in_yaml_do_not_grow(tmp_path):
    lines = ["a: &a [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"{b}: &{b} [{', '.join([f'*{a}'] * 10)}]" for a, b in zip("abcdefgh", "bcdefghi", strict=True)]
    write(tmp_path / "train" / "data.yaml", [*lines, "names: [*i, *i]"])
    flat_test(tmp_path)
    assert load_competition(tmp_path).layout == "class folders"


def test_decoding_finds_its_packages_wherever_they_are(tmp_path, monkeypatch):
    monkeypatch.setattr(decode_images, "WORTH_PROCESSES", 0)
    monkeypatch.setattr(sys, "path", [str(REPOSITORY), *sys.path])
    flat_test(tmp_path)
    assert len(load_competition(tmp_path).train) == 28


def test_the_cache_removes_nobody_elses_files(tmp_path, monkeypatch):
    from fer_utils.data.files import cache

    monkeypatch.setenv("FER_CACHE", str(tmp_path / "kept"))
    monkeypatch.setattr(cache, "SETTLED_SECONDS", -1e9)
    (tmp_path / "kept").mkdir()
    np.savez(tmp_path / "kept" / "my_embeddings.npz", np.zeros(100_000))
    os.utime(tmp_path / "kept" / "my_embeddings.npz", (1, 1))
    flat_test(tmp_path / "data")
    monkeypatch.setattr(cache, "MAX_CACHE_BYTES", 300_000)
    load_competition(tmp_path / "data")
    assert len(list((tmp_path / "kept").iterdir())) == 2


@pytest.mark.parametrize(
    "arguments",
    [
        {"data": None}, {"data": "~nobody-of-that-name/x"}, {"data": "x" * 6000}, {"seed": -1},
        {"image_size": "48"}, {"image_size": 10**7}, {"fold": 0.5}, {"columns": None},
    ],
)  # fmt: skip
def test_arguments_that_make_no_sense(tmp_path, arguments):
    flat_test(tmp_path)
    with pytest.raises(DataError):
        load_competition(**({"data": tmp_path} | arguments))


def test_a_torn_list_beside_the_data_does_no_harm(tmp_path):
    flat_test(tmp_path)
    (tmp_path / "old.csv").write_text('image,label\n"0000.png,happy\n0001.png,sad\n')
    assert load_competition(tmp_path).layout == "class folders"


# ---------------------------------------------------------------- what a sample submission asks for


def labelled_list(root, column="emotion"):
    """28 images named 0.png, 1.png ... with their words."""
    for n in range(28):
        save(root / "train" / f"{n}.png", n % 7, n)
    write(root / "train.csv", [f"image,{column}", *(f"{n}.png,{FER_CLASSES[n % 7]}" for n in range(28))])


@pytest.mark.parametrize("form", ["list", "folders", "pixels"])
def test_training_images_with_the_names_of_missing_test_images_are_no_test(tmp_path, form):
    if form == "list":
        labelled_list(tmp_path)
    elif form == "folders":
        for n in range(28):
            save(tmp_path / "train" / FER_CLASSES[n % 7] / f"{n}.png", n % 7, n)
    else:
        rows = [f"{n},{FER_CLASSES[n % 7]},{pixels(n % 7, n)}" for n in range(28)]
        write(tmp_path / "train.csv", ["image,emotion,pixels", *rows])
    suffix = "" if form == "pixels" else ".png"
    write(tmp_path / "sample_submission.csv", ["image,emotion", *(f"{n}{suffix},sad" for n in range(7))])
    with pytest.raises(DataError, match="the images of the test seem to be missing.*move sample_submission"):
        load_competition(tmp_path)
    (tmp_path / "sample_submission.csv").unlink()
    assert load_competition(tmp_path).test is None


def test_rows_of_a_test_table_are_counted_as_it_lists_them(tmp_path):
    """And not in the order of the file names, which are hashes."""
    _class_tree(tmp_path / "train", FER_CLASSES, 4)
    names = ["f3.png", "0a.png", "c9.png", "77.png", "e1.png", "2b.png", "a0.png"]
    for level, name in enumerate(names):
        save(tmp_path / "test" / name, level, 500 + level)
    write(tmp_path / "test.csv", ["filename", *names])
    write(tmp_path / "sample_submission.csv", ["ImageId,label", *(f"{n},sad" for n in range(1, 8))])
    competition = load_competition(tmp_path)
    expected = [f"{n},{word}" for n, word in enumerate(FER_CLASSES, 1)]
    assert answers(competition, tmp_path)[1:] == expected


def test_ids_that_count_rows_or_mean_other_numbers_are_refused(tmp_path):
    labelled_list(tmp_path)
    order = [3, 0, 6, 1, 5, 2, 4]
    for n in order:
        save(tmp_path / "test" / f"img_{n}.png", n, 500 + n)
    write(tmp_path / "test.csv", ["image", *(f"img_{n}.png" for n in order)])
    write(tmp_path / "sample_submission.csv", ["Id,emotion", *(f"{n},sad" for n in range(7))])
    with pytest.raises(DataError, match="may count the rows of the test table, or mean the numbers in"):
        load_competition(tmp_path)


@pytest.mark.parametrize("column", ["index", ""])  # pandas writes its own without a name
def test_a_column_of_row_numbers_is_the_id_where_a_sample_has_it(tmp_path, column):
    order = [4, 2, 6, 0, 5, 1, 3]
    rows = [f"{n},{FER_CLASSES[n % 7]},{pixels(n % 7, n)}" for n in range(28)]
    write(tmp_path / "train.csv", [f"{column},emotion,pixels", *rows])
    write(tmp_path / "test.csv", [f"{column},pixels", *(f"{n},{pixels(n, 500 + n)}" for n in order)])
    write(tmp_path / "sample_submission.csv", ["index,emotion", *(f"{n},sad" for n in range(7))])
    expected = [f"{n},{word}" for n, word in enumerate(FER_CLASSES)]
    assert answers(load_competition(tmp_path), tmp_path)[1:] == expected


def test_predictions_go_into_the_column_called_as_in_training(tmp_path):
    labelled_list(tmp_path, "mood")
    for n in range(7):
        save(tmp_path / "test" / f"t{n}.png", n, 500 + n)
    sample = ["image,mood,confidence", *(f"t{n}.png,sad,0.5" for n in range(7))]
    write(tmp_path / "sample_submission.csv", sample)
    expected = [f"t{n}.png,{word},0.5" for n, word in enumerate(FER_CLASSES)]
    assert answers(load_competition(tmp_path), tmp_path)[1:] == expected


def test_a_sample_without_lines_is_refused(tmp_path):
    flat_test(tmp_path)
    write(tmp_path / "sample_submission.csv", ["id,label"])
    with pytest.raises(DataError, match="sample_submission.csv has a header and no lines"):
        load_competition(tmp_path)


def test_the_same_test_names_in_each_class_are_told_apart_by_their_folders(tmp_path):
    """angry/train/1.png, angry/test/1.png, happy/test/1.png."""
    for level, word in enumerate(FER_CLASSES):
        for n in range(5):
            save(tmp_path / word / ("test" if n == 4 else "train") / f"{n}.png", level, 10 * level + n)
    competition = right(load_competition(tmp_path), FER_CLASSES)
    assert sorted(competition.test.ids) == sorted(f"{word}/test/4.png" for word in FER_CLASSES)


# ---------------------------------------------------------------- what cannot be told


@pytest.mark.parametrize("share", [2, 20])
def test_numbers_among_words_are_refused(tmp_path, share):
    words = [FER_CLASSES[n % 7] if n % share else n % 7 for n in range(140)]
    for n in range(140):
        save(tmp_path / "train" / f"{n}.png", n % 7, n, size=16)
    write(tmp_path / "train.csv", ["image,emotion", *(f"{n}.png,{word}" for n, word in enumerate(words))])
    with pytest.raises(DataError, match="labels are numbers .* and the others words"):
        load_competition(tmp_path)


def test_floats_a_little_above_one_are_no_grey_levels(tmp_path):
    """Images in 0 to 1 that resizing overshot were read as 0 to 255, and so as black."""
    images = np.stack([face(n % 7, n) for n in range(28)]) / 255
    images[0, 0, 0] = 1.02
    np.savez(tmp_path / "faces.npz", x_train=images, y_train=np.arange(28) % 7)
    with pytest.raises(DataError, match=r"holds values from 0.* to 1.02: pixels must be 0 to 255, or 0 to 1"):
        load_competition(tmp_path)


@pytest.mark.parametrize("name", ["Usage", "is_test"])
def test_an_array_beside_the_images_divides_them(tmp_path, name):
    is_test = np.arange(42) >= 35
    words = np.where(is_test, "PrivateTest", "Training") if name == "Usage" else is_test.astype(int)
    images = np.stack([face(n % 7, n) for n in range(42)])
    np.savez(tmp_path / "faces.npz", pixels=images, emotion=np.arange(42) % 7, **{name: words})
    competition = load_competition(tmp_path)
    assert len(competition.test) == 7 and len(competition.train) + len(competition.valid) == 35
    assert "not used" not in competition.summary()


def test_an_array_of_ids_names_the_images_of_the_test(tmp_path):
    order = [4, 2, 6, 0, 5, 1, 3]
    np.save(tmp_path / "X_train.npy", np.stack([face(n % 7, n) for n in range(28)]))
    np.save(tmp_path / "y_train.npy", np.arange(28) % 7)
    np.save(tmp_path / "X_test.npy", np.stack([face(n, 500 + n) for n in order]))
    np.save(tmp_path / "test_ids.npy", np.array(order))
    write(tmp_path / "sample_submission.csv", ["id,label", *(f"{n},0" for n in range(7))])
    assert answers(load_competition(tmp_path), tmp_path)[1:] == [f"{n},{n}" for n in range(7)]
