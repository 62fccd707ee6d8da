"""The committed results: how they are trained, the way to repeat them, their networks for your own images.

python -m tools.reproduce NAME --data PATH [--out FOLDER] [--at-once N] [--auxiliary PATH] [--weights FILE]
                                                                            trains it again and compares; an
                                                                            average of others is only averaged
python -m tools.reproduce NAME --data PATH --score                          scores what is committed
"""

from __future__ import annotations

import argparse
import filecmp
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from fer_utils.analysis.ensemble import member_configs, save_ensemble, score_ensemble
from fer_utils.command_line import exit_status
from fer_utils.competition import Competition, copies_of
from fer_utils.config import Config, ConfigError
from fer_utils.data.load import load_competition
from fer_utils.files import resolve_out
from fer_utils.learning.device import choose_device
from fer_utils.learning.metrics import describe, describe_gain, evaluate, paired_test
from fer_utils.learning.second_task import auxiliary_task, check_auxiliary
from fer_utils.learning.training_loop import TrainingError
from fer_utils.run.committed_results import (
    AVERAGES,
    FOLDER,
    Reference,
    load_reference,
    same_data,
    unknown_reference,
    with_config,
    write_average,
)
from fer_utils.run.finished_run import Run, load_run
from fer_utils.run.folder import RunFolder
from fer_utils.run.launch import launch_folds, launch_members
from fer_utils.run.time_and_memory import OutOfTime
from tools.run_options import options_parser, parse_run_options


@dataclass(frozen=True)
class Plan:
    """How a reference is trained.

    Attributes:
        recipe: parameters of its members, as `ensemble.member_configs` takes them.
        members: how many are trained, with the seeds 0, 1, 2 ...
        at_once: how many share a GPU, or the cores of a CPU.
        choose: average the members that validation chooses, and not all.
        cv: train so many folds of the recipe in place of members.
        auxiliary: what `--auxiliary` must name, in words; "": nothing.
        weights: what `--weights` must name; "": nothing, or a file of this repository in the recipe.
    """

    recipe: str
    members: int
    at_once: int = 1
    choose: bool = True
    cv: int = 0
    auxiliary: str = ""
    weights: str = ""


# For a GPU, not measured yet: three seeds of one network, then others (see outputs/reference). The weights of
# `large` at this width are below 15 MB as float16.
_GPU = "preset: gpu-2min"
_MEMBERS = [_GPU] * 3 + [f"{_GPU}, model: medium, width: 2"] * 2 + [f"{_GPU}, model: resnet18, width: 1"] * 2
_MEMBERS += [f"{_GPU}, model: vgg_bn, width: 0.5"]
_TUNED = (
    "preset: best, epochs: 12, start_size: 36, learning_rate: 0.05, soft_labels: true, label_smoothing: 0.0, "
    "weights: outputs/reference/fer2013-cpu/member{}/model.safetensors"
)
_FERPLUS = "the folder of FER+"
_TEACHERS = ", ".join(f"outputs/reference/fer2013-cpu/member{k}" for k in range(3))
PLANS = {
    # Two at a time on two CPU cores: the first two take 45 minutes, the third shows how much seeds differ.
    "fer2013-cpu": Plan("preset: best", members=3, at_once=2),
    # The same with the average of those three as teacher.
    "fer2013-taught-cpu": Plan(
        f"preset: best, teacher: '{_TEACHERS}', teacher_weight: 0.7", members=3, at_once=2
    ),
    # The same without a teacher; a second task learns the votes of ten people on the same images.
    "fer2013-votes-cpu": Plan("preset: best", members=3, at_once=2, auxiliary=_FERPLUS),
    # dlib's face network, whose features stay as published, with a classifier for both tasks.
    "fer2013-faces-cpu": Plan(
        "preset: faces", members=3, at_once=2, auxiliary=_FERPLUS, weights="dlib's face network"
    ),
    # From Training and PublicTest, as the contest allowed, but for the 2 % that choose the epoch. Without the
    # votes, which were not shown to help there.
    "fer2013-contest-faces-cpu": Plan(
        "preset: faces, pool_valid: true, n_folds: 50",
        **dict(members=3, choose=False, weights="dlib's face network"),
    ),
    # FER+: the targets are the votes of ten people, which are soft already.
    "ferplus-cpu": Plan(
        "preset: standard, views: shift, soft_labels: true, label_smoothing: 0.0", members=3, at_once=2
    ),
    # The same from networks that have learned FER2013's labels of the same training images.
    "ferplus-tuned-cpu": Plan("; ".join(map(_TUNED.format, range(3))), members=3, at_once=2),
    # The classifier on dlib's face network for them.
    "ferplus-faces-cpu": Plan(
        "preset: faces, soft_labels: true, label_smoothing: 0.0",
        **dict(members=3, at_once=2, weights="dlib's face network"),
    ),
    # Training and PublicTest in five folds, as the contest allowed; committed without its networks.
    "fer2013-cv": Plan("preset: standard, views: shift", members=1, at_once=2, cv=5),
    "fer2013-gpu": Plan("; ".join(_MEMBERS), members=8, at_once=2),
    # As the contest allowed: the same from Training and PublicTest, but for the 2 % that choose the epoch and
    # are too few to choose members.
    "fer2013-contest": Plan(
        "; ".join(f"{member}, pool_valid: true, n_folds: 50" for member in _MEMBERS),
        members=8,
        at_once=2,
        choose=False,
    ),
}


def train_reference(name: str, out: str | Path, at_once: int = 0, **parameters: Any) -> Path:
    """Train the members of a plan and write what `outputs/reference` holds of it into `out`: the runs, each
    with its submission, and of their average valid.npz, test.npz, metrics.json and submission.csv.

    The same call resumes where it was interrupted.

    Args:
        at_once: how many members share a GPU, or the cores of a CPU; 0 takes the plan's number.
        parameters: of all members, as data, device and max_hours.

    Raises:
        TrainingError: a member failed.
        OutOfTime: `max_hours` ended before all members were done.
    """
    plan, folder = PLANS[name], resolve_out(out)
    at_once = at_once or plan.at_once
    configs = member_configs(plan.recipe, plan.members, {"out": str(out), "seed": 0, **parameters})
    if plan.cv:
        return _train_folds(replace(configs[0], out=str(out), cv=plan.cv), at_once)
    failure: TrainingError | None = None
    try:
        launch_members(configs, per_device=at_once)
    except OutOfTime:
        pass
    except TrainingError as error:  # raised when all others have been tried
        failure = error
    # A cut or a failed member leaves the average of those that are finished.
    runs = [load_run(config.out) for config in configs if RunFolder(config.out).is_finished]
    left = f"{len(runs)} of {len(configs)} members are done; the same command resumes there"
    if not runs:
        raise failure or OutOfTime(left)
    competition = runs[0].load_data()
    scores = reference_scores(runs, competition, at_once, plan.choose)
    chosen = [runs[k] for k in scores["chosen"]]
    save_ensemble(chosen, competition, folder, scores | {"at_once": at_once})
    for run in runs:
        if competition.test is not None:
            shutil.copyfile(run.folder.submission, folder / f"submission_seed{run.config.seed}.csv")
    if len(runs) < len(configs):
        raise failure or OutOfTime(f"{left}, and {folder} has the average of these")
    return folder


def _train_folds(config: Config, at_once: int) -> Path:
    """Train the folds; their submissions are copied to where those of members lie."""
    if choose_device(config.device).type == "cpu":
        config = replace(config, n_devices=str(at_once))
    run = launch_folds(config, load_competition(config.data, **config.data_options))
    for k, fold in enumerate(run.folds):
        if fold.folder.submission.exists():
            shutil.copyfile(fold.folder.submission, run.out / f"submission_fold{k}.csv")
    return run.out


def reference_scores(
    runs: Sequence[Run], competition: Competition, at_once: int, choose: bool
) -> dict[str, Any]:
    """Scores of the runs and of their average on the validation split.

    Returns:
        What `ensemble.score_ensemble` returns; `without_copies`, the average on images that the training
        split does not hold; `first`, the average of the first `at_once` runs, chosen by nobody; `plain_mean`,
        `plain_sd`, `views_mean`, `views_sd` of the runs' accuracies.
    """
    labels, names = competition.valid.labels, competition.class_names
    members = np.stack([run.saved_probs("valid") for run in runs])
    scores = score_ensemble(members, labels, names, choose)
    new = ~copies_of(competition.valid.images, competition.train.images)
    scores["without_copies"] = evaluate(members[scores["chosen"]].mean(0)[new], labels[new], names)
    if [run.config.seed for run in runs[:at_once]] == list(range(at_once)):  # else the clock chose
        scores["first"] = evaluate(members[:at_once].mean(0), labels, names)
    for kind in ("plain", "views"):
        accuracies = [run.metrics["valid"][kind]["accuracy"] for run in runs]
        scores[f"{kind}_mean"] = float(np.mean(accuracies))
        scores[f"{kind}_sd"] = float(np.std(accuracies, ddof=1)) if len(runs) > 1 else None
    return scores


def score_reference(reference: Reference, competition: Competition) -> str:
    """Predict the validation images with the committed weights; returns, in words, how the predictions
    compare with the committed ones."""
    valid = competition.valid
    probs = np.mean([run.predict(valid.images) for run in reference.runs], axis=0)
    committed = np.mean([run.saved_probs("valid") for run in reference.runs], axis=0)
    same = (probs.argmax(1) == committed.argmax(1)).mean()
    scores = evaluate(probs, valid.labels, competition.class_names)
    members = ", ".join(run.out.name for run in reference.runs if run.out != reference.folder)
    which = f"{reference.folder.name} ({members})" if members else reference.folder.name
    return (
        f"{which} from its weights: {describe(scores)}; {100 * same:.2f} % of the "
        f"predictions as committed, probabilities differ by at most {np.abs(probs - committed).max():.1e}"
    )


def compare_with_committed(folder: Path, name: str) -> list[str]:
    """Lines that compare a repetition in `folder` with the committed reference `name`."""
    committed = FOLDER / name
    if not RunFolder(committed).has_results:
        return [f"{name} is not committed yet: nothing to compare with"]
    lines = []
    for run in map(load_run, sorted(folder.glob("member*"))):
        line = f"{run.out.name}: {describe(run.metrics['valid']['views'])}"
        if RunFolder(committed / run.out.name).is_finished:
            other = load_run(committed / run.out.name)
            same = filecmp.cmp(run.folder.weights, other.folder.weights, shallow=False)
            preds, theirs = (part.saved_probs("valid").argmax(1) for part in (run, other))
            gain = describe_gain(paired_test(preds, theirs, run.saved("valid", "labels")))
            line += "; the same bytes" if same else f"; against the committed one {gain}"
        lines.append(line)
    for said, part in (("again", folder), ("committed", committed)):
        scores = RunFolder(part).metrics()
        kind, of = (
            ("out of fold", scores["valid"]["views"]) if "cv" in scores else ("ensemble", scores["ensemble"])
        )
        lines.append(f"{kind}, {said}: {describe(of)}")
    return lines


def main(arguments: list[str]) -> int:
    """Repeat or score a reference from the command line; returns the exit status."""
    parser = options_parser(__doc__)
    parser.add_argument("name", help=", ".join([*PLANS, *AVERAGES]))
    parser.add_argument("--auxiliary", default="none", help="other data, whose answers are learned too")
    parser.add_argument("--weights", default="none", help="file of published weights to start from")
    parser.add_argument("--score", action="store_true", help="train nothing, score the committed weights")
    options = parse_run_options(parser, arguments, data="auto", device="auto", at_once=0)
    return exit_status(lambda: repeat_or_score(options))


def repeat_or_score(options: argparse.Namespace) -> None:
    """Train the reference again and compare it, or score the committed weights."""
    name, data = options.name, options.data
    out = options.out or f"outputs/reproduced/{name}"
    if name in AVERAGES:
        print("\n".join(write_average(name, data, out)))
        return
    if options.score:
        reference = load_reference(name)
        print(score_reference(reference, reference.runs[0].load_data(data, any_test=True)))
        return
    if name not in PLANS:
        if RunFolder(FOLDER / name).record() is not None:
            raise ConfigError(
                f"{name} is one run without a plan: python -m fer_utils {FOLDER / name / 'config.json'} "
                "--out FOLDER repeats it, --score scores it"
            )
        raise unknown_reference(name, [*PLANS, *AVERAGES])
    plan = PLANS[name]
    given = {"auxiliary": options.auxiliary, "weights": options.weights}
    for option, needed in {"auxiliary": plan.auxiliary, "weights": plan.weights}.items():
        if bool(needed) != (given[option] != "none"):
            problem = f"needs --{option} PATH, {needed}" if needed else f"takes no --{option}"
            raise ConfigError(f"{name} {problem}")
    _check_data(name, data, options.auxiliary)
    given = {option: value for option, value in given.items() if value != "none"}
    parameters = given | {"data": data, "device": options.device, "max_hours": options.minutes / 60}
    folder = train_reference(name, out, options.at_once, **parameters)
    print("\n".join(compare_with_committed(folder, name)))


def _check_data(name: str, data: str, auxiliary: str) -> None:
    """Refuse data that are not those the committed reference was made from, if it is committed."""
    part = with_config(FOLDER / name)
    if part.record() is not None:
        competition = same_data(name, data, part)
        config = replace(part.config(), auxiliary=auxiliary)
        check_auxiliary(part.record(), auxiliary_task(config, competition), part.path)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
