"""What a run, or a committed result, says of your own images: a table and a page of faces with answers.

make predict RUN=outputs/demo FILES=folder/of/faces
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from fer_utils.command_line import exit_status
from fer_utils.competition import DataError
from fer_utils.faces.predict_photos import answers, opened
from fer_utils.figures.style import YELLOW, class_colors, label_rows, png_bytes
from fer_utils.files import atomic_write, write_text
from fer_utils.run.committed_results import load_reference
from fer_utils.run.finished_run import Run, load_run
from tools.report_ensemble import load_ensemble
from tools.report_sections import is_demo
from tools.run_options import options_parser

MOST_SHOWN, SHOWN_PIXELS = 48, 200


def main(arguments: list[str]) -> int:
    """Predict from the command line; returns the exit status."""
    parser = options_parser(__doc__)
    parser.add_argument("run", help="the folder of a run or an ensemble, or the name of a committed result")
    parser.add_argument("files", nargs="+", help="photos or cropped faces, upright, or a folder of them")
    parser.add_argument("--whole", action="store_true", help="search for no faces: the images are cropped")
    parser.add_argument("--out", default="outputs/answers", help="folder for answers.csv and answers.png")
    options = parser.parse_args(arguments)
    matplotlib.use("Agg")  # no window, wherever this runs
    return exit_status(lambda: predict(options))


def predict(options: argparse.Namespace) -> None:
    """Write the answers as a table, and the first images with theirs as a figure."""
    files = options.files[0] if len(options.files) == 1 else options.files
    runs = members(options.run)
    if any(map(is_demo, runs)):
        print("WARNING: this network learned drawn demo faces: its answers say nothing of real ones")
    table = answers(runs, files, crop=not options.whole)
    out = Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / "answers.csv", table.to_csv(index=False))
    shown = table[:MOST_SHOWN]
    photos, boxes = [], []
    for row in shown.itertuples():
        photo = opened(Path(row.file))
        scale = min(1.0, SHOWN_PIXELS / max(photo.size))
        photos.append(np.asarray(photo.resize([max(1, round(scale * side)) for side in photo.size])))
        boxes.append([scale * float(edge) for edge in row.box.split()])
    with atomic_write(out / "answers.png") as temporary:
        temporary.write_bytes(png_bytes(answer_cards(photos, boxes, shown, runs[0].class_names), 100))
    said = ", ".join(f"{count:,} {face}" for face, count in table.face.value_counts().items())
    print(f"{len(table):,} images: {out / 'answers.csv'}; faces: {said}")
    print(f"the first {len(shown)} with their answers: {out / 'answers.png'}")


def members(name: str) -> Sequence[Run]:
    """The runs whose answers are averaged: of an ensemble's folder or a committed result, or one run.

    Raises:
        ConfigError, DataError: there is none, or the ensemble's runs have moved.
    """
    if not Path(name).is_dir():
        reference = load_reference(name)
        if reference.missing:
            here = ", ".join(run.out.name for run in reference.runs)
            print(
                f"{name}: of its networks only {here} is here, without {', '.join(reference.missing)}; the "
                "answers are not those of the whole average"
            )
        return reference.runs
    if (ensemble := load_ensemble(name)) is None:
        return [load_run(name)]
    if not ensemble.members:
        raise DataError(
            f"{name}: not all of the runs that this ensemble averages "
            f"({', '.join(ensemble.scores['members'])}) are there, seen from its folder: put them back, or "
            "name one of them"
        )
    return ensemble.members


def answer_cards(
    photos: Sequence[np.ndarray],
    boxes: Sequence[Sequence[float]],
    table: pd.DataFrame,
    class_names: Sequence[str],
    columns: int = 3,
) -> Figure:
    """A card for each photo uint8 [H, W, 3]: the photo with a frame around its box (left, top, right, bottom;
    empty: all of it was used), beside it a bar for the probability of each class.

    `table` is one of `fer_utils.faces.predict_photos.answers`."""
    rows = max(1, -(-len(photos) // columns))
    options = {"squeeze": False, "width_ratios": [1, 1.1] * columns, "layout": "constrained"}
    fig, axs = plt.subplots(rows, 2 * columns, figsize=(4.2 * columns, 1.9 * rows), **options)
    for ax in axs.flat[2 * len(photos) :]:
        ax.set_axis_off()
    for n, (photo, box, row) in enumerate(zip(photos, boxes, table.to_dict("records"), strict=True)):
        left, right = axs.flat[2 * n], axs.flat[2 * n + 1]
        left.imshow(photo)
        left.set(xticks=[], yticks=[])
        found = f"{row['face']}, all is used" if row["face"] == "none found" else row["face"]
        left.set_title(f"{Path(row['file']).name[-24:]}\nface: {found}", fontsize=8)
        if len(box):
            (x, y), (width, height) = box[:2], (box[2] - box[0], box[3] - box[1])
            left.add_patch(Rectangle((x, y), width, height, fill=False, color=YELLOW, linewidth=2))
        shares = [row[name] for name in class_names]
        right.barh(range(len(class_names)), shares, color=class_colors(class_names))
        right.set(xlim=(0, 1), xticks=[])
        right.set_title(f"{row['answer']}\n{100 * row['confidence']:.0f} % certain", fontsize=8)
        label_rows(right, class_names)
        right.tick_params(axis="y", labelsize=7)
        sns.despine(ax=left, left=True, bottom=True)
        sns.despine(ax=right, bottom=True)
    return fig


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
