"""TensorBoard gets config, numbers and figures where it is asked for, and changes nothing of the result."""

import math
import sys
from types import ModuleType

import matplotlib.pyplot as plt
import numpy as np
import pytest

from fer_utils import Config, ConfigError, fit, plots
from fer_utils.run import checkpoint, train

TINY = {"image_size": 20, "model": "small", "width": 0.125, "epochs": 2, "precision": "fp32", "device": "cpu"}


@pytest.fixture
def written(monkeypatch):
    """What a stand-in for TensorBoard's writer was given: (what, name, value, step)."""
    calls = []

    class SummaryWriter:
        def __init__(self, log_dir, purge_step=None):
            train.RunFolder(log_dir).path.mkdir(exist_ok=True)
            calls.append(("open", log_dir, None, purge_step))

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.close()

        def add_text(self, name, text, step):
            calls.append(("text", name, text, step))

        def add_scalar(self, name, value, step):
            calls.append(("scalar", name, value, step))

        def add_image(self, name, image, dataformats):
            calls.append(("image", name, image, dataformats))

        def flush(self):
            pass

        def close(self):
            calls.append(("close", "", None, None))

    module = ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = SummaryWriter
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    return calls


def test_every_number_of_the_history_and_the_config_are_written(tiny, tmp_path, written):
    run = fit(Config(**TINY, out=str(tmp_path), track="tensorboard"), tiny)
    scalars = {(name, step): value for what, name, value, step in written if what == "scalar"}
    history = run.history.set_index("epoch")
    assert scalars.keys() == {(name, epoch) for name in history for epoch in (1, 2)}
    assert all(np.isclose(value, history.loc[step, name]) for (name, step), value in scalars.items())
    ((_, name, text, _),) = [call for call in written if call[0] == "text"]
    assert name == "config" and "| width | 0.125 |" in text
    assert written[0] == ("open", str(tmp_path / "tensorboard"), None, 1) and written[-1][0] == "close"


def test_a_tracked_run_has_the_bytes_of_one_that_is_not(tiny, tmp_path, written):
    for name, track in (("tracked", "tensorboard"), ("plain", "none")):
        fit(Config(**TINY, out=str(tmp_path / name), track=track), tiny)
    for name in ("model.safetensors", "history.csv", "submission.csv"):
        assert (tmp_path / "tracked" / name).read_bytes() == (tmp_path / "plain" / name).read_bytes()
    assert not (tmp_path / "plain" / "tensorboard").exists()
    assert not Config().differing(Config(track="tensorboard")), "a run resumes with or without"


def test_a_resumed_run_replaces_what_was_written_after_its_checkpoint(tiny, tmp_path, written, monkeypatch):
    config = Config(**TINY, out=str(tmp_path), track="tensorboard")

    def interrupt(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "SHARE_OF_TIME", math.inf)  # a checkpoint after every epoch
        patch.setattr(train.Progress, "report", interrupt)
        with pytest.raises(KeyboardInterrupt):
            fit(config, tiny)
    fit(config, tiny)
    steps = [step for what, name, _, step in written if (what, name) == ("scalar", "train_loss")]
    assert steps == [1, 2]
    assert [step for what, _, _, step in written if what == "open"] == [1, 2]


def test_figures_of_a_tracked_run_are_shown_there_too_and_no_others(tmp_path, written):
    fig, _ = plt.subplots()
    plots.save_figure(fig, tmp_path, "curves")
    assert not written
    (tmp_path / "tensorboard").mkdir()
    plots.save_figure(fig, tmp_path, "curves")
    plt.close(fig)
    ((_, name, image, order),) = [call for call in written if call[0] == "image"]
    assert name == "curves" and image.shape[2] == 3 and image.std() > 0 and order == "HWC"


def test_without_the_package_a_tracked_run_stops_before_it_trains(tiny, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ConfigError, match='pip install tensorboard, or set track = "none"'):
        fit(Config(**TINY, out=str(tmp_path / "run"), track="tensorboard"), tiny)
    assert not (tmp_path / "run").exists()


def test_without_the_package_figures_of_a_tracked_run_are_written_all_the_same(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    (tmp_path / "tensorboard").mkdir()
    fig, _ = plt.subplots()
    assert plots.save_figure(fig, tmp_path, "curves").is_file()
    plt.close(fig)
