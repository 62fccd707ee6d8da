"""Inference: images per second, in batches and one by one, and the latency of one
face.

One by one, a network of a million weights spends most of its time in starting operations: the same images
in batches cost a fraction of that. Views cost what their number says, since each is a forward pass.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator

import numpy as np
import torch

from benchmarks.timing import Row, Settings, take_turns, timed
from fer_utils.learning.augment import VIEWS
from fer_utils.learning.models import create_model
from fer_utils.learning.predict import view_probs

OURS = ("small", "medium", "large")
PEERS = ("vgg_bn", "resnet18")


def rows(settings: Settings) -> Iterator[Row]:
    """Our nets against the peers', plain against views, batches against single faces, then the latency."""
    device = settings.device
    seconds = 1.0 if settings.quick else 5.0
    n = 128 if settings.quick else 256 if device.type == "cpu" else 16_384
    images = np.random.default_rng(0).integers(0, 256, (n, 1, 48, 48), dtype=np.uint8)
    nets = {name: create_model(name, 7).to(device).eval() for name in (*OURS, *PEERS)}

    def plain(name: str, views: str = "plain"):
        return lambda: view_probs(nets[name], images, views)

    for ours in OURS[: 1 if settings.quick else 3]:
        for peer in PEERS:
            a, b, ratio, turns = take_turns(plain(ours), plain(peer), seconds, device)
            yield Row(
                f"{ours}, plain, batches",
                f"the peers' {peer}",
                n / a,
                n / b,
                "images/s",
                ratio,
                turns,
                "float32",
            )
    for views in ("mirror", "shift"):
        a, b, ratio, turns = take_turns(plain("small"), plain("small", views), seconds, device)
        yield Row(
            "small, plain",
            f"small, {len(VIEWS[views])} views ({views})",
            n / a,
            n / b,
            "images/s",
            ratio,
            turns,
        )
    few = images[:64]
    a, b, ratio, turns = take_turns(
        lambda: view_probs(nets["small"], few, "plain"),
        lambda: [view_probs(nets["small"], one[None], "plain") for one in few],
        seconds,
        device,
    )
    yield Row("small, 64 faces in a batch", "one by one", 64 / a, 64 / b, "images/s", ratio, turns)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)

    def single(name: str):
        return lambda: view_probs(nets[name], images[:1])

    for ours in OURS[: 1 if settings.quick else 3]:
        a, b, ratio, turns = take_turns(single(ours), single("resnet18"), seconds, device)
        slow = 1e3 * statistics.quantiles([timed(single(ours), device) for _ in range(100)], n=20)[-1]
        what, note = f"latency of one face, {ours}, one core", f"95 % of 100 within {slow:.1f} ms"
        yield Row(what, "the peers' resnet18", 1e3 * a, 1e3 * b, "ms", ratio, turns, note)
    torch.set_num_threads(threads)
