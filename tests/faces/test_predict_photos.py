"""Faces found in whole photos: where they are, and what is said where there is none."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from fer_utils import Config, fit, load_run
from fer_utils.competition import DataError
from fer_utils.demo.dataset import make_demo
from fer_utils.faces import predict_photos
from fer_utils.faces.predict_photos import find_face
from tools.predict import main

pytest.importorskip("cv2")


@pytest.fixture(scope="module")
def demo():
    return make_demo(n_train=60, n_valid=20, n_test=8, size=96)


def photo_of(faces, places, shape=(420, 560)) -> Image.Image:
    """Drawn faces of several sizes set into a plain image: (left, top, pixels) each."""
    photo = Image.new("L", shape[::-1], 150)
    for face, (left, top, pixels) in zip(faces, places, strict=True):
        photo.paste(Image.fromarray(face[0]).resize((pixels, pixels)), (left, top))
    return photo


def test_the_face_is_found_where_it_is(demo):
    found = 0
    for n, face in enumerate(demo.valid.images[:12]):
        left, top = 20 * n, 10 * n
        search = find_face(photo_of([face], [(left, top, 180)]))
        if search.box:
            found += 1
            x, y = (search.box[0] + search.box[2]) / 2, (search.box[1] + search.box[3]) / 2
            assert abs(x - left - 90) < 40 and abs(y - top - 90) < 40
            assert 90 < search.box[2] - search.box[0] <= 200
    assert found >= 9


def test_of_several_faces_the_largest_is_taken(demo):
    search = find_face(photo_of(demo.valid.images[[2, 3]], [(10, 10, 110), (260, 150, 230)]))
    assert search.said == "largest of 2" and search.box[0] > 230


def test_what_holds_no_face_or_only_one_is_used_whole(demo):
    face = Image.fromarray(demo.valid.images[2, 0])
    assert find_face(Image.new("RGB", (400, 300), (90, 120, 200))).said == "none found"
    assert find_face(face.resize((300, 300))) == ("already cropped", None)
    assert find_face(face.resize((48, 48))) == ("already cropped", None)


def test_without_opencv_it_is_said(demo, monkeypatch):
    monkeypatch.setattr(predict_photos, "detector", lambda: None)
    assert find_face(photo_of(demo.valid.images[:1], [(0, 0, 180)])) == ("not searched", None)


def test_a_photo_is_answered_as_its_face_alone(demo, tmp_path, capsys):
    parameters = {"model": "small", "width": 0.125, "epochs": 1, "batch_size": 20}
    parameters |= {"precision": "fp32", "device": "cpu"}
    run = fit(Config(data="demo", out=str(tmp_path / "run"), **parameters), demo)
    photo = photo_of(demo.valid.images[2:3], [(200, 100, 200)])
    folder = tmp_path / "photos"
    folder.mkdir()
    photo.save(folder / "photo.png")
    photo.crop(find_face(photo).box).save(folder / "a face.png")
    table = run.predict_files(folder)
    assert table.face.tolist() == ["already cropped", "found"]
    assert table.box.tolist() == ["", " ".join(map(str, find_face(photo).box))]
    alone, found = table[list(run.class_names)].to_numpy()
    assert np.allclose(alone, found, rtol=0, atol=1e-6)
    whole = load_run(run.out).predict_files(folder, crop=False)
    assert whole.face.tolist() == ["not searched"] * 2
    alone, found = whole[list(run.class_names)].to_numpy()
    assert not np.allclose(alone, found, rtol=0, atol=1e-5)
    assert main([str(run.out), str(folder), "--out", str(tmp_path / "out")]) == 0
    assert "faces: 1 already cropped, 1 found" in capsys.readouterr().out
    assert pd.read_csv(tmp_path / "out" / "answers.csv").face.tolist() == table.face.tolist()
    assert main([str(run.out), str(folder), "--whole", "--out", str(tmp_path / "out")]) == 0
    (folder / "b.png").write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"b\.png: not a readable image"):
        run.predict_files(folder)
