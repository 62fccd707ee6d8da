"""float16: an overflow skips the step and lowers the scale, which a checkpoint keeps; tried on a CPU."""

import pytest
import torch

from fer_utils.config import Config
from fer_utils.learning.training_loop import Learner, place, train_epoch
from fer_utils.run.checkpoint import CheckpointFile

CPU = torch.device("cpu")
PARAMETERS = {"model": "small", "width": 0.125, "image_size": 20, "batch_size": 60, "epochs": 3}
PARAMETERS |= {"precision": "fp32"}


def learner_of(tiny, optimizer):
    rate = {"learning_rate": 0.002} if optimizer == "adamw" else {}
    learner = Learner(Config(**PARAMETERS, optimizer=optimizer, ema_decay=0.0, **rate), tiny, CPU)
    learner.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    return learner


def one_step(learner, tiny, epoch):
    train_epoch(learner, place(tiny.train.images, CPU), torch.tensor(tiny.train.labels), epoch)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "muon"])
def test_an_overflow_skips_the_step_and_lowers_the_scale(tiny, optimizer):
    learner = learner_of(tiny, optimizer)
    before = [p.detach().clone() for p in learner.model.parameters()]
    overflow = next(learner.model.parameters()).register_hook(lambda gradient: gradient * float("inf"))
    one_step(learner, tiny, 0)
    assert all(torch.equal(a, b) for a, b in zip(before, learner.model.parameters(), strict=True))
    assert learner.scaler.get_scale() == 2.0**9
    overflow.remove()
    one_step(learner, tiny, 1)
    assert learner.scaler.get_scale() == 2.0**9
    after = list(learner.model.parameters())
    assert any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert all(torch.isfinite(p).all() for p in after)


def test_scaled_steps_are_the_steps_without_a_scale(tiny):
    scaled, plain = learner_of(tiny, "sgd"), learner_of(tiny, "sgd")
    plain.scaler = torch.amp.GradScaler("cpu", enabled=False)
    for learner in (scaled, plain):
        one_step(learner, tiny, 0)
    for a, b in zip(scaled.model.parameters(), plain.model.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-6)


def test_a_checkpoint_keeps_the_scale(tiny, tmp_path):
    learner = learner_of(tiny, "sgd")
    learner.dtype = torch.float16  # as on an older GPU
    learner.scaler.load_state_dict(learner.scaler.state_dict() | {"scale": 128.0})
    CheckpointFile(tmp_path).save(learner)
    resumed = learner_of(tiny, "sgd")
    assert CheckpointFile(tmp_path).load(resumed)
    assert resumed.dtype == torch.float16 and resumed.scaler.get_scale() == 128.0
