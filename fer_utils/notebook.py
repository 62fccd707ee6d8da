"""The checked parameters of a notebook."""

from __future__ import annotations

import ast
import dataclasses
from collections.abc import Mapping
from typing import Any

from fer_utils.config import Config, ConfigError, check_names, checked_value

# The least that a count may be, of parameters that are none of `Config`.
LEAST = {"n_explained": 2, "study_seeds": 1, "study_epochs": 1, "folds": 2, "n_members": 0}
_TYPES = {"bool": bool, "int": int, "float": float, "str": str}


def read_parameters(namespace: Mapping[str, Any]) -> dict[str, Any]:
    """The notebook's parameters with their values, checked. Call it as `read_parameters(globals())`. Where
    there is a `preset`, parameters at their default are left out unless papermill or a later cell set them.

    papermill only warns of a mistyped parameter and continues with the default. So this reads the executed
    cells (IPython keeps them in `In`): the cell of annotated values declares names and types, and papermill's
    injected cell may only set those. Later cells may set some of them again.

    Raises:
        ConfigError: an unknown name (the nearest known one is suggested) or a wrong type.
    """
    declared: dict[str, type] = {}
    later: set[str] = set()
    for source in namespace.get("In", []):
        found = _declared(source)
        if found and len(found) >= len(declared):  # the parameters cell, first or edited, and no scratch cell
            declared, later = found, set()
            continue
        if source.startswith("# Parameters"):  # papermill writes this line above what it injects
            check_names(_assigned(source), list(declared))
        later |= {*_assigned(source), *found}
    if not declared:
        raise ConfigError("no parameters found: first run their cell, which holds lines `name: type = value`")
    values = {name: checked_value(name, namespace[name], kind) for name, kind in declared.items()}
    for name, least in LEAST.items():
        if values.get(name, least) < least:
            raise ConfigError(f"{name} must be at least {least}, got {values[name]}")
    if "preset" in values:
        fields = dataclasses.fields(Config)
        unset = {field.name for field in fields if values.get(field.name) == field.default} - later
        values = {name: value for name, value in values.items() if name not in unset}
    return values


def _statements(source: str) -> list[ast.stmt]:
    try:
        return ast.parse(source).body
    except SyntaxError:  # a cell that failed
        return []


def _declared(source: str) -> dict[str, type]:
    """Names and types of a cell that holds annotated values and nothing else; empty for any other cell."""
    declared = {}
    for statement in _statements(source):
        match statement:
            case ast.AnnAssign(ast.Name(name), ast.Name(kind), ast.expr()):
                if kind in _TYPES:
                    declared[name] = _TYPES[kind]
            case _:
                return {}
    return declared


def _assigned(source: str) -> list[str]:
    targets = [target for s in _statements(source) if isinstance(s, ast.Assign) for target in s.targets]
    return [target.id for target in targets if isinstance(target, ast.Name)]
