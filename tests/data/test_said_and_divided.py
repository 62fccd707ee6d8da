"""What a person says of splits and classes, and how persons and rare classes are divided."""

import subprocess
import sys

import numpy as np
import pytest

from fer_utils.competition import DataError
from fer_utils.config import Config, ConfigError
from fer_utils.data.files import cache
from fer_utils.data.load import load_competition
from fer_utils.data.submission_csv import validate_submission, write_submission
from fer_utils.files import REPOSITORY
from fer_utils.run import launch
from tests.competitions import FER_CLASSES, pixels, save, write

# What data mean does not depend on the versions of packages; test_layouts.py does.
pytestmark = pytest.mark.once


def class_folders(root, n, words=FER_CLASSES):
    for k, word in enumerate(words):
        for i in range(n):
            save(root / word / f"{word}{i}.png", k, i)


def pixel_table(path, rows, *more):
    """emotion and pixels, and in `more` a name and the cells of further columns."""
    header = ",".join(["emotion", *(name for name, _ in more), "pixels"])
    cells = ([str(cells[row]) for _, cells in more] for row in range(rows))
    write(path, [header, *(",".join([str(r % 7), *c, pixels(r % 7, r)]) for r, c in enumerate(cells))])


def test_the_innermost_folder_that_was_named_counts_in_every_process(tmp_path):
    for part in "AB":
        class_folders(tmp_path / "train" / part, 3)
    code = f"from fer_utils import load_competition; c = load_competition({str(tmp_path)!r}, "
    code += "splits='train=train, valid=B'); print(len(c.train), len(c.valid))"
    for seed in ("0", "3"):
        environment = {"PYTHONHASHSEED": seed, "FER_CACHE": "off", "PYTHONPATH": str(REPOSITORY)}
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
        assert done.stdout.split()[-2:] == ["21", "21"], done.stderr


def test_the_labels_are_not_taken_for_the_splits_that_were_named(tmp_path):
    pixel_table(tmp_path / "train.csv", 70, ("fold", [row % 5 for row in range(70)]))
    competition = load_competition(tmp_path, splits="valid=0")
    assert (len(competition.train), len(competition.valid)) == (56, 14) and len(competition.class_names) == 7


def test_what_was_not_named_stays_the_test(tmp_path):
    pixel_table(tmp_path / "train.csv", 70, ("fold", ["A"] * 50 + ["B"] * 20))
    write(tmp_path / "test.csv", ["id,pixels", *(f"{row},{pixels(row % 7, row)}" for row in range(9))])
    competition = load_competition(tmp_path, splits="train=A, valid=B")
    assert [len(split) for split in (competition.train, competition.valid, competition.test)] == [50, 20, 9]


def test_folders_of_classes_beside_train_are_not_said_to_be_the_test(tmp_path):
    class_folders(tmp_path / "train", 4)
    class_folders(tmp_path, 2)
    with pytest.raises(DataError, match="are they the test\\? move them into a folder test; splits='none'"):
        load_competition(tmp_path)


def test_two_classes_of_one_name_are_refused(tmp_path):
    pixel_table(tmp_path / "train.csv", 70)
    with pytest.raises(DataError, match="classes names sad twice"):
        load_competition(tmp_path, classes="angry, disgust, fear, happy, sad, surprise, Sad")


def test_the_layout_that_was_named_reads_the_table_without_votes_that_do_not_fit(tmp_path):
    usage = ["Training"] * 50 + ["PublicTest"] * 20
    pixel_table(tmp_path / "fer2013.csv", 70, ("Usage", usage))
    write(tmp_path / "fer2013new.csv", ["Usage,neutral,happiness,anger", *(f"{u},1,2,7" for u in usage[:60])])
    with pytest.raises(DataError, match="layout='fer2013.csv' reads fer2013.csv alone"):
        load_competition(tmp_path)
    assert len(load_competition(tmp_path, layout="fer2013.csv").train) == 50


@pytest.mark.parametrize("suffix", ["json", "parquet"])
def test_the_header_of_a_sample_in_any_form_is_written_as_it_is(tmp_path, suffix):
    import pandas as pd

    pixel_table(tmp_path / "train.csv", 70)
    write(tmp_path / "test.csv", ["id,pixels", *(f"{row},{pixels(row % 7, row)}" for row in range(9))])
    sample = pd.DataFrame({"ImageId": range(9), "Emotion": 0})
    path = tmp_path / f"sample_submission.{suffix}"
    sample.to_json(path, orient="records") if suffix == "json" else sample.to_parquet(path)
    competition = load_competition(tmp_path, classes=", ".join(FER_CLASSES))
    written = write_submission(competition, np.eye(7)[np.arange(9) % 7], tmp_path / "out.csv")
    validate_submission(competition, written)
    assert written.read_text().splitlines()[:3] == ["ImageId,Emotion", "0,0", "1,1"]


def test_the_answers_of_a_sample_may_come_first_under_any_name(tmp_path):
    class_folders(tmp_path / "train", 4)
    for row in range(5):
        save(tmp_path / "test" / f"{row:03}.png", row, 50 + row)
    write(tmp_path / "sample_submission.csv", ["Mood,Id", *(f"happy,{row:03}.png" for row in range(5))])
    assert load_competition(tmp_path).submission.label_column == "Mood"


def test_a_person_stays_on_one_side_also_with_a_class_of_their_own(tmp_path):
    labels = [row % 6 for row in range(130)] + [6] * 3
    persons = [f"s{row % 20}" for row in range(130)] + ["s4"] * 3
    rows = zip(labels, persons, strict=True)
    write(
        tmp_path / "train.csv",
        ["emotion,subject,pixels", *(f"{k},{p},{pixels(k, r)}" for r, (k, p) in enumerate(rows))],
    )
    for fold in range(10):
        competition = load_competition(tmp_path, fold=fold)
        assert not {*competition.train.groups} & {*competition.valid.groups}
        assert {*competition.train.labels} == set(range(7))


def test_unknown_persons_are_many(tmp_path):
    persons = ["unknown"] * 130 + [f"s{row % 11}" for row in range(80)]
    pixel_table(tmp_path / "train.csv", 210, ("subject", persons))
    competition = load_competition(tmp_path)
    assert 15 <= len(competition.valid) <= 27


def test_the_first_part_is_of_the_usual_size_where_one_person_has_most_images(tmp_path):
    pixel_table(tmp_path / "train.csv", 140, ("subject", ["s0"] * 60 + [f"s{row % 20}" for row in range(80)]))
    assert len(load_competition(tmp_path).valid) <= 20
    notes = [load_competition(tmp_path, fold=fold).notes[0] for fold in range(10)]
    assert sum("as some persons have very many images" in note for note in notes) == 1


def test_fewer_persons_than_folds_are_refused_before_any_training(tmp_path):
    pixel_table(tmp_path / "train.csv", 60, ("subject", [f"s{row % 3}" for row in range(60)]))
    config = Config(data=str(tmp_path / "train.csv"), out=str(tmp_path / "run"), cv=4)
    with pytest.raises(ConfigError, match="cv 4 needs as many persons, and the data has 3: choose cv 3"):
        launch.launch(config, load_competition(config.data, **config.data_options))
    with pytest.raises(DataError, match="There are 3 persons .*choose n_folds of at most 3"):
        load_competition(config.data, fold=7)


def test_what_lies_beside_a_table_given_alone_is_told(tmp_path):
    pixel_table(tmp_path / "train.csv", 70)
    assert not any("beside it" in note for note in load_competition(tmp_path / "train.csv").notes)
    write(tmp_path / "test.csv", ["id,pixels", *(f"{row},{pixels(row % 7, row)}" for row in range(9))])
    write(tmp_path / "sample_submission.csv", ["id,emotion", *(f"{row},0" for row in range(9))])
    note = "beside it, not read: sample_submission.csv, test.csv (its folder as data reads all)"
    assert note in load_competition(tmp_path / "train.csv").notes
    assert load_competition(tmp_path).submission.source == "sample_submission.csv"


def test_a_folder_named_demo_is_no_demo(tmp_path, monkeypatch):
    class_folders(tmp_path / "demo", 4)
    monkeypatch.chdir(tmp_path)
    assert not load_competition(tmp_path.joinpath("demo").relative_to(tmp_path)).is_demo


def test_colours_are_looked_for_at_random(tmp_path):
    rng = np.random.default_rng(0)
    from PIL import Image

    for word in ("happy", "sad"):
        (tmp_path / word).mkdir()
        for i in range(140):  # 560 files, of which every second one is grey
            picture = Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8))
            picture.save(tmp_path / word / f"{i:04}.png")
            picture.convert("L").save(tmp_path / word / f"{i:04}-grey.png")
    assert load_competition(tmp_path).channels == 3


def test_missing_images_and_pointers_are_named(tmp_path):
    lines = ["image,label", *(f"{row:04}.png,{FER_CLASSES[row % 7]}" for row in range(70))]
    write(tmp_path / "few" / "train.csv", lines)
    for row in range(30):
        save(tmp_path / "few" / f"{row:04}.png", row % 7, row)
    with pytest.raises(DataError, match="of 70 files in its column 'image' 30 are there .missing: 0030.png"):
        load_competition(tmp_path / "few")
    for word in ("happy", "sad"):
        (tmp_path / "lfs" / word).mkdir(parents=True)
        for i in range(20):
            pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
            (tmp_path / "lfs" / word / f"{i}.png").write_text(pointer)
    with pytest.raises(DataError, match="a Git LFS pointer, not the file itself: git lfs pull"):
        load_competition(tmp_path / "lfs")


def test_a_cache_that_may_not_be_looked_into_is_none(tmp_path, monkeypatch):
    pixel_table(tmp_path / "train.csv", 70)
    monkeypatch.setenv("FER_CACHE", str(tmp_path / "cache"))

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(cache.Path, "is_file", refuse)
    assert cache.Cache(tmp_path / "train.csv", tmp_path / "train.csv", "").load() is None
