"""Where a run errs: tables over its saved predictions."""

from __future__ import annotations

import numpy as np
import pandas as pd

from fer_utils.competition import Competition, DataError
from fer_utils.learning.metrics import describe, per_class_table
from fer_utils.run.finished_run import Run


def prediction_table(run: Run, competition: Competition) -> pd.DataFrame:
    """One row per validation picture, in the order of the split.

    Columns: id, true, predicted (with views) and plain (without) as class names, confidence (the highest
    probability), true_probability, correct, plain_correct.

    Raises:
        DataError: the run predicted another number of pictures.
    """
    probs, plain, valid = run.saved_probs(), run.saved_probs(views=False), competition.valid
    if len(probs) != len(valid):
        raise DataError(
            f"{run.out} predicted {len(probs)} valid pictures, {competition.source} has {len(valid)}"
        )
    names, labels = np.array(competition.class_names), valid.labels
    return pd.DataFrame(
        {
            "id": valid.ids,
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
    """Pairs of classes that are confused, both directions together, most errors first.

    Columns: pair, errors, share of all errors, and the commoner direction with its own count.
    """
    errors = table[~table.correct]
    pairs = errors.value_counts(["true", "predicted"]).reset_index(name="mostly_errors")
    pairs["pair"] = [" / ".join(sorted(names)) for names in zip(pairs.true, pairs.predicted, strict=True)]
    pairs["mostly"] = pairs.true + " taken for " + pairs.predicted
    pairs["errors"] = pairs.groupby("pair").mostly_errors.transform("sum")
    pairs["share"] = pairs.errors / len(errors)
    pairs = pairs.drop_duplicates("pair").sort_values("errors", ascending=False, ignore_index=True)
    return pairs[["pair", "errors", "share", "mostly", "mostly_errors"]]


def hardest_class(run: Run) -> int:
    """The class with most errors on validation, with views."""
    confusion = np.array(run.metrics["valid"]["views"]["confusion"])
    return int((confusion.sum(1) - confusion.diagonal()).argmax())


def headlines(run: Run, table: pd.DataFrame) -> list[str]:
    """The main results of a run in five lines, from its `prediction_table`."""
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
    side = "above" if gap > 0 else "below"
    return [*lines, f"confidence: {abs(gap):.1f} points {side} accuracy on average"]
