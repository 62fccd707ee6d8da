"""Every network builds, learns in every part and costs what it says; idle options are refused."""

import re
from copy import deepcopy
from functools import cache

import numpy as np
import pytest
import timm
import torch
from torch import nn
from torch.nn import functional as F

from fer_utils.config import Config, ConfigError
from fer_utils.faces.face_network import aligned
from fer_utils.learning import models
from fer_utils.learning.models import MODELS, Residual, create_model, model_cost

TINY_TIMM = "timm/test_resnet"
NAMES = [*MODELS, TINY_TIMM]
MILLIONS = {"small": 1.1, "medium": 2.7, "large": 11, "vgg_bn": 29.9, "resnet18": 11.2, "face_resnet": 22.9}
FIXED = ("resnet18", "face_resnet")  # of one width


def tiny(name, num_classes=7, **options):
    """The network as narrow as it can be."""
    torch.manual_seed(0)
    width = {} if name in FIXED or name.startswith("timm/") else {"width": 0.25}
    return create_model(name, num_classes, **(width | options))


@cache
def shared(name):
    """The same network for all tests that only look at it; its dropout acts in training alone."""
    return tiny(name, dropout=0.6).eval()


def pictures(n=2, size=24):
    return torch.rand(n, 1, size, size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", NAMES)
def test_every_network_works_for_any_number_of_classes_at_every_size(name):
    with torch.device("meta"):  # shapes only
        for num_classes, sizes in ((2, [16]), (7, [17, 32, 64]), (11, [48])):
            model = tiny(name, num_classes).eval()
            for size in sizes:
                assert model(aligned(model, torch.zeros(3, 1, size, size))).shape == (3, num_classes)


@pytest.mark.parametrize("name", NAMES)
def test_logits_are_finite_and_differ_between_images(name):
    with torch.no_grad():
        logits = shared(name)(aligned(shared(name), pictures(size=32)))
    assert logits.isfinite().all() and not torch.allclose(logits[0], logits[1])


@pytest.mark.parametrize("name", [name for name in NAMES if name != "face_resnet"])  # there it is folded in
def test_batch_normalization_follows_every_convolution(name):
    modules = list(shared(name).modules())
    norms = sum(isinstance(module, nn.BatchNorm2d) for module in modules)
    assert norms == sum(isinstance(module, nn.Conv2d) for module in modules) > 0


@pytest.mark.parametrize("name", NAMES)
def test_the_gradient_reaches_every_parameter(name):
    model = deepcopy(shared(name)).train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)  # timm begins some at zero, which holds the gradient back
    F.cross_entropy(model(aligned(model, pictures(8))), torch.arange(8) % 7).backward()
    untouched = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert untouched == []


@pytest.mark.parametrize("name", NAMES)
def test_an_image_alone_is_judged_as_in_a_batch(name):
    model, batch = shared(name), aligned(shared(name), pictures(3))
    with torch.no_grad():
        assert torch.allclose(model(batch[:1]), model(batch)[:1], atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_blank_images_give_finite_logits_and_gradients(name):
    model = deepcopy(shared(name)).train()
    blank = torch.tensor([0, 0.5, 1] * 3).view(9, 1, 1, 1).expand(9, 1, 24, 24)
    logits = model(aligned(model, blank))
    logits.sum().backward()
    assert logits.isfinite().all()
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_images_are_normalised_by_fixed_constants():
    black_grey_white = torch.tensor([0.0, 0.5, 1.0]).view(3, 1, 1, 1)
    assert models.normalise(black_grey_white).flatten().tolist() == [-2.0, 0.0, 2.0]


# --- size and cost ---


@pytest.mark.parametrize("name", MODELS)
def test_parameter_counts_are_as_published(name):
    with torch.device("meta"):
        count = sum(p.numel() for p in create_model(name, 7).parameters()) / 1e6
    assert count == pytest.approx(MILLIONS[name], rel=0.05)
    for written in re.findall(r"([\d.]+) M parameters", MODELS[name].__doc__):
        assert count == pytest.approx(float(written), rel=0.05)


@pytest.mark.parametrize("name", ["small", "medium", "large"])
def test_the_docstrings_of_our_own_networks_state_their_size(name):
    assert re.search(r"[\d.]+ M parameters", MODELS[name].__doc__)


def test_cost_of_one_convolution_and_one_linear_layer_equals_the_count_by_hand():
    model = nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.Flatten(), nn.Linear(3 * 8 * 8, 5))
    parameters = (3 * 9 + 3) + (192 * 5 + 5)
    assert model_cost(model, 8) == (parameters, 8 * 8 * 3 * 9 + 192 * 5)


def test_cost_grows_with_the_area_of_the_image():
    model = nn.Conv2d(1, 4, 3, padding=1)
    assert model_cost(model, 32)[1] == 4 * model_cost(model, 16)[1]


@pytest.mark.parametrize("name", ["small", "medium", "large"])
@pytest.mark.parametrize(("size", "like"), [(32, 32), (64, 64), (96, 48), (128, 64), (224, 56), (256, 64)])
def test_larger_images_are_reduced_first_so_that_the_blocks_cost_no_more(name, size, like):
    parameters, operations = model_cost(create_model(name, 7, width=0.25, image_size=size), size)
    small = create_model(name, 7, width=0.25, image_size=like)
    assert parameters == model_cost(small, like)[0]
    assert operations < 1.7 * model_cost(small, like)[1]
    logits = create_model(name, 7, width=0.25, image_size=size)(torch.rand(2, 1, size, size))
    assert logits.shape == (2, 7) and logits.isfinite().all()


@pytest.mark.parametrize("training", [True, False])
def test_cost_leaves_mode_and_weights_and_random_numbers_alone(training):
    model = tiny("small").train(training)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    random_state = torch.get_rng_state()
    model_cost(model, 32)
    assert all(module.training is training for module in model.modules())
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert torch.equal(torch.get_rng_state(), random_state)


# --- options ---


@pytest.mark.parametrize("name", ["small", "medium", "large", "vgg_bn"])
def test_width_changes_the_size_and_keeps_channels_in_eights(name):
    with torch.device("meta"):
        counts = [
            sum(p.numel() for p in create_model(name, 7, width=w).parameters()) for w in (0.125, 0.7, 1.3)
        ]
        channels = [m.out_channels for m in create_model(name, 7, width=0.7).modules() if hasattr(m, "stride")
                    and hasattr(m, "out_channels")]  # fmt: skip
    assert counts[0] < counts[1] < counts[2]
    assert channels and all(c % 8 == 0 for c in channels)


@pytest.mark.parametrize("name", NAMES)
def test_dropout_acts_in_training_only(name):
    model, images = deepcopy(shared(name)), aligned(shared(name), pictures(8, size=16))
    with torch.no_grad():
        assert torch.equal(model(images), model(images))
        model.train()
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        assert not torch.equal(model(images), model(images))


@pytest.mark.parametrize("name", ["resnet18", TINY_TIMM])
def test_width_is_refused_where_it_would_do_nothing(name):
    with pytest.raises(ConfigError, match="width must be 1"):
        create_model(name, 7, width=0.25)
    create_model(name, 7, width=Config.width)  # which nobody set


@pytest.mark.parametrize("name", MODELS)
def test_pretrained_is_refused_for_networks_without_published_weights(name):
    with pytest.raises(ConfigError, match=f"pretrained is for timm/NAME; '{name}' takes"):
        create_model(name, 7, pretrained=True)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("smal", "model must be one of .*, got 'smal': did you mean 'small'"),
        ("zzz", "model must be one of small, .*, timm/NAME, got 'zzz'"),
        ("resnet-18", "did you mean 'resnet18'"),
        ("timm/resnet10tt", "unknown timm model 'resnet10tt': did you mean one of resnet10t"),
        ("timm/test_resnet.no_such", "timm/test_resnet.no_such cannot be built .*no_such"),
        ("timm/", "unknown timm model ''"),
    ],
)
def test_an_unknown_name_is_refused_and_the_nearest_suggested(name, message):
    with pytest.raises(ConfigError, match=message):
        create_model(name, 7)


def test_a_timm_backbone_takes_grey_images_and_any_weight_tag():
    model = create_model("timm/test_resnet.r160_in1k", 4)
    assert next(m for m in model.modules() if isinstance(m, nn.Conv2d)).in_channels == 1


def test_pretrained_weights_come_from_timm(monkeypatch):
    seen = {}
    monkeypatch.setattr(timm, "create_model", lambda name, **options: seen.update(options) or nn.Identity())
    create_model(TINY_TIMM, 5, dropout=0.3, pretrained=True)
    assert seen == {"pretrained": True, "in_chans": 1, "num_classes": 5, "drop_rate": 0.3}


def test_pretrained_weights_that_are_not_available_say_what_to_do(monkeypatch):
    def offline(*_, **__):
        raise OSError("no route to huggingface.co")

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(
        ConfigError, match="(?s)weights of .*no route to huggingface.*on Kaggle attach a dataset"
    ):
        create_model(TINY_TIMM, 7, pretrained=True)


def test_a_timm_transformer_takes_the_size_of_the_images():
    options = {"dropout": 0.0, "image_size": 32}
    with torch.device("meta"):
        model = create_model("timm/vit_tiny_patch16_224", 5, **options)
        assert model(torch.zeros(2, 1, 32, 32)).shape == (2, 5)


# --- stochastic depth ---


def test_stochastic_depth_drops_whole_images_in_training_alone():
    torch.manual_seed(0)
    block = Residual(8, 8, drop_path=0.75)
    features = torch.rand(400, 8, 4, 4)
    block.eval()
    with torch.no_grad():
        expected = F.relu(block.second(F.relu(block.first(features))) + features)
        assert torch.equal(block(features), expected)  # nothing is dropped and nothing scaled
        block.train()
        outputs = block(features)
        residual = block.second(F.relu(block.first(features)))
    skipped = (outputs == features).flatten(1).all(1)
    assert 0.68 < skipped.float().mean() < 0.82
    assert torch.allclose(outputs[~skipped], F.relu(4 * residual + features)[~skipped], atol=1e-5)


@pytest.mark.parametrize("name", ["medium", "large"])
def test_stochastic_depth_grows_with_the_depth(name):
    chances = [m.drop_path for m in tiny(name, drop_path=0.4).modules() if isinstance(m, Residual)]
    assert np.allclose(np.diff(chances), chances[0]) and chances[-1] == pytest.approx(0.4)
    assert not any(m.drop_path for m in tiny(name).modules() if isinstance(m, Residual))


@pytest.mark.parametrize("name", ["small", "vgg_bn", "resnet18"])
def test_stochastic_depth_is_refused_without_residual_blocks(name):
    with pytest.raises(ConfigError, match=f"drop_path must be 0 for {name}"):
        tiny(name, drop_path=0.1)


def test_stochastic_depth_is_passed_to_timm(monkeypatch):
    seen = {}
    monkeypatch.setattr(timm, "create_model", lambda name, **options: seen.update(options) or nn.Identity())
    create_model(TINY_TIMM, 5, drop_path=0.2)
    assert seen["drop_path_rate"] == 0.2
