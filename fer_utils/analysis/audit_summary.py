"""What an audit means for training, in plain sentences."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from fer_utils.analysis.near_copies import other_faces


def findings(report: dict[str, Any]) -> list[str]:
    """The sentences that follow from a report of `audit.audit`."""
    parts = (_classes, _precision, _copies, _near_copies, _defects, light_findings, _drift)
    return [sentence for part in parts for sentence in part(report)]


def light_findings(report: dict[str, Any]) -> list[str]:
    """What brightness and contrast say on the classes and on the splits."""
    spread = f"±{report['light']['train']['brightness']['std']:.0f} of 255 grey levels (standard deviation)"
    first = f"The brightness of train images varies by {spread}."
    return [first, _light_by_class(report), _light_by_split(report)]


def _classes(report: dict[str, Any]) -> Iterator[str]:
    counts, valid = report["counts"]["train"], report["counts"]["valid"]
    most, least = max(counts, key=counts.get), min(counts, key=counts.get)
    ratio, total = counts[most] / max(counts[least], 1), sum(counts.values())
    if ratio == 1:
        yield f"The {len(counts)} classes are equally common in train: {counts[most]:,} images each."
        return
    if not counts[least]:
        absent = ", ".join(name for name, count in counts.items() if not count)
        yield f"No image in train is {absent}: no model can learn that."
        return
    advice = "No class needs more weight."
    if ratio > 3:
        advice = "Read macro F1 beside accuracy; class_weight gives rare classes more weight."
    yield (
        f"Of the classes in train, {most} is the commonest ({_percent(counts[most], total)}), {least} the "
        f"rarest ({_percent(counts[least], total)}, n = {counts[least]:,}): {ratio:.1f} to 1. Always "
        f"predicting {most} gives {_percent(valid[most], sum(valid.values()))} valid accuracy. {advice}"
    )


def _precision(report: dict[str, Any]) -> Iterator[str]:
    counts = report["counts"]["valid"]
    least, n = min(counts, key=counts.get), sum(counts.values())
    # Half of the 95 % interval, in points, where it is widest: a share of one half.
    wide, widest = (min(50, 98 / math.sqrt(max(count, 1))) for count in (n, counts[least]))
    rare = f"the recall of {least} ({counts[least]:,}) by up to ±{widest:.0f}"
    yield (
        f"{n:,} valid images leave an accuracy uncertain by up to ±{wide:.1f} points, "
        f"{rare if counts[least] else f'and none of them is {least}'}. "
        "Believe a smaller difference only with a paired test."
    )


def _copies(report: dict[str, Any]) -> Iterator[str]:
    meanings = {
        "valid_in_train": "valid accuracy partly measures memory. Read it without them too.",
        "test_in_train": "the leaderboard partly measures memory.",
        "test_in_valid": "the two scores are not quite independent.",
    }
    within, between = report["copies_within"], report["exact_copies"]
    if not any((*within.values(), *between.values())):
        yield "No image occurs twice."
    if any(within.values()):
        yield f"Images that repeat one of their own split: {_listed(within)}."
    for pair, count in between.items():
        here, there = pair.split("_in_")
        if count:
            share = _percent(count, report["n"][here])
            yield f"{count:,} {here} images ({share}) are also in {there}: {meanings[pair]}"


def _near_copies(report: dict[str, Any]) -> Iterator[str]:
    near = report["near_copies"]
    if not near or not near["pairs"] + near["mirrored_pairs"]:
        return
    yield (
        f"Nearly the same, but not exactly: {near['pairs']:,} pairs, and {near['mirrored_pairs']:,} "
        f"more in which one image is mirrored; {near['valid_in_train']:,} more valid images "
        f"({_percent(near['valid_in_train'], report['n']['valid'])}) have one in train."
    )
    if near["labelled_pairs"] >= 30:
        counts = [sum(split[name] for split in report["counts"].values()) for name in report["class_names"]]
        share = near["conflicting_pairs"] / near["labelled_pairs"]
        meaning = "a rough measure of how noisy the labels are."
        if (by_chance := other_faces(share, counts)) is not None:
            meaning = f"any two images would in {_percent(by_chance, 1)}. Therefore many pairs are "
            meaning += "different faces that look alike, and their labels say nothing on label noise."
        pairs = f"Of the {near['labelled_pairs']:,} of these pairs whose images are both labelled"
        yield f"{pairs}, {_percent(share, 1)} disagree: {meaning}"


def _drift(report: dict[str, Any]) -> Iterator[str]:
    if not report["drift"]:
        return
    splits, worst = max(report["drift"].items(), key=lambda item: item[1]["low"])
    verdict = "it cannot tell them apart."
    if worst["low"] > 0.55:
        verdict = "they differ, so expect another score there."
    elif worst["low"] > 0.5:
        verdict = "they differ a little."
    elif worst["high"] > 0.6:
        verdict = "too few images to say whether they differ."
    yield (
        f"A classifier tells {splits.replace(', ', ' from ')} with an AUC of {worst['auc']:.3f} "
        f"({worst['low']:.3f} to {worst['high']:.3f}; 0.5 is chance): {verdict}"
    )


def _defects(report: dict[str, Any]) -> Iterator[str]:
    twice, conflicts = report["labelled_repeatedly"], report["conflicting_groups"]
    if conflicts:
        yield (
            f"Of {twice:,} images labelled more than once, {conflicts:,} ({_percent(conflicts, twice)}) "
            "carry different labels. No model can be right on both; label_smoothing keeps it from being too "
            "sure."
        )
    if any(report["blank"].values()):
        yield f"Blank images teach nothing: {_listed(report['blank'])}."
    if rejected := report["rejected"]:
        yield f"{len(rejected):,} images could not be read, the first: {rejected[0]['place']}."


def _light_by_class(report: dict[str, Any]) -> str:
    rows = sorted(report["light_by_class"], key=lambda row: -abs(row["auc"] - 0.5))
    if not rows:
        return "Whether light tells classes apart is not measurable here: no class has 10 images."
    apart = [row for row in rows if row["low"] > 0.55 or row["high"] < 0.45]
    if apart:
        row, more = apart[0], ", ".join(map(_side, apart[1:]))
        step = {"redness": "hue", "blueness": "hue"}.get(row["value"], row["value"])
        return (
            f"The {row['value']} alone separates {row['label']} from the others with an AUC of {_auc(row)}: "
            f"its mean is {row['mean']:.0f}, theirs {row['others'][0]:.0f} to {row['others'][1]:.0f}. "
            f"{'Other classes stand out too: ' + more + '. ' if more else ''}A model can use that "
            f"as a shortcut, which fails in other light; more `{step}` in augmentation weakens it."
        )
    if max(abs(bound - 0.5) for row in rows for bound in (row["low"], row["high"])) > 0.15:
        row = max(rows, key=lambda row: row["high"] - row["low"])
        return (
            f"Whether light tells classes apart is not measurable here: with {row['n']:,} images of "
            f"{row['label']}, the AUC of its {row['value']} lies between {row['low']:.2f} and "
            f"{row['high']:.2f}."
        )
    return (
        f"No class stands out by light: the AUC furthest from chance is that of the {rows[0]['value']} of "
        f"{rows[0]['label']}, {_auc(rows[0])}. Varying light in augmentation is safe."
    )


def _side(row: dict[str, Any]) -> str:
    side = "higher" if row["auc"] > 0.5 else "lower"
    return f"{row['label']} ({row['value']}, {row['auc']:.2f}: {side})"


def _auc(row: dict[str, Any]) -> str:
    return f"{row['auc']:.2f} ({row['low']:.2f} to {row['high']:.2f}; 0.5 is chance)"


def _light_by_split(report: dict[str, Any]) -> str:
    """The split whose light differs most from train's, in standard deviations of train's images."""
    train = report["light"]["train"]
    gaps = {
        (name, value): (part[value]["mean"] - train[value]["mean"]) / max(train[value]["std"], 1e-9)
        for name, part in report["light"].items()
        for value in part
        if name != "train"
    }
    (name, value), gap = max(gaps.items(), key=lambda item: abs(item[1]))
    verdict, chance = "they look alike", 3 / math.sqrt(report["n"][name])  # three standard errors
    if abs(gap) < chance > 0.5:
        verdict = "too few images to say more"
    elif abs(gap) >= max(0.2, chance):
        verdict = f"they differ: more `{value}` in augmentation bridges it"
    return (
        f"Between splits, the mean {value} of {name} differs most from train's, by {gap:+.2f} standard "
        f"deviations: {verdict}."
    )


def _percent(part: float, whole: float) -> str:
    return f"{100 * part / whole:.1f} %"


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{count:,} in {name}" for name, count in counts.items() if count)
