"""Soft targets: votes, and the predictions of teachers."""

import dataclasses
import json
import shutil
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from conftest import tiny_competition

from fer_utils.analysis.all_runs import runs
from fer_utils.competition import DataError
from fer_utils.config import Config, ConfigError
from fer_utils.data.load import CAME_WITH_DATA
from fer_utils.run.finished_run import Run
from fer_utils.run.repeat_or_resume import check_repetition
from fer_utils.run.soft_and_pseudo_labels import training_targets, warnings_for
from fer_utils.run.train import fit

TINY = {"image_size": 20, "model": "small", "width": 0.125, "epochs": 2, "batch_size": 16}
TINY |= {"precision": "fp32", "device": "cpu"}


def config_of(out, **knobs):
    return Config.from_dict(TINY | {"out": str(out)} | knobs)


@pytest.fixture(scope="module")
def teachers(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("teachers")
    return [fit(config_of(folder / f"seed{s}", seed=s), tiny) for s in range(2)]


def test_labels_alone_need_no_targets(tiny):
    assert training_targets(Config(), tiny) is None


def test_the_predictions_of_the_teachers_are_averaged_and_weighted(tiny, teachers, tmp_path):
    teacher = ", ".join(str(run.out) for run in teachers)
    targets = training_targets(config_of(tmp_path, teacher=teacher, teacher_weight=0.25), tiny)
    probs = np.mean([run.predict(tiny.train.images, "mirror") for run in teachers], axis=0)
    expected = 0.75 * np.eye(4)[tiny.train.labels] + 0.25 * probs
    assert targets.dtype == torch.float32
    assert np.allclose(targets.numpy(), expected, atol=1e-6)


def test_a_teacher_predicts_once_for_all_its_students(tiny, teachers, tmp_path, monkeypatch):
    monkeypatch.setenv("FER_CACHE", str(tmp_path / "cache"))
    predict, asked = Run.predict, []

    def counted(run, images, views, dtype):
        asked.append((run.out.name, views, dtype))
        return predict(run, images, views, dtype)

    monkeypatch.setattr(Run, "predict", counted)
    config = config_of(tmp_path, teacher=str(teachers[0].out))
    first = training_targets(config, tiny)
    assert torch.equal(training_targets(dataclasses.replace(config, seed=5), tiny), first)
    assert asked == [("seed0", "mirror", torch.float32)]

    less_exact = training_targets(config, tiny, torch.bfloat16)  # another precision,
    assert torch.allclose(less_exact, first, atol=0.05) and not torch.equal(less_exact, first)
    training_targets(config, dataclasses.replace(tiny, train=tiny.train.take(np.arange(9))))  # images,
    shutil.copytree(teachers[0].out, tmp_path / "teacher")
    shutil.copy(teachers[1].out / "model.safetensors", tmp_path / "teacher")
    changed = training_targets(dataclasses.replace(config, teacher=str(tmp_path / "teacher")), tiny)
    assert len(asked) == 4 and asked[1][2] == torch.bfloat16  # or other weights: predicted again
    assert not torch.equal(changed, first)

    for entry in (tmp_path / "cache").iterdir():
        entry.write_bytes(b"damaged")
    assert torch.equal(training_targets(config, tiny), first)


def test_a_student_is_taught_in_its_own_precision(tiny, teachers, tmp_path, monkeypatch):
    predict, asked = Run.predict, []
    monkeypatch.setattr(Run, "predict", lambda *given: asked.append(given[3]) or predict(*given))
    config = config_of(tmp_path / "run", teacher=str(teachers[0].out), precision="bf16", epochs=1)
    fit(config, tiny)
    assert asked == [torch.bfloat16]


def test_a_teacher_whose_numbers_are_not_finite_is_refused(tiny, teachers, tmp_path, monkeypatch):
    monkeypatch.setattr(Run, "predict", lambda run, images, *_: np.full((len(images), 4), np.nan))
    with pytest.raises(DataError, match=r"teacher: .*seed0 gives no finite numbers in torch.float32"):
        training_targets(config_of(tmp_path, teacher=str(teachers[0].out)), tiny)


def test_weights_that_may_have_learned_the_validation_images_are_a_warning(tiny, teachers):
    config = config_of("x", weights=str(teachers[0].folder.weights))
    assert warnings_for(config, tiny) == []
    (warning,) = warnings_for(config, tiny_competition(5))
    assert f"{teachers[0].out} was validated on other images" in warning and "split_seed" in warning


def test_votes_and_teachers_go_together(tiny, teachers, tmp_path):
    votes = 3 * np.eye(4, dtype=np.float32)[tiny.train.labels] + 1
    voted = dataclasses.replace(tiny, train=dataclasses.replace(tiny.train, votes=votes))
    knobs = {"soft_labels": True, "teacher": str(teachers[0].out), "teacher_weight": 0.0}
    assert np.allclose(training_targets(config_of(tmp_path, **knobs), voted).numpy(), votes / 7)


def test_a_teacher_without_weight_changes_nothing_and_with_weight_it_does(tiny, teachers, tmp_path):
    knobs = {"teacher": str(teachers[1].out), "teacher_weight": 0.0}
    idle = fit(config_of(tmp_path / "idle", **knobs), tiny)
    weights = [(run.out / "model.safetensors").read_bytes() for run in (idle, teachers[0])]
    assert weights[0] == weights[1]
    taught = fit(config_of(tmp_path / "taught", **(knobs | {"teacher_weight": 0.5})), tiny)
    assert (taught.out / "model.safetensors").read_bytes() != weights[0]


def test_a_teacher_that_was_trained_again_is_told(tiny, teachers, tmp_path, monkeypatch):
    """A finished student, one that resumes, and a repetition do not take the new one for the old."""
    shutil.copytree(teachers[0].out, tmp_path / "teacher")
    config = config_of(tmp_path / "run", teacher=str(tmp_path / "teacher"))

    def teach(teacher):
        shutil.copyfile(teacher.out / "model.safetensors", tmp_path / "teacher/model.safetensors")

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("fer_utils.run.train.write_results", Mock(side_effect=KeyboardInterrupt))
        fit(config, tiny)
    for ends in (
        lambda: fit(config, tiny),
        lambda: check_repetition(config.out + "/config.json", config, tiny),
    ):
        teach(teachers[1])
        with pytest.raises(DataError, match="teacher .* has changed since .* learned from it"):
            ends()
        teach(teachers[0])
        ends()
    assert runs(tmp_path).set_index("run").state["run"] == "finished"
    teach(teachers[1])
    row = runs(tmp_path).set_index("run").loc["run"]
    assert row.state == "stale" and "changed since" in row.note
    with pytest.raises(DataError, match="has changed since"):
        fit(config, tiny)  # finished


def test_teachers_that_cannot_teach_are_refused(tiny, teachers, tmp_path):
    with pytest.raises(DataError, match="not a finished run|no such"):
        fit(config_of(tmp_path / "a", teacher=str(tmp_path)), tiny)
    with pytest.raises(DataError, match="has other classes"):
        fit(config_of(tmp_path / "b", teacher=str(teachers[0].out)), tiny_competition(5))
    ids = tiny.valid.ids.copy()
    ids[0] = "another"
    fewer = dataclasses.replace(tiny, train=tiny.train.take(np.arange(1, 60)))  # than the teacher had
    moved = dataclasses.replace(fewer, valid=dataclasses.replace(tiny.valid, ids=ids))
    with pytest.raises(DataError, match="validated on other images"):
        fit(config_of(tmp_path / "c", teacher=str(teachers[0].out)), moved)
    other = dataclasses.replace(fewer, test=dataclasses.replace(tiny.test, ids=tiny.test.ids[::-1].copy()))
    with pytest.raises(DataError, match="predicts another test split"):
        fit(config_of(tmp_path / "c", teacher=str(teachers[0].out)), other)
    assert not (tmp_path / "c").exists()


def test_a_teacher_that_was_stopped_is_refused(tiny, teachers, tmp_path):
    shutil.copytree(teachers[0].out, tmp_path / "teacher")
    metrics = json.loads((tmp_path / "teacher" / "metrics.json").read_text())
    metrics["training"]["out_of_time"] = True
    (tmp_path / "teacher" / "metrics.json").write_text(json.dumps(metrics))
    (tmp_path / "teacher" / "checkpoint.pt").write_bytes(b"")
    with pytest.raises(DataError, match="stopped by max_hours"):
        fit(config_of(tmp_path / "run", teacher=str(tmp_path / "teacher")), tiny)


def test_a_fold_that_changes_nothing_is_a_warning(tiny):
    split = dataclasses.replace(tiny, notes=(CAME_WITH_DATA,))
    assert warnings_for(Config(), split) == warnings_for(Config(fold=3), tiny) == []
    (line,) = warnings_for(Config(fold=3), split)
    assert line.startswith("n_folds and fold change nothing here") and "pool_valid = True" in line
    with pytest.raises(ConfigError, match="cv makes 5 folds of its own: leave out n_folds and fold"):
        Config(cv=5, n_folds=20)


def test_more_classes_than_expressions_are_a_warning_that_names_the_parameter():
    def classes(n):
        return dataclasses.replace(tiny_competition(), class_names=tuple(f"user{k}" for k in range(n)))

    assert warnings_for(Config(), classes(12)) == []
    (warning,) = warnings_for(Config(), classes(13))
    assert "13 classes" in warning and 'columns = "label=NAME"' in warning
    assert len(warnings_for(Config(learning_rate=1e-4), classes(13))) == 2


def test_other_weights_under_the_same_name_are_told(tiny, tmp_path):
    knobs = {"image_size": 20, "model": "small", "width": 0.125, "epochs": 1, "device": "cpu"}
    parents = [fit(Config(**knobs, seed=seed, out=str(tmp_path / f"parent{seed}")), tiny) for seed in (0, 1)]
    config = Config(**knobs, out=str(tmp_path / "run"), weights=str(parents[0].folder.weights))
    fit(config, tiny)
    shutil.copy(parents[1].folder.weights, parents[0].folder.weights)
    with pytest.raises(DataError, match="weights .* has changed since .* learned from it"):
        fit(config, tiny)
    parents[0].folder.weights.unlink()
    fit(config, tiny)  # they are not needed any more
