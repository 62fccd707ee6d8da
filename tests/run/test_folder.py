"""Predictions of a finished run."""

import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import tiny_competition

from fer_utils import files
from fer_utils.competition import DataError
from fer_utils.config import Config, ConfigError
from fer_utils.data.decode_images import resize
from fer_utils.learning.augment import VIEWS
from fer_utils.learning.predict import view_probs
from fer_utils.run import finished_run as folder
from fer_utils.run.committed_results import FOLDER
from fer_utils.run.finished_run import load_run
from fer_utils.run.folder import RunFolder
from fer_utils.run.results import print_results
from fer_utils.run.train import fit


@pytest.fixture(scope="module")
def run(tiny, tmp_path_factory):
    out = tmp_path_factory.mktemp("run")
    return fit(
        Config(
            out=str(out), image_size=20, model="small", width=0.125, epochs=1, precision="fp32", device="cpu"
        ),
        tiny,
    )


def test_predictions_repeat_those_saved_in_training_bit_by_bit(run, tiny):
    loaded = load_run(run.out)
    for views, saved in (("plain", False), ("mirror", True)):
        probs = loaded.predict(tiny.valid.images, views)
        assert np.array_equal(probs, run.saved_probs("valid", saved))
        assert np.allclose(probs.sum(1), 1, atol=1e-5)


def test_views_are_averaged(run, tiny):
    images = tiny.valid.images
    mirrored = np.ascontiguousarray(images[..., ::-1])
    mean = (run.predict(images, "plain") + run.predict(mirrored, "plain")) / 2
    assert np.allclose(run.predict(images, "mirror"), mean, atol=1e-6)


def test_predictions_do_not_depend_on_the_batch(run, tiny):
    one_by_one = view_probs(run.model, tiny.valid.images, "shift", most=1)
    assert one_by_one.shape == (10, 20, 4)
    assert np.allclose(one_by_one, view_probs(run.model, tiny.valid.images, "shift"), atol=1e-5)


@pytest.mark.parametrize("views", VIEWS)
def test_the_first_view_is_the_plain_one(views, run, tiny):
    probs = view_probs(run.model, tiny.valid.images, views)
    assert np.array_equal(probs[0], view_probs(run.model, tiny.valid.images, "plain")[0])
    assert len(probs) == len(VIEWS[views])


def test_images_of_another_size_are_resized(run):
    """As files are: training and prediction see the same pixels."""
    images = np.random.default_rng(0).integers(0, 256, (3, 1, 40, 40), np.uint8)
    probs = run.predict(images)
    assert np.array_equal(probs, run.predict(resize(images, run.config.image_size)))


@pytest.mark.parametrize("images", [np.zeros((2, 1, 20, 20)), np.zeros((2, 2, 16, 16), np.uint8)])
def test_other_arrays_are_refused(run, images):
    with pytest.raises(DataError, match="uint8"):
        run.predict(images)


def test_unknown_views_are_refused(run, tiny):
    with pytest.raises(ConfigError, match="views"):
        run.predict(tiny.valid.images, "ten-crop")


def test_an_unfinished_run_says_what_is_missing(run, tmp_path):
    (tmp_path / "config.json").write_bytes((run.out / "config.json").read_bytes())
    with pytest.raises(DataError, match=r"metrics\.json is missing.*resumes"):
        load_run(tmp_path)


def test_a_run_refuses_other_data(run, tiny, monkeypatch):
    monkeypatch.setattr(folder, "load_competition", lambda data, **options: tiny)
    assert run.load_data() is tiny
    monkeypatch.setattr(folder, "load_competition", lambda data, **options: tiny_competition(5))
    with pytest.raises(DataError, match="other data"):
        run.load_data("elsewhere")


def test_results_without_weights_are_kept_from_another_run(run, tiny, tmp_path):
    """Somebody removed the weights to save room."""
    out = shutil.copytree(run.out, tmp_path / "run")
    (out / "model.safetensors").unlink()
    config, before = (
        replace(run.config, out=str(out)),
        {path.name: path.read_bytes() for path in out.iterdir()},
    )
    with pytest.raises(ConfigError, match="another config .*seed: 0 there, 3 now.*choose another out"):
        fit(replace(config, seed=3), tiny)
    with pytest.raises(DataError, match="other data .*choose another out"):
        fit(config, tiny_competition(n_classes=5))
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert (
        fit(config, tiny).folder.weights.read_bytes() == run.folder.weights.read_bytes()
    )  # the same run again


def test_a_committed_result_without_networks_is_kept_from_another_run():
    committed = RunFolder(FOLDER / "fer2013-cv")
    config, same = committed.config(), SimpleNamespace(fingerprint=committed.record()["fingerprint"])
    assert committed.lacks_networks and not committed.holds(config, same)  # it can be trained again
    with pytest.raises(ConfigError, match="epochs: 24 there, 25 now"):
        committed.holds(replace(config, epochs=25), same)


@pytest.mark.parametrize("name", ["valid.npz", "test.npz"])
def test_the_data_are_not_taken_for_results(run, tiny, tmp_path, name):
    """Arrays of images are called so too: x of the data, where a run has its predictions."""
    np.savez(tmp_path / name, x=np.zeros((2, 8, 8)))
    before = (tmp_path / name).read_bytes()
    with pytest.raises(ConfigError, match=f"{name} was not written by a run, and would be lost: choose"):
        fit(replace(run.config, out=str(tmp_path)), tiny)
    assert (tmp_path / name).read_bytes() == before


def test_a_new_run_inherits_no_results(run, tiny, tmp_path, capsys):
    """Of a run whose metrics.json is gone, on data that had test images."""
    out = shutil.copytree(run.out, tmp_path / "run")
    shutil.copy(out / "valid.npz", out / "oof.npz")
    (out / "metrics.json").unlink()
    new = fit(replace(run.config, out=str(out), seed=3), replace(tiny, test=None, submission=None))
    assert not {"submission.csv", "test.npz", "oof.npz"} & {path.name for path in out.iterdir()}
    right = new.saved_probs().argmax(1) == tiny.valid.labels
    assert right.mean() == new.metrics["valid"]["views"]["accuracy"]
    print_results(new)
    assert "submission:" not in capsys.readouterr().out


def test_a_relative_out_counts_from_the_repository(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert files.resolve_out("outputs/x") == files.REPOSITORY / "outputs" / "x"
    assert files.resolve_out(tmp_path / "x") == tmp_path / "x"


@pytest.mark.parametrize("content", ["{}", "[]", '{"training": {}}', "3"])
def test_metrics_without_scores_are_refused(run, tmp_path, content):
    shutil.copytree(run.out, tmp_path / "copy")
    (tmp_path / "copy" / "metrics.json").write_text(content)
    with pytest.raises(DataError, match="metrics.json is damaged: it (lacks the scores|holds no names)"):
        load_run(tmp_path / "copy")


def test_predictions_keep_cudnn_and_leave_out_tf32():
    class Looking(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(16, 2)

        def forward(self, images):
            seen.append((torch.backends.cudnn.enabled, torch.backends.cudnn.allow_tf32))
            return self.layer(images.flatten(1))

    seen = []
    view_probs(Looking(), np.zeros((2, 1, 4, 4), np.uint8))
    assert seen == [(torch.backends.cudnn.enabled, False)]


def test_probabilities_are_calibrated_before_they_are_handed_in(tiny, tmp_path):
    """A model that says 99 % and is right 15 times in 20 hands in that share, with one more image by
    chance."""
    template = pd.DataFrame({"id": tiny.test.ids} | dict.fromkeys(tiny.class_names, "0"))
    form = replace(tiny.submission, template=template, probability_columns=tiny.class_names)
    answers = np.where(np.arange(20) % 4 == 3, (tiny.valid.labels + 1) % 4, tiny.valid.labels)
    sure = np.full((4, 4), 0.01 / 3) + np.eye(4) * (0.99 - 0.01 / 3)
    folder = RunFolder(tmp_path)
    folder.write_submission(replace(tiny, submission=form), sure[answers], sure[np.arange(12) % 4])
    written = pd.read_csv(folder.submission)[list(tiny.class_names)].to_numpy()
    assert written.max(axis=1) == pytest.approx((15 + 1 / 4) / 21, abs=0.001)
    assert written.argmax(axis=1).tolist() == [k % 4 for k in range(12)]


@pytest.mark.parametrize("name", ["submission.csv", "model.safetensors", "history.csv"])
def test_files_of_a_person_in_the_folder_are_not_lost(name, tiny, tmp_path):
    (tmp_path / name).write_text("mine")
    config = Config(image_size=20, model="small", width=0.125, epochs=1, device="cpu", out=str(tmp_path))
    with pytest.raises(ConfigError, match=f"{name} was not written by a run"):
        fit(config, tiny)
    assert (tmp_path / name).read_text() == "mine"
