"""Files are written whole or not at all, found from anywhere, and archives cannot hurt."""

import errno
import io
import json
import os
import stat
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from fer_utils import files
from fer_utils.competition import DataError
from fer_utils.data.files import archives
from fer_utils.data.files.archives import opened
from fer_utils.files import OutputError, atomic_write, find_path, locked, write_json, write_text

pytestmark = pytest.mark.once


def test_atomic_write_makes_the_folder_and_keeps_the_suffix(tmp_path):
    path = tmp_path / "new" / "array.npz"
    with atomic_write(path) as temporary:
        assert temporary.parent == path.parent and temporary.suffix == ".npz"
        np.savez(temporary, a=np.arange(3))
        assert not path.exists()
    assert np.load(path)["a"].tolist() == [0, 1, 2]
    assert os.listdir(path.parent) == ["array.npz"]


@pytest.mark.skipif(os.name == "nt", reason="an open file cannot be replaced there")
def test_atomic_write_replaces_instead_of_overwriting(tmp_path):
    path = write_text(tmp_path / "a.txt", "old")
    with open(path) as reader:
        write_text(path, "new")
        assert reader.read() == "old"
    assert path.read_text() == "new"


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_atomic_write_keeps_the_old_file_on_failure(tmp_path, error):
    path = write_text(tmp_path / "a.txt", "old")
    with pytest.raises(error), atomic_write(path) as temporary:
        temporary.write_text("half")
        raise error
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["a.txt"]


def test_atomic_write_of_nothing_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError), atomic_write(tmp_path / "a.txt"):
        pass
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("number", "words"),
    [(errno.ENOSPC, "the disk is full; make room.* MB are free"), (errno.EROFS, "the disk is read-only"),
     (errno.EACCES, "permission is denied")],
)  # fmt: skip
def test_what_cannot_be_written_says_why_and_what_to_do(number, words, tmp_path):
    path = write_text(tmp_path / "a.txt", "old")
    with (
        pytest.raises(OutputError, match=rf"a\.txt cannot be written: {words}"),
        atomic_write(path) as temporary,
    ):
        temporary.write_text("half")
        raise OSError(number, os.strerror(number))
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["a.txt"]


def test_a_link_is_replaced_and_not_followed(tmp_path):
    outside = write_text(tmp_path / "outside.txt", "mine")
    (tmp_path / "run").mkdir()
    link = tmp_path / "run" / "submission.csv"
    link.symlink_to(outside)
    write_text(link, "new")
    assert outside.read_text() == "mine" and not link.is_symlink() and link.read_text() == "new"


def test_a_folder_is_held_by_one_at_a_time(tmp_path):
    with locked(tmp_path / "run"):
        with pytest.raises(OutputError, match="another process is training there"), locked(tmp_path / "run"):
            pytest.fail("both hold it")
        with locked(tmp_path / "other"):
            pass
    with locked(tmp_path / "run"):
        pass
    assert os.listdir(tmp_path / "run") == []


def test_a_lock_does_not_follow_a_link(tmp_path):
    outside = write_text(tmp_path / "outside.txt", "mine")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".lock").symlink_to(outside)
    with pytest.raises(OutputError, match="is a link"), locked(tmp_path / "run"):
        pytest.fail("it was followed")
    assert outside.read_text() == "mine"


def test_write_json_is_plain_and_in_order(tmp_path):
    content = {"z": np.float32(0.5), "a": [float("nan"), np.inf, np.int64(3)], "p": Path("x"), 1: np.eye(2)}
    text = write_json(tmp_path / "a.json", content).read_text()
    assert json.loads(text) == {"z": 0.5, "a": [None, None, 3], "p": "x", "1": [[1.0, 0.0], [0.0, 1.0]]}
    assert text.index('"z"') < text.index('"a"') and "NaN" not in text and text.endswith("}\n")


def test_find_path_tries_the_working_directory_then_the_repository(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "REPOSITORY", tmp_path / "repository")
    (tmp_path / "repository" / "data").mkdir(parents=True)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert find_path("data") == tmp_path / "repository" / "data"
    (tmp_path / "here" / "data").mkdir()
    assert find_path("data") == tmp_path / "here" / "data"
    assert find_path(tmp_path / "here") == tmp_path / "here"


def test_a_missing_path_names_its_neighbours(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data" / "fer2013").mkdir(parents=True)
    with pytest.raises(DataError, match=r"no file or folder 'data.fer2031'.*Similar names there: .*fer2013"):
        find_path(Path("data/fer2031"))
    with pytest.raises(DataError, match="Similar names there: .*data"):
        find_path("dat/fer2013")


# ---------------------------------------------------------------- archives


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["/a/seed1", "/a/seed2"], ["seed1", "seed2"]),
        (["/a/cpu/member0", "/a/sgd/member0", "/a/x"], ["cpu/member0", "sgd/member0", "x"]),
        (["/a/cpu/m", "/b/cpu/m", "/b/sgd/m"], ["a/cpu/m", "b/cpu/m", "sgd/m"]),
        (["/m", "/a/m"], ["/m", "a/m"]),
        (["/a/m", "/a/m", "/b/m"], ["a/m", "a/m", "b/m"]),
        (["/a/m"], ["m"]),
        ([], []),
    ],
)
def test_folders_are_told_apart_by_the_shortest_names(paths, names):
    assert files.distinct_names([Path(path) for path in paths]) == names


def make_zip(path, members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return path


def make_tar(path, *members):
    with tarfile.open(path, "w:gz" if path.name.endswith("gz") else "w") as file:
        for member, content in members:
            member.size = len(content)
            file.addfile(member, io.BytesIO(content))
    return path


def tar_member(name, kind=tarfile.REGTYPE, target=""):
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz", "a.TGZ"])
def test_an_archive_is_a_folder_for_a_while(tmp_path, name):
    if name.endswith("zip"):
        path = make_zip(tmp_path / name, {"in/x.txt": b"x"})
    else:
        path = make_tar(tmp_path / name, (tar_member("in/x.txt"), b"x"))
    with opened(path) as folder:
        assert (folder / "in" / "x.txt").read_bytes() == b"x"
    assert not folder.exists()


def test_folders_and_files_are_themselves(tmp_path):
    path = write_text(tmp_path / "a.csv", "x")
    with opened(tmp_path) as folder, opened(path) as file:
        assert (folder, file) == (tmp_path, path)
    assert path.exists()


@pytest.mark.parametrize(
    "name", ["../evil.txt", "a/../../evil.txt", "/tmp/evil.txt", "..\\evil.txt", "C:\\evil.txt"]
)
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_members_outside_the_folder_are_refused(tmp_path, name, kind):
    path = tmp_path / "in" / f"a.{kind}"
    path.parent.mkdir()
    if kind == "zip":
        make_zip(path, {"good.txt": b"x", name: b"x"})
    else:
        make_tar(path, (tar_member("good.txt"), b"x"), (tar_member(name), b"x"))
    with pytest.raises(DataError, match=r"a\.(zip|tar) is not safe to unpack: .*evil"), opened(path):
        pass
    assert not list(tmp_path.rglob("evil*"))


@pytest.mark.parametrize(
    "kind, target",
    [(tarfile.SYMTYPE, "/etc"), (tarfile.SYMTYPE, "x"), (tarfile.LNKTYPE, "x"), (tarfile.FIFOTYPE, "")],
)
def test_links_and_devices_are_refused(tmp_path, kind, target):
    path = make_tar(tmp_path / "a.tar", (tar_member("odd", kind, target), b""))
    with pytest.raises(DataError, match="a link or device, 'odd'"), opened(path):
        pass


def test_a_link_in_a_zip_is_refused(tmp_path):
    link = zipfile.ZipInfo("odd")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr(link, "/etc/passwd")
    with pytest.raises(DataError, match="a link or device, 'odd'"), opened(tmp_path / "a.zip"):
        pass


def test_too_many_members_or_bytes_are_refused(tmp_path, monkeypatch):
    path = make_zip(tmp_path / "a.zip", {f"{i}.txt": b"x" * 10 for i in range(5)})
    with monkeypatch.context() as patch, pytest.raises(DataError, match="more than 4 files"):
        patch.setattr(archives, "MAX_MEMBERS", 4)
        with opened(path):
            pass
    monkeypatch.setattr(archives, "MAX_BYTES", 49)
    with pytest.raises(DataError, match="unpacks to more than"), opened(path):
        pass


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_a_bomb_is_refused(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(archives, "GROWTH_MATTERS_FROM", 100_000)
    content = bytes(2_000_000)
    if kind == "zip":
        path = make_zip(tmp_path / "a.zip", {"bomb": content})
    else:
        path = make_tar(tmp_path / "a.tar.gz", (tar_member("bomb"), content))
    with pytest.raises(DataError, match="as a zip bomb does"), opened(path):
        pass


@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz"])
@pytest.mark.parametrize("content", [b"", b"no archive", "torn"])
def test_a_broken_archive_is_named(tmp_path, name, content):
    whole = tmp_path / name
    if name == "a.zip":
        make_zip(whole, {"x": os.urandom(5000)})
    else:
        make_tar(whole, (tar_member("x"), os.urandom(5000)))
    whole.write_bytes(whole.read_bytes()[:3000] if content == "torn" else content)
    with pytest.raises(DataError, match=f"{name} cannot be unpacked"), opened(whole):
        pass


def test_an_encrypted_archive_is_named(tmp_path):
    path = make_zip(tmp_path / "a.zip", {"x": b"x"})
    content = bytearray(path.read_bytes())
    content[6] |= 1  # the flag of encryption, in the member's header and in the directory
    content[content.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match="a.zip cannot be unpacked.*encrypted"), opened(path):
        pass
