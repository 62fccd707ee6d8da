"""From a facial-expression competition's data to a validated submission, and why the model errs.

The main names can be imported from here. Each is loaded from its module when it is first used (SPEC 1), so
that importing the package costs nothing.
"""

from importlib import import_module

HOMES = {
    "Config": "config",
    "ConfigError": "config",
    "Competition": "competition",
    "DataError": "competition",
    "Split": "competition",
    "OutputError": "files",
    "load_competition": "data.load",
    "validate_submission": "data.submission_csv",
    "write_submission": "data.submission_csv",
    "create_model": "learning.models",
    "TrainingError": "learning.training_loop",
    "Interrupted": "run.interruption",
    "Run": "run.finished_run",
    "load_run": "run.finished_run",
    "fit": "run.train",
    "demo_run": "run.launch",
    "launch": "run.launch",
    "launch_members": "run.launch",
    "print_results": "run.results",
    "runs": "analysis.all_runs",
    "load_reference": "run.committed_results",
    "read_parameters": "notebook",
    # modules, under the names that the notebooks use
    "plots": "figures.plots",
    "galleries": "figures.faces",
    "widgets": "figures.widgets",
}
__all__ = list(HOMES)


def __getattr__(name: str):
    if name not in HOMES:
        raise AttributeError(f"module 'fer_utils' has no attribute {name!r}")
    module = import_module(f"fer_utils.{HOMES[name]}")
    value = module if HOMES[name].startswith("figures.") else getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
