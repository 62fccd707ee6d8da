"""Growth: time and memory of an epoch and of all that surrounds it, for 1, 3 and 10 times the images.

The images are the data's own, repeated with noise so that no two are equal. Each size runs in a process
of its own, whose peak memory is measured; the net is tiny, so that the handling of the images weighs
most. Beyond half of a GPU's free memory the images stay on the host and batches move; beyond the host's
memory nothing here helps.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from benchmarks.timing import Row, Settings, python

CODE = """
import dataclasses, json, os, tempfile, time
import numpy as np
from benchmarks.timing import RECIPE, peak_memory
from fer_utils import Config, fit, load_competition
from fer_utils.competition import Split

factor, n = {factor}, {n}
competition = load_competition({data!r})
base = competition.train.take(np.arange(min(n, len(competition.train))))
rng = np.random.default_rng(0)
images = np.concatenate([base.images] * factor)
images[:, :, :4] ^= rng.integers(0, 4, images[:, :, :4].shape, dtype=np.uint8)
labels = np.concatenate([base.labels] * factor)
train = Split(images, labels, np.arange(len(images)).astype(str))
competition = dataclasses.replace(competition, train=train, test=None, submission=None)
with tempfile.TemporaryDirectory() as out:
    start = time.perf_counter()
    own = dict(out=out, device={device!r}, epochs=1, width=0.125, precision='fp32', views='plain')
    config = Config(**RECIPE | own)
    run = fit(config, competition)
    seconds = time.perf_counter() - start
result = dict(images=len(images), seconds=seconds, peak=peak_memory(), mb=images.nbytes / 1e6)
print("RESULT " + json.dumps(result))
"""


def rows(settings: Settings) -> Iterator[Row]:
    """Each size against the smallest."""
    n = 2000 if settings.quick else 28_709
    results = []
    for factor in (1, 3) if settings.quick else (1, 3, 10):
        code = CODE.format(factor=factor, n=n, data=settings.data, device=settings.device.type)
        result = json.loads(python(code).split("RESULT ")[1])
        results.append(result)
        first = results[0]
        if factor == 1:
            continue
        what, other = f"{result['images']:,} images", f"{first['images']:,} images"
        ratio = result["seconds"] / first["seconds"]
        yield Row(
            f"fit, {what}", other, result["seconds"], first["seconds"], "s", ratio, 1, f"linear: {factor}"
        )
        ratio = result["peak"] / first["peak"]
        note = f"of which images {result['mb']:,.0f} MB"
        yield Row(f"peak memory, {what}", other, result["peak"], first["peak"], "MB", ratio, 1, note)
