"""Random layouts, each with one sensible reading: none is read wrongly, and nearly all are read."""

import zlib
from collections import Counter

import pytest

from fer_utils.files import REPOSITORY
from tests.data.composer import RIGHT, described, outcome

# What its layouts mean does not depend on the versions of packages; test_layouts.py does.
pytestmark = pytest.mark.once

FIXED = 20_000
# New layouts whenever the code of the reading changes, and the same ones until then: a change is judged by
# layouts that it was not made for, and a failure comes again.
CODE = b"".join(path.read_bytes() for path in sorted((REPOSITORY / "fer_utils" / "data").rglob("*.py")))
FRESH = 10**6 + zlib.crc32(CODE) % 10**9


@pytest.mark.parametrize(("first", "n"), [(FIXED, 30), (FRESH, 30)], ids=["fixed", "fresh"])
def test_random_layouts_are_read_right_or_refused(first, n):
    wrong, counts = [], Counter()
    for seed in range(first, first + n):
        layout, word, why = outcome(seed)
        counts[word] += 1
        if word in ("SILENT", "NAMES", "CRASH"):
            wrong.append(f"{word}: {described(layout)}\n    {why[:300]}")
    told = f"{dict(counts)}, again: python -m tests.data.composer --only SEED; all: --n {n} --seed {first}"
    print(told)
    assert not wrong, "\n".join([told, *wrong[:5]])
    assert sum(counts[word] for word in RIGHT) >= 0.95 * counts.total(), told
