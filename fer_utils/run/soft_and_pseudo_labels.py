"""What is learned: soft targets (votes, predictions of teachers), and test images with pseudo-labels."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from fer_utils.arrays_on_disk import concatenate, take
from fer_utils.competition import Competition, DataError, Split, copies_of
from fer_utils.config import Config, ConfigError
from fer_utils.data.files.cache import kept_array
from fer_utils.data.load import CAME_WITH_DATA
from fer_utils.files import find_path
from fer_utils.learning.competition_metric import check_metric, check_metric_on
from fer_utils.learning.device import DECIDES_BYTES, choose_device, environment
from fer_utils.learning.distributed import leads_team
from fer_utils.learning.optim import class_weights
from fer_utils.learning.pretrained import find_weights
from fer_utils.learning.second_task import Auxiliary, shares_of
from fer_utils.run.finished_run import Run, load_run
from fer_utils.run.folder import RunFolder
from fer_utils.run.repeat_or_resume import teacher_names

# Of a teacher's predictions of the training images: ten views would take five times as long.
TEACHER_VIEWS = "mirror"
MANY_CLASSES = 12  # data sets of expressions have 5 to 11


def warnings_for(config: Config, competition: Competition) -> list[str]:
    """What can hardly work with this config on these data, each with what to type instead."""
    lines = list(config.warnings)
    folder = _folder_of_weights(config)
    if folder is not None and not _same_held_out(load_run(folder.path), competition):
        lines.append(
            f"weights: {folder} was validated on other images or labels. If it has learned from those "
            "that validate this run, the accuracy is too high: give both the same data, split_seed, "
            "n_folds, fold and pool_valid"
        )
    if (config.fold or config.n_folds != Config.n_folds) and CAME_WITH_DATA in competition.notes:
        lines.append(
            "n_folds and fold change nothing here, since the validation split came with the data: type "
            "pool_valid = True to make another, or cv = 5 for one network for each part"
        )
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


def _folder_of_weights(config: Config) -> RunFolder | None:
    """The finished run that `weights` belong to, if they do."""
    if config.weights == "none":
        return None
    try:
        folder = RunFolder(find_weights(config.weights).parent)
    except ConfigError:  # a training that resumes does not need them any more
        return None
    return None if folder.missing() or folder.record() is None else folder


def check_targets(config: Config, competition: Competition) -> None:
    """Raise a DataError before any work without labels or votes, or for a teacher or `pseudo` that is not
    finished, has other classes, or has another validation or test split: it may have learned from the images
    that score its student. A ConfigError for a `metric` that `check_metric` refuses."""
    check_metric(config.metric, len(competition.class_names))
    for name in ("train", "valid"):
        split = competition.splits[name]
        if split.labels is None or len(split) == 0:
            raise DataError(f"the {name} split of {competition.source} has no labelled images")
    if config.soft_labels and competition.train.votes is None:
        raise DataError(
            f"soft_labels: {competition.source} has one label for each image and no votes; turn it off"
        )
    check_metric_on(config.metric, competition.valid.labels, len(competition.class_names))
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
    if config.pseudo != "none":
        _check_pseudo(RunFolder(find_path(config.pseudo).absolute()), competition)


def _check_pseudo(folder: RunFolder, competition: Competition) -> None:
    """The same for the run or ensemble in `folder`, whose answers for the test images are learned."""
    if competition.test is None:
        raise DataError(f"pseudo: {competition.source} has no test split to learn from; set it to 'none'")
    labelled = False  # an ensemble keeps no labels
    if folder.has_results and "members" in (scores := folder.metrics()):
        # Measured on a part of the images, too: networks of its `cv` have learned from them.
        if "ensemble" not in scores or "measured_on" in scores:
            raise DataError(
                f"pseudo: the runs of {folder} were validated on different images: name one of its runs, "
                "or an ensemble whose runs share a validation split"
            )
        class_names = tuple(scores["ensemble"]["per_class"])
    else:
        class_names, labelled = load_run(folder.path).class_names, True
    if class_names != competition.class_names:
        raise DataError(f"pseudo: {folder} has other classes than {competition.source}")
    if folder.checkpoint.exists:
        raise DataError(f"pseudo: {folder} was stopped by max_hours: train it to its end first")
    if not folder.has_predictions("test"):
        raise DataError(f"pseudo: {folder} predicted no test split: train it on data that has one")
    for name in ("valid", "test"):
        same = np.array_equal(folder.predictions(name, "ids"), competition.splits[name].ids.astype(np.str_))
        if name == "valid" and labelled:  # ids may be mere numbers
            same &= np.array_equal(folder.predictions(name, "labels"), competition.valid.labels)
        if not same:
            raise DataError(
                f"pseudo: {folder} has other {name} images: it needs this run's data, split_seed, n_folds, "
                "fold and pool_valid"
            )


def _same_held_out(teacher: Run, competition: Competition) -> bool:
    """Whether teacher and student have the same validation and test images. (Where they learn from the same
    images, too, the teacher has learned from no others.)"""
    if teacher.training_fingerprint == competition.training_fingerprint and not teacher.folds:
        return True
    valid, test = competition.valid, competition.test
    same = np.array_equal(teacher.saved("valid", "ids"), valid.ids.astype(np.str_))
    same &= np.array_equal(teacher.saved("valid", "labels"), valid.labels)
    if test is not None and teacher.folder.has_predictions("test"):
        same &= np.array_equal(teacher.saved("test", "ids"), test.ids.astype(np.str_))
    return bool(same)


def training_targets(
    config: Config, competition: Competition, dtype: torch.dtype = torch.float32
) -> Tensor | None:
    """Probabilities float32 [N, C] to learn from, or None where the labels suffice.

    `soft_labels` uses the share of votes for each class (Barsoum et al. 2016) in place of the labels. The
    mean prediction of the teachers is then mixed in with weight `teacher_weight` (distillation, Hinton et al.
    2015; from networks of the same kind, Furlanello et al. 2018). They predict in `dtype`.
    """
    train, teachers = competition.train, _teachers(config)
    if not (config.soft_labels or teachers):
        return None
    if config.soft_labels:
        targets = torch.tensor(shares_of(train, len(competition.class_names)))
    else:
        targets = F.one_hot(torch.tensor(train.labels), len(competition.class_names)).float()
    if teachers:
        probs = np.mean([_answers(teacher, competition, dtype) for teacher in teachers], axis=0)
        targets = torch.lerp(targets, torch.tensor(probs, dtype=torch.float32), config.teacher_weight)
    return targets


def _answers(teacher: Run, competition: Competition, dtype: torch.dtype) -> np.ndarray:
    """The probabilities float32 [N, C] that `teacher` gives the training images; kept in the cache, since
    all seeds of a student, and each resumed training, need the same."""
    weights = hashlib.sha256(teacher.folder.weights.read_bytes()).hexdigest()
    now = environment(choose_device(teacher.config.device), dtype)
    probs, _ = kept_array(
        lambda: teacher.predict(competition.train.images, TEACHER_VIEWS, dtype),
        *("teacher", competition.fingerprint, weights, TEACHER_VIEWS),
        *(str(now[key]) for key in DECIDES_BYTES),
    )
    if not np.isfinite(probs).all():
        raise DataError(f"teacher: {teacher.out} gives no finite numbers in {dtype}: set precision fp32")
    return probs


def _teachers(config: Config) -> list[Run]:
    runs = [load_run(name) for name in teacher_names(config)]
    return [replace(run, config=replace(run.config, device=config.device)) for run in runs]


def pseudo_labelled(config: Config, competition: Competition) -> Split | None:
    """The test images to learn from, or None without `pseudo` (pseudo-labels, Lee 2013; soft ones, Xie et
    al. 2020). What is left out is counted in a printed line.

    Their `votes` are the saved probabilities of `pseudo`, and their `labels` the most probable classes: the
    test split's own labels are not read. Left out are answers of less confidence than `pseudo_threshold`, and
    exact copies of validation images, which would be learned before they score the run.

    Raises:
        DataError: no image is left.
    """
    if config.pseudo == "none":
        return None
    test = competition.test
    probs = RunFolder(find_path(config.pseudo).absolute()).predictions("test", "probs_views")
    uncertain = probs.max(1) < config.pseudo_threshold
    copies = copies_of(test.images, competition.valid.images)
    kept = ~uncertain & ~copies
    counts = f"{kept.sum():,} of {len(test):,} test images"
    why = f"{copies.sum():,} are copies of validation images, {(uncertain & ~copies).sum():,} too uncertain"
    if not kept.any():
        raise DataError(f"pseudo: {counts} can be learned ({why}): lower pseudo_threshold")
    if leads_team():
        print(f"transductive: learns from {counts} ({why})", flush=True)
    probs = probs[kept].astype(np.float32)
    return Split(take(test.images, kept), probs.argmax(1), test.ids[kept], probs)


def training_set(
    config: Config,
    competition: Competition,
    pseudo: Split | None,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    auxiliary: Auxiliary | None = None,
) -> tuple[np.ndarray, Tensor, Tensor | None]:
    """What `train_epoch` learns: images uint8 [N, C, H, W] and, on `device`, labels int64 [N] and the targets
    of `training_targets` with `dtype`, of the training split and then of `pseudo`. Further columns of the
    targets are those of `auxiliary`, scaled by `auxiliary_weight`.

    The targets of `pseudo` are scaled by `pseudo_weight`, and those of a class by its `class_weight`, so that
    the loss, linear in them, is: mixup and cutmix blend weights as they blend targets. Label smoothing would
    add the same to every image: it is made to weigh as the image does. (The `weight` of torch's loss
    weights the smoothed target instead, which would answer rare classes far too often.)
    """
    targets = training_targets(config, competition, dtype)
    images, labels = competition.train.images, competition.train.labels
    n_classes, smoothing = len(competition.class_names), config.label_smoothing
    if targets is None and (pseudo is not None or config.class_weight or auxiliary is not None):
        targets = F.one_hot(torch.tensor(labels), n_classes).float()
    if config.class_weight:
        counts = torch.tensor(np.bincount(labels, minlength=n_classes))
        of_class = class_weights(counts, config.class_weight)
    if pseudo is not None:
        targets = torch.cat([targets, config.pseudo_weight * torch.tensor(pseudo.votes)])
        images, labels = concatenate([images, pseudo.images]), np.concatenate([labels, pseudo.labels])
    if config.class_weight:
        targets = targets * of_class
    if pseudo is not None or config.class_weight:
        weights = targets.sum(1, keepdim=True)
        targets = targets + (weights - 1) * smoothing / (1 - smoothing) / n_classes
    if auxiliary is not None:
        second = torch.zeros(len(targets), len(auxiliary.class_names))
        second[: len(auxiliary.targets)] = config.auxiliary_weight * torch.tensor(auxiliary.targets)
        targets = torch.cat([targets, second], dim=1)
    soft = None if targets is None else targets.to(device)
    return images, torch.tensor(labels, device=device), soft
