"""Layouts that a check might refuse or read in another way, although the data prove what they are; and the
ways out that messages name."""

import pytest
from competitions import levels, pixels, save, write

from fer_utils.competition import DataError
from fer_utils.data.load import load_competition

# What data mean does not depend on the versions of packages; test_layouts.py does.
pytestmark = pytest.mark.once

WORDS = ("fear", "happy", "sad")  # as sorted, so that a label is the level of its image


def word(row):
    return WORDS[row % 3]


def images(root, n, name="images/{:03}.png", first=0):
    for k in range(first, first + n):
        save(root / name.format(k), k % 3, k)


def sizes(competition):
    """The images for training and validation together where that was made here, else of each; of the test."""
    train, valid, test = (getattr(competition, split) for split in ("train", "valid", "test"))
    made = [] if competition.notes[0].startswith("valid split: came") else [len(train) + len(valid)]
    return (*(made or [len(train), len(valid)]), 0 if test is None else len(test))


def fits(competition):
    return competition.train.labels.tolist() == levels(competition.train.images).tolist()


def test_ids_of_train_and_test_that_both_count_from_0(tmp_path):
    images(tmp_path, 40, "train/img_{:03}.png")
    for k in range(60):
        save(tmp_path / f"test/t{k * 7 % 60:03}.png", (k + 1) % 3, 100 + k)
    write(tmp_path / "train.csv", ["image_id,label", *(f"{k},{word(k)}" for k in range(40))])
    rows = (f"{k},test/t{k * 7 % 60:03}.png" for k in range(60))
    write(tmp_path / "test.csv", ["image_id,file_name", *rows])
    competition = load_competition(tmp_path)
    assert sizes(competition) == (40, 60) and fits(competition)


def test_ids_of_the_test_alone(tmp_path):
    for k in range(60):
        save(tmp_path / f"train/p{k * 7 % 60:03}.png", k % 3, k)
    images(tmp_path, 20, "test/{:04}.png")
    rows = (f"{k},p{k * 7 % 60:03}.png,{word(k)}" for k in range(60))
    write(tmp_path / "train.csv", ["id,image,label", *rows])
    write(tmp_path / "test.csv", ["id,age", *(f"{k},{20 + k % 5}" for k in range(20))])
    write(tmp_path / "sample_submission.csv", ["id,label", *(f"{k},happy" for k in range(20))])
    competition = load_competition(tmp_path)
    assert sizes(competition) == (60, 20) and fits(competition)


def test_public_and_private_beside_a_folder_of_images(tmp_path):
    rows = []
    for folder, n in (("images", 60), ("public", 21), ("private", 21)):
        images(tmp_path, n, folder + "/" + folder[1] + "{:03}.png", 100 * len(folder))
        rows += [f"{folder}/{folder[1]}{100 * len(folder) + k:03}.png,{word(k)}" for k in range(n)]
    write(tmp_path / "labels.csv", ["image,label", *rows])
    assert sizes(load_competition(tmp_path)) == (60, 21, 21)


def flagged(root, column, hidden=False):
    images(root, 80)
    labels = ["" if hidden and k >= 45 else word(k) for k in range(60)]
    rows = (f"{k:03}.png,{label},{k >= 45}" for k, label in enumerate(labels))
    write(root / ("labels.csv" if hidden else "train.csv"), [f"image,label,{column}", *rows])


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({"columns": "split=valid"}, (45, 15, 20)),
        ({"splits": "column"}, (45, 15, 20)),
        ({"splits": "tables"}, (60, 20)),
    ],
)
def test_what_a_person_says_of_a_flag_counts(tmp_path, options, found):
    flagged(tmp_path, "valid")
    write(tmp_path / "test.csv", ["image", *(f"{k:03}.png" for k in range(60, 80))])
    with pytest.raises(
        DataError, match="columns='split=valid' says the first, and splits='tables' the second"
    ):
        load_competition(tmp_path)
    assert sizes(load_competition(tmp_path, **options)) == found


def test_labels_that_a_flag_hides_prove_that_it_divides(tmp_path):
    flagged(tmp_path, "private", hidden=True)
    assert sizes(load_competition(tmp_path)) == (45, 15)


def test_classes_whose_files_are_numbered_alike(tmp_path):
    for split, first in (("train", 0), ("test", 100)):
        for level, name in enumerate(("no_pain", "pain")):
            for k in range(25):
                save(tmp_path / split / name / f"{3 * k}.png", level, first + k + 30 * level)
    assert sizes(load_competition(tmp_path)) == (50, 50)


@pytest.mark.parametrize(("step", "is_refused"), [(1, False), (3, True)])
def test_two_folders_whose_files_are_numbered_alike(tmp_path, step, is_refused):
    for folder in ("gallery", "studio"):
        for level, name in enumerate(WORDS):
            for k in range(25):
                save(tmp_path / folder / name / f"{step * k}.png", level, 50 * level + k + len(folder) * 200)
    if is_refused:  # no counts: 0, 3, 6, ... in both
        with pytest.raises(DataError, match="groups='none' reads both"):
            load_competition(tmp_path)
    else:
        assert "if they show the same faces" in load_competition(tmp_path).summary()
    assert sizes(load_competition(tmp_path, groups="none")) == (150, 0)


def test_a_table_without_labels_that_the_sample_asks_for(tmp_path):
    images(tmp_path, 60)
    write(tmp_path / "train.csv", ["image,label", *(f"{k:03}.png,{word(k)}" for k in range(40))])
    write(tmp_path / "query.csv", ["image", *(f"{k:03}.png" for k in range(40, 60))])
    assert sizes(load_competition(tmp_path)) == (40, 20)
    rows = (f"{k:03}.png,happy" for k in range(40, 60))
    write(tmp_path / "sample_submission.csv", ["image,label", *rows])
    assert sizes(load_competition(tmp_path)) == (40, 20)


@pytest.mark.parametrize("column", ["gender", "fold", "n_faces"])
def test_what_is_known_of_validation_images_without_labels(tmp_path, column):
    images(tmp_path, 60)
    train = (f"{k:03}.png,{k % 3},{k // 3 % 2}" for k in range(40))
    write(tmp_path / "train.csv", [f"image,label,{column}", *train])
    write(tmp_path / "val.csv", [f"image,{column}", *(f"{k:03}.png,{k // 3 % 2}" for k in range(40, 60))])
    assert sizes(load_competition(tmp_path)) == (40, 20)


def test_a_person_says_which_of_three_tables_count(tmp_path):
    rows = [f"{k},{pixels(k % 3, k)},{word(k)}" for k in range(60)]
    for name, part in (("train", rows[:40]), ("test", rows[40:]), ("data", rows)):
        write(tmp_path / f"{name}.csv", ["id,pixels,label", *part])
    with pytest.raises(DataError, match="the same 40 images are in data.csv and in train.csv"):
        load_competition(tmp_path)
    assert sizes(load_competition(tmp_path, splits="train=train, test=test")) == (40, 20)


def test_a_row_that_is_there_twice_with_its_box(tmp_path):
    images(tmp_path, 60)
    rows = [f'{k:03}.png,{word(k)},"[0, 0, 48, 48]"' for k in range(60)]
    write(tmp_path / "labels.csv", ["image,label,bbox", *rows, rows[5]])
    assert sizes(load_competition(tmp_path)) == (60, 0)


@pytest.mark.parametrize("examples", [("angry", "disgust", "happy"), ("emotion1", "emotion2")])
def test_examples_in_a_sample(tmp_path, examples):
    for k in range(40):
        save(tmp_path / "train" / word(k) / f"a{k}.png", k % 3, k)
    images(tmp_path, 20, "test/b{:02}.png")
    rows = (f"b{k:02}.png,{examples[k % len(examples)]}" for k in range(20))
    write(tmp_path / "sample_submission.csv", ["image,label", *rows])
    assert sizes(load_competition(tmp_path)) == (40, 20)


@pytest.mark.parametrize("in_folders", [True, False])
def test_classes_of_two_expressions(tmp_path, in_folders):
    names = ("happy", "happy+surprise", "surprise")
    for k in range(60):
        save(tmp_path / (names[k % 3] if in_folders else "images") / f"{k}.png", k % 3, k)
    if not in_folders:
        write(tmp_path / "labels.csv", ["image,label", *(f"{k}.png,{names[k % 3]}" for k in range(60))])
        with pytest.raises(DataError, match="classes= with the names of all classes says so"):
            load_competition(tmp_path)
    options = {} if in_folders else {"classes": ", ".join(names)}
    assert load_competition(tmp_path, **options).class_names == names


def test_names_that_do_not_count(tmp_path):
    for k in range(40):
        save(tmp_path / "train" / word(k) / f"a{k}.png", k % 3, k)
    for k, name in enumerate(("Ann", "Bob", "Zoe", "abe", "eve", "ida")):
        save(tmp_path / "test" / f"{name}.png", k % 3, 100 + k)
    write(tmp_path / "sample_submission.csv", ["label", *["happy"] * 6])
    assert sizes(load_competition(tmp_path)) == (40, 6)


def test_crops_beside_an_image_named_as_their_class_are_no_copies_of_it(tmp_path):
    for k in range(60):
        save(tmp_path / word(k) / f"{word(k)}_crop_{k:03}.png", k % 3, k)
    for k in range(3):
        save(tmp_path / word(k) / f"{word(k)}.png", k, 100 + k)
    competition = load_competition(tmp_path)
    assert sizes(competition) == (63, 0) and "changed copies" not in competition.summary()


def test_copies_that_are_not_used_change_no_split(tmp_path):
    images(tmp_path, 60)
    write(tmp_path / "labels.csv", ["image,label", *(f"{k:03}.png,{word(k)}" for k in range(60))])
    before = load_competition(tmp_path).valid.ids.tolist()
    images(tmp_path, 30, "images/{:03}_flip.png")
    after = load_competition(tmp_path)
    assert after.valid.ids.tolist() == before and "changed copies" not in after.summary()


def test_tables_of_one_name_in_the_folders_of_their_splits(tmp_path):
    for split, first, n in (("valid", 0, 40), ("test", 40, 20)):
        images(tmp_path, n, split + "/{:03}.png", first)
        rows = (f"{k:03}.png,{word(k)}" for k in range(first, first + n))
        write(tmp_path / split / "labels.csv", ["image,label", *rows])
    with pytest.raises(DataError, match="splits='train=valid, test=test' trains on the first"):
        load_competition(tmp_path)
    assert sizes(load_competition(tmp_path, splits="train=valid, test=test")) == (40, 20)


def test_two_folders_beside_a_test_or_within_persons_are_no_splits(tmp_path):
    for k in range(96):
        split = "train" if k < 64 else "test"
        save(tmp_path / "a" / split / ("male" if k % 2 else "female") / word(k) / f"{k:03}.png", k % 3, k)
        kind = "posed" if k % 2 else "spontaneous"
        save(tmp_path / "b" / f"s{k // 12:02}" / kind / word(k // 2) / f"{k:03}.png", k // 2 % 3, k)
    assert "trained on together" not in load_competition(tmp_path / "a").summary()
    told = load_competition(tmp_path / "b").summary()
    assert "if s00, s01, s02, ... are persons, groups='folder 3'" in told


def test_images_without_labels_are_refused_with_what_to_add(tmp_path):
    for k in range(20):
        save(tmp_path / "faces" / f"{k}.png", k % 3, k)
    with pytest.raises(DataError, match="20 images, and nothing that names their expressions. Put them into"):
        load_competition(tmp_path)


def test_lists_of_persons_and_of_classes_are_no_lists_of_images(tmp_path):
    """Their numbers are also those in the names of some images."""
    for k in range(60):
        save(tmp_path / "faces" / f"Face{k}.png", k % 3, k)
    write(tmp_path / "train.csv", ["filename,expr", *(f"Face{k}.png,{k % 3}" for k in range(45))])
    write(tmp_path / "label_map.csv", ["id,name", "0,happy", "1,sad", "2,fear"])
    write(tmp_path / "persons.csv", ["person,age,gender", "P01,31,female", "P50,44,male"])
    write(
        tmp_path / "sample_submission.csv", ["filename,expr", *(f"Face{k}.png,0" for k in range(59, 44, -1))]
    )
    competition = load_competition(tmp_path)
    assert len(competition.test) == 15 and competition.class_names == ("fear", "happy", "sad")
    assert "lists the same images" not in competition.summary()
