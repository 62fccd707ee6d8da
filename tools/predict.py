"""What a run, or a committed result, says of your own pictures: a table and a page of faces with answers.

make predict RUN=outputs/demo FILES=folder/of/faces
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import matplotlib

from fer_utils.command_line import exit_status
from fer_utils.data.images import read_files
from fer_utils.figures.faces import face_gallery
from fer_utils.figures.style import png_bytes
from fer_utils.files import atomic_write, write_text
from fer_utils.run.finished_run import load_run
from fer_utils.run.reference import load_reference
from tools.run_options import options_parser

MOST_SHOWN = 64


def main(arguments: list[str]) -> int:
    """Predict from the command line; returns the exit status."""
    parser = options_parser(__doc__)
    parser.add_argument("run", help="the folder of a run, or the name of a committed result (fer2013-cpu)")
    parser.add_argument("files", nargs="+", help="pictures, or a folder of them: faces, cropped and upright")
    parser.add_argument("--out", default="outputs/answers", help="folder for answers.csv and answers.png")
    options = parser.parse_args(arguments)
    matplotlib.use("Agg")  # no window, wherever this runs
    return exit_status(lambda: predict(options))


def predict(options: argparse.Namespace) -> None:
    """Write the answers as a table, and the first pictures with theirs as a figure."""
    is_folder = Path(options.run).is_dir()
    run = load_run(options.run) if is_folder else load_reference(options.run)
    table = run.predict_files(options.files[0] if len(options.files) == 1 else options.files)
    out = Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / "answers.csv", table.to_csv(index=False))
    shown = table[:MOST_SHOWN]
    images, _, _ = read_files(list(map(Path, shown.file)), 96, channels=3)
    captions = [f"{row.answer}\n{row.certainty:.0%}" for row in shown.itertuples()]
    with atomic_write(out / "answers.png") as temporary:
        temporary.write_bytes(png_bytes(face_gallery(images, captions), 100))
    print(f"{len(table):,} pictures: {out / 'answers.csv'}; the first {len(shown)}: {out / 'answers.png'}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
