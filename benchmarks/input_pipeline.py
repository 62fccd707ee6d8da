"""Input pipeline: augmented images per second, on one core and, where there is one, on a GPU.

The peers send every image by itself through a dozen Python calls, each of which touches 2,304 pixels: the
time goes into the calls, not into the pixels. `augment` makes the same calls once for a batch; on one core
it takes about 13 microseconds an image, half of it in the warp, and there the floor is memory: twelve
passes over 9 kB.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from benchmarks import peers
from benchmarks.timing import RECIPE, Row, Settings, seconds_per_step, take_turns
from fer_utils.config import Config
from fer_utils.data.load import load_competition
from fer_utils.learning.augment import augment, to_float

CPU = torch.device("cpu")


def rows(settings: Settings) -> Iterator[Row]:
    """Ours against each peer's pipeline, then the share of augmentation in a training step."""
    seconds = 2.0 if settings.quick else 10.0
    config = Config(**RECIPE)
    competition = load_competition(settings.data)
    train = competition.train
    n = 512 if settings.quick else 2048
    images, labels = train.images[:n], train.labels[:n]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)

    def ours(device: torch.device = CPU) -> None:
        generator = torch.Generator(device).manual_seed(0)
        for batch in whole[device.type].split(128):
            augment(to_float(batch), config, generator)

    whole = {"cpu": torch.from_numpy(images)}
    v2_per_tensor = peers.same_operations(config)
    others = {
        "torchvision v2, per tensor": lambda: [v2_per_tensor(one) for one in to_float(whole["cpu"])],
        "torchvision v2 on PIL, DataLoader": through(peers.per_image(config), images, labels),
        "usef-kh's ten crops, DataLoader": through(peers.usef_kh(), images, labels),
        "LetheSec's five crops, DataLoader": through(peers.lethesec(), images, labels),
        "WuJie1010's crop and flip, DataLoader": through(peers.wujie1010(), images, labels),
    }
    notes = [
        "same operations",
        "same operations",
        "10 crops an image",
        "5 crops an image",
        "fewer operations",
    ]
    for (name, other), note in zip(others.items(), notes, strict=True):
        a, b, ratio, turns = take_turns(ours, other, seconds, CPU)
        yield Row("augment(), one core", name, n / a, n / b, "images/s", ratio, turns, note)
    for device in [CPU] + [settings.device] * (settings.device.type == "cuda"):
        whole[device.type] = whole["cpu"].to(device)
        other = kornia_batch(config, whole[device.type])
        if other is None:
            continue
        a, b, ratio, turns = take_turns(lambda device=device: ours(device), other, seconds, device)
        where = "one core" if device.type == "cpu" else device.type
        yield Row(
            f"augment(), {where}",
            "kornia, batched",
            n / a,
            n / b,
            "images/s",
            ratio,
            turns,
            "same operations",
        )

    torch.set_num_threads(threads)
    device = settings.device
    whole[device.type] = whole["cpu"].to(device)
    names = ("small", "medium") if device.type == "cpu" else ("medium", "large")
    for net in settings.nets(*names):
        step = seconds_per_step(net, competition)
        generator = torch.Generator(device).manual_seed(0)
        batch = whole[device.type][:128]

        def one_batch(batch=batch, generator=generator) -> None:
            augment(to_float(batch), config, generator)

        spent, _, _, turns = take_turns(one_batch, one_batch, seconds / 2, device)
        name = f"augmentation of a batch, {device.type}"
        yield Row(
            name,
            f"a whole training step of {net.model}, width {net.width:g}",
            1e3 * spent,
            1e3 * step,
            "ms",
            step / spent,
            turns,
            f"{100 * spent / step:.1f} % of the step",
        )


def through(transform, images, labels):
    """A function that sends all images through `transform` in a DataLoader of this process."""
    batches = peers.loader(images, labels, transform, 64)
    return lambda: [None for _ in batches]


def kornia_batch(config: Config, images: torch.Tensor):
    """The same operations by kornia, batch by batch; None where it is not installed."""
    try:
        import kornia.augmentation as K
    except ImportError:
        print("  kornia is not installed (benchmarks/requirements.txt): its rows are left out")
        return None
    shift = (config.shift, config.shift)
    transform = torch.nn.Sequential(
        K.RandomHorizontalFlip(p=config.flip),
        K.RandomAffine(
            config.rotate, shift, (1 - config.scale, 1 + config.scale), padding_mode="border", p=1.0
        ),
        K.RandomBrightness((1 - config.brightness, 1 + config.brightness), p=1.0),
        K.RandomContrast((1 - config.contrast, 1 + config.contrast), p=1.0),
        K.RandomErasing((0.02, 0.2), p=config.erase),
    )
    return lambda: [transform(to_float(batch)) for batch in images.split(128)]
