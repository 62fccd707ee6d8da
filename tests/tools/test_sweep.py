"""A sweep: its file, its runs side by side, its judgement and its table."""

import dataclasses
import json
import re
import shutil

import pytest
import yaml
from conftest import fit_members

from fer_utils.competition import DataError
from fer_utils.config import Config, ConfigError
from fer_utils.files import REPOSITORY
from fer_utils.learning.training_loop import TrainingError
from fer_utils.run import launch as launcher
from tools import sweep
from tools.sweep import conclusion, read_sweep, sweep_rows, sweep_table

pytestmark = pytest.mark.once

TINY = {"image_size": 20, "model": "small", "width": 0.125, "epochs": 1, "batch_size": 30}
TINY |= {"device": "cpu", "precision": "fp32"}

SWEEPS = REPOSITORY / "outputs" / "reference" / "sweeps"


def write(path, base=TINY, seeds=(0, 1), **arms):
    path.write_text(yaml.safe_dump({"base": dict(base), "seeds": list(seeds), "arms": arms}))
    return path


@pytest.fixture(scope="module")
def swept(tiny_folder, tmp_path_factory):
    """A sweep of two seeds and two arms, from the command line; `test_a_run_that_fails` starts processes."""
    folder = tmp_path_factory.mktemp("sweep")
    file = write(folder / "try.yaml", slow={"learning_rate": 1e-6}, long={"epochs": 4})
    command = [str(file), "--data", str(tiny_folder), "--out", str(folder / "runs"), "--at-once", "2"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sweep, "launch_members", fit_members)
        assert sweep.main(command) == 0
    return command, folder / "runs"


def test_every_arm_is_held_against_the_base_over_the_seeds(swept):
    rows = json.loads((swept[1] / "results.json").read_text())["rows"]
    assert [row["arm"] for row in rows][0] == "base" and {row["arm"] for row in rows} == {
        "base",
        "slow",
        "long",
    }
    assert all(row["seeds"] == 2 for row in rows)
    base, by_arm = rows[0], {row["arm"]: row for row in rows}
    for arm in ("slow", "long"):
        assert by_arm[arm]["difference"] == pytest.approx(by_arm[arm]["mean"] - base["mean"])
        assert by_arm[arm]["ci_low"] <= by_arm[arm]["difference"] <= by_arm[arm]["ci_high"]
    assert by_arm["long"]["difference"] >= by_arm["slow"]["difference"]
    assert by_arm["long"]["knobs"] == {"epochs": 4}


def test_the_same_command_only_reads_what_is_finished(swept, capfd):
    times = {path: path.stat().st_mtime_ns for path in swept[1].glob("*/model.safetensors")}
    assert len(times) == 6
    assert sweep.main(swept[0]) == 0
    assert {path: path.stat().st_mtime_ns for path in times} == times
    printed = capfd.readouterr().out
    assert "| base |" in printed
    assert "Helps: nothing, measurably. Harms: nothing, measurably. Fewer than 3 seeds tell" in printed


def test_arms_in_another_precision_are_named(swept, tmp_path, capfd):
    out = shutil.copytree(swept[1], tmp_path / "runs")
    options = [part if part != str(swept[1]) else str(out) for part in swept[0]]
    config = json.loads((out / "slow-seed1" / "config.json").read_text())
    config["record"]["environment"]["precision"] = "bfloat16"
    (out / "slow-seed1" / "config.json").write_text(json.dumps(config))
    assert sweep.main(options) == 0
    assert "WARNING: slow-seed1 used bfloat16, the others float32: set `precision`" in capfd.readouterr().out
    assert sweep.main(swept[0]) == 0 and "WARNING" not in capfd.readouterr().out


def test_runs_that_learned_from_something_else_are_no_seeds_of_one_arm(swept, tmp_path, capfd):
    out = shutil.copytree(swept[1], tmp_path / "runs")
    options = [part if part != str(swept[1]) else str(out) for part in swept[0]]
    path = out / "slow-seed1" / "config.json"
    plain = json.loads(path.read_text())
    other = {"sha256": "other", "class_names": ["old", "young"], "images": 60}
    path.write_text(json.dumps(plain | {"record": plain["record"] | {"auxiliary": other}}))
    with pytest.raises(DataError, match="auxiliary: the seeds of slow learned different answers"):
        sweep.finished_runs(read_sweep(options[0], data=options[2]), out)
    weights = {f"teacher {swept[1] / 'base-seed0'}": "of another network"}
    path.write_text(json.dumps(plain | {"record": plain["record"] | {"earlier_runs": weights}}))
    plan = read_sweep(options[0], data=options[2])
    taught = {"slow": {"learning_rate": 1e-6, "teacher": str(swept[1] / "base-seed0")}}
    plan = dataclasses.replace(plan, arms=plan.arms | taught)
    for seed in (0, 1):
        file = out / f"slow-seed{seed}" / "config.json"
        config = json.loads(file.read_text())
        file.write_text(json.dumps(config | {"teacher": str(swept[1] / "base-seed0")}))
    with pytest.raises(DataError, match="teacher .* has changed since .*slow-seed1 learned from it"):
        sweep.finished_runs(plan, out)


def test_an_edited_file_does_not_show_old_runs_under_new_knobs(swept, tiny_folder, tmp_path, capfd):
    file = write(tmp_path / "try.yaml", slow={"learning_rate": 1e-5}, long={"epochs": 4})
    results = (swept[1] / "results.json").read_bytes()
    assert sweep.main([str(file), *swept[0][1:]]) == 1
    assert (
        "slow-seed0 holds a run of another recipe (learning_rate: 1e-06 there, 1e-05 now)"
        in capfd.readouterr().err
    )
    other = tmp_path / "other"
    shutil.copytree(tiny_folder, other)
    table = other / "train.csv"
    table.write_text("\n".join(table.read_text().splitlines()[:-1]) + "\n")
    moved = [str(other) if part == str(tiny_folder) else part for part in swept[0]]
    assert sweep.main(moved) == 1
    assert "holds other data than" in capfd.readouterr().err
    assert (swept[1] / "results.json").read_bytes() == results


def test_the_base_of_an_arm_is_that_of_its_own_seeds(swept, tiny_folder):
    plan = read_sweep(swept[0][0], data=str(tiny_folder))
    runs = sweep.finished_runs(plan, swept[1])
    row = next(row for row in sweep_rows(plan, runs | {"long": runs["long"][1:]}) if row["arm"] == "long")
    assert row["base_mean"] == runs["base"][1].metrics["valid"]["views"]["accuracy"]
    assert row["base_seeds"] == 1
    assert row["difference"] == pytest.approx(row["mean"] - row["base_mean"])


def test_few_seeds_are_not_shown_as_sure():
    row = {"arm": "long", "knobs": {}, "mean": 0.6, "sd": 0.01, "base_mean": 0.5, "seconds": 1.0}
    row |= {"difference": 0.1, "ci_low": 0.05, "ci_high": 0.15, "verdict": "evidence of a gain"}
    assert "| +10.00 |" in sweep_table([row | {"seeds": 3, "base_seeds": 2}])
    sure = row | {"seeds": 3, "base_seeds": 3}
    assert "| **+10.00** |" in sweep_table([sure]) and "log loss" not in sweep_table([sure])
    loss = {"loss_difference": -0.02, "loss_low": -0.03, "loss_high": -0.01}
    assert "| **-0.0200** (-0.0300 to -0.0100) |" in sweep_table([sure | loss])
    assert "| -0.0200 (-0.0300 to -0.0100) |" in sweep_table([sure | loss | {"base_seeds": 2}])
    assert "| -0.0200 (" in sweep_table([sure | loss | {"loss_high": 0.01}])
    unsure = sure | {"verdict": "no evidence of a difference"}
    assert conclusion([unsure | loss]) == (
        "Helps: nothing, measurably. Harms: nothing, measurably. By log loss: helps: long; harms: nothing, "
        "measurably."
    )
    assert "By log loss" not in conclusion([unsure]) and "Harms: nothing" in conclusion([sure])


def test_a_teacher_is_the_run_of_ones_own_sweep_and_seed(monkeypatch, tmp_path):
    plan = read_sweep(
        write(tmp_path / "try.yaml", taught={"teacher": "{out}/base-seed{seed}"}, long={"epochs": 2})
    )
    assert plan.config("taught", 1, "outputs/x").teacher == "outputs/x/base-seed1"
    again = read_sweep(write(tmp_path / "again.yaml", again={"weights": "run{seed}/model.safetensors"}))
    assert again.config("again", 1, "outputs/x").weights == "run1/model.safetensors"
    seen = []
    monkeypatch.setattr(sweep, "launch_members", lambda configs, per_device: seen.append(configs))
    sweep.train_sweep(plan, tmp_path / "none")
    assert [["taught" in config.out for config in part] for part in seen] == [[False] * 4, [True] * 2]


def test_a_failed_run_keeps_the_others_from_nothing(monkeypatch, tmp_path):
    plan = read_sweep(write(tmp_path / "try.yaml", taught={"weights": "{out}/base-seed{seed}/x"}))
    seen = []

    def fail(configs, per_device):
        seen.extend(config.max_hours for config in configs)
        raise TrainingError(f"failure {len(seen)}")

    monkeypatch.setattr(sweep, "launch_members", fail)
    plan = dataclasses.replace(plan, base={**plan.base, "max_hours": 1.0})
    with pytest.raises(TrainingError, match="failure 2"):
        sweep.train_sweep(plan, tmp_path / "none")
    assert len(seen) == 4 and seen[3] <= seen[0] <= 1 and seen[3] > 0.9


def test_unfinished_runs_are_no_evidence(swept, tiny_folder):
    plan = read_sweep(swept[0][0], data=str(tiny_folder))
    runs = sweep.finished_runs(plan, swept[1])
    rows = {row["arm"]: row for row in sweep_rows(plan, runs | {"slow": [], "long": runs["long"][1:]})}
    assert "difference" not in rows["slow"] and rows["slow"]["seeds"] == 0
    assert rows["long"]["seeds"] == 1 and rows["long"]["sd"] is None
    alone = runs["long"][1].metrics["valid"]["views"]["accuracy"]
    other = runs["base"][1].metrics["valid"]["views"]["accuracy"]
    assert rows["long"]["difference"] == pytest.approx(alone - other)  # paired by seed, not by position
    assert "not finished" in sweep_table(list(rows.values()))


def test_a_sweep_out_of_time_shows_what_there_is_and_resumes(tiny_folder, tmp_path, capfd, monkeypatch):
    command = [str(write(tmp_path / "try.yaml")), "--data", str(tiny_folder), "--out", str(tmp_path / "runs")]
    command += ["--at-once", "2", "--minutes"]
    assert sweep.main([*command, "0.00001"]) == 0
    assert "not finished" in capfd.readouterr().out
    monkeypatch.setattr(sweep, "launch_members", fit_members)
    assert sweep.main([*command, "0"]) == 0
    assert json.loads((tmp_path / "runs" / "results.json").read_text())["rows"][0]["seeds"] == 2


def test_a_run_that_fails_is_told_and_the_others_count(tiny_folder, tmp_path, capfd):
    file = write(tmp_path / "try.yaml", seeds=[0], lost={"teacher": "{out}/nowhere"})
    assert sweep.main([str(file), "--data", str(tiny_folder), "--out", str(tmp_path / "runs")]) == 1
    out, err = capfd.readouterr()
    assert re.search(r"lost-seed0: .*nowhere", err)
    assert re.search(r"\| lost \| .* not finished", out) and re.search(r"\| base \|  \| 1 \|", out)


def test_runs_share_a_card(monkeypatch, tmp_path):
    seen = {}
    monkeypatch.setattr(
        sweep, "launch_members", lambda configs, per_device: seen.update(configs=configs, n=per_device)
    )
    plan = read_sweep(write(tmp_path / "try.yaml", long={"epochs": 2}))
    sweep.train_sweep(plan, "outputs/x", at_once=6)
    assert seen["n"] == 6
    names = [config.out for config in seen["configs"]]
    assert names == [
        f"outputs/x/{arm}-seed{s}" for s in (0, 1) for arm in ("base", "long")
    ]  # seeds take turns


@pytest.mark.parametrize(
    "text, message",
    [
        ("base: {}", "must hold base"),
        ("base: [", "cannot be read as YAML"),
        ("base: {}\nseeds: 3\narms: {}", "seeds must be a list"),
        ("base: {}\nseeds: [0, 0]\narms: {}", "seeds must be a list of different"),
        ("base: {}\nseeds: [0]\narms: {long: 3}", "long must hold names and values"),
        ("base: {}\nseeds: [0]\narms: {long: {epoch: 3}}", "'long': unknown .*did you mean 'epochs'"),
        ("base: {}\nseeds: [0]\narms: {a/b: {epochs: 3}}", "may only hold letters"),
        ("base: {epochs: 3}\nseeds: [0]\narms: {same: {epochs: 3}}", "'same' changes nothing"),
        ("base: {}\nseeds: [0]\narms: {base: {epochs: 3}}", "may not be called 'base'"),
        ("base: {seed: 3}\nseeds: [0]\narms: {}", "base may not set seed"),
        ("base: {}\nseeds: [0]\narms: {other: {fold: 1, epochs: 3}}", "other may not set fold"),
        ("base: {1: 2}\nseeds: [0]\narms: {}", "base must hold names and values"),
        ("base: {}\nseeds: [0]\narms: {}\nsede: 1", "did you mean 'seeds'"),
        ("base: {}\nseeds: [0]\narms: {lost: {epochs: 0}}", "'lost': epochs must lie"),
    ],
)  # fmt: skip
def test_a_bad_file_is_refused_before_any_work(tmp_path, text, message):
    (tmp_path / "try.yaml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_sweep(tmp_path / "try.yaml")


def test_an_arm_may_go_back_to_a_default(tmp_path):
    plan = read_sweep(write(tmp_path / "try.yaml", base={"preset": "quick"}, sgd={"optimizer": "sgd"}))
    assert plan.config("base", 0, "x").optimizer == "muon"
    assert plan.config("sgd", 0, "x") == Config(optimizer="sgd", seed=0, out="x/sgd-seed0")


@pytest.mark.parametrize("name", sorted(path.name for path in SWEEPS.glob("*.yaml")))
def test_committed_sweeps_are_valid(name):
    read_sweep(SWEEPS / name)


def test_devices_take_turns_among_those_that_share_them(tmp_path, monkeypatch):
    """Two cards and two runs on each: four at a time, two of them on either card."""
    seen = []
    monkeypatch.setattr(launcher, "choose_device", lambda name: type("Device", (), {"type": "cuda"}))
    monkeypatch.setattr(launcher, "_check_available", lambda *_: None)
    monkeypatch.setattr(launcher, "load_run", lambda out: out)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    def run(self, config, variables, n_processes=1, label=""):
        seen.append(variables["CUDA_VISIBLE_DEVICES"])
        deadline = launcher.time.monotonic() + 30
        while len(seen) < 4 and launcher.time.monotonic() < deadline:
            launcher.time.sleep(0.01)

    monkeypatch.setattr(launcher.Processes, "run", run)
    launcher.launch_members([Config(out=str(tmp_path / str(k))) for k in range(4)], 2, per_device=2)
    assert sorted(seen) == ["0", "0", "1", "1"]
