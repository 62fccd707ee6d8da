"""The classes of a data set (`Coding`): from its labels, from a file that names them, or as a person says.
Without evidence numbers stay `class 0`, `class 1`, ..."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import cached_property
from itertools import count
from statistics import mode

import numpy as np

from fer_utils.competition import FER_CLASSES, DataError
from fer_utils.data.known_expressions_and_splits import (
    ALIASES,
    CANONICAL,
    RAF_CLASSES,
    STRAY_SHARE,
    as_int,
    canonical,
    without_number,
)

FER, RAF = "FER2013", "RAF-DB"
ENOUGH = 700  # labels to tell a class that is rare from one that is not
ALIKE = 0.84  # how alike (`difflib`) a misspelt word is to the expression that is meant: hapy, suprice
MOST_MISSPELT = 0.05  # of the labels that are a misspelt word


@dataclass(frozen=True)
class Coding:
    """How the data writes its classes.

    Attributes:
        class_names: in lower case; the project's word for each known expression.
        label_values: the data's own label for each class.
        numbers: the number of each class; none where the data does not say them.
        words: the word that the data has for each class; none where it has only numbers.
        note: where names and numbers were taken from, or "".
    """

    class_names: tuple[str, ...]
    label_values: tuple[int | str, ...]
    numbers: tuple[int, ...] = ()
    words: tuple[str, ...] = ()
    note: str = ""

    @cached_property
    def _by_label(self) -> dict[int | str, int]:
        """Class index by the data's own labels, and by other words for the expression."""
        pairs = list(enumerate(self.class_names))
        words = {word: index for index, name in pairs for word in ALIASES.get(name, "").split()}
        own = [(str(value), index) for index, value in enumerate(self.label_values)]
        words |= {without_number(value): index for value, index in own if as_int(value) is None}
        words |= {name: index for index, name in pairs}
        numbers = {number: index for index, number in enumerate(self.numbers)}
        return words | numbers | {_key(value): index for value, index in own}

    def index(self, label: str) -> int:
        """The class of a label as written in the data; -1 if it is none."""
        return self._by_label.get(_key(label), self._by_label.get(without_number(label), -1))

    def indices(self, labels: Collection[str | None]) -> np.ndarray:
        """The classes of labels, int64 [N]; -1 where a label is none."""
        known = {label: self.index(label or "") for label in set(labels)}
        return np.array([known[label] for label in labels], np.int64)


def _key(label: str) -> int | str:
    number = as_int(label)
    return label.strip().lower() if number is None else number


def find_coding(
    labels: Iterable[str], *, form: str = "", names: Mapping[int, str] | None = None, source: str = "the data"
) -> Coding:
    """The coding of the training labels.

    Args:
        labels: as text; empty ones are ignored.
        form: `FER` or `RAF` if the data has that data set's own form, so that its numbers are known.
        names: class names by integer label, if something says them.
        source: what says it, for the note.
    """
    counts = Counter(label for label in labels if label.strip())
    integers = Counter(map(as_int, counts.elements()))
    del integers[None]
    form = "" if form == FER and not _may_be_fer(integers) else form
    # A word or two among numbers are broken rows, not classes.
    if integers.total() >= (1 - STRAY_SHARE) * counts.total() and integers:
        return _number_coding(_without_strays(integers), names or {}, form, source)
    if integers.total() > STRAY_SHARE * counts.total() and sum(bool(canonical(word)) for word in counts) > 1:
        some = ", ".join(map(str, sorted(integers)[:3]))
        raise DataError(
            f"{integers.total():,} of {counts.total():,} labels are numbers (such as {some}) and the others "
            "words, so that a class may be there twice: write all in one way"
        )
    numbers = {word: code for code, word in (names or {}).items()}
    return _word_coding(_without_typos(counts), numbers, source)


def check_single(labels: Iterable[str]) -> None:
    """Raise a DataError if more than a few labels name several of the expressions: happy|sad."""
    counts = Counter(labels)
    alone = set(map(canonical, counts)) - {None}
    parts = {label: set(map(canonical, re.split(r"[|;,+/&]", label))) for label in counts}
    several = {label: counts[label] for label, words in parts.items() if len(words) > 1 and words <= alone}
    if sum(several.values()) > STRAY_SHARE * counts.total():
        raise DataError(
            f"{sum(several.values()):,} of {counts.total():,} labels name several expressions (such as "
            f"{next(iter(several))!r}): keep one for each image, or leave these images out. If these are "
            "classes of their own, classes= with the names of all classes says so"
        )


def check_misspelt(labels: Iterable[str]) -> None:
    """Raise a DataError if many labels seem to misspell an expression that others name: hapy beside happy."""
    counts = Counter(labels)
    there, most = set(map(canonical, counts)) - {None}, MOST_MISSPELT * counts.total()
    for label, n in counts.items():
        if n > most and not canonical(label) and CANONICAL.get(meant := meant_by(label)) in there:
            raise DataError(
                f"{n:,} labels are {label!r}, which seems to be {meant!r} misspelt and would be a class of "
                "its own: write them alike, or name all classes with classes="
            )


def check_same_start(train: list[int | str], valid: list[int | str]) -> None:
    """Raise a DataError if the labels are numbers, sorted, that begin at 0 for training and at 1 for
    validation, or the other way round."""
    if len(train) < 3 or not all(isinstance(value, int) for value in train + valid):
        return
    if any(valid == [value + shift for value in train] for shift in (1, -1)):
        raise DataError(
            f"the labels for training are {train[0]} to {train[-1]} and those for validation {valid[0]} to "
            f"{valid[-1]}: the same classes seem to be counted from {train[0]} and from {valid[0]}; write "
            "both in one way"
        )


def meant_by(label: str) -> str:
    """The word for an expression that a label seems to misspell; "" if there is none."""
    word = without_number(label)
    alike = get_close_matches(word, CANONICAL, n=1, cutoff=ALIKE)
    is_longer = alike and re.search(rf"{alike[0]}\d*$", word)  # abnormal, happy2
    return alike[0] if alike and not is_longer else ""


def _may_be_fer(numbers: Counter[int]) -> bool:
    """Whether labels 0..6 can be FER2013's by their shares: its 1, disgust, is rare, and its 5, surprise,
    rarer than 6, neutral; in the order of the alphabet 5 is sad and 6 surprise."""
    if numbers.total() < ENOUGH:
        return True
    is_rare = numbers[1] < numbers.total() / len(numbers) / 2
    return is_rare and (numbers[5] < numbers[6] or not numbers[6])


def _without_typos(counts: Counter[str]) -> Counter[str]:
    """Without rare words that are no expression, if most words are: broken rows, not classes. A misspelt
    expression may be less rare."""
    known = Counter({label: n for label, n in counts.items() if canonical(label)})
    there, most = set(map(canonical, known)), MOST_MISSPELT * counts.total()
    for label in [label for label in counts if label not in known and counts[label] <= most]:
        if CANONICAL.get(meant_by(label)) in there:
            del counts[label]
    unknown = counts - known
    few = unknown.total() <= STRAY_SHARE * counts.total() and max(unknown.values(), default=0) <= 3
    return known if len(known) >= 3 and few else counts


def _without_strays(numbers: Counter[int]) -> list[int]:
    """Sorted codes, without rare ones outside 0, 1, 2, ... (such as 99 or -1 for unknown)."""
    start = 0 if 0 in numbers else 1
    end = next(code for code in count(start) if code not in numbers)
    rare = STRAY_SHARE * numbers.total()
    return sorted(code for code, n in numbers.items() if start <= code < end or n > rare)


def _number_coding(codes: list[int], names: Mapping[int, str], form: str, source: str) -> Coding:
    # In FER2013's form, a gap is a class missing in part of the data; 0, 1, 2 are three classes.
    has_gap, note = codes != list(range(len(codes))), ""
    if set(codes) <= set(names):
        names = {code: names[code] for code in codes}
    elif form == FER and 0 in codes and set(codes) <= set(range(7)) and (has_gap or len(codes) == 7):
        names, note = dict(enumerate(FER_CLASSES)), "labels 0..6 are FER2013's: 0 angry ... 6 neutral"
    elif form == RAF and codes == list(range(1, 8)):
        names, note = dict(enumerate(RAF_CLASSES, 1)), "labels 1..7 are RAF-DB's: 1 surprise ... 7 neutral"
    else:
        note = (
            f"what the labels {codes[0]}..{codes[-1]} mean is not known: "
            f"classes='word for {codes[0]}, word for {codes[1] if codes[1:] else '...'}, ...' names them"
        )
        return Coding(tuple(f"class {code}" for code in codes), tuple(codes), tuple(codes), note=note)
    words = {code: canonical(word) or word.strip().lower() for code, word in names.items()}
    if len(set(words.values())) < len(words):
        words = names
    is_fer = set(words.values()) <= set(FER_CLASSES)
    order = sorted(words, key=lambda code: FER_CLASSES.index(words[code]) if is_fer else code)
    pairs = ", ".join(f"{code} {words[code]}" for code in sorted(words))
    note = note or f"labels named by {source}: {pairs}"
    own = tuple(names[code].strip() for code in order)
    return Coding(tuple(words[code] for code in order), tuple(order), tuple(order), own, note)


def _word_coding(counts: Counter[str], numbers: Mapping[str, int], source: str) -> Coding:
    # A number before a word is left out, unless it is all that tells two classes apart: 1_happy and 2_happy.
    keys = {label: without_number(label) for label in counts}
    plain = {label: label.strip().lower() for label in counts}
    keys = plain if len(set(plain.values())) > len(set(keys.values())) else keys
    spellings: dict[str, Counter[str]] = {}
    for label, n in counts.items():
        spellings.setdefault(keys[label], Counter())[label.strip()] += n
    # Of sad and Sad the one that is written as most labels are.
    is_lower = mode(label.islower() for label in counts.elements())
    values = {
        key: max(spelling, key=lambda word: (word.islower() == is_lower, spelling[word]))
        for key, spelling in spellings.items()
    }
    # Two words for one expression in the same data (joy beside happy) are two classes of that data.
    words = {key: canonical(value) for key, value in values.items()}
    n_spellings = Counter(words.values())
    names = {key: word if word and n_spellings[word] == 1 else key for key, word in words.items()}
    is_fer = set(names.values()) <= set(FER_CLASSES)
    order = sorted(values, key=lambda key: FER_CLASSES.index(names[key]) if is_fer else natural(values[key]))
    own = tuple(values[key] for key in order)
    return _numbered(Coding(tuple(names[key] for key in order), own, words=own), numbers, source)


def _numbered(coding: Coding, numbers: Mapping[str, int], source: str) -> Coding:
    """The coding with a number for each class, if every word has one of its own: in `numbers`, or else before
    the word (0 angry, 1 disgust)."""
    of_class = {coding.index(word): number for word, number in numbers.items()}
    if not numbers:
        starts = [re.match(r"\d*", value)[0] for value in coding.label_values]
        of_class = dict(enumerate(map(as_int, starts)))
    found = [of_class.get(index) for index in range(len(coding.class_names))]
    if None in found or len(set(found)) < len(found):
        return coding
    pairs = ", ".join(f"{n} {name}" for n, name in sorted(zip(found, coding.class_names, strict=True)))
    return replace(coding, numbers=tuple(found), note=f"classes numbered by {source}: {pairs}")


def natural(value: str) -> list[tuple[int, int | str]]:
    """Sort key that puts 2_b before 10_a."""
    parts = re.findall(r"\d+|\D+", value.lower())
    return [(0, int(part)) if part.isdecimal() else (1, part) for part in parts]
