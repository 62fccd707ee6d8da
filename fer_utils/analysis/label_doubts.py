"""Doubtful labels: found by confident learning, written down for a person to judge, and what they cost."""

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
from fer_utils.learning.metrics import wilson_interval

# How much more probable than the given class the suggested one must be to be taken without a look. On
# FER2013, with nets of 61 %, a second look agreed with 38 of the 50 clearest suggestions and 17 of 50 random
# others.
CLEAR = 0.5


def can_doubt() -> bool:
    """Whether cleanlab is installed; Kaggle's image lacks it."""
    return importlib.util.find_spec("cleanlab") is not None


def doubtful_labels(probs: np.ndarray, labels: np.ndarray, class_names: tuple[str, ...]) -> pd.DataFrame:
    """Labels that are probably wrong, the most doubtful first (confident learning, Northcutt et al. 2021).

    Of each class, as many are taken as the confident joint says, and ranked by how much more probable
    another class is than the given one.

    Args:
        probs: [N, C], of networks that did not learn from these pictures.
        labels: int64 [N].

    Returns:
        A row per doubtful picture: `row` in `labels`; `given` and `suggested`, class names; their
        probabilities `given_probability` and `suggested_probability`; `clear`, whether these are `CLEAR`
        apart.
    """
    from cleanlab.filter import find_label_issues

    present, codes, known = _present(probs, labels)
    rows = np.zeros(0, np.int64)
    if len(present) > 1:
        options = {"return_indices_ranked_by": "normalized_margin", "filter_by": "prune_by_noise_rate"}
        rows = find_label_issues(codes, known, n_jobs=1, **options).astype(np.int64)
    suggested = probs[rows].argmax(1)
    rows, suggested = rows[suggested != labels[rows]], suggested[suggested != labels[rows]]
    names = np.array(class_names)
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


def _present(probs: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The classes that occur, and labels and probabilities of these alone: others would have no threshold."""
    present = np.unique(labels)
    known = probs[:, present].clip(min=1e-12)
    return present, np.searchsorted(present, labels), known / known.sum(1, keepdims=True)


def noise_table(probs: np.ndarray, labels: np.ndarray, class_names: tuple[str, ...]) -> pd.DataFrame:
    """Per class, how many of its labels the confident joint holds for wrong, and what they mostly are.

    What the networks get wrong with confidence counts as a wrong label too, so the weaker they are, the more
    these shares overstate; what they learned to see as wrongly as the annotators is missed. `copy_conflicts`
    asks without a network.

    Args:
        probs: [N, C], of networks that did not learn from these pictures.
        labels: int64 [N].

    Returns:
        A row per class that occurs: `n`, `wrong` (share), `mostly` (the commonest other class).
    """
    from cleanlab.count import compute_confident_joint

    present, codes, known = _present(probs, labels)
    joint = compute_confident_joint(codes, known)
    counts = np.bincount(codes)
    wrong = 1 - np.diag(joint) / joint.sum(1).clip(min=1)
    others = joint * (1 - np.eye(len(present)))
    names = np.array(class_names)[present]
    mostly = np.where(others.sum(1) > 0, names[others.argmax(1)], "-")
    return pd.DataFrame({"n": counts, "wrong": wrong, "mostly": mostly}, index=names)


def copy_conflicts(competition: Competition) -> dict[str, float]:
    """How often two labels of one photograph differ, and what share of wrong labels that means.

    If a label is wrong with probability e, whichever copy of a photograph it is, two of them agree with
    probability (1 - e)^2. Copies that were not labelled apart from each other, or in one batch, agree more
    often, so e is a lower bound. The interval is a bootstrap over photographs, which may have many copies.

    Returns:
        `pairs`, `differing`; `wrong`, the estimate of e, with its 95 % interval `low` and `high`.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    table = picture_table(competition)
    pairs = near_copies(competition, table)
    first, second = (table.label[pairs[name]].reset_index(drop=True) for name in ("first", "second"))
    labelled = (first.notna() & second.notna()).to_numpy()
    differs = (first.astype(str) != second.astype(str)).to_numpy()[labelled]
    if not len(differs):
        return {"pairs": 0, "differing": 0, "wrong": math.nan, "low": math.nan, "high": math.nan}
    links = coo_matrix((np.ones(len(pairs)), (pairs["first"], pairs["second"])), (len(table), len(table)))
    photograph = connected_components(links)[1][pairs["first"]][labelled]
    counts = pd.DataFrame({"differs": differs, "n": 1}).groupby(photograph).sum().to_numpy()
    draws = np.random.default_rng(0).integers(len(counts), size=(1000, len(counts)))
    sums = counts[draws].sum(1)
    shares = [differs.mean(), *np.quantile(sums[:, 0] / sums[:, 1], [0.025, 0.975])]
    wrong, low, high = (1 - math.sqrt(1 - share) for share in shares)
    return {"pairs": len(differs), "differing": int(differs.sum()), "wrong": wrong, "low": low, "high": high}


def finding_quality(
    found: np.ndarray, wrong: np.ndarray, steps: tuple[int, ...] = (25, 50, 100)
) -> pd.DataFrame:
    """Precision and recall of a ranked finding where the truth is known, as in the demo data.

    Args:
        found: row numbers, the most doubtful first.
        wrong: bool [N], the labels that are wrong indeed.
        steps: how many of the first to judge, beside all of them.

    Returns:
        A row per number of labels looked at: `hits`, `precision` with its 95 % interval, `recall`.
    """
    rows = []
    for n in [*[step for step in sorted(set(steps)) if 0 < step < len(found)], len(found)]:
        hits = int(wrong[found[:n]].sum())
        low, high = wilson_interval(hits, n)
        precision = hits / n if n else math.nan
        rows.append((n, hits, precision, low, high, hits / max(1, wrong.sum())))
    return pd.DataFrame(rows, columns=["looked at", "hits", "precision", "ci_low", "ci_high", "recall"])


def demo_quality(found: pd.DataFrame, competition: Competition, seed: int = 0) -> pd.DataFrame:
    """`finding_quality` of doubtful training labels of the demo data, drawn with `seed`, whose truth is
    known: of the first 50, the clear ones and all."""
    truth = demo_truth(seed=seed)["train"].set_index("id").truth.loc[competition.train.ids]
    wrong = truth.to_numpy() != competition.train.labels
    return finding_quality(found.row.to_numpy(), wrong, (50, int(found.clear.sum())))


def write_suggestions(path: Path, doubts: pd.DataFrame, split: Split) -> str:
    """Write a CSV for `label_fixes`: one row per doubtful label, its column `label` to be edited.

    There stands the suggestion where it is clear, and the given label where a person should look first. A
    file that is there already may hold a person's decisions, so it is kept.

    Returns:
        A line that says what was done.
    """
    if path.exists():
        return f"{path} is kept as it is, since it may be edited; remove it to have it written anew"
    label = np.where(doubts.clear, doubts.suggested, doubts.given)
    table = doubts.assign(id=split.ids[doubts.row], label=label)
    unique = ~pd.Series(split.ids).duplicated(keep=False)[doubts.row].to_numpy()
    columns = ["id", "given", "label", "suggested", "given_probability", "suggested_probability"]
    with atomic_write(path) as temporary:
        table.loc[unique, columns].round(3).to_csv(temporary, index=False)
    clear = doubts.clear[unique].sum()
    line = f"{path}: {unique.sum():,} suggestions, {clear:,} of them clear enough to be taken"
    return line if unique.all() else f"{line}; {(~unique).sum():,} left out, whose id names several pictures"


def ceiling(noise: pd.DataFrame) -> float:
    """The accuracy of one who always sees the true class, if the shares of wrong labels in `noise_table`
    hold."""
    return float(1 - (noise.n * noise.wrong).sum() / noise.n.sum())


def describe_conflicts(conflicts: dict[str, Any]) -> str:
    """The outcome of `copy_conflicts` in words."""
    if not conflicts["pairs"]:
        return "no near copies with two labels: nothing to estimate wrong labels from without a network"
    share = conflicts["differing"] / conflicts["pairs"]
    return (
        f"{conflicts['differing']:,} of {conflicts['pairs']:,} pairs of near copies have two labels that "
        f"differ ({100 * share:.1f} %): at least about {100 * conflicts['wrong']:.1f} % of labels are wrong "
        f"(95 % interval {100 * conflicts['low']:.1f} to {100 * conflicts['high']:.1f})"
    )
