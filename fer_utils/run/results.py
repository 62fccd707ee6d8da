"""What a finished training leaves: weights, predictions, scores, the submission, and the lines that tell."""

from __future__ import annotations

from typing import Any

import numpy as np

from fer_utils.competition import Competition, Split, copies_of
from fer_utils.data.submission import write_submission
from fer_utils.learning.metrics import describe, evaluate, paired_test
from fer_utils.learning.models import model_cost
from fer_utils.learning.predict import view_probs
from fer_utils.learning.training_loop import Learner
from fer_utils.run.finished_run import Run
from fer_utils.run.folder import RunFolder


def write_results(
    learner: Learner, competition: Competition, folder: RunFolder, out_of_time: bool = False
) -> None:
    """Write the chosen weights, the predictions, the submission and, last, the metrics."""
    config, best = learner.config, learner.best
    # Matrices are kept in float16, half the size; everything below is predicted with the weights as kept.
    weights = {name: (t.half() if t.ndim > 1 else t).contiguous() for name, t in best["state"].items()}
    learner.model.load_state_dict(weights)
    folder.write_history(learner.history)
    folder.write_weights(weights)
    parameters, operations = model_cost(learner.model, config.image_size)
    training = {
        "parameters": parameters,
        "multiply_adds": operations,
        "epochs": learner.epoch,
        "chosen_epoch": best["epoch"],
        "chosen_weights": best["kind"],
        "seconds": round(learner.seconds, 1),
        "epoch_seconds": learner.epoch_seconds,
        "resumed": learner.resumed,
        "n_devices": learner.team.size,
        "seed": config.seed,
        "views": config.views,
        "out_of_time": out_of_time,
    }
    scores: dict[str, Any] = {"training": training}
    for name in ("valid", "test"):
        split = competition.splits.get(name)
        if split is None:
            continue
        arrays = predictions(learner, split)
        folder.write_predictions(name, arrays)
        if split.labels is not None:
            scores[name] = score_split(arrays, competition, name)
    if competition.test is not None:
        write_submission(competition, arrays["probs_views"], folder.path / "submission.csv")
    folder.write_metrics(scores)


def predictions(learner: Learner, split: Split) -> dict[str, np.ndarray]:
    """What is kept of a split: ids, labels where they are known, probabilities plainly and with views."""
    config = learner.config
    probs = view_probs(learner.model, split.images, config.views, config.evaluation_batch)
    arrays = {"ids": split.ids.astype(np.str_), "probs": probs[0], "probs_views": probs.mean(0)}
    return arrays if split.labels is None else arrays | {"labels": split.labels}


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


def print_results(run: Run) -> None:
    """The lines a person wants at the end: where the submission is and how good it should be."""
    training = run.metrics["training"]
    if training.get("out_of_time"):
        done = f"{training['epochs']} of {run.config.epochs} epochs"
        print(f"OUT OF TIME after {done}: the same run again resumes there")
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
