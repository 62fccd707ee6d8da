"""The long trials: what befalls a run, done to it for real.

python -m tests.long [composed kills signals refusals repeats soak] [--quick]

Prints a table and keeps it in outputs/trials/results.json, with date and machine; `lost` must be 0
everywhere. Linux only: it looks into /proc, mounts small disks and limits memory.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import random
import sys
import tempfile
import time
from pathlib import Path

import torch

from fer_utils.files import REPOSITORY, write_json
from fer_utils.learning.device import environment
from tests.long import composed, kills, refusals, repeats, signals, soak
from tests.long.common import write_competition

SECTIONS = {
    **{"composed": composed, "kills": kills, "signals": signals},
    **{"refusals": refusals, "repeats": repeats, "soak": soak},
}


def main() -> int:
    """Run the sections asked for; the status is 1 if anything was lost."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sections", nargs="*", help=f"of {', '.join(SECTIONS)}; all where none is named")
    parser.add_argument("--quick", action="store_true", help="each only once or twice")
    parser.add_argument("--seed", type=int, default=0, help="of the random moments")
    options = parser.parse_args()
    unknown = set(options.sections) - set(SECTIONS)
    if unknown:
        parser.error(f"no section {', '.join(sorted(unknown))}: there are {', '.join(SECTIONS)}")
    random.seed(options.seed)
    path, lost = REPOSITORY / "outputs" / "trials" / "results.json", 0
    report = json.loads(path.read_text()) if path.is_file() else {}
    with tempfile.TemporaryDirectory(prefix="fer-trials-") as folder:
        os.chmod(folder, 0o755)  # a trial without privileges looks into it
        data = write_competition(Path(folder) / "data")
        for name in options.sections or SECTIONS:
            start, rows = time.perf_counter(), []
            for trial in SECTIONS[name].trials(Path(folder) / name, data, options.quick):
                print(trial.as_markdown(), flush=True)
                rows.append(trial.as_dict())
                lost += trial.lost
            report[name] = {
                "date": datetime.date.today().isoformat(),
                "seconds": round(time.perf_counter() - start),
                "quick": options.quick,
                "environment": environment(torch.device("cpu"), torch.float32),
                "trials": rows,
            }
            write_json(path, report)
    print(f"lost: {lost}; kept in {path}")
    return int(lost > 0)


if __name__ == "__main__":
    sys.exit(main())
