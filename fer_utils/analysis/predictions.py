"""Where a run errs: tables over its saved predictions."""

from __future__ import annotations

import numpy as np
import pandas as pd

from fer_utils.competition import Competition, DataError
from fer_utils.learning.metrics import describe, per_class_table
from fer_utils.run.finished_run import Run


def prediction_table(run: Run, competition: Competition) -> pd.DataFrame:
    """One row per validation image, in the order of the split: `true` and `predicted` (with views), class
    names; `confidence`, the highest probability; `correct`.

    Raises:
        DataError: the run predicted another number of images.
    """
    probs, labels = run.saved_probs(), competition.valid.labels
    if len(probs) != len(labels):
        raise DataError(
            f"{run.out} predicted {len(probs)} valid images, {competition.source} has {len(labels)}"
        )
    names, preds = np.array(competition.class_names), probs.argmax(1)
    table = pd.DataFrame({"true": names[labels], "predicted": names[preds]})
    return table.assign(confidence=probs.max(1), correct=preds == labels)


def confused_pairs(table: pd.DataFrame) -> pd.DataFrame:
    """Pairs of classes that are confused, both directions together, most errors first.

    Columns: pair, errors, share of all errors, and the commoner direction with its own count.
    """
    errors = table[~table.correct]
    pairs = errors.value_counts(["true", "predicted"]).reset_index(name="mostly_errors")
    pairs["pair"] = [" / ".join(sorted(names)) for names in zip(pairs.true, pairs.predicted, strict=True)]
    pairs["mostly"] = pairs.true + " taken for " + pairs.predicted
    pairs["errors"] = pairs.groupby("pair").mostly_errors.transform("sum")
    pairs.loc[2 * pairs.mostly_errors == pairs.errors, "mostly"] = "one way, as many as the other"
    pairs["share"] = pairs.errors / len(errors)
    pairs = pairs.drop_duplicates("pair").sort_values("errors", ascending=False, ignore_index=True)
    return pairs[["pair", "errors", "share", "mostly", "mostly_errors"]]


def headlines(run: Run, table: pd.DataFrame) -> str:
    """The main results of a run, from its `prediction_table`, as a list in Markdown."""
    scores, errors = run.metrics["valid"]["views"], table[~table.correct]
    classes = per_class_table(scores)
    weakest = classes.iloc[0]
    lines = [
        f"**{describe(scores)} of the validation images are right.**",
        f"Weakest class (lowest F1): {weakest.name}; {100 * weakest.recall:.0f} % of its "
        f"{weakest.n:,.0f} images are found.",
    ]
    if len(never := classes[(classes.n_predicted == 0) & (classes.n > 0)]):
        lines.append(f"Never predicted: {', '.join(never.index)}.")
    if len(errors):
        pair, confident = confused_pairs(table).iloc[0], int((errors.confidence > 0.8).sum())
        lines += [
            f"Most confused: {pair.pair}, {100 * pair.share:.0f} % of the {len(errors):,} errors; "
            f"{pair.mostly_errors:,} of {pair.errors:,} are {pair.mostly}.",
            f"Errors with more than 80 % confidence: {confident:,}."
            + " Look for wrong labels among them first." * (confident > 0),
        ]
    gap = 100 * (table.confidence.mean() - scores["accuracy"])
    side = "higher" if gap > 0 else "lower"
    lines.append(f"Its mean confidence is {abs(gap):.1f} points {side} than its accuracy.")
    return "\n".join(f"- {line}" for line in lines)


def describe_calibration(report: pd.DataFrame) -> str:
    """Whether calibration helps, from `metrics.calibration_report`, in words."""
    before, after = (100 * report.calibration_error[name] for name in ("as it is", "calibrated"))
    verdict = "One temperature makes it better" if after < before else "One temperature does not help here"
    if after >= before and report.log_loss["calibrated"] < report.log_loss["as it is"]:
        verdict = "One temperature lowers the log loss, and not the calibration error"
    return (
        f"**{verdict}:** the calibration error (the mean gap between confidence and accuracy, over bins of "
        f"confidence) is {before:.1f} points as it is and {after:.1f} calibrated, each half by "
        f"the other; log loss {report.log_loss['as it is']:.3f} and {report.log_loss['calibrated']:.3f}. "
        f"Fitted on all, the temperature is {report.temperature['calibrated']:.2f}. No answer changes."
    )
