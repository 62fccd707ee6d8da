"""Average several runs: members chosen on validation, and the gain cross-fitted."""

from __future__ import annotations

import filecmp
import glob
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from fer_utils.competition import Competition, DataError
from fer_utils.config import EARLIER_RUNS, Config, ConfigError
from fer_utils.files import REPOSITORY, distinct_names, shown_path
from fer_utils.learning.competition_metric import describe_score, goodness, metric_score, readable
from fer_utils.learning.metrics import calibrated_log_loss, describe, describe_gain, evaluate, paired_test
from fer_utils.run.finished_run import Run, load_run
from fer_utils.run.folder import RunFolder

NOT_VALIDATED = (
    "**The runs were validated on different images**, so nothing measures what averaging gains, and "
    "nothing chooses members: all are averaged. To measure it, train the others again with the same split "
    "(`cv`, `split_seed`, `n_folds`, `fold`)."
)
NOT_MEASURED = "not measured here: the runs were validated on different images"
# What a recipe cannot have, beside the parameters of the notebook itself, and what to do instead.
NOT_IN_RECIPES = {
    "n_devices": "leave it out, the members share the devices, each on one",
    "cv": "train it with 03_training, and name its folder in the parameter runs",
}


def load_runs(patterns: str, at_least: int = 0) -> list[Run]:
    """The finished runs named by comma-separated folders or patterns such as "outputs/seed*", each once;
    "none" names none.

    Raises:
        DataError: a folder that is not a finished run, a pattern that matches none, or fewer runs than
            `at_least`.
    """
    folders: list[Path] = []
    for pattern in (part.strip() for part in patterns.split(",")):
        if pattern in ("", "none"):
            continue
        is_folder = Path(pattern).is_dir() or (REPOSITORY / pattern).is_dir()  # seed[1] may be one
        if is_folder or not any(mark in pattern for mark in "*?["):
            folders.append(Path(pattern))
            continue
        matches = map(Path, sorted(glob.glob(pattern) or glob.glob(str(REPOSITORY / pattern))))
        finished = [path for path in matches if not RunFolder(path.absolute()).missing()]
        if not finished:
            raise DataError(f"{pattern!r} matches no finished run")
        folders += finished
    runs = list({run.out.resolve(): run for run in map(load_run, folders)}.values())
    if len(runs) < at_least:
        raise DataError(f"{patterns!r} names {len(runs)} runs, {at_least} are needed: train more seeds")
    return runs


def member_configs(recipe: str, n: int, shared: Mapping[str, Any]) -> list[Config]:
    """Configs of `n` members to train, with consecutive seeds and folders within `shared`'s out.

    Args:
        recipe: parameters of Config and `preset`, as in "model: medium, epochs: 24"; several, separated by
            semicolons, are used alternately. In quotes, {seed} is the member's seed in the names of earlier
            runs: "weights: 'outputs/seed{seed}/model.safetensors'".
        shared: out, the first seed, and further parameters of all members.

    Raises:
        ConfigError: the recipe cannot be read, has an unknown parameter or a bad value, or one that is lost:
            that of `shared` or of `launch_members` holds.
    """
    try:
        recipes = [yaml.safe_load(f"{{{part}}}") for part in recipe.split(";")]
    except yaml.YAMLError:
        recipes = [{recipe: None}]
    if any(value is None for parameters in recipes for value in parameters.values()):
        raise ConfigError(f"recipe must be like 'model: medium, epochs: 24', got {recipe!r}")
    for name in [name for parameters in recipes for name in parameters]:
        if name in shared:
            raise ConfigError(f"recipe cannot have {name}: set the notebook's own parameter {name} instead")
        if name in NOT_IN_RECIPES:
            raise ConfigError(f"recipe cannot have {name}: {NOT_IN_RECIPES[name]}")
    members = []
    for k in range(n):
        own = {"out": f"{shared['out']}/member{k}", "seed": shared["seed"] + k}
        config = Config.from_dict({**recipes[k % len(recipes)], **shared, **own})
        members.append(with_earlier_runs(config))
    return members


def with_earlier_runs(config: Config, **places: str) -> Config:
    """`config` with its seed in place of {seed} in the names of earlier runs (`teacher`, `weights`,
    `pseudo`), and the same with further `places`; so one recipe names for each seed its own earlier run."""
    named = {name: getattr(config, name) for name in EARLIER_RUNS}
    for word, value in {"seed": str(config.seed), **places}.items():
        named = {name: text.replace(f"{{{word}}}", value) for name, text in named.items()}
    return replace(config, **named)


def choose_members(members: np.ndarray, labels: np.ndarray, metric: str = "accuracy") -> list[int]:
    """Members of the average, from probabilities [M, N, C]: the lowest calibrated log loss first, then
    what lowers that of the average most, until none does (greedy selection, Caruana et al. 2004). The
    accuracy and the log loss choose by this loss, which varies less by chance; any other metric by itself."""

    def loss_of(rows: list[int]) -> float:
        probs = members[rows].mean(0)
        by_loss = metric in ("accuracy", "log_loss")
        return calibrated_log_loss(probs, labels) if by_loss else -goodness(metric, probs, labels)

    chosen, lowest = [], math.inf
    while left := [m for m in range(len(members)) if m not in chosen]:
        loss, best = min((loss_of([*chosen, m]), m) for m in left)
        if loss >= lowest:
            break
        chosen, lowest = [*chosen, best], loss
    return chosen


def cross_fitted_probs(members: np.ndarray, labels: np.ndarray, metric: str = "accuracy") -> np.ndarray:
    """Probabilities [N, C] of the ensemble, each half of the images predicted by the members chosen on the
    other half, so that the choice of members does not raise the accuracy."""
    half = np.random.default_rng(0).permutation(len(labels)) < len(labels) // 2
    probs = np.empty(members.shape[1:], members.dtype)
    for chooser, predicted in ((half, ~half), (~half, half)):
        chosen = choose_members(members[:, chooser], labels[chooser], metric)
        probs[predicted] = members[chosen][:, predicted].mean(0)
    return probs


def names_of(runs: Sequence[Run]) -> list[str]:
    """The shortest names of their folders that tell them apart (see `distinct_names`)."""
    return distinct_names([run.out for run in runs])


def member_table(runs: Sequence[Run], result: dict[str, Any]) -> pd.DataFrame:
    """A row per run: its model and seed, its validation scores, and whether `score_ensemble` chose it."""
    rows = []
    for k, (name, run, score) in enumerate(zip(names_of(runs), runs, result["scores"], strict=True)):
        accuracy, loss = f"{100 * score['accuracy']:.2f} %", f"{score['log_loss']:.3f}"
        chosen = "yes" if k in result["chosen"] else "no"
        rows.append((name, run.config.model, run.config.seed, accuracy, loss, chosen))
    table = pd.DataFrame(
        rows, columns=["run", "model", "seed", "valid accuracy", "log loss, not calibrated", "chosen"]
    )
    if all("metric" in score for score in result["scores"]):
        values = [f"{score['metric']['value']:.3f}" for score in result["scores"]]
        table.insert(5, readable(result["scores"][0]["metric"]["name"]), values)
    return table


def common_metric(runs: Sequence[Run]) -> str:
    """The metric of all runs; accuracy where they have several."""
    metrics = {run.config.metric for run in runs}
    return metrics.pop() if len(metrics) == 1 else "accuracy"


def gain_table(names: Sequence[str], result: dict[str, Any]) -> pd.DataFrame:
    """What `score_ensemble` found: the most accurate run, the ensemble and the cross-fitted one, with their
    accuracies and gains over that run in words."""
    best = names[result["best"]]
    rows = [
        (f"{best}, the most accurate run", describe(result["scores"][result["best"]]), ""),
        (members_in_words(result["chosen"], names), describe(result["ensemble"]), "against_best"),
        ("cross-fitted", describe(result["cross_fitted"]), "cross_fitted_against_best"),
    ]
    lines = [(name, scores, key and describe_gain(result[key])) for name, scores, key in rows]
    return pd.DataFrame(lines, columns=["", "valid accuracy", f"against {best}"])


def members_in_words(chosen: Sequence[int], names: Sequence[str]) -> str:
    """The ensemble by the number of its members; with one, that it is this run."""
    return f"{names[chosen[0]]} alone, chosen" if len(chosen) == 1 else f"ensemble of {len(chosen)}"


def describe_submission(runs: Sequence[Run], chosen: Sequence[int], out: Path) -> str:
    """Which of the `runs`, those `chosen`, the submission in `out` comes from, and whether it is that of one
    of them again."""
    submission, names = RunFolder(out).submission, names_of(runs)
    line = f"valid: {shown_path(submission)}, from {', '.join(names[k] for k in chosen)}"
    own = runs[chosen[0]].folder.submission
    if len(chosen) == 1 and own.is_file() and filecmp.cmp(own, submission, shallow=False):
        line += f" alone: the same file as {shown_path(own)}, so there is no need to submit it too"
    return line


def describe_result(result: dict[str, Any] | None) -> str:
    """The scores of the ensemble, or why there are none, in words."""
    if result is None:
        return "no score: the runs were validated on different images"
    lines = [f"valid accuracy of the ensemble: {describe(result['ensemble'])}"]
    lines += [result["measured_on"]] if "measured_on" in result else []
    for name in ("ensemble", "cross_fitted"):
        if "metric" in result[name]:
            lines.append(f"valid {describe_score(result[name]['metric'])}, {name.replace('_', '-')}")
    return "\n".join(lines)


def agreement(runs: Sequence[Run]) -> pd.DataFrame:
    """Share (%) of validation images for which two of the runs predict the same class."""
    preds, names = np.stack([run.saved_probs().argmax(1) for run in runs]), names_of(runs)
    shares = 100 * (preds[:, None] == preds[None]).mean(2)
    return pd.DataFrame(shares, index=names, columns=names)


def save_ensemble(
    runs: Sequence[Run], competition: Competition, out: Path, scores: dict[str, Any] | None
) -> None:
    """Write the averaged probabilities, the scores and the validated submission of the chosen `runs`.

    Without `scores` the runs were validated on different images: only the average for the test split is
    written, and probabilities in a submission get the temperature of the first run, whose `competition` this
    is. An average that `out` holds is replaced: if that is cut, there is none until the next one.

    Raises:
        DataError: `out` holds a run, whose files would be lost; or there is neither a score nor a test split.
    """
    folder = RunFolder(out)
    if folder.record() is not None:
        raise DataError(f"{out} holds a run: choose another out for the ensemble")
    if scores is None and competition.test is None:
        problem = "the runs were validated on different images"
        raise DataError(f"{problem}, and there is no test split to predict")
    probs, files = {}, {}
    for name, split in competition.splits.items():
        if name == "test" or (name == "valid" and scores is not None):
            probs[name] = np.mean([run.saved_probs(name) for run in runs], axis=0)
            arrays = {"ids": split.ids.astype(np.str_), "probs_views": probs[name]}
            if name == "valid" and runs[0].valid_rows is not None:
                arrays["rows"] = np.stack([run.valid_rows for run in runs])
            files[name] = arrays
    folder.remove_results()
    for name, arrays in files.items():
        folder.write_predictions(name, arrays)
    if competition.test is not None:
        folder.write_submission(competition, probs.get("valid", runs[0].saved_probs()), probs["test"])
    found = {"validated": False} if scores is None else scores
    folder.write_metrics({"members": [folder.member_name(run.out) for run in runs], **found})


def score_runs(runs: Sequence[Run], competition: Competition) -> dict[str, Any]:
    """What `score_ensemble` finds for runs validated on the same images (by
    `paired_comparison.on_common_images`); "measured_on" says in words which these are, where they
    are a part of a run's validation split."""
    members, metric = np.stack([run.saved_probs() for run in runs]), common_metric(runs)
    labels = runs[0].saved("valid", "labels")
    result = score_ensemble(members, labels, competition.class_names, metric=metric)
    if runs[0].valid_rows is None:
        return result
    words = f"measured on the {len(labels):,} images that all runs were validated on"
    for name, run in zip(names_of(runs), runs, strict=True):
        if run.folds:
            words += f"; of {name} out of fold: there one of its {len(run.folds)} networks answers, "
            words += "but in the submission their average"
    return result | {"measured_on": words}


def score_ensemble(
    members: np.ndarray,
    labels: np.ndarray,
    class_names: tuple[str, ...],
    choose: bool = True,
    metric: str = "accuracy",
) -> dict[str, Any]:
    """The chosen members [M, N, C] and the gain of their average over the most accurate one, on validation.

    Without `choose` all are averaged, for a validation split too small to choose by.

    Returns:
        chosen, best (indices); scores (`metrics.evaluate` of each member) and ensemble; against_best (paired
        test); cross_fitted and cross_fitted_against_best (the same with `cross_fitted_probs`). With another
        metric than accuracy, "metric" in the scores is its `competition_metric.metric_score`, and metric_gain
        is that of cross_fitted over the best.
    """
    scores = [evaluate(probs, labels, class_names) for probs in members]
    best = max(range(len(members)), key=lambda m: (scores[m]["accuracy"], -scores[m]["log_loss"]))
    chosen = choose_members(members, labels, metric) if choose else list(range(len(members)))
    average, best_preds = members[chosen].mean(0), members[best].argmax(1)
    cross_fitted = cross_fitted_probs(members, labels, metric) if choose else average
    result = {
        "chosen": chosen,
        "best": best,
        "scores": scores,
        "ensemble": evaluate(average, labels, class_names),
        "against_best": paired_test(average.argmax(1), best_preds, labels),
        "cross_fitted": evaluate(cross_fitted, labels, class_names),
        "cross_fitted_against_best": paired_test(cross_fitted.argmax(1), best_preds, labels),
    }
    if metric != "accuracy":
        for found, probs in zip(scores, members, strict=True):
            found["metric"] = metric_score(metric, probs, labels)
        result["ensemble"]["metric"] = metric_score(metric, average, labels)
        result["cross_fitted"]["metric"] = metric_score(metric, cross_fitted, labels)
        result["metric_gain"] = metric_score(metric, cross_fitted, labels, members[best])
    return result


def verdict(result: dict[str, Any]) -> str:
    """What `score_ensemble` found, in two lines: the gain of averaging, cross-fitted. Each half may have
    other members, or one alone, so it is not the gain of the chosen members."""
    if len(result["chosen"]) == 1 and "metric_gain" in result:
        name = readable(result["metric_gain"]["name"])
        return f"One run alone, that of the best {name}:\nno other improves it in an average"
    if len(result["chosen"]) == 1:
        return "One run alone, that of the lowest log loss:\nno other lowers it in an average"
    gain = describe_gain(result["cross_fitted_against_best"])
    if "metric_gain" in result:
        gain += f"\ndifference in {describe_score(result['metric_gain'])}"
    return f"Averaging, members chosen on the other half, against the most accurate run:\n{gain}"
