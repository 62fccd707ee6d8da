"""A run or an ensemble as one HTML page: results first, then curves, confusion, calibration, errors, config.

python -m tools.report outputs/demo      writes outputs/demo/report.html

Its looks are in report.html.jinja, its text and figures in report_sections.py.
"""

from __future__ import annotations

import argparse
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import matplotlib
from jinja2 import Environment, FileSystemLoader

from fer_utils.command_line import exit_status
from fer_utils.competition import Competition, DataError
from fer_utils.files import REPOSITORY, write_text
from fer_utils.run.finished_run import Run, load_run
from fer_utils.run.results import commonest, transductive
from tools import report_ensemble
from tools.report_ensemble import NOT_FOUND, Ensemble, load_ensemble
from tools.report_sections import (
    interval,
    is_demo,
    last_part,
    members_of,
    metric_fact,
    percent,
    record_of,
    sections,
)
from tools.run_options import options_parser


def write_report(run: Run | Ensemble, competition: Competition | None, path: Path, note: str = "") -> Path:
    """Write the page of `run` to `path`; it needs no network and holds no script.

    Args:
        run: a finished run, or an ensemble of some.
        competition: the run's data, for the faces; None leaves these out.
        note: why there are no faces.

    Raises:
        DataError: the saved predictions are damaged, or are not those of the competition.
        OutputError: the page cannot be written.
    """
    if ensemble := isinstance(run, Ensemble):
        parts = report_ensemble.facts(run), report_ensemble.sections(run, competition, note)
    else:
        parts = _facts(run), sections(run, competition, note)
    text = render(
        kind="ensemble" if ensemble else "run",
        name=run.out.name,
        headline=f"{percent(run.metrics['valid']['views'])} of the validation images are "
        "classified correctly",
        warnings=_warnings(run),
        next=[] if ensemble else next_steps(run),
        facts=parts[0],
        sections=parts[1],
    )
    return write_text(path, text)


def render(**parts: Any) -> str:
    """The page report.html.jinja with these parts."""
    templates = Environment(autoescape=True, trim_blocks=True, loader=FileSystemLoader(Path(__file__).parent))
    return templates.get_template("report.html.jinja").render(**parts)


def next_steps(run: Run) -> list[tuple[str, str]]:
    """What a person may do after this run, and the command for it; no path but those in the repository."""
    inside = run.out.is_relative_to(REPOSITORY)
    out = run.out.relative_to(REPOSITORY).as_posix() if inside else f"path/to/{run.out.name}"
    epochs, training = run.config.epochs, run.metrics["training"]
    data = "demo" if is_demo(run) else "path/to/data"
    notebook = f".venv/bin/papermill notebooks/04_error_analysis.ipynb {out}/04.ipynb -p out {out}"
    steps = [("See what to change, measured in small trainings, and which labels are doubtful", notebook)]
    if training["epochs"] == training["chosen_epoch"] == epochs and not run.folds:
        longer = f'make submission DATA={data} OUT={out}-longer ARGS="-p epochs {2 * epochs}"'
        steps.append(("Train longer, since the last epoch was the best", longer))
    if not is_demo(run) and (run.out / "submission.csv").is_file():
        steps.append(("Send the submission to Kaggle", f"make submit RUN={out} COMPETITION=SLUG"))
    return steps


def _warnings(run: Run | Ensemble) -> list[str]:
    lines, scores = [], run.metrics["valid"]["views"]
    if is_demo(run):
        lines.append("Drawn demo faces, not a competition: no number here says anything of real faces.")
    name, guess = commonest(scores)
    if scores["ci_low"] <= guess:
        lines.append(f"Not shown to be better than always answering {name}: {100 * guess:.1f} %.")
    lines += dict.fromkeys(f"Warning: {line}." for one in members_of(run) for line in one.config.warnings)
    lines += dict.fromkeys(f"{learned}." for one in members_of(run) if (learned := transductive(one)))
    if isinstance(run, Ensemble):
        return lines
    training = run.metrics["training"]
    if run.folds:
        lines.append(
            f"Out of fold: each image is answered by the one of {len(run.folds)} networks that did not "
            "learn from it. The submission is the average of all, which no labelled image can measure."
        )
    if training.get("out_of_time"):
        lines.append(
            f"Stopped by max_hours after {training['epochs']} of {run.config.epochs} epochs: these are the "
            "results of the best epoch so far; the same run again resumes there."
        )
    elif training["epochs"] < run.config.epochs:
        lines.append(
            f"Stopped early after {training['epochs']} of {run.config.epochs} epochs, as patience "
            f"({run.config.patience}) said: validation accuracy rose no more."
        )
    return lines


def _facts(run: Run) -> list[tuple[str, str, str]]:
    """The numbers of the top: what, its value, and more on it."""
    training, facts = run.metrics["training"], []
    for split in (name for name in ("valid", "test") if name in run.metrics):
        scores = run.metrics[split]
        for what, key in ((f"views: {run.config.views}", "views"), ("plain", "plain")):
            facts.append((f"{split} accuracy, {what}", percent(scores[key]), interval(scores[key])))
        facts += metric_fact(f"{split} ", scores["views"])
        if without := scores["without_copies"]:
            seen = "training images" if split == "valid" else "training and validation images"
            what = f"{split} accuracy without exact copies of {seen}"
            facts.append((what, percent(without), interval(without)))
    name, guess = commonest(run.metrics["valid"]["views"])
    facts.append((f"always answering {name}", f"{100 * guess:.1f} %", "for comparison"))
    record, duration = record_of(run), timedelta(seconds=round(training["seconds"]))
    machine = record.get("environment", {})
    hardware = str(machine.get("hardware", ""))
    if machine.get("device") == "cpu" and (threads := machine.get("threads")):
        hardware += f", {threads} thread{'s' * (threads != 1)} used"
    size = f"{training['parameters'] / 1e6:.2f} M parameters"
    return [
        *facts,
        ("network", f"{run.config.model}, width {run.config.width:g}", size),
        ("epochs", f"{training['epochs']}, epoch {training['chosen_epoch']} kept", f"seed {run.config.seed}"),
        ("training time", str(duration), hardware),
        ("data", str(record.get("layout", "")), last_part(run.config.data)),
    ]


def main(arguments: list[str]) -> int:
    """Write the page from the command line; returns the exit status."""
    parser = options_parser(__doc__)
    parser.add_argument("run", help="folder of a finished run")
    parser.add_argument("--data", default="run", help="where its data lies now; left out, where it lay then")
    parser.add_argument("--no-faces", action="store_true", help="for a page that others may see")
    options = parser.parse_args(arguments)
    matplotlib.use("Agg")  # no window, wherever this runs
    return exit_status(lambda: report_run(options))


def report_run(options: argparse.Namespace) -> None:
    """Write the page of a run, without faces where its data is not there."""
    run, note = load_ensemble(options.run) or load_run(options.run), "the page was made without them."
    if isinstance(run, Ensemble) and not run.scores.get("validated", True):
        raise DataError(f"{run.out}: its runs were validated on different images: there is no result")
    competition, members = None, members_of(run)
    try:
        if members and not options.no_faces:
            competition = members[0].load_data(options.data, any_test=True)
        elif not members:
            note = NOT_FOUND
    except DataError as error:
        note = "the data was not found, or is not the run's; name its place with --data."
        print(f"no faces on the page: {error}", file=sys.stderr)
    path = write_report(run, competition, run.out / "report.html", note)
    print(f"{path} ({path.stat().st_size / 1e6:.1f} MB): open it in a browser")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
