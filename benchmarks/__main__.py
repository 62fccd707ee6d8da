"""python -m benchmarks [SECTION ...] [--quick] [--data PATH] [--device NAME] [--seeds N]

Prints what is compared, ours first, and how many times better ours is; keeps the rows, with the machine and
the versions, in outputs/bench/results.json. Sections: reading, input_pipeline, training_step,
time_to_accuracy, inference, growth, devices, start_up, large_sets; without one named, all of them.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import sys
import time

import torch

from benchmarks.timing import Settings, matrix_rate
from fer_utils.competition import DataError
from fer_utils.config import ConfigError
from fer_utils.files import REPOSITORY, write_json
from fer_utils.learning.device import choose_device, environment

SECTIONS = (
    "reading", "input_pipeline", "training_step", "inference", "growth", "devices", "start_up",
    "large_sets", "time_to_accuracy",
)  # fmt: skip
RESULTS = REPOSITORY / "outputs" / "bench" / "results.json"


def main(arguments: list[str]) -> int:
    """Run the sections that the command line names."""
    parser = argparse.ArgumentParser("python -m benchmarks", description=__doc__.split("\n\n")[1])
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=", ".join(SECTIONS))
    parser.add_argument(
        "--quick", action="store_true", help="a rough answer in under five minutes on two cores"
    )
    parser.add_argument(
        "--data", default="auto", help="as in the notebooks; FER2013 for figures worth quoting"
    )
    parser.add_argument("--device", default="auto", help="auto, cuda or cpu")
    parser.add_argument("--seeds", type=int, default=1, help="runs for each row of time_to_accuracy")
    parser.add_argument(
        "--peer-minutes", type=float, default=float("inf"), help="stop the peers after so many"
    )
    options = parser.parse_args(arguments)
    unknown = set(options.sections) - set(SECTIONS)
    if unknown:
        parser.error(f"unknown section {', '.join(sorted(unknown))}: known are {', '.join(SECTIONS)}")
    try:
        device = choose_device(options.device)
        data = "demo" if options.quick and options.data == "auto" else options.data
        settings = Settings(options.quick, data, device, options.seeds, options.peer_minutes)
        for name in options.sections or SECTIONS:
            _section(name, settings)
    except (ConfigError, DataError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    print(f"written to {RESULTS}")
    return 0


def _section(name: str, settings: Settings) -> None:
    """Run one section, print its rows as they come and keep them beside those of the other sections."""
    module = importlib.import_module(f"benchmarks.{name}")
    print(f"\n{name}: {module.__doc__.splitlines()[0]}", flush=True)
    heading = f"  {'ours':<46} {'compared with':<38} {'ours':>10} {'other':>10} {'unit':<13} {'ratio':>7}"
    print(heading, flush=True)
    start, rows = time.perf_counter(), []
    for row in module.rows(settings):
        print(row, flush=True)
        rows.append(dataclasses.asdict(row))
    results = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else {}
    rates = {
        str(t)[6:]: round(matrix_rate(t, settings.device) / 1e9) for t in (torch.float32, torch.bfloat16)
    }
    results[name] = {
        "machine": environment(settings.device, torch.float32),
        "matrix_gflops": rates,
        "data": settings.data,
        "quick": settings.quick,
        "seconds": round(time.perf_counter() - start, 1),
        "rows": rows,
    }
    write_json(RESULTS, results)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
