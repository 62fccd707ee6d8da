"""The figures of the error analysis draw the numbers they are given."""

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from fer_utils.figures import faces, plots, style
from fer_utils.figures.table_style import readable
from fer_utils.learning.metrics import coverage_table, evaluate, per_class_table

NAMES = ("angry", "happy", "sad")


@pytest.fixture
def ax():
    yield plt.figure().subplots()
    plt.close("all")


def case(n=90, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 3
    logits = rng.normal(size=(n, 3)) + 1.5 * np.eye(3)[labels]
    probs = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return probs, labels, rng.integers(0, 255, (n, 1, 16, 16), dtype=np.uint8)


def title(ax):
    return ax.get_title(loc="left") + ax.get_title()


def test_intervals_are_coloured_only_where_they_are_sure(ax):
    table = pd.DataFrame(
        {"gain": [2.0, 0.5, -3.0, np.nan], "low": [1, -1, -4, np.nan], "high": [3, 2, -2, np.nan]}
    )
    sure = np.array([True, False, True, False])
    assert plots.intervals(["a", "b", "c", "d"], table, ax, "gain", sure) is ax
    dots = ax.collections[-1]
    colors = [matplotlib.colors.to_hex(color) for color in dots.get_facecolors()]
    assert colors[:3] == [style.BLUE, style.GREY, style.RED]
    assert np.isnan(dots.get_offsets()[3, 0]) or np.ma.getmaskarray(dots.get_offsets())[3, 0]  # no dot
    assert [text.get_text() for text in ax.get_yticklabels()] == ["a", "b", "c", "d"]
    assert ax.yaxis_inverted()


def test_precision_and_recall_stand_on_their_intervals(ax):
    probs, labels, _ = case()
    table = per_class_table(evaluate(probs, labels, NAMES))
    plots.precision_and_recall(table, ax)
    places = [
        collection.get_offsets()[:, 0] for collection in ax.collections if len(collection.get_offsets()) == 3
    ]
    assert np.allclose(places[0], 100 * table.recall)
    assert np.allclose(places[1], 100 * table.precision)
    assert (table.precision_low < table.precision).all() and (table.precision < table.precision_high).all()


def test_a_class_that_is_never_predicted_has_no_precision(ax):
    labels = np.array([0, 1, 2, 2])
    table = per_class_table(evaluate(np.eye(3)[[0, 1, 0, 1]], labels, NAMES))
    plots.precision_and_recall(table, ax)
    recall, precision = (dots.get_offsets()[:, 0] for dots in ax.collections[1::2])
    missed = table.index.get_loc("sad")
    assert recall[missed] == 0
    assert np.ma.getmaskarray(precision)[missed] or np.isnan(precision[missed])


def test_coverage_ends_at_the_accuracy_of_all(ax):
    probs, labels, _ = case()
    plots.coverage(coverage_table(probs, labels), ax)
    assert ax.lines[0].get_ydata()[-1] == pytest.approx(100 * (probs.argmax(1) == labels).mean())


def test_boxes_lie_where_the_regions_are(ax):
    regions = {"eyes": (slice(4, 6), slice(2, 14)), "mouth": (slice(10, 13), slice(5, 11))}
    plots.region_boxes(np.zeros((16, 16)), regions, ax)
    first = ax.patches[0]
    assert (first.get_x(), first.get_y(), first.get_width(), first.get_height()) == (1.5, 3.5, 12, 2)
    assert [text.get_text() for text in ax.texts] == ["eyes", "mouth"]


def test_mean_maps_name_the_classes_that_they_lack(ax):
    _, labels, images = case()
    present = labels != 1
    faces.mean_maps(images[present], np.ones((60, 16, 16)), labels[present], NAMES, ax)
    assert [text.get_text() for text in ax.texts] == ["angry\nn = 30", "sad\nn = 30"]
    assert title(ax) == "Mean map of the correct predictions; none is correct for happy"
    plt.figure()
    faces.mean_maps(images, np.ones((90, 16, 16)), labels, NAMES, plt.gca())
    assert title(plt.gca()) == "Mean map of the correct predictions"


def test_lost_points_are_bars_with_their_interval(ax):
    table = pd.DataFrame(
        {"lost": [9.0, 1.0], "low": [6.0, -1.0], "high": [12.0, 3.0], "n": 300}, ["mouth", "chin"]
    )
    plots.loss_bars(table, ax)
    assert [bar.get_width() for bar in ax.patches] == [9, 1]
    assert "n = 300" in title(ax)


def test_slices_are_named_with_their_number(ax):
    table = {
        "what": ["brightness"],
        "which": ["lowest"],
        "n": [1200],
        "gap": [-0.1],
        "p_corrected": [0.01],
        "low": [-0.2],
        "high": [0.0],
    }
    plots.slice_gaps(pd.DataFrame(table), ax)
    assert [text.get_text() for text in ax.get_yticklabels()] == ["brightness lowest (n = 1,200)"]
    assert ax.collections[-1].get_offsets()[0].tolist() == [-10, 0]


def test_mean_maps_of_nothing_are_an_empty_figure(ax):
    _, labels, images = case()
    faces.mean_maps(images[:0], np.ones((0, 16, 16)), labels[:0], NAMES, ax)
    assert not ax.texts and title(ax).endswith("none is correct for angry, happy, sad")


def errors_of(true, predicted, sure):
    return pd.DataFrame({"true": true, "predicted": predicted, "confidence": sure})


def test_each_kind_of_error_is_a_row_of_faces_with_their_confidence():
    _, _, images = case()
    errors = errors_of(["sad", "sad", "happy"], ["angry", "angry", "sad"], [0.9, 0.42, 0.5])
    axs = plt.figure().subplots(3)
    faces.error_rows(images, errors, axs)
    assert (
        title(axs[0]) == "sad taken for angry: 2 errors" and title(axs[1]) == "happy taken for sad: 1 errors"
    )
    assert sorted(text.get_text() for text in axs[0].texts) == ["42 %", "90 %"]
    assert not axs[2].axison
    faces.error_rows(images, errors[:0], axs := plt.figure().subplots(3))
    assert title(axs[0]) == "There are no errors" and not any(ax.images for ax in axs)
    plt.close("all")


def test_tables_have_words_and_units_and_no_nan():
    table = pd.DataFrame(
        {"n": [1234, 5], "share": [0.1234, np.nan], "gap": [-0.02, 0.0], "p": [0.000123, 0.5]}
    )
    words = {"n": "images", "share": "of all, %", "gap": "points", "p": "p"}
    html = readable(table.assign(hidden=1), words).to_html()
    cells = [cell.split(">")[-1] for cell in html.split("</td>")[:-1]]
    assert cells == ["1,234", "12.3", "-2.0", "0.00012", "5", "none", "+0.0", "0.5"]
    assert "nan" not in html.lower() and "hidden" not in html
