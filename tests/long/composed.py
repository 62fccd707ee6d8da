"""Ten thousand random layouts: what is read is right, and what is refused says what decides."""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from tests.data.composer import RIGHT, described, outcome
from tests.long.common import Trial

SEEDS, LAYOUTS = 3, 10_000


def trials(folder: Path, data: Path, quick: bool) -> Iterator[Trial]:
    """A third of the layouts from each of three first seeds, on all cores."""
    os.environ |= {"FER_CACHE": "off", "OMP_NUM_THREADS": "1"}
    n = 100 if quick else LAYOUTS // SEEDS + 1
    for _ in range(SEEDS):
        first, counts = random.randrange(10**6, 10**9), Counter()
        with ProcessPoolExecutor() as pool:
            for word, what in pool.map(_outcome, range(first, first + n), chunksize=20):
                counts[word] += 1
                if word not in RIGHT:
                    print(f"{word}: {what}", flush=True)
        lost = sum(counts[word] for word in ("SILENT", "NAMES", "CRASH"))
        words = ", ".join(f"{count:,} {word}" for word, count in counts.most_common())
        yield Trial(f"random layouts, seeds {first} to {first + n - 1}", n, lost, words)


def _outcome(seed: int) -> tuple[str, str]:
    layout, word, why = outcome(seed)
    return word, f"{described(layout)}\n    {why[:300]}"
