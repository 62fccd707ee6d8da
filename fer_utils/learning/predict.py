"""What a network says of images: class probabilities in every view of test-time augmentation, and features.

Where only the classifier learns, and images are at most mirrored, the layers before it say the same of an
image in every epoch. They are asked once about each image and its mirror image; an epoch then takes seconds.
"""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from torch import Tensor, nn

from fer_utils.arrays_on_disk import empty
from fer_utils.config import AUGMENTATION, Config, check_choice
from fer_utils.data.files.cache import kept_array
from fer_utils.learning.augment import VIEWS, channels_last, to_float, view
from fer_utils.learning.device import DECIDES_BYTES, environment
from fer_utils.learning.face_network import FaceResNet
from fer_utils.learning.models import normalise
from fer_utils.progress import bar

CHANGES_IMAGES = (*(name for name in AUGMENTATION if name != "flip"), "mixup", "cutmix", "start_size")
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
    """Whether a training sees the same features of an image, or of its mirror image, in every epoch."""
    if not isinstance(getattr(model, "backbone", None), FaceResNet) or config.head_epochs < config.epochs:
        return False
    return not any(getattr(config, name) for name in CHANGES_IMAGES)


def fixed_features(
    model: nn.Module, dtype: torch.dtype, train: np.ndarray, valid: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """What the layers before the classifier of `model` say, in `dtype`, of uint8 images [N, C, H, W].

    Returns:
        Of the training images and their mirror images, float16 [N, 2, D]; of the validation images alone,
        [N, D]. They are kept in the cache, since trainings with other seeds or parameters need the same.
    """
    model_digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        if ".head." not in name:
            model_digest.update(tensor.cpu().contiguous().numpy())
    now = environment(next(model.parameters()).device, dtype)
    content = ["features", model_digest.hexdigest(), *(str(now[key]) for key in DECIDES_BYTES)]
    both = [
        kept_array(
            lambda images=images, mirror=mirror: _compute(model, dtype, images, mirror),
            *(*content, str(mirror), hashlib.sha256(np.ascontiguousarray(images)).hexdigest()),
        )
        for images, mirror in ((train, True), (valid, False))
    ]
    return both[0], both[1][:, 0]


@torch.no_grad()
def _compute(model: nn.Module, dtype: torch.dtype, images: np.ndarray, mirror: bool) -> np.ndarray:
    """float16 [N, 1 or 2, D]."""
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    features = np.empty(0)
    with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
        for start in bar(range(0, len(images), IMAGES_TOGETHER), "features"):
            batch = torch.from_numpy(np.ascontiguousarray(images[start : start + IMAGES_TOGETHER]))
            batch = normalise(to_float(batch.to(device)), model.mean, model.std)
            views = (batch, batch.flip(-1)) if mirror else (batch,)
            batch = torch.stack([model.backbone.features(channels_last(view)) for view in views], 1)
            if not len(features):
                features = empty((len(images), *batch.shape[1:]), np.float16)
            features[start : start + len(batch)] = batch.half().cpu().numpy()
    model.train(was_training)
    return features


def one_of_two(features: Tensor, flip: float, generator: torch.Generator) -> Tensor:
    """float32 [B, D]: of features [B, 2, D] those of each image or, with probability `flip`, of its mirror
    image."""
    rows = torch.arange(len(features), device=features.device)
    chosen = torch.rand(len(features), generator=generator, device=features.device) < flip
    return features[rows, chosen.long()].float()
