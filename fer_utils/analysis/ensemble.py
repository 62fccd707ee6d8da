"""Average several runs: members chosen on validation, the gain judged on pictures that chose nothing."""

from __future__ import annotations

import glob
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from fer_utils.analysis.comparison import check_same_pictures
from fer_utils.competition import Competition, DataError
from fer_utils.config import Config, ConfigError
from fer_utils.data.submission import write_submission
from fer_utils.files import REPOSITORY, atomic_write, write_json
from fer_utils.learning.metrics import calibrated_log_loss, evaluate, paired_test
from fer_utils.run.finished_run import Run, load_run
from fer_utils.run.folder import RunFolder


def load_runs(patterns: str) -> list[Run]:
    """The finished runs named by comma-separated folders or patterns such as "outputs/seed*", each once;
    "none" names none.

    Raises:
        DataError: a folder that is not a finished run, or a pattern that matches none.
    """
    folders: list[Path] = []
    for pattern in (part.strip() for part in patterns.split(",")):
        if pattern in ("", "none"):
            continue
        if not any(mark in pattern for mark in "*?["):
            folders.append(Path(pattern))
            continue
        found = map(Path, sorted(glob.glob(pattern) or glob.glob(str(REPOSITORY / pattern))))
        runs = [path for path in found if not RunFolder(path.absolute()).missing()]
        if not runs:
            raise DataError(f"{pattern!r} matches no finished run")
        folders += runs
    return list({run.out.resolve(): run for run in map(load_run, folders)}.values())


def find_runs(patterns: str) -> list[Run]:
    """The runs that `load_runs` finds, two at least.

    Raises:
        DataError: as `load_runs` does, or fewer than two runs in all.
    """
    runs = load_runs(patterns)
    if len(runs) < 2:
        raise DataError(
            f"an ensemble needs two finished runs, {patterns!r} names {len(runs)}: train more seeds"
        )
    return runs


def member_configs(recipe: str, n: int, shared: Mapping[str, Any]) -> list[Config]:
    """Configs of `n` members to train, with one seed after the other and folders within `shared`'s out.

    Args:
        recipe: knobs of Config and `preset`, as in "model: medium, epochs: 24"; several, behind semicolons,
            take turns.
        shared: out, the first seed, and further knobs of all members.

    Raises:
        ConfigError: the recipe cannot be read, or names an unknown knob or a bad value.
    """
    try:
        recipes = [yaml.safe_load(f"{{{part}}}") for part in recipe.split(";")]
    except yaml.YAMLError:
        recipes = [{recipe: None}]
    if any(value is None for knobs in recipes for value in knobs.values()):
        raise ConfigError(f"recipe must be like 'model: medium, epochs: 24', got {recipe!r}")
    own = [{"out": f"{shared['out']}/member{k}", "seed": shared["seed"] + k} for k in range(n)]
    return [Config.from_dict({**recipes[k % len(recipes)], **shared, **own[k]}) for k in range(n)]


def check_members(runs: Sequence[Run]) -> None:
    """Refuse runs that cannot be averaged: other validation or test pictures, or other classes.

    Raises:
        DataError: names the run that differs.
    """
    for run in runs[1:]:
        check_same_pictures(runs[0], run)


def choose_members(members: np.ndarray, labels: np.ndarray) -> list[int]:
    """Members of the average, from probabilities [M, N, C]: the best one first, then whichever lowers the
    calibrated log loss of the average most, until none does (greedy selection, Caruana et al. 2004)."""

    def loss(chosen: list[int]) -> float:
        return calibrated_log_loss(members[chosen].mean(0), labels)

    left = list(range(len(members)))
    chosen = [min(left, key=lambda m: loss([m]))]
    while left := [m for m in left if m not in chosen]:
        best = min(left, key=lambda m: loss([*chosen, m]))
        if loss([*chosen, best]) >= loss(chosen):
            break
        chosen.append(best)
    return chosen


def cross_fitted_probs(members: np.ndarray, labels: np.ndarray, seed: int = 0) -> np.ndarray:
    """Probabilities [N, C] of the ensemble where each half of the pictures is answered by the members that
    the other half chose: their accuracy owes nothing to the choosing."""
    half = np.random.default_rng(seed).permutation(len(labels)) < len(labels) // 2
    probs = np.empty(members.shape[1:], members.dtype)
    for chooser, answered in ((half, ~half), (~half, half)):
        probs[answered] = members[choose_members(members[:, chooser], labels[chooser])][:, answered].mean(0)
    return probs


def member_table(runs: Sequence[Run], result: dict[str, Any]) -> pd.DataFrame:
    """One row per run: what it is, how good it is on validation, and whether `score_ensemble` chose it."""
    return pd.DataFrame(
        {
            "run": [run.out.name for run in runs],
            "model": [run.config.model for run in runs],
            "seed": [run.config.seed for run in runs],
            "valid accuracy": [f"{100 * score['accuracy']:.2f} %" for score in result["scores"]],
            "log loss": [round(score["log_loss"], 4) for score in result["scores"]],
            "chosen": [k in result["chosen"] for k in range(len(runs))],
        }
    )


def agreement(members: np.ndarray, names: Sequence[str]) -> pd.DataFrame:
    """Share (%) of pictures on which two members, from probabilities [M, N, C], answer the same."""
    preds = members.argmax(2)
    shares = 100 * (preds[:, None] == preds[None]).mean(2)
    return pd.DataFrame(shares, index=names, columns=names)


def save_ensemble(runs: Sequence[Run], competition: Competition, out: Path, scores: dict[str, Any]) -> Path:
    """Write the averaged probabilities, the scores and the validated submission of the chosen `runs`.

    Raises:
        DataError: `out` holds a run, whose files would be lost.
    """
    if (out / "config.json").exists():
        raise DataError(f"{out} holds a run: choose another out for the ensemble")
    for split in ("valid", "test"):
        if split in competition.splits:
            probs = np.mean([run.saved_probs(split) for run in runs], axis=0)
            with atomic_write(out / f"{split}.npz") as temporary:
                np.savez(temporary, ids=competition.splits[split].ids.astype(np.str_), probs_views=probs)
    if competition.test is not None:
        write_submission(competition, probs, out / "submission.csv")
    write_json(out / "metrics.json", {"members": [run.out.name for run in runs], **scores})
    return out


def score_ensemble(
    members: np.ndarray, labels: np.ndarray, class_names: tuple[str, ...], choose: bool = True
) -> dict[str, Any]:
    """The chosen members [M, N, C] and what their average gains over the best single one, on validation.

    Without `choose` all are averaged, as where too few pictures are held out to choose by.

    Returns:
        chosen, best (indices), members and ensemble (`metrics.evaluate` of each), against_best (paired test),
        cross_fitted and cross_fitted_against_best (the same where the choosing is left out).
    """
    scores = [evaluate(probs, labels, class_names) for probs in members]
    chosen = choose_members(members, labels) if choose else list(range(len(members)))
    best = max(range(len(members)), key=lambda m: (scores[m]["accuracy"], -scores[m]["log_loss"]))
    average = members[chosen].mean(0)
    honest = cross_fitted_probs(members, labels) if choose else average
    best_preds = members[best].argmax(1)
    return {
        "chosen": chosen,
        "best": best,
        "scores": scores,
        "ensemble": evaluate(average, labels, class_names),
        "against_best": paired_test(average.argmax(1), best_preds, labels),
        "cross_fitted": evaluate(honest, labels, class_names),
        "cross_fitted_against_best": paired_test(honest.argmax(1), best_preds, labels),
    }
