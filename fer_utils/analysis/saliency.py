"""Where a network looks: Grad-CAM with its sanity check, and the accuracy lost when a part of the face is
hidden."""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Mapping

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fer_utils.competition import DataError
from fer_utils.learning.augment import to_float
from fer_utils.learning.metrics import paired_test
from fer_utils.progress import bar
from fer_utils.run.finished_run import Run

# Rows and columns of a face part: rows in units of the distance from the eyes to the mouth, counted from
# either, columns as shares of the width.
_PARTS = {
    "forehead": (("eyes", -1.0, -0.42), (0.2, 0.8)),
    "brows": (("eyes", -0.42, -0.14), (0.15, 0.85)),
    "eyes": (("eyes", -0.14, 0.16), (0.15, 0.85)),
    "nose": (("eyes", 0.18, 0.7), (0.35, 0.65)),
    "mouth": (("mouth", -0.22, 0.22), (0.25, 0.75)),
    "chin": (("mouth", 0.24, 0.6), (0.25, 0.75)),
}


def why_not(run: Run) -> str:
    """Why Grad-CAM cannot be had of a run, in words; empty where it can. (Kaggle's image lacks captum.)"""
    if importlib.util.find_spec("captum") is None:
        return "captum is not installed: Grad-CAM is left out (pip install captum)"
    try:
        last_maps(run.model, run.config.image_size)
    except DataError as error:
        return f"Grad-CAM is left out: {error}"
    return ""


def last_maps(model: nn.Module, image_size: int) -> nn.Module:
    """The last module of a convolutional network whose output still is a map [N, C, h, h] of 3 x 3 places or
    more.

    Raises:
        DataError: the network has none, or works by attention, whose outputs may look like maps but are none.
    """
    if any("attention" in type(module).__name__.lower() for module in model.modules()):
        raise DataError("Grad-CAM is for convolutional networks, and this one works by attention")
    found: list[nn.Module] = []

    def remember(module: nn.Module, _: object, output: object) -> None:
        if isinstance(output, Tensor) and output.ndim == 4 and output.shape[2] == output.shape[3] >= 3:
            found.append(module)

    hooks = [module.register_forward_hook(remember) for module in model.modules()]
    device = next(model.parameters()).device
    try:
        with torch.no_grad():
            model(torch.zeros(1, 1, image_size, image_size, device=device))
    finally:
        for hook in hooks:
            hook.remove()
    if not found:
        raise DataError("Grad-CAM needs a network with convolutional maps of at least 3 x 3 places")
    return found[-1]


def grad_cam(model: nn.Module, images: np.ndarray, classes: np.ndarray, batch_size: int = 256) -> np.ndarray:
    """What speaks for a class, and where (Grad-CAM, Selvaraju et al. 2017).

    Args:
        images: uint8 [N, 1, H, W].
        classes: int64 [N], the class to explain for each picture.

    Returns:
        float32 [N, H, W], not negative; each map has a mean of 1, or is 0 where nothing speaks for the class.

    Raises:
        DataError: the network has no convolutional maps.
    """
    from captum.attr import LayerGradCam

    device = next(model.parameters()).device
    explainer = LayerGradCam(model.eval(), last_maps(model, images.shape[-1]))
    parts = [np.zeros((0, *images.shape[2:]), np.float32)]
    for start in range(0, len(images), batch_size):
        rows = slice(start, start + batch_size)
        batch = to_float(torch.tensor(images[rows]).to(device)).requires_grad_()
        maps = explainer.attribute(batch, torch.tensor(classes[rows]).to(device), relu_attributions=True)
        maps = F.interpolate(maps.detach(), images.shape[2:], mode="bilinear")[:, 0]
        parts.append((maps / maps.mean((1, 2), keepdim=True).clamp(min=1e-12)).cpu().numpy())
    return np.concatenate(parts)


def shuffled(model: nn.Module, images: np.ndarray, seed: int = 0) -> nn.Module:
    """A copy of the network that has unlearned everything: the values of each tensor of weights change
    places, and its norms are adapted to `images` uint8 [N, 1, H, W] anew, so that activations keep their
    usual size."""
    generator = torch.Generator().manual_seed(seed)
    model = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in model.parameters():
            order = torch.randperm(parameter.numel(), generator=generator).to(parameter.device)
            parameter.copy_(parameter.flatten()[order].view_as(parameter))
        for norm in (m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)):
            norm.reset_running_stats()
            norm.momentum = None  # the mean of all batches that follow
        model.train()(to_float(torch.tensor(images).to(next(model.parameters()).device)))
    return model.eval()


def sanity_check(
    model: nn.Module, images: np.ndarray, classes: np.ndarray, maps: np.ndarray
) -> dict[str, float]:
    """Whether the maps of Grad-CAM depend on the weights (Adebayo et al. 2018): those that do not show the
    picture and not the network. It is necessary, not sufficient: an untrained network passes too.

    Args:
        maps: `grad_cam(model, images, classes)`.

    Returns:
        Mean rank correlations of maps: `shuffled`, of a picture's map with that of a network that has
        unlearned everything; `others`, with the map of another picture, which tells how much all maps have in
        common (faces stand in the middle). `n` pictures, those with an empty map left out.
    """
    from scipy.stats import spearmanr

    blind = grad_cam(shuffled(model, images), images, classes)
    partner = np.roll(maps, 1, axis=0)
    seen = [i for i in range(len(maps)) if maps[i].any() and blind[i].any() and partner[i].any()]
    correlations = {
        name: [spearmanr(maps[i].ravel(), other[i].ravel()).statistic for i in seen]
        for name, other in (("shuffled", blind), ("others", partner))
    }
    means = {name: float(np.nanmean(values)) if seen else np.nan for name, values in correlations.items()}
    return {**means, "n": len(seen)}


def describe_sanity(check: dict[str, float]) -> str:
    """The outcome of `sanity_check` in words."""
    verdict = "passed, the maps depend on the weights"
    if not check["shuffled"] < 0.5:
        verdict = "FAILED, do not read anything into the maps"
    return (
        f"sanity check {verdict}: rank correlation {check['shuffled']:.2f} with the maps of shuffled "
        f"weights, {check['others']:.2f} with the map of another picture (n = {check['n']})"
    )


def face_regions(images: np.ndarray) -> dict[str, tuple[slice, slice]]:
    """Boxes (rows, columns) around the parts of roughly aligned faces, uint8 [N, 1, H, W].

    The eyes and the mouth are the bands of the mean face, in its upper and lower half, that are darkest
    against what lies above and below; the other parts follow from these two.
    """
    from scipy.ndimage import gaussian_filter1d

    mean = images.mean((0, 1))
    size = len(mean)
    bands = mean[:, size // 5 : -size // 5].mean(1)
    darkness = gaussian_filter1d(bands, size / 8) - gaussian_filter1d(bands, size / 48)
    high, middle, low = round(0.25 * size), round(0.58 * size), round(0.92 * size)
    line = {
        "eyes": high + int(darkness[high:middle].argmax()),
        "mouth": middle + int(darkness[middle:low].argmax()),
    }
    unit = line["mouth"] - line["eyes"]
    boxes = {}
    for name, ((anchor, first, last), (left, right)) in _PARTS.items():
        top, bottom = (int(np.clip(round(line[anchor] + part * unit), 0, size)) for part in (first, last))
        if bottom > top:
            boxes[name] = (slice(top, bottom), slice(round(left * size), round(right * size)))
    return boxes


def hide(images: np.ndarray, box: tuple[slice, slice]) -> np.ndarray:
    """The same pictures with a box filled by its own mean grey, which hides its shapes but not its light."""
    hidden = images.copy()
    part = hidden[:, :, *box]
    part[:] = part.mean((2, 3), keepdims=True).round()
    return hidden


def occlusion_table(
    run: Run, images: np.ndarray, labels: np.ndarray, regions: Mapping[str, tuple[slice, slice]]
) -> pd.DataFrame:
    """The accuracy lost when a part of the face is hidden (occlusion, Zeiler and Fergus 2014), plain view.

    Args:
        images: uint8 [N, 1, H, W].
        labels: int64 [N].
        regions: from `face_regions`.

    Returns:
        A row per part, the costliest first: `lost`, points of accuracy, with the 95 % interval of the paired
        difference `low` and `high`; `p` (McNemar); `n`; `area`, the share of the picture that was hidden.
    """
    whole = run.predict(images, "plain").argmax(1)
    rows = {}
    for name, box in bar(regions.items(), "hiding parts"):
        test = paired_test(run.predict(hide(images, box), "plain").argmax(1), whole, labels)
        area = np.zeros(images.shape[2:], bool)
        area[box] = True
        rows[name] = {
            "lost": -100 * test["difference"],
            "low": -100 * test["ci_high"],
            "high": -100 * test["ci_low"],
            "p": test["p"],
            "n": test["n"],
            "area": area.mean(),
        }
    return pd.DataFrame(rows).T.astype({"n": int}).sort_values("lost", ascending=False)
