"""All runs in a folder as a table and one page with their learning curves; and scores of the leaderboard.

make runs                                    prints the table, writes outputs/runs.html and outputs/runs.csv
make submitted RUN=outputs/x PUBLIC=0.7132   stores what the leaderboard said of its submission.csv
"""

from __future__ import annotations

import argparse
import shutil
import sys
from typing import Any

import matplotlib
import pandas as pd

from fer_utils.analysis.all_runs import metric_of, runs
from fer_utils.analysis.leaderboard import leaderboard_in_words, store_score
from fer_utils.command_line import exit_status
from fer_utils.competition import DataError
from fer_utils.config import METRICS, ConfigError
from fer_utils.figures.plots import LINES, curves_together
from fer_utils.files import find_path, write_text
from fer_utils.learning.competition_metric import readable
from fer_utils.run.folder import RunFolder
from tools.report import render
from tools.report_figures import figure
from tools.run_options import options_parser

STATES = ("finished", "stale", "out of time", "unfinished", "failed", "damaged")
SHOWN = ("run", "state", "note", "valid", "public", "private", "95 % interval", "mean of seeds")
SHOWN += ("seed", "epochs", "minutes", "device", "data", "changed")
# What a narrow terminal does not show, first what is missed least; the page has it. Never the note, which
# says what is wrong with a run, nor the data, without which runs cannot be compared.
MISSED_LEAST = ("device", "epochs", "seed", "minutes", "mean of seeds", "95 % interval")
# What a column holds, said once where the text is in it.
LEGEND = {
    "note": ("transductive", "transductive: learned from test images too, without their labels."),
    "data": (
        " ",
        "data: its name, and the first 8 digits of its fingerprint (SHA-256 of all images and labels): "
        "compare only runs of the same one.",
    ),
}


def main(arguments: list[str]) -> int:
    """List runs, or store a score, from the command line; returns the exit status."""
    parser = options_parser(__doc__)
    parser.add_argument(
        "folder", nargs="?", default="outputs", help="folder of runs; with --public, of one run"
    )
    parser.add_argument("--public", type=float, help="store this public score of the run in this folder")
    parser.add_argument("--private", type=float, help="its private score")
    parser.add_argument("--public-n", type=int, help="images behind the public score, where it is known")
    options = parser.parse_args(arguments)
    if options.public is None and (options.private, options.public_n) != (None, None):
        parser.error("--private and --public-n stand beside --public")
    matplotlib.use("Agg")  # no window, wherever this runs
    return exit_status(lambda: list_runs(options.folder) if options.public is None else store(options))


def store(options: argparse.Namespace) -> None:
    """Store a score and say where; a ConfigError where a person typed percents."""
    metric = metric_of(find_path(options.folder))
    for name, score in (("PUBLIC", options.public), ("PRIVATE", options.private)):
        if metric in METRICS and metric != "log_loss" and (score or 0) > 1:
            hint = f": did you mean {name}={score / 100:.6g}?" if score <= 100 else ""
            raise ConfigError(f"{score:g}: {readable(metric)} must lie between 0 and 1{hint}")
    path = store_score(options.folder, options.public, options.private, options.public_n)
    print(f"stored in {path}: make runs shows it beside validation")


def list_runs(folder: str) -> None:
    """Print the table of `runs`, and write it as a page and as CSV."""
    table, out = runs(folder), find_path(folder)
    words, shown = leaderboard_in_words(table), readable_runs(table)
    for column, (text, meaning) in LEGEND.items():
        words += [meaning] if column in shown and shown[column].str.contains(text).any() else []
    write_text(out / "runs.csv", table.to_csv(index=False))
    print(table_text(shown, shutil.get_terminal_size().columns if sys.stdout.isatty() else None))
    print(*words, sep="\n")
    counts = table.state.value_counts()
    text = render(
        kind="folder",
        name=out.name,
        headline=f"{len(table):,} runs: "
        + ", ".join(f"{counts[state]:,} {state}" for state in STATES if state in counts),
        sections=[
            *_curves(table, folder),
            {"title": "All runs", "lines": words, "table": shown, "words": True, "broad": True},
        ],
    )
    print(f"{write_text(out / 'runs.html', text)}: open it in a browser; {out / 'runs.csv'} has all columns")


def readable_runs(table: pd.DataFrame) -> pd.DataFrame:
    """The columns of `runs` as people read them: percents with intervals, minutes; without empty columns."""
    columns = {"valid": [], "95 % interval": [], "mean of seeds": []}
    for row in table.itertuples():
        scale, digits, unit = (100, 1, " %") if row.metric == "accuracy" else (1, 3, f" {row.metric}")
        numbers = (row.value, row.ci_low, row.ci_high, row.mean, row.sd)
        value, low, high, mean, sd = (f"{scale * number:.{digits}f}" for number in numbers)
        known = not pd.isna(row.value)
        beside = "" if row.metric == "accuracy" else f", accuracy {100 * row.accuracy:.1f} %"
        columns["valid"].append(f"{value}{unit}{beside}" if known else "")
        columns["95 % interval"].append(f"{low} to {high}, n = {row.n:,.0f}" if known else "")
        columns["mean of seeds"].append(
            f"{mean}{unit} (sd {sd}, {row.seeds:.0f} seeds)" if row.seeds > 1 else ""
        )
    rows = table.assign(**columns)
    rows["minutes"] = table.seconds / 60
    for name in ("public", "private"):
        shares = (table.metric == "accuracy") & table[name].between(0, 1)
        forms = shares.map({True: "{:.2%}", False: "{:.4f}"})
        rows[name] = list(map(_text, rows[name], forms))
    for name, form in {"seed": 0, "epochs": 0, "minutes": 1}.items():
        rows[name] = [_text(value, f"{{:.{form}f}}") for value in rows[name]]
    rows["data"] = (table.data + " " + table.fingerprint.str[:8]).str.strip()
    shown = rows[[*SHOWN]]
    return shown.loc[:, (shown != "").any()]


def table_text(shown: pd.DataFrame, width: int | None) -> str:
    """The table as lines of at most `width` characters, if leaving out columns of `MISSED_LEAST` can do it,
    and a line that says which; None: as wide as it is."""

    def lines(longest: int) -> str:
        short = shown.map(lambda cell: cell if len(cell) <= longest else f"{cell[: longest - 3]}...")
        aligned = short.apply(lambda cells: cells.str.ljust(cells.str.len().max()))
        return aligned.to_string(index=False, justify="left")

    def fits(text: str) -> bool:
        return width is None or max(map(len, text.splitlines())) <= width

    left_out = []
    for column in MISSED_LEAST:
        if fits(lines(40)):
            break
        if column in shown:
            shown = shown.drop(columns=column)
            left_out.append(column)
    text = lines(60) if fits(lines(60)) else lines(40)
    return f"{text}\nnot shown in a terminal this narrow: {', '.join(left_out)}" if left_out else text


def _text(value: float, form: str) -> str:
    return "" if pd.isna(value) else form.format(value).replace("%", " %")


def _curves(table: pd.DataFrame, folder: str) -> list[dict[str, Any]]:
    """The section of the learning curves; none where no run has a readable history."""
    histories = {}
    for name in table.run[(table.kind == "run") & table.value.notna()]:
        try:
            histories[name] = RunFolder(find_path(folder).absolute() / name).history()
        except (DataError, OSError):
            continue  # the table says that it is damaged
        if len(histories) == len(LINES):
            break
    if not histories:
        return []
    height = 4.5 + 0.2 * len(histories)
    caption = (
        f"Validation accuracy by epoch of the first {len(histories)} runs of the table; a dot marks the "
    )
    caption += "best epoch. Compare runs on the same data only."
    image = figure(lambda ax: curves_together(histories, ax), height, width=8.0)
    said = f"Validation accuracy over epochs of {', '.join(histories)}."
    return [{"title": "Learning curves", "image": image, "alt": said, "caption": caption}]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
