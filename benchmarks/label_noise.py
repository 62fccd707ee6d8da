"""Losses against wrong labels, next to cross-entropy: python -m benchmarks.label_noise LOSS --data FOLDER

Trains the preset `quick` with one of them, each seed in a folder of its own that
`fer_utils.analysis.paired_comparison` can compare; what is finished is not trained again. The loss stands in
the folder's name alone: config.json has no parameter for it.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from fer_utils.competition import Competition
from fer_utils.config import Config
from fer_utils.data.load import load_competition
from fer_utils.learning import training_loop
from fer_utils.learning.models import normalise
from fer_utils.learning.training_loop import Learner
from fer_utils.run.soft_and_pseudo_labels import training_targets
from fer_utils.run.train import fit

TEACHERS = ", ".join(f"outputs/reference/fer2013-cpu/member{k}" for k in range(3))
EXPONENT = 0.5  # of the generalized cross-entropy: 0 is cross-entropy, 1 the mean absolute error
LEFT_OUT = 0.1  # of each batch, by `trimmed`
FLIP_WEIGHT = 5.0  # of the distance between the maps, as in the paper
TEACHER_WEIGHT = 0.7

Loss = Callable[[Learner, Tensor, Tensor], tuple[Tensor, Tensor]]


def cross_entropy(learner: Learner, batch: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """What the project trains with."""
    logits = learner.forward(batch).float()
    return F.cross_entropy(logits, targets, label_smoothing=learner.config.label_smoothing), logits


def generalized(learner: Learner, batch: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Generalized cross-entropy (Zhang and Sabuncu 2018): images that the network contradicts weigh less.
    Without label smoothing, unlike the others."""
    logits = learner.forward(batch).float()
    likely = (logits.softmax(1) * targets).sum(1)
    return ((1 - likely**EXPONENT) / EXPONENT).mean(), logits


def trimmed(learner: Learner, batch: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Without the tenth of each batch that has the largest loss, after a quarter of the epochs (the choice of
    co-teaching, Han et al. 2018, with one network)."""
    logits = learner.forward(batch).float()
    smoothing = learner.config.label_smoothing
    losses = F.cross_entropy(logits, targets, label_smoothing=smoothing, reduction="none")
    if learner.epoch >= learner.config.epochs / 4:
        losses = losses.sort().values[: round(len(losses) * (1 - LEFT_OUT))]
    return losses.mean(), logits


def flipped(learner: Learner, batch: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """The class activation maps of an image and of its mirror image should agree (erasing attention
    consistency, Zhang et al. 2022, here without erasing). Takes 1.6 times as long."""
    both = learner.model.features(normalise(torch.cat([batch, batch.flip(3)])))  # [2 N, C, h, w]
    maps = torch.einsum("kc,nchw->nkhw", learner.model.classifier.weight, both).float()
    own, mirrored = maps.chunk(2)
    logits = own.mean((2, 3)) + learner.model.classifier.bias
    distance = F.mse_loss(own, mirrored.flip(3))
    loss = F.cross_entropy(logits, targets, label_smoothing=learner.config.label_smoothing)
    return loss + FLIP_WEIGHT * distance, logits


LOSSES: dict[str, Loss] = {loss.__name__: loss for loss in (cross_entropy, generalized, trimmed, flipped)} | {
    "confusions": cross_entropy
}


def use(loss: Loss) -> None:
    """Train with `loss` in this process."""

    def forward_backward(
        learner: Learner, batch: Tensor, targets: Tensor, labels: Tensor, share: float
    ) -> tuple[Tensor, Tensor]:
        with learner.autocast():
            value, logits = loss(learner, batch, targets)
        learner.optimizer.zero_grad()
        learner.scaler.scale(value * share).backward()
        return value.detach(), (logits.argmax(1) == labels).sum()

    training_loop.forward_backward = forward_backward


def with_confusions(competition: Competition, config: Config) -> Competition:
    """As targets the mean answers of three networks for the images of each class, in place of those for each
    image: which classes are alike, and not which image is doubtful."""
    train = competition.train
    answers = training_targets(
        replace(config, teacher=TEACHERS, teacher_weight=1.0, soft_labels=False), competition, torch.bfloat16
    ).numpy()
    return replace(competition, train=replace(train, votes=confused(train.labels, answers)))


def confused(labels: np.ndarray, answers: np.ndarray) -> np.ndarray:
    """Targets float32 [N, C] from labels int64 [N] and the mean of the answers [N, C] to each class."""
    own = np.eye(answers.shape[1], dtype=np.float32)
    of_class = np.stack([answers[labels == k].mean(0) for k in range(len(own))])
    return ((1 - TEACHER_WEIGHT) * own + TEACHER_WEIGHT * of_class)[labels].astype(np.float32)


def main() -> None:
    """Train one of the losses, with each seed."""
    parser = argparse.ArgumentParser("python -m benchmarks.label_noise", description=__doc__.split("\n\n")[0])
    parser.add_argument("loss", choices=LOSSES)
    parser.add_argument("--data", default="auto", help="the competition's folder")
    parser.add_argument("--out", default="outputs/label_noise", help="where the runs go")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--precision", default="auto")
    options = parser.parse_args()
    torch.set_num_threads(1)
    use(LOSSES[options.loss])
    for seed in options.seeds:
        own = {"data": options.data, "out": f"{options.out}/{options.loss}-seed{seed}", "seed": seed}
        own |= {"epochs": options.epochs, "precision": options.precision, "device": "cpu"}
        own["soft_labels"] = options.loss == "confusions"
        config = Config.from_dict({"preset": "quick", **own})
        competition = load_competition(config.data, **config.data_options)
        if options.loss == "confusions":
            competition = with_confusions(competition, config)
        fit(config, competition)


if __name__ == "__main__":
    main()
