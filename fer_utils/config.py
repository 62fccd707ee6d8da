"""Every parameter of a run in one frozen dataclass, checked before any work is done; and the presets."""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from fer_utils.files import Explained

# Parameters of the data and its splits, of the network and of the random transforms, and those that a run
# may change when it resumes.
DATA_PARAMETERS = (
    *("image_size", "color", "aspect", "n_folds", "fold", "pool_valid"),
    *("layout", "columns", "classes", "splits", "groups", "clean", "label_fixes", "allow_rejected"),
)
NETWORK_PARAMETERS = ("width", "dropout", "drop_path", "image_size")
AUGMENTATION = (
    *("flip", "rotate", "scale", "shift", "shear"),
    *("brightness", "contrast", "hue", "saturation", "erase"),
)
COLORS, ASPECTS = ("auto", "grey", "rgb"), ("crop", "pad")
METRICS = ("accuracy", "macro_f1", "balanced_accuracy", "log_loss", "kappa")
MAY_CHANGE = ("data", "out", "device", "n_devices", "checkpoint_seconds", "max_hours", "track")
EARLIER_RUNS = ("teacher", "weights", "pseudo")  # what a run goes on from
# Parameters of committed runs that were removed since, with the values at which they did nothing.
REMOVED = {"whiten": (False,), "compile_mode": ("auto", "off")}


class ConfigError(Explained, ValueError):
    """A parameter is unknown, of the wrong type or out of range; the message names it and says what to do."""


def _parameter(
    default: Any, words: str, low: float = -math.inf, high: float = math.inf, choices: Iterable[str] = ()
) -> Any:
    """A field with its explanation, and its allowed range (both ends included) or its allowed words."""
    metadata = {"words": words, "low": low, "high": high, "choices": tuple(choices)}
    return dataclasses.field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Config:
    """The parameters of one training run, each explained here and nowhere else: the parameters cell of
    `03_training` and the error messages repeat these words. A value of the wrong type or out of range is a
    ConfigError. pydantic would replace only the loop of `__post_init__`: notebooks and others need the checks
    below too, and its messages would have to be rewritten."""

    # fmt: off
    # set these first
    data: str = _parameter("auto", 'folder, file, archive, "kaggle:competition/NAME", "demo" (drawn faces); "auto": searches')
    out: str = _parameter("outputs/run", "folder of this run; a relative path counts from the repository")
    epochs: int = _parameter(12, "passes over the training images", 1, 10_000)
    seed: int = _parameter(0, "of the initial weights, the order of the images and the augmentation", 0, 2**31)
    metric: str = _parameter("accuracy", "best epoch: accuracy, macro_f1, balanced_accuracy, log_loss, kappa, file:function")
    # machine and time
    device: str = _parameter("auto", '"cuda", "mps", "cpu" or "auto"')
    n_devices: str = _parameter("auto", 'GPUs, or processes on a CPU, that train one network together; "auto": one')
    checkpoint_seconds: float = _parameter(60.0, "time between checkpoints within long epochs; 0: after every step", 0, 1e6)
    max_hours: float = _parameter(0.0, "stop in time to write results within these hours; 0: no limit", 0, 1e4)
    track: str = _parameter("none", "none, or tensorboard: numbers, config and figures for TensorBoard too", choices=("none", "tensorboard"))
    # data
    image_size: int | str = _parameter("auto", 'height and width in pixels; "auto": near that of the images, 96 at most', 16, 512)
    color: str = _parameter("auto", 'grey, rgb, or auto: rgb where more than 5 % of the images have colours', choices=COLORS)
    aspect: str = _parameter("crop", "of images that are not square: crop keeps the middle, pad adds grey bars", choices=ASPECTS)
    split_seed: int = _parameter(0, "of the validation split, where one is made; members of an ensemble share it", 0, 2**31)
    n_folds: int = _parameter(10, "the validation split gets one part in n_folds, where one is made or pool_valid is on", 2, 100)
    fold: int = _parameter(0, "which of the n_folds parts, from 0", 0, 99)
    cv: int = _parameter(0, "trainings, each validated on another part of all labelled images; 0: one, on one split", 0, 20)
    pool_valid: bool = _parameter(False, "add the data's own validation split to the training images before splitting")
    layout: str = _parameter("auto", 'name of the layout, where several fit (README, Your own data)')
    columns: str = _parameter("auto", 'columns by role, where "auto" cannot tell (README, Your own data)')
    classes: str = _parameter("auto", 'names of the classes by ascending numbers, "angry, happy", or a file')
    splits: str = _parameter("auto", 'what divides the data, where "auto" cannot tell; "none": train on all of it')
    groups: str = _parameter("auto", 'column of the persons, who stay on one side of a split; or "none"')
    clean: bool = _parameter(False, "train without repeated, contradictory and blank images")
    label_fixes: str = _parameter("none", 'CSV with corrected training labels, as 04_error_analysis writes it; or "none"')
    allow_rejected: bool = _parameter(False, "continue although more than 1 % of the images cannot be read")
    # network
    model: str = _parameter("medium", '"small", "medium", "large", "vgg_bn", "resnet18", "face_resnet", "timm/NAME"')
    width: float = _parameter(0.5, "factor on the number of channels of small, medium, large and vgg_bn", 0.125, 8)
    dropout: float = _parameter(0.0, "share of features dropped before the classifier", 0, 0.95)
    drop_path: float = _parameter(0.0, "stochastic depth: share that skip the last block (medium, large, timm/NAME)", 0, 0.9)
    pretrained: bool = _parameter(False, "start from published weights (timm/NAME only, needs internet once)")
    weights: str = _parameter("none", 'file to start from: a path, or its name in the data attached on Kaggle; or "none"')
    # training
    batch_size: int = _parameter(256, "images per step", 2, 65_536)
    optimizer: str = _parameter("muon", "sgd (with Nesterov momentum), adamw, or muon (needs the fewest epochs)", choices=("sgd", "adamw", "muon"))
    learning_rate: float = _parameter(0.1, "peak value: about 0.1 for sgd and muon, 0.002 for adamw", 1e-8, 10)
    momentum: float = _parameter(0.9, "of sgd, and in muon of all but convolutions; beta1 of adamw", 0, 0.999)
    weight_decay: float = _parameter(5e-4, "on weights, never on norms and biases; about 0.05 for adamw", 0, 10)
    schedule: str = _parameter("onecycle", "of the learning rate after the warm-up: onecycle (linear), cosine or constant", choices=("onecycle", "cosine", "constant"))
    layer_decay: float = _parameter(1.0, "factor on the rate from a layer to the one below (timm/NAME, face_resnet); 1: off", 0.1, 1)
    head_epochs: int = _parameter(0, "first epochs, in which only the classifier learns; 10000: all", 0, 10_000)
    warmup: float = _parameter(0.2, "share of the steps in which the learning rate rises", 0, 0.9)
    start_size: int = _parameter(28, "pixels in the first epoch, growing to image_size over two thirds of the run; 0: off", 0, 512)
    label_smoothing: float = _parameter(0.1, "share of the target spread over all classes", 0, 0.9)
    soft_labels: bool = _parameter(False, "learn from the votes of several people, where the data has them (FER+)")
    teacher: str = _parameter("none", 'finished runs, separated by commas, whose predictions are learned too; "none": off')
    teacher_weight: float = _parameter(0.5, "weight of the teachers' predictions in the target; the labels have the rest", 0, 1)
    auxiliary: str = _parameter("none", 'data with other labels or votes of the same images: a second task; "none": off')
    auxiliary_weight: float = _parameter(1.0, "weight of the second task in the loss; the labels have 1", 0, 100)
    pseudo: str = _parameter("none", 'finished run or ensemble whose answers for test images are learned too; "none": off')
    pseudo_weight: float = _parameter(0.5, "weight of a test image in the loss; a training image has 1", 0, 1)
    pseudo_threshold: float = _parameter(0.5, "test images with less certain answers are left out", 0, 1)
    class_weight: float = _parameter(0.0, "0: every image counts the same; 1: every class counts the same", 0, 1)
    ema_decay: float = _parameter(0.998, "of the moving average of the weights, kept if it validates better; 0: off", 0, 0.99999)
    clip_norm: float = _parameter(0.0, "largest gradient norm; 0: no limit", 0, 1e6)
    sam: float = _parameter(0.0, "radius of sharpness-aware minimization, about 0.05 (doubles the time); 0: off", 0, 10)
    patience: int = _parameter(0, "stop after this many epochs without a better metric on validation; 0: never", 0, 10_000)
    precision: str = _parameter("auto", "fp32, bf16, fp16, or auto: the fastest that is safe on this device", choices=("auto", "fp32", "bf16", "fp16"))
    # augmentation
    flip: float = _parameter(0.5, "probability of mirroring an image", 0, 1)
    rotate: float = _parameter(10.0, "largest angle in degrees, in both directions", 0, 180)
    scale: float = _parameter(0.1, "largest change of size, as a share", 0, 0.9)
    shift: float = _parameter(0.06, "largest shift in both directions, as a share of the size", 0, 0.9)
    shear: float = _parameter(0.0, "largest angle in degrees", 0, 60)
    brightness: float = _parameter(0.0, "largest change, lighter or darker (1: from black to white)", 0, 1)
    contrast: float = _parameter(0.0, "largest change, as a share", 0, 1)
    hue: float = _parameter(0.0, "largest turn of the colours, as a share of their circle (rgb only)", 0, 0.5)
    saturation: float = _parameter(0.0, "largest change of the strength of colours, as a share (rgb only)", 0, 1)
    erase: float = _parameter(0.0, "probability of covering a rectangle of 2 to 20 % of the area", 0, 1)
    mixup: float = _parameter(0.0, "alpha of blending two images; 0: off", 0, 10)
    cutmix: float = _parameter(0.0, "alpha of pasting a box of another image; 0: off", 0, 10)
    # prediction
    views: str = _parameter("mirror", "test-time augmentation: plain, mirror (2 views), zoom (6) or shift (10)", choices=("plain", "mirror", "shift", "zoom"))
    # fmt: on

    def __post_init__(self):
        for field in dataclasses.fields(self):
            name, low, high = field.name, field.metadata["low"], field.metadata["high"]
            try:
                value = checked_value(name, getattr(self, name), type(field.default))
                if field.metadata["choices"]:
                    check_choice(name, value, field.metadata["choices"])
                if not isinstance(value, str) and not low <= value <= high:
                    raise ConfigError(f"{name} must lie between {low} and {high}, got {value}")
            except ConfigError as error:
                raise ConfigError(f"{error} ({name}: {field.metadata['words']})") from None
            object.__setattr__(self, name, value)
        if self.n_devices != "auto" and not (self.n_devices.isdecimal() and 1 <= int(self.n_devices) <= 1024):
            raise ConfigError(f"n_devices must be 'auto' or a number from 1 to 1024, got {self.n_devices!r}")
        if ":" not in self.metric:
            check_choice("metric", self.metric, [*METRICS, "file:function"])
        if isinstance(self.image_size, str) and self.image_size != "auto":
            raise ConfigError(f"image_size must be 'auto' or a whole number, got {self.image_size!r}")
        if self.cv == 1:
            raise ConfigError("cv must be 0 (one split) or at least 2 folds, got 1")
        for name in ("teacher", "pseudo"):
            if self.cv and getattr(self, name) != "none":
                problem = "must be 'none' with cv, since it has learned images that validate some folds"
                advice = f"train each fold alone (cv 0, n_folds {self.cv}, fold, pool_valid), with its {name}"
                raise ConfigError(f"{name} {problem}: {advice}")
        if self.fold >= self.n_folds:
            raise ConfigError(f"fold must be below n_folds ({self.n_folds}), got {self.fold}")
        if self.cv and (self.fold or self.n_folds != Config.n_folds):
            raise ConfigError(f"cv makes {self.cv} folds of its own: leave out n_folds and fold")
        if 0 < self.start_size < 16:  # the networks halve an image up to four times
            raise ConfigError(f"start_size must be 0 (off) or at least 16, got {self.start_size}")
        if self.layer_decay < 1 and self.optimizer == "muon":
            raise ConfigError("layer_decay must be 1 for muon, which trains from scratch: try adamw")
        if self.optimizer == "adamw" and self.learning_rate > 0.02:
            advice = "is far too high for adamw: try 0.002 (0.1 is for sgd and muon)"
            raise ConfigError(f"learning_rate {self.learning_rate} {advice}")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """A Config from names and values; the rest comes from the `preset`, if one is named, and the defaults,
        which are `quick`. An unknown name (the nearest known one is suggested) or a bad value is a
        ConfigError."""
        values = {name: value for name, value in values.items() if value not in REMOVED.get(name, ())}
        check_names(values, ["preset", *cls.__dataclass_fields__])
        preset = checked_value("preset", values.pop("preset", "quick"), str)
        if preset == "none":
            raise ConfigError("preset 'none' was removed: leave it out for the defaults, which are 'quick'")
        check_choice("preset", preset, PRESETS)
        try:
            return cls(**(PRESETS[preset] | values))
        except ConfigError as error:
            where = f"with preset {preset!r}: " if PRESETS[preset] else ""
            raise ConfigError(f"{where}{error}") from error

    @classmethod
    def from_json(cls, path: str | Path) -> Self:
        """A Config from a JSON file, for instance the `config.json` of a run (its "record" is skipped)."""
        try:
            values = json.loads(Path(path).read_text(encoding="utf-8-sig"))
        except OSError as error:
            raise ConfigError(f"{path}: cannot be read ({error.strerror})") from error
        except ValueError as error:
            raise ConfigError(f"{path}: not valid JSON ({error})") from error
        if not isinstance(values, dict):
            raise ConfigError(f"{path}: must hold one JSON object of names and values")
        values.pop("record", None)
        return cls.from_dict(values)

    def to_dict(self) -> dict[str, Any]:
        """Names and values, in the order of the class."""
        return dataclasses.asdict(self)

    def changed(self) -> dict[str, Any]:
        """Only what differs from the defaults."""
        return {name: value for name, value in self.to_dict().items() if value != getattr(Config, name)}

    def at_size(self, image_size: int) -> Self:
        """This config for images of `image_size` pixels, where "auto" is replaced by their size; a ConfigError
        if it wants another size."""
        if self.image_size not in ("auto", image_size):
            problem = f"image_size is {self.image_size}, but the images were read at {image_size} pixels"
            raise ConfigError(f"{problem}: load them with **config.data_options")
        return dataclasses.replace(self, image_size=image_size)

    def differing(self, other: Config) -> str:
        """How a run of `other` differs from one of this config, in words; empty if this one can resume it. An
        image_size of "auto" stands for any: the images have it. `auxiliary` may lie elsewhere."""
        there, now = other.to_dict(), self.to_dict()
        same = (*MAY_CHANGE, "image_size") if self.image_size == "auto" else MAY_CHANGE
        same += () if "none" in (there["auxiliary"], now["auxiliary"]) else ("auxiliary",)
        names = [name for name in now if name not in same and there[name] != now[name]]
        return "; ".join(f"{name}: {there[name]!r} there, {now[name]!r} now" for name in names)

    @property
    def warnings(self) -> list[str]:
        """What can hardly work, each with what to type instead; empty for most configs."""
        lines = []
        size = self.image_size
        if size != "auto" and self.epochs == 1 and 0 < self.start_size < size:
            lines.append(
                f"with epochs 1, start_size {self.start_size} trains on small images only and never on "
                f"{size} pixels, on which it is validated: type start_size = 0, or more epochs"
            )
        lowest, advice = (3e-4, "0.002") if self.optimizer == "adamw" else (0.005, "0.1 (0.002 is for adamw)")
        is_fine_tuning = self.pretrained or self.weights != "none"  # which takes low rates
        if self.learning_rate < lowest and not is_fine_tuning:
            lines.append(
                f"learning_rate {self.learning_rate:g} is far too low for {self.optimizer}: "
                f"type learning_rate = {advice}"
            )
        return lines

    @property
    def data_options(self) -> dict[str, Any]:
        """The arguments of `load_competition`, except `data`; with `cv` those of its first fold."""
        config = self.of_fold(0) if self.cv else self
        return {"seed": self.split_seed} | {name: getattr(config, name) for name in DATA_PARAMETERS}

    def of_fold(self, fold: int) -> Self:
        """The config of one of the `cv` trainings, in a folder of its own within `out`."""
        own = {"cv": 0, "n_folds": self.cv, "fold": fold, "pool_valid": True, "out": f"{self.out}/fold{fold}"}
        return dataclasses.replace(self, **own)

    @property
    def evaluation_batch(self) -> int:
        """Images per batch in validation and prediction, which need a quarter of a training step's memory."""
        return min(512, 4 * self.batch_size)

    @property
    def model_options(self) -> dict[str, Any]:
        """What a run's own weights need of `create_model`'s arguments; not name, classes, channels, auxiliary."""
        return {name: getattr(self, name) for name in NETWORK_PARAMETERS}


def check_names(given: Iterable[str], known: list[str]) -> None:
    """Raise a ConfigError for an unknown name, which suggests the nearest known one."""
    for name in given:
        if name in REMOVED:
            raise ConfigError(f"{name} was removed, since no measurement showed a gain: leave it out")
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
            raise ConfigError(f"unknown parameter {name!r}: {hint}")


def checked_value(name: str, value: Any, kind: type) -> Any:
    """`value` as `kind` (bool, int, float, str); an int is accepted for a float, and a count for `n_devices`.
    Another type, or a float that is not finite, is a ConfigError."""
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if name == "n_devices" and type(value) is int:  # "auto" or a number, which papermill passes as one
        value = str(value)
    if name == "image_size" and (type(value) is int or str(value).isdecimal()):  # the same, kept as a number
        return int(value)
    if type(value) is not kind:
        hint = " (papermill: pass text with -r instead of -p)" if kind is str else ""
        if isinstance(value, str) and kind in (int, float):
            hint = " (YAML reads 1e-2 as text: write 1.0e-2)"
        raise ConfigError(f"{name} must be {kind.__name__}, got {type(value).__name__} {value!r}{hint}")
    if kind is float and not math.isfinite(value):
        raise ConfigError(f"{name} must be a finite number, got {value}")
    return value


def check_choice(name: str, value: str, choices: Iterable[str]) -> None:
    """Raise a ConfigError for a value that is not one of `choices`, which suggests the nearest one."""
    if value not in choices:
        near = difflib.get_close_matches(value, choices, n=1)
        hint = f": did you mean {near[0]!r}?" if near else ""
        raise ConfigError(f"{name} must be one of {', '.join(choices)}, got {value!r}{hint}")


# The defaults are `quick`: few epochs hardly overfit and need little augmentation. Longer trainings overfit:
# decay, stronger warps and erasing. outputs/reference/README.md shows what each parameter gained.
_LONG = dict(weight_decay=0.01, rotate=16.0, scale=0.16, shift=0.1, erase=0.3, views="shift")
_GPU = {**_LONG, "model": "large", "width": 0.75, "dropout": 0.2}
_TUNED = dict(width=1.0, start_size=0, optimizer="adamw", schedule="cosine", warmup=0.1)
PRESET_WORDS = "quick, standard, best, finetune, faces; GPUs: gpu-10s to gpu-10min; what you set wins"
PRESETS: dict[str, dict[str, Any]] = {
    "quick": {},
    "standard": {"epochs": 24},
    "best": {**_LONG, "width": 0.75, "epochs": 46},
    # From published weights, of a timm/NAME that you choose; the layers near the images move least.
    "finetune": dict(
        **dict(model="small", pretrained=True, image_size=96, dropout=0.2, drop_path=0.1, epochs=5, **_TUNED),
        **dict(batch_size=64, head_epochs=1, layer_decay=0.9, learning_rate=1e-3, weight_decay=0.05),
    ),
    "faces": dict(  # from dlib's `weights`, which stay; in an epoch an image teaches one of four classifiers
        **dict(model="face_resnet", width=1.0, start_size=0, epochs=120, head_epochs=10_000, dropout=0.2),
        **dict(optimizer="adamw", learning_rate=1e-3, weight_decay=0.1, warmup=0.05, ema_decay=0.0),
        **dict(batch_size=1024, rotate=0.0, scale=0.0, shift=0.0),
    ),
    # A ladder for one network on one GPU: about so long on an H100 by estimates, not measured yet.
    "gpu-10s": {"width": 1.0, "epochs": 14},
    "gpu-30s": {**_LONG, "width": 1.0, "epochs": 50, "dropout": 0.2},
    "gpu-2min": {**_GPU, "epochs": 60},
    "gpu-10min": {**_GPU, "width": 1.0, "epochs": 240, "dropout": 0.4, "drop_path": 0.1},
}
# Of each on FER2013: accuracy on PublicTest (n = 3,589) with views, and the time on one of two cores of an
# AMD EPYC with bfloat16; tests/test_readme.py holds these equal to the files in outputs/reference.
EXPECTED: dict[str, str] = {
    "quick": "65.7 % (sd 0.7, 3 seeds) in 6 min",
    "standard": "67.7 % (sd 0.4, 3 seeds) in 11 min",
    "best": "70.3 % (sd 0.7, 3 seeds) in 43 min",
    "faces": "72.9 % (sd 0.2, 3 seeds) in 27 min",
    **dict.fromkeys(("finetune", "gpu-10s", "gpu-30s", "gpu-2min", "gpu-10min"), "not measured"),
}
