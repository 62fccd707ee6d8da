"""Colour from the files to the prediction: looked for, kept or turned to grey as a person says."""

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
from competitions import face, save
from PIL import Image

from fer_utils import Config, fit, load_run
from fer_utils.analysis.audit import audit, image_table
from fer_utils.analysis.audit_summary import light_findings
from fer_utils.analysis.near_copies import near_copies
from fer_utils.config import ConfigError
from fer_utils.data.decode_images import coloured, open_image, resize, with_channels
from fer_utils.data.load import load_competition
from fer_utils.demo.dataset import make_demo
from fer_utils.figures.faces import face_grid
from fer_utils.learning.models import MODELS, create_model, model_cost

WORDS = ("happy", "sad", "fear")
# As bright as grey, whatever is added: 0.299, 0.587 and 0.114 of them sum to 0.
HUES = np.array([[40, -20.4, 0], [-40, 20.4, 0], [0, -13, 67]])


def hue_face(label, number, size=48):
    """A grey face of random brightness in the colour of its class."""
    grey = face(4, number, size).astype(float) + np.random.default_rng(number).integers(-30, 30)
    return (grey[..., None] + HUES[label]).clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def hues(tmp_path_factory):
    """Three classes that differ in hue alone."""
    root = tmp_path_factory.mktemp("hues")
    for k in range(240):
        path = root / WORDS[k % 3] / f"{k}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(hue_face(k % 3, k)).save(path)
    return root


def test_colours_are_learned_and_grey_is_at_chance(hues, tmp_path):
    tiny = {
        "epochs": 3,
        "width": 0.125,
        "batch_size": 16,
        "precision": "fp32",
        "device": "cpu",
        "views": "plain",
    }
    accuracy = {}
    for color in ("auto", "grey"):
        competition = load_competition(hues, color=color)
        run = fit(Config(out=str(tmp_path / color), color=color, image_size=48, **tiny), competition)
        accuracy[color] = run.metrics["valid"]["plain"]["accuracy"]
        assert run.channels == competition.channels == (3 if color == "auto" else 1)
        # A network predicts images of either kind.
        images = np.stack([hue_face(k % 3, k) for k in range(6)]).transpose(0, 3, 1, 2)
        loaded = load_run(run.out)
        assert loaded.predict(images).shape == loaded.predict(images[:, :1]).shape == (6, 3)
    assert accuracy["auto"] == 1 and accuracy["grey"] < 0.6


def test_the_audit_says_that_colour_tells_the_classes_apart(hues):
    colour, grey = (load_competition(hues, color=color) for color in ("auto", "grey"))
    said, without = (light_findings(audit(data, image_table(data)))[1] for data in (colour, grey))
    assert "ness alone separates" in said and "more `hue` in augmentation weakens it" in said
    assert (
        "redness" not in image_table(grey) and "hue" not in light_findings(audit(grey, image_table(grey)))[1]
    )
    assert near_copies(colour, image_table(colour)).empty


@pytest.mark.parametrize("share, channels", [(0, 1), (0.03, 1), (0.2, 3)])
def test_more_than_one_image_in_twenty_with_colours_makes_them_count(tmp_path, share, channels):
    for k in range(200):
        path = tmp_path / WORDS[k % 3] / f"{k}.jpg"
        path.parent.mkdir(exist_ok=True)
        if k < 200 * share:
            Image.fromarray(hue_face(k % 3, k)).save(path)
        else:  # grey, in three channels
            save(path, k % 3, k, mode="RGB")
    competition = load_competition(tmp_path)
    assert competition.channels == channels
    assert ("in colour: 20 % of the images looked at" in competition.summary()) == (channels == 3)
    assert load_competition(tmp_path, color="rgb").channels == 3
    with pytest.raises(ConfigError, match="color must be one of .* got 'gray': did you mean 'grey'"):
        load_competition(tmp_path, color="gray")


@pytest.mark.parametrize("form", ["pixel strings", "NHWC", "NCHW", "files"])
def test_every_reader_keeps_the_colours(tmp_path, form):
    pictures = np.stack([hue_face(k % 3, k) for k in range(60)])
    words = [WORDS[k % 3] for k in range(60)]
    if form == "pixel strings":
        lines = [f"{word},{' '.join(map(str, p.ravel()))}" for word, p in zip(words, pictures, strict=True)]
        (tmp_path / "train.csv").write_text("\n".join(["label,pixels", *lines]))
    elif form == "files":
        for k, (word, picture) in enumerate(zip(words, pictures, strict=True)):
            (tmp_path / word).mkdir(exist_ok=True)
            Image.fromarray(picture).save(tmp_path / word / f"{k}.png")
    else:
        images = pictures if form == "NHWC" else pictures.transpose(0, 3, 1, 2)
        np.savez(tmp_path / "train.npz", images=images, labels=words)
    competition = load_competition(tmp_path)
    known = {
        picture.transpose(2, 0, 1).tobytes(): word for picture, word in zip(pictures, words, strict=True)
    }
    for split in (competition.train, competition.valid):
        told = [competition.class_names[label] for label in split.labels]
        assert [known[image.tobytes()] for image in split.images] == told
    grey = load_competition(tmp_path, color="grey")
    assert np.array_equal(grey.train.images, with_channels(competition.train.images, 1))


def test_channels_are_added_and_taken():
    grey = np.random.default_rng(0).integers(0, 256, (3, 1, 20, 20), dtype=np.uint8)
    colour = with_channels(grey, 3)
    assert colour.shape == (3, 3, 20, 20) and not coloured(colour).any()
    assert np.array_equal(with_channels(colour, 1), grey) and with_channels(grey, 1) is grey
    assert np.array_equal(resize(colour, 10)[:, :1], resize(grey, 10))
    whole = np.array([hue_face(0, 1).transpose(2, 0, 1)])
    pillow = np.asarray(Image.fromarray(whole[0].transpose(1, 2, 0)).convert("L"))
    assert np.abs(with_channels(whole, 1)[0, 0].astype(int) - pillow).max() <= 1


@pytest.mark.parametrize("name", [*MODELS, "timm/test_resnet.r160_in1k"])
def test_networks_take_three_channels(name):
    width = {} if name in ("resnet18", "face_resnet") or name.startswith("timm") else {"width": 0.125}
    model = create_model(name, 7, channels=3, **width)
    assert model_cost(model, 48)[0] > model_cost(create_model(name, 7, **width), 48)[0]


def test_the_demo_in_colour_is_as_bright_and_keeps_its_copies():
    grey, colour = (make_demo(600, 60, 20, color=color) for color in (False, True))
    assert colour.channels == 3 and coloured(colour.train.images).mean() > 0.9
    gap = with_channels(colour.train.images, 1).astype(int) - grey.train.images
    assert np.abs(gap).mean() < 12
    tables = [image_table(competition) for competition in (grey, colour)]
    assert (tables[0].group == tables[1].group).all()


def test_faces_are_drawn_in_their_colours():
    ax = plt.figure().subplots()
    images = np.stack([hue_face(k % 3, k) for k in range(3)]).transpose(0, 3, 1, 2)
    drawn = np.asarray(face_grid(images, ax, columns=2).images[0].get_array())
    assert np.allclose(255 * drawn[:48, :48, :3], images[0].transpose(1, 2, 0))
    assert (drawn[:48, :48, 3] == 1).all() and (drawn[-48:, -48:, 3] == 0).all()  # no fourth image
    plt.close("all")


@pytest.mark.parametrize("turn", range(1, 9))
def test_photos_are_seen_upright(tmp_path, turn):
    """Phones save them as the camera was held, and say so in the file."""
    upright = Image.fromarray((np.arange(48 * 32) % 251).astype(np.uint8).reshape(48, 32))
    upright.save(tmp_path / "plain.png")
    ways = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # Pillow's numbers of the inverse transforms
    stored = upright.transpose(Image.Transpose(ways[turn])) if turn > 1 else upright
    exif = Image.Exif()
    exif[274] = turn
    stored.save(tmp_path / "turned.png", exif=exif)
    pixels = [np.asarray(open_image(tmp_path / name, 1)[0]) for name in ("plain.png", "turned.png")]
    assert np.array_equal(*pixels)
