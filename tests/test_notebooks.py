"""The notebooks: clean in git, true to Config, and running top to bottom from any working directory."""

import importlib.util
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

import nbconvert
import nbformat
import numpy as np
import pandas as pd
import papermill
import pytest
from conftest import SMALL_DEMO, at_start, fit_members
from nbclient.exceptions import DeadKernelError
from papermill.exceptions import PapermillExecutionError

from fer_utils import demo_run, fit, load_competition, load_run
from fer_utils.analysis.paired_comparison import compare, describe_comparison
from fer_utils.config import PRESET_WORDS, Config
from fer_utils.demo.dataset import make_demo
from fer_utils.files import REPOSITORY
from fer_utils.run import launch

NOTEBOOKS = sorted((REPOSITORY / "notebooks").glob("*.ipynb"))
NAMES = [path.stem for path in NOTEBOOKS]
# Parameters of a notebook that mean something else there than in a training.
DIFFERENT = {
    "01_eda": ("out", "seed"),
    "02_augmentation": ("out", "seed"),
    "03_training": (),
    "04_error_analysis": ("data", "out", "seed", "device"),
    "04b_error_details": ("data", "out", "seed", "device"),
    "05_ensemble": ("data", "out", "seed", "device"),
}
QUICK = {"model": "small", "width": 0.125, "epochs": 1, "image_size": 32, "views": "plain"}


@pytest.fixture(scope="module")
def competition_folder(tmp_path_factory):
    """A small competition of demo faces in the train.csv + test.csv layout."""
    folder = tmp_path_factory.mktemp("competition")
    demo = make_demo(700, 10, 60)

    def text(images):
        return [" ".join(map(str, image.ravel())) for image in images]

    train = pd.DataFrame({"emotion": demo.train.labels, "pixels": text(demo.train.images)})
    train.to_csv(folder / "train.csv", index=False)
    test = pd.DataFrame({"id": range(60), "pixels": text(demo.test.images)})
    test.to_csv(folder / "test.csv", index=False)
    pd.DataFrame({"id": range(60), "emotion": 0}).to_csv(folder / "sample_submission.csv", index=False)
    return folder


# A module that Python imports at start: several runs are trained in the kernel itself.
NO_PROCESSES = """from fer_utils.data.load import load_competition
from fer_utils.run import launch
def here(configs, *_):
    return [launch.fit(c, load_competition(c.data, **c.data_options)) for c in configs]
launch.launch_members = here
"""


def execute(name: str, saved: Path, cwd: Path, /, **parameters):
    """Run a notebook as papermill's command line does, started from `cwd`."""
    source = REPOSITORY / "notebooks" / f"{name}.ipynb"
    return papermill.execute_notebook(
        source, saved, parameters, cwd=cwd, progress_bar=False, kernel_name="python3", start_timeout=180
    )


def printed(notebook) -> str:
    """What was printed, or displayed as text or as a table."""
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    kinds = ("text/markdown", "text/html")
    return "".join(
        output.get("text", "") + "".join(output.get("data", {}).get(kind, "") for kind in kinds)
        for output in outputs
    )


def check_outputs_are_for_people(notebook):
    """No dictionary, no object, no nan and no log among what a notebook shows."""
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            data = output.get("data", {})
            kinds = ("text/html", "text/markdown", "image/png", "application/vnd.jupyter.widget-view+json")
            assert output.output_type == "stream" or any(kind in data for kind in kinds), output
            text = output.get("text", "") + data.get("text/markdown", "") + data.get("text/html", "")
            text = re.sub(r"<style.*?</style>", "", text, flags=re.S)
            assert not re.search(r"\bnan\b|<Axes|\{'|epoch +\d+/|\bci_low\b", text, re.I), text


@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_notebooks_are_clean(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert notebook.metadata.kernelspec.name == "python3"
    assert all(not cell.outputs and cell.execution_count is None for cell in code)
    assert sum("parameters" in cell.metadata.get("tags", []) for cell in code) == 1
    number = path.stem.split("_")[0]
    assert notebook.cells[0].source.startswith(f"# {number} · ")
    assert path.stat().st_size < 40_000


@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_notebooks_are_pleasant_to_read(path):
    notebook = nbformat.read(path, as_version=4)
    prose = [cell for cell in notebook.cells if cell.cell_type == "markdown"]
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    lines = [
        len(cell.source.splitlines()) for cell in code if "parameters" not in cell.metadata.get("tags", [])
    ]
    assert len(prose) >= 0.8 * len(code)
    assert statistics.median(lines) <= 4
    assert max(lines) <= 20
    assert not any(re.search(r"^\s*class ", cell.source, re.M) for cell in code)
    for cell, following in zip(notebook.cells, [*notebook.cells[1:], None], strict=True):
        if cell.cell_type == "code" and re.search(r"^fig.* = (plt\.subplots|plots\.)", cell.source, re.M):
            assert following is not None and following.source.startswith("*"), (
                f"no caption under:\n{cell.source}"
            )


@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_parameters_are_typed_explained_and_common(path):
    parameters = papermill.inspect_notebook(path)
    assert {"data", "out"} <= set(parameters)
    for name, parameter in parameters.items():
        assert parameter["inferred_type_name"] in ("str", "int", "float", "bool"), name
        assert parameter["help"], name


def test_training_parameters_are_the_config():
    """The same names, types, defaults, words and groups, in the same order."""
    source = (REPOSITORY / "fer_utils" / "config.py").read_text(encoding="utf-8")
    table = re.search(r"# fmt: off.*?\n(.*?)    # fmt: on", source, re.S)[1]
    lines = []
    for group, name in re.findall(r"^    (?:# (.*)|(\w+): )", table, re.M):
        if group:
            lines += ["", f"# {group}"]
        else:
            field = Config.__dataclass_fields__[name]
            default = json.dumps(field.default) if isinstance(field.default, str) else field.default
            lines.append(f"{name}: {type(field.default).__name__} = {default}  # {field.metadata['words']}")
        if name == "out":
            lines.append(f'preset: str = "quick"  # {PRESET_WORDS}')
    notebook = nbformat.read(REPOSITORY / "notebooks" / "03_training.ipynb", as_version=4)
    (cell,) = (cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", []))
    assert cell.source == "\n".join(lines[1:])
    assert max(map(len, lines)) <= 110  # ruff would break longer ones
    parameters = papermill.inspect_notebook(REPOSITORY / "notebooks" / "03_training.ipynb")
    assert list(parameters)[:5] == ["data", "out", "preset", "epochs", "seed"]  # what a person sets first
    assert sorted(parameters) == sorted(["preset", *Config.__dataclass_fields__])
    assert all(parameter["help"] for parameter in parameters.values())


@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_parameters_that_are_in_the_config_have_its_words(path):
    for name, parameter in papermill.inspect_notebook(path).items():
        if name in Config.__dataclass_fields__ and name not in DIFFERENT[path.stem]:
            assert parameter["help"] == Config.__dataclass_fields__[name].metadata["words"], name


# Two start in seconds, and test_launch.py starts some with our own packages.
@pytest.mark.parametrize(
    "n_devices", [pytest.param(1, marks=pytest.mark.once), pytest.param(2, marks=pytest.mark.kaggle)]
)
def test_training_by_processes_on_a_competition_from_another_directory(
    n_devices, competition_folder, tmp_path, monkeypatch
):
    # data is relative to where papermill was started, as a person would type it
    monkeypatch.chdir(competition_folder.parent)
    out = tmp_path / "run"
    executed = execute(
        "03_training", tmp_path / "03.ipynb", competition_folder.parent, data=competition_folder.name,
        out=str(out), device="cpu", n_devices=n_devices, preset="quick", **QUICK,
    )  # fmt: skip
    text = printed(executed)
    assert ("training on 2 devices" in text) == (n_devices == 2)
    assert text.count("epoch   1/1") <= 1 and (n_devices == 1 or "epoch   1/1" in text)  # one process speaks
    assert json.loads((out / "metrics.json").read_text())["training"]["n_devices"] == n_devices
    assert f"valid submission: {out / 'submission.csv'} (60 images)" in text and "95 % interval" in text
    assert "WARNING: with epochs 1, start_size 28" in text  # a preset, and QUICK
    top = next(cell for cell in executed.cells if cell.id == "top")  # renewed after the training
    result, picture = (output.data for output in top.outputs)
    accuracy = json.loads((out / "metrics.json").read_text())["valid"]["views"]["accuracy"]
    assert f"Valid accuracy {100 * accuracy:.1f} %" in result["text/markdown"]
    assert len(picture["image/png"]) > 10_000
    page = nbconvert.HTMLExporter().from_notebook_node(executed)[0]
    assert page.index(f"Valid accuracy {100 * accuracy:.1f} %") < page.index('id="Parameters"')


@pytest.mark.once
def test_folds_and_a_metric_and_the_average_of_what_was_validated_on_different_images(
    competition_folder, tmp_path, monkeypatch
):
    at_start(NO_PROCESSES, tmp_path, monkeypatch)  # the test above starts some from a notebook
    out = tmp_path / "run"
    text = printed(
        execute("03_training", tmp_path / "03.ipynb", tmp_path, data=str(competition_folder), out=str(out),
                device="cpu", cv=2, metric="macro_f1", **QUICK)
    )  # fmt: skip
    assert f"valid submission: {out / 'submission.csv'} (60 images)" in text
    assert "macro F1" in text and "n = 700" in text and "with cv near copies are not looked for" in text
    average = execute("05_ensemble", tmp_path / "05.ipynb", tmp_path, runs=f"{out}/fold*",
                      out=str(tmp_path / "average"))  # fmt: skip
    text = printed(average)
    assert "The runs were validated on different images" in str(average.cells)
    assert "no score: the runs were validated on different images" in text
    assert text.count("not measured here: the runs were validated on different images") == 4
    same = [path.read_bytes() for path in (out / "submission.csv", tmp_path / "average" / "submission.csv")]
    assert same[0] == same[1]


@pytest.mark.once
def test_error_details_compare_runs_with_folds_out_of_fold(competition_folder, tmp_path, monkeypatch):
    """On all images; the rest of the page is about the first fold."""
    monkeypatch.setattr(launch, "launch_members", lambda configs, *_: fit_members(configs))
    config = Config(data=str(competition_folder), out=str(tmp_path / "old"), cv=2, **QUICK)
    old = launch.launch_folds(config, load_competition(config.data, **config.data_options))
    new = load_run(shutil.copytree(old.out, tmp_path / "new"))
    saved = {name: old.saved("valid", name) for name in ("ids", "labels", "probs", "probs_views")}
    new.folder.write_predictions("oof", saved | {"probs_views": saved["probs_views"][:, ::-1]})
    executed = execute("04b_error_details", tmp_path / "04b.ipynb", tmp_path, out=str(new.out),
                       compare=str(old.out), n_explained=20)  # fmt: skip
    text, expected = printed(executed), compare([new], [old])
    check_outputs_are_for_people(executed)
    assert "n = 700, 1 seed against 1 seed" in text and describe_comparison(expected) in text
    assert "new / old" in text and "shows the first fold, `fold0`; `compare` uses all" in text
    assert len(expected["gained"]) and (new.out / "fold0" / "figures" / "faces_gained.png").is_file()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_parameters_are_checked_first(path):
    """And test_notebook.py sees what the check refuses."""
    code = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    (at,) = (k for k, cell in enumerate(code) if "parameters" in cell.metadata.get("tags", []))
    assert "read_parameters(globals())" in code[at + 1].source.splitlines()[0] and at <= 2
    assert all(" = display(Markdown(" in cell.source.splitlines()[0] for cell in code[1:at])


@pytest.mark.once
def test_a_wrong_parameter_stops_before_any_work(tmp_path):
    with pytest.raises((PapermillExecutionError, DeadKernelError), match="did you mean 'out'"):
        execute("04_error_analysis", tmp_path / "out.ipynb", tmp_path, owt="x")
    cells = nbformat.read(tmp_path / "out.ipynb", as_version=4).cells
    done = [cell for cell in cells if cell.cell_type == "code" and cell.execution_count is not None]
    (error,) = (output for output in done[-1].outputs if output.output_type == "error")
    assert len(error.traceback) == 1 and error.traceback[0].startswith("ConfigError: "), "no pages of code"
    assert len(done) <= 5  # papermill's banner, imports, parameters, injected parameters and the check


@pytest.mark.parametrize("name", [name for name in NAMES if name[:2] in ("01", "02")])
def test_exploring_notebooks_run_on_demo_data(name, tmp_path, monkeypatch):
    at_start(SMALL_DEMO, tmp_path, monkeypatch)
    execute(name, tmp_path / "out.ipynb", tmp_path, data="demo", out=str(tmp_path / "figures"))
    assert list((tmp_path / "figures").rglob("*.png"))


@pytest.fixture(scope="module")
def two_runs(competition_folder, tmp_path_factory):
    """Two finished runs of other seeds on the small competition."""
    folder = tmp_path_factory.mktemp("runs")
    for seed in range(2):
        out = str(folder / f"seed{seed}")
        config = Config(
            data=str(competition_folder), out=out, seed=seed, model="small", width=0.125, epochs=2
        )
        fit(config, load_competition(config.data, **config.data_options))
    return folder


def test_error_analysis_of_a_run(two_runs, tmp_path):
    """With its small trainings as small as can be."""
    out = str(two_runs / "seed0")
    small = {"folds": 2, "study_epochs": 1, "study_width": 0.125, "study_seeds": 1}
    executed = execute("04_error_analysis", tmp_path / "04.ipynb", tmp_path, out=out, **small)
    text = printed(executed)
    check_outputs_are_for_people(executed)
    assert "so none is advised" in text and "With 1 seed nothing counts as sure" in text
    assert text.index("so none is advised") < text.index("Weakest class")
    figures = {path.stem for path in (two_runs / "seed0" / "figures").glob("*.png")}
    assert {"next_steps", "confusion", "learning_curve", "faces_confident_errors"} <= figures
    installed = importlib.util.find_spec("cleanlab") is not None
    assert ("faces_doubtful_labels" in figures) == installed
    assert ("cleanlab is not installed" in text) == (not installed)
    assert (two_runs / "seed0" / "label_fixes.csv").is_file() == installed


@pytest.mark.once
def test_error_analysis_without_small_trainings(two_runs, tmp_path):
    out = str(two_runs / "seed1")
    bare = execute("04_error_analysis", tmp_path / "bare.ipynb", tmp_path, out=out, studies=False)
    check_outputs_are_for_people(bare)
    assert "Nothing was measured, so nothing is advised" in printed(bare)
    assert not (two_runs / "seed1" / "studies").exists()


def test_error_details_of_a_run(two_runs, tmp_path):
    """With another seed to compare with."""
    out, other = str(two_runs / "seed0"), str(two_runs / "seed1")
    executed = execute("04b_error_details", tmp_path / "04b.ipynb", tmp_path, out=out, compare=other)
    text = printed(executed)
    check_outputs_are_for_people(executed)
    assert "gained" in text and "exact McNemar p" in text.split("bootstrap interval")[1]
    figures = {path.stem for path in (two_runs / "seed0" / "figures").glob("*.png")}
    assert {"faces_confused_pairs", "occlusion", "slices", "calibration", "faces_gained"} <= figures
    installed = importlib.util.find_spec("captum") is not None
    assert ("faces_mean_gradcam" in figures) == installed
    assert ("captum is not installed" in text) == (not installed)


@pytest.mark.once
def test_error_details_without_a_run_to_compare(two_runs, tmp_path):
    bare = execute("04b_error_details", tmp_path / "bare.ipynb", tmp_path, out=str(two_runs / "seed1"))
    assert "nothing to compare with" in printed(bare)


def test_a_fresh_clone_gets_a_demo_run_to_look_into(tmp_path, monkeypatch):
    for name, parameter in (("04_error_analysis", "out"), ("05_ensemble", "runs")):
        parameters = papermill.inspect_notebook(REPOSITORY / "notebooks" / f"{name}.ipynb")
        assert eval(parameters[parameter]["default"]) == "demo"
    small = make_demo(200, 60, 20)
    monkeypatch.setattr(launch, "_demo_data", lambda **options: small)
    run = demo_run(str(tmp_path / "run"), seed=3, device="cpu")
    assert run.config.seed == 3
    assert load_run(tmp_path / "run").metrics == run.metrics


def test_a_fresh_clone_runs_the_ensemble_as_it_is(tmp_path, monkeypatch):
    at_start(SMALL_DEMO, tmp_path, monkeypatch)
    out = tmp_path / "ensemble"
    text = printed(execute("05_ensemble", tmp_path / "05.ipynb", tmp_path, out=str(out)))
    assert ("ensemble of" in text or "alone, chosen" in text) and "exact McNemar p" in text
    assert len((out / "submission.csv").read_text().splitlines()) == 101
    with np.load(out / "valid.npz") as arrays:
        assert np.allclose(arrays["probs_views"].sum(1), 1, atol=1e-4)
    assert json.loads((out / "metrics.json").read_text())["members"]


def test_the_ensemble_tells_apart_runs_whose_last_folders_are_called_the_same():
    """The functions that it calls do (see `distinct_names`); its own cells must not undo that."""
    cells = nbformat.read(REPOSITORY / "notebooks" / "05_ensemble.ipynb", 4).cells
    assert not [cell.source for cell in cells if ".out.name" in cell.source]


def imports_of(notebook):
    return nbformat.read(REPOSITORY / "notebooks" / f"{notebook}.ipynb", 4).cells[1].source


@pytest.mark.parametrize(
    ("code", "absent"),
    [("import fer_utils", ["torch", "pandas"]), (imports_of("01_eda"), ["torch", "sklearn"])],
    ids=["package", "01_eda"],
)
def test_importing_is_light(code, absent):
    """The package loads nothing by itself, and the exploration no training code."""
    code += f"\nimport sys; print([name for name in {absent} if name in sys.modules])"
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True
    )
    assert done.stdout.strip() == "[]"
