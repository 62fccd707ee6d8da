"""What the names in the data mean: which split a file belongs to, which expression a label stands for."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from fer_utils.faces import FER_CLASSES

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
    for split, pattern in SPLIT_WORDS.items():
        if any(pattern.match(word) for word in words):
            return split
    return None


def as_int(text: str) -> int | None:
    """The integer that a cell holds (3, 03, 3.0), else None."""
    match = re.fullmatch(r"\s*(-?\d{1,9})(\.0*)?\s*", text)
    return int(match[1]) if match else None


@lru_cache(maxsize=4096)
def canonical(label: str) -> str | None:
    """The expression that a word stands for: happy for Happiness, 3_happy or 03 JOY; None if unknown."""
    word = re.sub(r"^\d+[\s._-]*", "", label.strip().lower())
    return CANONICAL.get(word)


def is_class_name(name: str) -> bool:
    """Whether a folder of that name holds one expression: a known word or an integer."""
    return canonical(name) is not None or re.fullmatch(r"\d{1,2}", name) is not None


@dataclass(frozen=True)
class Coding:
    """How the data writes its classes.

    Attributes:
        class_names: canonical lower-case names where they are known.
        label_values: per class, the data's own label.
        note: what was assumed about their meaning, or "".
    """

    class_names: tuple[str, ...]
    label_values: tuple[int | str, ...]
    note: str = ""

    def index(self, label: str) -> int:
        """The class of a label as it stands in the data, -1 if it is none."""
        return _lookup(self).get(_key(label), -1)


@lru_cache(maxsize=16)
def _lookup(coding: Coding) -> dict[int | str, int]:
    """Every spelling that can be told: the data's own labels, then other words for the expression."""
    values = {_key(str(value)): index for index, value in enumerate(coding.label_values)}
    aliases = {
        word: index for index, name in enumerate(coding.class_names) for word in ALIASES.get(name, "").split()
    }
    return {**aliases, **values}


def _key(label: str) -> int | str:
    number = as_int(label)
    if number is not None:
        return number
    text = label.strip().lower()
    return re.sub(r"^\d+[\s._-]*", "", text) or text


def is_unlabelled_extra(name: str) -> bool:
    """Whether a file is named for pictures without labels that nobody asks answers for."""
    return bool(re.search(r"un-?_?label", name.lower()))


def find_coding(
    labels: Iterable[str],
    *,
    is_fer: bool = False,
    may_be_raf: bool = False,
    names: Mapping[int, str] | None = None,
) -> Coding:
    """Read the coding off the training labels.

    Args:
        labels: text labels of the training split; empty ones are passed over.
        is_fer: the file is FER2013's own form, so that 0..6 are its classes even if some are missing.
        may_be_raf: picture files, where 1..7 means RAF-DB's order.
        names: what the integers mean, where the data has a file that tells.
    """
    counts = Counter(label for label in labels if label.strip())
    numbers = Counter()
    for label, count in counts.items():
        if (number := as_int(label)) is not None:
            numbers[number] += count
    # A word or two among numbers are broken rows, not classes.
    if numbers.total() >= (1 - STRAY_SHARE) * counts.total() and numbers:
        codes = _without_strays(numbers)
        if names and set(codes) <= set(names):
            return _named_coding({code: names[code] for code in codes})
        return _number_coding(codes, is_fer, may_be_raf)
    return _word_coding(_without_typos(counts))


def _named_coding(names: Mapping[int, str]) -> Coding:
    words = {code: canonical(word) or word.strip().lower() for code, word in names.items()}
    if len(set(words.values())) < len(words):
        words = dict(names)
    is_fer = set(words.values()) <= set(FER_CLASSES)
    codes = sorted(words, key=lambda code: FER_CLASSES.index(words[code]) if is_fer else code)
    told = ", ".join(f"{code} {words[code]}" for code in codes)
    return Coding(tuple(words[code] for code in codes), tuple(codes), f"labels named by the data: {told}")


def _without_typos(counts: Counter[str]) -> Counter[str]:
    """Without words that are no expression and rare beside words that are: broken rows, not classes."""
    known = Counter({label: count for label, count in counts.items() if canonical(label)})
    unknown = counts - known
    few = unknown.total() <= STRAY_SHARE * counts.total() and max(unknown.values(), default=0) <= 3
    return known if len(known) >= 3 and few else counts


def _without_strays(numbers: Counter[int]) -> list[int]:
    """Sorted codes, without rare ones that stand apart from 0, 1, 2, ... (such as 99 or -1 for unknown)."""
    run, code = set(), 0 if 0 in numbers else 1
    while code in numbers:
        run.add(code)
        code += 1
    rare = STRAY_SHARE * numbers.total()
    return sorted(code for code, count in numbers.items() if code in run or count > rare)


def _number_coding(codes: Sequence[int], is_fer: bool, may_be_raf: bool) -> Coding:
    # A gap in FER2013's own form is a class missing in part of the data; 0, 1, 2 are three classes.
    has_gap = list(codes) != list(range(len(codes)))
    if list(codes) == list(range(7)) or (is_fer and has_gap and set(codes) <= set(range(7))):
        return Coding(FER_CLASSES, tuple(range(7)), "labels 0..6 taken as FER2013's: 0 angry ... 6 neutral")
    if may_be_raf and list(codes) == list(range(1, 8)):
        values = tuple(RAF_CLASSES.index(name) + 1 for name in FER_CLASSES)
        return Coding(FER_CLASSES, values, "labels 1..7 taken as RAF-DB's: 1 surprise ... 7 neutral")
    names = tuple(f"class {code}" for code in codes)
    return Coding(names, tuple(codes), f"what the labels {codes[0]}..{codes[-1]} mean is not known")


def _word_coding(counts: Counter[str]) -> Coding:
    spellings: dict[int | str, Counter[str]] = {}
    for label, count in counts.items():
        spellings.setdefault(_key(label), Counter())[label.strip()] += count
    values = {key: spelling.most_common(1)[0][0] for key, spelling in spellings.items()}
    # Two words for one expression in the same data (joy beside happy) are two classes of that data.
    meanings = Counter(canonical(value) for value in values.values())
    names = {
        key: canonical(value) if canonical(value) and meanings[canonical(value)] == 1 else str(key)
        for key, value in values.items()
    }
    if set(names.values()) <= set(FER_CLASSES):
        order = sorted(values, key=lambda key: FER_CLASSES.index(names[key]))
    else:
        order = sorted(values, key=lambda key: _natural(values[key]))
    return Coding(tuple(names[key] for key in order), tuple(values[key] for key in order))


def _natural(value: str) -> list[tuple[int, int | str]]:
    """Sort key that puts 2_b before 10_a."""
    return [
        (0, int(part)) if part.isdecimal() else (1, part) for part in re.findall(r"\d+|\D+", value.lower())
    ]


def vote_label(votes: Sequence[float], names: Sequence[str]) -> str:
    """The name with the most votes; "" where several share the lead, there are none, or most say that it is
    no face or cannot be told (FER+ leaves those out too; Barsoum et al. 2016)."""
    most = max(votes, default=0)
    leaders = [name for name, count in zip(names, votes, strict=True) if count == most]
    return leaders[0] if most > 0 and len(leaders) == 1 and canonical(leaders[0]) != "uncertain" else ""
