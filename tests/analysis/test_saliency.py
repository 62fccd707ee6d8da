"""Maps lie where the evidence is, and vanish with the weights; hidden parts cost what they hold."""

import dataclasses
import sys
from importlib.util import find_spec

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import tiny_competition
from torch import nn

from fer_utils import Config, fit
from fer_utils.analysis import saliency
from fer_utils.competition import DataError
from fer_utils.demo.dataset import make_demo
from fer_utils.faces.align import N_CROPS
from fer_utils.faces.face_network import aligned
from fer_utils.learning.models import create_model

captum = pytest.mark.skipif(find_spec("captum") is None, reason="captum is not installed, as on Kaggle")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A network trained to find the bright square of each class."""
    out = str(tmp_path_factory.mktemp("saliency") / "run")
    config = Config(out=out, image_size=48, epochs=12, width=0.25, batch_size=16, device="cpu", flip=0.0,
                    precision="fp32", erase=0.0, ema_decay=0.0, views="plain")  # fmt: skip
    return fit(config, tiny_competition(size=48))


@pytest.fixture(scope="module")
def valid():
    return tiny_competition(size=48).valid


class Quarters(nn.Module):
    """Class k is the mean of the k-th quarter of the image, and of nothing else."""

    def __init__(self):
        super().__init__()
        masks = torch.zeros(4, 8, 8)
        for k in range(4):
            masks[k, 4 * (k // 2) :, 4 * (k % 2) :][:4, :4] = 1
        self.masks = nn.Parameter(masks)
        self.maps = nn.Identity()

    def forward(self, images):
        return self.maps(nn.functional.avg_pool2d(images, 6) * self.masks).mean((2, 3))


@captum
def test_maps_of_aligned_faces_lie_on_the_image_as_it_is():
    """The trees of a new network know nothing: here they take a face for half as large as the image."""
    torch.manual_seed(0)
    model = create_model("face_resnet", 4)
    model.backbone.aligner.shape.sub_(0.5).div_(2).add_(0.5)
    images = np.random.default_rng(0).integers(50, 255, (3, 1, 48, 48), dtype=np.uint8)
    with torch.no_grad():
        for layer in model.backbone.heads[-1]:  # sees the whole image
            if isinstance(layer, nn.Linear):
                layer.weight.zero_()
        aligner, batch = model.backbone.aligner, torch.tensor(images) / 255
        seen = aligner.back(torch.ones(3, 4, 48, 48), batch)[:, :-1].amax(1).numpy() > 0
    maps = saliency.grad_cam(model, images, np.arange(3))
    assert maps.shape == (3, 48, 48) and np.isfinite(maps).all() and (maps >= 0).all()
    assert 0.2 < seen.mean() < 0.99 and maps[seen].any() and not maps[~seen].any()


@captum
def test_the_maps_of_all_crops_of_a_face_are_averaged(monkeypatch):
    torch.manual_seed(0)
    model = create_model("face_resnet", 4)
    images, classes = np.random.default_rng(0).integers(0, 255, (9, 1, 48, 48), np.uint8), np.arange(9) % 4
    whole = saliency.grad_cam(model, images, classes)
    aligner, heads, placed = model.backbone.aligner, model.backbone.heads, []
    back = aligner.back
    monkeypatch.setattr(aligner, "back", lambda *given: placed.append(back(*given)) or placed[-1])
    assert np.array_equal(saliency.grad_cam(model, images, classes), whole)
    mean = placed[0].mean(1)
    assert placed[0].shape == (9, len(heads), 48, 48) and placed[0].flatten(2).any(2).any(0).sum() > 1
    assert np.allclose(whole, mean / mean.mean((1, 2), keepdim=True), atol=1e-4)


@captum
def test_the_evidence_lies_where_the_network_looks():
    images = np.random.default_rng(0).integers(50, 255, (12, 1, 48, 48), dtype=np.uint8)
    classes = np.arange(12) % 4
    maps = saliency.grad_cam(Quarters(), images, classes, batch_size=5)
    assert maps.shape == (12, 48, 48)
    assert (maps >= 0).all()
    assert np.allclose(maps.mean((1, 2)), 1, atol=1e-4)
    quarters = maps.reshape(12, 2, 24, 2, 24).mean((2, 4)).reshape(12, 4)
    assert (quarters.argmax(1) == classes).all()
    assert (quarters[range(12), classes] > 3.5).all()  # of 4, were they not smoothed at the seams


@captum
def test_shuffled_weights_change_the_maps(run, valid):
    maps = saliency.grad_cam(run.model, valid.images, valid.labels)
    check = saliency.sanity_check(run.model, valid.images, valid.labels, maps)
    assert 5 < check["n"] <= check["of"] == len(maps)
    assert check["shuffled"] < 0.5
    alone = saliency.sanity_check(run.model, valid.images[:1], valid.labels[:1], maps[:1])
    assert np.isnan(alone["others"])


def test_maps_are_trusted_as_far_as_they_were_checked():
    good = {"shuffled": -0.07, "others": 0.2, "n": 593, "of": 600}
    assert saliency.describe_sanity(good).endswith("; 593 images, 7 left out for an empty map).")
    assert saliency.describe_sanity(good | {"of": 593}).endswith("; 593 images).")
    assert saliency.describe_sanity(good).startswith("**The maps depend on the weights and on the image**")
    alike = saliency.describe_sanity(good | {"others": 0.73})
    assert "much alike for all images" in alike and "not why it errs on one image" in alike
    assert saliency.describe_sanity(good | {"shuffled": 0.9}).startswith("**Do not read these maps:**")
    for name in ("shuffled", "others"):
        assert saliency.describe_sanity(good | {name: np.nan}).startswith("**Not measurable here:**")
    assert "passed" not in "".join([alike, saliency.describe_sanity(good)])


def test_the_sentence_on_hidden_parts_names_what_is_measurable():
    columns = ["lost", "low", "high", "p"]
    rows = [(19.3, 14.8, 23.9, 1e-9), (1.7, -0.6, 4.0, 0.2), (-5.0, -8.0, -2.0, 1e-3)]
    table = pd.DataFrame(rows, ["mouth", "chin", "nose"], columns)
    text = saliency.describe_occlusion(table)
    assert text.startswith("**Points of accuracy lost without a part: mouth 19.3 (14.8 to 23.9).**")
    assert "more often right without: nose." in text and "(Holm): chin." in text
    nothing = saliency.describe_occlusion(table.assign(p=0.5))
    assert (
        "lost without a part: none, measurably.**" in nothing and "chin" in nothing.split("No measurable")[1]
    )


def test_shuffling_leaves_the_network_itself_alone(run, valid):
    before = {name: tensor.clone() for name, tensor in run.model.state_dict().items()}
    blind = saliency.shuffle_weights(run.model, valid.images)
    assert all(torch.equal(tensor, before[name]) for name, tensor in run.model.state_dict().items())
    for name, parameter in run.model.named_parameters():
        other = dict(blind.named_parameters())[name]
        assert torch.equal(parameter.flatten().sort().values, other.flatten().sort().values)
    assert not blind.training


def test_each_classifier_of_a_face_gets_statistics_of_all_images():
    torch.manual_seed(0)
    model = create_model("face_resnet", 4).eval()
    images = np.random.default_rng(0).integers(0, 255, (3, 1, 48, 48), np.uint8)
    blind, again = (saliency.shuffle_weights(model, images) for _ in range(2))
    with torch.no_grad():
        faces = aligned(blind, torch.tensor(images) / 255)
        features = blind.backbone.features((faces - blind.mean) / blind.std).unflatten(1, (N_CROPS, -1))
    for k, (head, other) in enumerate(zip(blind.backbone.heads, again.backbone.heads, strict=True)):
        assert torch.allclose(head[0].running_mean, features[:, k].mean(0), atol=1e-5)
        assert torch.equal(head[0].running_var, other[0].running_var)


@pytest.mark.parametrize("name", ["small", "medium", "vgg_bn", "resnet18"])
def test_the_last_maps_of_every_network_are_found(name):
    width = 1.0 if name == "resnet18" else 0.125
    model = create_model(name, 4, width=width).eval()
    found = saliency.last_maps(model, 48)
    shapes = []
    found.register_forward_hook(lambda _, inputs, output: shapes.append(output.shape))
    model(torch.zeros(1, 1, 48, 48))
    assert min(shapes[0][2:]) >= 3


def test_a_network_without_maps_is_refused():
    with pytest.raises(DataError, match="3 x 3"):
        saliency.last_maps(nn.Sequential(nn.Flatten(), nn.Linear(24 * 24, 4)), 24)


@pytest.mark.parametrize("name", ["timm/vit_tiny_patch16_224", "timm/swin_tiny_patch4_window7_224"])
def test_attention_is_refused(name):
    model = create_model(name, 4, image_size=224)
    with pytest.raises(DataError, match="uses attention"):
        saliency.last_maps(model, 224)


def test_without_captum_or_maps_the_reason_is_said(run, valid, monkeypatch):
    flat = dataclasses.replace(run)
    flat.__dict__["model"] = nn.Sequential(nn.Flatten(), nn.Linear(48 * 48, 4))
    if find_spec("captum"):
        maps, words = saliency.checked_maps(flat, valid.images, valid.labels)
        assert maps is None and "3 x 3" in words
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    maps, words = saliency.checked_maps(run, valid.images, valid.labels)
    assert maps is None and "pip install captum" in words


@captum
def test_no_images_have_no_maps(run, valid):
    assert saliency.grad_cam(run.model, valid.images[:0], valid.labels[:0]).shape == (0, 48, 48)


def test_the_parts_of_drawn_faces_lie_in_order():
    images = make_demo(300, 10, 10).train.images
    regions = saliency.face_regions(images)
    assert list(regions) == ["forehead", "brows", "eyes", "nose", "mouth", "chin"]
    tops = [rows.start for rows, _ in regions.values()]
    assert tops == sorted(tops)
    eyes, mouth = regions["eyes"][0], regions["mouth"][0]
    assert eyes.start <= 22 < eyes.stop  # they are drawn at 0.46 of the height, the mouth at 0.75
    assert mouth.start <= 36 < mouth.stop


def test_hiding_replaces_the_box_by_its_mean_alone():
    images = np.random.default_rng(0).integers(0, 255, (3, 1, 16, 16), dtype=np.uint8)
    box = (slice(4, 8), slice(2, 10))
    hidden = saliency.hide(images, box)
    inside = np.zeros((16, 16), bool)
    inside[box] = True
    assert (hidden[..., ~inside] == images[..., ~inside]).all()
    assert np.abs(hidden[:, 0][:, inside].mean(1) - images[:, 0][:, inside].mean(1)).max() <= 0.5
    assert (np.ptp(hidden[:, 0][:, inside], axis=1) == 0).all()


def test_hiding_what_tells_the_class_costs_accuracy(run, valid):
    """All squares, or a corner that holds none."""
    boxes = {"all": (slice(0, 48), slice(0, 48)), "corner": (slice(40, 48), slice(0, 8))}
    table = saliency.occlusion_table(run, valid.images, valid.labels, boxes)
    assert table.index[0] == "all"
    assert table.lost["all"] == pytest.approx(75)
    assert table.low["all"] > 0
    assert abs(table.lost["corner"]) <= 10
