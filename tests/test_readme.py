"""The README: its numbers equal the committed files; its commands, links, names and snippets work."""

import json
import math
import re
import shlex
from types import SimpleNamespace

import numpy as np
import pandas as pd
import papermill
import pytest
import torch
from PIL import Image

import fer_utils
from benchmarks.timing import Row
from fer_utils import load_competition, load_run
from fer_utils.config import EXPECTED, PRESETS, Config, ConfigError
from fer_utils.data.decode_images import read_files
from fer_utils.data.files.file_index import Tree
from fer_utils.data.layouts import registry
from fer_utils.data.layouts.found_pictures import Pictures
from fer_utils.demo.dataset import make_demo
from fer_utils.files import REPOSITORY
from fer_utils.learning.metrics import accuracy_of, wilson_interval
from fer_utils.learning.models import MODELS, FaceNet, ModelOptions, _unit
from fer_utils.run import committed_results
from fer_utils.run.committed_results import load_reference
from fer_utils.run.folder import RunFolder
from tools import kaggle_kernel
from tools.sweep import read_sweep, sweep_table

pytestmark = pytest.mark.once

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
CONTRIBUTING = (REPOSITORY / "CONTRIBUTING.md").read_text(encoding="utf-8")
REFERENCE = REPOSITORY / "outputs" / "reference"
RESULTS = (REFERENCE / "README.md").read_text(encoding="utf-8")
PAGES = [REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md", *sorted(REFERENCE.rglob("*.md"))]
RUNS = sorted(
    path.parent for path in REFERENCE.rglob("metrics.json") if (path.parent / "model.safetensors").exists()
)
AVERAGES = sorted(
    path.parent for path in REFERENCE.glob("*/metrics.json") if not (path.parent / "config.json").exists()
)
FOLDS = REFERENCE / "fer2013-cv"  # without its networks


def accuracy_cell(scores: dict) -> str:
    percent = [100 * scores[key] for key in ("accuracy", "ci_low", "ci_high")]
    return "{:.1f} % ({:.1f} to {:.1f})".format(*percent)


def folds_row() -> str:
    """The line for the folds, from their files alone."""
    metrics = json.loads((FOLDS / "metrics.json").read_text())
    config = json.loads((FOLDS / "config.json").read_text())
    valid, training, folds = metrics["valid"], metrics["training"], metrics["cv"]
    cells = [
        f"[`{FOLDS.name}`]({FOLDS.name}), {config['cv']} folds (sd {100 * folds['sd']:.1f} points)",
        f"Training and PublicTest, out of fold, n = {valid['plain']['n']:,}",
        accuracy_cell(valid["plain"]),
        f"{accuracy_cell(valid['views'])}, `{training['views']}`",
        "no copy on both sides",
        f"{training['seed']}",
        f"{training['seconds'] / 60:.0f} min of one core, beside other work",
        config["record"]["environment"]["hardware"],
    ]
    return "| " + " | ".join(cells) + " |"


def average_rows(folder) -> list[str]:
    """The lines for several runs, for the average of those trained at once (if these are several) and for
    that of all, from the files alone."""
    metrics = json.loads((folder / "metrics.json").read_text())
    members = sorted(folder.glob("member*"))
    training = [json.loads((path / "metrics.json").read_text())["training"] for path in members]
    configs = {path.name: json.loads((path / "config.json").read_text()) for path in members}
    config = configs["member0"]
    minutes, at_once = [part["seconds"] / 60 for part in training], metrics["at_once"]
    ends = [0.0] * at_once  # each run begins when a place is free
    for part in minutes:
        ends[ends.index(min(ends))] += part
    seeds = sorted(some["seed"] for some in configs.values())
    split = "held out of Training and PublicTest" if config.get("pool_valid") else "PublicTest (validation)"
    split = f"FER+, {split}" if config.get("soft_labels") else split
    split += f", n = {metrics['ensemble']['n']:,}"
    mean = {
        kind: f"{100 * metrics[f'{kind}_mean']:.1f} % (sd {100 * metrics[f'{kind}_sd']:.1f})"
        for kind in ("plain", "views")
    }
    views, known, count = training[0]["views"], metrics["without_copies"], len(metrics["members"])
    average = accuracy_cell(metrics["ensemble"])
    chosen = sorted(configs[name]["seed"] for name in metrics["members"])
    threads = config["record"]["environment"]["threads"]
    on = "one core" if threads == 1 else f"{threads} cores"
    last = ["", f"0 to {seeds[-1]}", f"{np.mean(minutes):.0f} min on {on}"]
    first = ["", ", ".join(map(str, seeds[:at_once])), f"{max(minutes[:at_once]):.0f} min"]
    together = [
        f"{accuracy_cell(known)}, n = {known['n']:,}",
        ", ".join(map(str, chosen)),
        f"{max(ends):.0f} min",
    ]
    assert seeds == list(range(len(members)))
    name = f"[`{folder.name}`]({folder.name}), mean of {len(members)}"
    cells = [
        [name, split, mean["plain"], f"{mean['views']}, `{views}`", *last],
        [
            f"the average of the first {at_once}",
            split, "", f"{accuracy_cell(metrics['first'])}, `{views}`", *first,
        ],
        [f"the average of {count} of them", split, "", f"{average}, `{views}`", *together],
    ]  # fmt: skip
    del cells[1 : 1 + (at_once == 1)]
    for row in cells:
        beside = config.get("soft_labels") or config.get("pool_valid")
        beside = beside or {config["teacher"], config.get("auxiliary", "none")} != {"none"}
        busy = ", beside other work" if beside else ""
        row.append(config["record"]["environment"]["hardware"] + busy)
    return ["| " + " | ".join(row) + " |" for row in cells]


@pytest.mark.parametrize("folder", AVERAGES, ids=lambda path: path.name)
def test_the_results_table_equals_the_files(folder):
    for row in average_rows(folder):
        assert row in RESULTS, f"outputs/reference/README.md should hold:\n{row}"


def test_the_row_of_the_folds_equals_the_files():
    assert folds_row() in RESULTS, f"outputs/reference/README.md should hold:\n{folds_row()}"
    for k in range(5):
        assert (FOLDS / f"submission_fold{k}.csv").read_text().count("\n") == 3590
    with pytest.raises(ConfigError, match="without its networks: make reproduce RUN=fer2013-cv"):
        load_reference("fer2013-cv")


def test_the_first_table_equals_the_files():
    """PrivateTest, as the holders of its labels scored the committed submissions, beside validation."""
    scored = json.loads((REFERENCE / "leaderboard.json").read_text())
    metrics = json.loads((REFERENCE / "fer2013-cpu" / "metrics.json").read_text())
    voted = json.loads((REFERENCE / "fer2013-votes-cpu" / "metrics.json").read_text())
    ours, published = scored["runs"]["fer2013-cpu"], list(scored["published"].values())
    hits = round(ours["average"] / 100 * 3589)
    interval = "{:.1f} to {:.1f}".format(*(100 * bound for bound in wilson_interval(hits, 3589)))
    mean, sd = np.mean(ours["seeds"]), np.std(ours["seeds"], ddof=1)
    cells = [row.split(" | ")[-2] for row in average_rows(REFERENCE / "fer2013-cpu")]
    one, together = (re.search(r"\d+ min", cells[k])[0] for k in (0, 2))
    average = accuracy_cell(metrics["ensemble"])
    six = ("fer2013-votes-cpu", "fer2013-faces-cpu")
    mixed = sum(RunFolder(REFERENCE / k).predictions("valid", "probs_views") for k in six)
    faces = json.loads((REFERENCE / "fer2013-faces-cpu" / "metrics.json").read_text())
    labels = RunFolder(REFERENCE / "fer2013-cpu" / "member0").predictions("valid", "labels")
    valid = f"{100 * metrics['views_mean']:.1f} % (sd {100 * metrics['views_sd']:.1f})"
    rows = [
        f"**{ours['average']:.1f} % ({interval})** | {average} | {together}, 2 CPU cores |",
        f"{mean:.1f} % (sd {sd:.1f}) | {valid} | {one}, 1 CPU core |",
        f"Tang) | {published[0]:.1f} % |",
        "one network | {:.1f} to {:.1f} % |".format(*published[1]),
        f"not scored yet | {accuracy_cell(voted['ensemble'])}; one network "
        f"{100 * voted['views_mean']:.1f} % (sd {100 * voted['views_sd']:.1f}) |",
        f"8 networks | {published[2]:.1f} % |",
        f"(extra photos) | not scored yet | {accuracy_cell(accuracy_of(mixed.argmax(1) == labels))}; "
        f"one of the latter {100 * faces['views_mean']:.1f} % (sd {100 * faces['views_sd']:.1f}) |",
    ]
    for name, package in scored["packages"].items():
        # Two digits were given, which must not be rounded twice: 67.15 is 2,410 of 3,589, thus 67.1.
        exact = (100 * round(package[key] * 35.89) / 3589 for key in ("PrivateTest", "PublicTest"))
        cells = "{:.1f} % | {:.1f} % |".format(*exact)
        rows.append(f"`pip install {name}` ({package['version']}) | {cells}")
    for row in rows:
        assert row in README, f"the README should hold:\n{row}"
    seeds = "{:.1f}, {:.1f} and {:.1f} %".format(*ours["seeds"])
    said = f"{seeds}, their average {ours['average']:.1f} % ({interval})"
    assert said in " ".join(RESULTS.split())


def test_what_presets_promise_equals_the_files():
    """In the code, in 03_training and in the README: the mean over seeds, and the time of one of them."""
    rows = {row["arm"]: row for row in json.loads((REFERENCE / "sweeps" / "cpu.json").read_text())["rows"]}
    average = json.loads((REFERENCE / "fer2013-cpu" / "metrics.json").read_text())
    runs = [load_run(path) for path in sorted((REFERENCE / "fer2013-cpu").glob("member*"))]
    seconds = float(np.mean([run.metrics["training"]["seconds"] for run in runs]))
    best = {"mean": average["views_mean"], "sd": average["views_sd"], "seeds": len(runs), "seconds": seconds}
    notebook = (REPOSITORY / "notebooks" / "03_training.ipynb").read_text(encoding="utf-8")
    faces = json.loads((REFERENCE / "sweeps" / "faces.json").read_text())["rows"][0]
    measured = {"quick": rows["base"], "standard": rows["longer"], "best": best, "faces": faces}
    for preset, row in measured.items():
        several = row["sd"] is not None
        spread = f"sd {100 * row['sd']:.1f}, {row['seeds']} seeds" if several else "one seed"
        said = f"{100 * row['mean']:.1f} % ({spread}) in {row['seconds'] / 60:.0f} min"
        assert EXPECTED[preset] == said
        assert f"- `{preset}`: {said}" in notebook
        short = f"`{preset}`, {'the default, ' * (preset == 'quick')}{said.replace(f' ({spread})', '')}"
        assert short in " ".join(README.split()) and row["seeds"] == 3
    changed = runs[0].config.changed()
    elsewhere = ("data", "out", "seed", "n_devices")
    preset = Config(**PRESETS["best"]).at_size(48)
    assert {name: value for name, value in changed.items() if name not in elsewhere} == preset.changed()
    plan = read_sweep(REFERENCE / "sweeps" / "cpu.yaml")
    for preset, arm in (("quick", "base"), ("standard", "longer")):
        now = Config(**PRESETS[preset], precision="bf16")
        assert not now.differing(plan.config(arm, 0, "x"))
    plan = read_sweep(REFERENCE / "sweeps" / "faces.yaml")
    assert not Config(**PRESETS["faces"], weights="path/to/dlib.dat").differing(plan.config("base", 0, "x"))


def test_the_tables_of_sweeps_equal_their_rows():
    results = sorted((REFERENCE / "sweeps").glob("*.json"))
    assert results
    for path in results:
        content = json.loads(path.read_text())
        table = sweep_table(content["rows"]).split("\n\n")[0]  # what is bold is said once for all
        assert table in RESULTS, f"outputs/reference/README.md should hold:\n{table}"
        assert content["environment"]["hardware"] in RESULTS


def test_the_speed_table_equals_the_measurements():
    table = README.split("## Speed")[1].split("\n## ")[0]
    lines = [line for line in table.splitlines() if line.startswith("| ") and "---" not in line][1:]
    sections = json.loads((REFERENCE / "speed-cpu" / "results.json").read_text()).values()
    measured = set()
    for row in (row for section in sections for row in section["rows"]):
        values = {key: math.nan if value is None else value for key, value in row.items()}
        measured.add(Row(**values).as_markdown())
    assert len(lines) > 3
    assert set(lines) <= measured
    assert not any(section["quick"] for section in sections)


def test_the_table_of_trials_equals_the_report():
    """What was tried, and that nothing was lost, section by section, with date and machine."""
    report = json.loads((REFERENCE / "trials" / "results.json").read_text())
    table = (REFERENCE / "trials" / "README.md").read_text(encoding="utf-8")
    told = {name: (int(tried), int(lost)) for name, tried, lost in re.findall(
        r"^\| `(\w+)`: .* \| ([\d,]+) \| (\d+) \|$", table, re.M
    )}  # fmt: skip
    sums = {
        name: tuple(sum(trial[key] for trial in section["trials"]) for key in ("tried", "lost"))
        for name, section in report.items()
    }
    assert told == sums and not any(lost for _, lost in told.values())
    for section in report.values():
        assert not section["quick"]
        assert section["date"] in table and section["environment"]["hardware"] in table
    assert f"[{sum(tried for tried, _ in told.values())} trials, nothing lost]" in README


@pytest.mark.parametrize("name", sorted(committed_results.AVERAGES))
def test_submissions_alone_are_the_averages_of_what_is_committed(name):
    networks = committed_results.AVERAGES[name]
    for part, n in networks.items():
        config = committed_results.with_config(REFERENCE / part).config()
        assert n == (config.cv or len(RunFolder(REFERENCE / part).metrics()["members"])), part
    probs = committed_results.average_of(name, "test")
    submission = pd.read_csv(REFERENCE / name / "submission.csv", dtype=str)
    first = REFERENCE / next(iter(networks))
    assert submission.iloc[:, 0].tolist() == RunFolder(first).predictions("test", "ids").tolist()
    values = json.loads((first / "member0" / "config.json").read_text())["record"]["label_values"]
    assert submission.emotion.tolist() == [str(values[k]) for k in probs.argmax(1)]


@pytest.mark.parametrize("folder", RUNS, ids=lambda folder: folder.name)
def test_reference_runs_are_whole_small_and_free_of_local_paths(folder):
    run = load_run(folder)
    assert (folder / "submission.csv").read_text().count("\n") == 3590
    assert run.history.valid_accuracy.between(0, 1).all()
    files = [path for path in folder.rglob("*") if path.is_file() and "studies" not in path.parts]
    assert (
        sum(path.stat().st_size for path in files) < 20e6
    )  # git ignores the small trainings of the analysis
    assert (folder / "model.safetensors").stat().st_size < 10e6
    assert not re.search(r'"(/|[A-Z]:\\)', (folder / "config.json").read_text())


def test_faces_of_people_are_kept_out_of_git():
    patterns = (REPOSITORY / ".gitignore").read_text().splitlines()
    assert {"outputs/reference/**/faces_*", "outputs/reference/**/*.ipynb"} <= set(patterns)


def test_links_lead_somewhere():
    for path in PAGES:
        text = path.read_text(encoding="utf-8")
        links = re.findall(r"\]\(([^)#]+)[^)]*\)", text) + re.findall(r'<img src="([^"]+)"', text)
        assert links or path != REPOSITORY / "README.md"
        for link in links:
            assert link.startswith("https://") or (path.parent / link).exists(), f"{path}: {link}"


def test_the_table_of_contents_names_the_sections():
    anchors = re.findall(r"\]\(#([\w-]+)\)", README.split("\n## ")[0])
    titles = [
        re.sub(r"[^\w -]", "", title).lower().replace(" ", "-")
        for title in re.findall(r"^## (.*)", README, re.M)
    ]
    assert anchors == titles


def test_make_targets_exist():
    makefile = (REPOSITORY / "Makefile").read_text()
    for target in set(re.findall(r"\bmake ([a-z]+)", README)) - {"on"}:
        assert re.search(rf"^{target}:", makefile, re.M), target


def test_paths_in_commands_exist():
    for name in re.findall(r"notebooks/\w+\.ipynb|(?:fer_utils|tools)/[\w/]+\.py", README):
        assert (REPOSITORY / name).exists(), name


def snippets() -> list[str]:
    return re.findall(r"```python\n(.*?)```", README + CONTRIBUTING, re.S)


def test_the_python_snippet_runs(tmp_path, monkeypatch):
    small = make_demo(200, 60, 20)
    monkeypatch.setattr(fer_utils, "load_competition", lambda *_, **__: small)
    code = snippets()[0].replace("outputs/python", str(tmp_path / "run"))
    scope = {}
    exec(compile(code, "README.md", "exec"), scope)
    assert scope["probs"].shape == (20, 7)
    assert (tmp_path / "run" / "submission.csv").is_file()


def test_the_network_snippet_builds_a_network():
    scope = {"FaceNet": FaceNet, "ModelOptions": ModelOptions, "_unit": _unit, "nn": torch.nn}
    exec(compile(snippets()[1], "README.md", "exec"), scope)
    assert set(MODELS)
    model = scope["tiny"](ModelOptions(num_classes=7, width=1.0, dropout=0.1))
    assert model(torch.rand(2, 1, 48, 48)).shape == (2, 7)


def test_the_layout_snippet_is_all_that_a_new_layout_needs(tmp_path, monkeypatch):
    """One recogniser: splits, classes and ids are decided for it as for all others."""
    for k in range(24):
        image = Image.fromarray(np.full((20, 20), 9 * k, np.uint8))
        image.save(tmp_path / f"{('glad', 'gloomy')[k % 2]} {k:02}.face", "PNG")
    scope = {"Tree": Tree, "Pictures": Pictures, "pd": pd, "read_files": read_files}
    exec(compile(snippets()[2], "README.md", "exec"), scope)
    scope["LOOKS_FOR"] = eval(re.search(r"LOOKS_FOR = ({.*?})", CONTRIBUTING)[1])
    monkeypatch.setattr(registry, "RECOGNISERS", (*registry.RECOGNISERS, SimpleNamespace(**scope)))
    monkeypatch.setenv("FER_CACHE", "off")
    competition = load_competition(tmp_path)
    assert competition.layout == "faces" and competition.class_names == ("glad", "gloomy")
    assert len(competition.train) + len(competition.valid) == 24


def test_the_transform_snippet_blurs_and_is_nothing_at_zero():
    scope = {"Tensor": torch.Tensor, "torch": torch, "F": torch.nn.functional}
    exec(compile(snippets()[3], "README.md", "exec"), scope)
    images, generator = torch.rand(4, 1, 48, 48), torch.Generator().manual_seed(0)
    assert torch.equal(scope["random_blur"](images, 0.0, generator), images)
    blurred = scope["random_blur"](images, 1.0, generator)
    assert blurred.shape == images.shape and (blurred.std((1, 2, 3)) < images.std((1, 2, 3))).all()


def test_snippets_are_short():
    assert len(snippets()) == 4 and max(len(snippet.splitlines()) for snippet in snippets()) < 10


def test_the_kaggle_line_writes_what_the_next_one_uploads(tmp_path):
    line = re.search(r'`make kaggle ARGS="([^"]+)"`', README)[1]
    assert kaggle_kernel.main([*shlex.split(line), "--folder", str(tmp_path)]) == 0
    folder = re.search(r"kaggle kernels push -p outputs/kaggle/([\w-]+)", README)[1]
    metadata = json.loads((tmp_path / folder / "kernel-metadata.json").read_text())
    assert metadata["id"] == re.search(r"kaggle kernels output (\S+)", README)[1]
    assert metadata["competition_sources"] == [re.search(r"kaggle/result COMPETITION=(\w+)", README)[1]]


def test_commands_of_make_pass_parameters_that_exist():
    """Every `-p name` of the README is a parameter of some notebook, every option of a module one of it."""
    names = set()
    for path in (REPOSITORY / "notebooks").glob("*.ipynb"):
        names |= set(papermill.inspect_notebook(path))
    assert set(re.findall(r"-[pr] (\w+) ", README)) - {"outputs"} <= names
    for option in set(re.findall(r"(?<=[\s`=\"])--[a-z-]+", README)):
        folders = ("fer_utils", "tools", "benchmarks")
        sources = [path for folder in folders for path in (REPOSITORY / folder).rglob("*.py")]
        known = any(f'"{option}"' in path.read_text(encoding="utf-8") for path in sources)
        known |= option[2:] in (
            "competition",
            "dataset",
            "kernel",
        )  # of tools.kaggle_kernel, made in a loop
        known |= option in ("--help", "--help-notebook", "--require-hashes", "--no-deps")
        known |= option == "--no-build-isolation"
        assert known, option


def test_the_model_card_says_what_the_files_say():
    folder = REFERENCE / "fer2013-cpu"
    said = " ".join((folder / "README.md").read_text(encoding="utf-8").split())
    metrics = json.loads((folder / "metrics.json").read_text())
    average, runs = metrics["ensemble"], [load_run(path) for path in sorted(folder.glob("member*"))]
    training = runs[0].metrics["training"]
    assert f"with ten fixed views, is {accuracy_cell(average).replace(')', ', Wilson 95 %)')}" in said
    assert f"reaches {100 * metrics['views_mean']:.1f} % (sd {100 * metrics['views_sd']:.1f})" in said
    assert f"{training['parameters'] / 1e6:.2f} M parameters" in said
    words = ("", "One", "Two", "Three", "Four")
    assert f"{words[len(metrics['members'])]} residual networks" in said
    assert f"{words[len(runs)]} were trained" in said
    assert f"{len(runs)} seeds, {training['epochs']} epochs each" in said
    assert f"off by {100 * average['calibration_error']:.1f} points" in said
    for name in ("fear", "disgust", "happy"):
        assert f"{100 * average['per_class'][name]['recall']:.0f} %" in said


def test_the_readme_is_short_enough_to_read():
    assert len(README.splitlines()) <= 200


def test_the_table_of_layouts_names_them_all():
    rows = README.split("| layout | example |")[1].split("\n\n")[0]
    assert set(re.findall(r"^\| `([^`]+)` \|", rows, re.M)) == set(registry.LAYOUTS)
