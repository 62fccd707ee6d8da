"""What a run, or a committed result, says of your own pictures: a table and a page of faces with answers.

make predict RUN=outputs/demo FILES=folder/of/faces
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import matplotlib

from fer_utils.command_line import exit_status
from fer_utils.competition import DataError
from fer_utils.data.images import ImageFormat, read_files
from fer_utils.figures.faces import face_gallery
from fer_utils.figures.style import png_bytes
from fer_utils.files import atomic_write, write_text
from fer_utils.run.finished_run import Run, answers, load_run
from fer_utils.run.reference import load_reference
from tools.report_ensemble import load_ensemble
from tools.run_options import options_parser

MOST_SHOWN = 64


def main(arguments: list[str]) -> int:
    """Predict from the command line; returns the exit status."""
    parser = options_parser(__doc__)
    parser.add_argument("run", help="the folder of a run or an ensemble, or the name of a committed result")
    parser.add_argument("files", nargs="+", help="pictures, or a folder of them: faces, cropped and upright")
    parser.add_argument("--out", default="outputs/answers", help="folder for answers.csv and answers.png")
    options = parser.parse_args(arguments)
    matplotlib.use("Agg")  # no window, wherever this runs
    return exit_status(lambda: predict(options))


def predict(options: argparse.Namespace) -> None:
    """Write the answers as a table, and the first pictures with theirs as a figure."""
    table = answers(members(options.run), options.files[0] if len(options.files) == 1 else options.files)
    out = Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / "answers.csv", table.to_csv(index=False))
    shown = table[:MOST_SHOWN]
    images, _, _ = read_files(list(map(Path, shown.file)), ImageFormat(96, channels=3))
    captions = [f"{row.answer}\n{row.certainty:.0%}" for row in shown.itertuples()]
    with atomic_write(out / "answers.png") as temporary:
        temporary.write_bytes(png_bytes(face_gallery(images, captions), 100))
    print(f"{len(table):,} pictures: {out / 'answers.csv'}; the first {len(shown)}: {out / 'answers.png'}")


def members(name: str) -> Sequence[Run]:
    """The runs whose answers are averaged: of an ensemble's folder or a committed result, or one run.

    Raises:
        ConfigError, DataError: there is none, or the ensemble's runs have moved.
    """
    if not Path(name).is_dir():
        return load_reference(name).runs
    if (ensemble := load_ensemble(name)) is None:
        return [load_run(name)]
    if not ensemble.members:
        raise DataError(
            f"{name}: the runs that this ensemble averages ({', '.join(ensemble.scores['members'])}) are no "
            "longer beside it: put them back, or name one of them"
        )
    return ensemble.members


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
