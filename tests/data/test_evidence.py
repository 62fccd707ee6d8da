"""What was once read wrongly without a word, found by a hostile review and by layouts written by hand."""

import json

import numpy as np
import pytest
from competitions import levels, pixels, save, write

from fer_utils.competition import DataError
from fer_utils.data.load import load_competition

# What data mean does not depend on the versions of packages; test_layouts.py does.
pytestmark = pytest.mark.once

WORDS = ("happy", "sad", "fear")


def pictures(root, n, name="images/{:03}.png"):
    for k in range(n):
        save(root / name.format(k), k % 3, k)
    return [name.format(k).rpartition("/")[2] for k in range(n)]


def test_lists_of_splits_beside_a_list_of_labels(tmp_path):
    names = pictures(tmp_path, 60)
    write(tmp_path / "labels.csv", ["image,label", *(f"{n},{WORDS[k % 3]}" for k, n in enumerate(names))])
    write(tmp_path / "train.txt", names[:45])
    write(tmp_path / "test.txt", names[45:])
    competition = load_competition(tmp_path)
    assert set(competition.test.ids) == set(names[45:])


def test_minus_one_may_be_a_class(tmp_path):
    names = pictures(tmp_path, 60)
    write(tmp_path / "labels.csv", ["image,label", *(f"{n},{k % 3 - 1}" for k, n in enumerate(names))])
    with pytest.raises(DataError, match="holds -1, which may be a class or stand for a hidden label"):
        load_competition(tmp_path)
    said = load_competition(tmp_path, classes="-1=bad, 0=fair, 1=good")
    assert said.class_names == ("bad", "fair", "good") and said.test is None
    hidden = load_competition(tmp_path, splits="test=-1")
    assert len(hidden.test) == 20 and hidden.class_names == ("class 0", "class 1")


def test_minus_one_on_a_scale_below_zero_is_a_class(tmp_path):
    names = pictures(tmp_path, 60)
    write(tmp_path / "labels.csv", ["image,label", *(f"{n},{k % 5 - 2}" for k, n in enumerate(names))])
    competition = load_competition(tmp_path)
    assert competition.label_values == (-2, -1, 0, 1, 2) and competition.test is None


def test_a_validation_table_of_placeholders_is_for_the_test(tmp_path):
    for name, label in (("train", lambda row: row % 7), ("valid", lambda row: 0)):
        rows = (f"{label(row)},{pixels(row % 7, row)}" for row in range(70 if name == "train" else 9))
        write(tmp_path / f"{name}.csv", ["emotion,pixels", *rows])
    competition = load_competition(tmp_path)
    assert len(competition.test) == 9 and len(competition.train) + len(competition.valid) == 70
    assert "the valid split shows no labels: it is part of the test split" in competition.notes


def test_an_image_that_a_list_puts_into_train_and_test_is_not_trained_on(tmp_path):
    rows = [
        f"{n},{WORDS[k % 3]},{'train' if k < 50 else 'test'}" for k, n in enumerate(pictures(tmp_path, 60))
    ]
    again = [row.replace("test", "train") for row in rows[50:55]]
    write(tmp_path / "list.csv", ["image,label,split", *rows, *again])
    competition = load_competition(tmp_path)
    assert len(competition.train) + len(competition.valid) == 50 and len(competition.test) == 10
    assert any("left out: 5 images, also in the test split" in note for note in competition.notes)


def test_words_inside_file_names_are_no_splits(tmp_path):
    for k in range(60):
        word = ("test-pilot", "public-speaker", "training", "woman")[k % 4]
        save(tmp_path / WORDS[k % 3] / f"{word}-{k}.png", k % 3, k)
    competition = load_competition(tmp_path)
    assert competition.test is None and len(competition.train) + len(competition.valid) == 60


def test_the_samples_own_column_names_the_images(tmp_path):
    """The ids count from 0 in both tables, and those of the test are shuffled."""
    order = np.random.default_rng(0).permutation(20)
    train = [f"{k},{WORDS[k % 3]},{pixels(k % 3, k)}" for k in range(60)]
    write(tmp_path / "train.csv", ["face_id,label,pixels", *train])
    write(tmp_path / "test.csv", ["face_id,pixels", *(f"{i},{pixels(i % 3, 100 + i)}" for i in order)])
    write(tmp_path / "sample_submission.csv", ["face_id,label", *(f"{i},sad" for i in range(20))])
    competition = load_competition(tmp_path)
    assert competition.submission.rows.tolist() == np.argsort(order).tolist()


@pytest.mark.parametrize(
    "name, content",
    [
        ("stats.json", json.dumps({"happy": 20, "sad": 21, "fear": 19})),
        ("subjects.csv", "id,name\n0,anna\n1,ben\n2,carla\n"),
        ("config.yaml", "names: [a100, h100, l4]\n"),
        ("README.md", "---\nlanguages:\n  names: [english, french, german]\n---\n"),
    ],
)
def test_files_about_other_things_name_no_classes(tmp_path, name, content):
    names = pictures(tmp_path, 60)
    write(tmp_path / "labels.csv", ["image,label", *(f"{n},{k % 3}" for k, n in enumerate(names))])
    (tmp_path / name).write_text(content)
    assert load_competition(tmp_path).class_names == ("class 0", "class 1", "class 2")


@pytest.mark.parametrize(
    "columns, cells",
    [
        ("emotion,emotion_corrected", lambda k: f"{WORDS[k % 3]},{WORDS[k // 3 % 3]}"),
        ("class,mood_level", lambda k: f"{k // 30},{k % 3}"),
    ],
)
def test_columns_that_contradict_each_other_are_refused(tmp_path, columns, cells):
    names = pictures(tmp_path, 60)
    write(tmp_path / "labels.csv", [f"image,{columns}", *(f"{n},{cells(k)}" for k, n in enumerate(names))])
    with pytest.raises(DataError, match="could both be the label.*columns="):
        load_competition(tmp_path)


def test_predictions_of_a_model_are_no_labels(tmp_path):
    names = pictures(tmp_path, 60)
    write(tmp_path / "train.csv", ["image,label", *(f"{n},{WORDS[k % 3]}" for k, n in enumerate(names[:40]))])
    write(tmp_path / "predictions.csv", ["image,label", *(f"{n},sad" for n in names)])
    competition = load_competition(tmp_path)
    assert len(competition.train) + len(competition.valid) == 40
    assert "not used, predictions by their names: predictions.csv" in competition.notes


def test_images_of_the_test_are_not_taken_for_missing_training_images(tmp_path):
    names = pictures(tmp_path, 30, "test/{:03}.png")
    write(tmp_path / "train.csv", ["path,label", *(f"train/{n},{WORDS[k % 3]}" for k, n in enumerate(names))])
    with pytest.raises(DataError):
        load_competition(tmp_path)


def test_folders_of_the_same_classes_beside_train(tmp_path):
    for k in range(60):
        save(tmp_path / ("train" if k < 45 else "unseen") / WORDS[k % 3] / f"{k}.png", k % 3, k)
    with pytest.raises(DataError, match="beside those for training.*splits='train=train, test=unseen'"):
        load_competition(tmp_path)
    assert len(load_competition(tmp_path, splits="train=train, test=unseen").test) == 15


def test_images_outside_of_the_folders_of_the_splits_are_no_class(tmp_path):
    for k in range(42):
        save(tmp_path / "train" / WORDS[k % 3] / f"{k}.png", k % 3, k)
        save(tmp_path / ("test" if k < 12 else "extra") / f"{k}.png", k % 3, 100 + k)
    competition = load_competition(tmp_path)
    assert set(competition.class_names) == set(WORDS) and len(competition.test) == 12
    assert len(competition.train) + len(competition.valid) == 42


def test_two_data_sets_below_one_folder(tmp_path):
    for k in range(36):
        save(tmp_path / "fer" / ("train", "test")[k > 30] / WORDS[k % 3] / f"{k}.png", k % 3, k)
        save(
            tmp_path / "pets" / ("train", "test")[k > 30] / ("cat", "dog")[k % 2] / f"{k}.png", k % 2, 99 + k
        )
    with pytest.raises(DataError, match="two data sets lie there.*below fer/.*below pets/"):
        load_competition(tmp_path)
    assert set(load_competition(tmp_path / "fer").class_names) == set(WORDS)


def test_one_hot_columns_without_a_class(tmp_path):
    names = pictures(tmp_path, 60)
    rows = [f"{n},{int(k % 4 == 0)},{int(k % 4 == 1)},{int(k % 4 == 2)},{k % 2}" for k, n in enumerate(names)]
    write(tmp_path / "labels.csv", ["image,happy,sad,fear,blurred", *rows])
    with pytest.raises(DataError, match="15 of 60 rows have no 1 in the columns happy, sad, fear"):
        load_competition(tmp_path)


def test_a_table_in_another_languages_encoding(tmp_path):
    names = pictures(tmp_path, 30)
    words = ("радость", "печаль", "страх")
    text = "image,эмоция\n" + "".join(f"{n},{words[k % 3]}\n" for k, n in enumerate(names))
    (tmp_path / "labels.csv").write_bytes(text.encode("cp1251"))
    with pytest.raises(DataError, match="an encoding of another language .not UTF-8.: save it as UTF-8"):
        load_competition(tmp_path)
    (tmp_path / "labels.csv").write_bytes(text.encode())
    assert set(load_competition(tmp_path).class_names) == set(words)


def test_labels_in_a_table_of_their_own(tmp_path):
    order = np.random.default_rng(1).permutation(60)
    write(tmp_path / "train_pixels.csv", ["id,pixels", *(f"a{k},{pixels(k % 3, k)}" for k in range(60))])
    write(tmp_path / "train_labels.csv", ["id,emotion", *(f"a{k},{WORDS[k % 3]}" for k in order)])
    competition = load_competition(tmp_path)
    told = {competition.class_names[label] for label in competition.train.labels}
    assert told == set(WORDS) and len(competition.train) + len(competition.valid) == 60


@pytest.mark.parametrize("words", [("ANGRY", "HAPPY", "SAD"), ("alert", "drowsy", "yawning")])
def test_the_first_row_of_a_short_list_is_no_header(tmp_path, words):
    """Ids of letters and numbers differ in form from row to row, as the name of a column does from cells."""
    stems = ["d88aa7", "9224a7", "2ccfa7", "2447a7", "6225a7", "1bbfa7", "5115a7"]
    for k, stem in enumerate(stems):
        save(tmp_path / f"images/{stem}.png", k % 3, k)
    write(tmp_path / "list.txt", [f'"{stem}" "{words[k % 3]}"' for k, stem in enumerate(stems)])
    competition = load_competition(tmp_path, n_folds=2)
    assert len(competition.train) + len(competition.valid) == 7


def test_a_headerless_sample_whose_ids_are_of_one_form(tmp_path):
    """The label of its first line stands nowhere else in it."""
    for k in range(40):
        save(tmp_path / "train" / ("alert", "drowsy")[k % 2] / f"Face{k}.png", k % 2, k)
        save(tmp_path / "test" / f"Face{100 + k}.png", k % 2, 100 + k)
    lines = [f"Face{100 + k},{'drowsy' if k else 'alert'}" for k in range(40)]
    write(tmp_path / "sample_submission.csv", lines)
    competition = load_competition(tmp_path)
    assert not competition.submission.header and len(competition.submission.rows) == 40


def test_the_same_names_in_train_deeper_down_and_in_test(tmp_path):
    """train/train/, as an archive in an archive unpacks, lies lower than test/: that says nothing."""
    for k in range(60):
        save(tmp_path / f"train/train/{k:03}.png", k % 3, k)
        if k < 10:
            save(tmp_path / f"test/{k:03}.png", k % 3, 500 + k)
    for part in range(2):
        rows = [f"{k:03}.png,{WORDS[k % 3]}" for k in range(60) if k % 2 == part]
        write(tmp_path / f"labels_part{part}.csv", ["image,label", *rows])
    competition = load_competition(tmp_path)
    assert len(competition.train) + len(competition.valid) == 60 and len(competition.test) == 10
    truth = np.array(WORDS)[levels(competition.train.images)]
    assert (np.array(competition.class_names)[competition.train.labels] == truth).all()


def test_other_words_for_a_class_in_the_validation_folder(tmp_path):
    for split, words in (("train", ("angry", "happy", "sad")), ("valid", ("Anger", "happiness", "sad"))):
        for k in range(30):
            save(tmp_path / split / words[k % 3] / f"{split}{k}.png", k % 3, k)
    competition = load_competition(tmp_path)
    assert competition.class_names == ("angry", "happy", "sad")
    assert np.bincount(competition.valid.labels).tolist() == [10, 10, 10]


def test_the_summary_says_how_answers_find_their_images(tmp_path):
    order = np.random.default_rng(0).permutation(20)
    write(
        tmp_path / "train.csv", ["label,pixels", *(f"{WORDS[k % 3]},{pixels(k % 3, k)}" for k in range(60))]
    )
    write(tmp_path / "test.csv", ["face,pixels", *(f"f{i},{pixels(i % 3, 100 + i)}" for i in order)])
    write(tmp_path / "sample_submission.csv", ["Id,label", *(f"f{i},sad" for i in range(20))])
    assert "ids of sample_submission.csv: equal to the column 'face'" in load_competition(tmp_path).summary()
    write(tmp_path / "sample_submission.csv", ["label", *["sad"] * 20])
    assert "none, so predictions are in the order of the rows" in load_competition(tmp_path).summary()


@pytest.mark.parametrize("form", ["voc", "labelme"])
def test_labels_in_a_file_for_each_image(tmp_path, form):
    """The largest box counts; a damaged file leaves its image without a label, and that is said."""
    for k in range(200):
        save(tmp_path / f"JPEGImages/{k:03}.png", k % 3, k)
        boxes = {"fear": (1, 2, 5, 9), WORDS[k % 3]: (0, 0, 40, 40)}
        if form == "voc":
            corners = "<xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax>"
            objects = (
                f"<object><name>{w}</name><bndbox>{corners.format(*b)}</bndbox></object>"
                for w, b in boxes.items()
            )
            write(tmp_path / f"Annotations/{k:03}.xml", ["<annotation>", *objects, "</annotation>"])
        else:
            shapes = [{"label": w, "points": [b[:2], b[2:]]} for w, b in boxes.items()]
            write(tmp_path / f"JPEGImages/{k:03}.json", [json.dumps({"version": "5.2", "shapes": shapes})])
    write(next(tmp_path.rglob("007.[xj][ms]*")), ["<annotation>{"])
    competition = load_competition(tmp_path)
    assert competition.class_names == ("fear", "happy", "sad")
    assert "1 images, no label file that can be read (such as JPEGImages/007.png)" in competition.summary()
    truth = np.array(["happy", "sad", "fear"])[levels(competition.train.images)]
    assert (np.array(competition.class_names)[competition.train.labels] == truth).all()


def test_nested_records_of_a_manifest(tmp_path):
    names = pictures(tmp_path, 30)
    records = [
        {
            "source-ref": f"s3://bucket/images/{n}",
            "emotion": k % 3,
            "emotion-metadata": {"class-name": WORDS[k % 3]},
        }
        for k, n in enumerate(names)
    ]
    write(tmp_path / "output.manifest", [json.dumps(record) for record in records])
    assert load_competition(tmp_path).class_names == ("fear", "happy", "sad")
