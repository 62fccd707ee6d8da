"""The classes of a data set, from all its labels or from a file that names them (`Coding`). The words for
each expression are in `labels`."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import PurePosixPath

import numpy as np
import yaml

from fer_utils.competition import FER_CLASSES
from fer_utils.data.files.tree import Tree, stem
from fer_utils.data.json_parquet import class_map
from fer_utils.data.labels import ALIASES, RAF_CLASSES, STRAY_SHARE, as_int, canonical


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

    def indices(self, labels: Iterable[str]) -> np.ndarray:
        """The classes of labels, int64 [N]; -1 where a label is none."""
        return np.array([self.index(label) for label in labels], np.int64)


@lru_cache(maxsize=16)
def _lookup(coding: Coding) -> dict[int | str, int]:
    """Class index by spelling: the data's own labels, and other words for the expression."""
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


@lru_cache(maxsize=1)
def named_classes(tree: Tree) -> dict[int, str] | None:
    """What integer labels mean, where a file tells: {"0": "angry"} in JSON, `names` in YOLO's data.yaml, or a
    word a line in classes.txt and the like."""
    names = [name for name in tree.files if _may_name_classes(name)]
    for name in sorted(names, key=lambda n: (n.count("/"), n)):
        path, kind = tree.files[name], PurePosixPath(name).suffix.lower()
        try:
            if path.stat().st_size > 2**14:
                continue
            text = path.read_text(encoding="utf-8-sig", errors="replace")
            if kind == ".json":
                found = class_map(json.loads(text))
            elif kind in (".yaml", ".yml"):
                content = yaml.safe_load(text)
                found = _yaml_names(content.get("names") if isinstance(content, dict) else None)
            else:
                found = _listed_names(text)
        except (ValueError, OSError, RecursionError, yaml.YAMLError):
            continue
        if found:
            return found
    return None


def _may_name_classes(name: str) -> bool:
    """Whether a look inside is worth it: a data set for YOLO has a text file for every picture."""
    if name.lower().endswith((".json", ".yaml", ".yml")):
        return True
    telling = re.search("class|label|names|emotion|categor", stem(name).lower())
    return name.lower().endswith((".txt", ".names")) and telling is not None


def _yaml_names(names: object) -> dict[int, str] | None:
    if isinstance(names, list):
        names = dict(enumerate(names))
    if not isinstance(names, dict) or not 2 <= len(names) <= 1000:
        return None
    # Aliases of YAML make a few lines into gigabytes of text.
    plain = all(isinstance(code, int) and isinstance(word, (str, int, float)) for code, word in names.items())
    return {code: str(word) for code, word in names.items()} if plain else None


def _listed_names(text: str) -> dict[int, str] | None:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    words = [re.sub(r"^\d+\s*[:,. ]\s*", "", line) for line in lines]
    codes = [as_int(re.match(r"\d*", line)[0]) for line in lines]
    if not 2 <= len(words) <= 100 or sum(canonical(word) is not None for word in words) < 0.7 * len(words):
        return None
    return dict(zip(range(len(words)) if None in codes else codes, words, strict=True))
