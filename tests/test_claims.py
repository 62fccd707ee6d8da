"""The table of claims: every test that it names exists, and no figure of a notebook is missing."""

import ast
import importlib
import json
import re

import pytest

from fer_utils.files import REPOSITORY

pytestmark = pytest.mark.once

TABLE = (REPOSITORY / "tests" / "claims.md").read_text(encoding="utf-8")
SECTIONS = {  # the cells of each row below the head of a section's table
    section.splitlines()[0].strip(): [
        tuple(cell.strip() for cell in line.strip("| ").split(" | "))
        for line in section.splitlines()
        if line.startswith("|") and not line.startswith(("|---", "| figure or sentence"))
    ]
    for section in re.split(r"^## ", TABLE, flags=re.M)[1:]
}
NOTEBOOKS = sorted((REPOSITORY / "notebooks").glob("*.ipynb"))
MODULES = [path.stem for path in (REPOSITORY / "fer_utils" / "figures").glob("[a-z]*.py")]
# They save or set up, or have another function's figure.
NO_FIGURES = {"save_figure", "set_style", "class_colors", "png_bytes", "label_rows"}


def figure_functions() -> set[str]:
    """Public functions of fer_utils.figures that notebooks may call."""
    found = set()
    for name in MODULES:
        module = importlib.import_module(f"fer_utils.figures.{name}")
        found |= {word for word, value in vars(module).items() if callable(value) and not word.startswith("_")
                  and getattr(value, "__module__", "") == module.__name__}  # fmt: skip
    return found - NO_FIGURES


def calls(path) -> set[str]:
    """The names of all functions that a notebook's code calls as `module.name(...)`."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    return set(re.findall(r"\b\w+\.(\w+)\(", code))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_figure_of_a_notebook_has_its_claim_and_test(path):
    (rows,) = (rows for title, rows in SECTIONS.items() if title[:2] == path.stem[:2])  # 04b stands with 04
    named = set(re.findall(r"`(\w+)`", " ".join(first for first, _, _ in rows)))
    assert calls(path) & figure_functions() <= named


@pytest.mark.parametrize("section", [title for title, rows in SECTIONS.items() if rows])
def test_every_test_that_is_named_exists(section):
    for figure, claim, tests in SECTIONS[section]:
        assert claim.strip(), figure
        places = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", tests)
        assert places, f"{section}, {figure}: no test"
        for file, name in places:
            tree = ast.parse((REPOSITORY / file).read_text(encoding="utf-8"))
            assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, (
                file,
                name,
            )


def test_a_missing_figure_would_be_noticed(tmp_path):
    assert {
        "class_counts",
        "faces_by_class",
        "boxes",
        "ranges",
        "accuracy_intervals",
    } <= figure_functions()
    cell = {"cell_type": "code", "source": ["plots.class_counts(competition, ax)\n", "ax.grid()"]}
    (tmp_path / "x.ipynb").write_text(json.dumps({"cells": [cell]}))
    assert calls(tmp_path / "x.ipynb") & figure_functions() == {"class_counts"}
