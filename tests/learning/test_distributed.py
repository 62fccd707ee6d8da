"""Processes that train together: who does which part, and batch statistics over all of them."""

import pytest
import torch
from torch import nn

from fer_utils.config import ConfigError
from fer_utils.learning.distributed import Team, share_norms
from fer_utils.learning.models import create_model


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_the_shares_cover_every_row_once_and_differ_by_one_at_most(size):
    parts = [range(20)[Team(rank, size).share(20)] for rank in range(size)]
    assert [row for part in parts for row in part] == list(range(20))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_a_team_of_one_changes_nothing():
    team, model, numbers = Team(), nn.Linear(2, 2), torch.ones(3)
    assert team.leads and team.wrap(model) is model
    assert team.add(numbers) is numbers and numbers.tolist() == [1, 1, 1]
    assert team.agree("mine") == "mine"


@pytest.fixture
def alone_in_a_group(tmp_path):
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def test_shared_norms_are_those_of_torch(alone_in_a_group):
    torch.manual_seed(0)
    model = create_model("medium", 3, width=0.125)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):  # not the identity that it starts as
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
    shared = create_model("medium", 3, width=0.125)
    shared.load_state_dict(model.state_dict())
    shared = share_norms(shared)
    assert {type(module).__name__ for module in shared.modules()} >= {"SharedBatchNorm"}
    images = torch.rand(8, 1, 24, 24)
    for net in (model, shared):
        net.train()(images).square().sum().backward()
    for (name, mine), theirs in zip(shared.named_parameters(), model.parameters(), strict=True):
        assert torch.allclose(mine.grad, theirs.grad, rtol=1e-3, atol=1e-3), name
    for (name, mine), theirs in zip(shared.named_buffers(), model.buffers(), strict=True):
        assert torch.allclose(mine, theirs, rtol=1e-4, atol=1e-5), name
    assert torch.allclose(shared.eval()(images), model.eval()(images), atol=1e-4)


def test_norms_of_another_kind_are_refused_on_a_cpu():
    with pytest.raises(ConfigError, match="the BatchNorm1d of this model cannot be shared"):
        share_norms(nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.BatchNorm1d(2)))
