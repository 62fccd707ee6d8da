"""What an audit means for training, in plain sentences."""

from __future__ import annotations

import math
from typing import Any


def findings(report: dict[str, Any]) -> list[str]:
    """Say in plain sentences what an audit means for training."""
    parts = (
        *(_on_classes, _on_precision, _on_copies, _on_near, _on_conflicts, _on_waste, _on_light),
        *(_on_shift, _on_drift),
    )
    return [sentence for part in parts for sentence in part(report)]


def _on_classes(report: dict[str, Any]) -> list[str]:
    counts, valid = report["counts"]["train"], report["counts"]["valid"]
    most, least = max(counts, key=counts.get), min(counts, key=counts.get)
    ratio, total = counts[most] / max(counts[least], 1), sum(counts.values())
    advice = "Read macro F1 beside accuracy; class_weight gives rare classes more weight."
    if ratio == 1:
        return [f"The {len(counts)} classes are equally common in train: {counts[most]:,} pictures each."]
    return [
        f"Of the classes in train, {most} is the commonest ({_percent(counts[most], total)}), {least} the "
        f"rarest ({_percent(counts[least], total)}, n = {counts[least]:,}): {ratio:.1f} to 1. "
        f"Always answering {most} gives {_percent(valid[most], sum(valid.values()))} valid accuracy. "
        + (advice if ratio > 3 else "No class needs more weight.")
    ]


def _on_precision(report: dict[str, Any]) -> list[str]:
    counts = report["counts"]["valid"]
    least, n = min(counts, key=counts.get), sum(counts.values())
    # Half of the 95 % interval, in points, where it is widest: a share of one half.
    wide, widest = (min(50, 98 / math.sqrt(max(count, 1))) for count in (n, counts[least]))
    rare = f"the recall of {least} ({counts[least]:,}) by up to ±{widest:.0f}"
    return [
        f"{n:,} valid pictures leave an accuracy uncertain by up to ±{wide:.1f} points, "
        f"{rare if counts[least] else f'and none of them is {least}'}. "
        "Believe a smaller difference only with a paired test."
    ]


def _on_copies(report: dict[str, Any]) -> list[str]:
    meanings = {
        "valid_in_train": "valid accuracy partly measures memory. Read it without them too.",
        "test_in_train": "the leaderboard partly measures memory.",
        "test_in_valid": "the two scores are not quite independent.",
    }
    sentences = []
    if any(report["copies_within"].values()):
        sentences.append(f"Pictures that repeat one of their own split: {_listed(report['copies_within'])}.")
    for pair, count in report["exact_copies"].items():
        here, there = pair.split("_in_")
        if count:
            share = _percent(count, report["n"][here])
            sentences.append(f"{count:,} {here} pictures ({share}) are also in {there}: {meanings[pair]}")
    return sentences or ["No picture occurs twice."]


def _on_near(report: dict[str, Any]) -> list[str]:
    near = report["near_copies"]
    if not near or not near["pairs"] + near["mirrored_pairs"]:
        return []
    n, twice = report["n"]["valid"], near["labelled_pairs"]
    sentences = [
        f"Nearly the same, but not exactly: {near['pairs']:,} pairs, and {near['mirrored_pairs']:,} "
        f"mirrored ones; {near['valid_in_train']:,} more valid pictures "
        f"({_percent(near['valid_in_train'], n)}) have one in train."
    ]
    if twice >= 30:
        sentences.append(
            f"Of {twice:,} such pairs with two labels, {_percent(near['conflicting_pairs'], twice)} "
            "disagree: a rough measure of how noisy the labels are."
        )
    return sentences


def _on_drift(report: dict[str, Any]) -> list[str]:
    if not report["drift"]:
        return []
    splits, worst = max(report["drift"].items(), key=lambda item: item[1]["low"])
    apart = worst["low"] > 0.55
    return [
        f"A classifier tells {splits.replace(', ', ' from ')} with an AUC of {worst['auc']:.3f} "
        f"({worst['low']:.3f} to {worst['high']:.3f}; 0.5 is chance): "
        + ("they differ, so expect another score there." if apart else "the splits come from one source.")
    ]


def _on_conflicts(report: dict[str, Any]) -> list[str]:
    twice, conflicts = report["labelled_repeatedly"], report["conflicting_groups"]
    if not conflicts:
        return []
    return [
        f"Of {twice:,} pictures labelled more than once, {conflicts:,} ({_percent(conflicts, twice)}) "
        "carry different labels. No model can be right on both; label_smoothing keeps it from being too sure."
    ]


def _on_waste(report: dict[str, Any]) -> list[str]:
    blank, rejected = report["blank"], report["rejected"]
    sentences = [f"Blank pictures teach nothing: {_listed(blank)}."] if any(blank.values()) else []
    if rejected:
        sentences.append(f"{len(rejected):,} pictures could not be read, the first: {rejected[0]['place']}.")
    return sentences


def _on_light(report: dict[str, Any]) -> list[str]:
    share = max(report["light_by_class"].values())
    spread = report["light"]["train"]["brightness"]["std"]
    by_chance = (len(report["class_names"]) - 1) / max(report["n"]["train"] - 1, 1)
    safe = "Light says little on the class, so varying it in augmentation is safe."
    return [
        f"Brightness varies by ±{spread:.0f} of 255 grey levels between train pictures; the class explains "
        f"at most {_percent(share, 1)} of the variance of brightness and of contrast. "
        + (
            safe
            if share < max(0.1, 3 * by_chance)
            else "Light tells classes apart: find out why before a model learns it."
        )
    ]


def _on_shift(report: dict[str, Any]) -> list[str]:
    """The split whose light differs most from train's, in standard deviations of train's pictures."""
    train = report["light"]["train"]
    gaps = {
        (name, value): (part[value]["mean"] - train[value]["mean"]) / max(train[value]["std"], 1e-9)
        for name, part in report["light"].items()
        for value in part
        if name != "train"
    }
    (name, value), gap = max(gaps.items(), key=lambda item: abs(item[1]))
    by_chance = 3 / math.sqrt(report["n"][name])  # three standard errors
    alike = (
        "they look alike"
        if abs(gap) < max(0.2, by_chance)
        else f"they differ: more {value} in augmentation bridges it"
    )
    return [
        f"Between splits, the mean {value} of {name} differs most from train's, by {gap:+.2f} standard "
        f"deviations: {alike}."
    ]


def _percent(part: float, whole: float) -> str:
    return f"{100 * part / whole:.1f} %"


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{count:,} in {name}" for name, count in counts.items() if count)
