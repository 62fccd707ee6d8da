"""Every figure draws the numbers it is given, on the axes it is given, in fixed colours."""

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.colors import to_hex

from fer_utils import galleries, plots
from fer_utils.competition import FER_CLASSES, Competition, Split
from fer_utils.figures import style
from fer_utils.learning.metrics import calibration_table, evaluate, per_class_table

STRANGERS = tuple(f"class {k}" for k in range(20))  # names that are no expressions


@pytest.fixture
def ax():
    yield plt.figure().subplots()
    plt.close("all")


@pytest.fixture
def pair():
    yield plt.figure().subplots(1, 2)
    plt.close("all")


def split_of(counts, size=16):
    """As many images of each class as `counts` says, all pixels of class k at level 10 * (k + 1)."""
    labels = np.repeat(np.arange(len(counts)), counts)
    images = np.broadcast_to(
        (10 * (labels + 1)).astype(np.uint8)[:, None, None, None], (len(labels), 1, size, size)
    )
    return Split(images.copy(), labels, np.arange(len(labels)).astype(str))  # fmt: skip


def scores_of(names, hits=7, n=10):
    """`hits` of `n` images of each class are right, the others taken for the next class."""
    labels = np.repeat(np.arange(len(names)), n)
    preds = np.where(np.arange(len(labels)) % n < hits, labels, (labels + 1) % len(names))
    probs = np.full((len(labels), len(names)), 0.3 / (len(names) - 1))
    probs[np.arange(len(labels)), preds] = 0.7
    return probs, labels, evaluate(probs, labels, names)


def competition_of(names):
    train, valid = split_of([8 + k for k in range(len(names))]), split_of([2] * len(names))
    return Competition(train, valid, valid.without_labels(), names, tuple(range(len(names))))


def light_of(counts, names):
    """A contrast for as many images of each class as `counts` says."""
    labels = pd.Categorical.from_codes(np.repeat(np.arange(len(counts)), counts), categories=names)
    return pd.DataFrame({"label": labels, "contrast": np.random.default_rng(0).random(sum(counts))})


def history(epochs=3, average=True):
    table = {"epoch": range(1, epochs + 1)}
    names = ["train_loss", "train_accuracy", "valid_loss", "valid_accuracy"]
    names += ["valid_loss_average", "valid_accuracy_average"] if average else []
    return pd.DataFrame(
        table | {name: np.linspace(0.1, 0.1 + 0.1 * k, epochs) for k, name in enumerate(names)}
    )


def texts(ax):
    return [text.get_text() for text in ax.texts]


def tick_names(axis):
    return [label.get_text() for label in axis.get_ticklabels()]


def canvas(ax):
    """The pixels of the images on the axes, white between them."""
    return ax.images[0].get_array().filled(255)


# --- colours and style ---


def test_each_expression_has_one_colour_whatever_the_others_are():
    alone = {name: plots.class_colors([name])[0] for name in FER_CLASSES}
    assert len(set(alone.values())) == len(FER_CLASSES)
    for names in (FER_CLASSES, FER_CLASSES[::-1], ("bored", *FER_CLASSES[2:5], "tired")):
        for name, color in zip(names, plots.class_colors(names), strict=True):
            assert name not in alone or color == alone[name]


@pytest.mark.parametrize("n", [2, 7, 12, 20])
def test_names_that_are_no_expressions_get_colours_too(n):
    colors = plots.class_colors(STRANGERS[:n])
    assert len(colors) == n and all(to_hex(color) for color in colors)
    assert len(set(colors)) == n and not set(colors) & set(style.EXPRESSION_COLORS.values())


def test_a_class_keeps_its_colour_in_whatever_order_it_is_shown():
    names = ["bored", "happy", "tired", "amused"]
    colors = dict(zip(names, plots.class_colors(names), strict=True))
    for name, color in zip(names[::-1], plots.class_colors(names[::-1]), strict=True):
        assert color == colors[name]


def test_figures_bring_their_own_white_paper_for_dark_themes(tmp_path, ax):
    with plt.rc_context():
        plots.set_style()
        assert plt.rcParams["figure.facecolor"] == plt.rcParams["savefig.facecolor"] == "white"
        path = plots.save_figure(ax.figure, tmp_path / "run", "classes")
    assert path == tmp_path / "run" / "figures" / "classes.png"
    assert plt.imread(path).shape[2] == 4 and plt.imread(path)[0, 0].tolist() == [1, 1, 1, 1]


# --- all of them ---

FIGURES = {
    "class_counts": lambda names, ax: plots.class_counts(competition_of(names), ax),
    "face_grid": lambda names, ax: galleries.face_grid(split_of([2] * len(names)).images, ax),
    "faces_by_class": lambda names, ax: galleries.faces_by_class(split_of([2] * len(names)), names, ax),
    "mean_faces": lambda names, ax: galleries.mean_faces(split_of([2] * len(names)), names, ax),
    "mean_differences": lambda names, ax: galleries.mean_differences(split_of([2] * len(names)), names, ax),
    "face_rows": lambda names, ax: galleries.face_rows({n: split_of([3]).images for n in names}, ax),
    "confusion": lambda names, ax: plots.confusion_matrix(scores_of(names)[2]["confusion"], names, ax),
    "recall_bars": lambda names, ax: plots.recall_bars(per_class_table(scores_of(names)[2]), ax),
    "reliability": lambda names, ax: plots.reliability(calibration_table(*scores_of(names)[:2]), ax),
    "accuracy_intervals": lambda names, ax: plots.accuracy_intervals(
        {name: scores_of(names)[2] for name in names}, ax
    ),
    "boxes": lambda names, ax: plots.boxes(light_of([4] * len(names), names), "contrast", "label", ax),
}


@pytest.mark.parametrize("names", [STRANGERS[:2], STRANGERS], ids=["2", "20"])
@pytest.mark.parametrize("figure", FIGURES)
def test_every_figure_is_drawn_on_the_axes_given_and_returns_them(figure, names, ax):
    assert FIGURES[figure](names, ax) is ax
    assert ax.has_data() and plt.get_fignums() == [ax.figure.number], "no other figure was opened"
    ax.figure.canvas.draw()


# --- classes ---


def test_class_counts_shows_shares_as_lengths_and_counts_as_text(ax):
    train, valid = split_of([30, 10]), split_of([1, 4])
    competition = Competition(train, valid, valid.without_labels(), ("happy", "sad"), (0, 1))
    plots.class_counts(competition, ax)
    assert [bar.get_width() for bar in ax.patches] == pytest.approx([75, 25, 20, 80])
    assert texts(ax) == ["train 30", "train 10", "valid 1", "valid 4"]  # the hidden split is left out
    assert tick_names(ax.yaxis) == ["happy", "sad"] and ax.yaxis_inverted()
    assert to_hex(ax.patches[0].get_facecolor()) == style.EXPRESSION_COLORS["happy"]
    centres = [bar.get_y() + bar.get_height() / 2 for bar in ax.patches]
    assert np.round(centres).tolist() == [0, 1, 0, 1] and centres[0] < centres[2]


# --- faces ---


def test_face_grid_lays_out_images_in_rows_of_columns(ax):
    images = split_of([1] * 5).images
    galleries.face_grid(images, ax, columns=2)
    step, pixels = 16 + 2, canvas(ax)
    assert pixels.shape == (3 * step, 2 * step)
    for k in range(5):
        top, left = k // 2 * step, k % 2 * step
        assert (pixels[top : top + 16, left : left + 16] == 10 * (k + 1)).all()
    assert (pixels[2 * step :, step:] == 255).all(), "the place without an image stays white"


def test_face_grid_writes_a_caption_under_each_and_a_label_for_each_row(ax):
    galleries.face_grid(
        split_of([1] * 4).images, ax, 2, captions=["a", "b", "c", "d"], row_labels=["one", "two"]
    )
    assert texts(ax) == ["a", "b", "c", "d"] and tick_names(ax.yaxis) == ["one", "two"]
    x, y = np.array([text.get_position() for text in ax.texts]).T
    assert x[0] == x[2] < x[1] and y[0] == y[1] < y[2] and y[0] > 16, "under the image"


def test_face_grid_shows_grey_levels_as_they_are(ax):
    galleries.face_grid(np.full((1, 1, 8, 8), 100, np.uint8), ax)
    assert ax.images[0].get_clim() == (0, 255)


def test_faces_by_class_has_a_row_of_each_class_and_blanks_where_there_are_too_few(ax):
    galleries.faces_by_class(split_of([9, 2, 0]), FER_CLASSES[:3], ax, columns=4)
    faces = canvas(ax).reshape(3, 18, 4, 18)[:, 8, :, 8]  # one pixel of each
    assert faces.tolist() == [[10] * 4, [20, 20, 255, 255], [255] * 4]
    assert tick_names(ax.yaxis) == list(FER_CLASSES[:3])


def test_faces_by_class_chooses_by_seed_and_none_twice(pair):
    rng = np.random.default_rng(0)
    split = Split(rng.integers(0, 255, (40, 1, 8, 8), np.uint8), np.zeros(40, int), np.arange(40).astype(str))
    first, again = (canvas(galleries.faces_by_class(split, ["happy"], ax, 6)).copy() for ax in pair)
    other = canvas(galleries.faces_by_class(split, ["happy"], plt.figure().subplots(), 6, seed=1))
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    faces = first.reshape(10, 6, 10)[:8, :, :8]
    assert len(np.unique(faces.swapaxes(0, 1), axis=0)) == 6


def test_mean_faces_stretches_the_mean_of_each_class_and_counts_it(ax):
    ramp = np.arange(16, dtype=np.uint8)[None, None, :].repeat(16, 1)
    split = Split(np.stack([ramp, ramp + 4, 2 * ramp]), np.array([0, 0, 2]), np.array(["a", "b", "c"]))
    galleries.mean_faces(split, FER_CLASSES[:3], ax)
    pixels = canvas(ax)
    for left in (0, 2 * 18):
        assert pixels[0, left] == 0 and pixels[0, left + 15] == 255, "stretched to the full range"
    assert texts(ax) == ["angry\nn = 2", "disgust\nn = 0", "fear\nn = 1"]


def test_mean_differences_are_signed_and_leave_brightness_out(ax):
    half = np.zeros((1, 8, 8), np.uint8)
    half[..., :4] = 100
    split = Split(np.stack([half, half[..., ::-1]]), np.array([0, 1]), np.array(["a", "b"]))
    galleries.mean_differences(split, ["happy", "sad"], ax)
    pixels = canvas(ax)
    assert pixels[0, [0, 4, 10, 14]].tolist() == [255, 0, 0, 255], "red, blue, blue, red"
    title = ax.get_title(loc="left") + ax.get_title()
    assert texts(ax) == ["happy", "sad"] and title.endswith("full red +50, full blue -50 grey levels")


def test_face_rows_takes_bytes_floats_and_tensors(ax):
    rows = {"bytes": np.full((2, 1, 8, 8), 51, np.uint8), "floats": torch.full((2, 1, 8, 8), 0.2)}
    galleries.face_rows(rows, ax, captions=["1", "2", "3", "4"])
    assert set(np.unique(canvas(ax))) == {51, 255}
    assert tick_names(ax.yaxis) == ["bytes", "floats"] and texts(ax) == ["1", "2", "3", "4"]


# --- learning ---


@pytest.mark.parametrize(("average", "lines"), [(True, 3), (False, 2)])
def test_learning_curves_draw_loss_and_accuracy_in_percent(average, lines, pair):
    table = history(average=average)
    assert plots.learning_curves(table, pair, 2) is pair
    assert [len(ax.lines) for ax in pair] == [lines + 1, lines + 1]  # and the chosen epoch
    assert pair[0].lines[1].get_ydata().tolist() == pytest.approx(table.valid_loss.tolist())
    assert pair[1].lines[1].get_ydata().tolist() == pytest.approx((100 * table.valid_accuracy).tolist())
    assert [ax.get_xlabel() for ax in pair] == ["epoch", "epoch"]
    (legend,) = pair[0].figure.legends  # of both
    legend = [text.get_text() for text in legend.texts]
    assert ("valid, moving average" in legend) is average


def test_learning_curves_mark_the_chosen_epoch_and_bear_a_single_one(pair):
    plots.learning_curves(history(epochs=1), pair, chosen_epoch=1)
    for ax in pair:
        assert list(ax.lines[-1].get_xdata()) == [1, 1]
        ax.figure.canvas.draw()
    assert "chosen: epoch 1" in [text.get_text() for text in pair[0].figure.legends[0].texts]


# --- errors ---


def test_confusion_shows_the_share_of_each_true_class_with_its_count(ax):
    plots.confusion_matrix([[3, 1], [0, 1000]], ("happy", "sad"), ax)
    assert texts(ax) == ["75 %\n3", "25 %\n1", "0 %\n0", "100 %\n1,000"]
    assert ax.collections[0].get_array().ravel().tolist() == [75, 25, 0, 100]
    assert tick_names(ax.xaxis) == tick_names(ax.yaxis) == ["happy", "sad"]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("predicted", "true")


def test_confusion_bears_a_class_without_images(ax):
    plots.confusion_matrix([[2, 0], [0, 0]], ("happy", "sad"), ax)
    assert texts(ax) == ["100 %\n2", "0 %\n0"], "its row is empty"


def test_recall_bars_draw_recall_interval_count_and_colour(ax):
    table = per_class_table(scores_of(("happy", "sad"), hits=7, n=10)[2])
    plots.recall_bars(table, ax)
    assert [bar.get_width() for bar in ax.patches] == pytest.approx([70, 70])
    assert [to_hex(bar.get_facecolor()) for bar in ax.patches] == plots.class_colors(table.index)
    assert tick_names(ax.yaxis) == list(table.index) and ax.yaxis_inverted()  # the weakest on top
    assert [text.strip() for text in texts(ax)] == ["n = 10", "n = 10"]
    (low, _), (high, _) = ax.collections[0].get_segments()[0]
    assert (low, high) == pytest.approx((100 * table.recall_low.iloc[0], 100 * table.recall_high.iloc[0]))


def test_recall_bars_have_the_lowest_on_top(pair):
    labels = np.repeat([0, 1, 2], 10)
    preds = np.where(np.arange(30) % 10 < np.array([9, 2, 6])[labels], labels, (labels + 1) % 3)
    table = per_class_table(evaluate(np.eye(3)[preds], labels, ("happy", "sad", "fear")))
    for rows, ax in ((table, pair[0]), (table[::-1], pair[1])):
        plots.recall_bars(rows, ax)
        ax.figure.canvas.draw()
        heights = {label.get_text(): label.get_window_extent().y0 for label in ax.get_yticklabels()}
        assert max(heights, key=heights.get) == table.recall.idxmin() == "sad"  # as a person sees it


def test_recall_bars_bear_a_class_without_images(ax):
    labels = np.array([0, 0])
    table = per_class_table(evaluate(np.eye(2)[labels], labels, ("happy", "sad")))
    plots.recall_bars(table, ax)
    ax.figure.canvas.draw()
    assert next(label.get_text() for label in ax.get_yticklabels()) == "happy", "no class without images"
    assert any("n = 0" in text for text in texts(ax))


def test_predicted_shares_stand_beside_those_of_training(ax):
    names = ("sad", "happy", "fear")
    plots.predicted_shares(np.array([0, 0, 0, 1]), np.array([0, 1, 2, 2]), names, ax)
    assert [bar.get_height() for bar in ax.patches] == [75, 25, 0, 25, 25, 50]  # fear is never predicted
    predicted, training = ax.patches[:3], ax.patches[3:]
    assert [bar.get_facecolor()[3] for bar in (predicted[0], training[0])] == [1, 0]  # filled, outlined
    assert all(a.get_x() < b.get_x() for a, b in zip(predicted, training, strict=True))
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["predicted", "in training"]


def test_reliability_draws_accuracy_over_confidence_with_dots_sized_by_n(ax):
    shares = {"confidence": [0.1, 0.3, 0.8], "accuracy": [1.0, 0.2, 0.9]}
    table = pd.DataFrame(shares | {"n": [1, 20, 60]})  # of one image nothing is said
    plots.reliability(table, ax, label="plain")
    assert ax.collections[0].get_offsets().tolist() == [[30, 20], [80, 90]]
    small, large = ax.collections[0].get_sizes() - 10
    assert large == pytest.approx(3 * small)
    plots.reliability(pd.DataFrame(shares | {"n": [1, 2, 2]}), ax)
    assert len(ax.collections[1].get_offsets()) == 2  # there are no larger ones
    assert list(ax.lines[0].get_xdata()) == list(ax.lines[0].get_ydata()) == [0, 100]
    assert ax.get_legend_handles_labels()[1] == ["plain"]
    assert not ax.collections[0].get_clip_on()  # a bin without a hit is drawn whole


def test_accuracy_intervals_stand_in_order_with_their_ends(ax):
    scores = {
        "plain": {"accuracy": 0.6, "ci_low": 0.55, "ci_high": 0.64},
        "views": {"accuracy": 0.7, "ci_low": 0.65, "ci_high": 0.74},
    }
    plots.accuracy_intervals(scores, ax)
    assert tick_names(ax.yaxis) == ["plain", "views"] and ax.yaxis_inverted()
    assert texts(ax) == ["60.0", "70.0"]
    ends = [segment[:, 0].tolist() for segment in ax.collections[0].get_segments()]
    assert ends == [pytest.approx([55, 64]), pytest.approx([65, 74])]


# --- boxes ---


def test_boxes_by_class_are_in_the_colour_of_each_class_that_occurs(ax):
    table = light_of([5, 0, 6], ["angry", "happy", "sad"])
    plots.boxes(table, "contrast", "label", ax)
    colors = [style.EXPRESSION_COLORS[name] for name in ("angry", "sad")]
    assert [to_hex(box.get_edgecolor()) for box in ax.patches] == colors
    assert [label.get_text() for label in ax.get_yticklabels()] == ["angry", "sad"]
    middle = [line.get_xdata()[0] for line in ax.lines if to_hex(line.get_color()) == to_hex(style.DARK)]
    medians = table.groupby("label", observed=True).contrast.median()
    assert [m for m in medians if m in middle] == medians.tolist()
    assert (ax.get_xlabel(), ax.get_title(loc="center") or ax.get_title(loc="left")) == (
        "contrast (grey levels)",
        "Contrast by class",
    )


def test_boxes_by_split_are_those_of_the_splits_that_occur(ax):
    splits = pd.Categorical(["train"] * 6 + ["test"] * 6, categories=["train", "valid", "test"])
    table = pd.DataFrame({"split": splits, "brightness": np.random.default_rng(0).random(12)})
    plots.boxes(table, "brightness", "split", ax)
    assert len(ax.patches) == 2
    assert [label.get_text() for label in ax.get_yticklabels()] == ["train", "test"]


def test_a_gallery_of_a_table_shows_the_images_of_its_index():
    split = split_of([3, 3])
    rows = pd.DataFrame({"true": ["sad", "happy"], "confidence": [0.876, 0.5]}, index=[4, 1])
    fig = galleries.table_gallery(split.images, rows, "is {true}\n{confidence:.0%}", columns=2)
    (ax,) = fig.axes
    assert [text.get_text() for text in ax.texts] == ["is sad\n88 %", "is happy\n50 %"]
    canvas = ax.images[0].get_array()
    assert (canvas[:16, :16] == 20).all() and (canvas[:16, 18:34] == 10).all()
    plt.close(fig)
    empty = galleries.table_gallery(split.images, rows[:0], "{true}")
    assert empty.axes[0].texts[0].get_text() == "none"
    plt.close(empty)


def test_maps_lie_exactly_on_their_faces(ax):
    images = split_of([2, 3]).images
    maps = np.arange(5.0)[:, None, None] * np.ones((16, 16))
    galleries.face_grid(images, ax, columns=3, captions=list("abcde"), maps=maps)
    canvas, heat = (image.get_array() for image in ax.images)
    for k in range(5):
        place = heat == k
        assert place.sum() == 256
        assert (canvas[place] == images[k].ravel()).all()
    assert np.isnan(np.asarray(heat.filled(np.nan))).sum() == heat.size - 5 * 256
