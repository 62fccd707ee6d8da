"""Every parameter is typed and checked before any work; a message says how to fix a mistake."""

import dataclasses
import inspect
import json
import math
import re
import typing

import pytest

from fer_utils.config import PRESETS, Config, ConfigError, check_names, checked_value
from fer_utils.data.load import load_competition

pytestmark = pytest.mark.once

FIELDS = dataclasses.fields(Config)
NUMBERS = [field for field in FIELDS if type(field.default) in (int, float)]


def changed_value(field):
    """A value within range that is not the default."""
    if field.metadata.get("choices"):
        return next(word for word in field.metadata["choices"] if word != field.default)
    if isinstance(field.default, bool):
        return not field.default
    if isinstance(field.default, str):
        return "kappa" if field.name == "metric" else field.default + "_other"
    low, high = field.metadata["low"], field.metadata["high"]
    return high if field.default == low else type(field.default)((low + field.default) / 2)


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.name)
def test_every_field_is_annotated_with_the_type_of_its_default(field):
    annotation = typing.get_type_hints(Config)[field.name]
    assert annotation in (bool, int, float, str, int | str)
    assert type(field.default) in (annotation, *typing.get_args(annotation))


def test_defaults_are_a_valid_config_and_nothing_is_changed():
    assert Config().changed() == {}
    assert list(Config().to_dict()) == [field.name for field in FIELDS]


def test_the_size_of_the_images_replaces_auto():
    config = Config()
    assert config.image_size == "auto" and config.at_size(48) == Config(image_size=48)
    assert Config(image_size="64").image_size == 64  # papermill -r passes text
    assert not config.differing(config.at_size(48)) and config.at_size(48).differing(config.at_size(64))
    with pytest.raises(ConfigError, match="image_size is 64, but the images were read at 48 pixels"):
        Config(image_size=64).at_size(48)
    for wrong in ("large", 15, 513, 48.0, True):
        with pytest.raises(ConfigError, match="image_size"):
            Config(image_size=wrong)


def test_a_config_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().epochs = 3


# --- JSON ---


def test_json_round_trip_keeps_every_parameter(tmp_path):
    values = {field.name: changed_value(field) for field in FIELDS}
    values |= {"image_size": 512, "n_folds": 100, "epochs": 10_000}  # at their top
    values |= {"learning_rate": 0.001, "n_devices": "2"}  # adamw; a number or "auto"
    values |= {"optimizer": "adamw", "start_size": 16}
    path = tmp_path / "config.json"
    for left_out in ({"cv"}, {"teacher", "pseudo", "n_folds", "fold"}):  # which exclude each other
        some = {name: value for name, value in values.items() if name not in left_out}
        config = Config(**some)
        assert config.changed() == some, "every parameter differs from its default"
        path.write_text(json.dumps(config.to_dict()))
        assert Config.from_json(path) == config


def test_json_may_name_only_some_parameters_and_its_record_is_skipped(tmp_path):
    path = tmp_path / "config.json"
    path.write_text('{"epochs": 3, "record": {"torch": "2.10"}}')
    assert Config.from_json(path) == Config(epochs=3)


def test_json_with_a_byte_order_mark_is_read(tmp_path):
    path = tmp_path / "config.json"
    path.write_text('{"epochs": 3}', encoding="utf-8-sig")
    assert Config.from_json(path).epochs == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"epochs": 3,}', "not valid JSON"),
        ("", "not valid JSON"),
        ("[1, 2]", "one JSON object"),
        ('{"epoch": 3}', "did you mean 'epochs'"),
        ('{"epochs": "3"}', "epochs must be int"),
        ('{"learning_rate": NaN}', "finite"),
        ('{"learning_rate": 1e999}', "finite"),
        ('{"epochs": null}', "epochs must be int, got NoneType"),
    ],
)
def test_bad_json_is_refused_with_the_reason(tmp_path, text, message):
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        Config.from_json(path)


def test_bytes_that_are_no_text_and_missing_files_are_config_errors(tmp_path):
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00")
    for name, message in (("binary.json", "not valid JSON"), ("none.json", "cannot be read")):
        with pytest.raises(ConfigError, match=f"{name}.*{message}"):
            Config.from_json(tmp_path / name)
    with pytest.raises(ConfigError, match="cannot be read"):
        Config.from_json(tmp_path)


# --- names ---


@pytest.mark.parametrize(
    ("wrong", "right"),
    [("lerning_rate", "learning_rate"), ("lr_schedule", "schedule"), ("batchsize", "batch_size")],
)
def test_an_unknown_name_suggests_the_nearest_one(wrong, right):
    with pytest.raises(ConfigError, match=f"unknown parameter '{wrong}': did you mean '{right}'"):
        Config.from_dict({wrong: 1})


def test_a_name_near_to_nothing_lists_what_is_known():
    with pytest.raises(ConfigError, match="known are preset, data, out"):
        Config.from_dict({"zzz": 1})
    check_names(["b"], ["a", "b"])  # a known name passes


# --- types ---


@pytest.mark.parametrize(
    ("kind", "value"),
    [(bool, 1), (bool, "true"), (int, True), (int, 1.0), (int, "1"), (float, True), (float, "0.1")]
    + [(float, None), (str, 1), (str, None), (int, [1])],
)
def test_a_value_of_another_type_is_refused(kind, value):
    with pytest.raises(ConfigError, match=f"epochs must be {kind.__name__}, got {type(value).__name__}"):
        checked_value("epochs", value, kind)


def test_an_int_is_taken_for_a_float_and_stored_as_one():
    value = Config(rotate=10).rotate
    assert value == 10.0 and type(value) is float


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_float_must_be_finite(value):
    with pytest.raises(ConfigError, match="learning_rate must be a finite number"):
        Config(learning_rate=value)


def test_a_number_as_text_explains_yaml_and_text_as_a_number_explains_papermill():
    with pytest.raises(ConfigError, match=r"YAML reads 1e-2 as text: write 1\.0e-2"):
        Config(learning_rate="1e-2")
    with pytest.raises(ConfigError, match="pass text with -r instead of -p"):
        Config(out=7)


# --- ranges ---


@pytest.mark.parametrize("field", NUMBERS, ids=lambda field: field.name)
def test_a_number_outside_its_range_is_refused_with_both_ends_named(field):
    low, high = field.metadata["low"], field.metadata["high"]
    assert low <= field.default <= high and math.isfinite(low) and math.isfinite(high)
    for value in (low - 1, high + 1):
        with pytest.raises(
            ConfigError, match=f"{field.name} must lie between {low} and {high}, got"
        ) as raised:
            Config(**{field.name: type(field.default)(value)})
        assert str(raised.value).endswith(f" ({field.name}: {field.metadata['words']})")


@pytest.mark.parametrize("field", NUMBERS, ids=lambda field: field.name)
def test_both_ends_of_a_range_are_allowed(field):
    room = {"n_folds": 10 if field.name == "cv" else 100, "epochs": 10_000, "optimizer": "sgd"}
    room[field.name] = field.default
    for end in (field.metadata["low"], field.metadata["high"]):
        value = type(field.default)(end)
        assert getattr(Config(**(room | {field.name: value})), field.name) == value


@pytest.mark.parametrize("field", [f for f in FIELDS if f.metadata.get("choices")], ids=lambda f: f.name)
def test_a_word_that_is_no_choice_is_refused_and_the_nearest_suggested(field):
    wrong = field.default + "x"
    with pytest.raises(ConfigError, match=f"{field.name} must be one of .*did you mean '{field.default}'"):
        Config(**{field.name: wrong})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"fold": 10, "n_folds": 10}, r"fold must be below n_folds \(10\), got 10"),
        ({"start_size": 8}, "start_size must be 0 .* or at least 16, got 8"),
        ({"optimizer": "adamw", "learning_rate": 0.1}, "too high for adamw: try 0.002"),
    ],
)
def test_parameters_that_do_not_fit_together_are_refused(values, message):
    with pytest.raises(ConfigError, match=message):
        Config(**values)


@pytest.mark.parametrize(
    "values",
    [{"fold": 9}, {"start_size": 48}, {"start_size": 16}, {"optimizer": "adamw", "learning_rate": 0.02}],
)
def test_parameters_that_just_fit_together_are_allowed(values):
    assert Config(**values).changed() == values


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"epochs": 1, "start_size": 28, "image_size": 48},
            "never on 48 pixels.*type start_size = 0, or more epochs",
        ),
        (
            {"learning_rate": 1e-4},
            r"0.0001 is far too low for muon: type learning_rate = 0.1 \(0.002 is",
        ),
        ({"optimizer": "sgd", "learning_rate": 1e-4}, "far too low for sgd: type learning_rate = 0.1"),
        ({"optimizer": "adamw", "learning_rate": 1e-5}, "far too low for adamw: type learning_rate = 0.002"),
    ],
)
def test_what_can_hardly_work_is_a_warning_that_says_what_to_type(values, message):
    """On the demo in three epochs: sgd 11 % at 0.0001 and 64 % at 0.1; muon 29 % at 0.002 and 70 % at 0.1;
    adamw 18 % at 0.0001 and 62 % at 0.002."""
    (warning,) = Config(**values).warnings
    assert re.search(message, warning)


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"epochs": 2, "image_size": 48},
        {"epochs": 1, "image_size": 48, "start_size": 48},
        {"learning_rate": 0.01},
        {"optimizer": "adamw", "learning_rate": 3e-4},
        {"learning_rate": 1e-4, "pretrained": True},
        *({"preset": name} for name in PRESETS),
    ],
)
def test_what_works_gives_no_warning(values):
    assert Config.from_dict(values).warnings == []


def test_data_options_carry_what_loading_depends_on():
    parameters = {
        "image_size": 64,
        "color": "grey",
        "aspect": "pad",
        "n_folds": 5,
        "fold": 3,
        "layout": "arrays",
        "columns": "label=mood",
    }
    parameters |= {"classes": "sad, happy", "splits": "none", "groups": "user", "pool_valid": True}
    parameters |= {"clean": True, "label_fixes": "fixes.csv", "allow_rejected": True}
    assert Config(split_seed=8, seed=1, **parameters).data_options == {"seed": 8, **parameters}
    assert set(Config().data_options) < set(inspect.signature(load_competition).parameters)


# --- devices and presets ---


@pytest.mark.parametrize("given, kept", [(2, "2"), ("2", "2"), ("auto", "auto")])
def test_a_number_of_devices_may_be_given_either_way(given, kept):
    assert Config(n_devices=given).n_devices == kept


@pytest.mark.parametrize("given", [0, -1, "two", 2.0, True, "1.5", 5000])
def test_other_numbers_of_devices_are_refused(given):
    with pytest.raises(ConfigError, match="n_devices must be"):
        Config(n_devices=given)


def test_every_preset_is_a_valid_config_that_says_only_what_differs_from_the_defaults():
    for name, values in PRESETS.items():
        assert Config.from_dict({"preset": name}) == Config(**values)
        assert Config(**values).changed() == values


def test_who_sets_nothing_gets_quick():
    assert Config() == Config.from_dict({}) == Config.from_dict({"preset": "quick"})
    assert (Config.model, Config.width, Config.optimizer, Config.epochs) == ("medium", 0.5, "muon", 12)
    with pytest.raises(ConfigError, match="preset 'none' was removed: leave it out for the defaults"):
        Config.from_dict({"preset": "none"})


def test_a_preset_fills_what_was_not_set(monkeypatch):
    monkeypatch.setitem(PRESETS, "mine", {"epochs": 3, "batch_size": 256})
    config = Config.from_dict({"preset": "mine", "epochs": 5, "seed": 4})
    assert (config.epochs, config.batch_size, config.seed) == (5, 256, 4)
    assert Config.from_dict({"preset": "mine", "batch_size": 128}).batch_size == 128  # the default, but set


def test_a_clash_with_a_preset_names_it():
    with pytest.raises(ConfigError, match="with preset 'finetune': layer_decay must be 1 for muon"):
        Config.from_dict({"preset": "finetune", "optimizer": "muon"})


def test_an_unknown_preset_names_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'quick'"):
        Config.from_dict({"preset": "quik"})


def test_a_saved_config_needs_no_preset(tmp_path):
    config = Config.from_dict({"preset": "quick", "epochs": 9})
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config.to_dict()))
    assert Config.from_json(path) == config


# --- removed parameters ---


def test_a_removed_parameter_passes_at_the_value_at_which_it_did_nothing():
    assert Config.from_dict({"whiten": False, "compile_mode": "auto", "epochs": 3}) == Config(epochs=3)


@pytest.mark.parametrize("values", [{"whiten": True}, {"compile_mode": "default"}])
def test_a_removed_parameter_that_did_something_is_refused(values):
    with pytest.raises(ConfigError, match=f"{next(iter(values))} was removed.*leave it out"):
        Config.from_dict(values)
