"""The house: imports go downwards from folder to folder, without circles, and folders stay small."""

import ast
import graphlib
from pathlib import Path

import pytest

from fer_utils.files import REPOSITORY

pytestmark = pytest.mark.once

# The ground floor first; files of one floor may import each other, without circles.
FLOORS = (
    {
        "fer_utils.config",
        "fer_utils.competition",
        "fer_utils.files",
        "fer_utils.arrays_on_disk",
        "fer_utils.progress",
        "fer_utils.tensorboard_log",
        "fer_utils.command_line",
    },
    {"fer_utils.demo"},
    {"fer_utils.data"},
    {"fer_utils.faces", "fer_utils.learning"},
    {"fer_utils.run"},
    {"fer_utils.analysis"},
    {"fer_utils.figures"},
    {"fer_utils.notebook", "fer_utils.__main__"},
    {"tools"},
)
MODULES = {
    ".".join(path.relative_to(REPOSITORY).with_suffix("").parts): path
    for folder in ("fer_utils", "tools")
    for path in sorted((REPOSITORY / folder).rglob("*.py"))
    if path.name != "__init__.py"
}


def floor(module: str) -> int:
    """The floor of a module, by its own name or that of its folder."""
    (found,) = (k for k, names in enumerate(FLOORS) for name in names if f"{module}.".startswith(f"{name}."))
    return found


def imports(path: Path, anywhere: bool) -> set[str]:
    """The modules of this project that a file imports, at its top or anywhere."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = set()
    for node in ast.walk(tree) if anywhere else tree.body:
        if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] in ("fer_utils", "tools"):
            names = {f"{node.module}.{alias.name}" for alias in node.names} & set(MODULES)
            found |= names or {node.module}
    return found


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_downwards(module):
    for imported in imports(MODULES[module], anywhere=True):
        assert imported in MODULES, f"{module} imports {imported}: name the module, not the package"
        assert floor(imported) <= floor(module), f"{module} imports {imported} from above"


@pytest.mark.parametrize("module", MODULES)
def test_this_project_is_imported_at_the_top_of_a_file(module):
    assert imports(MODULES[module], anywhere=True) == imports(MODULES[module], anywhere=False)


def test_there_are_no_circles():
    graph = {module: imports(path, anywhere=True) for module, path in MODULES.items()}
    assert list(graphlib.TopologicalSorter(graph).static_order())


def test_folders_and_files_stay_small():
    for folder in {path.parent for path in MODULES.values()}:
        assert len(list(folder.glob("*.py"))) <= 14, folder
    assert max(len(path.read_text(encoding="utf-8").splitlines()) for path in MODULES.values()) <= 340


def test_functions_fit_a_screen():
    for path in MODULES.values():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef):
                assert node.end_lineno - node.lineno < 60, f"{path}: {node.name}"
