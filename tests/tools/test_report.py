"""The HTML page of a run: complete, true to metrics.json, closed to the network, described in words."""

import base64
import dataclasses
import json
from html.parser import HTMLParser

import numpy as np
import pytest

from fer_utils import Config, fit, load_competition
from fer_utils.learning.metrics import evaluate
from tools.report import main, write_report


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


@pytest.fixture(scope="module")
def competition(tiny):
    return dataclasses.replace(
        tiny, class_names=("angry", "<script>alert(1)</script>", "sad & low", "neutral")
    )


@pytest.fixture(scope="module")
def run(competition, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "first & only"
    knobs = {"image_size": 20, "width": 0.125, "epochs": 2, "precision": "fp32", "device": "cpu"}
    return fit(Config(data="/home/ada/secret place/faces", out=str(out), **knobs), competition)


@pytest.fixture(scope="module")
def page(run, competition, tmp_path_factory):
    return Page(write_report(run, competition, tmp_path_factory.mktemp("page") / "report.html"))


def test_results_come_first_and_equal_the_metrics(page, run):
    scores = run.metrics["valid"]
    order = [page.said.index(word) for word in (
        f"{100 * scores['views']['accuracy']:.1f} % of the validation pictures", "valid accuracy, plain",
        "By class", "How it learned", "What is taken for what", "How sure it is", "Where it errs",
        "How it was made", "Every knob", "Versions and hardware",
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
    assert "training time 0:43:00" in Page(write_report(slow, None, tmp_path / "report.html")).said


def test_every_figure_is_within_and_described_in_words(page):
    images = page.all("img")
    assert len(images) == 4
    for image in images:
        assert image["src"].startswith("data:image/png;base64,")
        assert base64.b64decode(image["src"].split(",")[1]).startswith(b"\x89PNG")
        assert len(image["alt"]) > 40 and image["alt"].endswith(".")
    assert any("Confusion matrix: most often" in image["alt"] for image in images)


def test_it_loads_and_runs_nothing(page):
    assert not {"script", "link", "iframe", "object", "form"} & {tag for tag, _ in page.tags}
    for tag, attributes in page.tags:
        assert not {name for name in attributes if name.startswith("on")}
        assert all(attributes[name].startswith("data:") for name in ("src", "href") if name in attributes), (
            tag
        )
    policy = next(meta for meta in page.all("meta") if meta.get("http-equiv") == "Content-Security-Policy")
    assert policy["content"].startswith("default-src 'none'")
    assert "@import" not in page.text and "url(" not in page.text
    assert len(page.text) < 5e6
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in page.all("meta")
    assert "prefers-color-scheme: dark" in page.text


def test_words_of_the_data_stay_words_and_places_stay_private(page):
    assert "<script>alert(1)</script>" in page.said and "sad & low" in page.said
    assert "faces" in page.said and "secret place" not in page.text and "ada" not in page.said.split()


def test_the_same_run_gives_the_same_bytes(page, run, competition, tmp_path):
    assert write_report(run, competition, tmp_path / "again.html").read_text(encoding="utf-8") == page.text


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


def test_confused_pairs_need_no_faces(run, tmp_path):
    confusion = 3 * np.eye(4, dtype=int)
    confusion[1, 3], confusion[3, 1], confusion[0, 2] = 3, 4, 1
    page = Page(write_report(with_views(run, confusion=confusion.tolist()), None, tmp_path / "report.html"))
    assert "/ neutral 7 88 % neutral taken for <script>alert(1)</script>" in page.said
    assert (
        "Confusion matrix: most often neutral is taken for <script>alert(1)</script>, in 4 of 7 pictures."
        in [image["alt"] for image in page.all("img")]
    )


def test_the_test_split_is_told_where_its_labels_are_known(run, page, tmp_path):
    assert "test accuracy" not in page.said
    scores = {key: run.metrics["valid"][key] | {"accuracy": 0.321} for key in ("views", "plain")}
    told = dataclasses.replace(run, metrics=run.metrics | {"test": scores | {"without_copies": None}})
    assert "test accuracy, plain 32.1 %" in Page(write_report(told, None, tmp_path / "report.html")).said


@pytest.mark.parametrize("data, layout", [("demo", "tiny"), ("auto", "demo")])
def test_demo_and_time_limit_are_said_loudly(run, competition, tmp_path, data, layout):
    stopped = with_metrics(run, tmp_path / "run", data, layout, out_of_time=True, epochs=1)
    page = Page(write_report(stopped, competition, tmp_path / "report.html"))
    assert "Drawn demo faces, not a competition" in page.said
    assert "The most confident errors" in page.said and "licence" not in page.said
    assert "Stopped by max_hours after 1 of 2 epochs" in page.said
    assert len([tag for tag in page.all("p") if tag.get("class") == "loud"]) == 2


def test_a_run_that_lost_patience_says_so_and_a_whole_one_is_not_loud(run, page, tmp_path):
    early = Page(write_report(with_metrics(run, tmp_path / "run", epochs=1), None, tmp_path / "report.html"))
    assert "Stopped early after 1 of 2 epochs" in early.said
    assert not [tag for tag in page.all("p") if tag.get("class") == "loud"]


def test_names_that_are_no_formulas_and_classes_that_never_occur(run, tmp_path):
    names = ("cash$", "x$\\frac$y", "a" * 60, "never")
    views = evaluate(np.eye(4)[[0, 1, 2, 2]], np.array([0, 1, 2, 0]), names)
    odd = dataclasses.replace(with_views(run, **views), class_names=names)
    said = Page(write_report(odd, None, tmp_path / "report.html")).said
    assert "never none none 0.000 0" in said and "nan" not in said.split()
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


def test_the_command_writes_beside_the_run_or_names_what_is_wrong(tiny_folder, tmp_path, capsys):
    config = Config(data=str(tiny_folder), out=str(tmp_path / "run"), width=0.125, epochs=1, image_size=20)
    fit(config, load_competition(config.data, **config.data_options))
    assert main([str(tmp_path / "run")]) == 0
    assert len(Page(tmp_path / "run" / "report.html").all("img")) == 4
    assert "open it in a browser" in capsys.readouterr().out
    page = tmp_path / "run" / "report.html"
    assert main([str(tmp_path / "run"), "--data", str(tmp_path / "nowhere")]) == 0
    assert "no faces on the page" in capsys.readouterr().err
    assert "name its place with --data" in Page(page).said
    assert main([str(tmp_path / "run"), "--data", "demo"]) == 0  # another
    assert "is not the run's; name its place with --data" in Page(page).said
    assert main([str(tmp_path / "run"), "--no-faces"]) == 0
    assert len(Page(tmp_path / "run" / "report.html").all("img")) == 3
    assert main([str(tmp_path / "none")]) == 1
    assert "none" in capsys.readouterr().err
    (tmp_path / "run" / "metrics.json").unlink()
    assert main([str(tmp_path / "run")]) == 1
    assert "not a finished run, metrics.json is missing" in capsys.readouterr().err
    assert json.loads((tmp_path / "run" / "config.json").read_text())
