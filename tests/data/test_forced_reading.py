"""What a person may force: the layout and the columns; and what the votes of several people become."""

import numpy as np
import pandas as pd
import pytest
from competitions import COMPETITIONS, fer_plus_beside_fer2013, pixels, save, write

from fer_utils.competition import FER_CLASSES, DataError
from fer_utils.config import ConfigError
from fer_utils.data.files import cache
from fer_utils.data.load import load_competition, parse_columns

# What data mean does not depend on the versions of packages; test_layouts.py does.
pytestmark = pytest.mark.once


def test_another_layout_than_the_preferred_one(tmp_path):
    COMPETITIONS["affectnet"](tmp_path)
    preferred = load_competition(tmp_path)
    forced = load_competition(tmp_path, layout="class folders")
    assert (preferred.layout, forced.layout) == ("image list", "class folders")
    assert "also recognised, not used: class folders (layout='class folders')" in preferred.notes
    assert len(forced.train) + len(forced.valid) == 33


def test_fer2013_without_the_votes_beside_it(tmp_path):
    fer_plus_beside_fer2013(tmp_path)
    forced = load_competition(tmp_path, layout="fer2013.csv")
    assert (
        forced.layout == "fer2013.csv"
        and forced.train.labels[:8].tolist() == [0] * 7 + [1]
        and forced.train.votes is None
    )


def test_a_layout_that_is_not_there_says_what_is(tmp_path):
    COMPETITIONS["flat_test"](tmp_path)
    with pytest.raises(DataError, match=r"not the layout 'arrays'. Seen:") as error:
        load_competition(tmp_path, layout="arrays")
    assert "train/angry/" in str(error.value) and "x_train.npy" in str(error.value)


def test_an_unknown_layout_is_refused_with_the_nearest(tmp_path):
    COMPETITIONS["flat_test"](tmp_path)
    with pytest.raises(ConfigError, match="did you mean 'class folders'"):
        load_competition(tmp_path, layout="class folder")


@pytest.fixture
def odd_names(tmp_path):
    """A table whose columns have names that nobody could guess, beside a misleading one."""
    rows = [f"x{n},{n % 3},{('happy', 'sad', 'fear')[n % 3]},{pixels(n % 3, n)}" for n in range(30)]
    write(tmp_path / "train.csv", ["who,class,Mood,grey values", *rows])
    return tmp_path


@pytest.mark.parametrize(
    "form",
    ["label=Mood, pixels=grey values, id=who", {"label": "mood", "pixels": "grey values", "id": "WHO"}],
)
def test_columns_by_name(odd_names, form):
    competition = load_competition(odd_names, columns=form)
    assert competition.class_names == ("fear", "happy", "sad")
    assert {*competition.train.ids, *competition.valid.ids} == {f"x{n}" for n in range(30)}


def test_columns_of_a_list_of_images(tmp_path):
    for n in range(20):
        save(tmp_path / "pictures" / f"{n}.png", n % 2, n)
    rows = [f"{n},{('joy', 'sad')[n % 2]},{n}.png" for n in range(20)]
    write(tmp_path / "list.csv", ["id,what,where", *rows])
    competition = load_competition(tmp_path, columns="label=what,image=where")
    assert competition.layout == "image list" and competition.class_names == ("happy", "sad")


def test_a_column_that_is_not_there_says_which_are(odd_names):
    with pytest.raises(DataError, match="no table has a column 'emotoin'.*train.csv: who, class, mood"):
        load_competition(odd_names, columns="label=emotoin")


@pytest.mark.parametrize("text", ["label", "label=", "=mood", "colour=red"])
def test_columns_in_another_form(text):
    with pytest.raises(DataError, match="columns"):
        parse_columns(text)


# ---------------------------------------------------------------- votes


def test_votes_are_kept_in_the_order_of_the_classes(tmp_path):
    fer_plus_beside_fer2013(tmp_path)
    competition = load_competition(tmp_path)
    votes = competition.train.votes
    assert votes.shape == (32, 8) and votes.dtype == np.float32
    assert (votes.argmax(1) == competition.train.labels).all()
    assert (votes.max(1) == 8).all() and (votes.sum(1) == 9).all()  # the one for unknown is not counted
    assert any(
        "left out: 1 images, most votes say no face or unknown, or they tie" in n for n in competition.notes
    )


def test_ties_and_majorities_for_unknown_are_left_out_and_counted(tmp_path):
    for n in range(24):
        save(tmp_path / "train" / f"{n}.png", n % 2, n)
    rows = [f"{n}.png,{(n + 1) % 2 * 5},{n % 2 * 5},0,0" for n in range(22)]
    write(tmp_path / "list.csv", ["image,happy,sad,fear,unknown", *rows, "22.png,3,3,0,0", "23.png,1,0,1,4"])
    competition = load_competition(tmp_path)
    assert len(competition.train) + len(competition.valid) == 22 and not competition.rejected
    assert any(
        "left out: 2 images, most votes say no face or unknown, or they tie" in n for n in competition.notes
    )


def test_votes_for_other_rows_are_refused(tmp_path):
    fer_plus_beside_fer2013(tmp_path)
    table = pd.read_csv(tmp_path / "fer2013new.csv", dtype=str, na_filter=False)
    table[:-3].to_csv(tmp_path / "fer2013new.csv", index=False)
    with pytest.raises(DataError, match="votes for 46 images, but fer2013.csv holds 49"):
        load_competition(tmp_path)


def test_votes_that_are_no_counts_are_refused_by_name(tmp_path):
    for n in range(6):
        save(tmp_path / f"{n}.png", n % 3, n)
    rows = [f"{n}.png,1,{'many' if n == 4 else 0},0" for n in range(6)]
    write(tmp_path / "list.csv", ["image,happy,sad,fear", *rows])
    with pytest.raises(DataError, match="list.csv row 6: sad holds 'many', which is not a count"):
        load_competition(tmp_path)


# ---------------------------------------------------------------- cleaning


def test_clean_leaves_out_repeats_conflicts_and_blank_images(tmp_path):
    def text(image):
        return " ".join(map(str, image.ravel()))

    faces = np.random.default_rng(0).integers(0, 256, (35, 48, 48))
    rows = [f"{n % 7},{text(faces[n])},Training" for n in range(35)]
    rows += [f"0,{text(faces[0])},Training", f"2,{text(faces[1])},Training"]  # a repeat and a conflict
    rows += [f"3,{text(np.full((48, 48), 9))},Training"]
    rows += [f"{n},{text(faces[n])},PublicTest" for n in range(7)]
    write(tmp_path / "fer2013.csv", ["emotion,pixels,Usage", *rows])
    whole, clean = load_competition(tmp_path), load_competition(tmp_path, clean=True)
    assert (len(whole.train), len(clean.train)) == (38, 34)
    assert clean.train.ids.tolist() == [str(n) for n in range(35) if n != 1]
    assert len(clean.valid) == len(whole.valid) == 7 and clean.class_names == FER_CLASSES
    assert clean.notes[-1] == (
        "clean: left out of train 1 repeats, 2 images labelled in conflict and 1 blank ones"
    )


# --------------------------------------------------------------- classes, splits and persons as a person says


def numbered_list(root, split=("A", "B", "C")):
    """A list whose numbers nothing names, and whose splits have words that nobody knows."""
    rows = []
    for n in range(60):
        save(root / "images" / f"{n:03}.png", n % 3, n)
        rows.append(f"{n:03}.png,{n % 3},{split[0 if n < 40 else 1 if n < 50 else 2]},user{n // 4}")
    write(root / "list.csv", ["image,label,split,user", *rows])
    return root


def test_unknown_words_for_splits_are_refused_until_somebody_says_them(tmp_path):
    numbered_list(tmp_path)
    with pytest.raises(
        DataError, match="the column 'split' seems to divide.*splits='train=A, valid=B, test=C'"
    ):
        load_competition(tmp_path)
    competition = load_competition(tmp_path, splits="train=A, valid=split B, test=C")
    assert [len(split) for split in competition.splits.values()] == [40, 10, 10]
    assert competition.test.ids.tolist() == [f"{n:03}.png" for n in range(50, 60)]
    whole = load_competition(tmp_path, splits="none")
    assert whole.test is None and len(whole.train) + len(whole.valid) == 60
    with pytest.raises(DataError, match="no table, folder or column holds 'd', which should be valid"):
        load_competition(tmp_path, splits="train=A, valid=D")
    with pytest.raises(DataError, match="splits must be auto, none, tables"):
        load_competition(tmp_path, splits="train:A")


def test_classes_are_named_in_the_order_of_their_numbers(tmp_path):
    numbered_list(tmp_path, ("train", "valid", "test"))
    plain = load_competition(tmp_path)
    assert plain.class_names == ("class 0", "class 1", "class 2")
    assert any("classes='word for 0, word for 1, ...' names them" in note for note in plain.notes)
    (tmp_path / "names.txt").write_text("glad\nangry\nbored\n")
    for said in ("glad, angry, bored", "2=bored, 0=glad, 1=angry", str(tmp_path / "names.txt")):
        assert load_competition(tmp_path, classes=said).class_names == ("glad", "angry", "bored")
    for wrong, message in (
        ("glad, angry", "names 2 classes"),
        ("0=glad, 1=sad", "no class for the number 2"),
    ):
        with pytest.raises(DataError, match=message):
            load_competition(tmp_path, classes=wrong)


def test_classes_from_a_file_outside_the_data(tmp_path, monkeypatch):
    """Found from the working directory, counted from 1 where the data are, and read again when it changes."""
    monkeypatch.setenv("FER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(cache, "SETTLED_SECONDS", -1e9)
    monkeypatch.chdir(tmp_path)
    rows = [f"{k % 3 + 1},{pixels(k % 3, k)}" for k in range(60)]
    write(tmp_path / "data" / "train.csv", ["label,pixels", *rows])
    for words in ("glad angry bored", "tired angry bored"):
        (tmp_path / "names.txt").write_text("\n".join(words.split()))
        competition = load_competition("data", classes="names.txt")
        assert competition.class_names == tuple(words.split())
        assert competition.label_values == (1, 2, 3)
    with pytest.raises(DataError, match="no file or folder 'name.txt'"):
        load_competition("data", classes="name.txt")
    (tmp_path / "names.txt").write_text("1,2,3\n")
    with pytest.raises(DataError, match="names.txt lists no class names"):
        load_competition("data", classes="names.txt")


def test_a_person_stays_on_one_side(tmp_path):
    numbered_list(tmp_path, ("train", "train", "test"))
    competition = load_competition(tmp_path)
    assert any("persons: column 'user'" in note for note in competition.notes)
    assert not set(competition.train.groups) & set(competition.valid.groups)
    assert load_competition(tmp_path, groups="none").train.groups is None
    with pytest.raises(DataError, match="there is no column or folder level 'actor'"):
        load_competition(tmp_path, groups="actor")


def test_folders_that_are_persons(tmp_path):
    for n in range(72):
        save(tmp_path / f"p{n // 9}" / ("happy", "sad", "fear")[n % 3] / f"{n}.png", n % 3, n)
    competition = load_competition(tmp_path, groups="folder 2")
    assert competition.class_names == ("fear", "happy", "sad")
    assert not set(competition.train.groups) & set(competition.valid.groups)


def test_two_columns_that_could_be_the_label(tmp_path):
    rows = []
    for n in range(40):
        save(tmp_path / "images" / f"{n:03}.png", n % 2, n)
        rows.append(f"{n:03}.png,{('alert', 'tired')[n % 2]},{('dim', 'bright')[n // 20]}")
    write(tmp_path / "list.csv", ["image,tag1,tag2", *rows])
    with pytest.raises(DataError, match="'tag1' and 'tag2' could both be the label.*columns=\"label=tag1\""):
        load_competition(tmp_path)
    assert load_competition(tmp_path, columns="label=tag1").class_names == ("alert", "tired")


def test_columns_that_mostly_agree_are_not_one_label(tmp_path):
    rows = []
    for n in range(40):
        save(tmp_path / "images" / f"{n:03}.png", n % 2, n)
        rows.append(f"{n:03}.png,{('alert', 'tired')[n % 2]},{('dim', 'bright')[n % 2 ^ (n % 5 == 0)]}")
    write(tmp_path / "list.csv", ["image,tag1,tag2", *rows])
    with pytest.raises(DataError, match="'tag1' and 'tag2' could both be the label"):
        load_competition(tmp_path)


def test_folders_and_a_column_that_contradict_each_other(tmp_path):
    rows = []
    for n in range(40):
        folder, said = ("train", "test")[n >= 30], ("train", "test")[n % 4 == 0]
        save(tmp_path / folder / f"{n:03}.png", n % 2, n)
        rows.append(f"{folder}/{n:03}.png,{('happy', 'sad')[n % 2]},{said}")
    write(tmp_path / "list.csv", ["image,label,split", *rows])
    with pytest.raises(DataError, match="splits='folders' or splits='column' decides"):
        load_competition(tmp_path)
    assert len(load_competition(tmp_path, splits="folders").test) == 10
    assert load_competition(tmp_path, splits="column").test.ids[1] == "train/004.png"


def test_files_that_name_the_classes_differently(tmp_path):
    for n in range(30):
        save(tmp_path / "train" / str(n % 3) / f"{n}.png", n % 3, n)
    write(tmp_path / "classes.txt", ["happy", "sad", "fear"])
    write(tmp_path / "labels.json", ['{"0": "sad", "1": "happy", "2": "fear"}'])
    with pytest.raises(
        DataError, match="classes.txt says that 0 is 'happy', and labels.json that it is 'sad'"
    ):
        load_competition(tmp_path)


def test_rows_that_several_people_labelled_are_votes(tmp_path):
    rows = []
    for n in range(24):
        save(tmp_path / "images" / f"{n}.png", n % 2, n)
        rows += [f"{n}.png,{k},{('happy', 'sad')[(n + (k == 2 and n % 5 == 0)) % 2]}" for k in range(3)]
    write(tmp_path / "list.csv", ["image,annotator,emotion", *rows])
    competition = load_competition(tmp_path)
    assert len(competition.train) + len(competition.valid) == 24 and not competition.rejected
    assert set(competition.train.votes.max(1)) == {2, 3}
    assert (competition.train.votes.argmax(1) == competition.train.labels).all()
