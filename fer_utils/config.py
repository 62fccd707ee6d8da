"""Every knob of a run in one frozen dataclass, checked before any work is done."""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

# What `load_competition` is told beside `data` and the seed of its splits, under the same names.
DATA_KNOBS = (
    *("image_size", "n_folds", "fold", "pool_valid"),
    *("layout", "columns", "clean", "label_fixes", "allow_rejected"),
)


class ConfigError(ValueError):
    """A parameter is unknown, of the wrong type or out of range; the message names it and the mend."""


def _knob(default: Any, low: float = -math.inf, high: float = math.inf, choices: Iterable[str] = ()) -> Any:
    """A field with its allowed range (both ends included) or its allowed words."""
    return dataclasses.field(default=default, metadata={"low": low, "high": high, "choices": tuple(choices)})


@dataclass(frozen=True)
class Config:
    """The knobs of one training run. `03_training` shows the same list, with one line on each.

    Raises:
        ConfigError: a value of the wrong type or out of range.
    """

    # the run
    data: str = "auto"
    out: str = "outputs/run"
    seed: int = _knob(0, 0, 2**31)
    device: str = "auto"
    n_devices: str = "auto"
    checkpoint_seconds: float = _knob(60.0, 0, 1e6)
    max_hours: float = _knob(0.0, 0, 1e4)
    # the data
    image_size: int = _knob(48, 16, 512)
    split_seed: int = _knob(0, 0, 2**31)
    n_folds: int = _knob(10, 2, 100)
    fold: int = _knob(0, 0, 99)
    pool_valid: bool = False
    layout: str = "auto"
    columns: str = "auto"
    clean: bool = False
    label_fixes: str = "none"
    allow_rejected: bool = False
    # the network
    model: str = "small"
    width: float = _knob(1.0, 0.125, 8)
    dropout: float = _knob(0.2, 0, 0.95)
    drop_path: float = _knob(0.0, 0, 0.9)
    whiten: bool = False
    pretrained: bool = False
    # training
    epochs: int = _knob(8, 1, 10_000)
    batch_size: int = _knob(128, 2, 65_536)
    optimizer: str = _knob("sgd", choices=("sgd", "adamw", "muon"))
    learning_rate: float = _knob(0.1, 1e-8, 10)
    momentum: float = _knob(0.9, 0, 0.999)
    weight_decay: float = _knob(5e-4, 0, 10)
    schedule: str = _knob("onecycle", choices=("onecycle", "cosine", "constant"))
    warmup: float = _knob(0.2, 0, 0.9)
    start_size: int = _knob(0, 0, 512)
    label_smoothing: float = _knob(0.1, 0, 0.9)
    soft_labels: bool = False
    teacher: str = "none"
    teacher_weight: float = _knob(0.5, 0, 1)
    class_weight: float = _knob(0.0, 0, 1)
    ema_decay: float = _knob(0.998, 0, 0.99999)
    clip_norm: float = _knob(0.0, 0, 1e6)
    sam: float = _knob(0.0, 0, 10)
    patience: int = _knob(0, 0, 10_000)
    precision: str = _knob("auto", choices=("auto", "fp32", "bf16", "fp16"))
    compile_mode: str = _knob("auto", choices=("auto", "off", "default", "reduce-overhead", "max-autotune"))
    # augmentation
    flip: float = _knob(0.5, 0, 1)
    rotate: float = _knob(12.0, 0, 180)
    scale: float = _knob(0.12, 0, 0.9)
    shift: float = _knob(0.08, 0, 0.9)
    shear: float = _knob(0.0, 0, 60)
    brightness: float = _knob(0.15, 0, 1)
    contrast: float = _knob(0.2, 0, 1)
    erase: float = _knob(0.3, 0, 1)
    mixup: float = _knob(0.0, 0, 10)
    cutmix: float = _knob(0.0, 0, 10)
    # prediction
    views: str = _knob("mirror", choices=("plain", "mirror", "shift", "zoom"))

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = checked_value(field.name, getattr(self, field.name), type(field.default))
            object.__setattr__(self, field.name, value)
            _check_range(field, value)
        if self.n_devices != "auto" and not (self.n_devices.isdecimal() and 1 <= int(self.n_devices) <= 1024):
            raise ConfigError(f"n_devices must be 'auto' or a number from 1 to 1024, got {self.n_devices!r}")
        if self.fold >= self.n_folds:
            raise ConfigError(f"fold must be below n_folds ({self.n_folds}), got {self.fold}")
        if self.start_size > self.image_size:
            raise ConfigError(
                f"start_size must not pass image_size ({self.image_size}), got {self.start_size}"
            )
        if 0 < self.start_size < 16:  # the networks halve a picture up to four times
            raise ConfigError(f"start_size must be 0 (off) or at least 16, got {self.start_size}")
        if self.optimizer == "adamw" and self.learning_rate > 0.02:
            raise ConfigError(
                f"learning_rate {self.learning_rate} is far too high for adamw: try 0.002 (0.1 is for sgd)"
            )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """A Config from names and values; what is left out takes the value of the `preset`, if one is named,
        and else the default.

        Raises:
            ConfigError: an unknown name (the nearest known one is suggested) or a bad value.
        """
        fields = dataclasses.fields(cls)
        check_names(values, ["preset", *(field.name for field in fields)])
        values = dict(values)
        preset = checked_value("preset", values.pop("preset", "none"), str)
        if preset not in PRESETS:
            near = difflib.get_close_matches(preset, PRESETS, n=1)
            hint = f": did you mean {near[0]!r}?" if near else ""
            raise ConfigError(f"preset must be one of {', '.join(PRESETS)}, got {preset!r}{hint}")
        try:
            return cls(**(PRESETS[preset] | values))
        except ConfigError as error:
            raise ConfigError(
                f"with preset {preset!r}: {error}" if PRESETS[preset] else str(error)
            ) from error

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
        defaults = {field.name: field.default for field in dataclasses.fields(self)}
        return {name: value for name, value in self.to_dict().items() if value != defaults[name]}

    def differing(self, other: Config) -> str:
        """What sets a run of `other` apart from one of this config, in words; empty if they are the same run.

        Where the files lie, which device computes, how often it is saved and how long a session lasts may
        change between a start and its continuation.
        """
        same = ("data", "out", "device", "n_devices", "checkpoint_seconds", "max_hours")
        there, now = other.to_dict(), self.to_dict()
        names = [name for name in now if name not in same and there[name] != now[name]]
        return "; ".join(f"{name}: {there[name]!r} there, {now[name]!r} now" for name in names)

    @property
    def data_options(self) -> dict[str, Any]:
        """What `load_competition` needs to know beside `data`."""
        return {"seed": self.split_seed} | {name: getattr(self, name) for name in DATA_KNOBS}

    @property
    def evaluation_batch(self) -> int:
        """Pictures at a time where nothing is learned: the memory that a training step needs suffices for
        four times as many."""
        return min(512, 4 * self.batch_size)

    @property
    def model_options(self) -> dict[str, Any]:
        """What `create_model` needs to know beside the name and the number of classes."""
        names = ("width", "dropout", "drop_path", "pretrained", "image_size")
        return {name: getattr(self, name) for name in names}

    def __str__(self) -> str:
        return "\n".join(f"{name:16}{value!r}" for name, value in self.to_dict().items())


def check_names(given: Iterable[str], known: list[str]) -> None:
    """Refuse a name that is not known, and suggest the nearest one that is.

    Raises:
        ConfigError: an unknown name.
    """
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
            raise ConfigError(f"unknown parameter {name!r}: {hint}")


def checked_value(name: str, value: Any, kind: type) -> Any:
    """`value` as `kind` (bool, int, float, str); an int is taken for a float, and a count for `n_devices`.

    Raises:
        ConfigError: another type, or a float that is not finite.
    """
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if name == "n_devices" and type(value) is int:  # "auto" or a number, which papermill passes as one
        value = str(value)
    if type(value) is not kind:
        hint = ""
        if isinstance(value, str) and kind in (int, float):
            hint = " (YAML reads 1e-2 as text: write 1.0e-2)"
        elif kind is str:
            hint = " (papermill: pass text with -r instead of -p)"
        raise ConfigError(f"{name} must be {kind.__name__}, got {type(value).__name__} {value!r}{hint}")
    if kind is float and not math.isfinite(value):
        raise ConfigError(f"{name} must be a finite number, got {value}")
    return value


def _check_range(field: dataclasses.Field, value: Any) -> None:
    choices = field.metadata.get("choices", ())
    if choices and value not in choices:
        near = difflib.get_close_matches(value, choices, n=1)
        hint = f": did you mean {near[0]!r}?" if near else ""
        raise ConfigError(f"{field.name} must be one of {', '.join(choices)}, got {value!r}{hint}")
    low, high = field.metadata.get("low", -math.inf), field.metadata.get("high", math.inf)
    if isinstance(value, (int, float)) and not low <= value <= high:
        raise ConfigError(f"{field.name} must lie between {low} and {high}, got {value}")


# ---------------------------------------------------------------- presets

# Little pictures first, Muon, warps but no change of light. Few epochs hardly overfit and want little
# augmentation; what the knobs gave is in outputs/reference/README.md.
_SHORT: dict[str, Any] = {
    "model": "medium",
    "width": 0.5,
    "optimizer": "muon",
    "batch_size": 256,
    "start_size": 28,
    "dropout": 0.0,
    "rotate": 10.0,
    "scale": 0.1,
    "shift": 0.06,
    "brightness": 0.0,
    "contrast": 0.0,
    "erase": 0.0,
}
# A knob that a person sets wins over the preset's.
PRESETS: dict[str, dict[str, Any]] = {
    "none": {},
    "quick": {**_SHORT, "epochs": 12},
    "standard": {**_SHORT, "epochs": 24},
    "best": {
        **_SHORT,
        "width": 0.75,
        "epochs": 46,
        "weight_decay": 0.01,
        "rotate": 16.0,
        "scale": 0.16,
        "shift": 0.1,
        "erase": 0.3,
        "views": "shift",
    },
}
# Of each on FER2013: accuracy on PublicTest (n = 3,589) with views, and the time on one of two cores of an
# AMD EPYC with bfloat16; tests/test_readme.py holds these equal to the files in outputs/reference.
EXPECTED: dict[str, str] = {
    "quick": "65.7 % (sd 0.7, 3 seeds) in 6 min",
    "standard": "67.7 % (sd 0.4, 3 seeds) in 11 min",
    "best": "70.3 % (sd 0.7, 3 seeds) in 43 min",
}
