"""The cache of readings: the same competition again and at once, never an old one, and never in the way."""

import json
import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from competitions import COMPETITIONS, flat_test, pixels, save, write

from fer_utils import arrays_on_disk
from fer_utils.data import load as data
from fer_utils.data.files import cache
from fer_utils.data.load import load_competition
from fer_utils.files import REPOSITORY


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A cache of this test's own, which trusts files however young they are."""
    monkeypatch.setenv("FER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(cache, "SETTLED_SECONDS", -1e9)
    return tmp_path / "cache"


@pytest.fixture
def readings(monkeypatch):
    """How often the files themselves were read."""
    counted, read = [], data._read

    def counting(*arguments):
        counted.append(arguments[0])
        return read(*arguments)

    monkeypatch.setattr(data, "_read", counting)
    return counted


def same(a, b):
    for name in ("class_names", "label_values", "source", "layout", "notes", "rejected"):
        assert getattr(a, name) == getattr(b, name), name
    assert a.splits.keys() == b.splits.keys() and a.fingerprint == b.fingerprint
    for name, split in a.splits.items():
        other = b.splits[name]
        for part in ("images", "labels", "ids", "votes"):
            np.testing.assert_array_equal(getattr(split, part), getattr(other, part))
            assert getattr(split, part) is None or getattr(split, part).dtype == getattr(other, part).dtype
    if a.submission is None:
        assert b.submission is None
        return
    for name, value in vars(a.submission).items():
        if name == "template":
            assert value.equals(b.submission.template) and list(value) == list(b.submission.template)
        elif name == "rows":
            np.testing.assert_array_equal(value, b.submission.rows)
        else:
            assert value == getattr(b.submission, name)


@pytest.mark.parametrize("name", COMPETITIONS)
def test_a_competition_comes_back_as_it_was_read(tmp_path, readings, name):
    COMPETITIONS[name](tmp_path / "data")
    first = load_competition(tmp_path / "data")
    same(first, load_competition(tmp_path / "data"))
    assert len(readings) == 1


def test_folds_and_cleaning_need_no_other_reading(tmp_path, readings):
    COMPETITIONS["ntu_spring"](tmp_path / "data")
    folds = [load_competition(tmp_path / "data", fold=fold, clean=fold == 1) for fold in range(3)]
    assert len(readings) == 1
    assert len({competition.fingerprint for competition in folds}) == 3


def test_what_is_read_otherwise_is_read_anew(tmp_path, readings):
    COMPETITIONS["affectnet"](tmp_path / "data")
    for options in ({}, {"image_size": 32}, {"layout": "class folders"}, {"columns": "label=label"}):
        load_competition(tmp_path / "data", **options)
    assert len(readings) == 4


def _change_content(home):
    path = home / "train" / "happy" / "00012.png"
    state, size = path.stat(), path.stat().st_size
    content = bytearray(path.read_bytes())
    content[-5] ^= 1  # in the checksum of the last chunk, which nobody looks at
    path.write_bytes(content)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))  # even a time that was set back
    assert path.stat().st_size == size


CHANGES = {
    "a byte, with the old time set again": _change_content,
    "a file more": lambda home: save(home / "train" / "sad" / "new.png", 5, 7777),
    "a file less": lambda home: (home / "train" / "sad" / "00020.png").unlink(),
    "a folder renamed": lambda home: (home / "train" / "sad").rename(home / "train" / "anger2"),
    "a file renamed": lambda home: (home / "test" / "0001.png").rename(home / "test" / "0009.png"),
    "another sample": lambda home: write(home / "sample_submission.csv", ["filename,x", "0000.png,fear"]),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_noticed(tmp_path, readings, change):
    home = tmp_path / "data"
    flat_test(home)
    load_competition(home)
    CHANGES[change](home)
    try:
        load_competition(home)
    except data.DataError:
        assert change == "a file renamed"  # which the sample asks for
    assert len(readings) == 2


def test_a_moved_folder_and_another_version_of_the_reader_are_noticed(tmp_path, readings, monkeypatch):
    flat_test(tmp_path / "data")
    load_competition(tmp_path / "data")
    (tmp_path / "data").rename(tmp_path / "moved")
    load_competition(tmp_path / "moved")
    monkeypatch.setattr(cache, "_code", lambda: "the next version")
    load_competition(tmp_path / "moved")
    assert len(readings) == 3


def test_an_image_beside_a_list_belongs_to_its_state(tmp_path, readings):
    COMPETITIONS["muxspace"](tmp_path / "data")
    load_competition(tmp_path / "data" / "legend.csv")
    save(tmp_path / "data" / "images" / "Person_0003.png", 3, 5)
    load_competition(tmp_path / "data" / "legend.csv")
    assert len(readings) == 2


def test_files_that_changed_a_moment_ago_are_not_trusted(tmp_path, readings, folder, monkeypatch):
    monkeypatch.setattr(cache, "SETTLED_SECONDS", 2.0)
    flat_test(tmp_path / "data")
    load_competition(tmp_path / "data")
    assert not folder.exists()


def test_files_that_change_while_they_are_read_are_not_kept(tmp_path, folder, monkeypatch):
    flat_test(tmp_path / "data")
    read = data._read

    def meanwhile(*arguments):
        reading = read(*arguments)
        save(tmp_path / "data" / "train" / "sad" / "new.png", 5, 7777)
        return reading

    monkeypatch.setattr(data, "_read", meanwhile)
    load_competition(tmp_path / "data")
    assert not folder.exists()


@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b"\x80" + b[1:]])
def test_a_damaged_entry_is_read_again_and_mended(tmp_path, readings, folder, damage):
    flat_test(tmp_path / "data")
    first = load_competition(tmp_path / "data")
    (entry,) = folder.iterdir()
    entry.write_bytes(damage(entry.read_bytes()))
    same(first, load_competition(tmp_path / "data"))
    assert len(readings) == 2
    same(first, load_competition(tmp_path / "data"))
    assert len(readings) == 2


def test_an_entry_cannot_run_code(tmp_path, readings, folder):
    flat_test(tmp_path / "data")
    load_competition(tmp_path / "data")
    (entry,) = folder.iterdir()

    class Bomb:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "exploded"),))

    with open(entry, "wb") as file:
        np.save(file, np.array([Bomb()], dtype=object), allow_pickle=True)
    load_competition(tmp_path / "data")
    assert len(readings) == 2 and not (tmp_path / "exploded").exists()


def test_the_longest_unused_go_first_when_it_grows_too_large(tmp_path, readings, folder, monkeypatch):
    homes = [tmp_path / name for name in "abc"]
    for home in homes:
        flat_test(home)
    load_competition(homes[0])
    (entry,) = folder.iterdir()
    monkeypatch.setattr(cache, "MAX_CACHE_BYTES", int(2.5 * entry.stat().st_size))
    os.utime(entry, (1, 1))
    load_competition(homes[1])
    load_competition(homes[0])  # used again, so the other one is the oldest now
    for path in folder.iterdir():
        if path != entry:
            os.utime(path, (2, 2))
    load_competition(homes[2])
    assert len(list(folder.iterdir())) == 2 and entry.exists()
    monkeypatch.setattr(cache, "MAX_CACHE_BYTES", 10)
    load_competition(homes[1])  # larger than all the room there is
    assert len(list(folder.iterdir())) == 2


def test_what_was_kept_can_be_changed_without_a_trace(tmp_path):
    flat_test(tmp_path / "data")
    first = load_competition(tmp_path / "data").fingerprint
    competition = load_competition(tmp_path / "data")
    competition.train.images[:] = 0
    assert load_competition(tmp_path / "data").fingerprint == first


@pytest.mark.once
def test_several_at_once_agree(tmp_path, folder):
    flat_test(tmp_path / "data")
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(load_competition(tmp_path / "data").fingerprint))
        for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    code = (
        "import sys; from fer_utils import load_competition; print(load_competition(sys.argv[1]).fingerprint)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "data")]
    processes = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY) for _ in range(3)
    ]
    found += [process.communicate()[0].strip() for process in processes]
    assert len(found) == 9 and len(set(found)) == 1
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]


def test_a_folder_that_cannot_be_written_is_told_and_does_no_harm(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("FER_CACHE", str(tmp_path / "file" / "cache"))
    flat_test(tmp_path / "data")
    assert len(load_competition(tmp_path / "data").train) == 28
    assert "not kept for the next time" in capsys.readouterr().out


@pytest.fixture
def all_is_large(monkeypatch):
    monkeypatch.setattr(arrays_on_disk, "MOST_IN_MEMORY", 1000)


def test_large_images_are_mapped_from_a_file(tmp_path, folder, readings, all_is_large):
    flat_test(tmp_path / "data")
    first, again = (load_competition(tmp_path / "data") for _ in range(2))
    same(first, again)
    assert len(readings) == 1 and isinstance(again.test.images, np.memmap)
    names = {path.name.partition("-")[2] for path in folder.iterdir()}
    assert names == {
        "",
        "train.images.npy",
        "valid.images.npy",
        "test.images.npy",
    }  # and no file that was filled in between
    again.test.images[:] = 0  # changes memory alone
    same(first, load_competition(tmp_path / "data"))


@pytest.mark.parametrize("damage", ["removed", "cut"])
def test_a_damaged_file_of_large_images_is_read_anew(damage, tmp_path, folder, readings, all_is_large):
    flat_test(tmp_path / "data")
    first = load_competition(tmp_path / "data")
    (file,) = folder.glob("*-train.images.npy")
    content = file.read_bytes()
    file.unlink()  # `first` still maps it
    if damage == "cut":
        file.write_bytes(content[:500])
    same(first, load_competition(tmp_path / "data"))
    assert len(readings) == 2


def test_of_large_entries_the_last_is_kept_beside_the_small_ones(tmp_path, folder, monkeypatch):
    for name in ("small", "large", "larger"):
        monkeypatch.setattr(arrays_on_disk, "MOST_IN_MEMORY", 10**9 if name == "small" else 1000)
        flat_test(tmp_path / name)
        load_competition(tmp_path / name)
    assert len(list(folder.glob("*.npz"))) == 2 and len(list(folder.glob("*.npy"))) == 3


def test_off_means_off(tmp_path, monkeypatch):
    monkeypatch.setenv("FER_CACHE", "off")
    flat_test(tmp_path / "data")
    load_competition(tmp_path / "data")
    assert not list(tmp_path.glob("**/*.npz"))


def test_by_default_it_lies_in_outputs(monkeypatch):
    monkeypatch.delenv("FER_CACHE")
    assert cache.cache_folder() == REPOSITORY / "outputs" / "cache"


def test_entries_hold_plain_arrays_and_json(tmp_path, folder):
    write(
        tmp_path / "data" / "train.csv",
        ["emotion,pixels", *(f"{r % 7},{pixels(r % 7, r)}" for r in range(35))],
    )
    load_competition(tmp_path / "data")
    (entry,) = folder.iterdir()
    with np.load(entry, allow_pickle=False) as file:
        content = json.loads(file["content"].tobytes())
        assert file.files == ["content", "train.images", "train.labels", "train.ids"]
    assert content["layout"]


def test_what_a_killed_process_left_goes_after_an_hour(tmp_path):
    folder = tmp_path / "cache"
    folder.mkdir()
    for name, age in ((".a-1.npz", 3700), (".b-2.npz", 60)):
        (folder / name).write_bytes(b"half")
        os.utime(folder / name, 2 * (time.time() - age,))
    array, seconds = cache.kept_array(lambda: np.ones(3), "abandoned")
    assert sorted(path.name for path in folder.glob(".*")) == [".b-2.npz"]
    again = cache.kept_array(lambda: np.zeros(3), "abandoned")
    assert np.array_equal(again[0], array) and again[1] == seconds >= 0
