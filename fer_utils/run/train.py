"""Train one run: from a Config and a Competition to a finished run folder.

python -m fer_utils.run.train config.json        the same as notebook 03, without the notebook

This is one process on one device. torchrun may start it as several that train one network together, on one
machine or more (on each: `torchrun --nnodes 2 --nproc-per-node 4 --rdzv-backend c10d --rdzv-endpoint
HOST:29500 -m fer_utils.run.train config.json`, with an `out` that all see); `fer_utils.run.launch` does
that by itself on the GPUs of one machine.
"""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fer_utils.command_line import run_command
from fer_utils.competition import Competition, DataError, Split
from fer_utils.config import Config, ConfigError
from fer_utils.data.load import load_competition
from fer_utils.files import locked
from fer_utils.learning.augment import VIEWS
from fer_utils.learning.competition_metric import readable
from fer_utils.learning.device import environment
from fer_utils.learning.distributed import Team, end_process, join_team, leads_team, leave_team, own_device
from fer_utils.learning.models import model_cost
from fer_utils.learning.predict import features_of, fixed_features, has_fixed_features
from fer_utils.learning.second_task import Auxiliary, auxiliary_task, check_auxiliary
from fer_utils.learning.training_loop import (
    Learner,
    TrainingError,
    place,
    size_of_epoch,
    train_epoch,
    validate,
)
from fer_utils.progress import Progress
from fer_utils.run.finished_run import Run, load_run
from fer_utils.run.folder import RunFolder, read_record
from fer_utils.run.interruption import Interruption
from fer_utils.run.processes import follow_parent
from fer_utils.run.repeat_or_resume import (
    check_earlier_runs,
    check_repetition,
    config_from_file,
    earlier_runs,
    learned_test_images,
    recorded_precision,
    warn_of_another_machine,
)
from fer_utils.run.results import print_results, write_results
from fer_utils.run.soft_and_pseudo_labels import (
    check_targets,
    pseudo_labelled,
    training_set,
    warnings_for,
)
from fer_utils.run.time_and_memory import TimeIsUp, TimeLimit, explained, position, tell_out_of_time
from fer_utils.tensorboard_log import Tracker, check_tracking

# In a team a checkpoint within an epoch makes all processes wait: it is considered only every so many steps.
TEAM_STEPS = 20


def fit(config: Config, competition: Competition) -> Run:
    """Train as `config` says and leave a finished run folder; resume from its checkpoint if there is one.

    A folder that has a finished run of the same config and data is only read again. Ctrl-C and SIGTERM
    leave a run that the same call resumes; so does a killed process. Where `max_hours` end it, the results
    are those of the best epoch so far, and the same call resumes there too.

    Raises:
        ConfigError: the folder has a run with another config, the images have another size, or `track` needs
            a package that is not installed.
        DataError: the folder has a run on other data, or its teachers or its `auxiliary` have changed since,
            or the data cannot be trained on.
        TrainingError: the loss stopped being a number, or memory or the device failed.
        OutOfTime: `max_hours` were over before the first epoch.
        OutputError: the folder cannot be written, or another process trains there.
        Interrupted: it was interrupted (a KeyboardInterrupt).
    """
    if config.cv:
        raise ConfigError("cv trains several networks: use launch(config, competition), not fit")
    folder, config = RunFolder(config.out), config.at_size(competition.image_size)
    check_targets(config, competition)
    auxiliary = auxiliary_task(config, competition)
    finished, record = folder.holds(config, competition), folder.record()
    if record and (finished or folder.checkpoint.exists):
        check_auxiliary(record, auxiliary, folder, ", or choose another out")
    if finished:
        check_earlier_runs(record, config, folder)
        print(f"{folder} holds this run already, finished: nothing to do")
        return load_run(folder.path)
    check_tracking(config)
    team = join_team(own_device(config.device))
    for warning in warnings_for(config, competition) if team.leads else ():
        print(f"WARNING: {warning}", flush=True)
    if config.n_devices not in ("auto", str(team.size)):
        raise ConfigError(
            f"n_devices is {config.n_devices}, but fit trains on {team.size}: use launch(config, "
            "competition) or python -m fer_utils config.json"
        )
    lock = locked(folder.path) if team.leads else nullcontext()
    noted = folder.failure_noted() if team.leads else nullcontext()
    with lock, noted, explained(config), Interruption(defer=team.size == 1) as interruption:
        finished = team.leads and folder.holds(config, competition)  # by another process, before the lock
        if not team.agree(finished):
            _train(config, competition, folder, team, interruption, auxiliary)
    return load_run(folder.path)


def _train(
    config: Config,
    competition: Competition,
    folder: RunFolder,
    team: Team,
    interruption: Interruption,
    auxiliary: Auxiliary | None,
) -> None:
    """Start or resume, epochs, results; not within `fit`, so that `explained` can free the learner."""
    valid, test = len(competition.valid), len(competition.splits.get("test", ()))
    passes = team.size * len(VIEWS[config.views]) * (valid + test) / valid  # the leader predicts
    limit = TimeLimit(config.max_hours, passes)
    pseudo = pseudo_labelled(config, competition)
    learner = _start_or_resume(config, competition, folder, team, pseudo, auxiliary)
    interruption.message = "stopped before the next step; the same command resumes there"
    in_time = _run_epochs(
        *(learner, competition, folder, interruption, limit),
        training_set(config, competition, pseudo, learner.device, learner.dtype, auxiliary),
    )
    interruption.message = "stopped while writing the results; the same command resumes there"
    if team.leads:
        write_results(learner, competition, folder, out_of_time=not in_time)
        if in_time:
            folder.checkpoint.remove()
    team.agree(None)  # the others wait until the run is whole


def _start_or_resume(
    config: Config,
    competition: Competition,
    folder: RunFolder,
    team: Team,
    pseudo: Split | None,
    auxiliary: Auxiliary | None,
) -> Learner:
    """A learner as the checkpoint left it, or a new one whose config.json is written."""
    device = own_device(config.device)
    precision = recorded_precision(folder, config, competition.fingerprint, device)
    is_new = not folder.checkpoint.exists
    second = len(auxiliary.class_names) if auxiliary else 0
    learner = Learner(config, competition, device, team, precision, is_new, second)
    if team.leads:
        parameters, operations = model_cost(learner.model, config.image_size)
        size = f"{parameters / 1e6:.2f} M parameters, {operations / 1e6:.0f} M multiply-adds an image"
        devices = device.type + (f" x {team.size}" if team.size > 1 else "")
        print(f"{config.model}: {size}; {devices}, {str(learner.dtype).removeprefix('torch.')}", flush=True)
    resumed = folder.checkpoint.load(learner)
    if not resumed and not is_new:  # a damaged one: from the start, with pretrained weights if there are some
        learner = Learner(config, competition, device, team, precision, auxiliary=second)
    if team.leads and auxiliary:
        print(auxiliary.report, flush=True)
    if team.leads and learner.loaded:
        print(f"pretrained: {learner.loaded.report}", flush=True)
    if len(set(team.gather((learner.epoch, learner.step, learner.resumed)))) > 1:
        raise TrainingError(f"the processes found different checkpoints in {folder}: do all of them see it?")
    record, now = folder.record(), environment(device, learner.dtype)
    if resumed and record:
        check_earlier_runs(record, config, folder)
    if team.leads and resumed:
        print(f"resuming after {position(learner)} from {folder}", flush=True)
        warn_of_another_machine(record, now)
    if team.leads and not (resumed and record):
        record = {
            "fingerprint": competition.fingerprint,
            "training_fingerprint": competition.training_fingerprint,
            "layout": competition.layout,
            "class_names": list(competition.class_names),
            "channels": competition.channels,
            "label_values": list(competition.label_values),
            "notes": list(competition.notes),
            "environment": now,
        } | ({"weights": asdict(learner.loaded)} if learner.loaded else {})
        if auxiliary:
            record["auxiliary"] = auxiliary.record
        if earlier := earlier_runs(config):
            record["earlier_runs"] = earlier
        if pseudo is not None:
            record["transductive"] = f"learned from {len(pseudo):,} test images"
        elif learned := learned_test_images(config):
            record["transductive"] = learned
        folder.write_config(config, record)
    return learner


def _run_epochs(
    learner: Learner,
    competition: Competition,
    folder: RunFolder,
    interruption: Interruption,
    limit: TimeLimit,
    training: tuple[np.ndarray, Tensor, Tensor | None],
) -> bool:
    """Run the remaining epochs; returns whether there was time for all. Test labels are not read here."""
    config, team, valid = learner.config, learner.team, competition.valid
    images, labels, soft = training

    @contextmanager
    def whole_step() -> Iterator[None]:
        """A step that no signal cuts in two, and the checkpoint after it where one is due."""
        interruption.message = "stopped; the same command resumes from the last checkpoint"
        save = over = False
        with interruption.whole():
            yield
            learner.seconds = time.perf_counter() - start
            if team.size == 1 or not config.checkpoint_seconds or learner.step % TEAM_STEPS == 1:
                over = limit.is_over(learner)
                stopping = over or interruption.received is not None
                save, over = team.agree((stopping or folder.checkpoint.due(config, epoch_over=False), over))
            if save:
                totals = torch.stack(team.gather(learner.totals.cpu()))
                if team.leads:
                    folder.checkpoint.save(learner, totals)
                interruption.message = f"stopped after {position(learner)}; the same command resumes there"
        if over:
            raise TimeIsUp

    progress = Progress(config.epochs, learner.epoch, silent=not team.leads)
    tracker = Tracker(config, folder.path, learner.epoch, silent=not team.leads)
    with progress, tracker, suppress(TimeIsUp):
        images, features = _inputs(learner, images, valid, limit)
        start = time.perf_counter() - learner.seconds
        for epoch in range(learner.epoch, config.epochs):
            if config.patience and learner.epoch - learner.best["epoch"] >= config.patience:
                if team.leads:
                    what = f"no better {readable(config.metric)} on validation"
                    print(f"stopped early: {what} in {config.patience} epochs")
                break
            train_loss, train_accuracy = train_epoch(learner, images, labels, epoch, whole_step, soft)
            row = {"epoch": epoch + 1, "train_loss": train_loss, "train_accuracy": train_accuracy}
            row |= _validate(learner, valid, features)
            row["learning_rate"] = learner.optimizer.param_groups[-1]["lr"]
            row["size"] = size_of_epoch(config, epoch)
            with interruption.whole():
                learner.history.append(row)
                learner.epoch = epoch + 1
                learner.seconds = time.perf_counter() - start
                learner.epoch_seconds.append(round(learner.seconds, 2))
                if team.leads and folder.checkpoint.due(config, epoch_over=True):
                    folder.checkpoint.save(learner)
                tracker.report(row)
                progress.report(row, learner.seconds)
        return True
    tell_out_of_time(learner)
    return False


def _inputs(
    learner: Learner, images: np.ndarray, valid: Split, limit: TimeLimit
) -> tuple[Tensor, np.ndarray | None]:
    """What `train_epoch` and `validate` take: the images as `place` puts them, and None; or their
    `fixed_features`, and those of the validation images. To compute these is a part of the training's time,
    in whichever training it was done."""
    model, dtype = learner.model, learner.dtype
    if not has_fixed_features(learner.config, model):
        return place(images, learner.device), None

    def in_time() -> None:
        if limit.is_over(learner):
            raise TimeIsUp

    start = time.perf_counter()
    features = features_of(model, dtype, valid.images)
    learner.validation_seconds = time.perf_counter() - start
    images, seconds = fixed_features(model, learner.config, dtype, images, in_time)
    is_new = not (learner.epoch or learner.step)
    learner.seconds += learner.validation_seconds + seconds if is_new else time.perf_counter() - start
    return place(images, learner.device), features


def _validate(learner: Learner, valid: Split, features: np.ndarray | None) -> dict[str, float]:
    """The scores of `validate`; the time limit needs to know how long they take from images."""
    start = time.perf_counter()
    scores = validate(learner, valid, features)
    if features is not None:
        return scores
    seconds = time.perf_counter() - start
    # The shortest so far: the first one on a GPU also loads kernels.
    learner.validation_seconds = min(seconds, learner.validation_seconds or math.inf)
    return scores


def main(arguments: list[str]) -> int:
    """Train from the command line; returns the exit status."""
    from torch.distributed.elastic.multiprocessing.errors import record  # slow, and only for processes

    return run_command(record(train_from_file), __doc__, arguments)  # it saves the error for `launch`


def train_from_file(path: str, out: str | None, train: Callable[[Config, Competition], Run] = fit) -> None:
    """Train the config in a JSON file with `fit` or `launch`, and print the data and the results. In a
    process of `launch`, other data than `launch` was given are a DataError."""
    follow_parent()
    config = config_from_file(path, out)
    competition = load_competition(config.data, **config.data_options)
    launched = os.environ.get("FER_FINGERPRINT")
    if launched not in (None, competition.fingerprint):
        raise DataError(f"data: {config.data!r} holds other images or labels than those given to launch()")
    check_repetition(path, config, competition)
    if record := read_record(Path(path)):  # with cv, of the first fold, whose data these are
        check_auxiliary(record, auxiliary_task(config, competition), path, ', or remove its "record"')
    prints = leads_team() and launched is None  # `launch` prints it itself
    if prints and "FER_DATA_SAID" not in os.environ:  # the first of `launch_members` says it for all
        print(competition.summary())
    run = train(config, competition)
    if prints:
        print_results(run)
    leave_team()


if __name__ == "__main__":
    end_process(main(sys.argv[1:]))
