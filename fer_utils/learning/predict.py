"""What a network says of images: class probabilities in every view of test-time augmentation, and features.

Where only the classifier learns, the layers before it say the same of an image in every epoch. They are asked
once about each image and a few random variants of it; an epoch then takes seconds.
"""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from torch import nn

from fer_utils.arrays_on_disk import empty
from fer_utils.config import AUGMENTATION, Config, check_choice
from fer_utils.data.files.cache import kept_array
from fer_utils.learning.augment import VIEWS, augment, channels_last, to_float, view
from fer_utils.learning.device import DECIDES_BYTES, environment
from fer_utils.learning.face_network import FaceResNet
from fer_utils.learning.models import normalise
from fer_utils.progress import bar

# Of each image, and how many images are asked about at once. More variants would fill more memory: six of
# FER2013's 28,709 training images take 1.9 GB.
VARIANTS = 6
IMAGES_TOGETHER = 256


@torch.no_grad()
def view_probs(
    model: nn.Module,
    images: np.ndarray,
    views: str = "plain",
    batch_size: int = 512,
    dtype: torch.dtype = torch.float32,
) -> np.ndarray:
    """Class probabilities float32 [V, N, C] of uint8 images [N, 1 or 3, H, W] in each fixed view, the plain
    one first.

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
        for batch in bar(images.split(batch_size), "predicting"):
            batch = to_float(batch.to(device))
            probs = [model(view(batch, *one)).float().softmax(1) for one in VIEWS[views]]
            rows.append(torch.stack(probs).cpu())
    model.train(was_training)
    return torch.cat(rows, dim=1).numpy()


def has_fixed_features(config: Config, model: nn.Module) -> bool:
    """Whether a training needs the images no more once it has the `fixed_features`."""
    if not isinstance(getattr(model, "backbone", None), FaceResNet) or config.head_epochs < config.epochs:
        return False
    return not (config.mixup or config.cutmix or config.start_size)


def fixed_features(
    model: nn.Module, config: Config, dtype: torch.dtype, train: np.ndarray, valid: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """What the layers before the classifier of `model` say, in `dtype`, of uint8 images [N, C, H, W].

    Returns:
        Of the training images and VARIANTS - 1 random variants of each, float16 [N, VARIANTS, D]; of the
        validation images alone, [N, D]. They are kept in the cache: trainings with other seeds or parameters
        of the classifier use the same.
    """
    network = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        if ".head." not in name:
            network.update(tensor.cpu().contiguous().numpy())
    now = environment(next(model.parameters()).device, dtype)
    augmentation = str([getattr(config, name) for name in AUGMENTATION])
    content = ["features", network.hexdigest(), augmentation, *(str(now[key]) for key in DECIDES_BYTES)]
    both = [
        kept_array(
            lambda images=images, n=n: _compute(model, config, dtype, images, n),
            *(*content, str(n), hashlib.sha256(np.ascontiguousarray(images)).hexdigest()),
        )
        for images, n in ((train, VARIANTS), (valid, 1))
    ]
    return both[0], both[1][:, 0]


@torch.no_grad()
def _compute(
    model: nn.Module, config: Config, dtype: torch.dtype, images: np.ndarray, n_variants: int
) -> np.ndarray:
    """float16 [N, n_variants, D]."""
    device = next(model.parameters()).device
    generator = torch.Generator(device).manual_seed(0)
    was_training = model.training
    model.eval()
    features = np.empty(0)
    with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
        for start in bar(range(0, len(images), IMAGES_TOGETHER), "features"):
            batch = torch.from_numpy(np.ascontiguousarray(images[start : start + IMAGES_TOGETHER]))
            # Enlarged first: to turn the small image would blur it.
            batch = model.backbone.enlarged(to_float(batch.to(device)))
            variants = [batch, *(augment(batch, config, generator) for _ in range(n_variants - 1))]
            variants = [channels_last(normalise(each, model.mean, model.std)) for each in variants]
            found = torch.stack([model.backbone.features(each) for each in variants], 1)
            if not len(features):
                features = empty((len(images), *found.shape[1:]), np.float16)
            features[start : start + len(found)] = found.half().cpu().numpy()
    model.train(was_training)
    return features
