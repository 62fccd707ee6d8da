"""The metric that a competition is scored by: it chooses the epoch and the members of an ensemble, and stands
beside the accuracy with an interval."""

from __future__ import annotations

import functools
import importlib
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from fer_utils.config import METRICS, ConfigError
from fer_utils.learning.metrics import cross_calibrated, log_loss

# Counted here, not by scikit-learn, since a bootstrap calls them a thousand times; a test holds them equal.
Metric = Callable[[np.ndarray, np.ndarray], float]
RESAMPLES = 1000


def _counts(labels: np.ndarray, probs: np.ndarray) -> np.ndarray:
    """Confusion counts float64 [true, predicted]."""
    n = probs.shape[1]
    return np.bincount(labels * n + probs.argmax(1), minlength=n * n).reshape(n, n).astype(float)


def accuracy(labels: np.ndarray, probs: np.ndarray) -> float:
    """The share of right answers."""
    return float((probs.argmax(1) == labels).mean())


def macro_f1(labels: np.ndarray, probs: np.ndarray) -> float:
    """The mean F1 of the classes that occur or are predicted."""
    counts = _counts(labels, probs)
    total = counts.sum(0) + counts.sum(1)
    return float((2 * counts.diagonal()[total > 0] / total[total > 0]).mean())


def balanced_accuracy(labels: np.ndarray, probs: np.ndarray) -> float:
    """The mean recall of the classes that occur."""
    counts = _counts(labels, probs)
    n = counts.sum(1)
    return float((counts.diagonal()[n > 0] / n[n > 0]).mean())


def kappa(labels: np.ndarray, probs: np.ndarray) -> float:
    """Agreement beyond chance (Cohen 1960); 0 where chance explains all of it."""
    shares = _counts(labels, probs) / len(labels)
    chance = float(shares.sum(0) @ shares.sum(1))
    return 0.0 if chance == 1 else (float(shares.trace()) - chance) / (1 - chance)


def _negative_log_loss(labels: np.ndarray, probs: np.ndarray) -> float:
    return -log_loss(probs, labels)


_FUNCTIONS: dict[str, Metric] = dict(
    zip(METRICS, (accuracy, macro_f1, balanced_accuracy, _negative_log_loss, kappa), strict=True)
)


@functools.cache
def metric_function(name: str) -> Metric:
    """The function of labels [N] and probabilities [N, C] behind a `metric`; higher is better, so that the
    log loss is negative.

    Raises:
        ConfigError: "file:function" (of file.py, or of a package such as "sklearn.metrics") names none.
    """
    if name in _FUNCTIONS:
        return _FUNCTIONS[name]
    module, _, function = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"metric {name!r} cannot be imported ({error}): write 'my_metric:score' for the function score "
            "of my_metric.py"
        ) from error
    if not callable(found):
        raise ConfigError(f"metric {name!r} is not a function of labels [N] and probabilities [N, C]")
    return found


def check_metric(name: str, n_classes: int) -> None:
    """Try a `metric` before any training: right answers must give a higher number than wrong ones.

    Raises:
        ConfigError: it names no function, the function fails, or it is better where it is lower.
    """
    function, labels = metric_function(name), np.arange(n_classes).repeat(3)
    probs = 0.1 / n_classes + 0.9 * np.eye(n_classes)[labels]
    try:
        right, wrong = (float(function(labels, side)) for side in (probs, np.roll(probs, 1, axis=1)))
    except Exception as error:  # whatever another's function raises
        raise ConfigError(
            f"metric {name!r} failed on labels int [N] and probabilities [N, C], which are its arguments "
            f"({type(error).__name__}: {error})"
        ) from error
    if not right > wrong:
        raise ConfigError(
            f"metric {name!r} gave {right:.3g} for right answers and {wrong:.3g} for wrong ones: higher must "
            "be better, so let it return the negative of a loss"
        )


def check_metric_on(name: str, labels: np.ndarray, n_classes: int) -> None:
    """Raise a ConfigError if a `metric` of one's own cannot be computed on these labels [N] (without some
    class, say)."""
    probs = 0.1 / n_classes + 0.9 * np.eye(n_classes)[labels]
    try:
        goodness(name, probs, labels)
    except ConfigError:
        raise
    except Exception as error:  # whatever another's function raises
        raise ConfigError(
            f"metric {name!r} failed on the labels of the validation split ({type(error).__name__}: "
            f"{error}). If a class is not among them, let the function allow for that"
        ) from error


def goodness(metric: str, probs: np.ndarray, labels: np.ndarray) -> float:
    """The metric, higher is better, of probabilities [N, C] as they would be submitted: for the log loss
    calibrated, each half on the other."""
    value = float(metric_function(metric)(labels, _submitted(metric, probs, labels)))
    if not math.isfinite(value):
        raise ConfigError(f"metric {metric!r} gave {value} on the validation split: it must be a number")
    return value


def _submitted(metric: str, probs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return cross_calibrated(probs, labels) if metric == "log_loss" else probs


def metric_score(
    metric: str, probs: np.ndarray, labels: np.ndarray, other: np.ndarray | None = None
) -> dict[str, Any]:
    """The metric of [N, C], or its gain over the predictions `other` [N, C] of the same images, with a 95 %
    bootstrap interval over images (Efron 1979): name, value, ci_low, ci_high, n. The log loss is positive
    here, its gain negative where `probs` are better. None where a function of one's own cannot be computed;
    for the interval, resamples without some class may be so and are left out."""
    function, sign, n = metric_function(metric), -1 if metric == "log_loss" else 1, len(labels)
    sides = [_submitted(metric, side, labels) for side in (probs, other) if side is not None]

    def value(rows: np.ndarray) -> float:
        try:
            values = [float(function(labels[rows], side[rows])) for side in sides]
        except Exception:  # whatever another's function raises where a class is absent
            return math.nan
        return sign * (values[0] - (values[1] if other is not None else 0.0))

    rng = np.random.default_rng(0)
    samples = [value(rng.integers(n, size=n)) for _ in range(RESAMPLES)]
    known = [sample for sample in samples if math.isfinite(sample)]
    low, high = np.quantile(known, [0.025, 0.975]) if 2 * len(known) > RESAMPLES else (math.nan, math.nan)
    found = {"value": value(np.arange(n)), "ci_low": float(low), "ci_high": float(high)}
    found = {key: number if math.isfinite(number) else None for key, number in found.items()}
    return {"name": metric, **found, "n": n}


def describe_score(found: dict[str, Any]) -> str:
    """What `metric_score` found: 'macro F1 0.652 (95 % interval 0.633 to 0.671, n = 3,589)'."""
    value, low, high = (found[key] for key in ("value", "ci_low", "ci_high"))
    interval = "no interval" if low is None else f"95 % interval {low:.3f} to {high:.3f}"
    number = "cannot be computed" if value is None else f"{value:.3f}"
    return f"{readable(found['name'])} {number} ({interval}, n = {found['n']:,})"


def readable(metric: str) -> str:
    """The name of a metric as people write it."""
    return metric.rpartition(":")[2].replace("_", " ").replace(" f1", " F1")
