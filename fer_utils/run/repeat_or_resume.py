"""Repeat a run from its config.json or resume it elsewhere: what must be the same, and what may differ."""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from fer_utils.competition import Competition, DataError
from fer_utils.config import Config, ConfigError
from fer_utils.files import find_path
from fer_utils.learning.device import DECIDES_BYTES, choose_device, environment
from fer_utils.learning.distributed import in_team
from fer_utils.learning.pretrained import find_weights
from fer_utils.run.folder import RunFolder, read_record

PRECISIONS = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}


def config_from_file(path: str | Path, out: str | None = None) -> Config:
    """The config in a JSON file: a person's, or the config.json of a run, which repeats that run.

    A run's config.json trains in its own folder, whatever `out` it names (a stranger's file cannot choose a
    folder), or in the given `out`. A repetition uses the recorded precision and threads, which determine the
    bytes. A ConfigError or DataError says what is wrong with the file or its record.
    """
    path = Path(path)
    config, record, folder = Config.from_json(path), read_record(path), path.resolve().parent
    if out is not None:
        config = replace(config, out=out)
    elif record is not None or RunFolder(folder).has_results or RunFolder(folder).checkpoint.exists:
        config = replace(config, out=str(folder))
    if record is None:
        return config
    then = record.get("environment", {})
    if out is not None and config.precision == "auto":  # in its own folder `fit` does it
        config = replace(config, precision=PRECISIONS.get(then.get("precision"), "auto"))
    threads, alone = then.get("threads"), config.n_devices in ("auto", "1") and not in_team()
    if isinstance(threads, int) and 1 <= threads <= 1024 and alone and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(threads)
    return config


def recorded_precision(
    folder: RunFolder, config: Config, fingerprint: str, device: torch.device
) -> str | None:
    """The precision of this run in an earlier session, if it is "auto": a second measurement might differ."""
    record = folder.record()
    if record is None or config.precision != "auto" or record["fingerprint"] != fingerprint:
        return None
    then = record.get("environment", {})
    same = then.get("device") == device.type and not config.differing(folder.config())
    return PRECISIONS.get(then.get("precision")) if same else None


def earlier_runs(config: Config) -> dict[str, str]:
    """The SHA-256 of what a run learns from earlier ones, by their names in the config: of the weights of
    each `teacher` and of the answers of `pseudo`. What is not there any more is left out. (The `weights` it
    starts from are in its record already.)"""
    files = {f"teacher {name}": (name, "model.safetensors") for name in teacher_names(config)}
    if config.pseudo != "none":
        files[f"pseudo {config.pseudo}"] = (config.pseudo, "test.npz")
    found = {}
    for key, (name, file) in files.items():
        with suppress(DataError, OSError):
            found[key] = _sha256(find_path(name) / file)
    return found


def learned_test_images(config: Config) -> str:
    """What a run says whose `teacher` or `weights` are of a run that learned from test images; "" else."""
    folders = [(name, find_path(name)) for name in teacher_names(config)]
    with suppress(ConfigError):
        if config.weights != "none":
            folders.append((config.weights, find_weights(config.weights).parent))
    records = [(name, RunFolder(folder.absolute()).record() or {}) for name, folder in folders]
    found = [f"learned from {name}, which {r['transductive']}" for name, r in records if "transductive" in r]
    return next(iter(found), "")


def changed_since(record: dict[str, Any], config: Config) -> str:
    """The earlier runs that were trained again since the run with this record learned from them, and
    `weights` that were replaced; "" if none was, or none is there any more."""
    then, now = dict(record.get("earlier_runs", {})), earlier_runs(config)
    if config.weights != "none" and "weights" in record:
        key = f"weights {config.weights}"
        then[key] = record["weights"]["sha256"]
        with suppress(ConfigError, OSError):
            now[key] = _sha256(find_weights(config.weights))
    return ", ".join(key for key in then if now.get(key, then[key]) != then[key])


def teacher_names(config: Config) -> list[str]:
    """The runs named by `teacher`."""
    names = [name.strip() for name in config.teacher.split(",")]
    return [name for name in names if name not in ("", "none")]


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def check_earlier_runs(record: dict[str, Any], config: Config, folder: RunFolder) -> None:
    """A DataError if a run of this record learned from earlier runs that are no longer the same."""
    if changed := changed_since(record, config):
        raise DataError(f"{changed} has changed since {folder} learned from it: choose another out")


def same_training_data(record: dict[str, Any], competition: Competition) -> bool:
    """Whether a run of this record learned from these images and labels; its ids and test may be others."""
    if record["fingerprint"] == competition.fingerprint:
        return True
    return record.get("training_fingerprint") == competition.training_fingerprint


def check_repetition(path: str | Path, config: Config, competition: Competition) -> None:
    """Before a run is repeated from its config.json: a DataError if the data or the earlier runs it learned
    from differ, and a warning if the machine does."""
    record = read_record(Path(path))
    if record is None:
        return
    if not same_training_data(record, competition):
        raise DataError(
            f"{config.data!r} holds other data than {path} records: set its data to where those are, or "
            'remove its "record" to train on these'
        )
    check_earlier_runs(record, config, RunFolder(Path(path).parent))
    now = environment(choose_device(config.device), torch.float32)
    warn_of_another_machine(record, {key: now[key] for key in now if key != "precision"})


def warn_of_another_machine(record: dict[str, Any] | None, now: dict[str, Any]) -> None:
    """Print a warning if the machine or the versions differ from the record's: so will the bytes."""
    then = (record or {}).get("environment", {})
    both = [key for key in DECIDES_BYTES if key in then and key in now]
    changed = [f"{key} {then[key]} then, {now[key]} now" for key in both if then[key] != now[key]]
    if changed:
        print(f"WARNING: rounding will differ from the first run's: {'; '.join(changed)}", flush=True)
