"""What `tools.report` tells of a run, section by section: words, tables, and figures in base64."""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes

from fer_utils.analysis.predictions import confused_pairs, prediction_table
from fer_utils.competition import Competition
from fer_utils.figures import plots
from fer_utils.figures.faces import face_grid
from fer_utils.learning.metrics import calibration_table, coverage_table, per_class_table
from fer_utils.run.finished_run import Run

N_FACES, COLUMNS = 15, 3
# In inches: so narrow that the words in a figure are large enough where a phone makes it as narrow as itself.
WIDTH, DPI = 4.0, 200
LONGEST = 18  # letters of a class name in a figure; under a face there is room for fewer
LONGEST_UNDER_FACE, FACE_FONT = 14, 9


def sections(run: Run, competition: Competition | None, note: str) -> list[dict[str, Any]]:
    """The sections of the page in order, as its template takes them: title, lines, table, image with alt
    and caption, after, folded, and whether the last column of the table holds words.

    Args:
        competition: the run's data, for the faces; None leaves these out.
        note: why there are no faces.

    Raises:
        DataError: the saved predictions are damaged, or are not those of the competition.
    """
    with plt.rc_context():
        plots.set_style()
        plt.rcParams["text.parse_math"] = False  # a class may have dollar signs in its name
        return [
            _classes(run), _curves(run), _confusion(run), _calibration(run),
            _pairs(run) | _faces(run, competition, note), _config(run),
        ]  # fmt: skip


def record_of(run: Run) -> dict[str, Any]:
    """What config.json records beside the knobs."""
    return run.folder.record() or {}


def is_demo(run: Run) -> bool:
    """Whether its faces are drawn ones; data "auto" may have fallen back on them."""
    return "demo" in (run.config.data, record_of(run).get("layout"))


def percent(scores: Mapping[str, Any]) -> str:
    """The accuracy among scores as people read it: "70.1 %"."""
    return f"{100 * scores['accuracy']:.1f} %"


def last_part(path: str) -> str:
    """The last part of a path: the rest says where it lay on somebody's machine."""
    return path.replace("\\", "/").rstrip("/").rsplit("/", 1)[-1] or path


def together(text: str) -> str:
    """Text that stays on one line, however narrow its column is on a phone."""
    return text.replace(" ", "\N{NO-BREAK SPACE}")


def _short(name: str, longest: int = LONGEST) -> str:
    """A class name as a figure has room for it."""
    return name if len(name) <= longest else name[: longest - 1] + "…"


def _figure(draw: Callable[..., Any], height: float, rows: int = 1, width: float = WIDTH) -> str:
    """What `draw` draws on its axes, as a PNG in base64."""
    fig, axs = plt.subplots(rows, figsize=(width, height))
    fig.get_layout_engine().set(hspace=0.06)
    draw(axs)
    return base64.b64encode(plots.png_bytes(fig, DPI)).decode()


def _share(value: float, low: float, high: float) -> str:
    if math.isnan(low):
        return "none"
    return f"{together(f'{100 * value:.0f} %')} {together(f'({100 * low:.0f} to {100 * high:.0f})')}"


def _classes(run: Run) -> dict[str, Any]:
    table = per_class_table(run.metrics["valid"]["views"])
    frame = pd.DataFrame({"class": table.index})
    for name in ("recall", "precision"):
        frame[name] = list(map(_share, table[name], table[f"{name}_low"], table[f"{name}_high"]))
    frame["F1"], frame["n"] = table.f1.map("{:.3f}".format).to_numpy(), table.n.map("{:,}".format).to_numpy()
    line = "The weakest first, with 95 % intervals. Recall: the share of a class that is found. Precision: "
    line += "the share of the answers that are right."
    return {"title": "By class", "lines": [line], "table": frame}


def _curves(run: Run) -> dict[str, Any]:
    training, history = run.metrics["training"], run.history
    last = history.iloc[-1]

    def draw(axs: np.ndarray) -> None:
        plots.learning_curves(history, axs, training["chosen_epoch"])
        # Below, since so narrow a figure has no room for it among the lines.
        sns.move_legend(
            axs[1], "upper center", bbox_to_anchor=(0.5, -0.3), ncol=2, columnspacing=1, fontsize=9
        )

    return {
        "title": "How it learned",
        "image": _figure(draw, 6.0, rows=2),
        "alt": f"Loss and accuracy over {len(history)} epochs. At the end the training loss is "
        f"{last.train_loss:.2f} and the validation accuracy {100 * last.valid_accuracy:.1f} %; epoch "
        f"{training['chosen_epoch']} was kept.",
        "caption": "Loss and accuracy by epoch; the dotted line marks the epoch that was kept. Training is "
        "measured on augmented pictures, so it may lie below validation.",
    }


def _confusion(run: Run) -> dict[str, Any]:
    counts, names = np.array(run.metrics["valid"]["views"]["confusion"]), run.class_names
    wrong = counts - np.diag(counts.diagonal())
    true, said = np.unravel_index(wrong.argmax(), wrong.shape)
    alt = "Confusion matrix; there is no error."
    if wrong.any():
        alt = f"Confusion matrix: most often {names[true]} is taken for {names[said]}, in "
        alt += f"{wrong[true, said]:,} of {counts[true].sum():,} pictures."
    short = [_short(name) for name in names]
    width = max(WIDTH, 0.4 + 0.42 * len(short) + 0.085 * max(map(len, short)))  # room in every cell

    def draw(ax: Axes) -> None:
        plots.confusion_matrix(counts, short, ax)
        plt.setp(ax.get_xticklabels(), ha="right", rotation_mode="anchor")

    return {
        "title": "What is taken for what",
        "image": _figure(draw, width + 0.2, width=width),
        "alt": alt,
        "caption": "Of the pictures of each true class (row), the share that is answered with each class "
        "(column), with counts below.",
    }


def _calibration(run: Run) -> dict[str, Any]:
    probs, labels = run.saved_probs("valid"), run.saved("valid", "labels")
    coverage = coverage_table(probs, labels)
    half = coverage.iloc[0]
    error = 100 * run.metrics["valid"]["views"]["calibration_error"]

    def draw(axs: np.ndarray) -> None:
        plots.reliability(calibration_table(probs, labels), axs[0])
        plots.coverage(coverage, axs[1])

    return {
        "title": "How sure it is",
        "image": _figure(draw, 6.8, rows=2),
        "alt": f"Accuracy against confidence, which are {error:.1f} points apart on average; and accuracy "
        f"where only the surest answers are kept, {percent(half)} for the surer half.",
        "caption": "Above: accuracy against confidence; on the dotted line, 80 % sure means right in 80 %. "
        f"They are {error:.1f} points apart on average (expected calibration error). Below: accuracy where "
        "only the surest answers are kept, with its 95 % interval.",
    }


def _pairs(run: Run) -> dict[str, Any]:
    """From the confusion counts, so that it is there without the data too."""
    counts, names = np.array(run.metrics["valid"]["views"]["confusion"]), np.array(run.class_names)
    true, said = np.indices(counts.shape).reshape(2, -1).repeat(counts.ravel(), axis=1)
    section: dict[str, Any] = {"title": "Where it errs"}
    if (true == said).all():
        return section | {"lines": ["It makes no error on the validation split."]}
    answers = pd.DataFrame({"true": names[true], "predicted": names[said], "correct": true == said})
    pairs = confused_pairs(answers).head(5)
    pairs["share"] = [together(f"{100 * share:.0f} %") for share in pairs.share]
    return section | {
        "lines": ["The pairs of classes that are taken for each other most, both ways together."],
        "table": pairs[["pair", "errors", "share", "mostly"]],
        "words": True,
    }


def _faces(run: Run, competition: Competition | None, note: str) -> dict[str, Any]:
    """The figure of the most confident errors, or why there is none."""
    if competition is None:
        return {"after": f"The faces are left out: {note}"}
    table = prediction_table(run, competition)
    worst = table[~table.correct].sort_values("confidence", ascending=False, kind="stable").head(N_FACES)
    if not len(worst):
        return {}
    captions = [
        f"{_short(row.true, LONGEST_UNDER_FACE)}\nsaid {_short(row.predicted, LONGEST_UNDER_FACE)}\n"
        f"{100 * row.confidence:.0f} %"
        for row in worst.itertuples()
    ]
    faces = competition.valid.images[worst.index]
    licence = " These are faces of the competition's data: mind its licence before you share this page."

    def draw(ax: Axes) -> None:
        face_grid(faces, ax, COLUMNS, captions)
        plt.setp(ax.texts, fontsize=FACE_FONT)

    return {
        "image": _figure(draw, 1.5 * -(-len(worst) // COLUMNS) * WIDTH / COLUMNS),
        "alt": f"{len(worst)} faces that are answered wrongly with most confidence; the first is "
        f"{worst.true.iloc[0]}, said to be {worst.predicted.iloc[0]}.",
        "caption": "The most confident errors: the label, the answer and its confidence. Look for wrong "
        "labels here first." + ("" if is_demo(run) else licence),
    }


def _config(run: Run) -> dict[str, Any]:
    def table(values: dict[str, Any], kind: str = "knob") -> pd.DataFrame:
        private = ("data", "out", "label_fixes")
        texts = {name: last_part(str(v)) if name in private else str(v) for name, v in values.items()}
        return pd.DataFrame({kind: texts.keys(), "value": texts.values()})

    return {
        "title": "How it was made",
        "lines": [
            "The validation split chose the epoch, which flatters its accuracy a little; a test split "
            "chooses nothing. Intervals are Wilson's at 95 %, for this one seed: another seed moves the "
            "result as well.",
            "What differs from the defaults:",
        ],
        "table": table(run.config.changed()),
        "words": True,
        "folded": [
            {"title": "Every knob", "table": table(run.config.to_dict())},
            {"title": "Versions and hardware", "table": table(record_of(run).get("environment", {}), "what")},
        ],
    }
