"""Did it help? Two recipes compared on the same validation images, over one seed or several."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import reduce
from typing import Any

import numpy as np
import pandas as pd

from fer_utils.competition import POOLED, DataError
from fer_utils.config import EARLIER_RUNS, MAY_CHANGE, ConfigError
from fer_utils.files import distinct_names
from fer_utils.learning.metrics import cross_calibrated, losses, paired_test
from fer_utils.run.finished_run import Run

# Names of saved arrays for messages, and where they lie.
VALIDATION = {"valid images": ("valid", "ids"), "valid labels": ("valid", "labels")}

ENOUGH = 500  # images: on fewer, an average of runs with different splits is not measured
# Images from which on two seeds do not suffice: the spread of seeds is then nearly all there is, and two
# tell too little of it (`python -m benchmarks.false_alarms`).
MANY = 10_000


def same_validation(runs: Sequence[Run]) -> bool:
    """Whether all runs were validated on the same images and labels."""
    return not any(_other(run, runs[0], VALIDATION) for run in runs[1:])


def on_common_images(runs: Sequence[Run]) -> list[Run]:
    """The runs, each with that part of its validation split that is in all of them: no run has learned from
    these images. Runs with the same split are returned as they are.

    Returns:
        The runs, their `valid_rows` naming the same images in the order of the smallest split; none where
        these are fewer than `ENOUGH` and than that split, or have other labels in one of the runs.
    """
    if same_validation(runs):
        return list(runs)
    names = _image_names(runs)
    smallest = min(names, key=len)
    common = smallest[np.isin(smallest, reduce(np.intersect1d, names))]
    is_unique = all(len(np.unique(ids)) == len(ids) for ids in names)
    if not is_unique or len(common) < min(ENOUGH, len(smallest)):
        return []
    found = [
        replace(run, valid_rows=pd.Index(ids).get_indexer(common))
        for run, ids in zip(runs, names, strict=True)
    ]
    labels = [run.saved("valid", "labels") for run in found]
    return found if all(np.array_equal(labels[0], other) for other in labels[1:]) else []


def _image_names(runs: Sequence[Run]) -> list[np.ndarray]:
    """The ids of each validation split, the same for the same image. Where the data's own validation split
    is pooled with its training split, ids in both (row numbers) name other images: see `POOLED`."""
    ids = [run.saved("valid", "ids") for run in runs]
    is_pooled = [bool(run.config.cv or run.config.pool_valid) for run in runs]
    pooled = {name for own, is_ in zip(ids, is_pooled, strict=True) if is_ for name in own}
    marked = [np.char.add(POOLED, own) for own in ids]
    return [
        other if not is_ and not pooled.isdisjoint(other) else own
        for own, other, is_ in zip(ids, marked, is_pooled, strict=True)
    ]


def _other(run: Run, first: Run, arrays: Mapping[str, tuple[str, str]]) -> str:
    """The name of a saved array that differs between two runs; empty if none does."""
    same = {name: np.array_equal(run.saved(*place), first.saved(*place)) for name, place in arrays.items()}
    return next((name for name in same if not same[name]), "")


def check_same_images(runs: Sequence[Run], valid: bool = True) -> None:
    """Refuse runs whose classes, test images or, with `valid`, validation split differ from those of the
    first.

    Their training images and labels may differ: they may be what is compared.

    Raises:
        DataError: names the run and the difference.
    """
    first = runs[0]
    for run in runs[1:]:
        if run.class_names != first.class_names:
            raise DataError(f"{run.out} has other classes than {first.out}")
        arrays = dict(VALIDATION) if valid else {}
        if any(one.folder.has_predictions("test") for one in (first, run)):
            arrays["test images"] = ("test", "ids")
        if words := _other(run, first, arrays):
            raise DataError(
                f"{run.out} has other {words} than {first.out}: "
                "both need the same data, split_seed, cv, n_folds, fold and pool_valid"
            )


def compare(new: Sequence[Run], old: Sequence[Run]) -> dict[str, Any]:
    """Whether the recipe of the runs `new` beats that of the runs `old` on validation, with views.

    The interval is a bootstrap (Efron 1979) that resamples images and, where there are several, seeds. With
    one seed each it does not cover the variation between seeds.

    Returns:
        `difference` in accuracy and its 95 % interval `ci_low`, `ci_high`; `loss_difference`, `loss_low` and
        `loss_high`, the same of the calibrated log loss (lower is better), which counts how probable the
        right class was and so tells smaller changes from chance; `tests`, a DataFrame with a row
        per pair of runs: their names, their accuracies (%) and what `paired_test` found; `gained` and `lost`,
        int64, the images that more seeds of `new` (or of `old`) predict correctly, the largest differences
        first; `verdict`; `names` of both sides; `recipes`, how these differ, in words.

    Raises:
        DataError: other validation images or labels.
        ConfigError: runs of one side that differ in more than the seed.
    """
    for first, *others in (new, old):
        for run in others:
            if differing := _besides_the_seed(run, first):
                raise ConfigError(f"{run.out} is not another seed of {first.out}: {differing}")
    check_same_images([*new, *old])
    labels = new[0].saved("valid", "labels")
    preds, old_preds = (np.stack([run.saved_probs().argmax(1) for run in runs]) for runs in (new, old))
    right, old_right = preds == labels, old_preds == labels  # bool [R, N]
    shown, tests = distinct_names([run.out for run in (*new, *old)]), []
    sides = shown[: len(new)], shown[len(new) :]
    for k, (name, other) in enumerate(zip(*sides, strict=False)):
        row = {"run": name, "accuracy": 100 * right[k].mean()}
        row |= {"against": other, "accuracy of the other": 100 * old_right[k].mean()}
        tests.append(row | paired_test(preds[k], old_preds[k], labels))
    low, high = _interval(right, old_right)
    loss, old_loss = (
        np.stack([losses(cross_calibrated(run.saved_probs(), labels), labels) for run in runs])
        for runs in (new, old)
    )  # [R, N]
    loss_low, loss_high = _interval(loss, old_loss)
    margin = right.mean(0) - old_right.mean(0)
    order = np.argsort(-np.abs(margin), kind="stable")
    names = [side[0] + f" and {len(side) - 1} more" * (len(side) > 1) for side in sides]
    result = {
        "n": len(labels),
        "names": names,
        "recipes": _recipes(new[0], old[0]),
        "seeds": (len(new), len(old)),
        "difference": float(right.mean() - old_right.mean()),
        "ci_low": low,
        "ci_high": high,
        "loss_difference": float(loss.mean() - old_loss.mean()),
        "loss_low": loss_low,
        "loss_high": loss_high,
        "tests": pd.DataFrame(tests),
        "gained": order[margin[order] > 0],
        "lost": order[margin[order] < 0],
    }
    return result | {"verdict": _verdict(result)}


def _besides_the_seed(run: Run, first: Run) -> str:
    """What makes `run` more than another seed of `first`, in words. The earlier runs that both name may be
    those of their own seeds."""
    config = replace(run.config, seed=first.config.seed)
    seeds = (str(run.config.seed), str(first.config.seed))
    for name in EARLIER_RUNS:
        ours, theirs = (re.split(r"(\d+)", getattr(one.config, name)) for one in (run, first))
        alike = [a == b or (a, b) == seeds for a, b in zip(ours, theirs, strict=False)]
        if len(ours) == len(theirs) and all(alike):
            config = replace(config, **{name: getattr(first.config, name)})
    return config.differing(first.config)


def _recipes(new: Run, old: Run) -> str:
    """How the recipe of `new` differs from that of `old`, in words."""
    ours, theirs = (run.config.to_dict() for run in (new, old))
    if _besides_the_seed(new, old):
        names = [name for name in ours if ours[name] != theirs[name] and name not in (*MAY_CHANGE, "seed")]
        one, other = distinct_names([new.out, old.out])
        parts = [f"{name} {ours[name]!r} in {one}, {theirs[name]!r} in {other}" for name in names]
        return f"They differ in their parameters: {'; '.join(parts)}."
    if new.fingerprint != old.fingerprint:
        return "They have the same parameters, but other data to train on."
    but = " but the seed" * (new.config.seed != old.config.seed)
    return f"They differ in nothing{but}: this is one recipe, and what they gain or lose is chance."


def _interval(new: np.ndarray, old: np.ndarray) -> tuple[float, float]:
    """The 95 % interval of the difference of two means, from [R, N] of each."""
    samples = resampled_means([new, old])
    low, high = np.quantile(samples[:, 0] - samples[:, 1], [0.025, 0.975])
    return float(low), float(high)


def resampled_means(recipes: Sequence[np.ndarray]) -> np.ndarray:
    """Means float64 [2000, len(recipes)] in bootstrap samples (Efron 1979) of the images, the same for all
    recipes, and of the seeds of each; from what its R seeds have for each image, [R, N]: whether they are
    right, or their loss. Samples of few seeds spread too little, by (R - 1) / R in variance, which is made up
    for (Hesterberg 2015)."""
    rng, n, samples = np.random.default_rng(0), recipes[0].shape[1], []
    parts = [part.astype(float) for part in recipes]
    for _ in range(2000):
        share, means = np.bincount(rng.integers(n, size=n), minlength=n) / n, []  # of each image
        for part in parts:
            seeds, count = part @ share, len(part)
            drawn = seeds[rng.integers(count, size=count)].mean()
            means.append(seeds.mean() + (drawn - seeds.mean()) * math.sqrt(count / max(count - 1, 1)))
        samples.append(means)
    return np.array(samples)


def enough_seeds(seeds: int, n: int) -> bool:
    """Whether so many seeds of each side can tell a gain from chance on n images."""
    return seeds > 1 + (n > MANY)


def outcomes(result: dict[str, Any], correct: np.ndarray) -> np.ndarray:
    """The outcome of a `compare` for each image [N]: "gained", "lost", or where both sides have as many
    correct predictions, "both right" or "both wrong", from bool [N] of one run."""
    words = np.where(correct, "both right", "both wrong").astype(object)
    words[result["gained"]], words[result["lost"]] = "gained", "lost"
    return words


def _verdict(result: dict[str, Any]) -> str:
    """By McNemar's test for one seed each, by the interval for several."""
    is_sure = result["ci_low"] > 0 or result["ci_high"] < 0
    if max(result["seeds"]) == 1:
        is_sure = result["tests"].p[0] < 0.05
    return _evidence(is_sure, result["difference"], result)


def _evidence(is_sure: bool, gain: float, result: dict[str, Any]) -> str:
    """In words; of one seed against several nothing, since no interval covers the variation of that one."""
    seeds = result["seeds"]
    if min(seeds) == 1 < max(seeds):
        return "no verdict: train as many seeds of the other"
    if max(seeds) > 1 and not enough_seeds(min(seeds), result["n"]):
        return "no verdict: on so many images train three seeds of each"
    if not is_sure:
        return "no evidence of a difference"
    return "evidence of a gain" if gain > 0 else "evidence of a loss"


def describe_comparison(result: dict[str, Any]) -> str:
    """The outcome of `compare` in words."""
    seeds = " against ".join(f"{count} seed{'s' * (count > 1)}" for count in result["seeds"])
    points, low, high = (100 * result[name] for name in ("difference", "ci_low", "ci_high"))
    text = (
        f"{' against '.join(result['names'])}: {points:+.2f} points (95 % bootstrap interval {low:+.2f} to "
        f"{high:+.2f}, n = {result['n']:,}, {seeds}): {result['verdict']}"
    )
    if result["seeds"] == (1, 1):
        test = result["tests"].iloc[0]
        text += f"; gained {test.gained}, lost {test.lost}, exact McNemar p = {test.p:.3g}"
    loss, low, high = (result[f"loss_{name}"] for name in ("difference", "low", "high"))
    said = _evidence(low > 0 or high < 0, -loss, result)
    text += f". Calibrated log loss, the lower the better: {loss:+.4f} ({low:+.4f} to {high:+.4f}): {said}"
    return f"{text}. {result['recipes']}"
