"""The results of a finished training: weights, predictions, scores, the submission, and the printed lines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from fer_utils.competition import Competition, copies_of
from fer_utils.config import Config
from fer_utils.learning.competition_metric import describe_score, metric_score
from fer_utils.learning.metrics import describe, evaluate, holm, paired_test
from fer_utils.learning.models import model_cost
from fer_utils.learning.predict import view_probs
from fer_utils.learning.training_loop import Learner
from fer_utils.run.finished_run import Run, all_folds
from fer_utils.run.folder import RunFolder

DRAWN = "Drawn demo faces: no number here says anything of real ones."


def write_results(
    learner: Learner, competition: Competition, folder: RunFolder, out_of_time: bool = False
) -> None:
    """Write the chosen weights, the predictions, the submission and, last, the metrics."""
    config, best = learner.config, learner.best
    # Matrices are saved in float16, half the size; all predictions below use the weights as saved.
    weights = {
        name: (t.half() if t.ndim > 1 and t.is_floating_point() else t).contiguous()
        for name, t in best["state"].items()
    }
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
            scores[name] = score_split(arrays, competition, name, config.metric)
        predictions[name] = arrays
    folder.write_training(learner.history, weights)
    for name, arrays in predictions.items():
        folder.write_predictions(name, arrays)
    if "test" in predictions:
        probs = [predictions[name]["probs_views"] for name in ("valid", "test")]
        folder.write_submission(competition, *probs)
    folder.write_metrics(scores)


def write_fold_results(config: Config, runs: Sequence[Run], folder: RunFolder) -> None:
    """Write the results of a `cv`, of which `runs` are the folds: the predictions out of fold for all
    labelled images, the average for the test split with its submission, the mean curves and the metrics."""
    competition = all_folds(run.load_data() for run in runs)
    names = ("ids", "labels", "probs", "probs_views")
    oof = {name: np.concatenate([run.saved("valid", name) for run in runs]) for name in names}
    trainings = [run.metrics["training"] for run in runs]
    chosen = [training["chosen_epoch"] for training in trainings]
    training = trainings[0] | {
        "epochs": max(training["epochs"] for training in trainings),
        "chosen_epoch": int(np.median(chosen)),
        "seconds": round(sum(training["seconds"] for training in trainings), 1),
        "out_of_time": any(training["out_of_time"] for training in trainings),
    }
    accuracies = [run.metrics["valid"]["views"]["accuracy"] for run in runs]
    cv = {"accuracies": accuracies, "sd": float(np.std(accuracies, ddof=1)), "chosen_epochs": chosen}
    scores = {"training": training, "cv": cv, "valid": score_split(oof, competition, "valid", config.metric)}
    record = runs[0].folder.record()
    folder.write_config(config, record | {"notes": list(competition.notes)})
    history = pd.concat([run.history for run in runs]).groupby("epoch", as_index=False).mean()
    folder.write_history(history)
    folder.write_predictions("oof", oof)
    if (split := competition.test) is not None:
        test = {name: np.mean([run.saved("test", name) for run in runs], axis=0) for name in names[2:]}
        test["ids"] = split.ids.astype(np.str_)
        if split.labels is not None:
            test["labels"] = split.labels
            scores["test"] = score_split(test, competition, "test", config.metric)
        folder.write_predictions("test", test)
        folder.write_submission(competition, oof["probs_views"], test["probs_views"])
    folder.write_metrics(scores)


def score_split(
    arrays: dict[str, np.ndarray], competition: Competition, name: str, metric: str = "accuracy"
) -> dict[str, Any]:
    """Scores plain and with views, and whether the views helped, from `labels` [N], `probs` and `probs_views`
    [N, C] of the split `name` ("valid" or "test"). `without_copies` leaves out images that an earlier split
    has too, because a model may just remember those. A `metric` other than accuracy stands in each part."""
    plain, views, labels = arrays["probs"], arrays["probs_views"], arrays["labels"]
    earlier = [competition.train.images] + ([competition.valid.images] if name == "test" else [])
    new = ~copies_of(competition.splits[name].images, *earlier)

    def scores(probs: np.ndarray, rows: np.ndarray) -> dict[str, Any]:
        found = evaluate(probs[rows], labels[rows], competition.class_names)
        if metric != "accuracy":
            found["metric"] = metric_score(metric, probs[rows], labels[rows])
        return found

    every = np.ones(len(labels), bool)
    return {
        "plain": scores(plain, every),
        "views": scores(views, every),
        "views_against_plain": paired_test(views.argmax(1), plain.argmax(1), labels),
        "without_copies": scores(views, new) if new.any() else None,
    }


def commonest(scores: dict[str, Any]) -> tuple[str, float]:
    """The most frequent class of `evaluate`'s labels, and the accuracy of always answering it."""
    counts = {name: of_class["n"] for name, of_class in scores["per_class"].items()}
    name = max(counts, key=counts.get)
    return name, counts[name] / scores["n"]


def headline(run: Run, competition: Competition) -> str:
    """The result in short lines of Markdown: accuracy, what guessing reaches, and what makes it worthless."""
    scores = run.metrics["valid"]["views"]
    name, guess = commonest(scores)
    guessing = f"always answering {name} reaches {100 * guess:.1f} %"
    made = f"views: {run.config.views}, seed {run.config.seed}"
    lines = [f"**Valid accuracy {describe(scores)}**, {made}; {guessing}."]
    if run.folds:
        spread = f"their accuracies have sd {100 * run.metrics['cv']['sd']:.1f} points"
        lines.append(
            f"Out of fold: each image by the one of {len(run.folds)} networks that did not learn "
            f"from it; {spread}."
        )
    if "metric" in scores:
        lines.insert(0, f"**Valid {describe_score(scores['metric'])}**, which chose the epoch.")
    if late := _out_of_time(run):
        lines.insert(0, f"**{late}**")
    if scores["ci_low"] <= guess:
        causes = run.config.warnings or ["train longer (epochs), or look at the labels with `01_eda`"]
        lines.append(f"**Not shown to be better than guessing**: {'; '.join(causes)}.")
    if learned := transductive(run):
        lines.append(f"**{learned}.**")
    if competition.is_demo:
        lines.append(DRAWN)
    return "\n\n".join(lines)


def transductive(run: Run) -> str:
    """What a run says that learned from test images, or from a run that did; "" for any other."""
    learned = (run.folder.record() or {}).get("transductive")
    return f"transductive: {learned}, without their labels" if learned else ""


def _out_of_time(run: Run) -> str:
    """What a run says that ended by its time limit; "" for any other."""
    training = run.metrics["training"]
    if not training.get("out_of_time"):
        return ""
    done = f"{training['epochs']} of {run.config.epochs} epochs"
    return f"OUT OF TIME after {done}: run the same again to resume there"


def curves_in_words(run: Run) -> str:
    """Whether the loss fell, which epoch was best, and whether the run overfits."""
    history, scores = run.history, run.metrics["valid"]["plain"]
    last, chosen = len(history), run.metrics["training"]["chosen_epoch"]
    loss, noise = history.train_loss.to_numpy(), 50 * (scores["ci_high"] - scores["ci_low"])
    gap = 100 * (history.train_accuracy.iloc[chosen - 1] - scores["accuracy"])
    best = f"No epoch after epoch {chosen} was better on the validation split."
    out_of_time = run.metrics["training"].get("out_of_time")
    if last > 1 and loss[-1] >= loss[0]:
        best = "The training loss did not fall: try another learning_rate."
    elif run.folds:
        epochs = [fold.metrics["training"]["chosen_epoch"] for fold in run.folds]
        best = f"The folds were best in epochs {min(epochs)} to {max(epochs)} of {last} (median {chosen})."
    elif chosen == last:
        more = f"try epochs {2 * last} with another out"
        advice = "run the same again, which goes on" if out_of_time else more
        best = f"The last epoch was the best: {advice}."
    reading = "no sign of overfitting"
    if gap > noise and chosen == last:
        reading = "no harm yet, since the last epoch was the best"
    elif gap > noise:
        reading = "it overfits: try more augmentation or a smaller network"
    return (
        f"{best}\nIn epoch {chosen} accuracy on augmented training images is {abs(gap):.1f} points "
        f"{'above' if gap > 0 else 'below'} validation accuracy, which is known to ± {noise:.1f}: {reading}."
        f"{_sizes(history)}"
    )


def _sizes(history: pd.DataFrame) -> str:
    """How the training images grew, where they did."""
    first, last = int(history["size"].iloc[0]), int(history["size"].iloc[-1])
    if first == last:
        return ""
    epoch = history.epoch[history["size"] == last].iloc[0]
    return (
        f"\nTraining images grew from {first} pixels in epoch 1 to {last} in epoch {epoch}: smaller ones "
        "take less time. Validation images always have the full size: early accuracy may be below chance."
    )


def shares_in_words(preds: np.ndarray, labels: np.ndarray, class_names: tuple[str, ...]) -> str:
    """Which classes have another share of the predictions than of the training labels, beyond chance."""
    from scipy.stats import fisher_exact

    n, m = len(preds), len(labels)
    pairs = [((preds == k).sum(), (labels == k).sum()) for k in range(len(class_names))]
    p = holm(np.array([fisher_exact([(a, n - a), (b, m - b)])[1] for a, b in pairs]))
    differing = ", ".join(
        f"{class_names[k]} {100 * a / n:.1f} % (training {100 * b / m:.1f} %)"
        for k, (a, b) in enumerate(pairs)
        if p[k] < 0.05
    )
    chance = f"beyond chance (n = {n:,}, p < 0.05 after Holm's correction for {len(pairs)} classes)"
    return f"Shares that differ from training {chance}: {differing or 'none'}."


def print_results(run: Run) -> None:
    """Print how good the run is and where its submission is."""
    if late := _out_of_time(run):
        print(late)
    if learned := transductive(run):
        print(learned)
    for name in ("valid", "test"):
        if not (scores := run.metrics.get(name)):
            continue
        print(f"{name} accuracy, plain:   {describe(scores['plain'])}")
        print(f"{name} accuracy, {run.config.views}:  {describe(scores['views'])}")
        if "metric" in scores["views"]:
            print(f"{name} {describe_score(scores['views']['metric'])}")
        without = scores["without_copies"]
        if without and without["n"] < scores["views"]["n"]:
            print(f"{name} accuracy without exact copies of training images: {describe(without)}")
    if run.folder.submission.is_file():
        print(f"submission: {run.folder.submission}")
