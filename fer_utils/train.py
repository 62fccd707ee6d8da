"""Train one run: from a Config and a Competition to a finished run folder.

python -m fer_utils.train config.json        the same as notebook 03, without the notebook

This is one process on one device. torchrun may start it as several that train one network together, on one
machine or more (on each: `torchrun --nnodes 2 --nproc-per-node 4 --rdzv-backend c10d --rdzv-endpoint
HOST:29500 -m fer_utils.train config.json`, with an `out` that all of them see); `fer_utils.launcher` does
that by itself on the GPUs of one machine.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors.torch import save_file

from fer_utils.checkpoint import CheckpointFile, load_checkpoint
from fer_utils.compiling import compile_forward, try_compiling, worth_compiling
from fer_utils.config import Config, ConfigError
from fer_utils.data import load_competition
from fer_utils.device import environment
from fer_utils.distributed import join_team, leads_team, leave_team, own_device
from fer_utils.faces import Competition, DataError, Split, copies_of
from fer_utils.files import atomic_write, write_json
from fer_utils.learner import (
    Learner,
    TrainingError,
    new_learner,
    place,
    size_of_epoch,
    train_epoch,
    validate,
)
from fer_utils.metrics import describe, evaluate, paired_test
from fer_utils.models import model_cost
from fer_utils.predict import Run, load_run, resolve_out, save_probs
from fer_utils.progress import Progress
from fer_utils.submission import write_submission


def fit(config: Config, competition: Competition) -> Run:
    """Train as `config` says and leave a finished run folder; go on from its checkpoint if there is one.

    A folder that holds a finished run of the same config and data is only read again.

    Raises:
        ConfigError: the folder holds a run with another config.
        DataError: the folder holds a run on other data, or the data cannot be trained on.
        TrainingError: the loss stopped being a number.
    """
    out = resolve_out(config.out)
    _check_trainable(competition)
    if _check_folder(out, config, competition):
        print(f"{out} holds this run already, finished: nothing to do")
        return load_run(out)
    device = own_device(config.device)
    team = join_team(device)
    if config.n_devices not in ("auto", str(team.size)):
        raise ConfigError(
            f"n_devices is {config.n_devices}, but fit trains on {team.size}: use launch(config, "
            "competition) or python -m fer_utils.launcher config.json"
        )
    learner = new_learner(config, competition, device, team)
    if team.leads:
        _introduce(learner)
    if (out / "checkpoint.pt").is_file():
        load_checkpoint(learner, out / "checkpoint.pt")
        if team.leads:
            print(f"going on after epoch {learner.epoch} from {out / 'checkpoint.pt'}")
    elif team.leads:
        _write_config(out, config, competition, device, learner.dtype)
    _train(learner, competition.train, competition.valid, out)
    if team.leads:
        _finish(learner, competition, out)
    team.agree("written")  # the others wait until the run is whole
    return load_run(out)


def _introduce(learner: Learner) -> None:
    config, team = learner.config, learner.team
    parameters, operations = model_cost(learner.model, config.image_size)
    size = f"{parameters / 1e6:.2f} M parameters, {operations / 1e6:.0f} M multiply-adds a picture"
    devices = learner.device.type + (f" x {team.size}" if team.size > 1 else "")
    print(f"{config.model}: {size}; {devices}, {str(learner.dtype).removeprefix('torch.')}", flush=True)


def _check_trainable(competition: Competition) -> None:
    for name in ("train", "valid"):
        split = competition.splits[name]
        if split.labels is None or len(split) == 0:
            raise DataError(
                f"the {name} split of {competition.source} has no labelled pictures to learn from"
            )


def _check_folder(out: Path, config: Config, competition: Competition) -> bool:
    """Whether `out` holds this very run, finished. Another run is an error that names the difference."""
    path = out / "config.json"
    record = json.loads(path.read_text(encoding="utf-8")).get("record") if path.is_file() else None
    started = (out / "checkpoint.pt").is_file() or (out / "metrics.json").is_file()
    if record is None or not started:  # nothing worth keeping, or only the config a person wrote for this run
        return False
    other = Config.from_json(path).to_dict()
    # Where the files lie and which device computes may change between a start and its continuation.
    names = [name for name in other if name not in ("data", "out", "device", "n_devices")]
    differing = [
        f"{n}: {other[n]!r} there, {getattr(config, n)!r} now"
        for n in names
        if other[n] != getattr(config, n)
    ]
    if differing:
        raise ConfigError(
            f"{out} holds a run with another config ({'; '.join(differing)}): choose another out"
        )
    if record["fingerprint"] != competition.fingerprint:
        raise DataError(f"{out} holds a run on other data (from {other['data']!r}): choose another out")
    return (out / "metrics.json").is_file()


def _write_config(
    out: Path, config: Config, competition: Competition, device: torch.device, dtype: torch.dtype
) -> None:
    record = {
        "fingerprint": competition.fingerprint,
        "layout": competition.layout,
        "class_names": list(competition.class_names),
        "label_values": list(competition.label_values),
        "notes": list(competition.notes),
        "environment": environment(device, dtype),
    }
    write_json(out / "config.json", {**config.to_dict(), "record": record})


def _train(learner: Learner, train: Split, valid: Split, out: Path) -> None:
    """Run the epochs that are left. Only these two splits are in reach: test labels cannot be read here."""
    config, team = learner.config, learner.team
    images = place(train.images, learner.device)
    labels = torch.tensor(train.labels, device=learner.device)
    checkpoint = CheckpointFile(out / "checkpoint.pt")
    if config.compile_mode not in ("auto", "off"):
        compile_forward(learner, config.compile_mode, len(train))
    with Progress(config.epochs, learner.epoch, silent=not team.leads) as progress:
        for epoch in range(learner.epoch, config.epochs):
            start = time.perf_counter()
            train_loss, train_accuracy = train_epoch(learner, images, labels, epoch)
            row = {"epoch": epoch + 1, "train_loss": train_loss, "train_accuracy": train_accuracy}
            row |= validate(learner, valid)
            epoch_seconds = time.perf_counter() - start
            learner.seconds += epoch_seconds
            row |= {
                "learning_rate": learner.optimizer.param_groups[0]["lr"],
                "size": size_of_epoch(config, epoch),
                "seconds": round(learner.seconds, 2),
            }
            learner.history.append(row)
            learner.epoch = epoch + 1
            if team.leads:
                checkpoint.save_if_due(learner)
            progress.report(row)
            if config.patience and learner.epoch - learner.best["epoch"] >= config.patience:
                progress.say(f"stopped early: no better validation accuracy in {config.patience} epochs")
                break
            if worth_compiling(learner, epoch_seconds * (config.epochs - learner.epoch)):
                try_compiling(learner, len(train))


def _finish(learner: Learner, competition: Competition, out: Path) -> None:
    """Write the chosen weights, the predictions, the submission and, last, the metrics."""
    config, best = learner.config, learner.best
    # Matrices are kept in float16, half the size; everything below is predicted with the weights as kept.
    weights = {name: (t.half() if t.ndim > 1 else t).contiguous() for name, t in best["state"].items()}
    learner.model.load_state_dict(weights)
    with atomic_write(out / "history.csv") as temporary:
        pd.DataFrame(learner.history).to_csv(temporary, index=False)
    with atomic_write(out / "model.safetensors") as temporary:
        save_file(weights, temporary)
    parameters, operations = model_cost(learner.model, config.image_size)
    training = {
        "parameters": parameters,
        "multiply_adds": operations,
        "epochs": learner.epoch,
        "chosen_epoch": best["epoch"],
        "chosen_weights": best["kind"],
        "seconds": round(learner.seconds, 1),
        "compile_seconds": round(learner.compile_seconds, 1),
        "n_devices": learner.team.size,
        "seed": config.seed,
        "views": config.views,
    }
    scores: dict[str, Any] = {"training": training}
    for name in ("valid", "test"):
        split = competition.splits.get(name)
        if split is None:
            continue
        arrays = save_probs(out / f"{name}.npz", learner.model, split, config.views)
        if split.labels is not None:
            scores[name] = score_split(arrays, competition, name)
    if competition.test is not None:
        write_submission(competition, arrays["probs_views"], out / "submission.csv")
    write_json(out / "metrics.json", scores)
    (out / "checkpoint.pt").unlink(missing_ok=True)


def score_split(arrays: dict[str, np.ndarray], competition: Competition, name: str) -> dict[str, Any]:
    """Plain and with views side by side, whether the views helped, and the score without known pictures.

    Args:
        arrays: `labels` [N], `probs` and `probs_views` [N, C] of the split.
        name: "valid" or "test"; pictures that an earlier split holds too are left out of `without_copies`,
            because a model may just remember those (peers never tell them apart).
    """
    plain, views, labels = arrays["probs"], arrays["probs_views"], arrays["labels"]
    earlier = [competition.train.images] + ([competition.valid.images] if name == "test" else [])
    new = ~copies_of(competition.splits[name].images, np.concatenate(earlier))
    return {
        "plain": evaluate(plain, labels, competition.class_names),
        "views": evaluate(views, labels, competition.class_names),
        "views_against_plain": paired_test(views.argmax(1), plain.argmax(1), labels),
        "without_copies": evaluate(views[new], labels[new], competition.class_names) if new.any() else None,
    }


def main(arguments: list[str]) -> int:
    """Train from the command line: one argument, the path of a JSON file of knobs."""
    if len(arguments) != 1 or arguments[0] in ("-h", "--help"):
        print(__doc__)
        return 0 if arguments else 2
    # What torchrun, or `launch`, shows of a process that failed.
    from torch.distributed.elastic.multiprocessing.errors import record

    try:
        record(_fit_file)(arguments[0])
    except (ConfigError, DataError, TrainingError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


def _fit_file(path: str) -> None:
    config = Config.from_json(path)
    competition = load_competition(config.data, **config.data_options)
    check_fingerprint(config, competition)
    speaks = leads_team() and "FER_FINGERPRINT" not in os.environ  # `launch` says it all itself
    if speaks:
        print(competition.summary())
    run = fit(config, competition)
    if speaks:
        print_results(run)
    leave_team()


def check_fingerprint(config: Config, competition: Competition) -> None:
    """In a process that `launch` started: whether the files hold what `launch` was given.

    Raises:
        DataError: they do not.
    """
    if os.environ.get("FER_FINGERPRINT", competition.fingerprint) != competition.fingerprint:
        raise DataError(f"data: {config.data!r} holds other pictures or labels than those given to launch()")


def print_results(run: Run) -> None:
    """The lines a person wants at the end: where the submission is and how good it should be."""
    for name in ("valid", "test"):
        if name not in run.metrics:
            continue
        scores = run.metrics[name]
        print(f"{name} accuracy, plain:   {describe(scores['plain'])}")
        print(f"{name} accuracy, {run.config.views}:  {describe(scores['views'])}")
        without = scores["without_copies"]
        if without and without["n"] < scores["views"]["n"]:
            print(f"{name} accuracy without copies of training pictures: {describe(without)}")
    if (run.out / "submission.csv").is_file():
        print(f"submission: {run.out / 'submission.csv'}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
