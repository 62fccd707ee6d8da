"""Parameters are read from the cells that IPython has run; mistakes that papermill ignores are refused."""

import sys

import pytest
from IPython.core.interactiveshell import InteractiveShell
from papermill.translators import translate_parameters
from traitlets.config import Config as IPythonConfig

from fer_utils.config import PRESETS, Config, ConfigError
from fer_utils.notebook import read_parameters

IMPORTS = "import math\nfrom pathlib import Path\n%matplotlib inline\nclass Box: pass"
PARAMETERS = """\
data: str = "auto"  # where the images are
seed: int = 0  # of every random draw

learning_rate: float = 0.1  # at its highest
flip: bool = True  # mirror the images
"""
DEFAULTS = {"data": "auto", "seed": 0, "learning_rate": 0.1, "flip": True}


def injected(**values):
    """The cell that papermill puts after the parameters, by papermill itself."""
    return translate_parameters("python3", "python", values, "Parameters")


def run_cells(*cells):
    """The globals() of a notebook after these cells, with `In` as IPython keeps it (an empty first entry)."""
    namespace = {"In": [""]}
    for cell in cells:
        code = "\n".join(line for line in cell.splitlines() if not line.startswith("%"))
        namespace["In"].append(cell)
        exec(code, namespace)
    return namespace


def test_the_defaults_are_read_in_the_order_of_the_cell():
    assert list(read_parameters(run_cells(IMPORTS, PARAMETERS)).items()) == list(DEFAULTS.items())


def test_values_injected_by_papermill_win():
    cells = run_cells(IMPORTS, PARAMETERS, injected(seed=7, data="faces.zip"))
    assert read_parameters(cells) == DEFAULTS | {"seed": 7, "data": "faces.zip"}


def test_a_mistyped_name_from_papermill_names_the_right_one():
    with pytest.raises(ConfigError, match="'lerning_rate': did you mean 'learning_rate'"):
        read_parameters(run_cells(IMPORTS, PARAMETERS, injected(lerning_rate=0.3)))


def test_a_mistyped_name_is_refused_without_a_parameters_tag_too():
    # papermill then injects at the very top
    with pytest.raises(ConfigError, match="unknown parameter 'seed'"):
        read_parameters(run_cells(injected(seed=1), PARAMETERS))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"seed": 1.5}, "seed must be int, got float 1.5"),
        ({"seed": True}, "seed must be int, got bool"),
        ({"seed": None}, "seed must be int, got NoneType"),
        ({"learning_rate": "1e-2"}, "YAML reads 1e-2 as text"),
        ({"learning_rate": float("nan")}, "learning_rate must be a finite number"),
        ({"flip": 1}, "flip must be bool, got int"),
        ({"data": 2013}, "data must be str, got int 2013 .*-r instead of -p"),
        ({"data": ["a", "b"]}, "data must be str, got list"),
    ],
)
def test_a_wrong_type_from_papermill_is_refused(values, message):
    with pytest.raises(ConfigError, match=message):
        read_parameters(run_cells(IMPORTS, PARAMETERS, injected(**values)))


def test_a_count_out_of_range_is_refused():
    with pytest.raises(ConfigError, match="n_explained must be at least 2, got 0"):
        read_parameters({"n_explained": 0, **run_cells(IMPORTS, "n_explained: int = 0")})


def test_an_int_for_a_float_is_taken_as_a_float():
    value = read_parameters(run_cells(PARAMETERS, injected(learning_rate=1)))["learning_rate"]
    assert value == 1.0 and type(value) is float


def test_without_a_cell_of_parameters_the_error_says_what_to_run():
    with pytest.raises(ConfigError, match="name: type = value"):
        read_parameters(run_cells(IMPORTS, "x = 3"))
    with pytest.raises(ConfigError, match="no parameters found"):
        read_parameters({})


def test_a_parameter_without_a_value_is_not_taken_for_one():
    with pytest.raises(ConfigError, match="name: type = value"):
        read_parameters(run_cells("data: str"))


# --- in JupyterLab: cells are run again, edited, and others come between ---


def test_running_all_cells_twice_reads_the_same():
    assert read_parameters(run_cells(*[IMPORTS, PARAMETERS, injected(seed=2)] * 2)) == DEFAULTS | {"seed": 2}


def test_an_edited_cell_counts_in_its_latest_edition():
    edited = PARAMETERS.replace("seed: int = 0", "seed: int = 5") + "epochs: int = 3\n"
    assert read_parameters(run_cells(PARAMETERS, edited)) == DEFAULTS | {"seed": 5, "epochs": 3}


def test_a_name_mistyped_by_hand_is_forgotten_once_it_is_fixed():
    mistyped = PARAMETERS.replace("learning_rate", "lerning_rate")
    assert "lerning_rate" in read_parameters(run_cells(mistyped))  # for Config to refuse
    assert read_parameters(run_cells(mistyped, PARAMETERS)) == DEFAULTS


@pytest.mark.parametrize(
    "scratch",
    [
        "n: int = 3",
        "x = 2 * 3",
        "Box.size: int = 1",
        "counts: dict[str, int] = {}",
        "seed_later: int",
        "def helper(): pass",
        "",
        "   # only a comment",
    ],
)
def test_a_scratch_cell_changes_nothing(scratch):
    assert read_parameters(run_cells(IMPORTS, PARAMETERS, scratch)) == DEFAULTS
    assert read_parameters(run_cells(IMPORTS, scratch, PARAMETERS)) == DEFAULTS


@pytest.mark.parametrize("scratch", ["seed = 9", "seed: int = 9", "seed: int = 9\nflip: bool = False"])
def test_a_scratch_cell_may_set_a_parameter_and_drops_none_of_the_others(scratch):
    parameters = read_parameters(run_cells(PARAMETERS, scratch))
    assert parameters == DEFAULTS | {"seed": 9, "flip": "flip" not in scratch}


def test_a_wrong_type_set_in_a_scratch_cell_is_refused():
    with pytest.raises(ConfigError, match="seed must be int"):
        read_parameters(run_cells(PARAMETERS, "seed = '9'"))


def test_a_cell_that_cannot_be_parsed_is_passed_over():
    namespace = run_cells(PARAMETERS)
    namespace["In"] += ["seed: int = = 3", "!ls", "?print"]
    assert read_parameters(namespace) == DEFAULTS


def test_a_cell_of_parameters_may_begin_with_papermills_own_words():
    assert read_parameters(run_cells("# Parameters\n" + PARAMETERS, injected(seed=1)))["seed"] == 1


def test_odd_targets_in_a_cell_that_poses_as_papermills_do_no_harm():
    odd = "# Parameters\nseed, flip = 2, False\nclass Other: pass\nOther.name = 1"
    assert read_parameters(run_cells(PARAMETERS, odd)) == DEFAULTS | {"seed": 2, "flip": False}


# --- the real thing ---


@pytest.fixture
def shell():
    stdout_hooks = sys.displayhook, sys.excepthook
    settings = IPythonConfig()
    settings.HistoryManager.enabled = False
    yield InteractiveShell(config=settings)
    sys.displayhook, sys.excepthook = stdout_hooks


def test_ipython_keeps_its_cells_as_expected(shell):
    reading = "from fer_utils.notebook import read_parameters\nparameters = read_parameters(globals())"
    for cell in ("%time import math", PARAMETERS, injected(seed=4), "1 + 1", reading):
        shell.run_cell(cell, store_history=True).raise_error()
    assert shell.user_ns["parameters"] == DEFAULTS | {"seed": 4}


def test_with_a_preset_only_what_was_set_is_given(monkeypatch):
    monkeypatch.setitem(PRESETS, "mine", {"epochs": 3, "batch_size": 128, "seed": 1})
    cells = run_cells(
        "preset: str = 'quick'\nseed: int = 0\nepochs: int = 12\nbatch_size: int = 64",
        injected(preset="mine", epochs=12),
    )
    config = Config.from_dict(read_parameters(cells))
    assert config.epochs == 12  # the default, but injected
    assert config.batch_size == 64  # edited in the parameters' own cell
    assert config.seed == 1


def test_with_a_preset_a_later_cell_sets_too(monkeypatch):
    monkeypatch.setitem(PRESETS, "mine", {"epochs": 3, "batch_size": 128})
    cells = run_cells(
        "preset: str = 'mine'\nepochs: int = 12\nbatch_size: int = 256",
        "epochs = 12",
        "batch_size: int = 256",
    )
    assert read_parameters(cells) == {"preset": "mine", "epochs": 12, "batch_size": 256}
