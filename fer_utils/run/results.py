"""The results of a finished training: weights, predictions, scores, the submission, and the printed lines."""

from __future__ import annotations

from typing import Any

import numpy as np

from fer_utils.competition import Competition, copies_of
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
    # Matrices are saved in float16, half the size; all predictions below use the weights as saved.
    weights = {name: (t.half() if t.ndim > 1 else t).contiguous() for name, t in best["state"].items()}
    learner.model.load_state_dict(weights)
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
    predictions: dict[str, dict[str, np.ndarray]] = {}
    for name, split in competition.splits.items():
        if name == "train":
            continue
        probs = view_probs(learner.model, split.images, config.views, config.evaluation_batch)
        arrays = {"ids": split.ids.astype(np.str_), "probs": probs[0], "probs_views": probs.mean(0)}
        if split.labels is not None:
            arrays["labels"] = split.labels
            scores[name] = score_split(arrays, competition, name)
        predictions[name] = arrays
    folder.write_results(competition, learner.history, weights, predictions, scores)


def score_split(arrays: dict[str, np.ndarray], competition: Competition, name: str) -> dict[str, Any]:
    """Scores plain and with views, whether the views helped, and the score without copies.

    Args:
        arrays: `labels` [N], `probs` and `probs_views` [N, C] of the split.
        name: "valid" or "test"; `without_copies` leaves out images that an earlier split has too, because a
            model may just remember those.
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
    """Print how good the run is and where its submission is."""
    training = run.metrics["training"]
    if training.get("out_of_time"):
        done = f"{training['epochs']} of {run.config.epochs} epochs"
        print(f"OUT OF TIME after {done}: run the same again to resume there")
    for name in ("valid", "test"):
        if not (scores := run.metrics.get(name)):
            continue
        print(f"{name} accuracy, plain:   {describe(scores['plain'])}")
        print(f"{name} accuracy, {run.config.views}:  {describe(scores['views'])}")
        without = scores["without_copies"]
        if without and without["n"] < scores["views"]["n"]:
            print(f"{name} accuracy without copies of training images: {describe(without)}")
    if run.folder.submission.is_file():
        print(f"submission: {run.folder.submission}")
