"""Weight decay spares norms and biases; schedules have their shapes; the moving average follows."""

import pytest
import torch
from torch import nn

from fer_utils.config import Config
from fer_utils.models import conv_norm, create_model
from fer_utils.optim import MovingAverage, class_weights, learning_rate_factor, make_optimizer

OPTIMIZERS = {"sgd": {"optimizer": "sgd"}, "adamw": {"optimizer": "adamw", "learning_rate": 0.01}}


def net():
    torch.manual_seed(0)
    return create_model("large", 3, width=0.125)  # norms, biases, linear layers inside


# --- optimizer ---


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_parameter_is_trained_once(name):
    model = net()
    optimizer = make_optimizer(model, Config(**OPTIMIZERS[name]))
    trained = [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert sorted(trained) == sorted(id(p) for p in model.parameters())


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_weight_decay_shrinks_weights_and_spares_norms_and_biases(name):
    model = net()
    norms = {f"{n}.weight" for n, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)}
    spared = norms | {n for n, _ in model.named_parameters() if n.endswith("bias")}
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    optimizer = make_optimizer(model, Config(weight_decay=0.5, momentum=0, **OPTIMIZERS[name]))
    for p in model.parameters():
        p.grad = torch.zeros_like(p)  # only decay can act
    optimizer.step()
    rate = optimizer.param_groups[0]["lr"]
    for n, p in model.named_parameters():
        expected = before[n] if n in spared else before[n] * (1 - rate * 0.5)
        assert torch.allclose(p, expected, atol=1e-7), n


def test_knobs_reach_the_optimizer():
    sgd = make_optimizer(net(), Config(learning_rate=0.3, momentum=0.8))
    assert sgd.defaults["lr"] == 0.3 and sgd.defaults["momentum"] == 0.8 and sgd.defaults["nesterov"]
    plain = make_optimizer(net(), Config(momentum=0))
    assert not plain.defaults["nesterov"]
    adamw = make_optimizer(net(), Config(optimizer="adamw", learning_rate=0.001, momentum=0.8))
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


# --- moving average ---


def with_weights(model, value):
    with torch.no_grad():
        for tensor in [*model.parameters(), *model.buffers()]:
            tensor.fill_(value)
    return model


def test_the_average_begins_as_the_first_weights_it_sees_and_is_a_copy():
    model = conv_norm(1, 2)
    average = MovingAverage(model, 0.99)
    average.update(with_weights(model, 2.0))
    with_weights(model, 5.0)
    assert all((p == 2).all() for p in average.model.parameters())


def test_the_average_converges_to_weights_that_stay_constant():
    model = conv_norm(1, 2)
    average = MovingAverage(model, 0.9)
    average.update(with_weights(model, 0.0))
    for _ in range(200):
        average.update(with_weights(model, 1.0))
    for tensor in [*average.model.parameters(), *average.model.buffers()]:
        assert torch.allclose(tensor.float(), torch.ones_like(tensor, dtype=torch.float32), atol=1e-5)


def test_the_decay_grows_from_small_to_the_asked_one():
    model = nn.Linear(1, 1, bias=False)
    average, shares = MovingAverage(model, 0.6), []
    for _ in range(30):
        with_weights(average.model, 0.0)
        average.update(with_weights(model, 1.0))
        shares.append(average.model.weight.item())  # what the new weights count for
    assert shares[:2] == pytest.approx([1, 9 / 11]) and shares[-1] == pytest.approx(1 - 0.6)
    assert shares == sorted(shares, reverse=True)


def test_statistics_of_norms_are_averaged_and_counters_copied():
    model = conv_norm(1, 2)
    average = MovingAverage(model, 0.5)
    average.update(model)
    average.updates = 1000
    model[1].running_mean.fill_(4.0)
    model[1].num_batches_tracked.fill_(77)
    average.update(model)
    norm = average.model[1]
    assert torch.allclose(norm.running_mean, torch.full((2,), 2.0))
    assert norm.num_batches_tracked.item() == 77 and norm.num_batches_tracked.dtype == torch.int64


def test_following_leaves_the_model_itself_alone():
    model = conv_norm(1, 2)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    average = MovingAverage(model, 0.9)
    for _ in range(3):
        average.update(model)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


# --- class weights ---


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_class_weights_average_one_over_the_pictures(power):
    counts = torch.tensor([400, 40, 4])
    weights = class_weights(counts, power)
    assert (weights * counts).sum() / counts.sum() == pytest.approx(1)
    assert weights[1] / weights[0] == pytest.approx(10**power, rel=1e-5)


def test_class_weights_at_the_ends_are_none_and_equal_totals():
    counts = torch.tensor([400, 40, 4])
    assert torch.allclose(class_weights(counts, 0.0), torch.ones(3))
    totals = class_weights(counts, 1.0) * counts
    assert torch.allclose(totals, totals[:1].expand(3))


def test_a_class_without_pictures_gets_a_finite_weight():
    assert class_weights(torch.tensor([10, 0, 5]), 1.0).isfinite().all()
