"""Bad and hostile input: a result or a clear DataError, never another exception, never anything outside."""

import io
import multiprocessing
import os
import re
import shutil
import stat
import struct
import sys
import tracemalloc
import zipfile
import zlib
from pathlib import Path

import h5py
import numpy as np
import pytest
from competitions import COMPETITIONS, face, flat_test, levels, msambare, pixels, save, write
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from fer_utils import Config, fit
from fer_utils.competition import FER_CLASSES, Competition, DataError
from fer_utils.data import decode_images
from fer_utils.data.load import SIZES, load_competition
from fer_utils.data.pixel_strings import parse_pixels
from fer_utils.data.submission_csv import validate_submission

SETTINGS = settings(
    max_examples=int(os.environ.get("FER_EXAMPLES", "20")),  # a few hundred now and then find more
    deadline=None,
    derandomize=True,  # the same examples every time
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def check(competition: Competition) -> None:
    """Whatever was read is whole."""
    for name, split in competition.splits.items():
        size = competition.image_size
        assert size in SIZES and split.images.dtype == np.uint8
        assert split.images.shape == (len(split), 1, size, size)
        assert len(split.ids) == len(split)
        if name != "test":
            assert split.labels.shape == (len(split),)
            assert ((split.labels >= 0) & (split.labels < len(competition.class_names))).all()
    assert len(competition.class_names) == len(competition.label_values) == len(set(competition.class_names))
    assert competition.summary()
    if competition.test is not None:
        assert competition.submission.rows.max(initial=-1) < len(competition.test)


def load_or_refuse(path: Path, **options) -> None:
    try:
        competition = load_competition(path, **options)
    except DataError as error:
        assert str(error)
    else:
        check(competition)


# ---------------------------------------------------------------- mutations of valid data

MUTATED = (
    "fer2013_csv", "icml_competition", "two_pixel_sizes_three_classes", "column_per_pixel_without_header",
    "fer_plus_beside_fer2013", "fer_plus_folders", "raf_original", "skillbox", "json_lines",
    "json_dictionary", "hugging_face_parquet", "parquet_pixels", "npz", "npy", "hdf5", "csc411", "yolo",
    "jaffe", "flat_test",
)  # fmt: skip


def mutate(content: bytes, kind: str, place: float, length: int, junk: bytes) -> bytes:
    start = int(place * len(content))
    lines = content.split(b"\n")
    line = int(place * len(lines))
    return {
        "cut off": content[:start],
        "cut out": content[:start] + content[start + length :],
        "overwritten": content[:start] + junk + content[start + len(junk) :],
        "inserted": content[:start] + junk + content[start:],
        "a line twice": b"\n".join(lines[:line] + lines[line : line + 1] + lines[line:]),
        "a line less": b"\n".join(lines[:line] + lines[line + 1 :]),
        "lines mixed": b"\n".join(lines[line:] + lines[:line]),
        "separators changed": content.replace(b",", b";", length),
        "nothing": b"",
    }[kind]


KINDS = (
    "cut off", "cut out", "overwritten", "inserted", "a line twice", "a line less", "lines mixed",
    "separators changed", "nothing",
)  # fmt: skip
JUNK = st.one_of(
    st.binary(min_size=1, max_size=12),
    st.sampled_from(
        [b'"', b"\n", b",,,,", b"-1", b"1e9", b"nan", b"\r\n", b"\0", b"\xff\xfe", b"999999999999999999"]
    ),
)


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    """Every layout once."""
    home = tmp_path_factory.mktemp("originals")
    for name in MUTATED:
        COMPETITIONS[name](home / name)
    return home


@pytest.mark.once
@pytest.mark.parametrize("name", MUTATED)
def test_mutated_data_are_read_or_refused(originals, tmp_path, name):
    files = sorted(path for path in (originals / name).rglob("*") if path.is_file())
    # Tables and arrays go first, else hundreds of images would get all the mutations.
    files.sort(key=lambda path: path.suffix in (".png", ".tiff"))

    # A thousand columns take a second to open.
    @settings(SETTINGS, max_examples=SETTINGS.max_examples // (5 if name.startswith("column_per") else 1))
    @given(
        file=st.integers(0, min(7, len(files) - 1)),
        kind=st.sampled_from(KINDS),
        place=st.floats(0, 0.999),
        length=st.integers(1, 400),
        junk=JUNK,
        allow=st.booleans(),
    )
    def mutated(file, kind, place, length, junk, allow):
        target = files[file]
        content = target.read_bytes()
        try:
            target.write_bytes(mutate(content, kind, place, length, junk))
            load_or_refuse(originals / name, allow_rejected=allow)
        finally:
            target.write_bytes(content)

    mutated()
    check(load_competition(originals / name))


@SETTINGS
@given(
    names=st.lists(
        st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=12),
        min_size=2,
        max_size=4,
        unique=True,
    )
)
def test_classes_may_have_any_names(tmp_path_factory, names):
    home = tmp_path_factory.mktemp("named")
    lines = [
        f'"{names[r % len(names)].replace(chr(34), chr(34) * 2)}",{pixels(r % 7, r, 8)}' for r in range(30)
    ]
    write(home / "train.csv", ["emotion,pixels", *lines])
    load_or_refuse(home)


@SETTINGS
@given(
    rows=st.lists(
        st.lists(st.integers(-2, 300) | st.sampled_from(["x", "", "1.5", "0012"]), min_size=16, max_size=16),
        min_size=1,
        max_size=8,
    ),
    breaks=st.sampled_from([" ", "  ", "\t", ", "]),
)
def test_pixels_are_parsed_as_one_by_one(rows, breaks):
    texts = [breaks.join(map(str, row)) for row in rows]
    images, broken = parse_pixels(texts, 16)
    for row, text in enumerate(texts):
        words = text.replace(",", " ").split()
        fine = len(words) == 16 and all(w.isdigit() and int(w) < 256 for w in words)
        assert (row not in broken) == fine
        assert images[row].tolist() == ([int(w) for w in words] if fine else [0] * 16)


# ---------------------------------------------------------------- tables


def table(root: Path, content: bytes) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    (root / "train.csv").write_bytes(content)
    return root


LINES = [f"{('joy', 'pleurs')[r % 2]},{pixels(r % 2, r)}" for r in range(30)]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
@pytest.mark.parametrize("ends", ["\n", "\r\n"])
def test_encodings_and_line_ends(tmp_path, encoding, ends):
    text = ends.join(["Emotion,Pixels", *LINES]).replace("pleurs", "gêné")
    competition = load_competition(table(tmp_path, text.encode(encoding)))
    assert competition.class_names == ("gêné", "happy") and not competition.rejected
    assert len(competition.train) + len(competition.valid) == 30


REFUSED = {
    "an empty file": (b"", r"train.csv is empty"),
    "a header alone": (b"emotion,pixels\n", r"no labelled training images|holds no pixels"),
    "no label column": (b"pixels\n" + pixels(0, 0).encode(), r"no known layout"),
    "no pixel column": (b"emotion\n1\n2\n", r"no known layout.*columns emotion"),
    "no square": (b"emotion,pixels\n0,1 2 3 4 5 6 7\n", r"train.csv: 7 pixels in a row are no square"),
    "binary": (bytes(range(256)) * 8, r"train.csv is not a text table"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_table_of_pixels_is_refused_by_name(tmp_path, name):
    content, message = REFUSED[name]
    with pytest.raises(DataError, match=f"(?s){message}"):
        load_competition(table(tmp_path, content))


def test_other_separators_in_some_rows_are_told_by_row(tmp_path):
    lines = [*LINES[:7], LINES[7].replace(",", ";"), *LINES[8:]] * 5
    content = "\n".join(["emotion,pixels", *lines]).encode()
    with pytest.raises(DataError, match="train.csv row 9: no pixels"):
        load_competition(table(tmp_path, content))


def test_test_ids_that_come_twice_are_told_by_row(tmp_path):
    write(tmp_path / "train.csv", ["emotion,pixels", *LINES])
    rows = [f"{(0, 1, 1, 2)[r]},{pixels(r, 90 + r)}" for r in range(4)]
    write(tmp_path / "test.csv", ["id,pixels", *rows])
    with pytest.raises(
        DataError, match="test.csv row 4: test id '1' stands there twice, first in test.csv row 3"
    ):
        load_competition(tmp_path)


def test_a_long_table_is_read_in_bounded_memory(tmp_path):
    rows = [pixels(3, number) for number in range(50)]
    with open(tmp_path / "train.csv", "w") as file:
        file.write("emotion,pixels\n")
        file.writelines(f"{r % 7},{r % 256} {rows[r % 50].split(' ', 1)[1]}\n" for r in range(6000))
    size = 6000 * 48 * 48
    tracemalloc.start()
    load_competition(tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # Once while reading, once for the two splits made of it, and the chunk at work.
    assert peak < 3 * size + 40e6


# ---------------------------------------------------------------- image files


def _png_header(width: int, height: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")


def _encoded(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


GREY = Image.fromarray(face(4, 1))
WHOLE = _encoded(GREY, "PNG")
READABLE = {
    "a JPEG named .png": _encoded(GREY, "JPEG", quality=95),
    "an animation": _encoded(GREY, "GIF", save_all=True, append_images=[Image.new("L", (48, 48), 255)]),
    "CMYK": _encoded(GREY.convert("RGB").convert("CMYK"), "JPEG", quality=95),
    "16 bits": _encoded(Image.fromarray(face(4, 1).astype(np.uint16) * 257), "PNG"),
    "one bit deep, transparent": _encoded(GREY.convert("RGBA"), "PNG"),
    "a tall one": _encoded(GREY.resize((48, 480)), "PNG"),
}
UNREADABLE = {
    "no bytes": (b"", "cannot identify"),
    "cut off": (WHOLE[: len(WHOLE) // 2], "truncated|Truncated"),
    "text": (b"<html>404 Not Found</html>", "cannot identify"),
    "a bomb": (_png_header(60_000, 60_000), "too many|exceeds limit"),
    "a smaller bomb": (_png_header(9_000, 9_000), "9000 x 9000 pixels are too many"),
    # Pillow would start Ghostscript for it.
    "PostScript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 48 48\nshowpage\n", "cannot identify"),
}  # fmt: skip


@pytest.fixture
def many(tmp_path):
    """600 images, of which a test replaces some: less than the 1 % that may be lost."""
    words = ("happy", "sad")
    for n in range(600):
        save(tmp_path / "train" / words[n % 2] / f"{n:03}.png", n % 2, n, size=16)
    return tmp_path


def test_unusual_images_are_read(many):
    for n, content in enumerate(READABLE.values()):
        (many / "train" / "sad" / f"{2 * n + 1:03}.png").write_bytes(content)
    competition = load_competition(many)
    assert not competition.rejected
    every = dict(zip(competition.train.ids, competition.train.images, strict=True))
    every |= dict(zip(competition.valid.ids, competition.valid.images, strict=True))
    for n, name in enumerate(READABLE):
        assert levels(every[f"sad/{2 * n + 1:03}.png"][None]) == 4, name


@pytest.mark.parametrize("processes", [False, True])
def test_unreadable_images_are_listed_by_name(many, monkeypatch, processes):
    monkeypatch.setattr(decode_images, "WORTH_PROCESSES", 0 if processes else 10**9)
    for n, (content, _) in enumerate(UNREADABLE.values()):
        (many / "train" / "sad" / f"{2 * n + 1:03}.png").write_bytes(content)
    competition = load_competition(many)
    reasons = {rejected.place: rejected.reason for rejected in competition.rejected}
    assert len(reasons) == len(competition.rejected) == len(UNREADABLE)
    for n, (name, (_, reason)) in enumerate(UNREADABLE.items()):
        told = reasons[f"train/sad/{2 * n + 1:03}.png"]
        assert told.startswith("not a readable image: ") and re.search(reason, told), name
    assert len(competition.train) + len(competition.valid) == 600 - len(UNREADABLE)


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root and Windows read everything")
def test_an_image_that_may_not_be_read_is_listed(many):
    (many / "train" / "sad" / "001.png").chmod(0)
    assert "Permission" in load_competition(many).rejected[0].reason


def test_processes_and_this_one_decode_alike(many, monkeypatch):
    here = load_competition(many).fingerprint
    monkeypatch.setattr(decode_images, "WORTH_PROCESSES", 0)
    assert load_competition(many).fingerprint == here


class Deadly:
    """Ends the process that unpickles it, as a lack of memory does."""

    def __reduce__(self):
        return os._exit, (1,)


def test_a_decoding_process_that_dies_is_told(many, monkeypatch):
    monkeypatch.setattr(decode_images, "WORTH_PROCESSES", 0)
    monkeypatch.setattr(decode_images, "DECODED_TOGETHER", 2)
    files = [*sorted(many.rglob("*.png"))[:6], Deadly()]
    with pytest.raises(DataError, match=r"a process that decodes images died at .* is there enough memory"):
        decode_images.read_files(files, decode_images.ImageFormat(16))
    assert not multiprocessing.active_children()


def test_half_a_per_cent_of_broken_images_is_survived_and_said(tmp_path):
    msambare(tmp_path)
    for n in range(28, 420):
        save(tmp_path / "train" / FER_CLASSES[n % 7] / f"{n:05}.png", n % 7, n, size=16)
    for n in (30, 60):
        (tmp_path / "train" / FER_CLASSES[n % 7] / f"{n:05}.png").write_bytes(WHOLE[:50])
    competition = load_competition(tmp_path)
    assert len(competition.rejected) == 2
    assert "WARNING: 2 left out" in competition.summary()
    knobs = {"epochs": 1, "model": "small", "width": 0.125, "views": "plain"}
    knobs |= {"device": "cpu", "precision": "fp32"}
    run = fit(Config(out=str(tmp_path / "run"), batch_size=64, **knobs), competition)
    validate_submission(competition, run.out / "submission.csv")


def test_an_empty_class_folder_is_no_class(tmp_path):
    flat_test(tmp_path)
    (tmp_path / "train" / "contempt").mkdir()
    assert set(load_competition(tmp_path).class_names) == set(FER_CLASSES)


# ---------------------------------------------------------------- arrays


class Exploding:
    """An object whose pickle makes a folder when it is loaded."""

    def __init__(self, folder: Path):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("name", ["train_labels.npy", "train.npz"])
def test_pickles_are_never_loaded(tmp_path, name):
    home = tmp_path / "data"
    home.mkdir()
    bomb = np.array([Exploding(tmp_path / "exploded")] * 8, dtype=object)
    images = np.stack([face(n, n) for n in range(8)])
    if name.endswith(".npz"):
        np.savez(home / name, images=images, labels=bomb)
    else:
        np.save(home / "train_images.npy", images)
        np.save(home / name, bomb, allow_pickle=True)
    with pytest.raises(DataError, match=f"(?s)no known layout.*{name}.*pickled Python objects"):
        load_competition(home)
    assert not (tmp_path / "exploded").exists()


def test_an_array_that_promises_more_than_it_holds(tmp_path):
    np.save(tmp_path / "train_images.npy", np.stack([face(n, n) for n in range(8)]))
    np.save(tmp_path / "train_labels.npy", np.arange(8))
    whole = (tmp_path / "train_images.npy").read_bytes()
    (tmp_path / "train_images.npy").write_bytes(whole[:-10])
    with pytest.raises(
        DataError, match="train_images.npy promises 18,432 bytes and holds fewer: it is cut off"
    ):
        load_competition(tmp_path)


def test_hdf5_without_h5py_says_what_to_install(tmp_path, monkeypatch):
    (tmp_path / "data.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(2000))
    with pytest.raises(DataError, match="data.h5 cannot be read as arrays"):
        load_competition(tmp_path)
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(DataError, match="data.h5 needs h5py to be read: python -m pip install h5py"):
        load_competition(tmp_path)


def test_text_in_hdf5_and_arrays_in_groups(tmp_path):
    with h5py.File(tmp_path / "faces.hdf5", "w") as file:
        file["train/images"] = np.stack([face(n % 2, n) for n in range(40)])
        file["train/labels"] = [("sad", "happy")[n % 2] for n in range(40)]
        file["test/images"] = np.stack([face(0, 100 + n) for n in range(5)])
        file["linked"] = h5py.ExternalLink("elsewhere.h5", "/images")
    competition = load_competition(tmp_path)
    assert competition.class_names == ("happy", "sad") and len(competition.test) == 5
    assert (levels(competition.train.images) == 1 - competition.train.labels).all()


def test_an_npz_bomb_is_refused_before_it_is_unpacked(tmp_path):
    with zipfile.ZipFile(tmp_path / "train.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(
            header, {"descr": "|u1", "fortran_order": False, "shape": (200_000, 48, 48)}
        )
        with archive.open("images.npy", "w", force_zip64=True) as file:
            file.write(header.getvalue())
            for _ in range(200):
                file.write(bytes(1000 * 48 * 48))
    with pytest.raises(DataError, match="grows more than 100-fold"):
        load_competition(tmp_path)


@pytest.mark.parametrize(
    "values, message", [(np.float32(-1), "from -1 to"), (np.float32(3e5), "to 300000: pixels must be")]
)
def test_arrays_that_are_no_grey_levels(tmp_path, values, message):
    images = np.stack([face(n, n) for n in range(8)]).astype(np.float32)
    images[3, 5, 5] = values
    np.savez(tmp_path / "train.npz", images=images, labels=np.arange(8) % 2)
    with pytest.raises(DataError, match=rf"train.npz\[images\] holds values {message}|{message}"):
        load_competition(tmp_path)


def test_an_image_with_a_missing_number_is_listed(tmp_path):
    images = np.stack([face(n % 2, n) for n in range(200)]).astype(np.float32)
    images[7, 0, 0] = np.nan
    np.savez(tmp_path / "train.npz", images=images, labels=np.arange(200) % 2)
    (rejected,) = load_competition(tmp_path).rejected
    assert (rejected.place, rejected.reason) == ("train.npz[images] image 8", "a pixel is not a number")


def test_matlab_files_of_the_version_that_is_not_read(tmp_path):
    (tmp_path / "labeled_images.mat").write_bytes(
        b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM" + bytes(600)
    )
    with pytest.raises(DataError, match=r"save\(\.\.\., '-v7'\)"):
        load_competition(tmp_path)


# ---------------------------------------------------------------- nothing outside


def test_reading_writes_nothing_beside_the_data(tmp_path, originals):
    before = {path: path.stat().st_mtime_ns for path in originals.rglob("*")}
    for name in MUTATED:
        load_competition(originals / name)
    assert {path: path.stat().st_mtime_ns for path in originals.rglob("*")} == before


def test_a_folder_that_may_only_be_read(tmp_path):
    flat_test(tmp_path / "data")
    for path in sorted((tmp_path / "data").rglob("*"), reverse=True):
        path.chmod(stat.S_IRUSR | (stat.S_IXUSR if path.is_dir() else 0))
    assert len(load_competition(tmp_path / "data").train) == 28
    for path in (tmp_path / "data").rglob("*"):
        path.chmod(stat.S_IRWXU)
    shutil.rmtree(tmp_path / "data")


@pytest.mark.skipif(sys.platform == "win32", reason="named pipes of Unix")
def test_a_pipe_is_not_waited_for(tmp_path):
    flat_test(tmp_path)
    os.mkfifo(tmp_path / "train" / "happy" / "pipe.png")
    os.mkfifo(tmp_path / "pipe.csv")
    assert not load_competition(tmp_path).rejected
