"""`config.json` of a run folder: the knobs, and beside them the record of what the run was made with."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from fer_utils.checkpoint import CheckpointFile
from fer_utils.config import Config
from fer_utils.device import choose_device, environment
from fer_utils.faces import Competition, DataError
from fer_utils.files import write_json
from fer_utils.learner import Learner
from fer_utils.predict import read_record, resolve_out

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
    write_json(out / "config.json", {**learner.config.to_dict(), "record": record})


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
    if out is not None:
        config = replace(config, out=out)
    elif record is not None:
        config = replace(config, out=str(path.resolve().parent))
    if record is None:
        return config
    folder, then = resolve_out(config.out), record.get("environment", {})
    if CheckpointFile(folder).exists or (folder / "metrics.json").is_file():
        return config  # begun already, with what it was begun with
    if config.precision == "auto":
        config = replace(config, precision=PRECISIONS.get(then.get("precision"), "auto"))
    threads = then.get("threads")
    if isinstance(threads, int) and 1 <= threads <= 1024 and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(threads)
    return config


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
