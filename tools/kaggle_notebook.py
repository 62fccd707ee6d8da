"""One notebook for Kaggle: `fer_utils` travels in its cells, for only the notebook is uploaded there.

python -m tools.kaggle_notebook --user NAME --competition SLUG -p model medium -p epochs 30

writes outputs/kaggle/fer-training and outputs/kaggle/fer-ensemble, each a folder for `kaggle kernels push`.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

import fer_utils
from fer_utils.command_line import exit_status
from fer_utils.config import Config, ConfigError
from fer_utils.files import REPOSITORY, atomic_write, write_json
from fer_utils.run.kaggle_session import WORKING

# Outside of /kaggle/working, whose files are the notebook's output.
CODE = "/tmp/fer"
# A session lasts twelve hours; reading the data and what comes after the training need some of them.
SESSION_HOURS = 11.0
# Kaggle's own word for a cell whose code is folded away, and JupyterLab's.
FOLDED = {"_kg_hide-input": True, "_kg_hide-output": True, "jupyter": {"source_hidden": True}}

CODE_TEXT = f"""## The code

The cells below, folded away, write the package `fer_utils` to `{CODE}`: only this file is uploaded, and it
has to work without internet. `make kaggle` wrote it; change the package, not these cells."""
FOLDER_CODE = f"""import sys
from pathlib import Path

for folder in ({{folders}}):
    Path("{CODE}", folder).mkdir(parents=True, exist_ok=True)
sys.path.insert(0, "{CODE}")"""
CONTINUE_TEXT = """### An earlier session

A training that Kaggle's hours end keeps its best epoch and its checkpoint. To go on, add the output of that
session to this notebook's input: it is found there, copied, and the training continues where it stood."""
CONTINUE_CODE = """from fer_utils.run.kaggle_session import continue_session, publish_submission

continue_session(out);"""
PUBLISH_TEXT = """## What Kaggle takes

The competition reads `submission.csv` at the top of the notebook's output."""
PUBLISH_CODE = "publish_submission(out, competition);"


@dataclass(frozen=True)
class Bundle:
    """One notebook to be made: what it is called, made from, and the defaults of its parameters."""

    name: str
    source: str
    parameters: Mapping[str, Any]


def bundles(name: str, knobs: Mapping[str, Any], members: int, hours: float) -> list[Bundle]:
    """A training and an ensemble with the same knobs.

    Raises:
        ConfigError: an unknown knob, or a bad value.
    """
    Config.from_dict(dict(knobs))
    shared = {"data": "auto", "max_hours": hours}
    named = {key: knobs[key] for key in ("data", "seed", "device", "max_hours") if key in knobs}
    recipe = {key: value for key, value in knobs.items() if key not in named}
    text = yaml.safe_dump(recipe, default_flow_style=True, sort_keys=False, width=10_000).strip()[1:-1]
    training = {**shared, "out": str(WORKING / "run"), **knobs}
    ensemble = {**shared, "out": str(WORKING / "ensemble"), **named, "n_members": members}
    ensemble |= {"recipe": text} if recipe else {}
    return [
        Bundle(f"{name}-training", "03_training", training),
        Bundle(f"{name}-ensemble", "05_ensemble", ensemble),
    ]


def bundled_notebook(bundle: Bundle) -> dict[str, Any]:
    """The notebook of a bundle, as JSON: its source with the package in cells, other defaults, and what is
    Kaggle's alone."""
    path = REPOSITORY / "notebooks" / f"{bundle.source}.ipynb"
    notebook = json.loads(path.read_text(encoding="utf-8"))
    cells = notebook["cells"]
    index = next(k for k, cell in enumerate(cells) if "parameters" in cell["metadata"].get("tags", ()))
    cells[index] = _with_defaults(cells[index], bundle.parameters)
    code = [_markdown("code", CODE_TEXT), *_package(carried_modules(map(_source, cells)))]
    earlier = [_markdown("earlier", CONTINUE_TEXT), _code("continue", CONTINUE_CODE)]
    last = [_markdown("kaggle", PUBLISH_TEXT), _code("publish", PUBLISH_CODE)]
    checked = index + 1 + next(k for k, c in enumerate(cells[index + 1 :]) if c["cell_type"] == "code") + 1
    notebook["cells"] = [cells[0], *code, *cells[1:checked], *earlier, *cells[checked:], *last]
    return notebook


def carried_modules(cells: Iterable[str]) -> list[str]:
    """The files of `fer_utils` that a notebook with these cells runs, sorted, as paths from the repository:
    what its code imports, what that imports, and what a training starts as a process."""
    waiting = {"fer_utils", "fer_utils.run.train", "fer_utils.run.kaggle_session"}
    waiting |= {module for cell in cells for module in _imports(cell)}
    carried: dict[str, set[str]] = {}
    while waiting:
        module = waiting.pop()
        path = REPOSITORY.joinpath(*module.split("."))
        path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        carried[path.relative_to(REPOSITORY).as_posix()] = found = _imports(path.read_text(encoding="utf-8"))
        done = {name.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for name in carried}
        waiting = (waiting | found | {module.rpartition(".")[0]}) - done - {""}
    return sorted(carried)


def _imports(source: str) -> set[str]:
    """The modules of `fer_utils` that a piece of code imports, a public name by its home."""
    try:
        statements = list(ast.walk(ast.parse(source)))
    except SyntaxError:  # prose
        return set()
    found = set()
    for statement in (s for s in statements if isinstance(s, ast.ImportFrom)):
        package = statement.module or ""
        if package.split(".")[0] != "fer_utils":
            continue
        for name in (alias.name for alias in statement.names):
            if package == "fer_utils" and name in fer_utils.HOMES:
                found.add(f"fer_utils.{fer_utils.HOMES[name]}")
            else:
                path = REPOSITORY.joinpath(*package.split("."), name)
                found.add(f"{package}.{name}" if path.with_suffix(".py").is_file() else package)
    return found


def _package(files: Sequence[str]) -> list[dict[str, Any]]:
    """A cell that makes the folders, and a cell for each file, which writes it byte for byte."""
    folders = ", ".join(json.dumps(folder) for folder in sorted({name.rpartition("/")[0] for name in files}))
    cells = [_code("code-folders", FOLDER_CODE.replace("{folders}", folders))]
    for name in files:
        text = (REPOSITORY / name).read_text(encoding="utf-8").removesuffix("\n")  # the cell magic adds it
        cells.append(
            _code(re.sub(r"\W+", "-", f"module-{name}"), f"%%writefile {CODE}/{name}\n{text}", FOLDED)
        )
    return cells


def _with_defaults(cell: dict[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters cell with other values; names, types and comments stay."""
    lines = _source(cell).split("\n")
    for name, value in defaults.items():
        pattern = re.compile(rf"({name}: \w+ = )(\"[^\"]*\"|\S+)(  #.*)?")
        places = [k for k, line in enumerate(lines) if pattern.fullmatch(line)]
        if not places:
            raise ConfigError(f"the notebook has no parameter {name!r}")
        before, _, comment = pattern.fullmatch(lines[places[0]]).groups()
        text = json.dumps(value) if isinstance(value, str) else repr(value)
        lines[places[0]] = f"{before}{text}{comment or ''}"
    return cell | {"source": "\n".join(lines)}


def _markdown(name: str, text: str) -> dict[str, Any]:
    return {"cell_type": "markdown", "id": name, "metadata": {}, "source": text}


def _code(name: str, text: str, metadata: Mapping[str, Any] | None = None) -> dict[str, Any]:
    return {
        "cell_type": "code",
        "execution_count": None,
        "id": name,
        "metadata": dict(metadata or {}),
        "outputs": [],
        "source": text,
    }


def _source(cell: Mapping[str, Any]) -> str:
    return "".join(cell["source"])


def kernel_metadata(bundle: Bundle, user: str, sources: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """What `kaggle kernels push` reads: two T4s, no internet (written out: its default differs by version).

    `sources` may hold "competition", "dataset" and "kernel", each with the names of what is mounted.
    """
    return {
        "id": f"{user}/{bundle.name}",
        "title": bundle.name.replace("-", " "),
        "code_file": f"{bundle.name}.ipynb",
        "language": "python",
        "kernel_type": "notebook",
        "is_private": True,
        "enable_gpu": True,
        "enable_tpu": False,
        "enable_internet": False,
        "machine_shape": "NvidiaTeslaT4",
        "competition_sources": list(sources.get("competition", ())),
        "dataset_sources": list(sources.get("dataset", ())),
        "kernel_sources": list(sources.get("kernel", ())),
        "model_sources": [],
        "keywords": [],
    }


def write_bundle(bundle: Bundle, folder: Path, user: str, sources: Mapping[str, Sequence[str]]) -> Path:
    """Write the notebook and its metadata into `folder`/NAME; the same again changes nothing."""
    path = folder / bundle.name / f"{bundle.name}.ipynb"
    text = json.dumps(bundled_notebook(bundle), indent=1, ensure_ascii=False) + "\n"
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    write_json(path.with_name("kernel-metadata.json"), kernel_metadata(bundle, user, sources))
    return path


def _known_user() -> str | None:
    """The name in the environment or in kaggle.json; the key beside it is not looked at."""
    if os.environ.get("KAGGLE_USERNAME"):
        return os.environ["KAGGLE_USERNAME"]
    folder = Path(os.environ.get("KAGGLE_CONFIG_DIR", Path.home() / ".kaggle"))
    try:
        return json.loads((folder / "kaggle.json").read_text(encoding="utf-8"))["username"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def main(arguments: list[str]) -> int:
    """Write the bundles from the command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--user", help="your name on Kaggle; left out, the one in KAGGLE_USERNAME or kaggle.json")
    for source in ("competition", "dataset", "kernel"):
        add(f"--{source}", action="append", default=[], help=f"a {source} to mount; may be given again")
    add("--name", default="fer", help="the notebooks are called NAME-training and NAME-ensemble")
    add("--members", type=int, default=4, help="trainings of the ensemble")
    add("--hours", type=float, default=SESSION_HOURS, help="that the training may take in one session")
    add("-p", nargs=2, action="append", default=[], metavar=("KNOB", "VALUE"), help="as papermill's -p")
    add("--folder", type=Path, default=REPOSITORY / "outputs" / "kaggle", help="where they are written")
    options = parser.parse_args(arguments)
    return exit_status(lambda: write_bundles(options))


def write_bundles(options: argparse.Namespace) -> None:
    """Write both notebooks and print what is still to be done by hand."""
    sources = {kind: getattr(options, kind) for kind in ("competition", "dataset", "kernel")}
    user = options.user or _known_user()
    _check_names(options.name, user, sources)
    parameters = {name: yaml.safe_load(value) for name, value in options.p}
    for bundle in bundles(options.name, parameters, options.members, options.hours):
        print(write_bundle(bundle, options.folder, user or "USERNAME", sources).parent)
    if not user:
        print("no --user: write your Kaggle name over USERNAME in kernel-metadata.json before you push")
    if not any(sources.values()):
        print("no --competition and no --dataset: nothing will be mounted, and the notebooks draw demo faces")


def _check_names(name: str, user: str | None, sources: Mapping[str, Sequence[str]]) -> None:
    for word, values in (("name", [name]), ("user", [user] if user else []), *sources.items()):
        pattern = r"[\w-]+/[\w-]+" if word in ("dataset", "kernel") else r"[\w-]+"
        for value in values:
            if not re.fullmatch(pattern, value):
                form = "OWNER/NAME" if "/" in pattern else "a plain name, as in the address of its page"
                raise ConfigError(f"--{word} must be {form}, got {value!r}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
