"""Layouts that a second hostile review found to be read wrongly without a word: they are read right now, or
refused with the way out."""

import re

import numpy as np
import pytest
from competitions import face, levels, pixels, save, write

from fer_utils.competition import DataError
from fer_utils.data.load import load_competition
from fer_utils.data.submission_csv import write_submission

# What data mean does not depend on the versions of packages; test_layouts.py does.
pytestmark = pytest.mark.once

WORDS = ("happy", "sad", "fear")


def word(row):
    return WORDS[row % 3]


def images(root, n, name="images/{:03}.png"):
    for k in range(n):
        save(root / name.format(k), k % 3, k)


def pixel_rows(path, labels, first=0):
    rows = (f"{first + k},{pixels(k % 3, first + k)},{label}" for k, label in enumerate(labels))
    write(path, ["id,pixels,label", *rows])


def test_the_key_of_two_tables_is_not_the_number_in_a_file_name(tmp_path):
    rng = np.random.default_rng(0)
    numbers = rng.permutation(60)
    for k, number in enumerate(numbers):
        save(tmp_path / "images" / f"img_{number:05}.png", k % 3, k)
    write(
        tmp_path / "images.csv",
        ["image_id,filename", *(f"{k},img_{n:05}.png" for k, n in enumerate(numbers))],
    )
    write(tmp_path / "labels.csv", ["image_id,emotion", *(f"{k},{word(k)}" for k in range(60))])
    train = load_competition(tmp_path).train
    assert [WORDS[level] for level in levels(train.images)] == [
        ("fear", "happy", "sad")[label] for label in train.labels
    ]


@pytest.mark.parametrize("column", ["valid", "is_face_valid", "evaluator_1", "public_figure", "private"])
def test_yes_and_no_about_a_face_do_not_divide_the_data(tmp_path, column):
    images(tmp_path, 60)
    rows = (f"{k:03}.png,{word(k)},{int(k > 3)}" for k in range(60))
    write(tmp_path / "labels.csv", [f"image,label,{column}", *rows])
    with pytest.raises(DataError, match=f"the column .{column}. .0, 1. may say which rows are"):
        load_competition(tmp_path)
    assert len(load_competition(tmp_path, splits="none").train) >= 50


def test_yes_in_is_valid_divides_the_data(tmp_path):
    images(tmp_path, 60)
    write(
        tmp_path / "labels.csv",
        ["image,label,is_valid", *(f"{k:03}.png,{word(k)},{k > 44}" for k in range(60))],
    )
    competition = load_competition(tmp_path)
    assert (len(competition.train), len(competition.valid)) == (45, 15)


@pytest.mark.parametrize("columns", ["x1,y1,x2,y2", "left,top,width,height", "left,top,right,bottom", "bbox"])
def test_several_faces_of_one_photo_are_no_votes(tmp_path, columns):
    images(tmp_path, 30)
    n = columns.count(",") + 1
    rows = [f"{k:03}.png,{word(k)}," + ",".join([str(k + s)] * n) for k in range(30) for s in range(2)]
    write(tmp_path / "faces.csv", [f"image,label,{columns}", *rows])
    with pytest.raises(DataError, match="listed several times with different boxes"):
        load_competition(tmp_path)


def test_a_table_beside_train_whose_name_says_nothing(tmp_path):
    images(tmp_path, 60)
    write(tmp_path / "train.csv", ["image,label", *(f"{k:03}.png,{word(k)}" for k in range(40))])
    write(tmp_path / "baseline.csv", ["image,label", *(f"{k:03}.png,happy" for k in range(40, 60))])
    with pytest.raises(DataError, match="baseline.csv beside train.csv: is it the test, or for training"):
        load_competition(tmp_path)
    assert len(load_competition(tmp_path, splits="train=train, test=baseline").test) == 20
    (tmp_path / "baseline.csv").rename(tmp_path / "sample_submission.csv")
    assert len(load_competition(tmp_path).test) == 20


@pytest.mark.parametrize("below", ["", "train/"])
def test_the_same_faces_in_two_folders(tmp_path, below):
    for folder in ("raw", "aligned"):
        for k in range(60):
            save(tmp_path / folder / below / word(k) / f"{k}.png", k % 3, k + 100 * (folder == "raw"))
    with pytest.raises(DataError, match="aligned and .*raw hold 60 files of the same names"):
        load_competition(tmp_path)


def test_files_of_the_same_names_in_folders_for_men_and_women(tmp_path):
    for sex in ("male", "female"):
        for k in range(60):
            save(tmp_path / sex / word(k) / f"{k}.png", k % 3, k + 100 * (sex == "male"))
    competition = load_competition(tmp_path)
    assert len(competition.train) + len(competition.valid) == 120


@pytest.mark.parametrize("person", ["Dev", "public"])
def test_a_person_or_place_that_is_called_as_a_split(tmp_path, person):
    for who in ("Ann", person, "Eva"):
        for k in range(30):
            save(tmp_path / who / word(k) / f"{who}{k}.png", k % 3, k)
    competition = load_competition(tmp_path)
    assert len(competition.train) + len(competition.valid) == 90 and competition.test is None


def answers(competition, path):
    """The submission for perfect predictions: the words of the labels by their levels."""
    probs = np.zeros((len(competition.test), 3), np.float32)
    names = [competition.class_names.index(WORDS[level]) for level in levels(competition.test.images)]
    probs[np.arange(len(names)), names] = 1
    return write_submission(competition, probs, path).read_text().splitlines()[1:]


@pytest.mark.parametrize("options", [{}, {"columns": "id=image"}])
def test_ids_called_as_the_column_of_images_are_not_row_numbers(tmp_path, options):
    images(tmp_path, 60)
    write(tmp_path / "train.csv", ["image,label", *(f"{k:03}.png,{word(k)}" for k in range(40))])
    order = np.random.default_rng(0).permutation(20)
    write(tmp_path / "test.csv", ["row_id,image", *(f"{r},{40 + k:03}.png" for r, k in enumerate(order))])
    named = "image" if not options else "file"
    write(tmp_path / "sample_submission.csv", [f"{named},label", *(f"{40 + k:03},happy" for k in range(20))])
    told = answers(load_competition(tmp_path, **options), tmp_path / "s.csv")
    assert told == [f"{40 + k:03},{word(40 + k)}" for k in range(20)]


@pytest.mark.parametrize(("mark", "numbers"), [("NaN", True), ("NaN", False), ("TBD", False)])
def test_a_word_for_an_empty_cell_is_no_class(tmp_path, mark, numbers):
    labels = [f"{k % 3}.0" if numbers else word(k) for k in range(45)] + [mark] * 15
    pixel_rows(tmp_path / "data.csv", labels)
    competition = load_competition(tmp_path)
    assert len(competition.class_names) == 3 and len(competition.test) == 15
    assert not numbers or competition.label_values == (0, 1, 2)


def test_answers_of_a_sample_that_are_no_classes(tmp_path):
    images(tmp_path, 60)
    write(tmp_path / "train.csv", ["image,label", *(f"{k:03}.png,{word(k)}" for k in range(40))])
    write(tmp_path / "test.csv", ["image", *(f"{k:03}.png" for k in range(40, 60))])
    rows = (f"{k:03}.png,{('feliz', 'triste')[k % 2]}" for k in range(40, 60))
    write(tmp_path / "sample_submission.csv", ["image,label", *rows])
    with pytest.raises(DataError, match="answers 'feliz', 'triste', which are none of the classes"):
        load_competition(tmp_path)


def test_labels_of_the_validation_images_elsewhere(tmp_path):
    for k in range(60):
        save(tmp_path / "train" / word(k) / f"{k}.png", k % 3, k)
    images(tmp_path, 15, "val/v{:02}.png")
    write(tmp_path / "val_labels.csv", ["image,label", *(f"v{k:02}.png,{word(k)}" for k in range(15))])
    with pytest.raises(DataError, match="labels of the validation images seem to be in the column .label."):
        load_competition(tmp_path)


def test_labels_for_training_whose_ids_the_test_has_too(tmp_path):
    for name, n in (("train", 60), ("test", 20)):
        rows = (f"{k},{pixels((k + (name == 'test')) % 3, k)}" for k in range(n))
        write(tmp_path / f"{name}.csv", ["id,pixels", *rows])
    write(tmp_path / "labels.csv", ["id,label", *(f"{k},{word(k)}" for k in range(60))])
    competition = load_competition(tmp_path)
    assert competition.test.labels is None and len(competition.test) == 20


def test_pixel_columns_in_the_order_of_text(tmp_path):
    order = sorted(range(48 * 48), key=str)
    rows = (",".join([word(k), *map(str, face(k % 3, k).ravel()[order])]) for k in range(60))
    write(tmp_path / "train.csv", [",".join(["label", *(f"pixel_{i}" for i in order)]), *rows])
    train = load_competition(tmp_path).train
    wanted = {face(k % 3, k).tobytes() for k in range(60)}
    assert {image.tobytes() for image in train.images} <= wanted


def test_colours_in_columns_of_their_own_are_refused(tmp_path):
    planes = [f"{c}{i}" for c in "rgb" for i in range(24 * 24)]
    rows = (",".join([word(k), *map(str, np.tile(face(k % 3, k, 24).ravel(), 3))]) for k in range(30))
    write(tmp_path / "train.csv", [",".join(["label", *planes]), *rows])
    with pytest.raises(DataError, match="like .r#. and those like .g#. are 576 each"):
        load_competition(tmp_path)


def test_a_folder_of_unlabelled_images_is_no_class(tmp_path):
    for k in range(60):
        save(tmp_path / "train" / word(k) / f"{k}.png", k % 3, k)
        save(tmp_path / "train" / "unlabeled" / f"u{k}.png", k % 3, k + 100)
    assert len(load_competition(tmp_path).class_names) == 3


def test_labels_that_name_several_expressions(tmp_path):
    pixel_rows(tmp_path / "train.csv", [word(k) if k % 10 else "happy|sad" for k in range(60)])
    with pytest.raises(DataError, match="6 of 60 labels name several expressions .such as 'happy|sad'"):
        load_competition(tmp_path)


@pytest.mark.parametrize(("yes", "no"), [("1.0", "0.0"), ("0,7", "0,15")])
def test_dummies_and_shares_as_decimal_numbers(tmp_path, yes, no):
    images(tmp_path, 60)
    rows = (";".join([f"{k:03}.png", *(yes if k % 3 == c else no for c in range(3))]) for k in range(60))
    names = ["emotion_happy", "emotion_sad", "emotion_fear"] if yes == "1.0" else WORDS
    write(tmp_path / "labels.csv", [";".join(["image", *names]), *rows])
    train = load_competition(tmp_path).train
    assert sorted(set(zip(levels(train.images).tolist(), train.labels.tolist(), strict=True))) == [
        (0, 1),
        (1, 2),
        (2, 0),
    ]


def test_labels_that_are_counted_from_0_and_from_1(tmp_path):
    pixel_rows(tmp_path / "train.csv", [k % 3 for k in range(60)])
    pixel_rows(tmp_path / "val.csv", [k % 3 + 1 for k in range(15)], first=100)
    with pytest.raises(DataError, match="training are 0 to 2 and those for validation 1 to 3"):
        load_competition(tmp_path)


def test_an_array_of_images_whose_name_says_nothing(tmp_path):
    np.save(tmp_path / "X.npy", np.stack([face(k % 3, k) for k in range(60)]))
    np.save(tmp_path / "y.npy", np.arange(60) % 3)
    np.save(tmp_path / "X_sub.npy", np.stack([face(k % 3, k) for k in range(60, 80)]))
    with pytest.raises(DataError, match="X_sub.npy holds 20 images like those of X.npy"):
        load_competition(tmp_path)
    (tmp_path / "X_sub.npy").rename(tmp_path / "X_test.npy")
    assert len(load_competition(tmp_path).test) == 20


@pytest.mark.parametrize(("one", "other"), [("train", "train_clean"), ("test", "test_with_labels")])
def test_the_same_images_in_two_tables_of_one_split(tmp_path, one, other):
    for k, name in enumerate(dict.fromkeys(["train", one, other])):
        first = 0 if "train" in name else 100
        pixel_rows(tmp_path / f"{name}.csv", [word(row + k) for row in range(30)], first)
    with pytest.raises(DataError, match=f"the same 30 images are in {one}.csv and in {other}.csv"):
        load_competition(tmp_path)


@pytest.mark.parametrize("names", [("valid", "test"), ("dev", "testing"), ("public", "private")])
@pytest.mark.parametrize("source", ["tables", "folders", "column"])
def test_a_test_beside_what_is_not_named_for_training(tmp_path, source, names):
    """Both were trained on."""
    folder = "{}/{{}}" if source == "folders" else "images"
    for k in range(60):
        save(tmp_path / folder.format(names[k % 2]).format(word(k)) / f"{k:03}.png", k % 3, k)
    rows = {part: [f"{k:03}.png,{word(k)},{part}" for k in range(n, 60, 2)] for n, part in enumerate(names)}
    if source == "tables":
        for part in names:
            write(tmp_path / f"{part}.csv", ["image,label,set", *rows[part]])
    elif source == "column":
        write(tmp_path / "faces.csv", ["image,label,split", *rows[names[0]], *rows[names[1]]])
    with pytest.raises(DataError, match="and none for training"):
        load_competition(tmp_path, splits=source)
    with pytest.raises(DataError, match="and none for training") as error:
        load_competition(tmp_path)
    first, _, rest = str(error.value).partition("splits='")[2].partition("' trains on the first, splits='")
    assert first == "train={}, test={}".format(*names) and rest.startswith("none'")
    divided = load_competition(tmp_path, splits=first)
    assert (len(divided.train) + len(divided.valid), len(divided.test)) == (30, 30)
    whole = load_competition(tmp_path, splits="none")
    assert len(whole.train) + len(whole.valid) == 60 and whole.test is None


def test_what_is_trained_on_for_want_of_more_is_said(tmp_path):
    images(tmp_path / "one", 60, "test/{}.png")
    write(tmp_path / "one" / "faces.csv", ["image,label", *(f"{k}.png,{word(k)}" for k in range(60))])
    told = load_competition(tmp_path / "one").summary()
    assert "trained on what is named for the test (folders: test): nothing else is there" in told
    assert told == load_competition(tmp_path / "one", splits="folders").summary()
    for k in range(60):
        save(tmp_path / "two" / ("seen" if k % 2 else "unseen") / word(k) / f"{k}.png", k % 3, k)
    told = load_competition(tmp_path / "two").summary()
    way_out = "splits='train=seen, test=unseen'"
    assert f"seen and unseen are trained on together: {way_out} divides them" in told
    assert len(load_competition(tmp_path / "two", splits="train=seen, test=unseen").test) == 30


@pytest.mark.parametrize("form", ["{}_flip", "{}-aug2", "{} (rotated 10)", "bright_{}", "{}_zoom_1.2"])
def test_a_changed_copy_is_not_validated_on_when_its_original_is_trained_on(tmp_path, form):
    """An accuracy on such copies says nothing of new faces."""
    for k in range(60):
        folder = tmp_path / "train" / word(k)
        save(folder / f"{k}.png", k % 3, k)
        if k % 2:
            save(folder / f"{form.format(k)}.png", k % 3, 100 + k)
    save(tmp_path / "train" / word(0) / "no_flip.png", 0, 300)  # of no image that is there
    competition = load_competition(tmp_path)
    names = [
        {re.search(r"\d+|no", name.split("/")[-1])[0] for name in split.ids}
        for split in competition.splits.values()
    ]
    assert not names[0] & names[1] and len(names[0] | names[1]) == 61
    assert "30 changed copies, such as train/" in competition.summary()
    assert "changed copies" not in load_competition(tmp_path, groups="none").summary()


def flagged(folder, **columns):
    """60 images in a table with further columns, each cell by its row."""
    images(folder, 60, "images/{}.png")
    rows = [f"{k}.png,{word(k)}," + ",".join(str(cell(k)) for cell in columns.values()) for k in range(60)]
    write(folder / "faces.csv", [f"image,label,{','.join(columns)}", *rows])
    return folder


@pytest.mark.parametrize(
    ("yes", "no"), [("1.0", "0.0"), ("y", "n"), ("T", "F"), ("x", ""), (1, ""), (1, -1), ("True", "False")]
)
@pytest.mark.parametrize("name", ["is_test", "isTest", "Test", "in_test_set", "held_out"])
def test_a_flag_in_any_spelling_keeps_the_test_from_training(tmp_path, name, yes, no):
    competition = load_competition(flagged(tmp_path, **{name: lambda k: yes if k % 5 == 0 else no}))
    assert {int(re.search(r"\d+", key)[0]) % 5 for key in competition.test.ids} == {0}
    assert len(competition.test) == 12 and len(competition.train) + len(competition.valid) == 48


@pytest.mark.parametrize(
    "names",
    [
        *[("is_valid", "is_test"), ("valid", "test"), ("train", "val", "test"), ("is_train", "is_valid")],
        ("split_train", "split_valid", "split_test"),
    ],
)
def test_flags_together_divide_the_data(tmp_path, names):
    """The rows of the second flag were trained on."""
    own = {"train": (0, 1, 2), "val": (3,), "test": (4,)}
    rows = [next(part for word, part in own.items() if word in name) for name in names]
    cells = {n: (lambda k, part=part: int(k % 5 in part)) for n, part in zip(names, rows, strict=True)}
    competition = load_competition(flagged(tmp_path, **cells))
    for split, part in zip(("train", "valid", "test"), own.values(), strict=True):
        ids = getattr(competition, split).ids
        assert {int(re.search(r"\d+", key)[0]) % 5 for key in ids} == set(part), split


def test_columns_that_contradict_each_other_are_refused(tmp_path):
    rows = {"split": lambda k: "test" if k % 5 == 0 else "train", "fold": lambda k: ["train", "test"][k % 2]}
    flagged(tmp_path, **rows)
    with pytest.raises(DataError, match="image 1 is for training by the column 'fold', and for the test by"):
        load_competition(tmp_path)
    assert len(load_competition(tmp_path, columns="split=split").test) == 12
    assert len(load_competition(tmp_path, columns="split=fold").test) == 30


@pytest.mark.parametrize(("yes", "no"), [("ja", "nein"), ("ok", "")])
def test_a_flag_in_unknown_words_is_refused_and_its_way_out_works(tmp_path, yes, no):
    flagged(tmp_path, is_test=lambda k: yes if k % 5 == 0 else no)
    with pytest.raises(DataError, match=f"says yes is not known: splits='test={yes}'"):
        load_competition(tmp_path)
    assert len(load_competition(tmp_path, splits=f"test={yes}").test) == 12


@pytest.mark.parametrize("form", ["table", "folders"])
def test_a_misspelt_label_of_many_images_is_no_class_of_its_own(tmp_path, form):
    labels = ["hapy" if k % 9 == 0 else word(k) for k in range(60)]
    if form == "table":
        images(tmp_path, 60, "images/{}.png")
        write(
            tmp_path / "faces.csv", ["image,label", *(f"{k}.png,{label}" for k, label in enumerate(labels))]
        )
    else:
        for k, label in enumerate(labels):
            save(tmp_path / "train" / label / f"{k}.png", k % 3, k)
    with pytest.raises(DataError, match="7 labels are 'hapy', which seems to be 'happy' misspelt"):
        load_competition(tmp_path)
    assert load_competition(tmp_path, classes="happy, sad, fear, hapy").class_names.count("hapy") == 1


def test_a_few_misspelt_labels_are_left_out_with_a_warning(tmp_path):
    images(tmp_path, 300, "images/{}.png")
    rows = (f"{k}.png,{'hapy' if k == 9 else word(k)}" for k in range(300))
    write(tmp_path / "faces.csv", ["image,label", *rows])
    told = load_competition(tmp_path).summary()
    assert "WARNING: 1 left out, which cannot be read or have no known label:" in told
    assert "unknown label 'hapy': did you mean 'happy'?" in told


def test_neither_yes_nor_no_in_a_flag_is_left_out(tmp_path):
    flagged(tmp_path, is_test=lambda k: "" if k == 7 else ("True" if k % 5 == 0 else "False"))
    competition = load_competition(tmp_path, allow_rejected=True)
    assert [item.reason for item in competition.rejected] == ["its is_test is empty"]
    assert not any("7.png" in key.split("/")[-1] for key in competition.train.ids if len(key) == 5)


@pytest.mark.parametrize(
    ("column", "words"),
    [
        ("type", ("train", "hidden")),
        ("usage", ("Ignored", "Private")),
        ("subset", ("a", "b", "c", "d", "test")),
    ],
)
def test_words_that_divide_the_data_only_in_part_are_refused(tmp_path, column, words):
    """All rows were trained on, also those named for the test."""
    flagged(tmp_path, **{column: lambda k: words[k % len(words)]})
    with pytest.raises(DataError, match=f"the column '{column}' seems to divide the data") as error:
        load_competition(tmp_path)
    way_out = str(error.value).partition("splits='")[2].partition("'")[0]
    assert len(load_competition(tmp_path, splits=way_out).test) == 60 // len(words)
