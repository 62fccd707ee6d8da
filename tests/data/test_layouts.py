"""Every layout: recognised, read right to the last pixel and label, plain or packed."""

import shutil
import tarfile
import zipfile

import numpy as np
import pytest
from competitions import (
    COMPETITIONS,
    face,
    fer2013_csv,
    flat_test,
    icml_competition,
    levels,
    pixels,
    save,
    write,
)
from PIL import Image

from fer_utils.competition import FER_CLASSES, DataError
from fer_utils.config import ConfigError
from fer_utils.data.load import load_competition
from fer_utils.data.submission_csv import validate_submission, write_submission


def perfect_probs(competition, names):
    """float [N, C]: the answers that the brightness of the test images tells."""
    classes = [competition.class_names.index(names[level]) for level in levels(competition.test.images)]
    return np.eye(len(competition.class_names))[classes]


@pytest.mark.parametrize("packed", ["folder", "zip", "gztar"])
@pytest.mark.parametrize("name", COMPETITIONS)
def test_layout(tmp_path, name, packed):
    expected = COMPETITIONS[name](tmp_path / "data")
    path = tmp_path / "data"
    if packed != "folder":
        path = shutil.make_archive(tmp_path / "packed", packed, path)
        shutil.rmtree(tmp_path / "data")
    competition = load_competition(path, image_size=48)

    assert competition.layout == expected.layout
    assert set(competition.class_names) == set(expected.names)
    assert not competition.rejected
    n_train, n_valid, n_test = expected.counts
    if n_valid is None:
        assert len(competition.train) + len(competition.valid) == n_train
        assert 0 < len(competition.valid) < n_train / 4
        assert "made here, fold 0 of 10" in competition.notes[0]
    else:
        assert (len(competition.train), len(competition.valid)) == (n_train, n_valid)
        assert "came with the data" in competition.notes[0]
    for split in (competition.train, competition.valid):
        assert split.images.shape[1:] == (1, 48, 48)
        told = [competition.class_names[label] for label in split.labels]
        assert told == [expected.names[level] for level in levels(split.images)]

    if not n_test:
        assert competition.test is None and competition.submission is None
        return
    assert len(competition.test) == n_test
    assert (competition.test.labels is not None) == expected.test_labels
    probs = perfect_probs(competition, expected.names)
    if expected.test_labels:
        assert (competition.test.labels == probs.argmax(1)).all()
    written = write_submission(competition, probs, tmp_path / "submission.csv")
    assert written.read_bytes().decode() == expected.answers
    validate_submission(competition, written)


@pytest.mark.parametrize("name", ["fer2013_csv", "flat_test", "skillbox", "two_pixel_sizes_three_classes"])
def test_archives_inside_a_folder(tmp_path, name):
    """As Kaggle ships them: train.zip and test.zip beside the tables, or everything in one archive."""
    COMPETITIONS[name](tmp_path / "data")
    plain = load_competition(tmp_path / "data")
    for entry in list((tmp_path / "data").iterdir()):
        if entry.is_dir():
            shutil.make_archive(entry, "zip", entry)
            shutil.rmtree(entry)
        elif entry.name == "train.csv":
            with zipfile.ZipFile(f"{entry}.zip", "w") as file:
                file.write(entry, entry.name)
            entry.unlink()
    packed = load_competition(tmp_path / "data")
    assert packed.fingerprint == plain.fingerprint
    assert packed.submission.template.equals(plain.submission.template)


def test_an_archive_in_an_archive(tmp_path):
    fer2013_csv(tmp_path / "data")
    with tarfile.open(tmp_path / "fer2013.tar.gz", "w:gz") as file:
        file.add(tmp_path / "data" / "fer2013", "fer2013")
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as file:
        file.write(tmp_path / "fer2013.tar.gz", "fer2013.tar.gz")
    assert len(load_competition(tmp_path / "all.zip").train) == 28


def test_an_archive_is_left_alone_where_the_folder_is_readable(tmp_path):
    expected = icml_competition(tmp_path)
    (tmp_path / "fer2013.tar.gz").write_bytes(b"no archive at all")
    assert load_competition(tmp_path).layout == expected.layout


def test_the_table_of_all_splits_leads_without_a_sample(tmp_path):
    """torchvision's order; with a sample submission the tables that it belongs to lead."""
    icml_competition(tmp_path)
    with_sample = load_competition(tmp_path)
    assert any("not used: icml_face_data.csv" in note for note in with_sample.notes)
    (tmp_path / "example_submission.csv").unlink()
    without = load_competition(tmp_path)
    assert without.layout == "fer2013.csv" and len(without.test) == 7
    assert any("not used: test.csv, train.csv" in note for note in without.notes)


def test_fer2013_without_its_private_test(tmp_path):
    fer2013_csv(tmp_path)
    table = tmp_path / "fer2013" / "fer2013.csv"
    write(table, [line for line in table.read_text().splitlines() if "PrivateTest" not in line])
    competition = load_competition(table)
    assert competition.test is None and competition.submission is None


def test_part_of_fer2013_without_a_class_keeps_all_seven(tmp_path):
    rows = [f"{label},{pixels(label, n)},Training" for n, label in enumerate([0, 2, 3, 4, 5, 6] * 4)]
    write(tmp_path / "fer2013.csv", ["emotion,pixels,Usage", *rows])
    assert load_competition(tmp_path).class_names == FER_CLASSES


def test_private_rows_beside_a_test_table_are_not_the_test(tmp_path):
    """Labelled PrivateTest rows in train.csv: the test is test.csv, and nothing else sees those rows."""
    COMPETITIONS["train_with_usage"](tmp_path)
    table = tmp_path / "train.csv"
    private = [f"0,{pixels(0, 700 + n)},PrivateTest" for n in range(3)]
    write(table, [*table.read_text().splitlines(), *private])
    competition = load_competition(tmp_path)
    assert len(competition.train) == 28 and len(competition.valid) == 7 and len(competition.test) == 7
    assert competition.test.labels is None
    assert any("test rows of a training table" in note for note in competition.notes)


def test_notes_tell_resizing_colour_and_the_copy_beside(tmp_path):
    COMPETITIONS["jonathanoheix"](tmp_path)
    notes = load_competition(tmp_path, image_size=48).notes
    assert "resized to 48x48: 64x64 (35)" in notes
    assert "saved in a colour format, read as grey: 35 images" in notes
    assert "also there, not used: images/images" in notes


def test_notes_tell_where_folder_and_list_disagree(tmp_path):
    COMPETITIONS["affectnet"](tmp_path)
    notes = load_competition(tmp_path).notes
    assert "folder 1 and label disagree on 1 labels: label was taken" in notes
    assert "also recognised, not used: class folders (layout='class folders')" in notes


def test_notes_tell_images_in_no_list(tmp_path):
    COMPETITIONS["muxspace"](tmp_path)
    assert "left out: 1 images, in no list (such as images/nobody.png)" in load_competition(tmp_path).notes


def test_image_size(tmp_path):
    fer2013_csv(tmp_path / "a")
    flat_test(tmp_path / "b")
    for folder, names in (("a", FER_CLASSES), ("b", tuple(sorted(FER_CLASSES)))):
        competition = load_competition(tmp_path / folder, image_size=32)
        assert competition.train.images.shape[1:] == (1, 32, 32)
        told = [competition.class_names[label] for label in competition.train.labels]
        assert told == [names[level] for level in levels(competition.train.images)]
        assert any("resized" in note for note in competition.notes)


@pytest.mark.parametrize(
    ("sides", "size"), [((48,), 48), ((20,), 32), ((100,), 96), ((300, 224), 96), ((64, 64, 48), 64)]
)
def test_the_images_decide_their_size(tmp_path, sides, size):
    for n in range(30):
        side = sides[n % len(sides)]
        path = tmp_path / "train" / ("happy", "sad")[n % 2] / f"{n}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(face(n % 2, n)).resize((side + 7, side)).save(path)
    competition = load_competition(tmp_path)
    assert competition.image_size == size
    (told,) = [note for note in competition.notes if note.startswith(f"image_size {size}: ")]
    assert ("keeps more detail" in told) == (min(sides) > 96)


def test_what_is_not_square_is_cropped_or_padded(tmp_path):
    """A white bar at the left of a wide image: outside the middle square, inside the padded one."""
    for n in range(20):
        wide = np.full((48, 96), 50 + n, np.uint8)
        wide[:, :10] = 255
        path = tmp_path / "train" / ("happy", "sad")[n % 2] / f"{n}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(wide).save(path)
    crop = load_competition(tmp_path)
    pad = load_competition(tmp_path, aspect="pad")
    assert set(np.unique(crop.train.images)) == set(range(50, 70)) - set(np.unique(crop.valid.images))
    assert "not square, cut to the middle: 20 images" in crop.notes
    assert "not square, padded with grey: 20 images" in pad.notes
    image = pad.train.images[0, 0]
    assert (image[[0, 11, 36, 47]] == 128).all() and image[24, 0] > 240 and 50 <= image[24, 30] < 70
    with pytest.raises(ConfigError, match="did you mean 'pad'"):
        load_competition(tmp_path, aspect="padd")


def test_pixels_are_kept_exactly(tmp_path):
    write(tmp_path / "train.csv", ["label,pixels", *(f"{n % 2},{pixels(n % 2, n)}" for n in range(20))])
    competition = load_competition(tmp_path)
    for split in (competition.train, competition.valid):
        for image, number in zip(split.images, split.ids, strict=True):
            np.testing.assert_array_equal(image[0], face(int(number) % 2, int(number)))


# ---------------------------------------------------------------- what cannot be read


BAD_ROWS = {
    "1 2 3": "3 pixels instead of 2304",
    "": "no pixels instead of 2304",
    "x" + " 1" * 2303: "a pixel is not a whole number",
    "256" + " 1" * 2303: "a pixel is outside 0..255 (1..256)",
    "-1" + " 1" * 2303: "a pixel is outside 0..255 (-1..1)",
    "0.5" + " 1" * 2303: "a pixel is not a whole number",
    "nan" + " 1" * 2303: "a pixel is not a whole number",
}


@pytest.mark.parametrize("bad", BAD_ROWS)
def test_a_bad_row_is_rejected_by_name(tmp_path, bad):
    rows = [f"{n % 7},{pixels(n % 7, n)}" for n in range(140)]
    rows[15] = f"3,{bad}"
    write(tmp_path / "train.csv", ["emotion,pixels", *rows])
    competition = load_competition(tmp_path)
    (rejected,) = competition.rejected
    assert (rejected.place, rejected.reason) == ("train.csv row 17", BAD_ROWS[bad])
    assert len(competition.train) + len(competition.valid) == 139
    told = [competition.class_names[label] for label in competition.train.labels]
    assert told == [FER_CLASSES[level] for level in levels(competition.train.images)]
    assert "WARNING: 1 left out" in competition.summary()


@pytest.mark.parametrize(
    "label, reason", [("", "no label"), ("99", "unknown label '99'"), ("x", "unknown label 'x'")]
)
def test_a_bad_label_is_rejected_by_name(tmp_path, label, reason):
    rows = [f"{n % 7},{pixels(n % 7, n)}" for n in range(140)]
    rows[15] = f"{label},{pixels(0, 15)}"
    write(tmp_path / "train.csv", ["emotion,pixels", *rows])
    competition = load_competition(tmp_path)
    assert [(item.place, item.reason) for item in competition.rejected] == [("train.csv row 17", reason)]
    assert competition.class_names == FER_CLASSES


def test_an_unknown_usage_is_rejected_by_name(tmp_path):
    rows = [f"{n % 7},{pixels(n % 7, n)},Training" for n in range(140)]
    rows[15] = rows[15].replace("Training", "?")
    write(tmp_path / "fer2013.csv", ["emotion,pixels,Usage", *rows])
    assert load_competition(tmp_path).rejected[0].place == "fer2013.csv row 17"


def test_more_than_one_per_cent_is_an_error_unless_allowed(tmp_path):
    rows = [f"{n % 7},{pixels(n % 7, n) if n % 10 else '1 2'}" for n in range(100)]
    write(tmp_path / "train.csv", ["emotion,pixels", *rows])
    with pytest.raises(
        DataError, match=r"(?s)10 of about 100 .*allow_rejected=True.*train.csv row 2: 2 pixels"
    ):
        load_competition(tmp_path)
    assert len(load_competition(tmp_path, allow_rejected=True).rejected) == 10


def test_a_test_row_that_cannot_be_read_is_answered_for(tmp_path):
    COMPETITIONS["strongemorec"](tmp_path)
    table = tmp_path / "data" / "test.csv"
    lines = table.read_text().splitlines()
    write(table, [*lines[:3], "1 2 3", *lines[4:]])
    competition = load_competition(tmp_path, allow_rejected=True)
    assert len(competition.test) == 6 and (competition.test.images[2] == 128).all()
    assert (
        competition.rejected[0].place == "test.csv row 4" and "grey image" in competition.rejected[0].reason
    )
    write_submission(competition, np.eye(7)[:6], tmp_path / "out.csv")


@pytest.mark.parametrize("broken", [b"", b"no image", None], ids=["empty", "text", "truncated"])
def test_a_broken_image_is_rejected_by_name(tmp_path, broken):
    for n in range(120):
        save(tmp_path / "train" / FER_CLASSES[n % 7] / f"{n}.png", n % 7, n)
    save(tmp_path / "test" / "7.png", 0, 900)
    victims = [tmp_path / "train" / "happy" / "10.png", tmp_path / "test" / "7.png"]
    for path in victims:
        path.write_bytes(path.read_bytes()[:900] if broken is None else broken)
    competition = load_competition(tmp_path, allow_rejected=True)
    assert [item.place for item in competition.rejected] == ["train/happy/10.png", "test/7.png"]
    assert str(tmp_path) not in competition.rejected[0].reason
    assert len(competition.train) + len(competition.valid) == 119
    assert (competition.test.images == 128).all()


def test_an_image_that_a_list_names_but_nobody_has(tmp_path):
    for n in range(120):
        save(tmp_path / "images" / f"p{n}.png", n % 2, n)
    rows = [f"p{n}.png,{'happy' if n % 2 else 'sad'}" for n in range(121)]
    write(tmp_path / "train.csv", ["image,emotion", *rows])
    (rejected,) = load_competition(tmp_path).rejected
    assert (rejected.place, rejected.reason) == ("train.csv row 122", "no such image file (p120.png)")


def test_sixteen_bit_and_paletted_images(tmp_path):
    from PIL import Image

    for n in range(20):
        path = tmp_path / "train" / FER_CLASSES[n % 2] / f"{n}.png"
        save(path, n % 2, n, mode="P" if n % 4 < 2 else "L")
        if n % 4 >= 2:
            Image.fromarray(face(n % 2, n).astype(np.uint16) * 257).save(path)
    competition = load_competition(tmp_path)
    assert not competition.rejected
    assert (levels(competition.train.images) == competition.train.labels).all()


@pytest.mark.parametrize(
    "lines, message",
    [
        ([], "no known layout"),
        (["emotion,picture", "1,2"], "train.csv: columns emotion, picture"),
        (["file,emotion", "1.png,sad", "2.png,happy"], "'file' lists images .* give the folder that holds"),
        (["emotion,pixels", "1,"], "train.csv holds no pixels"),
        (["emotion,pixels"], "train.csv holds no pixels"),
        (["emotion,pixels", "1,2"], "1 pixels in a row are no square image"),
        (["emotion,pixels", "1,1 2 3", "2,1 2 3"], "3 pixels in a row are no square image"),
    ],
)
def test_a_table_that_is_no_competition(tmp_path, lines, message):
    write(tmp_path / "train.csv", lines)
    with pytest.raises(DataError, match=message):
        load_competition(tmp_path)


def test_a_table_that_is_torn_names_the_file(tmp_path):
    COMPETITIONS["ntu_spring"](tmp_path)
    table = tmp_path / "train.csv"
    lines = table.read_text().splitlines()
    write(table, [*lines[:5], '3,"1 2 3', *lines[6:]])
    with pytest.raises(DataError, match="train.csv"):
        load_competition(tmp_path)


def test_an_unknown_layout_lists_what_was_seen(tmp_path):
    write(tmp_path / "notes" / "a" / "todo.csv", ["what,when", "x,y"])
    for n in range(9):
        write(tmp_path / "notes" / f"file{n}.dat", ["x"])
    with pytest.raises(DataError) as caught:
        load_competition(tmp_path)
    message = str(caught.value)
    assert "  notes/\n" in message and "notes/file0.dat" in message and "... (10)" in message
    assert "notes/a/todo.csv: columns what, when" in message
    assert "fer2013.csv: a table with columns emotion, pixels and Usage" in message
