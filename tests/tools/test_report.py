"""The HTML page of a run or an ensemble: complete, true to metrics.json, closed to the network, in words."""

import base64
import dataclasses
import io
import json
import shutil
from html.parser import HTMLParser

import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image

from fer_utils import Config, DataError, fit, load_competition, load_run
from fer_utils.analysis.ensemble import save_ensemble, score_ensemble
from fer_utils.learning.metrics import evaluate
from tools import report_figures
from tools.report import main, write_report
from tools.report_ensemble import facts, load_ensemble
from tools.report_figures import LEAST_CONTRAST, PAPER, contrast, figure, readable
from tools.report_sections import shown_value

pytestmark = pytest.mark.once


class Page(HTMLParser):
    """Tags with their attributes, and the words between them."""

    def __init__(self, path):
        super().__init__()
        self.tags, self.words = [], []
        self.text = path.read_text(encoding="utf-8")
        self.feed(self.text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.words.append(data)

    @property
    def said(self):
        return " ".join(" ".join(self.words).split())

    def all(self, name):
        return [attributes for tag, attributes in self.tags if tag == name]


@pytest.fixture(scope="module", autouse=True)
def coarse_figures():
    """A quarter of the dots each way: what the tests look at is the same, and is drawn faster."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report_figures, "DPI", 50)
        yield


@pytest.fixture
def words_alone(monkeypatch):
    """Figures are made but not drawn, which takes most of the time of a page: it is about the words."""
    monkeypatch.setattr(report_figures.plots, "png_bytes", lambda fig, dpi: plt.close(fig) or b"no image")


@pytest.fixture(scope="module")
def competition(tiny):
    return dataclasses.replace(
        tiny, class_names=("angry", "<script>alert(1)</script>", "sad & low", "neutral")
    )


@pytest.fixture(scope="module")
def run(competition, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "first & only"
    knobs = {"image_size": 20, "model": "small", "width": 0.125, "epochs": 2}
    knobs |= {"precision": "fp32", "device": "cpu"}
    return fit(Config(data="/home/ada/secret place/faces", out=str(out), **knobs), competition)


@pytest.fixture(scope="module")
def page(run, competition, tmp_path_factory):
    return Page(write_report(run, competition, tmp_path_factory.mktemp("page") / "report.html"))


def test_results_come_first_and_equal_the_metrics(page, run):
    scores = run.metrics["valid"]
    order = [page.said.index(word) for word in (
        f"{100 * scores['views']['accuracy']:.1f} % of the validation images", "valid accuracy, plain",
        "By class", "How it learned", "Which classes are confused", "How sure it is", "Where it errs",
        "How it was made", "Every parameter", "Versions and hardware",
    )]  # fmt: skip
    assert order == sorted(order)
    for kind in ("views", "plain"):
        low, high = (100 * scores[kind][key] for key in ("ci_low", "ci_high"))
        assert f"{low:.1f} to {high:.1f} (95 %), n = 20" in page.said
    recall = 100 * scores["views"]["per_class"]["neutral"]["recall"]
    assert f"neutral {recall:.0f} % (" in page.said
    assert "width 0.125" in page.said  # the config
    assert "first & only" in page.said
    assert len([head for head in page.all("th") if head["scope"] == "row"]) > 60  # each class and each knob


def test_the_training_time_is_in_hours_minutes_and_seconds(run, tmp_path):
    slow = with_metrics(run, tmp_path / "run", seconds=2580.4)
    said = Page(write_report(slow, None, tmp_path / "report.html")).said
    assert "training time 0:43:00" in said and "epochs 2, epoch " in said
    threads = run.folder.record()["environment"]["threads"]
    assert f", {threads} thread{'s' * (threads != 1)} used data" in said


def test_every_figure_is_within_and_described_in_words(page):
    images = page.all("img")
    assert len(images) == 4
    for image in images:
        assert image["src"].startswith("data:image/png;base64,")
        assert base64.b64decode(image["src"].split(",")[1]).startswith(b"\x89PNG")
        assert len(image["alt"]) > 40 and image["alt"].endswith(".")
    assert page.text.count("<picture>") == page.text.count("</picture>") == 4  # or dark ones are never shown
    dark = page.all("source")
    assert [source["media"] for source in dark] == ["screen and (prefers-color-scheme: dark)"] * 4
    for source, image in zip(dark, images, strict=True):
        papers = [corner(drawn) for drawn in (source["srcset"], image["src"])]
        assert papers == [(20, 24, 29), (255, 255, 255)]  # that of the page
    assert any("Confusion matrix: most often" in image["alt"] for image in images)


def corner(source):
    """The colour of an image's corner."""
    return Image.open(io.BytesIO(base64.b64decode(source.split(",")[1]))).convert("RGB").getpixel((0, 0))


def test_lines_of_any_colour_are_seen_on_dark_paper():
    assert contrast("white", "black") == pytest.approx(21)
    for color in ("black", "#1b1b1b", "#0072b2", "#444444", (0.2, 0, 0, 0.5)):
        assert contrast(readable(color)[:3], PAPER) >= LEAST_CONTRAST
    assert readable("#ffd000") == (1, pytest.approx(208 / 255), 0, 1)  # light enough as it is
    assert readable((0.2, 0, 0, 0.5))[3] == 0.5

    drawn = []

    def draw(ax):
        ax.plot([0, 1], color="black", label="line")
        ax.scatter([0, 1], [0, 1], color="black")
        ax.legend()
        drawn.append(ax)

    assert figure(draw, 2.0)["width"] == 4
    light, dark = drawn
    assert light.lines[0].get_color() == "black" and plt.rcParams["figure.facecolor"] != PAPER
    for color in (
        dark.lines[0].get_color(),
        dark.collections[0].get_facecolor()[0],
        dark.get_legend().get_lines()[0].get_color(),
        dark.xaxis.label.get_color(),
    ):
        assert contrast(color, PAPER) >= LEAST_CONTRAST


def test_it_loads_and_runs_nothing(page):
    assert not {"script", "link", "iframe", "object", "form"} & {tag for tag, _ in page.tags}
    for tag, attributes in page.tags:
        assert not {name for name in attributes if name.startswith("on")}
        assert all(
            attributes[name].startswith("data:") for name in ("src", "srcset", "href") if name in attributes
        ), tag
    policy = next(meta for meta in page.all("meta") if meta.get("http-equiv") == "Content-Security-Policy")
    assert policy["content"].startswith("default-src 'none'")
    assert "@import" not in page.text and "url(" not in page.text
    assert len(page.text) < 5e6
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in page.all("meta")
    assert "prefers-color-scheme: dark" in page.text


def test_words_of_the_data_stay_words_and_places_stay_private(page):
    assert "<script>alert(1)</script>" in page.said and "sad & low" in page.said
    assert "faces" in page.said and "secret place" not in page.text and "ada" not in page.said.split()
    for name in ("data", "out", "label_fixes", "pseudo", "auxiliary"):
        assert shown_value(name, "/home/ada/secret place/votes") == "votes"


def test_the_same_run_gives_the_same_bytes(page, run, competition, tmp_path):
    assert write_report(run, competition, tmp_path / "again.html").read_text(encoding="utf-8") == page.text


@pytest.mark.usefixtures("words_alone")
def test_without_data_the_page_says_why(run, page, tmp_path):
    bare = Page(write_report(run, None, tmp_path / "report.html", "name its place with --data."))
    assert "The faces are left out: name its place with --data." in bare.said
    assert len(bare.all("img")) == 3
    assert "mind its licence" in page.said and "mind its licence" not in bare.said


def with_metrics(run, out, data="elsewhere", layout="tiny", **training):
    """The run in another folder, with some of its record and of its training changed."""
    out.mkdir()
    for path in run.out.glob("*.npz"):
        (out / path.name).write_bytes(path.read_bytes())
    kept = json.loads((run.out / "config.json").read_text())
    kept["record"]["layout"] = layout
    (out / "config.json").write_text(json.dumps(kept))
    metrics = run.metrics | {"training": run.metrics["training"] | training}
    return dataclasses.replace(
        run, out=out, config=dataclasses.replace(run.config, data=data), metrics=metrics
    )


def with_views(run, **changed):
    """The run with other numbers of the validation split."""
    valid = run.metrics["valid"] | {"views": run.metrics["valid"]["views"] | changed}
    return dataclasses.replace(run, metrics=run.metrics | {"valid": valid})


@pytest.mark.usefixtures("words_alone")
def test_confused_pairs_need_no_faces(run, tmp_path):
    confusion = 3 * np.eye(4, dtype=int)
    confusion[1, 3], confusion[3, 1], confusion[0, 2] = 3, 4, 1
    page = Page(write_report(with_views(run, confusion=confusion.tolist()), None, tmp_path / "report.html"))
    assert "/ neutral 7 88 % 4 neutral taken for <script>alert(1)</script>" in page.said
    assert (
        "Confusion matrix: most often neutral is taken for <script>alert(1)</script>, in 4 of 7 images."
        in [image["alt"] for image in page.all("img")]
    )


@pytest.mark.usefixtures("words_alone")
def test_a_pair_that_is_confused_both_ways_alike_says_so(run, tmp_path):
    confusion = 3 * np.eye(4, dtype=int)
    confusion[1, 3] = confusion[3, 1] = 2
    page = Page(write_report(with_views(run, confusion=confusion.tolist()), None, tmp_path / "report.html"))
    assert "/ neutral 4 100 % both ways alike" in page.said


@pytest.mark.usefixtures("words_alone")
def test_a_run_as_good_as_guessing_or_that_could_not_learn_says_so_loudly(run, page, tmp_path):
    assert "always answering angry 25.0 %" in page.said  # 5 of 20
    better = with_views(run, accuracy=0.9, ci_low=0.7)
    assert "Not shown" not in Page(write_report(better, None, tmp_path / "better.html")).said
    guess = with_views(run, accuracy=0.25, ci_low=0.1)
    guess = dataclasses.replace(guess, config=dataclasses.replace(run.config, learning_rate=1e-4))
    said = Page(write_report(guess, None, tmp_path / "guess.html")).said
    assert "Not shown to be better than always answering angry: 25.0 %." in said
    assert "Warning: learning_rate 0.0001 is far too low for muon" in said


@pytest.mark.usefixtures("words_alone")
def test_the_test_split_is_told_where_its_labels_are_known(run, page, tmp_path):
    assert "test accuracy" not in page.said
    scores = {key: run.metrics["valid"][key] | {"accuracy": 0.321} for key in ("views", "plain")}
    told = dataclasses.replace(run, metrics=run.metrics | {"test": scores | {"without_copies": None}})
    told.metrics["test"]["without_copies"] = scores["plain"]
    said = Page(write_report(told, None, tmp_path / "report.html")).said
    assert "test accuracy, plain 32.1 %" in said
    assert "test accuracy without exact copies of training and validation images 32.1 %" in said
    assert "valid accuracy without exact copies of training images" in said


@pytest.mark.usefixtures("words_alone")
@pytest.mark.parametrize("data, layout", [("demo", "tiny"), ("auto", "demo")])
def test_demo_and_time_limit_are_said_loudly(run, competition, tmp_path, data, layout):
    better = with_views(run, accuracy=0.9, ci_low=0.7)
    stopped = with_metrics(better, tmp_path / "run", data, layout, out_of_time=True, epochs=1)
    page = Page(write_report(stopped, competition, tmp_path / "report.html"))
    assert "Drawn demo faces, not a competition" in page.said
    assert "The errors with most confidence" in page.said and "licence" not in page.said
    assert "Stopped by max_hours after 1 of 2 epochs" in page.said
    assert len([tag for tag in page.all("p") if tag.get("class") == "loud"]) == 2


@pytest.mark.usefixtures("words_alone")
def test_folds_say_that_no_image_measures_their_average(run, tmp_path):
    page = Page(write_report(dataclasses.replace(run, folds=(run, run)), None, tmp_path / "folds.html"))
    assert "the one of 2 networks that did not learn from it. The submission is the average" in page.said


@pytest.mark.usefixtures("words_alone")
def test_a_run_that_lost_patience_says_so_and_a_whole_one_is_not_loud(run, tmp_path):
    run = with_views(run, accuracy=0.9, ci_low=0.7)
    page = Page(write_report(run, None, tmp_path / "whole.html"))
    early = Page(write_report(with_metrics(run, tmp_path / "run", epochs=1), None, tmp_path / "report.html"))
    assert "Stopped early after 1 of 2 epochs" in early.said
    assert not [tag for tag in page.all("p") if tag.get("class") == "loud"]


def test_names_that_are_no_formulas_and_classes_that_never_occur(run, tmp_path):
    names = ("cash$", "x$\\frac$y", "a" * 60, "never")
    views = evaluate(np.eye(4)[[0, 1, 2, 2]], np.array([0, 1, 2, 0]), names)
    odd = dataclasses.replace(with_views(run, **views), class_names=names)
    said = Page(write_report(odd, None, tmp_path / "report.html")).said
    assert "never none none none 0" in said and "nan" not in said.split()
    assert "x$\\frac$y" in said and "a" * 60 in said


def test_a_run_without_errors_has_a_page_too(run, competition, tmp_path):
    labels = competition.valid.labels
    probs = np.full((20, 4), 0.01, np.float32) + 0.96 * np.eye(4, dtype=np.float32)[labels]
    for name in ("config.json", "valid.npz"):
        (tmp_path / name).write_bytes((run.out / name).read_bytes())
    np.savez(tmp_path / "valid.npz", ids=competition.valid.ids, probs=probs, probs_views=probs, labels=labels)
    views = run.metrics["valid"]["views"] | {"confusion": (5 * np.eye(4, dtype=int)).tolist()}
    metrics = run.metrics | {"valid": run.metrics["valid"] | {"views": views}}
    perfect = dataclasses.replace(run, out=tmp_path, metrics=metrics)
    page = Page(write_report(perfect, competition, tmp_path / "report.html"))
    assert "It makes no error on the validation split." in page.said
    assert any(image["alt"] == "Confusion matrix; there is no error." for image in page.all("img"))


@pytest.mark.usefixtures("words_alone")
def test_the_command_writes_beside_the_run_or_names_what_is_wrong(tiny_folder, tmp_path, capsys):
    config = Config(
        data=str(tiny_folder), out=str(tmp_path / "run"), model="small", width=0.125, epochs=1, image_size=20
    )
    fit(config, load_competition(config.data, **config.data_options))
    assert main([str(tmp_path / "run")]) == 0
    assert len(Page(tmp_path / "run" / "report.html").all("img")) == 4
    assert "open it in a browser" in capsys.readouterr().out
    page = tmp_path / "run" / "report.html"
    said = Page(page).said  # what to do next, without this machine's paths
    assert (
        ".venv/bin/papermill notebooks/04_error_analysis.ipynb path/to/run/04.ipynb -p out path/to/run"
        in said
    )
    assert 'make submission DATA=path/to/data OUT=path/to/run-longer ARGS="-p epochs 2"' in said
    assert "make submit RUN=path/to/run COMPETITION=SLUG" in said and str(tmp_path) not in said
    assert main([str(tmp_path / "run"), "--data", str(tmp_path / "nowhere")]) == 0
    assert "no faces on the page" in capsys.readouterr().err
    assert "name its place with --data" in Page(page).said
    assert main([str(tmp_path / "run"), "--data", "demo"]) == 0  # another
    assert "is not the run's; name its place with --data" in Page(page).said
    assert main([str(tmp_path / "run"), "--no-faces"]) == 0
    assert len(Page(tmp_path / "run" / "report.html").all("img")) == 3
    assert main([str(tmp_path / "none")]) == 1
    assert f"there is no run in '{tmp_path / 'none'}': train it first" in capsys.readouterr().err
    (tmp_path / "run" / "metrics.json").unlink()
    assert main([str(tmp_path / "run")]) == 1
    assert "not a finished run, metrics.json is missing" in capsys.readouterr().err
    assert json.loads((tmp_path / "run" / "config.json").read_text())


# --- an ensemble ---


@pytest.fixture(scope="module")
def ensemble(competition, tmp_path_factory):
    """Of two runs that lie beside it, chosen from three."""
    folder = tmp_path_factory.mktemp("ensemble")
    knobs = {"image_size": 20, "model": "small", "width": 0.125, "data": "/home/ada/faces"}
    knobs |= {"precision": "fp32", "device": "cpu"}
    runs = [
        fit(Config(out=str(folder / f"seed{seed}"), seed=seed, epochs=seed + 1, **knobs), competition)
        for seed in range(3)
    ]
    rng, labels = np.random.default_rng(0), competition.valid.labels
    for run in runs:  # so short a training tells nothing: answers of which a half are right
        probs = rng.dirichlet(np.ones(4), 20) + 0.3 * np.eye(4)[labels]
        probs = (probs / probs.sum(1, keepdims=True)).astype(np.float32)
        np.savez(
            run.out / "valid.npz", ids=competition.valid.ids, probs=probs, probs_views=probs, labels=labels
        )
    members = np.stack([run.saved_probs() for run in runs])
    scores = score_ensemble(members, competition.valid.labels, competition.class_names)
    scores["chosen"] = [2, 0]
    scores["ensemble"] = evaluate(members[[2, 0]].mean(0), competition.valid.labels, competition.class_names)
    save_ensemble([runs[2], runs[0]], competition, folder / "both", scores)
    return load_ensemble(folder / "both")


def test_an_ensemble_has_a_page_of_its_own(ensemble, competition, tmp_path):
    page = Page(write_report(ensemble, competition, tmp_path / "report.html"))
    said = page.said[page.said.index("Report of the ensemble both") :]
    order = [said.index(word) for word in (
        "of the validation images are classified correctly", "most accurate candidate",
        "gain over that candidate", "Members", "What averaging gained", "How much they agree", "By class",
        "Which classes are confused", "How sure it is", "Where it errs", "How it was made",
    )]  # fmt: skip
    assert order == sorted(order) and order[0] < 60
    assert "members 2 of 3 candidates" in page.said
    assert "Left out: 1, since they did not lower the log loss" in page.said
    scores = ensemble.scores["scores"]
    assert f"seed2 small 2 {100 * scores[2]['accuracy']:.1f} % {scores[2]['log_loss']:.3f}" in page.said
    assert "epochs 3, 1" in page.said and "seed 2, 0" in page.said  # what differs, in their order
    assert "ada" not in page.said.split() and len(page.all("img")) == 4 == len(page.all("source"))


@pytest.mark.usefixtures("words_alone")
def test_the_gain_and_the_agreement_are_those_of_the_members(ensemble, competition, tmp_path):
    gain = ensemble.scores["against_best"]
    for change, words in (
        ({"difference": 0.1, "ci_low": 0.02, "p": 0.01}, "evidence of a gain"),
        ({"difference": -0.1, "ci_low": -0.2, "p": 0.01}, "evidence of a loss"),
        ({"difference": 0.1, "ci_low": -0.02, "p": 0.3}, "no evidence of a difference"),
    ):
        other = dataclasses.replace(ensemble, scores={**ensemble.scores, "against_best": {**gain, **change}})
        (value, more) = next(fact[1:] for fact in facts(other) if fact[0] == "gain over that candidate")
        assert value == f"{100 * change['difference']:+.1f} points"
        assert more.startswith(f"{100 * change['ci_low']:+.1f} to ") and more.endswith(f": {words}")
    said = Page(write_report(ensemble, None, tmp_path / "report.html")).said
    answers = [run.saved_probs().argmax(1) for run in ensemble.members]
    right = np.array(answers) == competition.valid.labels
    every, none = 100 * right.all(0).mean(), 100 * (~right).all(0).mean()
    assert f"All members are right on {every:.1f} % of the images, all are wrong on {none:.1f} %" in said
    assert 0 < none < every < 100
    assert f"seed0 {100 * (answers[0] == answers[1]).mean():.1f} 100.0" in said


@pytest.mark.usefixtures("words_alone")
def test_an_ensemble_without_its_members_says_what_is_not_measurable(ensemble, tmp_path):
    shutil.copytree(ensemble.out, tmp_path / "both")
    alone = load_ensemble(tmp_path / "both")
    assert alone.members == []
    page = Page(write_report(alone, None, tmp_path / "report.html", "nobody knows them."))
    assert "Agreement: not measurable here" in page.said and "How sure it is" not in page.said
    assert page.said.index("By class") < page.said.index("Where it errs")
    # Others of the same names are no members.
    for name in ensemble.names:
        shutil.copytree(ensemble.out.parent / "seed1", tmp_path / name)
    assert load_ensemble(tmp_path / "both").members == []
    fewer = tmp_path / ensemble.names[0] / "valid.npz"
    with np.load(fewer) as arrays:
        half = {name: array[::2] for name, array in arrays.items()}
    np.savez(fewer, **half)
    assert load_ensemble(tmp_path / "both").members == []
    assert main([str(tmp_path / "both")]) == 0


@pytest.mark.usefixtures("words_alone")
def test_one_member_has_nobody_to_agree_with(ensemble, tmp_path):
    scores = {**ensemble.scores, "members": ["seed2"], "chosen": [2], "scores": ensemble.scores["scores"][:3]}
    one = dataclasses.replace(ensemble, scores=scores, members=ensemble.members[:1])
    assert "nobody to agree with" in Page(write_report(one, None, tmp_path / "report.html")).said


def test_a_run_is_no_ensemble_and_an_ensemble_no_run(run, ensemble):
    assert load_ensemble(run.out) is None and load_ensemble(ensemble.out.parent / "seed0") is None
    with pytest.raises(DataError, match="is an ensemble: name one of its members"):
        load_run(ensemble.out)


# --- in a browser ---

# Tables that are cut, where all classes have names as long as an expression's.
CUT = r"""() => {
    const page = document.body;
    page.innerHTML = page.innerHTML.replace(/&lt;script&gt;.*?&lt;\/script&gt;/g, "surprise");
    return [...document.querySelectorAll(".wide")].filter(e => e.scrollWidth > e.clientWidth).length}"""
PLACES = """() => [...document.querySelectorAll("section, img")].map(
    e => [e.tagName, e.getBoundingClientRect().left, e.getBoundingClientRect().width])"""


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (Kaggle)")
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        pytest.skip("no Chromium here")
    with playwright.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.mark.parametrize("width, columns", [(390, 1), (768, 1), (1200, 2), (1440, 2)])
def test_it_fits_a_phone_a_tablet_and_a_desk(browser, page, tmp_path, width, columns):
    (tmp_path / "report.html").write_text(page.text, encoding="utf-8")
    shown = browser.new_page(viewport={"width": width, "height": 900}, color_scheme="dark")
    shown.goto(f"file://{tmp_path}/report.html")
    places = shown.evaluate(PLACES)
    assert shown.evaluate("document.documentElement.scrollWidth") == width
    dark = shown.evaluate("[...document.images].map(image => image.currentSrc)")
    pages = shown.pdf(format="A4")
    cut = shown.evaluate(CUT)
    shown.close()
    assert len({round(left) for name, left, _ in places if name == "SECTION"}) == columns
    assert cut == 0, "a table is wider than its column"
    # Words of 8 to 12 points in a figure of 4 inches: 12 to 19 pixels on a desk, about as the text.
    widest = max(size for name, _, size in places if name == "IMG")
    assert 12 * widest / (4 * 72) <= 19 and (width < 500 or 8 * widest / (4 * 72) >= 12)
    assert all(corner(source) == (20, 24, 29) for source in dark)
    assert 2 <= pages.count(b"/Type /Page\n") + pages.count(b"/Type/Page\n") <= 4
