"""Class probabilities of images, in every view of test-time augmentation."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from fer_utils.config import check_choice
from fer_utils.learning.augment import VIEWS, to_float, view
from fer_utils.progress import bar


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
