"""One notebook for Kaggle: `fer_utils` travels in its cells, for only the notebook is uploaded there.

python -m tools.kaggle_kernel --user NAME --competition SLUG -p model medium -p epochs 30

writes outputs/kaggle/fer-training and outputs/kaggle/fer-ensemble, each a folder for `kaggle kernels push`.
"""

from __future__ import annotations

import argparse
import ast
import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import yaml
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell as _code
from nbformat.v4 import new_markdown_cell as _markdown

import fer_utils
from fer_utils.analysis.ensemble import with_earlier_runs
from fer_utils.command_line import exit_status
from fer_utils.config import EARLIER_RUNS, PRESETS, Config, ConfigError
from fer_utils.files import REPOSITORY, write_json, write_text
from fer_utils.run.resume_on_kaggle import WORKING
from tools.run_options import options_parser

# Outside of /kaggle/working, whose files are the notebook's output.
CODE = "/tmp/fer"
# A session lasts twelve hours; reading the data and what comes after the training need some of them.
SESSION_HOURS = 11.0
# Kaggle folds the code and the output of such a cell away.
FOLDED = {"_kg_hide-input": True, "_kg_hide-output": True}

CODE_TEXT = f"""## The code

The cells below, folded away, write the package `fer_utils` to `{CODE}`: only this file is uploaded, and it
has to work without internet. `make kaggle` wrote it; change the package, not these cells."""
FOLDER_CODE = f"""import os
import sys

for folder in FOLDERS:
    os.makedirs(f"{CODE}/{{folder}}", exist_ok=True)
sys.path.insert(0, "{CODE}")"""
CONTINUE_TEXT = """### An earlier session

A training that Kaggle's hours end keeps its best epoch and its checkpoint. To go on, add the output of that
session to this notebook's input: it is found there, copied, and the training continues where it stood."""
CONTINUE_CODE = """from fer_utils.run.resume_on_kaggle import continue_session, publish_submission

continue_session(out);"""
PUBLISH_TEXT = """## What Kaggle takes

The competition reads `submission.csv` at the top of the notebook's output."""
PUBLISH_CODE = "publish_submission(out, competition);"
# Not carried, and what stands in their place: drawing the demo, downloads, and answers for own photos.
LEFT_OUT = {
    "fer_utils/demo/dataset.py": "make_demo",
    "fer_utils/data/files/download.py": "download",
    "fer_utils/faces/predict_photos.py": "answers",
}
STAND_IN = '''"""Left out of this notebook."""

from fer_utils.competition import DataError


def {name}(*arguments, **options):
    raise DataError("{name} is not in this notebook: attach data as its input, or use the repository")
'''


@dataclass(frozen=True)
class Bundle:
    """One notebook to be made: what it is called, made from, and the defaults of its parameters."""

    name: str
    source: str
    parameters: Mapping[str, Any]


def bundles(name: str, knobs: Mapping[str, Any], members: int) -> list[Bundle]:
    """A training and an ensemble with the same knobs, but `out` and `n_devices`, which are the training's
    alone. With `cv` there is no ensemble: the training averages its folds itself.

    Raises:
        ConfigError: an unknown knob, or a bad value.
    """
    config = with_earlier_runs(Config.from_dict(dict(knobs)))
    shared = {"data": "auto", "max_hours": SESSION_HOURS}
    named = {key: knobs[key] for key in ("data", "seed", "device", "max_hours") if key in knobs}
    recipe = {key: value for key, value in knobs.items() if key not in (*named, "out", "n_devices", "cv")}
    text = yaml.safe_dump(recipe, default_flow_style=True, sort_keys=False, width=10_000).strip()[1:-1]
    training = {**shared, "out": str(WORKING / "run"), **knobs}
    training |= {key: getattr(config, key) for key in knobs if key in EARLIER_RUNS}
    ensemble = {**shared, "out": str(WORKING / "ensemble"), **named, "n_members": members}
    ensemble |= {"recipe": text} if recipe else {}
    both = [
        Bundle(f"{name}-training", "03_training", training),
        Bundle(f"{name}-ensemble", "05_ensemble", ensemble),
    ]
    return both[:1] if config.cv else both


def bundled_notebook(bundle: Bundle) -> NotebookNode:
    """The notebook of a bundle: its source with the package in cells, other defaults, and what is Kaggle's
    alone."""
    notebook = nbformat.read(REPOSITORY / "notebooks" / f"{bundle.source}.ipynb", as_version=4)
    first, *rest = notebook.cells
    code = [k for k, cell in enumerate(rest) if cell.cell_type == "code"]
    place = next(k for k in code if "parameters" in rest[k].metadata.get("tags", ()))
    checked = 1 + next(k for k in code if k > place)  # behind the cell that checks the parameters
    rest[place].source = _with_defaults(rest[place].source, bundle.parameters)
    package = _package(carried_modules(rest[k].source for k in code))
    if meant := _against_preset(
        bundle.parameters
    ):  # a cell like papermill's, by which 03 knows that they are set
        lines = [f"{name} = {value!r}" for name, value in meant.items()]
        rest[place + 1 : place + 1] = [_code("\n".join(["# Parameters", *lines]), id="set")]
        checked += 1
    earlier = [_markdown(CONTINUE_TEXT, id="earlier"), _code(CONTINUE_CODE, id="continue")]
    last = [_markdown(PUBLISH_TEXT, id="kaggle"), _code(PUBLISH_CODE, id="publish")]
    notebook.cells = [first, *package, *rest[:checked], *earlier, *rest[checked:], *last]
    return notebook


def carried_modules(cells: Iterable[str]) -> list[str]:
    """The files of `fer_utils` that a notebook with these code cells runs, sorted, as paths from the
    repository: what its code imports, what that imports, and what a training starts as a process. The
    `__init__.py` of folders are not carried: they hold no code, and Python imports without one too."""
    waiting = {"fer_utils", "fer_utils.run.train", "fer_utils.run.resume_on_kaggle"}
    waiting |= {module for cell in cells for module in _imports(cell)}
    carried: dict[str, str] = {}
    while waiting:
        module = waiting.pop()
        name = module.replace(".", "/") + ("/__init__.py" if module == "fer_utils" else ".py")
        carried[module] = name
        waiting = (waiting | _imports(_text(name))) - set(carried)
    return sorted(carried.values())


def _text(name: str) -> str:
    """What a file of the package holds in the notebook."""
    if name in LEFT_OUT:
        return STAND_IN.format(name=LEFT_OUT[name])
    return (REPOSITORY / name).read_text(encoding="utf-8")


def _imports(source: str) -> set[str]:
    """The modules of `fer_utils` that a piece of code imports, a public name by its home."""
    found = set()
    for statement in ast.walk(ast.parse(source)):
        if not isinstance(statement, ast.ImportFrom) or statement.module.split(".")[0] != "fer_utils":
            continue
        for name in (alias.name for alias in statement.names):
            inner = f"{statement.module}.{fer_utils.HOMES.get(name, name)}"
            is_module = REPOSITORY.joinpath(*inner.split(".")).with_suffix(".py").is_file()
            found.add(inner if is_module else statement.module)
    return found


def _package(files: Sequence[str]) -> list[NotebookNode]:
    """A cell that makes the folders, and a cell for each file, which writes it byte for byte."""
    folders = json.dumps(sorted({name.rpartition("/")[0] for name in files}))
    cells = [
        _markdown(CODE_TEXT, id="code"),
        _code(FOLDER_CODE.replace("FOLDERS", folders), id="code-folders"),
    ]
    for number, name in enumerate(files):
        text = f"%%writefile {CODE}/{name}\n{_text(name)}".removesuffix("\n")  # the cell magic adds it
        cells.append(_code(text, id=f"file-{number}", metadata=FOLDED))
    return cells


def _against_preset(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """What was set to a default of `Config` of which the preset has another value."""
    preset = PRESETS.get(parameters.get("preset", "quick"), {})
    return {
        name: value for name, value in parameters.items() if name in preset and value == getattr(Config, name)
    }


def _with_defaults(source: str, defaults: Mapping[str, Any]) -> str:
    """The parameters cell with other values; names, types and comments stay."""
    for name, value in defaults.items():
        text = json.dumps(value) if isinstance(value, str) else repr(value)
        before = re.search(rf"^{name}: \w+ = (\"[^\"]*\"|\S+)", source, re.M)
        if before is None:
            raise ConfigError(f"the notebook has no parameter {name!r}")
        source = source[: before.start(1)] + text + source[before.end(1) :]
    return source


def write_bundle(bundle: Bundle, folder: Path, user: str, sources: Mapping[str, Sequence[str]]) -> Path:
    """Write the notebook and what `kaggle kernels push` reads into `folder`/NAME: two T4s, no internet
    (written out: its default differs by version). The same again changes nothing.

    Args:
        sources: names of what is mounted, as "competition", "dataset" and "kernel".
    """
    path = folder / bundle.name / f"{bundle.name}.ipynb"
    write_text(path, json.dumps(bundled_notebook(bundle), ensure_ascii=False, separators=(",", ":")) + "\n")
    metadata = {
        "id": f"{user}/{bundle.name}",
        "title": bundle.name.replace("-", " "),
        "code_file": path.name,
        "language": "python",
        "kernel_type": "notebook",
        "is_private": True,
        "enable_gpu": True,
        "enable_internet": False,
        "machine_shape": "NvidiaTeslaT4",
        **{f"{kind}_sources": list(names) for kind, names in sources.items()},
    }
    write_json(path.with_name("kernel-metadata.json"), metadata)
    return path


def main(arguments: list[str]) -> int:
    """Write the bundles from the command line; returns the exit status."""
    parser = options_parser(__doc__)
    add = parser.add_argument
    add("--user", required=True, help="your name on Kaggle")
    for source in ("competition", "dataset", "kernel"):
        add(f"--{source}", action="append", default=[], help=f"a {source} to mount; may be given again")
    add("--name", default="fer", help="the notebooks are called NAME-training and NAME-ensemble")
    add("--members", type=int, default=4, help="trainings of the ensemble")
    add("-p", nargs=2, action="append", default=[], metavar=("KNOB", "VALUE"), help="as papermill's -p")
    add("--folder", type=Path, default=REPOSITORY / "outputs" / "kaggle", help="where they are written")
    options = parser.parse_args(arguments)
    return exit_status(lambda: write_bundles(options))


def write_bundles(options: argparse.Namespace) -> None:
    """Write the notebooks and print what is still to be done by hand."""
    sources = {kind: getattr(options, kind) for kind in ("competition", "dataset", "kernel")}
    for kind, names in {"name": [options.name], "user": [options.user], **sources}.items():
        pattern, form = r"[\w-]+", "a plain name, as in the address of its page"
        if kind == "name":  # Kaggle makes the address of it
            pattern, form = "[a-z0-9]+(-[a-z0-9]+)*", "small letters and digits, with - between words"
        if kind in ("dataset", "kernel"):
            pattern, form = r"[\w-]+/[\w-]+", "OWNER/NAME"
        if wrong := [name for name in names if not re.fullmatch(pattern, name)]:
            raise ConfigError(f"--{kind} must be {form}, got {wrong[0]!r}")
    if options.members < 2:
        raise ConfigError(f"--members must be at least 2, got {options.members}")
    if wrong := [name for name, value in options.p if ";" in value]:
        raise ConfigError(f"-p {wrong[0]} holds ';', which separates the recipes of an ensemble")
    parameters = {name: yaml.safe_load(value) for name, value in options.p}
    for bundle in bundles(options.name, parameters, options.members):
        print(write_bundle(bundle, options.folder, options.user, sources).parent)
    if parameters.get("cv"):
        print(f"with cv there is no {options.name}-ensemble: the training averages its folds itself")
    if not any(sources.values()):
        print("no --competition and no --dataset: nothing will be mounted, and the notebooks find no data")
    for name, value in parameters.items():
        parts = value.split(",") if isinstance(value, str) and name != "out" else []
        if here := [part.strip() for part in parts if part.strip() and Path(part.strip()).exists()]:
            print(
                f"{name}: {', '.join(here)} lies on this machine. Put it into a dataset on Kaggle, attach "
                "that, and give its path there (/kaggle/input/...)"
            )
    print(f"next: kaggle kernels push -p {Path(options.folder) / options.name}-training")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
