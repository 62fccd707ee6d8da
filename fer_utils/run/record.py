"""`config.json` of a run folder: the knobs, and beside them the record of what the run was made with."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from fer_utils.competition import Competition, DataError
from fer_utils.config import Config, ConfigError
from fer_utils.files import write_json
from fer_utils.learning.device import choose_device, environment
from fer_utils.learning.distributed import in_team
from fer_utils.learning.training_loop import Learner
from fer_utils.run.checkpoint import CheckpointFile
from fer_utils.run.folder import RUN_FILES, read_record

# What the bytes of a result depend on, beside the config and the data.
DECIDES_BYTES = ("torch", "numpy", "timm", "device", "hardware", "threads", "precision")
PRECISIONS = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}


def write_record(out: Path, learner: Learner, competition: Competition) -> None:
    """Write config.json at the start of a run."""
    record = {
        "fingerprint": competition.fingerprint,
        "layout": competition.layout,
        "class_names": list(competition.class_names),
        "label_values": list(competition.label_values),
        "notes": list(competition.notes),
        "environment": environment(learner.device, learner.dtype),
    }
    (out / "metrics.json").unlink(missing_ok=True)  # left over from something else, it would look finished
    write_json(out / "config.json", {**learner.config.to_dict(), "record": record})


def is_finished(out: Path, config: Config, competition: Competition) -> bool:
    """Whether `out` holds this very run, finished. Another run is an error that names the difference."""
    path = out / "config.json"
    record = read_record(path) if path.is_file() else None
    finished = all((out / name).is_file() for name in RUN_FILES)
    if record is None and (out / "metrics.json").is_file():
        raise ConfigError(
            f"{out} holds results that no run here has recorded in config.json: choose another out"
        )
    if record is None or not (finished or CheckpointFile(out).exists):
        return False  # nothing worth keeping, or only the config a person wrote for this run
    other = Config.from_json(path)
    differing = config.differing(other)
    if differing:
        raise ConfigError(f"{out} holds a run with another config ({differing}): choose another out")
    if record.get("fingerprint") != competition.fingerprint:
        raise DataError(f"{out} holds a run on other data (from {other.data!r}): choose another out")
    return finished and not is_out_of_time(out)


def is_out_of_time(out: Path) -> bool:
    """Whether `out` holds the results of a run that `max_hours` ended and that can go on.

    Raises:
        DataError: metrics.json is damaged.
    """
    path = out / "metrics.json"
    if not (path.is_file() and CheckpointFile(out).exists):
        return False
    try:
        return bool(json.loads(path.read_text(encoding="utf-8"))["training"].get("out_of_time"))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path} is damaged ({error}): remove it, and the run goes on from its checkpoint"
        ) from error


def config_from_file(path: str | Path, out: str | None = None) -> Config:
    """The config to train from a JSON file: a person's, or the config.json of a run, which repeats that run.

    A run's own config.json trains in the folder it lies in, wherever that was before (a stranger's cannot
    name another), or in `out`. A repetition takes the precision and the threads of the record, since they
    decide the bytes.

    Raises:
        ConfigError: the file cannot be used.
        DataError: its record is damaged.
    """
    path = Path(path)
    config, record = Config.from_json(path), read_record(path)
    beside = any((path.parent / name).is_file() for name in (*RUN_FILES[1:], "checkpoint.pt"))
    if out is not None:
        config = replace(config, out=out)
    elif record is not None or beside:
        config = replace(config, out=str(path.resolve().parent))
    if record is None:
        return config
    then = record.get("environment", {})
    if out is not None and config.precision == "auto":  # in its own folder `fit` sees to that
        config = replace(config, precision=PRECISIONS.get(then.get("precision"), "auto"))
    threads, alone = then.get("threads"), config.n_devices in ("auto", "1") and not in_team()
    if isinstance(threads, int) and 1 <= threads <= 1024 and alone and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(threads)
    return config


def recorded_precision(out: Path, config: Config, fingerprint: str, device: torch.device) -> str | None:
    """What "auto" was decided to be when this very run was begun here: a second measurement might differ."""
    record = read_record(out / "config.json")
    if record is None or config.precision != "auto" or record["fingerprint"] != fingerprint:
        return None
    then = record.get("environment", {})
    if config.differing(Config.from_json(out / "config.json")) or then.get("device") != device.type:
        return None
    return PRECISIONS.get(then.get("precision"))


def check_repetition(path: str | Path, config: Config, competition: Competition) -> None:
    """Before a run's config.json is trained from: the same data, and a warning if the machine is another.

    Raises:
        DataError: the data are others.
    """
    record = read_record(Path(path))
    if record is None:
        return
    if record.get("fingerprint") != competition.fingerprint:
        raise DataError(
            f"{config.data!r} holds other data than {path} records: set data in it to where those lie, or "
            'remove its "record" to train on these'
        )
    now = environment(choose_device(config.device), torch.float32)
    now.pop("precision")
    warn_of_another_machine(record, now)


def warn_of_another_machine(record: dict[str, Any] | None, now: dict[str, Any]) -> None:
    """Say it where the machine or the versions are not those of `record`: the bytes will differ then."""
    then = (record or {}).get("environment", {})
    changed = [
        f"{k} {then[k]} then, {now[k]} now"
        for k in DECIDES_BYTES
        if k in then and k in now and then[k] != now[k]
    ]
    if changed:
        print(f"WARNING: rounding will differ from the first run's: {'; '.join(changed)}", flush=True)
