"""Small trainings, which find doubtful labels with networks not trained on them and measure possible changes.

Each is an ordinary run in its own folder: an interrupted one resumes, and a finished one is only read.
"""

from __future__ import annotations

from contextlib import redirect_stdout, suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from fer_utils.analysis.label_doubts import describe_doubts, doubtful_labels, write_suggestions
from fer_utils.competition import Competition, DataError
from fer_utils.config import DATA_PARAMETERS, Config
from fer_utils.data.corrections import apply_fixes
from fer_utils.data.folds import split_folds
from fer_utils.data.submission_csv import default_format
from fer_utils.files import resolve_out
from fer_utils.progress import bar, interactive
from fer_utils.run.finished_run import Run
from fer_utils.run.train import fit

# Stronger than the defaults: wider warps, other light, and covered parts; all else stays as the base has it.
STRENGTHS = dict(flip=0.5, rotate=12.0, scale=0.12, shift=0.08, brightness=0.15, contrast=0.2, erase=0.3)


def study_config(config: Config, out: str | Path, n_train: int, epochs: int, width: float) -> Config:
    """A small network for the data of `config`, `n_train` images; otherwise the defaults.

    Raises:
        ConfigError: epochs or width out of range.
    """
    same = ("data", "seed", "device", "split_seed", *DATA_PARAMETERS)
    parameters = {name: getattr(config, name) for name in same}
    parameters |= {"out": str(out), "n_devices": "1", "model": "small", "epochs": epochs, "width": width}
    parameters["precision"] = "fp32"  # the same for all, since the differences are small
    if n_train < 10_000:
        parameters["batch_size"] = 64  # more steps for the few images
    if epochs == 1:  # it would see small images only
        parameters["start_size"] = 0
    return Config(**parameters)


def out_of_fold_probs(config: Config, competition: Competition, n_folds: int) -> np.ndarray:
    """Class probabilities float32 [N, C] of the training images, each by a network not trained on it.

    The networks of `config` are trained on all folds but one each, in the folders `out`/fold{k}of{n_folds}.
    Exact copies are in one fold. The epoch of each network is chosen on the validation split, so the images
    it predicts have no influence on it.
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
    config: Config, competition: Competition, fixes: str | Path | None, n_seeds: int = 1
) -> dict[str, list[Run]]:
    """Trainings of one small network that differ in one thing each, to measure the gain of that change; each
    in a folder of its own name in `config.out`.

    Parts of the training images are nested and stratified by class. Their trainings have as many steps as
    the others, since a network needs them to learn what few images contain. (More epochs also mean more to
    choose from on validation, a small advantage; "longer" has it too.)

    Args:
        fixes: a CSV for `label_fixes`, to measure its effect; None without.
        n_seeds: of each. The difference of two single trainings is mostly chance.

    Returns:
        name -> a run for each seed: "base"; "quarter" and "half" of the images; "longer", twice the epochs;
        "augmented", with the `STRENGTHS`; "fixed", with the fixes, if they can be used.
    """
    if competition.test is not None:  # its labels are not used, even if the data has them
        competition = replace(competition, test=competition.test.without_labels())
    train = competition.train
    folds = split_folds(train, 4, config.split_seed)
    variants = {
        "base": (config, train),
        "quarter": (replace(config, epochs=4 * config.epochs), train.take(folds < 1)),
        "half": (replace(config, epochs=2 * config.epochs), train.take(folds < 2)),
        "longer": (replace(config, epochs=2 * config.epochs), train),
        "augmented": (replace(config, **STRENGTHS), train),
    }
    if fixes is not None:
        with suppress(DataError):  # `write_suggestions` says why
            variants["fixed"] = (config, apply_fixes(competition, fixes)[0])
    runs: dict[str, list[Run]] = {name: [] for name in variants}
    seeds = range(config.seed, config.seed + n_seeds)
    for seed, name in bar([(seed, name) for seed in seeds for name in variants], "small trainings"):
        variant, split = variants[name]
        part = replace(competition, train=split)
        folder = f"{name}-{part.fingerprint[:8]}" if name == "fixed" else name  # other fixes: another run
        folder = f"{config.out}/{folder}" + f"-seed{seed}" * (seed > config.seed)
        runs[name].append(_fit(replace(variant, out=folder, seed=seed), part))
    return runs


def _fit(config: Config, competition: Competition) -> Run:
    """Train; the lines of the training go to a log file beside the folder."""
    log = resolve_out(config.out).with_suffix(".log")
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", encoding="utf-8") as lines, redirect_stdout(lines):
        run = fit(config, competition)
    if not interactive():  # there a bar is shown
        accuracy, seconds = run.metrics["valid"]["views"]["accuracy"], run.metrics["training"]["seconds"]
        print(f"{run.out.name}: valid accuracy {100 * accuracy:.1f} %, {seconds:.0f} s", flush=True)
    return run


def small_trainings(
    run: Run,
    competition: Competition,
    n_folds: int,
    epochs: int,
    width: float,
    n_seeds: int = 1,
    studied: Competition | None = None,
) -> tuple[dict[str, list[Run]], pd.DataFrame | None, str]:
    """Do all small trainings for the data of `run`, in `run.out`/studies.

    Together they take about 3 + 7 `n_seeds` times as long as one. Suggestions for doubtful labels are written
    to label_fixes.csv in `run.out`, unless the run was trained with fixes already. The networks out of fold
    are trained a quarter longer than the others, since better networks raise fewer false alarms. A run with
    `cv` has predictions out of fold already; then the small networks learn from `studied`, its first fold.

    Returns:
        The `variant_runs`; the `doubtful_labels` of the training split, None without cleanlab; and how many
        these are, how far to trust them and which file lists them, in words.
    """
    folder = run.out / "studies" / f"width{width:g}-epochs{epochs}"
    labels, studied = competition.train.labels, studied or competition
    config = study_config((run.folds or (run,))[0].config, folder, len(studied.train), epochs, width)
    if run.folds:
        probs = run.saved_probs()
    else:
        probs = out_of_fold_probs(replace(config, epochs=round(1.25 * epochs)), competition, n_folds)
    doubts, fixes = doubtful_labels(probs, labels, competition.class_names), None
    words = describe_doubts(doubts, len(labels), (probs.argmax(1) == labels).mean())
    if doubts is not None and run.config.label_fixes == "none":
        fixes = run.out / "label_fixes.csv"
        words += f"\n\n{write_suggestions(fixes, doubts, competition)}"
        if run.folds:
            words += (
                "\n\nThe gain measured for them may be slightly too high: the networks that doubt these "
                "labels have learned the labels that judge the small trainings."
            )
    elif doubts is not None:
        words += "\n\nNo file lists them: this run was trained with `label_fixes` already."
    return variant_runs(config, studied, fixes, n_seeds), doubts, words
