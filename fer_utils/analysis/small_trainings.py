"""Small trainings, which find doubtful labels with networks not trained on them and measure possible changes.

Each is an ordinary run in its own folder: an interrupted one resumes, and a finished one is only read.
"""

from __future__ import annotations

from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from fer_utils.analysis.label_doubts import cleanlab_is_installed, doubtful_labels, write_suggestions
from fer_utils.analysis.predictions import hardest_class
from fer_utils.competition import Competition, DataError
from fer_utils.config import AUGMENTATION, DATA_PARAMETERS, Config
from fer_utils.data.corrections import apply_fixes
from fer_utils.data.splits import split_folds
from fer_utils.data.submission import default_format
from fer_utils.files import resolve_out
from fer_utils.learning.metrics import accuracy_of, describe
from fer_utils.progress import bar
from fer_utils.run.finished_run import Run
from fer_utils.run.train import fit


def study_config(config: Config, out: str | Path, n_train: int, epochs: int, width: float) -> Config:
    """A small network for the data of `config`, `n_train` pictures; otherwise as the preset `quick`.

    Raises:
        ConfigError: epochs or width out of range.
    """
    same = ("data", "seed", "device", "split_seed", *DATA_PARAMETERS)
    parameters = {name: getattr(config, name) for name in same}
    parameters |= {"out": str(out), "n_devices": "1", "model": "small", "epochs": epochs, "width": width}
    parameters["precision"] = "fp32"  # the same for all, since the differences are small
    if n_train < 10_000:
        parameters["batch_size"] = 64  # more steps for the few pictures
    if config.image_size < 28:
        parameters["start_size"] = 0
    return replace(Config.from_dict({"preset": "quick"}), **parameters)


def out_of_fold_probs(config: Config, competition: Competition, n_folds: int) -> np.ndarray:
    """Class probabilities float32 [N, C] of the training pictures, each by a network not trained on it.

    Exact copies are in one fold. The epoch of each network is chosen on the validation split, so the pictures
    it predicts have no influence on it.

    Args:
        config: of the networks; fold k is trained in the folder `out`/fold{k}of{n_folds}.
        n_folds: number of networks; each is trained on all folds but one.
    """
    train = competition.train
    folds = split_folds(train, n_folds, config.split_seed)
    probs = np.empty((len(train), len(competition.class_names)), np.float32)
    for fold in bar(range(n_folds), "networks out of fold"):
        held_out = folds == fold
        test = train.take(held_out).without_labels()
        submission = default_format(test.ids, competition.label_values)
        part = replace(competition, train=train.take(~held_out), test=test, submission=submission)
        run = _fit(replace(config, out=f"{config.out}/fold{fold}of{n_folds}"), part)
        probs[held_out] = run.saved_probs("test")
    return probs


def variant_runs(
    config: Config, competition: Competition, hardest: int, fixes: str | Path | None
) -> dict[str, Run]:
    """Trainings of one small network that differ in one thing each, to measure the gain of that change.

    Parts of the training pictures are nested and stratified by class. Their trainings have as many steps as
    the others, since a network needs them to learn what few pictures contain. (More epochs also mean more to
    choose from on validation, a small advantage; "longer" has it too.)

    Args:
        config: of the networks; each is trained in a folder of its own name in `out`.
        hardest: the class of which "rarer" leaves out a half.
        fixes: a CSV for `label_fixes`, to measure its effect; None without.

    Returns:
        name -> run: "base"; "quarter" and "half" of the pictures; "rarer"; "longer", twice the epochs;
        "augmented", with the default strengths of `Config`; "seed", another one; "fixed", with the fixes (if
        they cannot be used, the reason is printed).
    """
    # Test labels are not used, even if the data has them.
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
        # With other fixes, or another hardest class, it is another run.
        folder = f"{name}-{part.fingerprint[:8]}" if name in ("fixed", "rarer") else name
        runs[name] = _fit(replace(variant, out=f"{config.out}/{folder}"), part)
    return runs


def _fit(config: Config, competition: Competition) -> Run:
    """Train, and print one line; the lines of the training go to a log file beside the folder."""
    log = resolve_out(config.out).with_suffix(".log")
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", encoding="utf-8") as lines, redirect_stdout(lines):
        run = fit(config, competition)
    print(f"{run.out.name:12} {describe(run.metrics['valid']['views'])}", flush=True)
    return run


def small_trainings(
    run: Run, competition: Competition, n_folds: int, epochs: int, width: float
) -> tuple[pd.DataFrame | None, dict[str, Run]]:
    """Do all small trainings for the data of `run`: about 12 times the time of one, in `run.out`/studies.

    Suggestions for doubtful labels are written to label_fixes.csv in `run.out`, unless the run was trained
    with fixes already. The networks out of fold are trained a quarter longer than the others, since better
    networks raise fewer false alarms.

    Args:
        n_folds: of `out_of_fold_probs`.
        epochs, width: of `study_config`.

    Returns:
        The `doubtful_labels` of the training split (None without cleanlab), and the `variant_runs`.
    """
    folder = run.out / "studies" / f"width{width:g}-epochs{epochs}"
    labels = competition.train.labels
    config = study_config(run.config, folder, len(labels), epochs, width)
    probs = out_of_fold_probs(replace(config, epochs=round(1.25 * epochs)), competition, n_folds)
    print(f"training pictures out of fold: {describe(accuracy_of(probs.argmax(1) == labels))}")
    doubts = fixes = None
    if cleanlab_is_installed():
        doubts = doubtful_labels(probs, labels, competition.class_names)
        if run.config.label_fixes == "none":
            fixes = run.out / "label_fixes.csv"
            print(write_suggestions(fixes, doubts, competition.train))
    return doubts, variant_runs(config, competition, hardest_class(run), fixes)
