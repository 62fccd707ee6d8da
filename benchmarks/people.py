"""What limits a network on FER2013: its answers beside those of ten people. python -m benchmarks.people
--data TABLE --votes FILE [FILE] --answers NPZ

TABLE is fer2013.csv or icml_face_data.csv. The votes are FER+'s (Barsoum et al. 2016): `fer2013new.csv`, or
tables of its ten columns, with the rows of TABLE in their order. NPZ is the `valid.npz` of a run or an
ensemble, or the `oof.npz` of folds. Prints two tables in Markdown, and what the votes know of the label that
the network does not.
"""

from __future__ import annotations

import argparse

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict

from fer_utils.learning.metrics import accuracy_of, describe_gain, paired_test

# FER+'s names in the order of FER2013's labels 0 to 6; its other columns are no expression of FER2013.
EXPRESSIONS = ["anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral"]
OTHERS = ["contempt", "unknown", "NF"]
VOTES = ((0, 0), (1, 2), (3, 4), (5, 6), (7, 8), (9, 10))


def by_votes(votes: np.ndarray, labels: np.ndarray, answers: np.ndarray) -> pd.DataFrame:
    """Accuracy and share of the errors by how many of the ten gave FER2013's label.

    `votes` [N, 7 or more] counts them for each expression; `labels` and `answers` are [N].
    """
    given, correct = votes[np.arange(len(labels)), labels], answers == labels
    rows = []
    for low, high in VOTES:
        chosen = (given >= low) & (given <= high)
        scores = accuracy_of(correct[chosen])
        rows.append({
            "people who gave the label": f"{low} to {high}" if low < high else f"{low}",
            "images": int(chosen.sum()), "share": chosen.mean(),
            "accuracy": scores["accuracy"], "low": scores["ci_low"], "high": scores["ci_high"],
            "of all errors": (chosen & ~correct).sum() / max((~correct).sum(), 1),
        })  # fmt: skip
    return pd.DataFrame(rows)


def by_side(votes: np.ndarray, labels: np.ndarray, answers: np.ndarray) -> pd.Series:
    """Shares of the errors by what more than half of the votes said: the label, the network's answer, another
    answer, or nothing."""
    majority = np.where(2 * votes.max(1) > votes.sum(1), votes.argmax(1), -1)[answers != labels]
    label, answer = labels[answers != labels], answers[answers != labels]
    names = ["the label", "the network's answer", "another answer", "no majority"]
    tests = [majority == label, majority == answer, majority >= 0]
    return (
        pd.Series(np.select(tests, names[:3], names[3])).value_counts(normalize=True).reindex(names).fillna(0)
    )


def with_votes(probs: np.ndarray, votes: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Answers [N] of two logistic regressions for labels [N], each for images it has not seen (10 folds):
    from a network's probabilities [N, C] alone, and from these and the votes [N, M]."""
    own = np.log(probs.clip(1e-4))
    people = np.log(votes / votes.sum(1, keepdims=True) + 0.05)
    folds = StratifiedKFold(10, shuffle=True, random_state=0)
    alone, both = (
        cross_val_predict(LogisticRegression(C=0.1, max_iter=3000), inputs, labels, cv=folds)
        for inputs in (own, np.hstack([own, people]))
    )
    return alone, both


def main() -> None:
    """Read the three sources and print the tables."""
    parser = argparse.ArgumentParser("python -m benchmarks.people", description=__doc__.split(". ")[0])
    parser.add_argument("--data", required=True, help="table with the column emotion")
    parser.add_argument("--votes", required=True, nargs="+", help="tables of FER+")
    parser.add_argument("--answers", required=True, help="valid.npz or oof.npz")
    options = parser.parse_args()
    truth = pd.read_csv(options.data, usecols=["emotion"])["emotion"].to_numpy()
    votes = pd.concat([pd.read_csv(file) for file in options.votes])[EXPRESSIONS + OTHERS].to_numpy()
    with np.load(options.answers) as arrays:
        rows, probs = arrays["ids"].astype(int), arrays["probs_views"]
    answers = probs.argmax(1)
    votes, labels = votes[rows], truth[rows]
    correct, most = answers == labels, votes[:, :7].argmax(1) == labels
    print(f"{options.answers}: {100 * correct.mean():.1f} % of {len(labels):,} images")
    print(f"the most frequent expression of the ten equals the label: {100 * most.mean():.1f} %\n")
    print("| people who gave the label | images | accuracy | of all errors |\n|---|---|---|---|")
    for row in by_votes(votes, labels, answers).to_dict("records"):
        accuracy = "{accuracy:.1%} ({low:.1%} to {high:.1%})".format(**row).replace("%", " %")
        images = f"{row['images']:,} ({100 * row['share']:.0f} %)"
        errors = f"{100 * row['of all errors']:.0f} %"
        print(f"| {row['people who gave the label']} of 10 | {images} | {accuracy} | {errors} |")
    print("\n| in an error, most people gave | of all errors |\n|---|---|")
    for name, share in by_side(votes, labels, answers).items():
        print(f"| {name} | {100 * share:.0f} % |")
    alone, both = with_votes(probs, votes, labels)
    accuracies = (f"{100 * (given == labels).mean():.1f} %" for given in (alone, both))
    print("\na regression on the network's answers names {}, with the votes {}: ".format(*accuracies), end="")
    print(describe_gain(paired_test(both, alone, labels)))


if __name__ == "__main__":
    main()
