"""How often the intervals of `compare` call one recipe better than itself: python -m benchmarks.false_alarms

Simulated runs: each image has a probability of being answered rightly, drawn from a beta distribution with
the accuracy and the disagreement of two runs of `fer2013-cpu`, and each seed shifts all of them a little, so
that the accuracies of seeds spread as those do. Of 95 % intervals one in twenty may leave out zero.
"""

from __future__ import annotations

import argparse

import numpy as np

from fer_utils.analysis.paired_comparison import enough_seeds, resampled_means
from fer_utils.learning.metrics import wilson_interval

ACCURACY, DISAGREEMENT, SEED_SD = 0.703, 0.085, 0.0056  # sd of the seeds' accuracies: 0.66 points


def right_answers(rng: np.random.Generator, n: int, runs: int) -> np.ndarray:
    """Whether each of `runs` seeds answers each of `n` images rightly, bool [runs, n]."""
    noise = DISAGREEMENT / 2  # the mean of p (1 - p)
    strength = noise / (ACCURACY * (1 - ACCURACY) - noise)
    chance = rng.beta(ACCURACY * strength, (1 - ACCURACY) * strength, n)
    return rng.random((runs, n)) < chance + rng.normal(0, SEED_SD, (runs, 1))


def false_alarms(n: int, seeds: int, trials: int) -> int:
    """In how many of `trials` the interval of one recipe against itself leaves out zero."""
    rng, found = np.random.default_rng(0), 0
    for _ in range(trials):
        right = right_answers(rng, n, 2 * seeds)
        samples = resampled_means([right[:seeds], right[seeds:]])
        low, high = np.quantile(samples[:, 0] - samples[:, 1], [0.025, 0.975])
        found += low > 0 or high < 0
    return int(found)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks.false_alarms", description=__doc__.split("\n\n")[0]
    )
    parser.add_argument("--trials", type=int, default=300)
    options = parser.parse_args()
    print("| images | seeds of each | false alarms | 95 % interval | |")
    print("|---|---|---|---|---|")
    for n in (3_589, 32_298):
        for seeds in (2, 3):
            found = false_alarms(n, seeds, options.trials)
            low, high = (100 * value for value in wilson_interval(found, options.trials))
            verdict = "" if enough_seeds(seeds, n) else "`compare` gives no verdict"
            share = f"{100 * found / options.trials:.1f} % | {low:.1f} to {high:.1f} %"
            print(f"| {n:,} | {seeds} | {share} | {verdict} |", flush=True)


if __name__ == "__main__":
    main()
