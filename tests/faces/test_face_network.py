"""dlib's face network: its published file is read as dlib meant it, and a broken one is refused."""

import dataclasses

import numpy as np
import pytest
import torch
from safetensors.torch import save
from torch.nn import functional as F

from fer_utils.analysis.saliency import crop_classifiers
from fer_utils.config import Config, ConfigError
from fer_utils.faces import align
from fer_utils.faces.align import N_CROPS
from fer_utils.faces.face_network import MEAN, SIZE, STD, FaceBlock, aligned
from fer_utils.learning import augment as learning_augment
from fer_utils.learning import predict, training_loop
from fer_utils.learning.augment import at_once, to_float
from fer_utils.learning.models import check_start_size, create_model
from fer_utils.learning.optim import make_optimizer, train_classifier_only
from fer_utils.learning.pretrained import load_weights, start_weights
from fer_utils.run.time_and_memory import OutOfTime
from fer_utils.run.train import fit
from tests.faces.test_align import number, write_trees


def layer(name, values):
    """A layer of dlib's file: its name, version 2 and the sizes of its tensor, its float32, and more."""
    before = number(len(name)) + name.encode() + number(2) + number(len(values)) + 3 * number(1)
    return before + values.astype("<f4").tobytes() + b"\x01\x02"


def write_dlib(path, drop=0):
    """A file with random numbers for all layers of the network but the last `drop`."""
    rng = np.random.default_rng(0)
    shapes, inputs = [(32, 3, 7)], 32
    for n, blocks in ((32, 3), (64, 4), (128, 3), (256, 3), (256, 1)):
        for _ in range(blocks):
            shapes += [(n, inputs, 3), (n, n, 3)]
            inputs = n
    layers = []
    for n, inputs, size in shapes:
        spread = np.sqrt(1 / (inputs * size**2))
        kernel = np.append(rng.normal(0, spread, n * inputs * size**2), rng.normal(0, 0.1, n))
        layers.append(("con_4", kernel))
        layers.append(("affine_", np.append(rng.normal(1, 0.1, n), rng.normal(0, 0.1, n))))
    content = b"".join(layer(*each) for each in layers[: len(layers) - drop])
    path.write_bytes(b"\x01\x01\x01\x0dloss_metric_2" + content)
    return layers


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """Both files, with few trees."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"STAGES": 2, "TREES": 3, "SPLITS": 3, "PIXELS": 6}.items():
            patch.setattr(align, name, value)
        path = tmp_path_factory.mktemp("dlib") / "dlib_face.dat"
        write_trees(path.with_name(align.LANDMARKS), patch)
        yield path, write_dlib(path)


def test_the_first_layers_compute_what_dlib_does(published):
    path, layers = published
    model = create_model("face_resnet", 7, channels=3)
    loaded = load_weights(model, path)
    assert loaded.file == "dlib_face.dat" and "by name" in loaded.report
    images = torch.rand(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    (kernel, bias), (scale, shift) = (np.split(values, [len(values) - 32]) for _, values in layers[:2])
    # dlib: the bytes less its constants, by 256; a convolution with its bias; then a scale and a shift
    pixels = (255 * images - torch.tensor([122.782, 117.001, 104.298])[:, None, None]) / 256
    maps = F.conv2d(pixels, *(torch.tensor(v).float() for v in (kernel.reshape(32, 3, 7, 7), bias)), stride=2)
    maps = maps * torch.tensor(scale).float()[:, None, None] + torch.tensor(shift).float()[:, None, None]
    backbone = model.eval().backbone
    with torch.no_grad():
        own = backbone.stem((images - model.mean[:3]) / model.std[:3])
    assert torch.allclose(own, maps, atol=1e-4)


@pytest.mark.parametrize(("size", "residual"), [(17, 8), (8, 3)])  # here one more than there behind the pool
def test_a_block_that_halves_adds_what_fits_as_dlib_does(size, residual):
    torch.manual_seed(0)
    block, maps = FaceBlock(32, 64, True), torch.rand(2, 32, size, size)
    inner = F.relu(F.conv2d(maps, block.conv1.weight, block.conv1.bias, stride=2, padding=0))
    inner = F.conv2d(inner, block.conv2.weight, block.conv2.bias, padding=1)
    shortcut = F.avg_pool2d(maps, 2)
    expected = torch.zeros(2, 64, size // 2, size // 2)
    expected[:, :, :residual, :residual] += inner
    expected[:, :32] += shortcut
    assert inner.shape[2:] == (residual, residual) and torch.allclose(
        block(maps), F.relu(expected), atol=1e-5
    )
    same = FaceBlock(32, 32, False)
    inner = F.conv2d(maps, same.conv1.weight, same.conv1.bias, padding=1)
    inner = F.conv2d(F.relu(inner), same.conv2.weight, same.conv2.bias, padding=1)
    assert torch.allclose(same(maps), F.relu(inner + maps), atol=1e-5)


def test_every_layer_of_the_file_has_its_place(published):
    path, layers = published
    model = create_model("face_resnet", 7)
    load_weights(model, path)
    state, values = model.backbone.state_dict(), dict(enumerate(v for _, v in layers))
    convs = [name for name in state if name.endswith(("conv1.weight", "conv2.weight"))]
    for k, name in enumerate(convs, 1):  # the stem comes before
        kernel, outputs = values[2 * k], len(state[name])
        scale, shift = np.split(values[2 * k + 1], 2)
        scaled = kernel[:-outputs].reshape(outputs, -1) * scale[:, None]
        assert np.allclose(state[name].flatten(1), scaled, atol=1e-6), name
        bias = state[name.replace("weight", "bias")]
        assert np.allclose(bias, kernel[-outputs:] * scale + shift, atol=1e-6), name
    assert len(convs) == 28


def test_grey_images_are_answered_as_colour_images_that_are_grey(published):
    path, _ = published
    grey, colour = (create_model("face_resnet", 7, channels=n).eval() for n in (1, 3))
    load_weights(grey, path), load_weights(colour, path)
    images = torch.rand(2, 1, 48, 48)
    mean = sum(MEAN) / 3
    colour.mean, colour.std = torch.full((3 * N_CROPS, 1, 1), mean), torch.full((3 * N_CROPS, 1, 1), STD[0])
    give_answers(colour)
    grey.backbone.heads.load_state_dict(colour.backbone.heads.state_dict())
    with torch.no_grad():
        faces = aligned(grey, images)
        in_colour = faces.repeat_interleave(3, 1)
        answers = grey(faces)
        assert answers.any() and torch.allclose(answers, colour(in_colour), atol=1e-4)
        assert torch.allclose(aligned(colour, images.expand(-1, 3, -1, -1)), in_colour, atol=1e-4)


def give_answers(model):
    """Classifiers with loaded weights are zero in the end."""
    torch.manual_seed(0)
    for head in model.backbone.heads:
        torch.nn.init.normal_(head[-1].weight, 0, 0.01)


def test_every_crop_has_a_classifier_of_its_own_and_they_are_averaged(published):
    model = create_model("face_resnet", 7).eval()
    load_weights(model, published[0])
    assert not model(torch.rand(1, N_CROPS * 5632)).any()
    give_answers(model)
    with torch.no_grad():
        faces = aligned(model, torch.rand(3, 1, 48, 48))
        answers = torch.stack([one(faces) for one in crop_classifiers(model)])
        assert torch.allclose(model(faces), answers.mean(0), atol=1e-5)
        changed = faces.clone()
        changed[:, 1] = torch.rand(3, SIZE, SIZE)
        others = torch.stack([one(changed) for one in crop_classifiers(model)])
        same = [torch.equal(*pair) for pair in zip(answers, others, strict=True)]
    assert same == [k != 1 for k in range(N_CROPS)]


def test_each_image_teaches_the_classifier_of_one_crop_by_its_features_of_that():
    model = create_model("face_resnet", 7, dropout=0.0)
    features = torch.rand(11, N_CROPS * 5632)
    answers = model(features)
    for k, head in enumerate(model.backbone.heads):
        part = features[k::N_CROPS, 5632 * k : 5632 * (k + 1)]
        assert torch.allclose(answers[k::N_CROPS], head(part), atol=1e-6)
        answers[k].sum().backward(retain_graph=True)
        taught = [bool(other[-1].weight.grad.any()) for other in model.backbone.heads]
        assert taught == [other == k for other in range(N_CROPS)]
        model.zero_grad()


@pytest.mark.parametrize("drop", [1, 50])
def test_a_file_without_all_layers_is_refused(tmp_path, drop):
    write_dlib(tmp_path / "short.dat", drop)
    with pytest.raises(ConfigError, match=r"short\.dat has \d+ layers .* needs dlib_face_recognition"):
        load_weights(create_model("face_resnet", 7), tmp_path / "short.dat")


@pytest.mark.parametrize("cut", [100, 514 * 4, 514 * 4 + 5])  # within the last tensor, and where it begins
def test_a_file_cut_within_a_layer_is_refused(tmp_path, cut):
    write_dlib(tmp_path / "cut.dat")
    content = (tmp_path / "cut.dat").read_bytes()
    (tmp_path / "cut.dat").write_bytes(content[:-cut])
    with pytest.raises(ConfigError, match=r"cut\.dat .* cut off"):
        load_weights(create_model("face_resnet", 7), tmp_path / "cut.dat")


def test_without_its_weights_it_is_refused():
    with pytest.raises(ConfigError, match="face_resnet starts from published ones: set weights to dlib_face"):
        start_weights(create_model("face_resnet", 7), "none")
    assert start_weights(create_model("small", 7, width=0.25), "none") is None


def test_another_network_refuses_the_file(published):
    with pytest.raises(ConfigError, match="dlib_face.dat is in dlib's format, which is for .* face_resnet"):
        load_weights(create_model("small", 7, width=0.25), published[0])


def test_a_file_with_other_than_numbers_is_refused(published, tmp_path):
    content = bytearray(published[0].read_bytes())
    content[200_000:200_400] = b"\xff" * 400
    (tmp_path / "BAD.DAT").write_bytes(content)
    with pytest.raises(ConfigError, match=r"BAD\.DAT is damaged: not all of its numbers are finite"):
        load_weights(create_model("face_resnet", 7), tmp_path / "BAD.DAT")


def test_too_few_images_to_learn_from_are_refused():
    model = create_model("face_resnet", 7).train()
    with pytest.raises(ConfigError, match=r"batch_size: face_resnet learns from at least 8 images .* from 7"):
        model(torch.rand(7, N_CROPS * 5632))
    assert model(torch.rand(8, N_CROPS * 5632)).shape == (8, 7)
    assert model.eval()(torch.rand(1, N_CROPS * 5632)).shape == (1, 7)


def test_weights_of_before_there_were_crops_are_refused(published, tmp_path):
    model = create_model("face_resnet", 7)
    load_weights(model, published[0])
    state = {name: t.contiguous() for name, t in model.state_dict().items() if ".heads." not in name}
    (tmp_path / "model.safetensors").write_bytes(save(state))
    with pytest.raises(ConfigError, match=r"one crop of a face was looked at: start from dlib_face_rec"):
        load_weights(model, tmp_path / "model.safetensors")
    state = {name: t.contiguous() for name, t in create_model("small", 7).state_dict().items()}
    (tmp_path / "model.safetensors").write_bytes(save(state))
    with pytest.raises(ConfigError, match="belongs to another one"):  # and not that it is an old one
        load_weights(model, tmp_path / "model.safetensors")


def test_small_images_first_are_refused():
    config = Config.from_dict({"preset": "faces", "start_size": 28}).at_size(48)
    with pytest.raises(ConfigError, match="start_size must be 0 for face_resnet"):
        check_start_size(create_model("face_resnet", 7), config, 1)


@pytest.mark.parametrize("start_size", [0, 64])  # one that is no smaller than the images is off, too
def test_layers_that_learn_see_aligned_images_turned_at_random(published, tiny, monkeypatch, start_size):
    seen, learned = [], []
    values = {"preset": "faces", "weights": str(published[0]), "head_epochs": 1, "device": "cpu"}
    values |= {"start_size": start_size, "epochs": 2, "batch_size": 20, "precision": "fp32"}
    config = Config.from_dict(values)
    learner = training_loop.Learner(config, tiny, torch.device("cpu"))
    monkeypatch.setattr(training_loop, "augment", lambda images, *_: seen.append(images) or images.flip(-1))
    forward = learner.forward
    learner.forward = lambda images: learned.append(images) or forward(images)
    images = training_loop.place(tiny.train.images[:20], learner.device)
    training_loop.train_epoch(learner, images, torch.tensor(tiny.train.labels[:20]), 1)
    rows = training_loop.batches(20, learner.config, 1)[0]
    faces = aligned(learner.model, to_float(images[rows]))
    assert torch.equal(seen[0], faces) and torch.equal(learned[0], faces.flip(-1))


def test_the_head_learns_first():
    model = create_model("face_resnet", 7)
    train_classifier_only(model, True)
    learning = {name for name, p in model.named_parameters() if p.requires_grad}
    assert learning and all(name.startswith("backbone.heads.") for name in learning)
    assert len(learning) == 4 * N_CROPS
    train_classifier_only(model, False)
    assert all(p.requires_grad for p in model.parameters())


def test_layers_near_the_images_move_least():
    model = create_model("face_resnet", 7)
    config = Config(model="face_resnet", optimizer="adamw", learning_rate=1e-3, layer_decay=0.5)
    groups = make_optimizer(model, config).param_groups
    scale = {id(p): group["lr_scale"] for group in groups for p in group["params"]}
    stem, first, last = (
        scale[id(model.get_parameter(f"backbone.{name}.weight"))]
        for name in ("stem", "blocks.0.conv1", "blocks.13.conv2")
    )
    assert stem < first < last < scale[id(model.backbone.heads[3][2].weight)] == 1


def test_a_cpu_computes_few_images_at_once():
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    each_core = at_once(10**6, cpu) // torch.get_num_threads()
    assert at_once(512, gpu) == 512 and at_once(3, cpu) == 3 and 16 <= each_core <= 128


def test_features_computed_once_are_those_of_the_images(published, monkeypatch):
    path, _ = published
    images = torch.randint(
        0, 256, (6, 1, 48, 48), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    model = create_model("face_resnet", 7)
    load_weights(model, path)
    monkeypatch.setattr(predict, "IMAGES_TOGETHER", 4)
    mirrored = Config.from_dict({"preset": "faces", "rotate": 0.0, "scale": 0.0, "shift": 0.0})
    given = torch.float32, images.numpy()
    train, _ = predict.fixed_features(model, mirrored, *given)
    valid = predict.features_of(model, *given)
    assert train.shape == (6, 2, N_CROPS * 5632) and valid.shape == (6, N_CROPS * 5632)
    assert train.dtype == np.float16
    model.eval()
    give_answers(model)
    with torch.no_grad():
        faces = aligned(model, to_float(images))
        for features, seen in ((train[:, 0], faces), (train[:, 1], faces.flip(-1)), (valid, faces)):
            answers, expected = model(torch.from_numpy(features).float()), model(seen)
            assert torch.allclose(answers, expected, atol=0.02 * expected.abs().max())
        views = predict.view_probs(model, images.numpy(), "mirror")
        expected = np.stack([model(seen).softmax(1).numpy() for seen in (faces, faces.flip(-1))])
        assert np.allclose(views, expected, atol=1e-5)
    with monkeypatch.context() as patch:
        patch.setattr(learning_augment, "IMAGES_OF_A_CORE", 1)  # one by one
        assert np.allclose(predict.features_of(model, *given), valid, rtol=1e-3, atol=1e-3)
        assert np.allclose(predict.view_probs(model, images.numpy(), "mirror"), views, atol=1e-5)
    warped, _ = predict.fixed_features(model, dataclasses.replace(mirrored, rotate=10.0), *given)
    assert np.array_equal(warped[:, 0], train[:, 0])
    assert (warped[:, 1] != train[:, 1]).any()
    turned, _ = predict.fixed_features(model, dataclasses.replace(mirrored, flip=0.0, rotate=10.0), *given)
    assert (turned[:, 1] != warped[:, 1]).any() and (turned[:, 1] != train[:, 0]).any()
    as_they_are, _ = predict.fixed_features(model, dataclasses.replace(mirrored, flip=0.0), *given)
    assert as_they_are.shape == (6, 1, N_CROPS * 5632) and np.array_equal(as_they_are[:, 0], train[:, 0])


def test_features_are_kept_for_the_same_network_images_and_augmentation(published, monkeypatch, tmp_path):
    monkeypatch.setenv("FER_CACHE", str(tmp_path / "cache"))
    computed = []
    monkeypatch.setattr(
        predict, "_compute", lambda *given: computed.append(given) or np.zeros((2, 1, 3), np.float16)
    )
    images, model, config = np.zeros((2, 1, 48, 48), np.uint8), create_model("face_resnet", 7), Config()

    def computes(dtype=torch.float32):
        before = len(computed)
        features, seconds = predict.fixed_features(model, config, dtype, images)
        assert features.shape == (2, 1, 3) and seconds >= 0
        return len(computed) - before

    assert computes() == 1 and computes() == 0
    with torch.no_grad():
        model.backbone.heads[1][2].weight.add_(1)  # another seed
    config = dataclasses.replace(config, learning_rate=0.01)
    assert computes() == 0
    with torch.no_grad():
        model.backbone.blocks[3].conv2.bias[0] += 1
    assert computes() == 1
    images[1, 0, 5, 5] = 1
    assert computes() == 1
    config = dataclasses.replace(config, rotate=11.0)
    assert computes() == 1 and computes(torch.bfloat16) == 1 and computes() == 0


def test_only_a_classifier_on_whole_images_of_one_size_learns_from_features(published):
    model = create_model("face_resnet", 7)
    config = Config.from_dict({"preset": "faces"})
    assert predict.has_fixed_features(config, model)
    assert not predict.has_fixed_features(config, create_model("small", 7, width=0.25))
    for change in ({"mixup": 0.2}, {"cutmix": 1.0}, {"start_size": 28}, {"head_epochs": config.epochs - 1}):
        assert not predict.has_fixed_features(dataclasses.replace(config, **change), model)


def test_every_epoch_draws_a_variant_of_each_image():
    config, order = Config(), torch.tensor([[2, 0], [1, 3]])
    features = torch.arange(4 * 6).view(4, 6, 1)  # of image n: 6n to 6n + 5
    seen = []
    for epoch in range(40):
        found, rows = training_loop._rows(features, order, config, epoch, 0)
        assert torch.equal(found[rows].squeeze(2) // 6, order)
        assert torch.equal(training_loop._rows(features, order, config, epoch, 1)[1], rows[1:])
        seen.append(rows % 6)
    assert all(set(column.tolist()) == set(range(6)) for column in torch.stack(seen).flatten(1).T)


@pytest.mark.once
def test_a_run_on_features_resumes_to_the_same_weights_and_predicts_from_images(
    published, tiny, tmp_path, monkeypatch
):
    path, _ = published
    few = {split: getattr(tiny, split).take(np.arange(n)) for split, n in (("train", 16), ("valid", 8))}
    tiny = dataclasses.replace(tiny, **few)
    values = dict(preset="faces", weights=str(path), epochs=2, batch_size=8, device="cpu", precision="fp32")
    config = Config.from_dict(values | {"out": str(tmp_path / "whole")})
    seen, train_epoch = [], training_loop.train_epoch
    monkeypatch.setattr(
        "fer_utils.run.train.train_epoch",
        lambda learner, images, *more: seen.append(images) or train_epoch(learner, images, *more),
    )
    run = fit(config, tiny)
    assert [images.shape for images in seen] == [(16, 2, N_CROPS * 5632)] * 2
    assert seen[0].dtype == torch.float16
    assert run.metrics["training"]["seconds"] > 0.5  # the features count
    stopped = dataclasses.replace(config, out=str(tmp_path / "stopped"), checkpoint_seconds=0.0)
    validate = training_loop.validate

    def stop(learner, *given):
        if learner.epoch == 1:
            raise KeyboardInterrupt
        return validate(learner, *given)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("fer_utils.run.train.validate", stop)
        fit(stopped, tiny)
    assert fit(stopped, tiny).folder.weights.read_bytes() == run.folder.weights.read_bytes()
    with pytest.raises(OutOfTime, match=r"max_hours .* ended after epoch 0, too soon"):
        fit(dataclasses.replace(config, out=str(tmp_path / "short"), max_hours=1e-4), tiny)
    chosen = run.folder.history().valid_accuracy.max()  # from features; below from images
    assert run.folder.metrics()["valid"]["plain"]["accuracy"] == pytest.approx(chosen)
