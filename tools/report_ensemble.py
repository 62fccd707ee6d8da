"""What `tools.report` tells of an ensemble: its members, what averaging gained, how much they agree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fer_utils.analysis.ensemble import agreement
from fer_utils.competition import Competition
from fer_utils.figures import plots
from fer_utils.learning.competition_metric import readable
from fer_utils.learning.metrics import describe_gain
from fer_utils.run.finished_run import Run, load_run
from fer_utils.run.folder import RunFolder, find_run
from fer_utils.run.results import commonest
from tools import report_sections as common
from tools.report_figures import figure

NOT_FOUND = "not measurable here: the members are no longer where they were, seen from the ensemble's folder."


@dataclass(frozen=True)
class Ensemble:
    """A folder that `05_ensemble` wrote, with what the sections of a run ask a run for.

    Attributes:
        out: the folder.
        scores: its metrics.json, as `analysis.ensemble.score_ensemble` returns it.
        members: the averaged runs; empty where their folders are not found.
    """

    out: Path
    scores: dict[str, Any]
    members: list[Run]

    @property
    def metrics(self) -> dict[str, Any]:
        """The scores of the average in the form of a run's."""
        return {"valid": {"views": self.scores["ensemble"]}}

    @property
    def class_names(self) -> tuple[str, ...]:
        """In the order of the probabilities' columns."""
        return tuple(self.scores["ensemble"]["per_class"])

    @property
    def names(self) -> list[str]:
        """The members; numbered where they are called the same, as two runs in older files may be."""
        names = RunFolder(self.out).shown_members(self.scores["members"])
        return [f"{name} ({k})" if names.count(name) > 1 else name for k, name in enumerate(names, 1)]

    def saved_probs(self, split: str = "valid", views: bool = True) -> np.ndarray:
        """The saved average [N, C], which is one of views."""
        return RunFolder(self.out).predictions(split, "probs_views")

    def saved(self, split: str, name: str) -> np.ndarray:
        """A saved array; labels are the members'."""
        return self.members[0].saved(split, name)


def load_ensemble(out: str | Path) -> Ensemble | None:
    """Read the ensemble in the folder `out`; None if there is none.

    Raises:
        DataError: its metrics.json is damaged.
    """
    folder = RunFolder(find_run(out))
    if not folder.has_results or folder.record() is not None:
        return None
    scores = folder.metrics()
    if "members" not in scores:
        return None
    split = "valid" if scores.get("validated", True) else "test"
    for places in folder.member_folders(scores["members"]):
        if not any(place.missing() for place in places):
            members = [load_run(place.path) for place in places]
            if "measured_on" in scores:
                rows = folder.predictions("valid", "rows")
                members = [replace(run, valid_rows=own) for run, own in zip(members, rows, strict=True)]
            found = Ensemble(folder.path, scores, members)
            if _is_average(found.saved_probs(split), members, split):
                return found
    return Ensemble(folder.path, scores, [])


def _is_average(probs: np.ndarray, members: Sequence[Run], split: str) -> bool:
    """Whether these members gave the average `probs` [N, C], and not others of the same names."""
    try:
        parts = [run.saved_probs(split) for run in members]
    except IndexError:  # a member that was trained again with another split
        return False
    same = all(part.shape == probs.shape for part in parts)
    return same and np.allclose(np.mean(parts, axis=0), probs, atol=1e-3)


def facts(ensemble: Ensemble) -> list[tuple[str, str, str]]:
    """The numbers of the top: what, its value, and more on it."""
    scores, gain = ensemble.scores, ensemble.scores["against_best"]
    shown = [
        ("valid accuracy of the average", scores["ensemble"]),
        ("most accurate candidate", scores["scores"][scores["best"]]),
        ("cross-fitted", scores["cross_fitted"]),
    ]
    low, high = (f"{100 * gain[key]:+.1f}" for key in ("ci_low", "ci_high"))
    verdict = f"{low} to {high} {common.together('(95 %):')} {describe_gain(gain).rsplit(': ', 1)[1]}"
    name, guess = commonest(scores["ensemble"])
    return [
        *((what, common.percent(some), common.interval(some)) for what, some in shown),
        *(fact for what, some in shown for fact in common.metric_fact(f"{what}: ", some)),
        ("gain over that candidate", f"{100 * gain['difference']:+.1f} points", verdict),
        (f"always answering {name}", f"{100 * guess:.1f} %", "for comparison"),
        ("members", str(len(ensemble.names)), f"of {len(scores['scores'])} candidates"),
        *(("data", common.last_part(run.config.data), "") for run in ensemble.members[:1]),
    ]


def sections(ensemble: Ensemble, competition: Competition | None, note: str) -> list[dict[str, Any]]:
    """The sections of the page in order; see `report_sections.sections`."""
    rest = [common.calibration(ensemble), _config(ensemble)] if ensemble.members else []
    return [
        _members(ensemble), _gain(ensemble), _agreement(ensemble), common.classes(ensemble),
        common.confusion(ensemble), *rest[:1],
        common.pairs(ensemble) | common.faces(ensemble, competition, note), *rest[1:],
    ]  # fmt: skip


def _named_scores(ensemble: Ensemble) -> dict[str, dict[str, Any]]:
    chosen = ensemble.scores["chosen"]
    return {name: ensemble.scores["scores"][k] for name, k in zip(ensemble.names, chosen, strict=True)}


def _members(ensemble: Ensemble) -> dict[str, Any]:
    left_out = len(ensemble.scores["scores"]) - len(ensemble.names)
    shown = _named_scores(ensemble)
    frame = pd.DataFrame({"member": list(shown)})
    for what in ("model", "seed"):
        if ensemble.members:
            frame[what] = [str(getattr(run.config, what)) for run in ensemble.members]
    frame["valid accuracy"] = [common.percent(scores) for scores in shown.values()]
    frame["log loss, not calibrated"] = [f"{scores['log_loss']:.3f}" for scores in shown.values()]
    first = "lowest log loss after calibration"
    why = "they did not lower the log loss of the calibrated average"
    metric = ensemble.scores["ensemble"].get("metric", {}).get("name", "log_loss")
    if metric != "log_loss":
        first, why = f"best {readable(metric)}", f"they did not improve the {readable(metric)} of the average"
    line = (
        f"The runs that are averaged: the {first} first, then as they improve that of the average; each with "
        "its own scores on the validation split. "
    )
    line += f"Left out: {left_out}, since {why}." if left_out else "No candidate was left out."
    return {"title": "Members", "lines": [line], "table": frame}


def _gain(ensemble: Ensemble) -> dict[str, Any]:
    scores = ensemble.scores
    shown = _named_scores(ensemble)
    shown |= {"average": scores["ensemble"], "cross-fitted": scores["cross_fitted"]}

    def draw(ax: Any) -> None:
        plots.accuracy_intervals(shown, ax)

    return {
        "title": "What averaging gained",
        "lines": [
            f"Average against the most accurate candidate: {describe_gain(scores['against_best'])}.",
            f"Cross-fitted: {describe_gain(scores['cross_fitted_against_best'])}.",
            *([f"This was {scores['measured_on']}."] if "measured_on" in scores else []),
        ],
        "image": figure(draw, 1.1 + 0.5 * len(shown)),
        "alt": f"Accuracy with intervals of {len(ensemble.names)} members and of their average, "
        f"{common.percent(scores['ensemble'])}, cross-fitted {common.percent(scores['cross_fitted'])}.",
        "caption": "Valid accuracy with 95 % intervals. All are measured on the same images, so the paired "
        "test decides, not the overlap. Cross-fitted: each half is predicted by members chosen on the other "
        "half.",
    }


def _agreement(ensemble: Ensemble) -> dict[str, Any]:
    section: dict[str, Any] = {"title": "How much they agree"}
    if len(ensemble.members) < 2:
        why = NOT_FOUND if not ensemble.members else "one member has nobody to agree with."
        return section | {"lines": [f"Agreement: {why}"]}
    members = np.stack([run.saved_probs() for run in ensemble.members])
    right = members.argmax(2) == ensemble.saved("valid", "labels")
    frame = agreement(ensemble.members).round(1).astype(str).rename_axis("same answer (%)")
    none, every = 100 * (~right).all(0).mean(), 100 * right.all(0).mean()
    lines = [
        "The share of validation images on which two members give the same answer.",
        f"All members are right on {every:.1f} % of the images, all are wrong on {none:.1f} %: they differ "
        f"in what is right on the other {100 - every - none:.1f} %.",
    ]
    return section | {"lines": lines, "table": frame.reset_index()}


def _config(ensemble: Ensemble) -> dict[str, Any]:
    configs = [run.config.to_dict() for run in ensemble.members]
    names = {name: None for run in ensemble.members for name in run.config.changed() if name != "out"}
    values = {
        name: ", ".join(dict.fromkeys(common.shown_value(name, config[name]) for config in configs))
        for name in names
    }
    return {
        "title": "How it was made",
        "lines": [
            "The validation split chose the epochs, and the members where some were left out, so the "
            "accuracy is slightly too high. The choice of members does not raise the cross-fitted one. A "
            "test split chooses nothing.",
            "What differs from the defaults in any member:",
        ],
        "table": pd.DataFrame({"parameter": values.keys(), "value": values.values()}),
        "words": True,
    }
