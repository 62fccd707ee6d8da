"""What a network says of images: class probabilities in every view of test-time augmentation, and features.

Where only the classifier learns, the layers before it say the same of an image in every epoch. They are asked
once about each image and a variant of it; an epoch then takes seconds.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from fer_utils.arrays_on_disk import empty
from fer_utils.config import AUGMENTATION, Config, check_choice
from fer_utils.data.files.cache import kept_array
from fer_utils.faces.face_network import aligned, is_face_network
from fer_utils.learning.augment import VIEWS, at_once, augment, channels_last, to_float, view
from fer_utils.learning.device import DECIDES_BYTES, environment
from fer_utils.learning.models import normalise
from fer_utils.progress import bar

IMAGES_TOGETHER = 256


@torch.no_grad()
def view_probs(
    model: nn.Module,
    images: np.ndarray,
    views: str = "plain",
    most: int = 512,
    dtype: torch.dtype = torch.float32,
) -> np.ndarray:
    """Class probabilities float32 [V, N, C] of uint8 images [N, 1 or 3, H, W] in each fixed view, the plain
    one first; at most so many images at once.

    Results are computed in float32 whatever the training used, so that they differ little between machines;
    what is only learned from may use the `dtype` of the training, which can be several times faster.

    Raises:
        ConfigError: unknown views.
    """
    check_choice("views", views, VIEWS)
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    rows = []
    # TF32 has the precision of float16; `flags` would switch cuDNN off without `enabled`.
    exact = torch.backends.cudnn.flags(enabled=torch.backends.cudnn.enabled, allow_tf32=False)
    with exact, torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
        images = torch.from_numpy(np.require(images, requirements="W"))
        for batch in bar(images.split(at_once(most, device)), "predicting"):
            batch = aligned(model, to_float(batch.to(device)))
            probs = [model(view(batch, *one)).float().softmax(1) for one in VIEWS[views]]
            rows.append(torch.stack(probs).cpu())
    model.train(was_training)
    return torch.cat(rows, dim=1).numpy()


def has_fixed_features(config: Config, model: nn.Module) -> bool:
    """Whether a training needs the images no more once it has the `fixed_features`."""
    if not is_face_network(model) or config.head_epochs < config.epochs:
        return False
    return not (config.mixup or config.cutmix or config.start_size)


def fixed_features(
    model: nn.Module,
    config: Config,
    dtype: torch.dtype,
    images: np.ndarray,
    each_batch: Callable[[], None] = lambda: None,
) -> tuple[np.ndarray, float]:
    """What the layers before the classifier of `model` say, in `dtype`, of uint8 images [N, C, H, W] and, if
    they are augmented, of a variant of each: mirrored, unless `flip` is 0, and changed by all else at random.

    They are kept in the cache: trainings with other seeds or parameters of the classifier use the same.

    Args:
        each_batch: is called before each batch, and may raise.

    Returns:
        Features float16 [N, 2 or 1, D], and the seconds in which they were computed, now or then.
    """
    network = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        if ".heads." not in name:
            network.update(tensor.cpu().contiguous().numpy())
    now = environment(next(model.parameters()).device, dtype)
    return kept_array(
        lambda: _compute(model, dtype, images, config, each_batch),
        *("features", network.hexdigest(), hashlib.sha256(np.ascontiguousarray(images)).hexdigest()),
        *(str(images.shape), str([getattr(config, name) for name in AUGMENTATION])),
        *(str(now[key]) for key in DECIDES_BYTES),
    )


def features_of(model: nn.Module, dtype: torch.dtype, images: np.ndarray) -> np.ndarray:
    """The same of the images alone, float16 [N, D]."""
    return _compute(model, dtype, images)[:, 0]


@torch.no_grad()
def _compute(
    model: nn.Module,
    dtype: torch.dtype,
    images: np.ndarray,
    config: Config | None = None,
    each_batch: Callable[[], None] = lambda: None,
) -> np.ndarray:
    """float16 [N, 2, D]; [N, 1, D] without a config, or if nothing in it changes images."""
    device = next(model.parameters()).device
    generator = torch.Generator(device).manual_seed(0)
    was_training = model.training
    model.eval()
    features, began = np.empty(0), time.monotonic()
    with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
        for start in bar(range(0, len(images), IMAGES_TOGETHER), "features"):
            each_batch()
            batch = torch.from_numpy(np.ascontiguousarray(images[start : start + IMAGES_TOGETHER]))
            batch = aligned(model, to_float(batch.to(device)))
            variants = [batch]
            if config is not None and any(getattr(config, name) for name in AUGMENTATION):
                mirrored = batch.flip(-1) if config.flip else batch
                variants.append(augment(mirrored, dataclasses.replace(config, flip=0.0), generator))
            variants = [channels_last(normalise(each, model.mean, model.std)) for each in variants]
            found = torch.stack([model.backbone.features(each) for each in variants], 1)
            if not len(features):
                features = empty((len(images), *found.shape[1:]), np.float16)
                minutes = math.ceil((time.monotonic() - began) * len(images) / len(batch) / 60)
                what = f"features: {len(variants)} x {len(images):,} images"
                print(f"{what}, computed once, in about {minutes} min", flush=True)
            features[start : start + len(found)] = found.half().cpu().numpy()
    model.train(was_training)
    return features
