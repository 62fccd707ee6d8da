"""Finding the data, and splitting off validation images."""

import dataclasses
import itertools
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from competitions import COMPETITIONS, face, fer2013_csv, flat_test, ntu_spring, raf_original, save

from fer_utils import files
from fer_utils.competition import DataError, Split, image_groups
from fer_utils.data import load as data
from fer_utils.data import locate as finding
from fer_utils.data.folds import joined, split_folds
from fer_utils.data.load import load_competition


def make_split(n_per_class, n_copies=0):
    labels = np.repeat(np.arange(len(n_per_class)), n_per_class)
    images = np.stack([face(int(label), number) for number, label in enumerate(labels)])[:, None]
    rows = np.r_[np.arange(len(labels)), np.arange(n_copies)]
    return Split(images, labels, np.arange(len(labels)).astype(str)).take(rows)


# ---------------------------------------------------------------- folds


def test_folds_are_even_in_size_and_in_every_class():
    split = make_split([100, 53, 7, 1])
    folds = split_folds(split, 10, seed=3)
    assert folds.dtype == np.int64 and set(folds) == set(range(10))
    assert np.ptp(np.bincount(folds)) <= 1
    for label in range(4):
        counts = np.bincount(folds[split.labels == label], minlength=10)
        assert counts.max() - counts.min() <= 1


def test_copies_share_a_fold():
    split = make_split([30, 30], n_copies=25)
    folds = split_folds(split, 5)
    groups = image_groups(split.images)
    assert len(set(groups)) == 60 and len(split) == 85
    for group in set(groups):
        assert len(set(folds[groups == group])) == 1


def test_mirror_images_share_a_fold():
    split = make_split([30, 30])
    both = np.concatenate([split.images, split.images[:25, ..., ::-1]])
    labels, ids = np.concatenate([split.labels, split.labels[:25]]), np.arange(85).astype(str)
    folds = split_folds(Split(both, labels, ids), 5)
    assert (folds[60:] == folds[:25]).all() and len(set(folds)) == 5


def test_persons_who_share_a_copy_share_a_fold():
    split = make_split([30, 30], n_copies=25)
    persons = np.array([f"s{row}" for row in range(85)])
    folds = split_folds(dataclasses.replace(split, groups=persons), 5)
    assert (folds[60:] == folds[:25]).all() and len(set(folds)) == 5


def test_folds_of_persons_are_even_since_the_largest_are_placed_first():
    persons = np.repeat([f"s{k}" for k in range(8)], range(1, 9))
    folds = split_folds(dataclasses.replace(make_split([36]), groups=persons), 3)
    assert np.ptp(np.bincount(folds)) <= 2


def test_folds_depend_on_the_seed_and_nothing_else():
    split = make_split([40, 40])
    np.testing.assert_array_equal(split_folds(split, 10, 1), split_folds(split, 10, 1))
    assert (split_folds(split, 10, 1) != split_folds(split, 10, 2)).any()
    np.testing.assert_array_equal(split_folds(split, 10, 1), split_folds(make_split([40, 40], 3), 10, 1)[:80])


def test_fewer_images_than_folds():
    assert sorted(split_folds(make_split([2, 1]), 10)) == [0, 1, 2]


def test_folds_of_a_competition_partition_its_training_images(tmp_path):
    ntu_spring(tmp_path)
    seen = []
    for fold in range(5):
        competition = load_competition(tmp_path, n_folds=5, fold=fold, seed=7)
        assert not set(competition.train.ids) & set(competition.valid.ids)
        assert f"fold {fold} of 5" in competition.notes[0] and "seed 7" in competition.notes[0]
        seen += competition.valid.ids.tolist()
    assert sorted(map(int, seen)) == list(range(35))


def test_the_given_validation_split_may_be_pooled_with_the_training_images(tmp_path):
    fer2013_csv(tmp_path)
    given = load_competition(tmp_path)
    folds = [load_competition(tmp_path, pool_valid=True, n_folds=5, fold=fold) for fold in range(5)]
    together = sorted([*given.train.ids.tolist(), *given.valid.ids.tolist()])
    for pooled in folds:
        assert sorted([*pooled.train.ids.tolist(), *pooled.valid.ids.tolist()]) == together
        assert "fold" in pooled.notes[0] and "the valid split of the data is among them" in pooled.notes[0]
        assert pooled.test.ids.tolist() == given.test.ids.tolist()
    assert sorted(id_ for pooled in folds for id_ in pooled.valid.ids) == together
    labels = {
        id_: label
        for split in (given.train, given.valid)
        for id_, label in zip(split.ids, split.labels, strict=True)
    }
    assert all(
        labels[id_] == label for id_, label in zip(folds[0].train.ids, folds[0].train.labels, strict=True)
    )


def test_pooled_images_keep_their_votes_and_ids_of_their_own():
    train, valid = make_split([3, 3], n_copies=1), make_split([2, 2])
    votes = np.eye(2, dtype=np.float32)
    pooled = joined(train, valid)
    assert pooled.ids.tolist() == [*train.ids, *(f"valid/{id_}" for id_ in valid.ids)]
    assert pooled.votes is None and pooled.labels.tolist() == [*train.labels, *valid.labels]
    both = [dataclasses.replace(split, votes=votes[split.labels]) for split in (train, valid)]
    assert joined(*both).votes.argmax(1).tolist() == pooled.labels.tolist()
    assert joined(both[0], valid).votes is None


def test_an_empty_fold_is_an_error(tmp_path):
    for n in range(4):
        save(tmp_path / ("happy" if n % 2 else "sad") / f"{n}.png", n % 2, n)
    assert len(load_competition(tmp_path, fold=3).valid) == 1
    with pytest.raises(DataError, match="4 training and 0 validation images are too few"):
        load_competition(tmp_path, fold=8)


@pytest.mark.parametrize("options", [{"fold": 10}, {"fold": -1}, {"n_folds": 1}, {"image_size": 0}])
def test_options_out_of_range(tmp_path, options):
    with pytest.raises(DataError, match=r"fold must be|image_size must be"):
        load_competition(tmp_path, **options)


# ---------------------------------------------------------------- where the data lies


@pytest.fixture
def places(tmp_path, monkeypatch):
    """An empty machine: a Kaggle mount, a repository and a working directory of its own."""
    monkeypatch.setattr(data, "make_demo", lambda seed, size, color: ("demo", seed, size, color))
    monkeypatch.setattr(finding, "KAGGLE_INPUT", tmp_path / "kaggle" / "input")
    monkeypatch.setattr(finding, "REPOSITORY_DATA", tmp_path / "repository" / "data")
    monkeypatch.setattr(files, "REPOSITORY", tmp_path / "repository")
    monkeypatch.delenv("FER_DATA", raising=False)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path


def test_demo(places):
    assert load_competition("demo", seed=3, image_size=32) == ("demo", 3, 32, False)
    assert load_competition("demo", color="rgb") == ("demo", 0, 48, True)
    with pytest.raises(DataError, match="image_size must be an even number from 24 to 256 for the demo"):
        load_competition("demo", image_size=16)


def test_auto_falls_back_on_the_demo_and_says_so_loudly(places, capsys):
    (places / "repository" / "data").mkdir(parents=True)
    assert load_competition()[0] == "demo"
    assert "DEMO FACES, NOT A COMPETITION" in capsys.readouterr().out


def test_auto_goes_by_the_environment_then_kaggle_then_the_repository(places, capsys, monkeypatch):
    home = places / "repository" / "data" / "mine"
    ntu_spring(home)
    assert load_competition("auto").source == str(home)
    assert capsys.readouterr().out == f"data: {home} (found below {home.parent})\n"
    mount = finding.KAGGLE_INPUT / "slug"
    flat_test(mount)
    assert load_competition("auto").source == str(mount)
    fer2013_csv(places / "work" / "other")
    monkeypatch.setenv("FER_DATA", "other")
    assert load_competition("auto").layout == "fer2013.csv"
    assert "FER_DATA" in capsys.readouterr().out


MOUNTS = itertools.cycle(["slug", "competitions/slug", "datasets/owner/slug"])


@pytest.mark.parametrize("name, mount", list(zip(COMPETITIONS, MOUNTS, strict=False)))
def test_auto_finds_every_layout_at_any_depth(places, name, mount):
    expected = COMPETITIONS[name](finding.KAGGLE_INPUT / mount)
    (finding.KAGGLE_INPUT / "weights").mkdir()
    (finding.KAGGLE_INPUT / "weights" / "model.safetensors").write_bytes(b"x")
    competition = load_competition("auto")
    assert competition.layout == expected.layout
    assert (len(competition.test) if competition.test else 0) == expected.counts[2]


def test_auto_takes_the_first_of_several_and_names_the_others(places, capsys):
    home = places / "repository" / "data"
    flat_test(home / "a")
    ntu_spring(home / "b")
    raf_original(home / "c")
    (home / "README.txt").write_text("read me")
    assert load_competition("auto").source == str(home / "a")
    said = capsys.readouterr().out
    assert f"also there, not used: {home / 'b'}, {home / 'c'}" in said and said.count("\n") == 1


@pytest.mark.parametrize("packed", [["all"], ["train", "test"]])
def test_auto_finds_archives(places, packed):
    home = places / "repository" / "data"
    flat_test(home / "x")
    shutil.move(home / "x", places / "x")
    if packed == ["all"]:
        shutil.make_archive(home / "all", "zip", places / "x")
    else:
        for split in ("train", "valid", "test"):
            shutil.make_archive(home / split, "zip", places / "x" / split)
    competition = load_competition("auto")
    assert len(competition.test) == 7 and len(competition.valid) == 7


def test_relative_paths_work_from_anywhere(places):
    ntu_spring(places / "repository" / "data" / "mine")
    assert len(load_competition("data/mine").test) == 5
    with pytest.raises(DataError, match="Similar names there: .*mine"):
        load_competition(Path("data/mien"))


def test_loading_is_silent(places, capsys):
    ntu_spring(places / "mine")
    load_competition(places / "mine")
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err == ""


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_links_are_followed_but_not_in_circles(places):
    flat_test(places / "real")
    home = places / "repository" / "data"
    home.mkdir(parents=True)
    (home / "linked").symlink_to(places / "real", target_is_directory=True)
    (places / "real" / "train" / "loop").symlink_to(places / "real", target_is_directory=True)
    assert len(load_competition("auto").train) == 28


# ---------------------------------------------------------------- a single file


def test_a_table_of_pixels_stands_alone(tmp_path):
    ntu_spring(tmp_path)
    competition = load_competition(tmp_path / "train.csv")
    assert competition.test is None and len(competition.train) + len(competition.valid) == 35


def test_a_list_of_images_takes_them_from_its_folder(tmp_path):
    COMPETITIONS["skillbox"](tmp_path)
    competition = load_competition(tmp_path / "train.csv")
    assert competition.layout == "image list" and len(competition.test) == 9


def test_what_is_no_table_is_told(tmp_path):
    path = tmp_path / "model.bin"
    path.write_bytes(bytes(range(256)))
    with pytest.raises(DataError, match="model.bin: no known layout"):
        load_competition(path)
