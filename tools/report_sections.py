"""What `tools.report` tells of a run, section by section: words, tables, and figures in base64."""

from __future__ import annotations

import math
from collections.abc import Mapping
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
from fer_utils.learning.competition_metric import readable
from fer_utils.learning.metrics import calibration_table, coverage_table, per_class_table
from fer_utils.run.finished_run import Run
from fer_utils.run.results import curves_in_words
from tools.report_figures import PAPER, WIDTH, figure

N_FACES, COLUMNS = 15, 3
PRIVATE = ("data", "out", "label_fixes", "pseudo", "auxiliary")  # paths: only their last part is shown
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
    return [
        classes(run), _curves(run), confusion(run), calibration(run),
        pairs(run) | faces(run, competition, note), _config(run),
    ]  # fmt: skip


def record_of(run: Run) -> dict[str, Any]:
    """What config.json records beside the parameters."""
    return run.folder.record() or {}


def members_of(run: Any) -> list[Run]:
    """The runs of an ensemble, or the run itself."""
    return getattr(run, "members", [run])


def is_demo(run: Any) -> bool:
    """Whether its faces are drawn ones; data "auto" may have fallen back on them."""
    return any("demo" in (one.config.data, record_of(one).get("layout")) for one in members_of(run))


def percent(scores: Mapping[str, Any]) -> str:
    """The accuracy among scores as people read it: "70.1 %"."""
    return f"{100 * scores['accuracy']:.1f} %"


def interval(scores: Mapping[str, Any]) -> str:
    """The interval of the accuracy among scores, and n."""
    n = together(f"n = {scores['n']:,}")
    return f"{100 * scores['ci_low']:.1f} to {100 * scores['ci_high']:.1f} {together('(95 %),')} {n}"


def metric_fact(what: str, scores: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """The fact of a `metric` other than accuracy among scores, if there is one."""
    if (found := scores.get("metric")) is None:
        return []
    n = together(f"n = {found['n']:,}")
    bounds = f"{found['ci_low']:.3f} to {found['ci_high']:.3f} {together('(95 %),')} {n}"
    return [(what + readable(found["name"]), f"{found['value']:.3f}", bounds)]


def last_part(path: str) -> str:
    """The last part of a path: the rest says where it lay on somebody's machine."""
    return path.replace("\\", "/").rstrip("/").rsplit("/", 1)[-1] or path


def shown_value(name: str, value: Any) -> str:
    """The value of a parameter as text."""
    return last_part(str(value)) if name in PRIVATE else str(value)


def together(text: str) -> str:
    """Text that stays on one line, however narrow its column is on a phone."""
    return text.replace(" ", "\N{NO-BREAK SPACE}")


def _short(name: str, longest: int = LONGEST) -> str:
    """A class name as a figure has room for it."""
    return name if len(name) <= longest else name[: longest - 1] + "…"


def _share(value: float, low: float, high: float) -> str:
    if math.isnan(low):
        return "none"
    return f"{together(f'{100 * value:.0f} %')} {together(f'({100 * low:.0f} to {100 * high:.0f})')}"


def classes(run: Run) -> dict[str, Any]:
    table = per_class_table(run.metrics["valid"]["views"])
    frame = pd.DataFrame({"class": table.index})
    for name in ("recall", "precision"):
        frame[name] = list(map(_share, table[name], table[f"{name}_low"], table[f"{name}_high"]))
    frame["F1"] = ["none" if n == 0 else f"{f1:.3f}" for f1, n in zip(table.f1, table.n, strict=True)]
    frame["n"] = table.n.map("{:,}".format).to_numpy()
    line = "The lowest F1 first, with 95 % intervals. Recall: the share of a class that is found. Precision: "
    line += "the share of the answers that are right. F1: their harmonic mean."
    return {"title": "By class", "lines": [line], "table": frame}


def _curves(run: Run) -> dict[str, Any]:
    training, history = run.metrics["training"], run.history
    last = history.iloc[-1]

    def draw(axs: np.ndarray) -> None:
        plots.learning_curves(history, axs, training["chosen_epoch"])

    return {
        "title": "How it learned",
        "image": figure(draw, 6.0, rows=2),
        "alt": f"Loss and accuracy over {len(history)} epochs. At the end the training loss is "
        f"{last.train_loss:.2f} and the validation accuracy {100 * last.valid_accuracy:.1f} %; epoch "
        f"{training['chosen_epoch']} was kept.",
        "caption": "Loss and accuracy by epoch; the dotted line marks the epoch that was kept. "
        + curves_in_words(run),
    }


def confusion(run: Run) -> dict[str, Any]:
    counts, names = np.array(run.metrics["valid"]["views"]["confusion"]), run.class_names
    wrong = counts - np.diag(counts.diagonal())
    true, said = np.unravel_index(wrong.argmax(), wrong.shape)
    alt = "Confusion matrix; there is no error."
    if wrong.any():
        alt = f"Confusion matrix: most often {names[true]} is taken for {names[said]}, in "
        alt += f"{wrong[true, said]:,} of {counts[true].sum():,} images."
    short = [_short(name) for name in names]
    width = max(WIDTH, 0.4 + 0.42 * len(short) + 0.085 * max(map(len, short)))  # room in every cell

    def draw(ax: Axes) -> None:
        paper = plt.rcParams["figure.facecolor"]
        # A share of 20 % stands out from none, and white digits from the fullest cell (4.5 to 1, WCAG 2.1).
        dark = sns.blend_palette([PAPER, "#1f4e79", "#2b79bd"], as_cmap=True)
        plots.confusion_matrix(counts, short, ax, "Blues" if paper == "white" else dark)
        plt.setp(ax.get_xticklabels(), ha="right", rotation_mode="anchor")

    return {
        "title": "Which classes are confused",
        "image": figure(draw, width + 0.2, width=width),
        "alt": alt,
        "caption": "Of the images of each true class (row), the share that is answered with each class "
        "(column), with counts below.",
    }


def calibration(run: Run) -> dict[str, Any]:
    probs, labels = run.saved_probs("valid"), run.saved("valid", "labels")
    coverage = coverage_table(probs, labels)
    half = coverage.iloc[0]
    error = 100 * run.metrics["valid"]["views"]["calibration_error"]
    surplus = 100 * (probs.max(1).mean() - (probs.argmax(1) == labels).mean())
    verdict = f"On average it is {abs(surplus):.1f} points too {'sure' if surplus > 0 else 'unsure'}"

    def draw(axs: np.ndarray) -> None:
        plots.reliability(calibration_table(probs, labels), axs[0])
        plots.coverage(coverage, axs[1])

    return {
        "title": "How sure it is",
        "image": figure(draw, 6.8, rows=2),
        "alt": f"Accuracy against confidence, which are {error:.1f} points apart on average; and accuracy "
        f"where only the surest answers are kept, {percent(half)} for the surer half.",
        "caption": "Above: accuracy against confidence; on the dotted line, 80 % sure means right in 80 %. "
        f"{verdict}; the dots lie {error:.1f} points from the line (expected calibration error; dots of "
        "fewer than 20 images are not drawn). Below: accuracy where only the surest answers are kept, with "
        "its 95 % interval.",
    }


def pairs(run: Run) -> dict[str, Any]:
    """From the confusion counts, so that it is there without the data too."""
    counts, names = np.array(run.metrics["valid"]["views"]["confusion"]), np.array(run.class_names)
    true, said = np.indices(counts.shape).reshape(2, -1).repeat(counts.ravel(), axis=1)
    section: dict[str, Any] = {"title": "Where it errs"}
    if (true == said).all():
        return section | {"lines": ["It makes no error on the validation split."]}
    answers = pd.DataFrame({"true": names[true], "predicted": names[said], "correct": true == said})
    table = confused_pairs(answers).head(5)
    table["share"] = [together(f"{100 * share:.0f} %") for share in table.share]
    table["more frequent direction"] = [f"{row.mostly_errors:,} {row.mostly}" for row in table.itertuples()]
    table.loc[2 * table.mostly_errors == table.errors, "more frequent direction"] = "both ways alike"
    table["errors"] = table.errors.map("{:,}".format)
    return section | {
        "lines": [
            "The pairs of classes with most errors, both ways together, with their share of all errors."
        ],
        "table": table[["pair", "errors", "share", "more frequent direction"]],
        "words": True,
    }


def faces(run: Run, competition: Competition | None, note: str) -> dict[str, Any]:
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
    images = competition.valid.images[worst.index]
    licence = " These are faces of the competition's data: mind its licence before you share this page."

    def draw(ax: Axes) -> None:
        face_grid(images, ax, COLUMNS, captions)
        plt.setp(ax.texts, fontsize=FACE_FONT)

    return {
        "image": figure(draw, 1.5 * -(-len(worst) // COLUMNS) * WIDTH / COLUMNS),
        "alt": f"{len(worst)} faces that are answered wrongly with most confidence; the first is "
        f"{worst.true.iloc[0]}, said to be {worst.predicted.iloc[0]}.",
        "caption": "The errors with most confidence: the label, the answer and its confidence. Look for "
        "wrong labels here first." + ("" if is_demo(run) else licence),
    }


def _config(run: Run) -> dict[str, Any]:
    def table(values: dict[str, Any], kind: str = "parameter") -> pd.DataFrame:
        texts = {name: shown_value(name, value) for name, value in values.items()}
        return pd.DataFrame({kind: texts.keys(), "value": texts.values()})

    # The size of the images stands in every run's config, whoever set it.
    changed = {name: value for name, value in run.config.changed().items() if name != "image_size"}
    return {
        "title": "How it was made",
        "lines": [
            "The validation split chose the epoch, so its accuracy is slightly too high; a test split "
            "chooses nothing. Intervals are at 95 %: Wilson's for accuracies, a bootstrap over images for "
            "another metric. They hold for this one seed: another seed changes the result as well.",
            "What differs from the defaults:",
        ],
        "table": table(changed),
        "words": True,
        "folded": [
            {"title": "Every parameter", "table": table(run.config.to_dict())},
            {"title": "Versions and hardware", "table": table(record_of(run).get("environment", {}), "what")},
        ],
    }
