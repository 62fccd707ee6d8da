"""Soft targets for the training images: shares of votes, and predictions of teachers."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from fer_utils.competition import Competition, DataError
from fer_utils.config import Config
from fer_utils.learning.scoring import metric_function
from fer_utils.run.finished_run import Run, load_run

MANY_CLASSES = 12  # data sets of expressions have 5 to 11


def warnings_for(config: Config, competition: Competition) -> list[str]:
    """What can hardly work with this config on these data, each with what to type instead."""
    lines = list(config.warnings)
    if (n := len(competition.class_names)) > MANY_CLASSES:
        lines.append(
            f"{n} classes are many for expressions ({', '.join(competition.class_names[:3])}, ...): if they "
            'are something else, name the right column: columns = "label=NAME"'
        )
    form = competition.submission
    if form is not None and bool(form.probability_columns) != (config.metric == "log_loss"):
        if config.metric == "log_loss":
            lines.append("metric log_loss scores probabilities, but the sample submission asks for labels")
        elif config.metric == "accuracy":
            lines.append(
                "the sample submission asks for probabilities, which competitions mostly score by log loss: "
                "if this one does, type metric = 'log_loss'"
            )
    return lines


def check_targets(config: Config, competition: Competition) -> None:
    """Raise a DataError before any work without labels or votes, or for a teacher that is no finished run,
    has other classes, or has another validation or test split: it may have learned from the images that score
    its student. A ConfigError for a `metric` that does not exist."""
    metric_function(config.metric)
    for name in ("train", "valid"):
        split = competition.splits[name]
        if split.labels is None or len(split) == 0:
            raise DataError(f"the {name} split of {competition.source} has no labelled images")
    if config.soft_labels and competition.train.votes is None:
        raise DataError(
            f"soft_labels: {competition.source} has one label for each image and no votes; turn it off"
        )
    for teacher in _teachers(config):
        if teacher.class_names != competition.class_names:
            raise DataError(f"teacher: {teacher.out} has other classes than {competition.source}")
        if not teacher.folder.is_finished:
            raise DataError(f"teacher: {teacher.out} was stopped by max_hours: train it to its end first")
        if not _same_held_out(teacher, competition):
            raise DataError(
                f"teacher: {teacher.out} was validated on other images or predicts another test split: it "
                "needs this run's data, split_seed, n_folds, fold and pool_valid"
            )


def _same_held_out(teacher: Run, competition: Competition) -> bool:
    """Whether teacher and student have the same validation and test images."""
    valid, test = competition.valid, competition.test
    same = np.array_equal(teacher.saved("valid", "ids"), valid.ids.astype(np.str_))
    same &= np.array_equal(teacher.saved("valid", "labels"), valid.labels)
    if test is not None and teacher.folder.has_predictions("test"):
        same &= np.array_equal(teacher.saved("test", "ids"), test.ids.astype(np.str_))
    return bool(same)


def training_targets(config: Config, competition: Competition) -> Tensor | None:
    """Probabilities float32 [N, C] to learn from, or None where the labels suffice.

    `soft_labels` uses the share of votes for each class (Barsoum et al. 2016) in place of the labels. The
    mean prediction of the teachers is then mixed in with weight `teacher_weight` (distillation, Hinton et al.
    2015; from networks of the same kind, Furlanello et al. 2018).
    """
    train, teachers = competition.train, _teachers(config)
    if not (config.soft_labels or teachers):
        return None
    if config.soft_labels:
        targets = torch.tensor(train.votes / train.votes.sum(1, keepdims=True))
    else:
        targets = F.one_hot(torch.tensor(train.labels), len(competition.class_names)).float()
    if teachers:
        probs = np.mean([teacher.predict(train.images) for teacher in teachers], axis=0)
        targets = torch.lerp(targets, torch.tensor(probs, dtype=torch.float32), config.teacher_weight)
    return targets


def _teachers(config: Config) -> list[Run]:
    folders = [part.strip() for part in config.teacher.split(",")]
    return [load_run(folder) for folder in folders if folder not in ("", "none")]
