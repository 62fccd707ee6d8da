"""The plan for a few minutes of a device: what fits, what is kept after a cut, what comes back."""

import dataclasses
import json
import types
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from conftest import fit_members

from fer_utils import TrainingError, load_competition, load_run, validate_submission
from tools import gpu, gpu_plan

pytestmark = pytest.mark.once

FAST = gpu_plan.Speed(("large", 0.5), small=0.001, full=0.003, validation=0.01)
SLOW = gpu_plan.Speed(("large", 1.0), small=0.5, full=1.5, validation=2.0)
OTHER = gpu_plan.Speed(("small", 0.5), small=0.0005, full=0.001, validation=0.01)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """The recipe for images of 20 pixels, and trainings in this process."""
    monkeypatch.setattr(
        gpu_plan, "RECIPE", {"image_size": 20, "start_size": 16, "batch_size": 30, "views": "mirror"}
    )
    monkeypatch.setattr(gpu_plan, "NETWORKS", {"cpu": (("small", 0.25), ("small", 0.125))})
    monkeypatch.setattr(gpu_plan, "MOST_MEMBERS", 5)
    monkeypatch.setitem(gpu.SMOKE, "image_size", 20)
    monkeypatch.setitem(gpu.SMOKE, "start_size", 16)

    monkeypatch.setattr(gpu, "launch_members", fit_members)
    monkeypatch.setattr(gpu, "ProcessPoolExecutor", lambda n, _: ThreadPoolExecutor(n))


def plan(tiny, speeds, seconds, at_once=1):
    members = gpu_plan.plan(speeds, tiny, seconds, at_once, out="x", data="d", device="cpu")
    return [member.config for member in members], [member.seconds for member in members]


def test_the_first_members_differ_in_the_seed_alone_and_all_take_as_long(tiny):
    members, seconds = plan(tiny, [FAST, OTHER], 120.0)
    first = members[: gpu_plan.FIRST]
    assert [member.seed for member in members] == list(range(5))
    assert {(m.model, m.width, m.epochs) for m in first} == {("large", 0.5, first[0].epochs)}
    assert [m.model for m in members[gpu_plan.FIRST :]] == ["small", "small"]
    assert len({member.out for member in members}) == len(members)
    assert gpu_plan.FIRST * seconds[0] <= 120 and max(seconds) == pytest.approx(seconds[0])
    longer, _ = plan(tiny, [FAST], 1e6)
    assert {member.epochs for member in longer} == {gpu_plan.LONGEST}


def test_a_network_that_is_too_slow_gives_way_to_a_smaller_one(tiny):
    members, _ = plan(tiny, [SLOW, OTHER], 70.0)
    assert {member.model for member in members} == {"small"} and members[0].epochs >= gpu_plan.ENOUGH_EPOCHS
    many, _ = plan(tiny, [SLOW, OTHER], 1e4)
    assert many[0].model == "large" and many[0].width == 1.0


def test_members_side_by_side_are_planned_as_slower(tiny):
    alone, _ = plan(tiny, [SLOW], 900.0)
    together, seconds = plan(tiny, [SLOW.slowed(2.0)], 900.0, at_once=2)
    assert together[0].epochs < 2 * alone[0].epochs
    assert 2 * max(seconds) <= 900


def test_with_hardly_any_time_one_epoch_is_plan(tiny):
    members, _ = plan(tiny, [SLOW], 1.0)
    assert {member.epochs for member in members} == {1}


@pytest.fixture
def short(monkeypatch):
    """Members of an epoch or two, three at the most."""
    monkeypatch.setattr(gpu_plan, "LONGEST", 2)
    monkeypatch.setattr(gpu_plan, "MOST_MEMBERS", 3)


def command(folder, out, *more):
    return [
        "--data",
        str(folder),
        "--out",
        str(out),
        "--device",
        "cpu",
        "--minutes",
        "1.2",
        "--at-once",
        "1",
        *more,
    ]


def test_it_ends_with_a_validated_submission_and_a_report(short, tiny_folder, tmp_path, capfd):
    assert gpu.main(command(tiny_folder, tmp_path / "dry", "--dry-run")) == 0
    assert "member0: small" in capfd.readouterr().out and not (tmp_path / "dry").exists()
    out = tmp_path / "out"
    assert gpu.main(command(tiny_folder, out)) == 0
    competition = load_competition(str(tiny_folder), image_size=20)
    validate_submission(competition, out / "submission.csv")
    report = (out / "report.txt").read_text()
    assert (
        "smoke test passed" in report
        and "members" in report
        and capfd.readouterr().out.startswith("device: ")
    )
    members = json.loads((out / "metrics.json").read_text())["members"]
    probs = np.mean([load_run(out / name).saved_probs("test") for name in members], axis=0)
    with np.load(out / "test.npz") as arrays:
        assert np.allclose(arrays["probs_views"], probs)


def test_after_a_cut_the_finished_members_are_kept(short, tiny_folder, tmp_path, monkeypatch):
    out, launch, calls = tmp_path / "out", gpu.launch_members, []

    def cut(configs, per_device):
        if calls:
            raise KeyboardInterrupt
        calls.append(configs)
        launch(configs, per_device)

    monkeypatch.setattr(gpu, "smoke_test", lambda *_: "left out")
    monkeypatch.setattr(gpu, "launch_members", cut)
    assert gpu.main(command(tiny_folder, out)) == 130
    metrics = (out / "metrics.json").read_bytes()
    assert json.loads(metrics)["members"] == ["member0"] and (out / "submission.csv").is_file()
    weights = (out / "member0" / "model.safetensors").stat().st_mtime_ns
    monkeypatch.setattr(gpu, "launch_members", launch)
    assert gpu.main(command(tiny_folder, out)) == 0
    assert (out / "member0" / "model.safetensors").stat().st_mtime_ns == weights
    assert (out / "member1" / "metrics.json").is_file()
    assert "the plan of an earlier start" in (out / "report.txt").read_text()


def test_after_a_cut_in_the_average_it_is_written(short, tiny_folder, tmp_path, monkeypatch):
    out = tmp_path / "out"
    monkeypatch.setattr(gpu, "smoke_test", lambda *_: "left out")
    assert gpu.main(command(tiny_folder, out)) == 0
    before = (out / "metrics.json").read_bytes()
    (out / "metrics.json").unlink()
    monkeypatch.setattr(gpu, "train_members", lambda *_: [])  # all are finished
    assert gpu.main(command(tiny_folder, out)) == 0
    assert (out / "metrics.json").read_bytes() == before


def test_what_fails_is_said_and_does_not_end_the_rest(short, tiny_folder, tmp_path, monkeypatch):
    def broken(*_):
        raise RuntimeError("no kernel image")

    monkeypatch.setattr(gpu, "fit", broken)
    launch, calls = gpu.launch_members, []

    def once(configs, per_device):
        calls.append(configs)
        if len(calls) == 1:
            raise TrainingError("member0: it diverged")
        launch(configs, per_device)

    monkeypatch.setattr(gpu, "launch_members", once)
    assert gpu.main(command(tiny_folder, tmp_path / "out")) == 0
    report = (tmp_path / "out" / "report.txt").read_text()
    assert "FAILED" in report and "no kernel image" in report and "member0: it diverged" in report
    assert not (tmp_path / "out" / "member0").exists() and (tmp_path / "out" / "metrics.json").is_file()


def test_a_plan_for_other_data_is_refused(short, tiny_folder, tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(gpu, "smoke_test", lambda *_: "left out")
    monkeypatch.setattr(gpu, "train_members", lambda *_: [])
    assert gpu.main(command(tiny_folder, tmp_path / "out")) == 1
    assert "no member has a result yet" in capfd.readouterr().out
    plan = json.loads((tmp_path / "out" / "plan.json").read_text())
    plan["made_for"]["data"] = "other"
    (tmp_path / "out" / "plan.json").write_text(json.dumps(plan))
    assert gpu.main(command(tiny_folder, tmp_path / "out")) == 1
    assert "is a plan for other data or another device: choose another --out" in capfd.readouterr().err


def test_the_last_members_are_shortened_to_the_time_that_is_left(tmp_path, monkeypatch):
    config = gpu_plan.member_config(("small", 0.25), 40, 0, str(tmp_path / "member0"))
    clock = iter([0.0, 1.0, 31.0, 60.0, 61.0, 90.0])
    monkeypatch.setattr(gpu, "time", types.SimpleNamespace(monotonic=lambda: next(clock)))
    trained = []
    monkeypatch.setattr(gpu, "launch_members", lambda configs, per_device: trained.extend(configs))
    second = dataclasses.replace(config, out=str(tmp_path / "member1"), seed=1)
    members = [gpu_plan.Planned(config, 60.0), gpu_plan.Planned(second, 60.0)]
    kept = []
    list(gpu.train_members(members, 75.0, 1, print, lambda: kept.append(members[1].config.epochs)))
    # The first took half of its estimate; the second gets what is left: 15 of 30 seconds.
    assert [config.epochs for config in trained] == [40, 20] and kept == [20]


def test_a_network_that_the_device_refuses_is_left_out(tiny, monkeypatch, capsys):
    measure = gpu_plan.measure

    def refusing(network, *arguments):
        if network[1] == 0.25:
            raise RuntimeError("out of memory")
        return measure(network, *arguments)

    monkeypatch.setattr(gpu_plan, "measure", refusing)
    shared = {"out": "x", "data": "d", "device": "cpu"}
    threads = torch.get_num_threads()
    members = gpu_plan.make_plan(tiny, torch.device("cpu"), 60.0, 1, shared, print)
    assert {member.config.width for member in members} == {0.125} and torch.get_num_threads() == threads
    assert "small, width 0.25: cannot be trained here (out of memory)" in capsys.readouterr().out
    monkeypatch.setattr(gpu_plan, "measure", lambda *_: 1 / 0 if _ is None else refusing(("small", 0.25)))
    with pytest.raises(TrainingError, match="no network can be trained on cpu"):
        gpu_plan.make_plan(tiny, torch.device("cpu"), 60.0, 1, shared, print)
