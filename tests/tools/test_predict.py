"""Answers for a person's own images."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from fer_utils import Config, fit
from fer_utils.analysis.ensemble import save_ensemble, score_ensemble
from fer_utils.learning.metrics import evaluate
from tools.predict import main

pytestmark = pytest.mark.once


@pytest.fixture(scope="module")
def run(tiny, tmp_path_factory):
    out = tmp_path_factory.mktemp("run")
    return fit(
        Config(
            out=str(out), image_size=20, model="small", width=0.125, epochs=1, precision="fp32", device="cpu"
        ),
        tiny,
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
    assert np.allclose(probs.sum(1), 1, atol=1e-4) and np.allclose(probs.max(1), table.confidence)
    assert table.answer.tolist() == [run.class_names[k] for k in probs.argmax(1)]
    image = np.array(Image.open(photos / "b.png"))[None]
    assert np.allclose(run.predict(image), probs[1:], atol=1e-5)  # as `predict` does with its pixels
    assert Image.open(tmp_path / "out" / "answers.png").width > 500
    assert "2 images" in capsys.readouterr().out


def test_an_ensemble_answers_with_the_average_of_its_runs(run, tiny, photos, tmp_path, capsys):
    other = fit(replace(run.config, out=str(tmp_path / "other"), seed=1), tiny)
    first = fit(replace(run.config, out=str(tmp_path / "first")), tiny)
    probs = np.stack([each.saved_probs() for each in (first, other)])
    scores = score_ensemble(probs, tiny.valid.labels, tiny.class_names)
    scores["ensemble"] = evaluate(probs.mean(0), tiny.valid.labels, tiny.class_names)
    save_ensemble([first, other], tiny, tmp_path / "both", scores)
    assert main([str(tmp_path / "both"), str(photos / "b.png"), "--out", str(tmp_path / "out")]) == 0
    image = np.array(Image.open(photos / "b.png"))[None]
    expected = (first.predict(image) + other.predict(image)) / 2
    table = pd.read_csv(tmp_path / "out" / "answers.csv")
    assert np.allclose(table[list(tiny.class_names)].to_numpy(), expected, atol=1e-5)
    (tmp_path / "other").rename(tmp_path / "moved")
    assert main([str(tmp_path / "both"), str(photos / "b.png")]) == 1
    assert (
        "not all of the runs that this ensemble averages (../first, ../other) are there, seen from its folder"
        in capsys.readouterr().err
    )


def test_what_is_wrong_is_said(run, photos, tmp_path, capsys):
    (tmp_path / "broken.png").write_bytes(b"no image")
    assert main([str(run.out), str(photos), "--out", str(tmp_path / "out")]) == 1
    assert "broken.png: not a readable image" in capsys.readouterr().err
    assert main(["nothing", str(photos)]) == 1
    assert "no reference is called 'nothing'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
