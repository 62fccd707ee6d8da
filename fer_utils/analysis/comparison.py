"""Did it help? Two recipes side by side on the same validation pictures, over one seed or several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from fer_utils.competition import DataError
from fer_utils.config import ConfigError
from fer_utils.learning.metrics import paired_test
from fer_utils.run.finished_run import Run


def right_answers(runs: Sequence[Run]) -> np.ndarray:
    """Which validation pictures each run answers rightly, with views: bool [R, N]."""
    return np.stack([run.saved_probs().argmax(1) == run.saved("valid", "labels") for run in runs])


def check_same_pictures(run: Run, other: Run) -> None:
    """Refuse to hold runs against each other that were validated on other pictures, or answer other tests.

    What they were trained on may differ: that may be the very thing to compare.

    Raises:
        DataError: names the run that differs, and in what.
    """
    if run.class_names != other.class_names:
        raise DataError(f"{other.out} has other classes than {run.out}")
    told = [("valid", "ids"), ("valid", "labels")]
    if (run.out / "test.npz").is_file() or (other.out / "test.npz").is_file():
        told.append(("test", "ids"))
    for split, name in told:
        if not np.array_equal(run.saved(split, name), other.saved(split, name)):
            raise DataError(
                f"{other.out} has other {split} {'pictures' if name == 'ids' else name} than {run.out}: "
                "both need the same data, split_seed, n_folds, fold and pool_valid"
            )


def check_same_recipe(runs: Sequence[Run]) -> None:
    """Refuse runs that are not seeds of one recipe.

    Raises:
        ConfigError: names the run that differs, and in what.
    """
    for run in runs[1:]:
        differing = replace(run.config, seed=runs[0].config.seed).differing(runs[0].config)
        if differing:
            raise ConfigError(f"{run.out} is no other seed of {runs[0].out}: {differing}")


def compare(new: Sequence[Run], old: Sequence[Run], n_samples: int = 2000, seed: int = 0) -> dict[str, Any]:
    """Whether the recipe of the runs `new` beats that of the runs `old`, with views, on validation.

    The interval is a bootstrap (Efron 1979) over pictures and, where there are several, over seeds: both are
    drawn anew. With one seed each it says nothing of other seeds.

    Returns:
        `difference` in accuracy and its 95 % interval `ci_low`, `ci_high`; `tests`, McNemar's exact test of
        each pair of runs, in order; `gained` and `lost`, int64, the pictures that more seeds of the one than
        of the other answer rightly, the clearest first; `verdict`.

    Raises:
        DataError: other validation pictures or labels.
        ConfigError: runs of one side that differ in more than the seed.
    """
    check_same_recipe(new)
    check_same_recipe(old)
    for run in (*new[1:], *old):
        check_same_pictures(new[0], run)
    right, other = right_answers(new), right_answers(old)
    rng, n, samples = np.random.default_rng(seed), right.shape[1], []
    for _ in range(n_samples):
        pictures = rng.integers(n, size=n)
        means = [part[rng.integers(len(part), size=len(part))][:, pictures].mean() for part in (right, other)]
        samples.append(means[0] - means[1])
    low, high = np.quantile(samples, [0.025, 0.975])
    margin = right.mean(0) - other.mean(0)
    order = np.argsort(-np.abs(margin), kind="stable")
    truth = np.ones(n, bool)  # of being right
    tests = [paired_test(mine, theirs, truth) for mine, theirs in zip(right, other, strict=False)]
    result = {
        "n": n,
        "seeds": (len(new), len(old)),
        "difference": float(right.mean() - other.mean()),
        "ci_low": float(low),
        "ci_high": float(high),
        "tests": tests,
        "gained": order[margin[order] > 0],
        "lost": order[margin[order] < 0],
    }
    return result | {"verdict": _verdict(result)}


def outcomes(result: dict[str, Any], correct: np.ndarray) -> np.ndarray:
    """What became of each picture in a `compare`, in words [N]: "gained", "lost", or where no side has more
    right answers, whether the one run of `correct` [N] is right."""
    words = np.where(correct, "both right", "both wrong").astype(object)
    words[result["gained"]], words[result["lost"]] = "gained", "lost"
    return words


def _verdict(result: dict[str, Any]) -> str:
    """One seed each is judged by McNemar's test, several by the interval over seeds; one against several by
    neither, since the luck of the one is in no interval."""
    if min(result["seeds"]) > 1:
        sure = result["ci_low"] > 0 or result["ci_high"] < 0
    elif max(result["seeds"]) == 1:
        sure = result["tests"][0]["p"] < 0.05
    else:
        return "no verdict: train as many seeds of the other"
    if not sure:
        return "no evidence of a difference"
    return "evidence of a gain" if result["difference"] > 0 else "evidence of a loss"


def describe_comparison(result: dict[str, Any]) -> str:
    """The outcome of `compare` in words."""
    seeds = " against ".join(f"{count} seed{'s' * (count > 1)}" for count in result["seeds"])
    text = (
        f"{100 * result['difference']:+.2f} points (95 % bootstrap interval {100 * result['ci_low']:+.2f} to "
        f"{100 * result['ci_high']:+.2f}, n = {result['n']:,}, {seeds}): {result['verdict']}"
    )
    if result["seeds"] == (1, 1):
        test = result["tests"][0]
        return f"{text}; gained {test['gained']}, lost {test['lost']}, exact McNemar p = {test['p']:.3g}"
    return text


def comparison_table(result: dict[str, Any], new: Sequence[Run], old: Sequence[Run]) -> pd.DataFrame:
    """A row per pair of runs, as many as there are of both: their accuracies (%), pictures gained and lost,
    McNemar's exact p."""
    rows = []
    for a, b, test in zip(new, old, result["tests"], strict=False):
        pair = [100 * run.metrics["valid"]["views"]["accuracy"] for run in (a, b)]
        rows.append((a.out.name, b.out.name, *pair, test["gained"], test["lost"], test["p"]))
    columns = ["run", "against", "accuracy", "accuracy of the other", "gained", "lost", "p"]
    return pd.DataFrame(rows, columns=columns)
