"""What the network is asked to answer for each training picture, where that is more than its one label."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from fer_utils.competition import Competition, DataError, Split
from fer_utils.config import Config
from fer_utils.run.finished_run import Run, load_run


def check_targets(config: Config, competition: Competition) -> None:
    """Refuse what `training_targets` cannot give, before any work is done.

    Raises:
        DataError: no votes to learn from, or a teacher that is no finished run, knows other classes, or has
            another validation or test split: it may have learned from what is to judge its pupil.
    """
    if config.soft_labels and competition.train.votes is None:
        raise DataError(
            f"soft_labels: {competition.source} has one label for each picture and no votes; leave it off"
        )
    for teacher in _teachers(config):
        if teacher.class_names != competition.class_names:
            raise DataError(f"teacher: {teacher.out} knows other classes than {competition.source}")
        if teacher.folder.is_out_of_time:
            raise DataError(f"teacher: {teacher.out} was stopped by max_hours: train it to its end first")
        if not _saw_the_same(teacher, competition):
            raise DataError(
                f"teacher: {teacher.out} was validated on other pictures or answers another test split: it "
                "needs this run's data, split_seed, n_folds, fold and pool_valid"
            )


def _saw_the_same(teacher: Run, competition: Competition) -> bool:
    """Whether the teacher kept apart what this run keeps apart: the validation and the test pictures."""
    valid, test = competition.valid, competition.test
    same = np.array_equal(teacher.saved("valid", "ids"), valid.ids.astype(np.str_))
    same &= np.array_equal(teacher.saved("valid", "labels"), valid.labels)
    if test is not None and (teacher.out / "test.npz").is_file():
        same &= np.array_equal(teacher.saved("test", "ids"), test.ids.astype(np.str_))
    return bool(same)


def training_targets(config: Config, competition: Competition) -> Tensor | None:
    """Probabilities float32 [N, C] to learn from, or None where the labels are all there is.

    `soft_labels` takes the shares of the votes; of these or the labels, `teacher_weight` is what the mean
    answer of the teachers' runs weighs instead (distillation, Hinton et al. 2015; from networks of the same
    kind, Furlanello et al. 2018). A teacher that doubts a label passes its doubt on.
    """
    train = competition.train
    teachers = _teachers(config)
    if not (config.soft_labels or teachers):
        return None
    if config.soft_labels:
        targets = soft_labels(train)
    else:
        targets = F.one_hot(torch.tensor(train.labels), len(competition.class_names)).float()
    if teachers:
        answers = np.mean([teacher.predict(train.images) for teacher in teachers], axis=0)
        targets = torch.lerp(targets, torch.tensor(answers, dtype=torch.float32), config.teacher_weight)
    return targets


def soft_labels(train: Split) -> Tensor:
    """The share of votes for each class, float32 [N, C] (Barsoum et al. 2016)."""
    return torch.tensor(train.votes / train.votes.sum(1, keepdims=True))


def _teachers(config: Config) -> list[Run]:
    folders = [part.strip() for part in config.teacher.split(",")]
    return [load_run(folder) for folder in folders if folder not in ("", "none")]
