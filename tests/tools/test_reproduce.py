"""The committed results: trained by a plan, repeated, scored, and used on a person's own images."""

import dataclasses
import json
import shutil

import numpy as np
import pandas as pd
import pytest
from conftest import fit_members
from PIL import Image
from safetensors.torch import save_file

from fer_utils import load_competition, runs
from fer_utils.competition import DataError
from fer_utils.config import Config, ConfigError
from fer_utils.data.submission_csv import write_submission
from fer_utils.faces.predict_photos import image_files
from fer_utils.learning.models import create_model
from fer_utils.run import committed_results, launch
from fer_utils.run.committed_results import Reference, load_reference
from fer_utils.run.finished_run import load_run
from fer_utils.run.soft_and_pseudo_labels import check_targets
from tools import reproduce as reference
from tools.predict import members
from tools.reproduce import Plan

pytestmark = pytest.mark.once

TINY = "image_size: 20, model: small, width: 0.125, epochs: 1, batch_size: 30, precision: fp32"


@pytest.fixture(scope="module")
def folder(tiny_folder, tmp_path_factory):
    """A reference called "tiny", made from the command line in this process, and where others would be
    committed."""
    shelf = tmp_path_factory.mktemp("reference")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(committed_results, "FOLDER", shelf)
        patch.setattr(reference, "FOLDER", shelf)
        patch.setitem(reference.PLANS, "tiny", Plan(f"{TINY}; {TINY}, model: medium", members=3, at_once=2))
        command = ["tiny", "--data", str(tiny_folder), "--device", "cpu", "--out", str(shelf / "tiny")]
        with pytest.MonkeyPatch.context() as here:
            here.setattr(reference, "launch_members", fit_members)
            assert reference.main(command) == 0
        yield shelf / "tiny"


def test_a_reference_holds_its_members_and_their_submissions(folder):
    metrics = json.loads((folder / "metrics.json").read_text())
    runs = [load_run(folder / f"member{k}") for k in range(3)]
    assert [run.config.model for run in runs] == ["small", "medium", "small"]
    accuracies = [run.metrics["valid"]["views"]["accuracy"] for run in runs]
    assert metrics["views_mean"] == pytest.approx(np.mean(accuracies))
    assert metrics["views_sd"] == pytest.approx(np.std(accuracies, ddof=1))
    chosen = [load_run(folder / name) for name in metrics["members"]]
    probs = np.mean([run.saved_probs("valid") for run in chosen], axis=0)
    labels = runs[0].saved("valid", "labels")
    assert metrics["without_copies"]["n"] <= len(labels)
    first = np.mean([run.saved_probs("valid") for run in runs[:2]], axis=0)
    assert metrics["first"]["accuracy"] == pytest.approx((first.argmax(1) == labels).mean())
    assert metrics["ensemble"]["accuracy"] == pytest.approx((probs.argmax(1) == labels).mean())


def test_images_of_ones_own_are_answered_by_all_members(folder, tmp_path):
    rng = np.random.default_rng(0)
    for name, size in (("b.png", (20, 20)), ("a.jpg", (60, 50, 3))):
        Image.fromarray(rng.integers(0, 255, size, dtype=np.uint8)).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no image")
    loaded = load_reference("tiny")
    probs = loaded.predict(tmp_path)
    assert probs.shape == (2, len(loaded.class_names)) and np.allclose(probs.sum(1), 1, atol=1e-5)
    image = np.array(Image.open(tmp_path / "b.png"))[None]
    by_hand = np.mean([run.predict(image) for run in loaded.runs], axis=0)
    assert np.allclose(probs[1], by_hand[0], atol=1e-6)  # a.jpg comes first
    assert np.allclose(loaded.predict([tmp_path / "b.png", tmp_path / "a.jpg"]), probs[::-1], atol=1e-6)
    assert np.allclose(loaded.predict(str(tmp_path / "b.png")), probs[1:], atol=1e-6)


def test_an_image_that_cannot_be_read_is_named(folder, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"broken\.png: not a readable image"):
        load_reference("tiny").predict(tmp_path)
    with pytest.raises(DataError, match="away.png: no such image"):
        image_files([tmp_path / "away.png"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty: no images there"):
        image_files(tmp_path / "empty")
    with pytest.raises(DataError, match="no images there"):
        image_files([])


def test_a_mistyped_reference_names_the_nearest(folder):
    with pytest.raises(ConfigError, match="did you mean 'tiny'"):
        load_reference("tini")
    assert reference.main(["tini"]) == 1
    with pytest.raises(ConfigError, match="no reference is called .fer2013-gpu.*make reproduce"):
        load_reference("fer2013-gpu")


def test_a_single_run_is_a_reference_too(folder, capfd):
    loaded = load_reference("tiny")
    (folder.parent / "single").symlink_to(folder / "member1")
    alone = load_reference("single")
    assert isinstance(alone, Reference) and len(alone.runs) == 1
    Image.fromarray(np.zeros((20, 20), np.uint8)).save(folder.parent / "face.png")
    expected = load_run(folder / "member1").predict(np.zeros((1, 20, 20), np.uint8))
    assert np.allclose(alone.predict(folder.parent / "face.png"), expected)
    assert loaded.class_names == alone.class_names
    assert reference.main(["single"]) == 1
    assert "is one run without a plan" in capfd.readouterr().err
    (folder.parent / "damaged").mkdir()
    (folder.parent / "damaged" / "metrics.json").write_text("{}")
    with pytest.raises(DataError, match="it names no members"):
        load_reference("damaged")


def test_a_repetition_is_held_against_the_committed_one(folder, tiny_folder, tmp_path, capfd, monkeypatch):
    command = ["tiny", "--data", str(tiny_folder), "--device", "cpu", "--out", str(tmp_path / "again")]
    assert reference.main([*command, "--minutes", "0.00001"]) == 1
    assert "resumes there" in capfd.readouterr().err
    assert not (tmp_path / "again" / "submission.csv").exists()
    monkeypatch.setattr(reference, "launch_members", fit_members)
    assert reference.main(command) == 0
    out = capfd.readouterr().out
    assert out.count("; the same bytes") == 3
    assert "ensemble, again" in out and "ensemble, committed" in out


def test_an_average_may_be_committed_without_its_networks(folder, tiny_folder, tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(committed_results, "FOLDER", tmp_path)
    monkeypatch.setattr(reference, "FOLDER", tmp_path)
    without = shutil.ignore_patterns("*.safetensors", "valid.npz", "test.npz")
    shutil.copytree(folder, tmp_path / "tiny", ignore=without)
    shutil.copyfile(folder / "valid.npz", tmp_path / "tiny" / "valid.npz")
    with pytest.raises(ConfigError, match="without its networks: make reproduce RUN=tiny"):
        load_reference("tiny")
    metrics = json.loads((folder / "metrics.json").read_text())
    names = [f"member{k}" for k in range(3)]
    (tmp_path / "tiny" / "metrics.json").write_text(json.dumps(metrics | {"members": names}))
    for name in ("model.safetensors", "valid.npz", "test.npz"):  # of one of three networks
        shutil.copyfile(folder / "member1" / name, tmp_path / "tiny" / "member1" / name)
    partial = load_reference("tiny")
    assert [run.out.name for run in partial.runs] == ["member1"] and partial.missing == ("member0", "member2")
    assert [run.out for run in members("tiny")] == [run.out for run in partial.runs]
    assert "tiny: of its networks only member1 is here, without member0, member2;" in capfd.readouterr().out
    for name in ("model.safetensors", "valid.npz", "test.npz"):
        (tmp_path / "tiny" / "member1" / name).unlink()
    rows = runs(tmp_path / "tiny").set_index("run")
    assert set(rows.note[["member0", "member1", "member2"]]) == {"its networks are not here"}
    assert set(rows.state) == {"finished"}
    monkeypatch.setattr(reference, "launch_members", fit_members)
    command = ["tiny", "--data", str(tiny_folder), "--device", "cpu", "--out", str(tmp_path / "again")]
    assert reference.main(command) == 0
    printed = capfd.readouterr().out
    assert "same bytes" not in printed and printed.count("ensemble, ") == 2
    other = next(
        path for path in shutil.copytree(tiny_folder, tmp_path / "x").iterdir() if "train" in path.name
    )
    other.write_text("\n".join(other.read_text().splitlines()[:-1]) + "\n")
    command[2], command[-1] = str(tmp_path / "x"), str(tmp_path / "third")
    assert reference.main(command) == 1 and "holds other data than tiny" in capfd.readouterr().err


def test_a_repetition_on_other_data_is_refused(folder, tiny_folder, tmp_path, capfd):
    other = tmp_path / "other"
    shutil.copytree(tiny_folder, other)
    table = next(path for path in other.iterdir() if "train" in path.name)
    table.write_text("\n".join(table.read_text().splitlines()[:-1]) + "\n")
    out = tmp_path / "again"
    assert reference.main(["tiny", "--data", str(other), "--device", "cpu", "--out", str(out)]) == 1
    assert "holds other data than" in capfd.readouterr().err and not out.exists()


def test_an_average_of_committed_results_is_written_without_training(
    folder, tiny_folder, tmp_path, capfd, monkeypatch
):
    for module in (committed_results, reference):
        monkeypatch.setattr(module, "FOLDER", tmp_path)
    monkeypatch.setitem(committed_results.AVERAGES, "mix", {"tiny": 1, "other": 3})
    shutil.copytree(folder, tmp_path / "tiny")
    shutil.copytree(folder, tmp_path / "other", ignore=shutil.ignore_patterns("member*"))
    rng, probs, ids = np.random.default_rng(0), {}, load_competition(str(tiny_folder)).test.ids
    for split in ("valid", "test"):
        saved = dict(np.load(folder / f"{split}.npz"))
        saved["probs_views"] = rng.permuted(saved["probs_views"], axis=1)
        np.savez(tmp_path / "other" / f"{split}.npz", **saved)
        probs[split] = (np.load(folder / f"{split}.npz")["probs_views"] + 3 * saved["probs_views"]) / 4
    command = ["mix", "--data", str(tiny_folder), "--out", str(tmp_path / "out")]
    assert reference.main(command) == 0
    competition, told = load_competition(str(tiny_folder)), capfd.readouterr().out
    correct = (probs["valid"].argmax(1) == competition.valid.labels).mean()
    assert "tiny (1), other (3)" in told and f"{100 * correct:.1f} %" in told and "committed one" not in told
    expected = write_submission(competition, probs["test"], tmp_path / "expected.csv").read_bytes()
    assert (tmp_path / "out" / "submission.csv").read_bytes() == expected

    (tmp_path / "mix").mkdir()
    shutil.copyfile(tmp_path / "expected.csv", tmp_path / "mix" / "submission.csv")
    assert reference.main(command) == 0 and "the same bytes as the committed one" in capfd.readouterr().out
    with pytest.raises(ConfigError, match="mix is an average of other references"):
        load_reference("mix")
    fewer = {name: array[:5] for name, array in np.load(folder / "valid.npz").items()}  # as with pool_valid
    np.savez(tmp_path / "other" / "valid.npz", **fewer)
    assert reference.main(command) == 0 and "on the validation images" not in capfd.readouterr().out
    saved = dict(np.load(folder / "test.npz")) | {"ids": np.array([f"x{name}" for name in ids])}
    np.savez(tmp_path / "tiny" / "test.npz", **saved)
    assert reference.main(command) == 1 and "other test images" in capfd.readouterr().err


def test_a_plan_with_a_second_task_needs_its_data(folder, tiny_folder, tmp_path, capfd, monkeypatch):
    command = ["--data", str(tiny_folder), "--device", "cpu", "--out"]
    monkeypatch.setitem(reference.PLANS, "voted", Plan(TINY, members=1, auxiliary="the folder of FER+"))
    monkeypatch.setattr(reference, "launch_members", fit_members)
    assert reference.main(["voted", *command, str(tmp_path / "x")]) == 1
    assert "voted needs --auxiliary PATH, the folder of FER+" in capfd.readouterr().err
    assert reference.main(["tiny", *command, str(tmp_path / "x"), "--auxiliary", "votes"]) == 1
    assert "tiny takes no --auxiliary" in capfd.readouterr().err

    votes = shutil.copytree(tiny_folder, tmp_path / "votes") / "train.csv"
    table = pd.read_csv(votes)
    table.assign(emotion=1 - table.emotion % 2).to_csv(votes, index=False)
    command = ["voted", *command, str(folder.parent / "voted"), "--auxiliary", str(votes.parent)]
    assert reference.main(command) == 0
    assert "voted is not committed yet" not in capfd.readouterr().out
    assert load_run(folder.parent / "voted/member0").auxiliary_names
    table.assign(emotion=table.emotion % 2).to_csv(votes, index=False)
    command[command.index("--out") + 1] = str(tmp_path / "again")
    assert reference.main(command) == 1
    assert "auxiliary has other answers than" in capfd.readouterr().err
    assert not (tmp_path / "again").exists()


def test_a_plan_from_published_weights_needs_their_file(tiny_folder, tmp_path, capfd, monkeypatch):
    command = ["--data", str(tiny_folder), "--device", "cpu", "--out", str(tmp_path / "x")]
    monkeypatch.setitem(reference.PLANS, "tuned", Plan(TINY, members=1, weights="dlib's file"))
    monkeypatch.setattr(reference, "launch_members", fit_members)
    assert reference.main(["tuned", *command]) == 1
    assert "tuned needs --weights PATH, dlib's file" in capfd.readouterr().err
    assert reference.main(["tiny", *command, "--weights", "a.dat"]) == 1
    assert "tiny takes no --weights" in capfd.readouterr().err
    weights = tmp_path / "start.safetensors"
    save_file(create_model("small", 7, width=0.125).state_dict(), weights)
    assert reference.main(["tuned", *command, "--weights", str(weights)]) == 0
    assert load_run(tmp_path / "x/member0").folder.record()["weights"]["file"] == "start.safetensors"


def other_copy(tiny_folder, folder):
    """The same images and labels to learn from, with other ids and fewer images to answer."""
    shutil.copytree(tiny_folder, folder)
    for name in ("test.csv", "sample_submission.csv"):
        lines = (folder / name).read_text().splitlines()
        rows = [f"{100 + n},{line.partition(',')[2]}" for n, line in enumerate(lines[1:-1])]
        (folder / name).write_text("\n".join([lines[0], *rows]) + "\n")
    return str(folder)


def test_another_copy_of_the_data_is_learned_from_alike(folder, tiny_folder, tmp_path, capfd, monkeypatch):
    data, run = other_copy(tiny_folder, tmp_path / "copy"), load_run(folder / "member0")
    with pytest.raises(DataError, match="holds other data than"):
        run.load_data(data)
    competition = run.load_data(data, any_test=True)
    assert competition.test is None and competition.submission is None
    student = dataclasses.replace(run.config, data=data, teacher=str(run.out))
    check_targets(student, load_competition(data, **student.data_options))  # a committed run may teach there
    assert reference.main(["tiny", "--data", data, "--score"]) == 0
    printed = capfd.readouterr().out
    assert "100.00 % of the predictions as committed" in printed and "tiny (member" in printed
    monkeypatch.setattr(reference, "launch_members", fit_members)
    assert reference.main(["tiny", "--data", data, "--device", "cpu", "--out", str(tmp_path / "again")]) == 0
    assert capfd.readouterr().out.count("; the same bytes") == 3


def test_committed_weights_give_the_committed_answers(folder, tiny_folder, capfd):
    assert reference.main(["tiny", "--data", str(tiny_folder), "--score"]) == 0
    printed = capfd.readouterr().out
    assert "100.00 % of the predictions as committed" in printed and "tiny (member" in printed
    other = load_run(folder / "member0")
    swapped = Reference(folder, (load_run(folder / "member1"),))
    object.__setattr__(swapped.runs[0], "model", other.model)
    text = reference.score_reference(swapped, other.load_data())
    assert "100.00 %" not in text or "at most 0.0" not in text


def test_folds_are_a_reference_without_members(tiny_folder, tmp_path, monkeypatch, capfd):
    monkeypatch.setitem(reference.PLANS, "folds", Plan(TINY, members=1, at_once=2, cv=2))
    monkeypatch.setattr(committed_results, "FOLDER", tmp_path)
    monkeypatch.setattr(reference, "FOLDER", tmp_path)
    monkeypatch.setattr(launch, "launch_members", fit_members)
    command = ["folds", "--data", str(tiny_folder), "--device", "cpu", "--out", str(tmp_path / "out")]
    assert reference.main(command) == 0
    out = tmp_path / "out"
    for k in range(2):
        copied, made = out / f"submission_fold{k}.csv", out / f"fold{k}" / "submission.csv"
        assert copied.read_bytes() == made.read_bytes()
    assert "folds is not committed yet" in capfd.readouterr().out
    shutil.copytree(out, tmp_path / "folds", ignore=shutil.ignore_patterns("fold[0-9]"))
    with pytest.raises(ConfigError, match="without its networks: make reproduce RUN=folds"):
        load_reference("folds")
    assert reference.main(command) == 0
    printed = capfd.readouterr().out
    assert printed.count("out of fold, ") == 2 and "nothing to do" in printed
    (row,) = runs(tmp_path / "folds").itertuples()
    assert (row.state, row.note) == ("finished", "its networks are not here")
    shutil.copytree(tiny_folder, tmp_path / "other")
    table = next(path for path in (tmp_path / "other").iterdir() if "train" in path.name)
    table.write_text("\n".join(table.read_text().splitlines()[:-1]) + "\n")
    again = ["folds", "--data", str(tmp_path / "other"), "--device", "cpu", "--out", str(tmp_path / "again")]
    assert reference.main(again) == 1 and not (tmp_path / "again").exists()
    assert "holds other data than folds" in capfd.readouterr().err


def test_every_plan_names_knobs_that_exist():
    for name, plan in reference.PLANS.items():
        configs = reference.member_configs(plan.recipe, plan.members, {"out": name, "seed": 0})
        assert all(isinstance(config, Config) for config in configs) and len(configs) == plan.members
        for config in configs if name == "fer2013-contest" else ():
            assert config.pool_valid and config.n_folds == 50 and not plan.choose
