"""Weight decay spares norms and biases; schedules have their shapes; the moving average follows."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from fer_utils.config import Config
from fer_utils.learning import optim
from fer_utils.learning.models import conv_norm, create_model
from fer_utils.learning.optim import (
    MovingAverage,
    class_weights,
    learning_rate_factor,
    make_optimizer,
    orthogonal,
    sam_perturbation,
)

OPTIMIZERS = {
    "sgd": {"optimizer": "sgd"},
    "muon": {"optimizer": "muon"},
    "adamw": {"optimizer": "adamw", "learning_rate": 0.01},
}


def network():
    torch.manual_seed(0)
    return create_model("large", 3, width=0.125)  # norms, biases, linear layers inside


# --- optimizer ---


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_parameter_is_trained_once(name):
    model = network()
    optimizer = make_optimizer(model, Config(**OPTIMIZERS[name]))
    trained = [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert sorted(trained) == sorted(id(p) for p in model.parameters())


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_weight_decay_shrinks_weights_and_spares_norms_and_biases(name):
    model = network()
    norms = {f"{n}.weight" for n, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)}
    spared = norms | {n for n, _ in model.named_parameters() if n.endswith("bias")}
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    optimizer = make_optimizer(model, Config(weight_decay=0.5, momentum=0, **OPTIMIZERS[name]))
    for p in model.parameters():
        p.grad = torch.zeros_like(p)  # only decay can act
    optimizer.step()
    rate = optimizer.param_groups[0]["lr"]
    for n, p in model.named_parameters():
        decay = 0.0 if n in spared else 0.5
        if name == "muon" and p.ndim == 2 and n != "classifier.weight":
            decay = optim.HIDDEN_DECAY
        expected = before[n] * (1 - rate * decay)
        assert torch.allclose(p, expected, atol=1e-7), n


def test_parameters_reach_the_optimizer():
    sgd = make_optimizer(network(), Config(optimizer="sgd", learning_rate=0.3, momentum=0.8))
    assert sgd.defaults["lr"] == 0.3 and sgd.defaults["momentum"] == 0.8 and sgd.defaults["nesterov"]
    plain = make_optimizer(network(), Config(optimizer="sgd", momentum=0))
    assert not plain.defaults["nesterov"]
    adamw = make_optimizer(network(), Config(optimizer="adamw", learning_rate=0.001, momentum=0.8))
    assert isinstance(adamw, torch.optim.AdamW) and adamw.defaults["betas"] == (0.8, 0.999)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_steps_go_downhill(name):
    model = nn.Linear(2, 1)
    optimizer = make_optimizer(model, Config(**OPTIMIZERS[name]))
    losses = []
    for _ in range(20):
        loss = (model(torch.ones(1, 2)) - 3).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


# --- schedule ---

SCHEDULES = ("onecycle", "cosine", "constant")


def factors(schedule, warmup, at):
    config = Config(schedule=schedule, warmup=warmup)
    return [learning_rate_factor(progress, config) for progress in at]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_schedules_climb_linearly_from_a_small_rate_to_the_peak_at_the_end_of_warmup(schedule):
    start, middle, end = factors(schedule, 0.4, (0, 0.2, 0.4))
    assert start == pytest.approx(0.02) and end == pytest.approx(1)
    assert middle == pytest.approx((start + end) / 2)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("onecycle", [1, 0.75, 0.5, 0.25, 0]),
        ("cosine", [1, 0.853553, 0.5, 0.146447, 0]),
        ("constant", [1, 1, 1, 1, 1]),
    ],
)
@pytest.mark.parametrize("warmup", [0, 0.2, 0.9])
def test_after_warmup_each_schedule_has_its_shape(schedule, expected, warmup):
    at = [warmup + (1 - warmup) * share for share in (0, 0.25, 0.5, 0.75, 1)]
    assert factors(schedule, warmup, at) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_rates_stay_between_zero_and_the_peak_and_jump_nowhere(schedule):
    values = torch.tensor(factors(schedule, 0.25, torch.linspace(0, 1, 1001).tolist()))
    assert values.min() >= 0 and values.max() <= 1
    assert values.diff().abs().max() < 0.005
    assert values.argmax() == 250


# --- muon ---


@pytest.mark.parametrize("shape", [(16, 8, 3, 3), (64, 4, 1, 1), (8, 8, 1, 1)])
def test_updates_are_made_nearly_orthogonal(shape):
    update = orthogonal(torch.randn(shape, generator=torch.Generator().manual_seed(0)))
    assert update.shape == shape
    values = torch.linalg.svdvals(update.reshape(shape[0], -1)) / max(1, shape[0] / update[0].numel()) ** 0.5
    assert values.min() > 0.4 and values.max() < 1.3


def test_the_direction_of_an_orthogonal_update_stays():
    orthonormal = torch.linalg.qr(torch.randn(12, 12, generator=torch.Generator().manual_seed(0))).Q
    made = orthogonal(7 * orthonormal)
    assert torch.nn.functional.cosine_similarity(made.flatten(), orthonormal.flatten(), dim=0) > 0.99


def test_muon_moves_an_inner_convolution_by_half_the_rate():
    layer = conv_norm(2, 4)[0]
    optimizer = make_optimizer(layer, Config(optimizer="muon", weight_decay=0.0))
    before = layer.weight.detach().clone()
    layer.weight.grad = torch.randn(before.shape, generator=torch.Generator().manual_seed(0))
    optimizer.step()
    expected = 0.5 * optimizer.param_groups[0]["lr"] * orthogonal(layer.weight.grad)
    assert torch.allclose(before - layer.weight, expected, atol=1e-6)


def test_muon_moves_all_but_the_inner_convolutions_as_sgd_does():
    config = Config(optimizer="muon", momentum=0.8, weight_decay=0.01)
    nets = [
        nn.Sequential(*conv_norm(1, 4), *conv_norm(4, 4), nn.Flatten(), nn.Linear(64, 2)) for _ in range(2)
    ]
    nets[1].load_state_dict(nets[0].state_dict())
    optimizers = [make_optimizer(nets[0], config), make_optimizer(nets[1], replace(config, optimizer="sgd"))]
    for _ in range(3):
        images = torch.randn(5, 1, 4, 4)
        for net, optimizer in zip(nets, optimizers, strict=True):
            optimizer.zero_grad()
            # the inner convolution's output is cut off from the loss, so the nets differ in it alone
            features = net[1](net[0](images))
            (
                net[5](net[4](features)).square().sum() + 1e-3 * net[2](features.detach()).square().sum()
            ).backward()
            optimizer.step()
    inner, *others = sorted(nets[0].state_dict(), key=lambda name: name != "2.weight")
    states = [net.state_dict() for net in nets]
    assert all(torch.allclose(states[0][name], states[1][name], atol=1e-6) for name in others)
    assert not torch.allclose(states[0][inner], states[1][inner], atol=1e-3)


def test_muon_goes_on_from_its_state_as_if_undisturbed():
    config, images = Config(optimizer="muon"), torch.randn(4, 1, 6, 6)

    def steps(net, optimizer, n):
        for _ in range(n):
            optimizer.zero_grad()
            net(images).square().sum().backward()
            optimizer.step()

    net = nn.Sequential(*conv_norm(1, 4), *conv_norm(4, 4))
    whole = copy.deepcopy(net)
    steps(whole, make_optimizer(whole, config), 4)
    optimizer = make_optimizer(net, config)
    steps(net, optimizer, 2)
    resumed = copy.deepcopy(net)
    again = make_optimizer(resumed, config)
    again.load_state_dict(optimizer.state_dict())
    steps(resumed, again, 2)
    assert all(map(torch.equal, resumed.state_dict().values(), whole.state_dict().values()))


# --- moving average ---


def with_weights(model, value):
    with torch.no_grad():
        for tensor in [*model.parameters(), *model.buffers()]:
            tensor.fill_(value)
    return model


def test_the_average_begins_as_the_first_weights_it_sees_and_is_a_copy():
    model = conv_norm(1, 2)
    average = MovingAverage(model, 0.99)
    with_weights(model, 2.0)
    average.update()
    with_weights(model, 5.0)
    assert all((p == 2).all() for p in average.model.parameters())


def test_the_average_converges_to_weights_that_stay_constant():
    model = conv_norm(1, 2)
    average = MovingAverage(model, 0.9)
    with_weights(model, 0.0)
    average.update()
    for _ in range(200):
        with_weights(model, 1.0)
        average.update()
    for tensor in [*average.model.parameters(), *average.model.buffers()]:
        assert torch.allclose(tensor.float(), torch.ones_like(tensor, dtype=torch.float32), atol=1e-5)


def test_the_decay_grows_from_small_to_the_asked_one():
    model = nn.Linear(1, 1, bias=False)
    average, shares = MovingAverage(model, 0.6), []
    for _ in range(30):
        with_weights(average.model, 0.0)
        with_weights(model, 1.0)
        average.update()
        shares.append(average.model.weight.item())  # what the new weights count for
    assert shares[:2] == pytest.approx([1, 9 / 11]) and shares[-1] == pytest.approx(1 - 0.6)
    assert shares == sorted(shares, reverse=True)


def test_statistics_of_norms_are_averaged_and_counters_copied():
    model = conv_norm(1, 2)
    average = MovingAverage(model, 0.5)
    average.update()
    average.updates = 1000
    model[1].running_mean.fill_(4.0)
    model[1].num_batches_tracked.fill_(77)
    average.update()
    norm = average.model[1]
    assert torch.allclose(norm.running_mean, torch.full((2,), 2.0))
    assert norm.num_batches_tracked.item() == 77 and norm.num_batches_tracked.dtype == torch.int64


def test_following_leaves_the_model_itself_alone():
    model = conv_norm(1, 2)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    average = MovingAverage(model, 0.9)
    for _ in range(3):
        average.update()
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


# --- sharpness-aware minimization ---


def test_within_a_climb_the_weights_stand_uphill_and_then_where_they_were():
    model = network()
    model(torch.rand(4, 1, 16, 16)).square().sum().backward()
    before = [p.detach().clone() for p in model.parameters()]
    gradients = torch.cat([p.grad.flatten() for p in model.parameters()])
    with sam_perturbation(model, 0.25):
        moves = [p - old for p, old in zip(model.parameters(), before, strict=True)]
    moved = torch.cat([move.flatten() for move in moves])
    assert moved.norm().item() == pytest.approx(0.25, rel=1e-3)
    assert torch.cosine_similarity(moved, gradients, 0).item() == pytest.approx(1, abs=1e-3)
    assert all(torch.equal(p, old) for p, old in zip(model.parameters(), before, strict=True))


@pytest.mark.parametrize("brightest", [1.0, float("inf")])  # as where float16 overflows
def test_a_climb_leaves_the_running_statistics_alone(brightest):
    model = network()
    model(torch.rand(4, 1, 16, 16)).sum().backward()
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    with sam_perturbation(model, 0.25):
        model(torch.full((4, 1, 16, 16), brightest))
    after = dict(model.named_buffers())
    assert before and all(torch.equal(after[name], buffer) for name, buffer in before.items())
    model(torch.rand(4, 1, 16, 16))
    assert not all(torch.equal(after[name], buffer) for name, buffer in before.items())


def test_overflowing_gradients_climb_nowhere():
    model = conv_norm(1, 2)
    for p in model.parameters():
        p.grad = torch.full_like(p, float("inf"))
    before = [p.detach().clone() for p in model.parameters()]
    with sam_perturbation(model, 0.25):
        assert all(torch.equal(p, old) for p, old in zip(model.parameters(), before, strict=True))


# --- class weights ---


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_class_weights_average_one_over_the_images(power):
    counts = torch.tensor([400, 40, 4])
    weights = class_weights(counts, power)
    assert (weights * counts).sum() / counts.sum() == pytest.approx(1)
    assert weights[1] / weights[0] == pytest.approx(10**power, rel=1e-5)


def test_class_weights_at_the_ends_are_none_and_equal_totals():
    counts = torch.tensor([400, 40, 4])
    assert torch.allclose(class_weights(counts, 0.0), torch.ones(3))
    totals = class_weights(counts, 1.0) * counts
    assert torch.allclose(totals, totals[:1].expand(3))


def test_a_class_without_images_gets_a_finite_weight():
    assert class_weights(torch.tensor([10, 0, 5]), 1.0).isfinite().all()


# --- what a GPU computes otherwise ---


def test_stacked_matrices_are_made_orthogonal_as_one_by_one():
    generator = torch.Generator().manual_seed(0)
    shapes = [(16, 8, 3, 3), (8, 16, 3, 3), (16, 8, 3, 3), (64, 4, 1, 1), (16, 8, 3, 3)]
    updates = [torch.randn(shape, generator=generator) for shape in shapes]
    updates[1] = updates[1].contiguous(memory_format=torch.channels_last)
    for update, stacked in zip(updates, optim.orthogonal_stacked(updates), strict=True):
        assert stacked.shape == update.shape and stacked.dtype == update.dtype
        assert torch.allclose(stacked, orthogonal(update), atol=1e-5)


def test_hidden_linear_layers_decay_little_and_the_classifier_as_set():
    model = create_model("vgg_bn", 7, width=0.125)
    groups = make_optimizer(model, Config(optimizer="muon", weight_decay=0.01)).param_groups
    linear = [p for p in model.parameters() if p.ndim == 2]
    decay = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    assert len(linear) > 1
    assert [decay[id(p)] for p in linear] == [*[optim.HIDDEN_DECAY] * (len(linear) - 1), 0.01]
