"""Where a network looks: Grad-CAM with its sanity check, and the accuracy lost when a part of the face is
hidden."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.module import register_module_forward_hook
from torch.optim.swa_utils import update_bn

from fer_utils.competition import DataError
from fer_utils.faces.align import N_CROPS
from fer_utils.faces.face_network import aligned, is_face_network
from fer_utils.learning.augment import to_float
from fer_utils.learning.metrics import holm, paired_test
from fer_utils.learning.models import blank_images, normalise
from fer_utils.progress import bar
from fer_utils.run.finished_run import Run

# Rows and columns of a part of the face: rows in units of the distance between eyes and mouth, counted from
# one of them; columns as shares of the width.
_PARTS = {
    "forehead": (("eyes", -1.0, -0.42), (0.2, 0.8)),
    "brows": (("eyes", -0.42, -0.14), (0.15, 0.85)),
    "eyes": (("eyes", -0.14, 0.16), (0.15, 0.85)),
    "nose": (("eyes", 0.18, 0.7), (0.35, 0.65)),
    "mouth": (("mouth", -0.22, 0.22), (0.25, 0.75)),
    "chin": (("mouth", 0.24, 0.6), (0.25, 0.75)),
}


def last_maps(model: nn.Module, image_size: int) -> nn.Module:
    """The last module of a convolutional network whose output is a feature map [N, C, h, h] with h >= 3.

    Raises:
        DataError: the network has none, or uses attention, whose outputs only have the shape of a map.
    """
    if any("attention" in type(module).__name__.lower() for module in model.modules()):
        raise DataError("Grad-CAM is for convolutional networks, and this one uses attention")
    found: list[nn.Module] = []

    def remember(module: nn.Module, _: object, output: object) -> None:
        if isinstance(output, Tensor) and output.ndim == 4 and output.shape[2] == output.shape[3] >= 3:
            found.append(module)

    with register_module_forward_hook(remember), torch.no_grad():
        model(blank_images(model, 1, image_size))
    if not found:
        raise DataError("Grad-CAM needs a network with feature maps of at least 3 x 3 positions")
    return found[-1]


def grad_cam(model: nn.Module, images: np.ndarray, classes: np.ndarray, batch_size: int = 256) -> np.ndarray:
    """Which parts of uint8 [N, C, H, W] support the classes int64 [N] (Grad-CAM, Selvaraju et al. 2017).

    Returns:
        float32 [N, H, W], not negative; each map has a mean of 1, or is 0 where nothing supports the class.

    Raises:
        DataError: the network has no convolutional maps.
    """
    from captum.attr import LayerGradCam

    device, layer = next(model.parameters()).device, last_maps(model.eval(), images.shape[-1])
    parts = crop_classifiers(model) if is_face_network(model) else [model]
    explainers = [LayerGradCam(part, layer) for part in parts]
    found = np.zeros((len(images), *images.shape[2:]), np.float32)
    for start in range(0, len(images), batch_size):
        rows = slice(start, start + batch_size)
        batch = to_float(torch.tensor(images[rows]).to(device))
        seen, targets = aligned(model, batch).requires_grad_(), torch.tensor(classes[rows]).to(device)
        maps = [each.attribute(seen, targets, relu_attributions=True).detach() for each in explainers]
        maps = F.interpolate(torch.cat(maps, 1), images.shape[2:], mode="bilinear")
        maps = (maps if seen is batch else model.backbone.aligner.back(maps, batch)).mean(1)
        found[rows] = (maps / maps.mean((1, 2), keepdim=True).clamp(min=1e-12)).cpu()
    return found


def crop_classifiers(model: nn.Module) -> list[Callable[[Tensor], Tensor]]:
    """For each crop of a face the logits of its classifier alone, from `aligned` images."""

    def logits(k: int, images: Tensor) -> Tensor:
        crops = normalise(images, model.mean, model.std).chunk(N_CROPS, 1)
        return model.backbone.answer(k, crops[k])

    return [partial(logits, k) for k in range(N_CROPS)]


def shuffle_weights(model: nn.Module, images: np.ndarray) -> nn.Module:
    """A copy of the network with the values of each parameter tensor permuted, and with the statistics of its
    batch norms computed again on `images` uint8 [N, C, H, W], so that activations keep their usual size."""
    generator = torch.Generator().manual_seed(0)
    model = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in model.parameters():
            order = torch.randperm(parameter.numel(), generator=generator).to(parameter.device)
            parameter.copy_(parameter.flatten()[order].view_as(parameter))
    batch = aligned(model, to_float(torch.tensor(images).to(next(model.parameters()).device)))
    if not is_face_network(model):
        update_bn([batch], model)
        return model.eval()
    with torch.no_grad():
        features = model.backbone.features(normalise(batch, model.mean, model.std))
    for head, part in zip(model.backbone.heads, features.chunk(N_CROPS, 1), strict=True):
        update_bn([part], head)
    return model.eval()


def sanity_check(
    model: nn.Module, images: np.ndarray, classes: np.ndarray, maps: np.ndarray
) -> dict[str, float]:
    """Whether the `maps` of `grad_cam` depend on the weights (Adebayo et al. 2018). The check is necessary,
    not sufficient: an untrained network passes too.

    Returns:
        Mean rank correlations of a map: `shuffled`, with that of the network with shuffled weights; `others`,
        with that of another image, which is high if all faces are in the middle. `n` of `of` images;
        those with an empty map among these maps are left out.
    """
    from scipy.stats import spearmanr

    shuffled, others = grad_cam(shuffle_weights(model, images), images, classes), np.roll(maps, 1, axis=0)
    rows = np.flatnonzero(np.all([part.any((1, 2)) for part in (maps, shuffled, others)], axis=0))
    check: dict[str, float] = {"n": len(rows), "of": len(maps)}
    for name, part in (("shuffled", shuffled), ("others", others)):
        # With one image there is no other.
        some = rows if name == "shuffled" or len(maps) > 1 else rows[:0]
        values = [spearmanr(maps[i].ravel(), part[i].ravel()).statistic for i in some]
        check[name] = float(pd.Series(values, dtype=float).mean())  # nan without any
    return check


def describe_sanity(check: dict[str, float]) -> str:
    """What the maps may be used for, by `sanity_check`, in words."""
    shuffled, others = check["shuffled"], check["others"]
    if np.isnan(shuffled) or np.isnan(others):
        return "**Not measurable here:** too few images have a map that is not empty."
    empty = check["of"] - check["n"]
    left_out = f", {empty} left out for an empty map" * (empty > 0)
    words = "**The maps depend on the weights and on the image**"
    if shuffled >= 0.5:
        words = "**Do not read these maps:** they hardly depend on the weights"
    elif others >= 0.5:
        words = "**The maps depend on the weights, but they are much alike for all images:** they show "
        words += "where the network looks in general, not why it errs on one image"
    return (
        f"{words} (mean rank correlation {shuffled:.2f} with the map of shuffled weights, {others:.2f} with "
        f"the map of another image; {check['n']} images{left_out})."
    )


def checked_maps(run: Run, images: np.ndarray, classes: np.ndarray) -> tuple[np.ndarray | None, str]:
    """The maps of `grad_cam`, and in words what they may be used for; None and why, if there are none."""
    try:
        maps = grad_cam(run.model, images, classes)
    except ModuleNotFoundError:  # as in Kaggle's image
        return None, "captum is not installed: Grad-CAM is left out (pip install captum)"
    except DataError as error:
        return None, f"Grad-CAM is left out: {error}"
    return maps, describe_sanity(sanity_check(run.model, images, classes, maps))


def face_regions(images: np.ndarray) -> dict[str, tuple[slice, slice]]:
    """Boxes (rows, columns) around the parts of roughly aligned faces, uint8 [N, C, H, W].

    The eyes and the mouth are the bands of the mean face, in its upper and lower half, that are darkest
    compared with the rows around them; the other parts follow from these two.
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
    unit, boxes = line["mouth"] - line["eyes"], {}
    for name, ((anchor, *ends), columns) in _PARTS.items():
        top, bottom = (int(np.clip(round(line[anchor] + end * unit), 0, size)) for end in ends)
        if bottom > top:
            boxes[name] = (slice(top, bottom), slice(*(round(end * size) for end in columns)))
    return boxes


def hide(images: np.ndarray, box: tuple[slice, slice]) -> np.ndarray:
    """The same images with a box filled by its own mean grey level."""
    hidden = images.copy()
    part = hidden[:, :, *box]
    part[:] = part.mean((2, 3), keepdims=True).round()
    return hidden


def occlusion_table(
    run: Run, images: np.ndarray, labels: np.ndarray, regions: Mapping[str, tuple[slice, slice]]
) -> pd.DataFrame:
    """The accuracy on uint8 [N, C, H, W] with labels int64 [N] lost when one of the `face_regions` is hidden
    (occlusion, Zeiler and Fergus 2014), plain view. A network with aligned faces loses some of it because
    the points of the face are found elsewhere.

    Returns:
        A row per part, the costliest first: `lost`, points of accuracy, with the 95 % interval of the paired
        difference `low` and `high`; `p` (McNemar); `n`.
    """
    whole, rows = run.predict(images, "plain").argmax(1), {}
    for name, box in bar(regions.items(), "hiding parts"):
        test = paired_test(whole, run.predict(hide(images, box), "plain").argmax(1), labels)
        points = [100 * test[key] for key in ("difference", "ci_low", "ci_high")]
        rows[name] = (*points, test["p"], test["n"])
    table = pd.DataFrame.from_dict(rows, orient="index", columns=["lost", "low", "high", "p", "n"])
    return table.sort_values("lost", ascending=False)


def describe_occlusion(table: pd.DataFrame) -> str:
    """Which hidden parts cost accuracy, from `occlusion_table`, in words (p by Holm's correction)."""
    sure = holm(table.p.to_numpy()) < 0.05
    costs = table[sure & (table.lost > 0)].itertuples()
    lost = ", ".join(f"{row.Index} {row.lost:.1f} ({row.low:.1f} to {row.high:.1f})" for row in costs)
    helps, rest = (", ".join(table.index[rows]) for rows in (sure & (table.lost < 0), ~sure))
    text = f"**Points of accuracy lost without a part: {lost or 'none, measurably'}.**"
    if helps:
        text += f" It is more often right without: {helps}."
    if rest:
        text += f" No measurable difference after correction for several tests (Holm): {rest}."
    return text
