"""Random layouts, each with one sensible reading: read right, or refused with the parameter that decides."""

import random
from collections import Counter

import pytest

from tests.data.composer import RIGHT, described, outcome

FIXED = 20_000
FRESH = random.SystemRandom().randrange(10**6, 10**9)


@pytest.mark.parametrize("first", [FIXED, FRESH], ids=["fixed", "fresh"])
def test_random_layouts_are_read_right(first):
    wrong, counts = [], Counter()
    for seed in range(first, first + 150):
        layout, word, why = outcome(seed)
        counts[word] += 1
        if word not in RIGHT:
            wrong.append(f"{word}: {described(layout)}\n    {why[:300]}")
    again = f"again: python -m tests.data.composer --only SEED; all: --n 150 --seed {first}"
    assert not wrong, "\n".join([f"{dict(counts)}, {again}", *wrong[:5]])
