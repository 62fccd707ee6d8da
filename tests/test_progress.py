"""One plain line per epoch outside JupyterLab, a bar inside."""

import pytest
import tqdm.auto

from fer_utils.progress import Progress

ROW = {"epoch": 3, "train_loss": 1.2345, "valid_accuracy": 0.5}


@pytest.fixture
def headless(monkeypatch):
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)


def test_an_epoch_is_one_plain_line(headless, capsys):
    with Progress(20) as progress:
        progress.report(ROW, 61.4)
    assert capsys.readouterr().out == "epoch   3/20  train loss 1.234  valid accuracy 50.0 %  61 s\n"


def test_the_better_of_weights_and_moving_average_is_shown(headless, capsys):
    with Progress(20) as progress:
        progress.report(ROW | {"valid_accuracy_average": 0.61}, 61.4)
    assert "valid accuracy 61.0 %" in capsys.readouterr().out


def test_the_metric_that_chooses_the_epoch_is_shown(headless, capsys):
    with Progress(20) as progress:
        progress.report(ROW | {"valid_metric": 0.4, "valid_metric_average": 0.4321}, 61.4)
    assert "valid accuracy 50.0 %  metric 0.432  61 s" in capsys.readouterr().out


def test_in_jupyterlab_a_bar_resumes_from_the_epochs_done(monkeypatch, capsys):
    bars = []

    class Bar(tqdm.std.tqdm):
        def __init__(self, **options):
            super().__init__(**options)
            bars.append(self)

    monkeypatch.setenv("JPY_SESSION_NAME", "03_training.ipynb")
    monkeypatch.setattr(tqdm.auto, "tqdm", Bar)
    with Progress(20, done=2) as progress:
        progress.report(ROW, 61.4)
    assert (bars[0].n, bars[0].total) == (3, 20) and bars[0].disable
    assert capsys.readouterr().out == ""
