"""Weights from a file: what is loaded, what is refused, and training from them."""

import math
import os
import signal
from dataclasses import replace

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from fer_utils.config import Config, ConfigError
from fer_utils.learning.models import create_model
from fer_utils.learning.optim import layer_groups, make_optimizer
from fer_utils.learning.pretrained import find_weights, load_weights
from fer_utils.learning.training_loop import Learner, place, train_epoch
from fer_utils.progress import Progress
from fer_utils.run import checkpoint
from fer_utils.run.finished_run import load_run
from fer_utils.run.folder import RunFolder
from fer_utils.run.train import fit

NETWORK = "timm/test_resnet"


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """Weights of 1,000 classes on colour images, as ImageNet's are."""
    torch.manual_seed(5)
    state = timm.create_model("test_resnet", num_classes=1000).state_dict()
    path = tmp_path_factory.mktemp("weights") / "published.safetensors"
    save_file(state, path)
    return path


def test_all_but_the_classifier_is_loaded_and_the_report_says_so(published):
    model = create_model(NETWORK, 4, channels=3)
    loaded = load_weights(model, published)
    given = timm.models.load_state_dict(str(published))
    own = model.backbone.state_dict()
    assert all(torch.equal(own[name], given[name]) for name in own if not name.startswith("fc."))
    n = len(own)
    assert loaded.report.startswith(f"{n - 2} of {n} tensors (") and "by name" in loaded.report
    assert "not in it: backbone.fc.weight [4, " in loaded.report and len(loaded.sha256) == 64


def test_a_new_classifier_begins_by_guessing(published):
    model = create_model(NETWORK, 4)
    load_weights(model, published)
    assert not model(torch.rand(2, 1, 48, 48)).any()
    model = create_model(NETWORK, 1000)  # as many classes as in the file: its classifier is loaded
    load_weights(model, published)
    assert model(torch.rand(2, 1, 48, 48)).any()


def test_a_grey_network_answers_as_the_colour_one_does_on_grey_images(published):
    torch.manual_seed(0)
    grey, colour = create_model(NETWORK, 1000), create_model(NETWORK, 1000, channels=3)
    load_weights(grey, published), load_weights(colour, published)
    images = torch.rand(2, 1, 48, 48)
    # Equal constants for all channels make it exact; ImageNet's differ a little from channel to channel.
    for name in ("mean", "std"):
        setattr(colour, name, getattr(grey, name).expand(3, 1, 1))
    with torch.no_grad():
        expected = colour.eval()(images.expand(-1, 3, -1, -1))
        assert torch.allclose(grey.eval()(images), expected, atol=1e-4)
    first = next(module for module in grey.modules() if isinstance(module, nn.Conv2d))
    assert first.in_channels == 1


def test_timm_networks_normalise_as_their_weights_want():
    model = create_model("timm/test_resnet", 4, channels=3)
    assert model.mean.flatten().tolist() == pytest.approx(model.backbone.pretrained_cfg["mean"])
    assert create_model("timm/test_resnet", 4).std.item() == pytest.approx(
        sum(model.backbone.pretrained_cfg["std"]) / 3
    )
    assert not {"mean", "std"} & set(model.state_dict())  # a run's file has the weights alone


@pytest.mark.parametrize("form", ["checkpoint", "other names", "prefix"])
def test_forms_of_other_programs_are_read(form, published, tmp_path):
    given = timm.models.load_state_dict(str(published))
    names = create_model(NETWORK, 4).backbone.state_dict()
    state = {name: given[name] for name in names}  # in the order of the network
    if form == "checkpoint":
        content = {"state_dict": state, "epoch": 3}
    elif form == "prefix":
        content = {f"module.model.{name}": tensor for name, tensor in state.items()}
    else:  # the kinds stay, at the end of the names
        content = {
            f"_layer{k}.{name.split('.')[-1]}": tensor for k, (name, tensor) in enumerate(state.items())
        }
    path = tmp_path / "other.pth"
    torch.save(content, path)
    model = create_model(NETWORK, 4, channels=3)
    report = load_weights(model, path).report
    assert ("by the order" in report) == (form == "other names")
    own = model.backbone.state_dict()
    assert all(torch.equal(own[name], state[name]) for name in own if not name.startswith("fc."))


def test_a_run_of_this_project_is_a_start_too(tmp_path):
    torch.manual_seed(1)
    other = create_model("medium", 7, width=0.125)
    save_file(other.state_dict(), tmp_path / "model.safetensors")
    model = create_model("medium", 4, width=0.125)
    report = load_weights(model, tmp_path / "model.safetensors").report
    assert "not in it: classifier.weight [4, 32], classifier.bias [4]" in report
    assert torch.equal(next(model.parameters()), next(other.parameters()))


def test_weights_of_another_network_are_refused(published):
    message = r"published\.safetensors has \d+ % of this network, so it belongs to another one\. Not in it"
    with pytest.raises(ConfigError, match=message):
        load_weights(create_model("medium", 4, width=0.125), published)


@pytest.mark.parametrize("content", [b"", b"no weights", b"PK\x03\x04 neither"])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_damaged_file_is_refused(content, suffix, tmp_path):
    path = tmp_path / f"damaged{suffix}"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=rf"damaged\{suffix} cannot be read as weights"):
        load_weights(create_model(NETWORK, 4), path)


def test_a_file_that_would_run_code_is_refused(tmp_path):
    class Runs:
        def __reduce__(self):
            return (tmp_path.joinpath("ran").touch, ())

    torch.save({"state_dict": Runs()}, tmp_path / "evil.pth")
    with pytest.raises(ConfigError, match="evil.pth cannot be read as weights"):
        load_weights(create_model(NETWORK, 4), tmp_path / "evil.pth")
    assert not (tmp_path / "ran").exists()


def test_a_file_is_found_by_name_among_the_attached_data(tmp_path):
    inputs = tmp_path / "input"
    file = inputs / "efficientnet" / "pytorch" / "b0" / "1" / "b0.pth"
    file.parent.mkdir(parents=True)
    file.touch()
    (inputs / "notes.txt").touch()
    for name in ("b0.pth", "b0", "efficientnet", str(file), str(file.parent)):
        assert find_weights(name, inputs) == file
    with pytest.raises(ConfigError, match="no file with .* called 'b1'.*attach a dataset"):
        find_weights("b1", inputs)
    file.with_name("b0.safetensors").touch()
    with pytest.raises(ConfigError, match=r"2 files called 'efficientnet'.*name one of .*b0\.pth"):
        find_weights("efficientnet", inputs)


def test_without_attached_data_the_message_says_how_to_attach(tmp_path):
    with pytest.raises(ConfigError, match="(?s)no file or folder 'no_such.pth'.*on Kaggle attach"):
        find_weights("no_such.pth", tmp_path / "nothing")


def test_layers_near_the_images_move_least(published):
    config = Config(model=NETWORK, optimizer="adamw", learning_rate=0.01, layer_decay=0.5)
    model = create_model(NETWORK, 4)
    scales = {id(p): group["lr_scale"] for group in layer_groups(model, config) for p in group["params"]}
    assert len(scales) == len(list(model.parameters()))
    parameters = list(model.parameters())  # from the images to the classifier
    assert scales[id(parameters[0])] == min(scales.values()) < 0.5 and scales[id(parameters[-1])] == 1
    assert len(make_optimizer(model, config).param_groups) > 2


def test_layer_decay_needs_a_network_that_knows_its_layers():
    config = Config(model="small", optimizer="adamw", learning_rate=0.01, layer_decay=0.5)
    with pytest.raises(ConfigError, match="layer_decay must be 1 for small"):
        make_optimizer(create_model("small", 4, width=0.125), config)
    with pytest.raises(ConfigError, match="layer_decay must be 1 for muon"):
        Config(optimizer="muon", layer_decay=0.5)


TINY = {"model": NETWORK, "image_size": 20, "optimizer": "adamw", "learning_rate": 0.01, "epochs": 2}
TINY |= {"batch_size": 16, "precision": "fp32", "device": "cpu", "ema_decay": 0.0}


def convolutions(model):
    return [p.detach().clone() for p in model.parameters() if p.ndim == 4]


def test_first_only_the_classifier_learns(published, tiny):
    learner = Learner(Config(**TINY, weights=str(published), head_epochs=1), tiny, torch.device("cpu"))
    images, labels = place(tiny.train.images, learner.device), torch.tensor(tiny.train.labels)
    before, head = convolutions(learner.model), learner.model.backbone.fc.weight.detach().clone()
    train_epoch(learner, images, labels, 0)
    assert all(map(torch.equal, convolutions(learner.model), before))
    assert not torch.equal(learner.model.backbone.fc.weight, head)
    train_epoch(learner, images, labels, 1)
    assert not any(map(torch.equal, convolutions(learner.model), before))


def test_a_resumed_fine_tuning_ends_as_an_undisturbed_one_without_the_file(
    published, tiny, tmp_path, monkeypatch
):
    monkeypatch.setattr(checkpoint, "SHARE_OF_TIME", math.inf)  # one after every epoch
    file = tmp_path / "moved.safetensors"
    file.write_bytes(published.read_bytes())
    config = Config(**TINY, weights=str(file), head_epochs=1, layer_decay=0.8)
    whole = fit(replace(config, out=str(tmp_path / "whole")), tiny)
    with monkeypatch.context() as patch:
        patch.setattr(Progress, "report", lambda *_: os.kill(os.getpid(), signal.SIGINT))
        with pytest.raises(KeyboardInterrupt):
            fit(replace(config, out=str(tmp_path / "cut")), tiny)
    file.unlink()
    cut = fit(replace(config, out=str(tmp_path / "cut")), tiny)
    assert (cut.out / "model.safetensors").read_bytes() == (whole.out / "model.safetensors").read_bytes()
    record = cut.folder.record()["weights"]
    assert record == whole.folder.record()["weights"] and len(record["sha256"]) == 64
    assert np.array_equal(load_run(cut.out).predict(tiny.valid.images), whole.predict(tiny.valid.images))


def test_a_missing_file_is_an_error_and_never_a_random_start(tiny, tmp_path):
    with pytest.raises(ConfigError, match="weights: no file"):
        fit(Config(**TINY, out=str(tmp_path / "run"), weights="no_such.pth"), tiny)
    assert not (tmp_path / "run" / "config.json").exists()


def test_a_damaged_checkpoint_leads_back_to_the_pretrained_weights(published, tiny, tmp_path, capsys):
    config = Config(**TINY, out=str(tmp_path), weights=str(published))
    folder = RunFolder(tmp_path)
    folder.checkpoint.path.write_bytes(b"damaged")
    fit(config, tiny)
    assert "tensors (" in capsys.readouterr().out
