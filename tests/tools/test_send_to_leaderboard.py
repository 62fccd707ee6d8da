"""A submission is sent to Kaggle once, and its score is kept; a stand-in for Kaggle's client answers."""

import json
import sys

import pytest

from fer_utils.competition import DataError
from tests.analysis.test_all_runs import make_run
from tools import send_to_leaderboard
from tools.send_to_leaderboard import main

pytestmark = pytest.mark.once

# It keeps what it was sent in sent.json, prints like the client 2.2.5, and answers as answer.json says.
CLIENT = """#!{python}
import json, pathlib, sys
here = pathlib.Path(__file__).parent
sent, answer = json.loads((here / "sent.json").read_text()), json.loads((here / "answer.json").read_text())
if "fails" in answer:
    sys.exit(answer["fails"])
if sys.argv[2] == "submit":
    assert pathlib.Path(sys.argv[5]).name == "submission.csv"
    (here / "sent.json").write_text(json.dumps([sys.argv[7], *sent]))
    print("4 submissions remaining today.")
elif not sent:
    print("No submissions found")
else:
    print("Warning: this client is old")
    print("ref,fileName,date,description,status,publicScore,privateScore")
    for message in sent:
        print(f'1,submission.csv,2026-01-01,"{{message}}",{{answer["status"]}},{{answer["public"]}},{{answer["private"]}}')
"""


@pytest.fixture
def kaggle(tmp_path, monkeypatch):
    """A function that sets the client's answer; what was sent is in its folder."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "kaggle").write_text(CLIENT.format(python=sys.executable))
    (folder / "kaggle").chmod(0o755)
    (folder / "sent.json").write_text("[]")
    monkeypatch.setattr(send_to_leaderboard, "places", lambda: str(folder))
    monkeypatch.setattr(send_to_leaderboard, "SECONDS", 0.0)

    def answers(status="SubmissionStatus.COMPLETE", public="0.71320", private="", **more):
        values = {"status": status, "public": public, "private": private} | more
        (folder / "answer.json").write_text(json.dumps(values))
        return lambda: json.loads((folder / "sent.json").read_text())

    return answers


def scores(run):
    return [
        (score["public"], score["private"]) for score in json.loads((run / "leaderboard.json").read_text())
    ]


def test_it_is_sent_once_and_its_scores_are_kept_as_they_become_known(tmp_path, kaggle, capsys):
    run = make_run(tmp_path / "x")
    command = [str(run), "--competition", "faces"]
    sent = kaggle()
    assert main([*command, "--message", "wider, twice"]) == 0
    assert "4 submissions remaining today" in capsys.readouterr().out
    assert len(sent()) == 1 and sent()[0].startswith("wider, twice [") and scores(run) == [(0.7132, None)]
    assert main(command) == 0
    assert "nothing is sent" in capsys.readouterr().out and scores(run) == [(0.7132, None)]
    kaggle(status="complete", private="0.70000")  # as clients before 2.0 write it
    assert main(command) == 0
    assert len(sent()) == 1 and scores(run) == [(0.7132, None), (0.7132, 0.7)]
    (run / "submission.csv").write_text("id,label\n0,0\n")
    assert main(command) == 0
    assert len(sent()) == 2, "another file is another submission"


def test_what_could_not_be_kept_is_not_sent(tmp_path, kaggle, monkeypatch, capsys):
    def refuse(folder):
        raise DataError("submission.csv has 3 rows")

    run, sent = make_run(tmp_path / "x"), kaggle()
    monkeypatch.setattr(send_to_leaderboard, "is_own", refuse)
    assert main([str(run), "--competition", "faces"]) == 1
    assert "has 3 rows" in capsys.readouterr().err and sent() == []


def test_a_scored_one_that_kaggle_no_longer_lists_is_not_sent_again(tmp_path, kaggle, capsys):
    run, sent = make_run(tmp_path / "x"), kaggle()
    assert main([str(run), "--competition", "faces"]) == 0
    (tmp_path / "bin" / "sent.json").write_text('["others"]')
    assert main([str(run), "--competition", "faces"]) == 0
    assert sent() == ["others"] and "not among Kaggle's newest" in capsys.readouterr().out
    assert main([str(run), "--competition", "other-faces"]) == 0
    assert len(sent()) == 2, "its score in another competition is not known"


def test_the_competition_is_that_of_the_data_where_it_was_fetched_from_kaggle(tmp_path, kaggle, capsys):
    sent = kaggle()
    assert main([str(make_run(tmp_path / "x", data="kaggle:competition/faces"))]) == 0
    assert len(sent()) == 1
    assert main([str(make_run(tmp_path / "y"))]) == 1
    assert "COMPETITION is missing" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ({"status": "SubmissionStatus.PENDING"}, "no score after 0 minutes; the same command looks again"),
        ({"status": "SubmissionStatus.ERROR"}, "could not score"),
        ({"public": ""}, "shows no public score"),
        ({"fails": "403 Client Error: accept the rules"}, "403 Client Error: accept the rules"),
    ],
)
def test_what_goes_wrong_is_said_and_nothing_is_kept(tmp_path, kaggle, capsys, answer, words):
    run = make_run(tmp_path / "x")
    kaggle(**answer)
    assert main([str(run), "--competition", "faces", "--minutes", "0"]) == 1
    assert words in capsys.readouterr().err and not (run / "leaderboard.json").exists()


def test_without_a_client_or_a_submission_it_says_what_to_do(tmp_path, kaggle, monkeypatch, capsys):
    kaggle()
    assert main([str(tmp_path), "--competition", "faces"]) == 1
    assert "has no submission.csv" in capsys.readouterr().err
    monkeypatch.setattr(send_to_leaderboard, "places", lambda: str(tmp_path))
    assert main([str(make_run(tmp_path / "x")), "--competition", "faces"]) == 1
    assert "pip install kaggle" in capsys.readouterr().err
