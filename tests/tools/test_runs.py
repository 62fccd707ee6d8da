"""The list of runs and its page, and scores of the leaderboard, from the command line."""

import base64
import json
import re

import matplotlib.pyplot as plt
import pandas as pd
import pytest

from fer_utils import plots
from fer_utils.learning.metrics import wilson_interval
from tests.analysis.test_all_runs import make_run
from tools import report_figures
from tools.runs import main, table_text

pytestmark = pytest.mark.once


@pytest.fixture(autouse=True)
def coarse_figures(monkeypatch):
    monkeypatch.setattr(report_figures, "DPI", 50)


def test_runs_are_printed_and_written_as_page_and_csv(tmp_path, capsys):
    for seed, accuracy in enumerate((0.60, 0.64)):
        make_run(tmp_path / f"seed{seed}", accuracy, seed=seed)
    make_run(tmp_path / "<b>odd</b>", 0.5, width=2.0)
    (tmp_path / "<b>odd</b>" / "history.csv").write_bytes(b"")  # damaged: no curve, but a row
    (make_run(tmp_path / "broken") / "metrics.json").write_text("{")
    assert main([str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    low, high = (100 * bound for bound in wilson_interval(600, 1000))
    assert f"60.0 % {low:.1f} to {high:.1f}, n = 1,000" in printed
    assert "62.0 % (sd 2.8, 2 seeds)" in printed and "metrics.json is damaged" in printed
    assert "public" not in printed, "columns without a value are left out"
    page = (tmp_path / "runs.html").read_text(encoding="utf-8")
    assert "4 runs: 3 finished, 1 damaged" in page and "<b>odd" not in page
    assert "of the first 2 runs of the table" in page and page.count("data:image/png;base64") == 2
    assert base64.b64decode(re.search(r'base64,([^"]+)"', page)[1]).startswith(b"\x89PNG")
    table = pd.read_csv(tmp_path / "runs.csv")
    assert len(table) == 4 and {"mean", "sd", "seeds", "fingerprint", "public"} <= set(table)


def test_what_the_table_shortens_is_explained_once_and_another_metric_has_its_accuracy(tmp_path, capsys):
    path = make_run(tmp_path / "x", 0.6, metric="macro_f1") / "metrics.json"
    metrics = json.loads(path.read_text())
    own = {"name": "macro_f1", "value": 0.426, "ci_low": 0.4, "ci_high": 0.45, "n": 1000}
    metrics["valid"]["views"]["metric"] = own
    path.write_text(json.dumps(metrics))
    assert main([str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "0.426 macro_f1, accuracy 60.0 %" in printed and "transductive" not in printed
    assert printed.count("the first 8 digits of its fingerprint") == 1
    config = tmp_path / "x" / "config.json"
    config.write_text(config.read_text().replace('"record": {', '"record": {"transductive": "", '))
    assert main([str(tmp_path)]) == 0
    assert "transductive: learned from test images too" in capsys.readouterr().out


def test_a_narrow_terminal_gets_fewer_columns_and_is_told_which():
    table = pd.DataFrame(
        {"run": ["a", "longer"], "device": ["cpu", ""], "valid": ["71.1 %", ""], "changed": ["x" * 70, ""]}
    )
    whole = table_text(table, None).splitlines()
    assert whole[0].split() == [*table] and whole[1].endswith("x" * 57 + "...")
    narrow = table_text(table, 60).splitlines()
    assert narrow[0].split() == ["run", "valid", "changed"] and narrow[1].endswith("x" * 37 + "...")
    assert narrow[-1] == "not shown in a terminal this narrow: device"
    assert max(map(len, narrow)) <= 60
    warned = table_text(table.assign(note=["why it is damaged", ""], data="fer2013 a315d20a"), 20)
    assert "why it is damaged" in warned and "a315d20a" in warned  # however narrow
    assert [line.index("71.1") for line in narrow if "71.1" in line] == [narrow[0].index("valid")]


def test_a_score_is_stored_and_stands_beside_validation(tmp_path, capsys):
    run = make_run(tmp_path / "x", 0.7)
    assert main([str(run), "--public", "0.7132", "--private", "0.7", "--public-n", "1000"]) == 0
    assert f"stored in {run / 'leaderboard.json'}" in capsys.readouterr().out
    assert main([str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "70.0 % 71.32 % 70.00 %" in printed and "inside what validation predicts" in printed
    (run / "submission.csv").write_text("id,label\n0,0\n")
    assert main([str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "its score 0.7132 is of another submission.csv" in printed and "inside what" not in printed


@pytest.mark.parametrize(
    ("metric", "name"), [("accuracy", "accuracy"), ("macro_f1", "macro F1"), ("log_loss", ""), ("own:f", "")]
)
@pytest.mark.parametrize("kind", ["run", "validated", "not validated"])
def test_percents_are_refused_where_the_metric_is_a_share(tmp_path, capsys, metric, name, kind):
    run = make_run(tmp_path / "x", 0.7, metric=metric)
    if kind != "run":
        own = {"name": metric, "value": 0.5, "ci_low": 0.4, "ci_high": 0.6, "n": 9}
        found = (
            {"ensemble": {"accuracy": 0.7, "metric": own}} if kind == "validated" else {"validated": False}
        )
        run = tmp_path / "average"
        run.mkdir()
        (run / "metrics.json").write_text(json.dumps({"members": ["x"], **found}))
        (run / "submission.csv").write_text("id,label\n0,1\n")
    for given in (["--public", "55.3"], ["--public", "0.5", "--private", "55.3"]):
        assert main([str(run), *given]) == (1 if name else 0)
        key = given[-2].strip("-").upper()
        said = f"55.3: {name} must lie between 0 and 1: did you mean {key}=0.553?"
        assert not name or said in capsys.readouterr().err
    assert (run / "leaderboard.json").exists() != bool(name)
    assert main([str(run), "--public", "553"]) == (1 if name else 0), "and no hint"


def test_what_is_wrong_is_said(tmp_path, capsys):
    assert main([str(tmp_path)]) == 1
    assert "holds no run" in capsys.readouterr().err
    assert main([str(tmp_path), "--public", "0.7"]) == 1
    assert "has no submission.csv" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([str(tmp_path), "--private", "0.7"])
    assert list(tmp_path.iterdir()) == []


def test_curves_of_runs_differ_in_more_than_colour_and_mark_the_best_epoch():
    fig, ax = plt.subplots()
    history = pd.DataFrame({"epoch": [1, 2, 3], "valid_accuracy": [0.1, 0.5, 0.4]})
    average = history.assign(valid_accuracy_average=[0.2, 0.3, 0.6])
    plots.curves_together({"plain": history, "average": average}, ax)
    first, dot, second, other = ax.lines
    assert first.get_ydata() == pytest.approx([10, 50, 40]) and second.get_ydata() == pytest.approx(
        [20, 50, 60]
    )
    assert (list(dot.get_xdata()), list(other.get_xdata())) == ([2], [3])
    assert first.get_linestyle() != second.get_linestyle() and first.get_color() != second.get_color()
    assert [text.get_text() for text in fig.legends[0].get_texts()] == ["plain", "average"]
    plt.close(fig)
