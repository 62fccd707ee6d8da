"""Next to fastai: FER2013, from nothing to a submission in ten minutes of two cores, one side at a time.

python -m benchmarks.fastai_first_submission ours --data FOLDER
python -m benchmarks.fastai_first_submission fastai --python VENV/bin/python --data FOLDER
python -m benchmarks.fastai_first_submission fastai-bf16 --python VENV/bin/python --data FOLDER

VENV is made with `pip install fastai`; FOLDER holds train.csv (emotion, pixels, Usage), test.csv and
sample_submission.csv. A side is a process of its own, watched from outside: Training trains, PublicTest
validates, test.csv is answered, from random weights and an empty cache. What a user of fastai types is
`fastai_user.py`; ours is one command. `--trial` keeps no result: with `--epochs 2` it says how many would
fit. Linux only.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import resource
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from fer_utils.data.load import load_competition
from fer_utils.data.submission_csv import validate_submission
from fer_utils.files import REPOSITORY, resolve_out, write_json
from fer_utils.learning.device import environment
from fer_utils.learning.metrics import wilson_interval

RESULTS = REPOSITORY / "outputs" / "reference" / "fastai" / "results.json"
USER_CODE = REPOSITORY / "benchmarks" / "fastai_user.py"
LIMIT = 600.0  # seconds
# As many as fit on two cores without bfloat16 (`--trial`; ours: as the preset `quick` has them); where the
# processor has it, fastai-bf16 fits about 10 by an estimate.
EPOCHS = {"ours": 12, "fastai": 3, "fastai-bf16": 10}
VERSIONS = {"ours": "python torch torchvision numpy timm", "fastai": "python torch torchvision numpy fastai"}
# What a reader of our README types; it runs papermill as `command` does.
OURS = 'make submission DATA={data} OUT={out} ARGS="-p width 0.25 -p n_devices 2 -p epochs {epochs}"'
# The lines in which the two sides first show an accuracy, and fastai's last one.
SHOWN = re.compile(r"^epoch +\d+/\d+ .*valid accuracy|^\d+ +\d+\.\d+ +\d+\.\d+ +\d\.\d+ +\d+:\d\d")
FINAL = re.compile(r"^valid accuracy (\d\.\d+)")
HEADINGS = ("side", "lines typed", "first result, s", "submission, s", "valid, with views", "peak memory, MB")


def command(side: str, python: str, data: str, out: Path, epochs: int) -> list[str]:
    """What the process of a side runs; `python` has fastai in it, or is this one for ours."""
    if side != "ours":
        return [python, str(USER_CODE), data, str(out), str(epochs), *side.split("-")[1:]]
    notebooks = ["notebooks/03_training.ipynb", str(out / "03_training.ipynb"), "--cwd", "."]
    options = ["--no-progress-bar", "--log-level", "ERROR", "--stdout-file", "-", "--stderr-file", "-"]
    options += ["-r", "data", data, "-r", "out", str(out)]
    given = OURS.format(data=data, out=out, epochs=epochs).split('ARGS="')[1].rstrip('"').split()
    return [python, "-m", "papermill", *notebooks, *options, *given]


def typed_lines(side: str) -> int:
    """Lines of code that a user types after the installation, without comments and blank lines."""
    if side == "ours":
        return 1
    code = USER_CODE.read_text(encoding="utf-8").split('"""')[2].splitlines()
    lines = [line for line in code if line.strip() and not line.startswith("#")]
    by_hand = 0 if side.endswith("bf16") else 3  # the lines that this variant alone needs
    return len(lines) - by_hand


def watch(arguments: list[str], out: Path, limit: float, log: Path) -> dict[str, Any]:
    """Run a side and return what can be seen of it from outside: seconds since the start of its process (of
    every accuracy shown, of the submission, of the end), CPU seconds, and peak memory in MB.

    `memory` is the most that all its processes hold together, what they share counted once (PSS, looked at
    each second), `largest_process` the greatest resident memory of one of them (`ru_maxrss`).
    """
    variables = {"PYTHONUNBUFFERED": "1", "FER_CACHE": str(out / "cache"), "PYTHONPATH": str(REPOSITORY)}
    begun, start, memory, in_time = time.time(), time.monotonic(), 0.0, True
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=REPOSITORY,
                               env={**os.environ, **variables}, start_new_session=True)  # fmt: skip
    os.sched_setaffinity(process.pid, sorted(os.sched_getaffinity(0))[:2])
    lines: list[tuple[float, str]] = []

    def read() -> None:
        with log.open("w", encoding="utf-8") as file:
            for line in process.stdout:
                text = line.decode(errors="replace").strip("\n█ ").split("\r")[-1].strip("█ \b")
                lines.append((time.monotonic() - start, text))
                file.write(f"{lines[-1][0]:.1f} {text}\n")

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    while process.poll() is None:
        memory = max(memory, sum(map(_shared_memory, tree := _tree(process.pid))))
        if in_time and time.monotonic() - start > limit:
            in_time = False
            for pid in tree:  # what this call started, and nothing else
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        time.sleep(1)
    end = time.monotonic() - start
    reader.join(10)
    submission = out / "submission.csv"
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "in_time": in_time and process.returncode == 0,
        "shown": [round(second, 1) for second, text in lines if SHOWN.match(text)],
        "final": next((float(found[1]) for _, text in lines if (found := FINAL.match(text))), math.nan),
        "submission": round(submission.stat().st_mtime - begun, 1) if submission.is_file() else math.nan,
        "end": round(end, 1),
        "cpu_seconds": round(used.ru_utime + used.ru_stime, 1),
        "memory": round(memory),
        "largest_process": round(used.ru_maxrss * 1024 / 1e6),
    }


def _tree(pid: int) -> list[int]:
    """A process and all that descend from it."""
    found = [pid]
    for tasks in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found += [descendant for child in tasks.read_text().split() for descendant in _tree(int(child))]
        except OSError:  # it has just ended
            continue
    return found


def _shared_memory(pid: int) -> float:
    """MB that a process holds, of what it shares its share; 0 if it has ended."""
    try:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        return int(re.search(r"^Pss: +(\d+) kB", rollup, re.M)[1]) * 1024 / 1e6
    except (OSError, TypeError):
        return 0.0


def measure(side: str, python: str, data: str, out: Path, epochs: int) -> dict[str, Any]:
    """Run a side in `out`, a new folder, and return its record, the submission having been checked."""
    out.mkdir(parents=True)
    load = os.getloadavg()[0]
    seen = watch(command(side, python, data, out, epochs), out, LIMIT, out / "log.txt")
    competition, n = load_competition(data), 0
    if math.isfinite(seen["submission"]):
        validate_submission(competition, out / "submission.csv")
    if (out / "metrics.json").is_file():
        seen["final"] = json.loads((out / "metrics.json").read_text())["valid"]["views"]["accuracy"]
    if math.isfinite(seen["final"]):
        n = len(competition.valid)
    hits = round(n * seen["final"]) if n else 0
    low, high = wilson_interval(hits, n)
    names = VERSIONS[side.split("-")[0]]
    code = "import sys, json, platform; from importlib.metadata import version as v; print(json.dumps({n: "
    code += "platform.python_version() if n == 'python' else v(n) for n in sys.argv[1].split()}))"
    versions = json.loads(subprocess.check_output([python, "-c", code, names], text=True))
    machine = environment(torch.device("cpu"), torch.float32)
    return {
        "epochs": epochs,
        "lines": typed_lines(side),
        "first_seconds": seen["shown"][0] if seen["shown"] else math.nan,
        **seen,
        "valid": {"n": n, "accuracy": hits / n if n else math.nan, "ci_low": low, "ci_high": high},
        "load_before": round(load, 1),
        "machine": {"hardware": machine["hardware"], "git_commit": machine["git_commit"], **versions},
    }


def table(results: dict[str, dict[str, Any]]) -> str:
    """The Markdown table of the sides that were measured."""
    lines = [f"| {' | '.join(HEADINGS)} |", f"|{'---|' * len(HEADINGS)}"]
    for side, row in results.items():
        valid = row["valid"]
        percent = [100 * valid[key] for key in ("accuracy", "ci_low", "ci_high")]
        accuracy = "{:.1f} % ({:.1f} to {:.1f}), n = {:,}".format(*percent, valid["n"]) if valid["n"] else "-"
        submission = f"{row['submission']:.0f}" if row["in_time"] else "not in time"
        name = f"{side}, {row['epochs']} epochs"
        cells = [
            name,
            row["lines"],
            f"{row['first_seconds']:.0f}",
            submission,
            accuracy,
            f"{row['memory']:,}",
        ]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def main(arguments: list[str]) -> int:
    """Measure one side, print its table and keep the record beside those of the others."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("side", choices=list(EPOCHS))
    parser.add_argument("--data", default="data/fer2013", help="folder with train.csv and test.csv")
    parser.add_argument("--python", default=sys.executable, help="of an environment with fastai")
    parser.add_argument("--epochs", type=int, default=0, help="0: as in EPOCHS")
    parser.add_argument("--out", default="", help="new folder; default: outputs/first/SIDE")
    parser.add_argument("--trial", action="store_true", help="keep no result")
    options = parser.parse_args(arguments)
    epochs = options.epochs or EPOCHS[options.side]
    out = resolve_out(options.out or f"outputs/first/{options.side}")
    if out.exists():
        parser.error(f"{out} exists: a first submission begins with nothing (remove it, or choose --out)")
    row = measure(options.side, options.python, str(Path(options.data).resolve()), out, epochs)
    print(table({options.side: row}))
    shown = row.pop("shown")
    epoch = (shown[-1] - shown[0]) / (len(shown) - 1) if len(shown) > 1 else 0.0
    if epoch:
        fits = epochs + (LIMIT - row["end"]) / epoch
        print(f"{epoch:.1f} s an epoch, CPU {row['cpu_seconds']:.0f} s; {fits:.1f} epochs fit")
    if not options.trial:
        results = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else {}
        write_json(RESULTS, results | {options.side: row})
    return 0 if row["in_time"] else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
