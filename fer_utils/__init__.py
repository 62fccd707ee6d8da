"""From a facial-expression competition's data to a validated submission, and why the model errs.

The main names can be imported from here; each is loaded from its module when it is first used.
"""

from importlib import import_module

_HOME = {
    "Config": "config",
    "ConfigError": "config",
    "Competition": "faces",
    "DataError": "faces",
    "OutputError": "files",
    "Split": "faces",
    "load_competition": "data",
    "create_model": "models",
    "TrainingError": "learner",
    "Interrupted": "interruption",
    "fit": "train",
    "launch": "launcher",
    "launch_members": "launcher",
    "print_results": "results",
    "Run": "predict",
    "load_run": "predict",
    "load_reference": "reference",
    "write_submission": "submission",
    "validate_submission": "submission",
    "demo_run": "notebook",
    "read_parameters": "notebook",
    "galleries": None,
    "plots": None,
    "widgets": None,
}
__all__ = list(_HOME)


def __getattr__(name: str):
    if name not in _HOME:
        raise AttributeError(f"module 'fer_utils' has no attribute {name!r}")
    module = import_module(f"fer_utils.{_HOME[name] or name}")
    value = module if _HOME[name] is None else getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
