"""Widgets: what a person chooses is what is shown; outside interactive sessions there are none."""

import time

import numpy as np
import pandas as pd
import pytest
import torch

from fer_utils import progress, widgets
from fer_utils.config import Config
from fer_utils.figures.widgets import browse_faces, chosen_faces, try_strengths

N = 60


@pytest.fixture
def looking(monkeypatch):
    pytest.importorskip("ipywidgets")
    monkeypatch.setenv("JPY_SESSION_NAME", "notebook.ipynb")


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 255, (N, 1, 20, 20), dtype=np.uint8)


@pytest.fixture
def table():
    rng = np.random.default_rng(1)
    names = np.array(["happy", "sad", "fear"])
    frame = pd.DataFrame(
        {"true": names[rng.integers(3, size=N)], "predicted": names[rng.integers(3, size=N)]}
    )
    frame["confidence"] = rng.uniform(0.2, 1, N)
    frame["answer"] = np.where(frame.true == frame.predicted, "right", "wrong")
    return frame


def parts(widget):
    """Menus by name, the range of confidence, the buttons, the words and the image of a browser."""
    controls, turning, picture = widget.children
    *menus, confidence = controls.children
    back, forth, place = turning.children
    return {menu.description: menu for menu in menus}, confidence, back, forth, place, picture


def test_faces_are_chosen_by_all_that_is_set(table):
    chosen = chosen_faces(table, (0.5, 0.9), answer="wrong", true="sad", predicted="any")
    expected = table[(table.answer == "wrong") & (table.true == "sad") & table.confidence.between(0.5, 0.9)]
    assert sorted(chosen.index) == sorted(expected.index) and 0 < len(chosen) < N
    assert chosen.confidence.is_monotonic_decreasing
    assert len(chosen_faces(table)) == N


def test_menus_and_pages_change_the_image(looking, images, table):
    widget = browse_faces(images, table, ["answer", "true"], "{true}\n{predicted}", answer="wrong")
    menus, confidence, back, forth, place, picture = parts(widget)
    wrong = (table.answer == "wrong").sum()
    assert place.value == f"faces 1 to 24 of {wrong}" and back.disabled and not forth.disabled
    first = bytes(picture.value)
    assert first.startswith(b"\x89PNG")
    forth.click()
    assert place.value == f"faces 25 to {min(48, wrong)} of {wrong}" and picture.value != first
    back.click()
    assert picture.value == first and back.disabled
    forth.click()
    menus["true"].value = "sad"
    few = ((table.answer == "wrong") & (table.true == "sad")).sum()
    assert place.value == f"faces 1 to {few} of {few}"  # a new choice begins at its first page
    assert back.disabled and forth.disabled
    confidence.value = (0.0, 0.1)
    assert place.value == "no face fits these choices"
    assert menus["answer"].options == ("any", "right", "wrong")


def test_a_start_that_no_face_has_is_passed_over(looking, images, table):
    widget = browse_faces(images, table[table.answer == "right"], ["answer"], "{true}", answer="wrong")
    menus, *_ = parts(widget)
    assert menus["answer"].value == "any"


def test_sliders_change_the_draws(looking):
    faces = torch.rand(12, 1, 20, 20)
    generator = torch.Generator().manual_seed(0)
    widget = try_strengths(faces, Config(erase=0.3), {"rotate": 180.0, "erase": 1.0}, generator)
    sliders, picture = widget.children[0].children, widget.children[1]
    assert [(s.description, s.value, s.max) for s in sliders] == [
        ("rotate", 10.0, 180.0),
        ("erase", 0.3, 1.0),
    ]
    before = bytes(picture.value)
    sliders[0].value = 90.0
    assert picture.value != before and bytes(picture.value).startswith(b"\x89PNG")


def test_there_are_no_widgets_outside_interactive_sessions(monkeypatch, images, table):
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
    assert browse_faces(images, table, ["true"], "{true}") is None
    assert try_strengths(torch.rand(2, 1, 20, 20), Config(), {"rotate": 180.0}, torch.Generator()) is None
    monkeypatch.setenv("JPY_SESSION_NAME", "notebook.ipynb")
    monkeypatch.setattr(progress, "find_spec", lambda name: None)
    assert browse_faces(images, table, ["true"], "{true}") is None
    assert progress.bar([1, 2], "work") == [1, 2]


def test_figures_of_pages_are_closed(looking, images, table):
    widgets.plt.close("all")
    widget = browse_faces(images, table, ["true"], "{true}")
    start = time.perf_counter()
    parts(widget)[3].click()
    print(f"a page turn takes {time.perf_counter() - start:.2f} s")
    assert not widgets.plt.get_fignums()
