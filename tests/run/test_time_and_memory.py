"""`max_hours`: a run stops in time with results, and goes on later as if it had never stopped."""

import dataclasses
import itertools
from types import SimpleNamespace

import pytest

from fer_utils import Config, fit, launch, launch_members, load_competition, print_results
from fer_utils.data.submission_csv import validate_submission
from fer_utils.run import launch as launcher
from fer_utils.run import time_and_memory
from fer_utils.run.time_and_memory import OutOfTime, TimeLimit, hours_left

KNOBS = {"image_size": 20, "model": "small", "width": 0.125, "epochs": 3, "batch_size": 16}
KNOBS |= {"device": "cpu", "precision": "fp32"}
KEPT = ("model.safetensors", "history.csv", "submission.csv")
SECOND = 1 / 3600


def config_of(out, **knobs):
    return Config(**(KNOBS | {"out": str(out)} | knobs))


def kept(run):
    return [(run.out / name).read_bytes() for name in KEPT]


@pytest.fixture(scope="module")
def whole(tiny, tmp_path_factory):
    return kept(fit(config_of(tmp_path_factory.mktemp("whole")), tiny))


@pytest.fixture
def ticking(monkeypatch):
    """A clock that goes on by a second whenever the limit looks at it."""
    ticks = itertools.count()
    monkeypatch.setattr(time_and_memory, "time", SimpleNamespace(monotonic=lambda: float(next(ticks))))


def test_it_stops_with_the_best_so_far_and_goes_on_to_the_same_bytes(tiny, whole, ticking, tmp_path, capsys):
    run = fit(config_of(tmp_path, max_hours=6 * SECOND), tiny)
    done = run.metrics["training"]["epochs"]
    assert 1 <= done < 3 and len(run.history) == done
    assert (tmp_path / "checkpoint.pt").is_file()
    validate_submission(tiny, tmp_path / "submission.csv")
    print_results(run)
    printed = capsys.readouterr().out
    assert f"OUT OF TIME after {done} of 3 epochs" in printed
    assert "the results are those of the best epoch so far" in printed
    again = launch(config_of(tmp_path), tiny)
    assert f"resuming after epoch {done}" in capsys.readouterr().out
    assert kept(again) == whole
    assert again.metrics["training"]["resumed"] == 1 and not again.metrics["training"]["out_of_time"]
    assert not list(tmp_path.glob("checkpoint*"))


def test_many_short_sessions_lead_to_the_same_bytes(tiny, whole, ticking, tmp_path):
    run, sessions = None, 0
    while run is None or run.metrics["training"]["out_of_time"]:
        sessions += 1
        assert sessions < 30
        try:
            run = fit(config_of(tmp_path, max_hours=3 * SECOND), tiny)
        except OutOfTime:
            assert not (tmp_path / "metrics.json").exists()
    assert sessions > 2
    assert kept(run) == whole


def test_without_an_epoch_there_is_no_result_but_a_checkpoint(tiny, whole, tmp_path):
    with pytest.raises(OutOfTime, match="ended after epoch 0 and step 1 .* too soon for a result"):
        fit(config_of(tmp_path, max_hours=1e-9), tiny)
    assert not (tmp_path / "metrics.json").exists()
    assert kept(fit(config_of(tmp_path), tiny)) == whole


def test_a_run_with_a_damaged_metrics_file_resumes_and_writes_it_anew(tiny, whole, ticking, tmp_path):
    fit(config_of(tmp_path, max_hours=6 * SECOND), tiny)
    (tmp_path / "metrics.json").write_text("{}")
    assert kept(fit(config_of(tmp_path), tiny)) == whole


def test_a_reserve_is_kept_for_the_results(monkeypatch):
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(time_and_memory, "time", SimpleNamespace(monotonic=lambda: clock.now))
    learner = SimpleNamespace(validation_seconds=3.0)
    limit, endless = TimeLimit(100 * SECOND, predictions=4), TimeLimit(0.0, predictions=4)
    clock.now = 69.0  # 2 * (1 + 4) * 3 seconds are kept for the results
    assert not limit.is_over(learner)
    clock.now = 71.0
    assert limit.is_over(learner) and not endless.is_over(learner)
    assert hours_left(0.0, start=0.0) == 0
    assert hours_left(1.0, start=71.0 - 1800) == pytest.approx(0.5)
    assert 0 < hours_left(1.0, start=-1e6) < 1e-3


def test_members_without_time_are_left_out(tiny_folder, tmp_path, monkeypatch, capfd):
    def here(self, config, *_, **__):  # test_launch.py starts processes
        fit(config, load_competition(config.data, **config.data_options))

    monkeypatch.setattr(launcher.Processes, "run", here)
    configs = [config_of(tmp_path / f"s{seed}", data=str(tiny_folder), seed=seed) for seed in range(2)]
    late = [dataclasses.replace(config, max_hours=1e-9) for config in configs]
    assert launch_members([configs[0], late[1]])[0].config.seed == 0
    assert "s1: OutOfTime: max_hours" in capfd.readouterr().out
    with pytest.raises(OutOfTime, match="before any member had a result"):
        launch_members(late[1:])
    assert [run.config.seed for run in launch_members(configs)] == [0, 1]
