"""The notebook for Kaggle: made the same every time, and run in a sandbox that looks like Kaggle."""

import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from fer_utils import DataError, load_competition, validate_submission
from fer_utils.analysis.ensemble import member_configs
from fer_utils.config import Config, ConfigError
from fer_utils.data.locate import run_folders, search_data
from fer_utils.demo.dataset import make_demo
from fer_utils.files import REPOSITORY
from fer_utils.notebook import read_parameters
from fer_utils.run.resume_on_kaggle import continue_session, publish_submission
from tools.kaggle_kernel import bundled_notebook, bundles, main

TRAINING, ENSEMBLE = bundles("fer", {"model": "large", "seed": 3, "columns": "label=mood, image=file"}, 4)
MACHINE = REPOSITORY / "tests" / "kaggle_machine.sh"
# What runs inside: the machine is looked at, then the notebook is run as Kaggle runs it.
DRIVER = """
import fcntl, importlib.util, json, socket, struct, sys
link = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
fcntl.ioctl(link, 0x8914, struct.pack("16sh", b"lo", 0x41))  # the kernel talks over the loopback
assert importlib.util.find_spec("fer_utils") is None, "the repository can be seen"
try:
    socket.create_connection(("192.0.2.1", 80), timeout=2)
    raise SystemExit("there is a network")
except OSError:
    pass
import papermill
papermill.execute_notebook(
    "/kaggle/src/notebook.ipynb", "/kaggle/working/__notebook__.ipynb", json.loads(sys.argv[1]),
    cwd="/kaggle/working", progress_bar=False, kernel_name="python3", start_timeout=180,
)
"""
QUICK = {"model": "small", "width": 0.125, "image_size": 32, "batch_size": 64, "views": "plain"}


def source(cell) -> str:
    return "".join(cell["source"])


def parameters(notebook) -> dict:
    cell = next(cell for cell in notebook["cells"] if "parameters" in cell["metadata"].get("tags", []))
    values = {}
    exec(source(cell), values)
    return values


@pytest.mark.parametrize("bundle", [TRAINING, ENSEMBLE], ids=lambda bundle: bundle.name)
def test_the_cells_write_what_the_notebook_runs_byte_for_byte(bundle):
    notebook = bundled_notebook(bundle)
    nbformat.validate(nbformat.from_dict(notebook))
    written = {}
    for cell in notebook["cells"]:
        first, _, body = source(cell).partition("\n")
        if first.startswith("%%writefile "):
            written[first.split()[1].removeprefix("/tmp/fer/")] = (body + "\n").encode()  # as IPython ends it
            assert cell["metadata"]["_kg_hide-input"]
    names = ("demo/dataset", "data/files/download", "faces/predict_photos")
    left_out = [written.pop(f"fer_utils/{name}.py") for name in names]
    assert all(len(text) < 300 for text in left_out)
    assert written == {name: (REPOSITORY / name).read_bytes() for name in written}
    assert {
        "fer_utils/__init__.py",
        "fer_utils/run/train.py",
        "fer_utils/data/layouts/image_arrays.py",
    } <= set(written)
    unused = "widgets|saliency|audit|small_trainings|demo|download|^tools"
    assert not any(re.search(unused, name) for name in written)
    assert notebook["cells"][0]["cell_type"] == "markdown"  # what it does, before the code
    assert len({cell["id"] for cell in notebook["cells"]}) == len(notebook["cells"])


@pytest.mark.once
def test_what_is_carried_is_closed_under_imports(tmp_path):
    """With these files alone every one of them can be imported; the demo's absence is explained. The ensemble
    is run whole in a sandbox below."""
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
    for cell in map(source, bundled_notebook(TRAINING)["cells"]):
        if cell.startswith("%%writefile "):
            first, _, text = cell.partition("\n")
            path = tmp_path / first.split()[1].removeprefix("/tmp/fer/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text + "\n", encoding="utf-8")
            module = ".".join(path.relative_to(tmp_path).with_suffix("").parts)
            code += f"import {module.removesuffix('.__init__')}\n"
    code += "fer_utils.load_competition('demo')"
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert "make_demo is not in this notebook: attach data as its input" in done.stderr.splitlines()[-1], (
        done.stderr
    )


def test_the_rest_is_the_notebook_of_the_repository():
    """Nothing is lost, moved or changed but the defaults of the parameters."""
    original = json.loads((REPOSITORY / "notebooks" / "03_training.ipynb").read_text())["cells"]
    bundled = {cell["id"]: cell for cell in bundled_notebook(TRAINING)["cells"]}
    assert [name for name in bundled if name in {cell["id"] for cell in original}] == [
        c["id"] for c in original
    ]
    changed = [cell for cell in original if source(bundled[cell["id"]]) != source(cell)]
    assert [cell["metadata"].get("tags") for cell in changed] == [["parameters"]]
    before = dict(line.split(" = ", 1) for line in source(changed[0]).splitlines() if " = " in line)
    lines = source(bundled[changed[0]["id"]]).splitlines()
    after = dict(line.split(" = ", 1) for line in lines if " = " in line)
    assert list(before) == list(after)
    assert {name.split(":")[0] for name in before if before[name] != after[name]} == {
        "out", "max_hours", "model", "seed", "columns",
    }  # fmt: skip
    assert all(after[name].split("  # ")[1] == before[name].split("  # ")[1] for name in before)


def test_the_defaults_are_the_knobs_given():
    training, ensemble = (parameters(bundled_notebook(bundle)) for bundle in (TRAINING, ENSEMBLE))
    assert (training["model"], training["seed"], training["max_hours"]) == ("large", 3, 11.0)
    assert training["out"] == "/kaggle/working/run" and ensemble["out"] == "/kaggle/working/ensemble"
    assert (ensemble["n_members"], ensemble["seed"], ensemble["data"]) == (4, 3, "auto")
    members = member_configs(ensemble["recipe"], 4, {"out": "x", "seed": ensemble["seed"]})
    assert [member.seed for member in members] == [3, 4, 5, 6]
    assert {(member.model, member.columns) for member in members} == {("large", "label=mood, image=file")}


def test_each_member_goes_on_from_the_weights_of_its_own_seed():
    training, ensemble = bundles("x", {"weights": "faces{seed}.pth", "seed": 3}, 2)
    assert training.parameters["weights"] == "faces3.pth"
    members = member_configs(ensemble.parameters["recipe"], 2, {"out": "x", "seed": 3})
    assert [member.weights for member in members] == ["faces3.pth", "faces4.pth"]


def test_what_no_recipe_can_have_is_the_trainings_alone():
    knobs = {"epochs": 2, "out": "/kaggle/working/mine", "n_devices": "2"}
    training, ensemble = bundles("x", knobs, 2)
    assert (training.parameters["out"], training.parameters["n_devices"]) == (knobs["out"], "2")
    assert (ensemble.parameters["out"], ensemble.parameters["recipe"]) == (
        "/kaggle/working/ensemble",
        "epochs: 2",
    )
    (folds,) = bundles("x", {"epochs": 2, "cv": 3}, 2)
    assert (folds.source, folds.parameters["cv"]) == ("03_training", 3)


def test_what_is_set_to_a_default_wins_over_the_preset_too():
    training, _ = bundles("x", {"preset": "best", "width": 0.5, "weight_decay": 0.01}, 2)
    cells = bundled_notebook(training)["cells"]
    place = next(k for k, cell in enumerate(cells) if "parameters" in cell["metadata"].get("tags", []))
    ran = {"In": [source(cell) for cell in cells[place : place + 2]]}
    for text in ran["In"]:
        exec(text, ran)
    config = Config.from_dict(read_parameters(ran))
    assert (config.width, config.weight_decay, config.epochs) == (0.5, 0.01, 46)
    assert ran["In"][1] == "# Parameters\nwidth = 0.5", "only what would be taken for unset"


def test_recipes_take_turns():
    configs = member_configs(
        "model: medium; preset: quick, model: small, epochs: 5", 3, {"out": "x", "seed": 0}
    )
    assert [config.model for config in configs] == ["medium", "small", "medium"]
    assert configs[1].epochs == 5 and configs[2].out == "x/member2"
    for recipe, message in (
        ("model=medium", "recipe must be like"),
        ("modl: medium", "did you mean 'model'"),
    ):
        with pytest.raises(ConfigError, match=message):
            member_configs(recipe, 1, {"out": "x", "seed": 0})


def test_the_command_writes_the_same_again(tmp_path, capsys, monkeypatch):
    arguments = [
        "--user",
        "me",
        "--competition",
        "some-faces",
        "--dataset",
        "me/weights",
        "--folder",
        str(tmp_path),
    ]
    assert main([*arguments, "-p", "epochs", "30"]) == 0
    # Kaggle takes 1 MB; people read it there, so that each file counts.
    assert max(path.stat().st_size for path in tmp_path.rglob("*.ipynb")) < 730_000
    files = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert main([*arguments, "-p", "epochs", "30"]) == 0
    assert files == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert sorted(path.relative_to(tmp_path).as_posix() for path in files) == [
        "fer-ensemble/fer-ensemble.ipynb", "fer-ensemble/kernel-metadata.json",
        "fer-training/fer-training.ipynb", "fer-training/kernel-metadata.json",
    ]  # fmt: skip
    metadata = json.loads((tmp_path / "fer-training" / "kernel-metadata.json").read_text())
    assert metadata["id"] == "me/fer-training" and metadata["code_file"] == "fer-training.ipynb"
    assert re.sub(r"\W", "-", metadata["title"]) == "fer-training"  # Kaggle wants the id's own words
    assert metadata["machine_shape"] == "NvidiaTeslaT4" and metadata["enable_gpu"]
    assert metadata["enable_internet"] is False and metadata["is_private"] is True
    assert (metadata["competition_sources"], metadata["dataset_sources"]) == (["some-faces"], ["me/weights"])
    assert not list(tmp_path.rglob(".*"))


def test_without_data_or_with_folds_the_command_says_so(tmp_path, capsys):
    assert main(["--user", "ada", "--folder", str(tmp_path), "-p", "cv", "2"]) == 0
    printed = capsys.readouterr().out
    assert "nothing will be mounted" in printed and "with cv there is no fer-ensemble" in printed
    assert [path.name for path in tmp_path.iterdir()] == ["fer-training"]


def test_what_lies_on_this_machine_is_told_for_it_will_not_be_on_kaggle(tmp_path, capsys):
    (tmp_path / "fixes.csv").touch()
    command = ["--user", "ada", "--competition", "faces", "--folder", str(tmp_path / "out")]
    assert main([*command, "-p", "label_fixes", str(tmp_path / "fixes.csv"), "-p", "preset", "best"]) == 0
    printed = capsys.readouterr().out
    assert f"label_fixes: {tmp_path / 'fixes.csv'} lies on this machine" in printed
    assert printed.count("lies on this machine") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-p", "epoch", "3"], "did you mean 'epochs'"),
        (["-p", "epochs", "ten"], "epochs must be int"),
        (["--competition", "https://www.kaggle.com/c/x"], "--competition must be a plain name"),
        (["--dataset", "faces"], "--dataset must be OWNER/NAME"),
        (["--user", "me@home"], "--user must be a plain name"),
        (["--name", "My_Fer"], "--name must be small letters and digits, with - between words"),
        (["--members", "1"], "--members must be at least 2, got 1"),
        (["-p", "classes", "angry; happy"], "-p classes holds ';'"),
    ],
)
def test_a_wrong_argument_is_named_before_anything_is_written(arguments, message, tmp_path, capsys):
    assert main(["--user", "ada", "--folder", str(tmp_path), *arguments]) == 1
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def unfinished(folder: Path) -> Path:
    folder.mkdir(parents=True)
    for name in ("config.json", "checkpoint.pt", "history.csv", "valid.npz"):
        (folder / name).write_text(name)
    return folder


def test_an_earlier_session_is_found_copied_and_never_overwritten(tmp_path, capsys):
    inputs, out = tmp_path / "input", tmp_path / "working" / "ensemble"
    assert continue_session(out, inputs) == []
    assert "a new one begins" in capsys.readouterr().out
    for k in range(2):
        unfinished(inputs / "notebooks" / "me" / "ensemble" / "ensemble" / f"member{k}")
    unfinished(inputs / "other" / "run")
    assert continue_session(out, inputs) == [out / "member0", out / "member1"]
    assert (out / "member1" / "checkpoint.pt").read_text() == "checkpoint.pt"
    (out / "member1" / "checkpoint.pt").write_text("newer")
    continue_session(out, inputs)
    assert (out / "member1" / "checkpoint.pt").read_text() == "newer"
    unfinished(inputs / "again" / "ensemble" / "member1")
    with pytest.raises(DataError, match="both contain 'ensemble' to resume: detach one"):
        continue_session(out, inputs)


def test_an_earlier_output_is_not_taken_for_data(tmp_path, monkeypatch, tiny_folder, capsys):
    monkeypatch.delenv("FER_DATA", raising=False)
    monkeypatch.setattr("fer_utils.data.locate.KAGGLE_INPUT", tmp_path)
    output = tmp_path / "a-notebook"
    unfinished(output / "run")
    (output / "submission.csv").write_text("id,label\n1,0\n")
    np.savez(output / "run" / "test.npz", ids=np.arange(3), probs=np.ones((3, 2)))
    assert run_folders(tmp_path) == [output / "run"]
    monkeypatch.setattr("fer_utils.data.locate.REPOSITORY_DATA", tmp_path / "none")
    assert search_data() == "demo"
    shutil.copytree(tiny_folder, tmp_path / "competitions" / "tiny")
    assert search_data() == tmp_path / "competitions" / "tiny"
    assert "not used" not in capsys.readouterr().out


def test_without_a_test_split_there_is_nothing_to_publish(tiny, tmp_path, capsys):
    assert publish_submission(tmp_path, dataclasses.replace(tiny, test=None), tmp_path) is None
    assert "is the competition attached?" in capsys.readouterr().out


def namespaces() -> list[str] | None:
    """The command that starts another in namespaces of its own, where this machine allows it."""
    command = [
        "unshare",
        "--mount",
        "--net",
        *(["--map-root-user"] if os.name == "posix" and os.getuid() else []),
    ]
    try:
        done = subprocess.run([*command, "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True)
    except OSError:  # another system than Linux
        return None
    return command if done.returncode == 0 else None


@pytest.fixture(scope="module")
def sandbox():
    command = namespaces()
    if command is None:
        pytest.skip("no namespaces for a sandbox here (they need Linux, and root or user namespaces)")
    return command


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    """A small competition of demo faces in colour."""
    folder, demo = tmp_path_factory.mktemp("faces"), make_demo(300, 10, 40, color=True)
    for name, split in (("train", demo.train), ("test", demo.test)):
        (folder / name).mkdir()
        files = [f"{k:03}.png" for k in range(len(split))]
        for file, image in zip(files, split.images, strict=True):
            Image.fromarray(image.transpose(1, 2, 0)).save(folder / name / file)
        columns = {"id": files} | ({"emotion": split.labels} if name == "train" else {})
        pd.DataFrame(columns).to_csv(folder / f"{name}.csv", index=False)
    pd.DataFrame({"id": files, "emotion": 0}).to_csv(folder / "sample_submission.csv", index=False)
    return folder


def run_on_kaggle(sandbox, bundle, box: Path, inputs: dict[str, Path], **values) -> str:
    """Run a bundle with `inputs` below /kaggle/input; returns what it printed. It writes into box/working."""
    for name in ("src", "working", "root"):
        (box / name).mkdir(parents=True)
    for name, folder in inputs.items():
        shutil.copytree(folder, box / "input" / name)
    (box / "src" / "notebook.ipynb").write_text(json.dumps(bundled_notebook(bundle)))
    (box / "src" / "driver.py").write_text(DRIVER)
    machine = [
        "sh",
        str(MACHINE),
        str(box / "root"),
        str(REPOSITORY),
        sys.prefix,
        str(box),
        json.dumps(values),
    ]
    done = subprocess.run([*sandbox, *machine], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-5000:]
    executed = nbformat.read(box / "working" / "__notebook__.ipynb", as_version=4)
    outputs = [output for cell in executed.cells if cell.cell_type == "code" for output in cell.outputs]
    words = [output.get("text", "") + output.get("data", {}).get("text/markdown", "") for output in outputs]
    return "".join(words)


def check_submission(box: Path, faces: Path) -> None:
    competition = load_competition(str(faces), image_size=32)
    assert competition.channels == 3
    validate_submission(competition, box / "working" / "submission.csv")


@pytest.mark.kaggle
def test_a_training_on_kaggle_ends_in_time_and_goes_on_in_the_next_session(sandbox, faces, tmp_path):
    plain = bundles("fer", {}, 2)[0]
    first = tmp_path / "first"
    values = QUICK | {"epochs": 10_000, "max_hours": 0.002}  # 7 s, on a busy machine too
    printed = run_on_kaggle(sandbox, plain, first, {"competitions/faces": faces}, **values)
    assert "data: /kaggle/input/competitions/faces" in printed and "a new one begins" in printed
    assert "OUT OF TIME after" in printed and "valid: /kaggle/working/submission.csv" in printed
    check_submission(first, faces)
    done = json.loads((first / "working" / "run" / "metrics.json").read_text())["training"]["epochs"]

    inputs = {"faces": faces, "fer-training": first / "working"}
    printed = run_on_kaggle(sandbox, plain, tmp_path / "second", inputs, **values)
    assert "data: /kaggle/input/faces (found below /kaggle/input)" in printed
    assert f"resuming after epoch {done}" in printed
    check_submission(tmp_path / "second", faces)
    # The output holds the run, the notebook and the submission: the code is elsewhere.
    names = {path.name for path in (tmp_path / "second" / "working").iterdir()}
    assert names == {"run", "submission.csv", "__notebook__.ipynb"}


@pytest.mark.kaggle
def test_an_ensemble_on_kaggle(sandbox, faces, tmp_path):
    knobs = QUICK | {"epochs": 1}
    ensemble = bundles("fer", knobs, 2)[1]
    printed = run_on_kaggle(sandbox, ensemble, tmp_path, {"datasets/someone/faces": faces})
    assert "member0: epoch   1/1" in printed and "member1: epoch   1/1" in printed
    assert "valid: /kaggle/working/submission.csv" in printed
    check_submission(tmp_path, faces)
