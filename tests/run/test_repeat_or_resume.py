"""config.json of a run repeats it, wherever it lies now; a folder from a stranger can do no harm."""

import json
import os
import pickle
import shutil

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from fer_utils import Config, DataError, OutputError, fit, load_competition, load_run, plots
from fer_utils.files import REPOSITORY
from fer_utils.run import train
from fer_utils.run.repeat_or_resume import config_from_file, warn_of_another_machine

KNOBS = {"image_size": 20, "model": "small", "width": 0.125, "epochs": 2, "batch_size": 16, "device": "cpu"}
KEPT = ("model.safetensors", "history.csv", "submission.csv")


@pytest.fixture(scope="module")
def run(tiny_folder, tmp_path_factory):
    config = Config(**KNOBS, data=str(tiny_folder), out=str(tmp_path_factory.mktemp("run")), precision="bf16")
    return fit(config, load_competition(config.data, **config.data_options))


@pytest.fixture
def threads():
    """Repetition sets the number of threads."""
    before = torch.get_num_threads()
    yield before
    torch.set_num_threads(before)


def edit(folder, change):
    """Rewrite a config.json as somebody's editor would."""
    content = json.loads((folder / "config.json").read_text())
    change(content)
    (folder / "config.json").write_text(json.dumps(content))


@pytest.fixture
def copy(run, tmp_path):
    """The run's folder, handed to somebody else."""
    return shutil.copytree(run.out, tmp_path / "copy")


def test_the_config_of_a_run_repeats_its_bytes(run, tmp_path, threads):
    assert train.main([str(run.out / "config.json"), "--out", str(tmp_path / "again")]) == 0
    for name in KEPT:
        assert (tmp_path / "again" / name).read_bytes() == (run.out / name).read_bytes()


def test_a_repetition_takes_precision_and_threads_from_the_record(copy, tmp_path, threads, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)

    def change(content):
        content["precision"] = "auto"
        content["record"]["environment"] |= {"precision": "bfloat16", "threads": threads + 1}

    edit(copy, change)
    assert config_from_file(copy / "config.json", str(tmp_path / "again")).precision == "bf16"
    assert torch.get_num_threads() == threads + 1
    assert config_from_file(copy / "config.json").precision == "auto"  # that run goes on as it began


def test_an_interrupted_repetition_goes_on(copy, run, tmp_path, threads, monkeypatch):
    def change(content):
        content["precision"] = "auto"
        content["record"]["environment"]["precision"] = "bfloat16"

    edit(copy, change)
    command = [str(copy / "config.json"), "--out", str(tmp_path / "again")]
    with monkeypatch.context() as patch:
        patch.setattr("fer_utils.run.folder.write_submission", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            train.main(command)
    assert train.main(command) == 0
    assert train.main(command) == 0  # finished: nothing to do
    for name in KEPT:
        assert (tmp_path / "again" / name).read_bytes() == (run.out / name).read_bytes()


def test_a_moved_run_is_still_itself(copy, run, capsys, threads):
    assert train.main([str(copy / "config.json")]) == 0
    assert f"{copy} holds this run already, finished" in capsys.readouterr().out


def test_other_data_do_not_pass_for_a_repetition(copy, tmp_path, capsys, threads):
    edit(copy, lambda content: content.update(data="demo", image_size=24))
    assert train.main([str(copy / "config.json"), "--out", str(tmp_path / "again")]) == 1
    assert "'demo' holds other data than" in capsys.readouterr().err
    assert not (tmp_path / "again").exists()


def test_another_machine_is_named(capsys):
    then = {"environment": {"torch": "2.10.0", "threads": 8, "git_commit": "a"}}
    warn_of_another_machine(then, {"torch": "2.15.0", "threads": 8, "git_commit": "b"})
    printed = capsys.readouterr().out
    assert "WARNING" in printed and "torch 2.10.0 then, 2.15.0 now" in printed and "threads" not in printed
    warn_of_another_machine(then, {"torch": "2.10.0"})
    assert capsys.readouterr().out == ""


def test_a_run_that_goes_on_with_other_threads_says_so(tiny, tmp_path, monkeypatch, capsys, threads):
    config = Config(**KNOBS, out=str(tmp_path), precision="fp32", checkpoint_seconds=0.0)
    with monkeypatch.context() as patch:
        patch.setattr("fer_utils.run.folder.write_submission", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            fit(config, tiny)
    torch.set_num_threads(threads + 1)
    fit(config, tiny)
    assert f"threads {threads} then, {threads + 1} now" in capsys.readouterr().out


# --- a folder from a stranger ---


def test_a_strangers_config_trains_nowhere_but_in_its_own_folder(copy, tmp_path, threads):
    edit(copy, lambda content: content.update(out=str(tmp_path / "elsewhere")))
    for name in ("metrics.json", "model.safetensors"):
        (copy / name).unlink()
    assert train.main([str(copy / "config.json")]) == 0
    assert (copy / "metrics.json").is_file() and not (tmp_path / "elsewhere").exists()


def test_not_even_without_a_record(copy, tmp_path):
    def change(content):
        content["out"] = str(tmp_path / "elsewhere")
        del content["record"]

    edit(copy, change)
    assert config_from_file(copy / "config.json").out == str(copy)


class Harmful:
    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("name", ["valid.npz", "model.safetensors"])
def test_pickles_under_any_name_are_not_run(name, copy, tmp_path):
    harm = Harmful(tmp_path / "harm")
    (copy / name).write_bytes(pickle.dumps(harm))
    stranger = load_run(copy)
    with pytest.raises(DataError, match=name):
        stranger.saved_probs("valid") if name == "valid.npz" else stranger.model  # noqa: B018
    assert not (tmp_path / "harm").exists()


def test_arrays_of_objects_are_not_read(copy, tmp_path):
    np.savez(copy / "valid.npz", probs_views=np.array([Harmful(tmp_path / "harm")], dtype=object))
    with pytest.raises(DataError, match=r"valid\.npz cannot be used"):
        load_run(copy).saved_probs("valid")
    assert not (tmp_path / "harm").exists()


def test_weights_of_another_network_are_named(copy):
    weights = load_file(copy / "model.safetensors")
    save_file(
        {name: w for name, w in weights.items() if name != "classifier.bias"}, copy / "model.safetensors"
    )
    with pytest.raises(DataError, match=r"model\.safetensors does not hold the weights of this network"):
        load_run(copy).model  # noqa: B018


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.json", "{"),
        ("config.json", '{"record": {}}'),
        ("config.json", '{"record": 3}'),
        ("config.json", "{}"),
        ("metrics.json", "{"),
        ("history.csv", ""),
    ],
)
def test_damaged_files_are_named(name, content, copy):
    (copy / name).write_text(content)
    with pytest.raises(DataError, match=name.replace(".", r"\.")):
        load_run(copy)


def test_figures_do_not_follow_a_link_out_of_the_run(copy, tmp_path):
    (tmp_path / "outside").mkdir()
    (copy / "figures").symlink_to(tmp_path / "outside")
    fig, _ = plt.subplots()
    with pytest.raises(OutputError, match="is a link"):
        plots.save_figure(fig, copy, "confusion")
    plt.close(fig)
    assert not list((tmp_path / "outside").iterdir())


def test_no_file_of_the_package_opens_pickles():
    """Every reader that could is told not to."""
    for path in REPOSITORY.glob("fer_utils/**/*.py"):
        source = path.read_text(encoding="utf-8")
        assert "import pickle" not in source and "joblib.load" not in source, path.name
        loads = source.count("torch.load(") + source.count("load_state_dict(str(")  # the second is timm's
        assert loads == source.count("weights_only=True"), path.name
        assert source.count("np.load") == source.count("allow_pickle=False"), path.name
        assert "read_pickle" not in source and "allow_pickle=True" not in source, path.name
