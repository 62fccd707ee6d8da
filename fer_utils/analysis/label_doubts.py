"""Doubtful labels: found by confident learning and written to a file for review; a bound on their share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from fer_utils.analysis.audit import image_table
from fer_utils.analysis.near_copies import near_copies, other_faces
from fer_utils.competition import Competition, DataError
from fer_utils.data.corrections import apply_fixes
from fer_utils.demo.dataset import demo_truth
from fer_utils.files import atomic_write
from fer_utils.learning.metrics import accuracy_of

# How much more probable the suggested class must be than the given one to be used without review. On FER2013,
# with networks of 61 % accuracy, a second look agreed with 38 of the 50 clearest suggestions and 17 of 50
# random others.
CLEAR = 0.5


def doubtful_labels(
    probs: np.ndarray, labels: np.ndarray, class_names: tuple[str, ...]
) -> pd.DataFrame | None:
    """Which of the labels int64 [N] are probably wrong, the most doubtful first, by the `probs` [N, C] of
    networks that were not trained on these images (confident learning, Northcutt et al. 2021).

    The confident joint determines how many labels of each class are doubtful; they are ranked by how much
    more probable another class is than the given one.

    Returns:
        A row per doubtful image: `row` in `labels`; `given` and `suggested`, class names; their
        probabilities `given_probability` and `suggested_probability`; `clear`, whether these are `CLEAR`
        apart. None without cleanlab, which Kaggle's image lacks.
    """
    try:
        from cleanlab.filter import find_label_issues
    except ModuleNotFoundError:
        return None
    options = {"return_indices_ranked_by": "normalized_margin", "filter_by": "prune_by_noise_rate"}
    rows = find_label_issues(labels, probs, n_jobs=1, **options).astype(np.int64)
    rows = rows[probs[rows].argmax(1) != labels[rows]]
    names, given, suggested = np.array(class_names), labels[rows], probs[rows].argmax(1)
    found = pd.DataFrame({"row": rows, "given": names[given], "suggested": names[suggested]})
    found["given_probability"], found["suggested_probability"] = probs[rows, given], probs[rows, suggested]
    return found.assign(clear=found.suggested_probability - found.given_probability >= CLEAR)


def describe_doubts(doubts: pd.DataFrame | None, n: int, agreement: float) -> str:
    """How many of `n` labels are doubtful, and how far to trust the networks that say so, which agree with a
    share `agreement` of all labels."""
    if doubts is None:
        return "Not measurable here: cleanlab is not installed (`pip install cleanlab`)."
    if doubts.empty:
        return f"None of {n:,} training labels is doubtful; the networks agree with {100 * agreement:.0f} %."
    return (
        f"**{len(doubts):,} of {n:,} training labels are doubtful, {doubts.clear.sum():,} of them clearly.** "
        f"The networks that judge them agree with {100 * agreement:.0f} % of all labels; the weaker they "
        "are, the more of their doubts are their own errors."
    )


def describe_conflicts(competition: Competition) -> str:
    """How often two labels of one photograph differ, and the share of wrong labels that follows, in words.

    If a label is wrong with probability e, independently of the other copies, two labels of a photograph
    agree with probability (1 - e)^2. Copies that were labelled together agree more often, so e is a lower
    bound. The interval is a bootstrap over photographs, which may have many copies.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    table = image_table(competition)
    pairs, codes = near_copies(competition, table), table.label.cat.codes.to_numpy()
    first, second = (pairs[name].to_numpy() for name in ("first", "second"))
    labelled = (codes[first] >= 0) & (codes[second] >= 0)
    differs = (codes[first] != codes[second])[labelled]
    if not len(differs):
        return "Share of wrong labels: not measurable here, no photograph is there twice with two labels."
    if (by_chance := other_faces(differs.mean(), table.label.value_counts().tolist())) is not None:
        return (
            f"Share of wrong labels: not measurable here. Of {len(differs):,} pairs of near copies "
            f"{100 * differs.mean():.1f} % have two labels that differ, of any two images "
            f"{100 * by_chance:.1f} %: these pairs are different faces that look alike."
        )
    links = coo_matrix((np.ones(len(pairs)), (first, second)), (len(table), len(table)))
    photograph = connected_components(links)[1][first][labelled]
    counts = pd.DataFrame({"differs": differs, "n": 1}).groupby(photograph).sum().to_numpy()
    draws = np.random.default_rng(0).integers(len(counts), size=(1000, len(counts)))
    sums = counts[draws].sum(1)
    shares = np.array([differs.mean(), *np.quantile(sums[:, 0] / sums[:, 1], [0.025, 0.975])])
    wrong, low, high = 100 * (1 - np.sqrt(1 - shares))
    return (
        f"{differs.sum():,} of {len(differs):,} pairs of near copies have two labels that differ "
        f"({100 * shares[0]:.1f} %). So at least about {wrong:.1f} % of all labels are wrong (95 % interval "
        f"{low:.1f} to {high:.1f}); more, if copies were labelled together."
    )


def describe_wrong_labels(competition: Competition, doubts: pd.DataFrame | None, seed: int = 0) -> str:
    """How many labels are wrong, without a network, in words: by `describe_conflicts`; on the demo data drawn
    with `seed`, how many of the first 50, of the clear and of all doubts are really wrong."""
    if not competition.is_demo:
        return describe_conflicts(competition)
    if doubts is None or doubts.empty:
        return "On the demo data the wrong labels are known, but there are no doubts to compare with them."
    truth = pd.concat(demo_truth(seed=seed).values()).set_index("id").truth
    truth = truth.loc[competition.train.ids].to_numpy()
    is_hit = (truth != competition.train.labels)[doubts.row]
    parts = []
    for n in sorted({min(50, len(doubts)), int(doubts.clear.sum()), len(doubts)} - {0}):
        scores, which = accuracy_of(is_hit[:n]), "all" if n == len(doubts) else "the first"
        share, low, high = (100 * scores[key] for key in ("accuracy", "ci_low", "ci_high"))
        hits = f"{is_hit[:n].sum():,} of {which} {n:,}"
        parts.append(f"{hits} ({share:.0f} %, 95 % interval {low:.0f} to {high:.0f})")
    found = "; ".join(parts)
    return f"Doubts that are really wrong labels: {found}. So review from the top, and stop in time."


def write_suggestions(path: Path, doubts: pd.DataFrame, competition: Competition) -> str:
    """Write a CSV for `label_fixes`: one row per doubtful label, its column `label` to be edited; not those
    whose id names several images. An existing file is kept, since a person may have edited it.

    `label` is the suggestion where it is clear, and the given label where a person should look first.
    Returns what the file holds, in words; loudly, if it was kept and is not what would have been written.
    """
    split = competition.train
    label = np.where(doubts.clear, doubts.suggested, doubts.given)
    table = doubts.assign(id=split.ids[doubts.row], label=label)
    unique = ~pd.Series(split.ids).duplicated(keep=False)[doubts.row].to_numpy()
    columns = ["id", "given", "label", "suggested", "given_probability", "suggested_probability"]
    text = table.loc[unique, columns].round(3).to_csv(index=False, lineterminator="\n")
    if not path.exists():
        with atomic_write(path) as temporary:
            temporary.write_text(text, encoding="utf-8", newline="\n")
    if path.read_bytes() == text.encode():
        words = f"`{path.name}` in the run's folder lists {unique.sum():,} of them. Its column `label` holds"
        return f"{words} the suggestion where it is clear, else the given label."
    try:
        effect = apply_fixes(competition, path)[1].removeprefix("label_fixes: ").rsplit(" (", 1)[0]
        effect = f"This page measures the gain of that file: {effect}"
    except DataError as error:
        effect = f"Its gain is not measured: {error}"
    return (
        f"**`{path.name}` in the run's folder is not this list.** It was there already, edited or from other "
        f"networks, and is kept. {effect}. For a new one, move it away and run this page again."
    )
