"""The hours a training may take, where a machine is lent for so long and no longer (Kaggle's sessions)."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager

from fer_utils.learning.training_loop import Learner, TrainingError

# Validation runs on warm caches and, on a GPU, in half precision; predicting for the results does not.
CAUTION = 2.0


class OutOfTime(TrainingError):
    """`max_hours` are over before there is anything to predict with; the same call goes on later."""


class TimeIsUp(Exception):
    """Raised between two steps, when what is left only suffices for writing the results."""


class TimeLimit:
    """Tells a training when to stop, so that its results are written within `hours` (0: no limit) of now.

    `predictions` is the work of that writing, in passes over the validation split. How long such a pass
    takes is measured at every validation and kept with the learner.
    """

    def __init__(self, hours: float, predictions: float):
        self.end = time.monotonic() + 3600 * hours if hours else math.inf
        self.predictions = predictions

    @contextmanager
    def timing(self, learner: Learner) -> Iterator[None]:
        """A block that validates."""
        start = time.monotonic()
        yield
        seconds = time.monotonic() - start
        # The shortest so far: the first one on a GPU also loads kernels, and would end a short run at once.
        learner.validation_seconds = min(seconds, learner.validation_seconds or math.inf)

    def is_over(self, learner: Learner) -> bool:
        """Whether one more epoch's end (a validation) and the results are all that there is time for."""
        reserve = CAUTION * (1 + self.predictions) * learner.validation_seconds
        return time.monotonic() + reserve > self.end


def hours_left(hours: float, start: float) -> float:
    """What of `hours` (0: no limit) is left, begun at `start` of the monotonic clock; never 0 for nothing."""
    return hours and max(1e-6, hours - (time.monotonic() - start) / 3600)
