"""Words in the data: the split that a name means, the expression that a word means."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

ALIASES = {
    "angry": "angry anger",
    "disgust": "disgust disgusted digust",
    "fear": "fear fearful scared afraid",
    "happy": "happy happiness joy",
    "sad": "sad sadness",
    "surprise": "surprise surprised",
    "neutral": "neutral normal calm",
    "contempt": "contempt contemptuous",
    "uncertain": "uncertain unknown nf",
}
CANONICAL = {word: name for name, words in ALIASES.items() for word in words.split()}

# RAF-DB counts from 1, in an order of its own (Li, Deng and Du 2017).
RAF_CLASSES = ("surprise", "fear", "disgust", "happy", "sad", "angry", "neutral")

# In this order: PublicTest is a validation split although its name ends in test.
SPLIT_WORDS = {
    "train": re.compile("train"),
    "valid": re.compile("val$|valid|public|dev$|eval"),
    "test": re.compile("test|private|holdout"),
}
STRAY_SHARE = 0.01


@lru_cache(maxsize=4096)
def split_of(name: str) -> str | None:
    """The split that a file, folder or Usage value names: train, valid, test or None."""
    words = [word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+", name)]
    return next((split for split, word in SPLIT_WORDS.items() if any(map(word.match, words))), None)


def as_int(text: str) -> int | None:
    """The integer in a cell (3, 03, 3.0); None for any other text."""
    match = re.fullmatch(r"\s*(-?\d{1,9})(\.0*)?\s*", text)
    return int(match[1]) if match else None


@lru_cache(maxsize=4096)
def canonical(label: str) -> str | None:
    """The expression that a word stands for: happy for Happiness, 3_happy or 03 JOY; None if unknown."""
    return CANONICAL.get(re.sub(r"^\d+[\s._-]*", "", label.strip().lower()))


def is_class_name(name: str) -> bool:
    """Whether a folder name means one class: a known word or an integer."""
    return canonical(name) is not None or re.fullmatch(r"\d{1,2}", name) is not None


def is_unlabelled_extra(name: str) -> bool:
    """Whether a file is named for unlabelled images that are not part of the test split."""
    return bool(re.search(r"un-?_?label", name.lower()))


def vote_label(votes: Sequence[float], names: Sequence[str]) -> str:
    """The name with the most votes; "" for a tie, no votes, or if no face or unknown leads (as in FER+,
    Barsoum et al. 2016)."""
    most = max(votes, default=0)
    leaders = [name for name, count in zip(names, votes, strict=True) if count == most]
    return leaders[0] if most > 0 and len(leaders) == 1 and canonical(leaders[0]) != "uncertain" else ""
