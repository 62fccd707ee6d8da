"""Where a run errs: tables over its saved predictions."""

from __future__ import annotations

import numpy as np
import pandas as pd

from fer_utils.competition import Competition, DataError
from fer_utils.learning.metrics import accuracy_of, describe, per_class_table
from fer_utils.learning.predict import view_probs
from fer_utils.run.finished_run import Run


def prediction_table(run: Run, competition: Competition, split: str = "valid") -> pd.DataFrame:
    """One row per labelled picture of `split`, in its order.

    Columns: id, true, predicted (with views) and plain (without) as class names, confidence (the highest
    probability), true_probability, correct, plain_correct.

    Raises:
        DataError: the split has no labels, or its pictures are not those of the run.
    """
    pictures = competition.splits.get(split)
    if pictures is None or pictures.labels is None:
        raise DataError(f"the {split} split of {competition.source} has no labels to compare with")
    probs, plain = run.saved_probs(split), run.saved_probs(split, views=False)
    if len(probs) != len(pictures):
        raise DataError(
            f"{run.out} predicted {len(probs)} {split} pictures, {competition.source} has {len(pictures)}"
        )
    names, labels = np.array(competition.class_names), pictures.labels
    return pd.DataFrame(
        {
            "id": pictures.ids,
            "true": names[labels],
            "predicted": names[probs.argmax(1)],
            "plain": names[plain.argmax(1)],
            "confidence": probs.max(1),
            "true_probability": probs[np.arange(len(labels)), labels],
            "correct": probs.argmax(1) == labels,
            "plain_correct": plain.argmax(1) == labels,
        }
    )


def confused_pairs(table: pd.DataFrame) -> pd.DataFrame:
    """Pairs of classes taken for each other, both ways together, most errors first.

    Columns: pair, errors, share of all errors, and the commoner direction with its own count.
    """
    errors = table[~table.correct]
    pair = [" / ".join(sorted(names)) for names in zip(errors.true, errors.predicted, strict=True)]
    direction = errors.true.astype(str) + " taken for " + errors.predicted.astype(str)
    frame = pd.DataFrame({"pair": pair, "direction": direction.to_numpy()})
    rows = []
    for name, group in frame.groupby("pair"):
        directions = group.direction.value_counts()
        rows.append((name, len(group), len(group) / len(errors), directions.index[0], directions.iloc[0]))
    columns = ["pair", "errors", "share", "mostly", "mostly_errors"]
    return pd.DataFrame(rows, columns=columns).sort_values("errors", ascending=False, ignore_index=True)


def view_agreement(run: Run, images: np.ndarray) -> np.ndarray:
    """The share of the views of test-time augmentation that answer as their average does: float32 [N], for
    uint8 [N, 1, H, W] of the run's own size."""
    views = view_probs(run.model, images, run.config.views, run.config.evaluation_batch)
    return (views.argmax(2) == views.mean(0).argmax(1)).mean(0, dtype=np.float32)


AGREEMENT = ("all agree", "most agree", "they differ")


def agreement_kinds(agreement: np.ndarray) -> np.ndarray:
    """One of `AGREEMENT` for each share [N] of `view_agreement`; more than three quarters are most."""
    return np.select([agreement == 1, agreement > 0.75], AGREEMENT[:2], AGREEMENT[2])


def accuracy_by_agreement(agreement: np.ndarray, correct: np.ndarray) -> pd.DataFrame:
    """n and accuracy with its 95 % interval, where all views agree, most do or fewer, from [N] of each."""
    kinds = agreement_kinds(agreement)
    rows = {kind: accuracy_of(correct[kinds == kind]) for kind in AGREEMENT}
    return pd.DataFrame(rows).T.astype({"n": int})


def hardest_class(run: Run) -> int:
    """The class with most errors on validation, with views."""
    confusion = np.array(run.metrics["valid"]["views"]["confusion"])
    return int((confusion.sum(1) - confusion.diagonal()).argmax())


def headlines(run: Run, table: pd.DataFrame) -> list[str]:
    """What a person should know first, in five lines, from a run and its `prediction_table`."""
    scores, errors = run.metrics["valid"]["views"], table[~table.correct]
    weakest = per_class_table(scores).iloc[0]
    lines = [
        f"valid accuracy: {describe(scores)}",
        f"weakest class: {weakest.name}, recall {100 * weakest.recall:.0f} % of n = {weakest.n:,.0f}",
    ]
    if len(errors):
        pair = confused_pairs(table).iloc[0]
        confident = int((errors.confidence > 0.8).sum())
        lines += [
            f"most confused pair: {pair.pair}, {100 * pair.share:.0f} % of all {len(errors):,} errors, "
            f"mostly {pair.mostly}",
            f"confident errors: {confident:,} of {len(errors):,} had confidence above 0.8; "
            "look for wrong labels there first",
        ]
    gap = 100 * (table.confidence.mean() - scores["accuracy"])
    return [
        *lines,
        f"confidence: {abs(gap):.1f} points {'above' if gap > 0 else 'below'} accuracy on average",
    ]
