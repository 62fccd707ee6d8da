"""Answers for a person's own pictures."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from fer_utils import Config, fit
from tools.predict import main


@pytest.fixture(scope="module")
def run(tiny, tmp_path_factory):
    out = tmp_path_factory.mktemp("run")
    return fit(
        Config(out=str(out), image_size=20, width=0.125, epochs=1, precision="fp32", device="cpu"), tiny
    )


@pytest.fixture
def photos(tmp_path):
    rng = np.random.default_rng(0)
    for name, shape in (("b.png", (20, 20)), ("a [1].jpg", (60, 50, 3))):
        Image.fromarray(rng.integers(0, 255, shape, dtype=np.uint8)).save(tmp_path / name)
    return tmp_path


def test_a_table_and_a_page_of_faces(run, photos, tmp_path, capsys):
    assert main([str(run.out), str(photos), "--out", str(tmp_path / "out")]) == 0
    table = pd.read_csv(tmp_path / "out" / "answers.csv")
    assert [name.rpartition("/")[2] for name in table.file] == ["a [1].jpg", "b.png"]
    probs = table[list(run.class_names)].to_numpy()
    assert np.allclose(probs.sum(1), 1, atol=1e-4) and np.allclose(probs.max(1), table.certainty)
    assert table.answer.tolist() == [run.class_names[k] for k in probs.argmax(1)]
    image = np.array(Image.open(photos / "b.png"))[None]
    assert np.allclose(run.predict(image), probs[1:], atol=1e-5)  # as `predict` does with its pixels
    assert Image.open(tmp_path / "out" / "answers.png").width > 500
    assert "2 pictures" in capsys.readouterr().out


def test_what_is_wrong_is_said(run, photos, tmp_path, capsys):
    (tmp_path / "broken.png").write_bytes(b"no picture")
    assert main([str(run.out), str(photos), "--out", str(tmp_path / "out")]) == 1
    assert "broken.png: not a readable picture" in capsys.readouterr().err
    assert main(["nothing", str(photos)]) == 1
    assert "no reference is called 'nothing'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
