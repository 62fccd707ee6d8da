"""Doubtful labels: found by confident learning and written to a file for review; a bound on their share."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fer_utils.analysis.audit import picture_table
from fer_utils.analysis.near_copies import near_copies
from fer_utils.competition import Competition, Split
from fer_utils.demo.dataset import demo_truth
from fer_utils.files import atomic_write
from fer_utils.learning.metrics import accuracy_of

# How much more probable the suggested class must be than the given one to be used without review. On FER2013,
# with networks of 61 % accuracy, a second look agreed with 38 of the 50 clearest suggestions and 17 of 50
# random others.
CLEAR = 0.5


def cleanlab_is_installed() -> bool:
    """Whether cleanlab is installed; Kaggle's image lacks it."""
    return importlib.util.find_spec("cleanlab") is not None


def doubtful_labels(probs: np.ndarray, labels: np.ndarray, class_names: tuple[str, ...]) -> pd.DataFrame:
    """Labels that are probably wrong, the most doubtful first (confident learning, Northcutt et al. 2021).

    The confident joint determines how many labels of each class are doubtful; they are ranked by how much
    more probable another class is than the given one.

    Args:
        probs: [N, C], of networks that were not trained on these pictures.
        labels: int64 [N].

    Returns:
        A row per doubtful picture: `row` in `labels`; `given` and `suggested`, class names; their
        probabilities `given_probability` and `suggested_probability`; `clear`, whether these are `CLEAR`
        apart.
    """
    from cleanlab.filter import find_label_issues

    options = {"return_indices_ranked_by": "normalized_margin", "filter_by": "prune_by_noise_rate"}
    rows = find_label_issues(labels, probs, n_jobs=1, **options).astype(np.int64)
    rows = rows[probs[rows].argmax(1) != labels[rows]]
    names, suggested = np.array(class_names), probs[rows].argmax(1)
    found = pd.DataFrame(
        {
            "row": rows,
            "given": names[labels[rows]],
            "suggested": names[suggested],
            "given_probability": probs[rows, labels[rows]],
            "suggested_probability": probs[rows, suggested],
        }
    )
    return found.assign(clear=found.suggested_probability - found.given_probability >= CLEAR)


def copy_conflicts(competition: Competition) -> dict[str, float]:
    """How often two labels of one photograph differ, and the share of wrong labels that follows.

    If a label is wrong with probability e, independently of the other copies, two labels of a photograph
    agree with probability (1 - e)^2. Copies that were labelled together agree more often, so e is a lower
    bound. The interval is a bootstrap over photographs, which may have many copies.

    Returns:
        `pairs`, `differing`; `wrong`, the estimate of e, with its 95 % interval `low` and `high`.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    table = picture_table(competition)
    pairs, codes = near_copies(competition, table), table.label.cat.codes.to_numpy()
    first, second = (pairs[name].to_numpy() for name in ("first", "second"))
    labelled = (codes[first] >= 0) & (codes[second] >= 0)
    differs = (codes[first] != codes[second])[labelled]
    if not len(differs):
        return {"pairs": 0, "differing": 0, "wrong": math.nan, "low": math.nan, "high": math.nan}
    links = coo_matrix((np.ones(len(pairs)), (first, second)), (len(table), len(table)))
    photograph = connected_components(links)[1][first][labelled]
    counts = pd.DataFrame({"differs": differs, "n": 1}).groupby(photograph).sum().to_numpy()
    draws = np.random.default_rng(0).integers(len(counts), size=(1000, len(counts)))
    sums = counts[draws].sum(1)
    shares = [differs.mean(), *np.quantile(sums[:, 0] / sums[:, 1], [0.025, 0.975])]
    wrong, low, high = (1 - math.sqrt(1 - share) for share in shares)
    return {"pairs": len(differs), "differing": int(differs.sum()), "wrong": wrong, "low": low, "high": high}


def describe_conflicts(conflicts: dict[str, Any]) -> str:
    """The outcome of `copy_conflicts` in words."""
    if not conflicts["pairs"]:
        return "Share of wrong labels: not measurable here, no photograph is there twice with two labels."
    share = conflicts["differing"] / conflicts["pairs"]
    return (
        f"{conflicts['differing']:,} of {conflicts['pairs']:,} pairs of near copies have two labels that "
        f"differ ({100 * share:.1f} %). So at least about {100 * conflicts['wrong']:.1f} % of all labels are "
        f"wrong (95 % interval {100 * conflicts['low']:.1f} to {100 * conflicts['high']:.1f}); more, if "
        "copies were labelled together."
    )


def describe_wrong_labels(competition: Competition, doubts: pd.DataFrame | None, seed: int = 0) -> str:
    """How many labels are wrong, without a network, in words: by `copy_conflicts`; on the demo data, how many
    of the doubts are really wrong, by `demo_quality`."""
    if not competition.is_demo:
        return describe_conflicts(copy_conflicts(competition))
    if doubts is None or doubts.empty:
        return "On the demo data the wrong labels are known, but there are no doubts to compare with them."
    rows = [
        f"{row.hits:,.0f} of {'all ' if n == len(doubts) else 'the first '}{n:,} "
        f"({100 * row.precision:.0f} %, 95 % interval {100 * row.ci_low:.0f} to {100 * row.ci_high:.0f})"
        for n, row in demo_quality(doubts, competition, seed).set_index("looked at").iterrows()
    ]
    return (
        f"Doubts that are really wrong labels: {'; '.join(rows)}. So review from the top, and stop in time."
    )


def demo_quality(found: pd.DataFrame, competition: Competition, seed: int = 0) -> pd.DataFrame:
    """Precision and recall of `doubtful_labels` on training labels of the demo data, drawn with `seed`.

    Returns:
        A row for the first 50, the clear ones and all: how many are `looked at`; `hits`, the wrong labels
        among them; `precision` with its 95 % interval, `recall`.
    """
    truth = demo_truth(seed=seed)["train"].set_index("id").truth.loc[competition.train.ids]
    wrong = truth.to_numpy() != competition.train.labels
    is_hit = wrong[found.row]
    rows = []
    for n in sorted({min(50, len(found)), int(found.clear.sum()), len(found)} - {0}):
        scores, hits = accuracy_of(is_hit[:n]), int(is_hit[:n].sum())
        interval = scores["accuracy"], scores["ci_low"], scores["ci_high"]
        rows.append((n, hits, *interval, hits / max(1, wrong.sum())))
    return pd.DataFrame(rows, columns=["looked at", "hits", "precision", "ci_low", "ci_high", "recall"])


def write_suggestions(path: Path, doubts: pd.DataFrame, split: Split) -> str:
    """Write a CSV for `label_fixes`: one row per doubtful label, its column `label` to be edited.

    `label` is the suggestion where it is clear, and the given label where a person should look first. An
    existing file is kept, since a person may have edited it.

    Returns:
        A line that says what was done.
    """
    if path.exists():
        return f"{path} is kept, since it may have been edited; remove it to write it anew"
    label = np.where(doubts.clear, doubts.suggested, doubts.given)
    table = doubts.assign(id=split.ids[doubts.row], label=label)
    unique = ~pd.Series(split.ids).duplicated(keep=False)[doubts.row].to_numpy()
    columns = ["id", "given", "label", "suggested", "given_probability", "suggested_probability"]
    with atomic_write(path) as temporary:
        table.loc[unique, columns].round(3).to_csv(temporary, index=False)
    clear = doubts.clear[unique].sum()
    line = f"{path}: {unique.sum():,} suggestions, {clear:,} of them clear enough to be used without review"
    return line if unique.all() else f"{line}; {(~unique).sum():,} left out, whose id names several pictures"
