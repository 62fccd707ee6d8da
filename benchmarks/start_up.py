"""Start-up: what importing this project adds to importing torch, and notebooks before their first work.

Names are loaded when they are first used (`fer_utils/__init__.py`), so a bare import costs nothing; the
names that a notebook needs bring pandas and, for the metrics, scipy's statistics.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import nbformat
from nbclient import NotebookClient

from benchmarks.timing import Row, Settings, python
from fer_utils.files import REPOSITORY

IMPORTS = {
    "import fer_utils": "import fer_utils",
    "the main names": "from fer_utils import Config, fit, load_competition, load_run, write_submission",
}
CLOCK = """
from time import perf_counter as clock
start = clock()
{}
middle = clock()
{}
print(middle - start, clock() - middle)
"""


def rows(settings: Settings) -> Iterator[Row]:
    """The imports, then the cells of each notebook up to its checked parameters."""
    turns = 3 if settings.quick else 9
    for name, statement in IMPORTS.items():
        pairs = [
            tuple(map(float, python(CLOCK.format("import torch", statement)).split())) for _ in range(turns)
        ]
        torch_seconds, ours = (sorted(column)[turns // 2] for column in zip(*pairs, strict=True))
        yield Row(
            f"{name}, after torch",
            "import torch",
            ours,
            torch_seconds,
            "s",
            torch_seconds / ours,
            turns,
            "aim: 0.3 s",
        )
    for path in sorted((REPOSITORY / "notebooks").glob("*.ipynb")):
        imports, others = first_cells(path)
        yield Row(
            f"{path.stem}: to its checked parameters",
            "its import cell",
            others,
            imports,
            "s",
            imports / others,
            1,
            "aim: 2 s beyond imports",
        )


def first_cells(path) -> tuple[float, float]:
    """Seconds of the import cell, and of the cells after it up to the one that reads the parameters."""
    notebook = nbformat.read(path, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    last = next(k for k, cell in enumerate(code) if "read_parameters(globals())" in cell.source)
    before = "import time as _clock\n_start = _clock.perf_counter()\n"
    after = "\nprint('SECONDS', _clock.perf_counter() - _start)"
    notebook.cells = code[: last + 1]
    for k, cell in enumerate(notebook.cells):
        if "parameters" not in cell.metadata.get("tags", []):  # that cell may hold values only
            notebook.cells[k].source = before + cell.source + after
    NotebookClient(notebook, kernel_name="python3", timeout=300).execute(stderr=subprocess.DEVNULL)
    text = ["".join(output.get("text", "") for output in cell.outputs) for cell in notebook.cells]
    seconds = [float(one.split("SECONDS ")[1]) for one in text if "SECONDS " in one]
    return seconds[0], sum(seconds[1:])
