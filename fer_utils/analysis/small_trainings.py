"""Small trainings that answer a question about the data: which labels a network doubts that never saw them,
and whether more pictures would help.

Each is an ordinary run in a folder of its own, so a study that was interrupted resumes where it stopped, and
one that is done is only read again.
"""

from __future__ import annotations

from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from fer_utils.analysis.label_doubts import can_doubt, doubtful_labels, write_suggestions
from fer_utils.analysis.predictions import hardest_class
from fer_utils.competition import Competition, DataError
from fer_utils.config import AUGMENTATION, DATA_PARAMETERS, Config
from fer_utils.data.corrections import apply_fixes
from fer_utils.data.splits import split_folds
from fer_utils.data.submission import default_format
from fer_utils.files import resolve_out
from fer_utils.learning.metrics import describe, evaluate
from fer_utils.progress import bar
from fer_utils.run.finished_run import Run
from fer_utils.run.train import fit


def study_config(
    config: Config, out: str | Path, n_train: int, epochs: int = 8, width: float = 0.5
) -> Config:
    """A quick net on the data of `config`, `n_train` pictures: `small`, with the knobs of the preset `quick`.

    Raises:
        ConfigError: epochs or width out of range.
    """
    knobs = {
        name: getattr(config, name) for name in ("data", "seed", "device", "split_seed", *DATA_PARAMETERS)
    }
    knobs |= {"out": str(out), "n_devices": "1", "model": "small", "epochs": epochs, "width": width}
    knobs["precision"] = "fp32"  # small differences are to be told apart, so all are computed alike
    if n_train < 10_000:
        knobs["batch_size"] = 64  # more steps for the few pictures
    if config.image_size < 28:
        knobs["start_size"] = 0
    return replace(Config.from_dict({"preset": "quick"}), **knobs)


def out_of_fold_probs(config: Config, competition: Competition, n_folds: int = 4) -> np.ndarray:
    """Class probabilities float32 [N, C] of the training pictures, each by a net that did not learn from it.

    Exact copies of a picture are in one fold. The validation split chooses each net's epoch, so its own
    pictures had no part in what is said of the training pictures.

    Args:
        config: of the nets; fold k is trained in the folder `out`/fold{k}of{n_folds}.
        n_folds: how many nets; each learns from all folds but one.
    """
    train = competition.train
    folds = split_folds(train, n_folds, config.split_seed)
    probs = np.empty((len(train), len(competition.class_names)), np.float32)
    for fold in bar(range(n_folds), "nets out of fold"):
        held_out = folds == fold
        asked = train.take(held_out).without_labels()
        part = replace(
            competition,
            train=train.take(~held_out),
            test=asked,
            submission=default_format(asked.ids, competition.label_values),
        )
        run = _fit(replace(config, out=f"{config.out}/fold{fold}of{n_folds}"), part)
        probs[held_out] = run.saved_probs("test")
    return probs


def variant_runs(
    config: Config, competition: Competition, hardest: int = 0, fixes: str | Path | None = None
) -> dict[str, Run]:
    """The same small net with one thing changed each, to learn what a change is worth on these data.

    Parts of the training pictures are nested, stratified by class, and learned from in as many steps: with as
    many epochs, a net that sees few pictures would stop long before it has learned what these hold. (It then
    has more epochs to choose from, on the pictures that judge it, which flatters it a little; so it does
    "longer".)

    Args:
        config: of the nets; each is trained in a folder of its own name in `out`.
        hardest: the class of which "rarer" leaves out a half.
        fixes: a CSV for `label_fixes`, where its effect is to be measured.

    Returns:
        name -> run: "base"; "quarter" and "half" of the pictures; "rarer"; "longer", twice the epochs;
        "augmented", as strongly as `Config` does by default; "seed", another one; "fixed", with the fixes,
        unless they cannot be used, which is told.
    """
    # No test label is read here, even where the data tells them.
    test = None if competition.test is None else competition.test.without_labels()
    competition, train = replace(competition, test=test), competition.train
    folds, defaults = split_folds(train, 4, config.split_seed), Config()
    rarer = train.take((train.labels != hardest) | (folds < 2))
    variants = {
        "base": (config, train),
        "quarter": (replace(config, epochs=4 * config.epochs), train.take(folds < 1)),
        "half": (replace(config, epochs=2 * config.epochs), train.take(folds < 2)),
        "rarer": (replace(config, epochs=round(config.epochs * len(train) / len(rarer))), rarer),
        "longer": (replace(config, epochs=2 * config.epochs), train),
        "augmented": (replace(config, **{name: getattr(defaults, name) for name in AUGMENTATION}), train),
        "seed": (replace(config, seed=config.seed + 1), train),
    }
    if fixes is not None:
        try:
            variants["fixed"] = (config, apply_fixes(competition, fixes)[0])
        except DataError as error:
            print(f"the fixes are not measured: {error}")
    runs = {}
    for name, (variant, split) in bar(variants.items(), "small trainings"):
        part = replace(competition, train=split)
        # Another edition of the fixes, or another hardest class, is another run.
        folder = name if name not in ("fixed", "rarer") else f"{name}-{part.fingerprint[:8]}"
        runs[name] = _fit(replace(variant, out=f"{config.out}/{folder}"), part)
    return runs


def _fit(config: Config, competition: Competition) -> Run:
    """Train with one line to tell of it; its own lines go into a file beside it."""
    log = resolve_out(config.out).with_suffix(".log")
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", encoding="utf-8") as lines, redirect_stdout(lines):
        run = fit(config, competition)
    print(f"{run.out.name:12} {describe(run.metrics['valid']['views'])}", flush=True)
    return run


@dataclass(frozen=True)
class Study:
    """What the small trainings of a run told.

    Attributes:
        probs: float32 [N, C], of the training pictures out of fold.
        doubts: their doubtful labels (`doubts.doubtful_labels`); None without cleanlab.
        fixes: the CSV of suggestions, which a person may have edited; None without cleanlab, and for a run
            that learned from fixes already.
        variants: from `variant_runs`.
    """

    probs: np.ndarray
    doubts: pd.DataFrame | None
    fixes: Path | None
    variants: dict[str, Run]


def study(run: Run, competition: Competition, n_folds: int = 4, epochs: int = 8, width: float = 0.5) -> Study:
    """Do all small trainings for the data of `run`: about 12 times the time of one, in `run.out`/studies.

    The nets out of fold learn a quarter longer than the others, since better nets raise fewer false alarms.

    Args:
        n_folds: of `out_of_fold_probs`.
        epochs, width: of `study_config`.
    """
    folder = run.out / "studies" / f"width{width:g}-epochs{epochs}"
    config = study_config(run.config, folder, len(competition.train), epochs, width)
    probs = out_of_fold_probs(replace(config, epochs=round(1.25 * epochs)), competition, n_folds)
    known = evaluate(probs, competition.train.labels, competition.class_names)
    print(f"training pictures out of fold: {describe(known)}")
    doubts = fixes = None
    if can_doubt():
        doubts = doubtful_labels(probs, competition.train.labels, competition.class_names)
    if doubts is not None and run.config.label_fixes == "none":
        fixes = run.out / "label_fixes.csv"
        print(write_suggestions(fixes, doubts, competition.train))
    return Study(probs, doubts, fixes, variant_runs(config, competition, hardest_class(run), fixes))
