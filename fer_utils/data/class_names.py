"""The classes of a data set (`Coding`), from its labels or from a file that names them."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import count
from pathlib import Path

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
        class_names: in lower case; the project's word for each known expression.
        label_values: the data's own label for each class.
        note: what was assumed about their meaning, or "".
    """

    class_names: tuple[str, ...]
    label_values: tuple[int | str, ...]
    note: str = ""

    @cached_property
    def _by_label(self) -> dict[int | str, int]:
        """Class index by the data's own labels, and by other words for the expression."""
        pairs = enumerate(self.class_names)
        aliases = {word: index for index, name in pairs for word in ALIASES.get(name, "").split()}
        return aliases | {_key(str(value)): index for index, value in enumerate(self.label_values)}

    def index(self, label: str) -> int:
        """The class of a label as written in the data; -1 if it is none."""
        return self._by_label.get(_key(label), -1)

    def indices(self, labels: Iterable[str]) -> np.ndarray:
        """The classes of labels, int64 [N]; -1 where a label is none."""
        return np.array([self.index(label) for label in labels], np.int64)


def _key(label: str) -> int | str:
    if (number := as_int(label)) is not None:
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
    """The coding of the training labels.

    Args:
        labels: as text; empty ones are ignored.
        is_fer: the table has FER2013's columns, so that 0..6 are its classes even if some are missing.
        may_be_raf: image files, where 1..7 means RAF-DB's order.
        names: class names by integer label, if a file of the data lists them.
    """
    counts = Counter(label for label in labels if label.strip())
    numbers = Counter()
    for label, n in counts.items():
        if (number := as_int(label)) is not None:
            numbers[number] += n
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
    note = "labels named by the data: " + ", ".join(f"{code} {words[code]}" for code in codes)
    return Coding(tuple(words[code] for code in codes), tuple(codes), note)


def _without_typos(counts: Counter[str]) -> Counter[str]:
    """Without rare words that are no expression, if most words are: broken rows, not classes."""
    known = Counter({label: n for label, n in counts.items() if canonical(label)})
    unknown = counts - known
    few = unknown.total() <= STRAY_SHARE * counts.total() and max(unknown.values(), default=0) <= 3
    return known if len(known) >= 3 and few else counts


def _without_strays(numbers: Counter[int]) -> list[int]:
    """Sorted codes, without rare ones outside 0, 1, 2, ... (such as 99 or -1 for unknown)."""
    start = 0 if 0 in numbers else 1
    end = next(code for code in count(start) if code not in numbers)
    rare = STRAY_SHARE * numbers.total()
    return sorted(code for code, n in numbers.items() if start <= code < end or n > rare)


def _number_coding(codes: list[int], is_fer: bool, may_be_raf: bool) -> Coding:
    # With FER2013's columns, a gap is a class missing in part of the data; 0, 1, 2 are three classes.
    has_gap = codes != list(range(len(codes)))
    if codes == list(range(7)) or (is_fer and has_gap and set(codes) <= set(range(7))):
        return Coding(FER_CLASSES, tuple(range(7)), "labels 0..6 taken as FER2013's: 0 angry ... 6 neutral")
    if may_be_raf and codes == list(range(1, 8)):
        values = tuple(RAF_CLASSES.index(name) + 1 for name in FER_CLASSES)
        return Coding(FER_CLASSES, values, "labels 1..7 taken as RAF-DB's: 1 surprise ... 7 neutral")
    note = f"what the labels {codes[0]}..{codes[-1]} mean is not known"
    return Coding(tuple(f"class {code}" for code in codes), tuple(codes), note)


def _word_coding(counts: Counter[str]) -> Coding:
    spellings: dict[int | str, Counter[str]] = {}
    for label, n in counts.items():
        spellings.setdefault(_key(label), Counter())[label.strip()] += n
    values = {key: spelling.most_common(1)[0][0] for key, spelling in spellings.items()}
    # Two words for one expression in the same data (joy beside happy) are two classes of that data.
    words = {key: canonical(value) for key, value in values.items()}
    n_spellings = Counter(words.values())
    names = {key: word if word and n_spellings[word] == 1 else str(key) for key, word in words.items()}
    is_fer = set(names.values()) <= set(FER_CLASSES)
    order = sorted(values, key=lambda key: FER_CLASSES.index(names[key]) if is_fer else _natural(values[key]))
    return Coding(tuple(names[key] for key in order), tuple(values[key] for key in order))


def _natural(value: str) -> list[tuple[int, int | str]]:
    """Sort key that puts 2_b before 10_a."""
    parts = re.findall(r"\d+|\D+", value.lower())
    return [(0, int(part)) if part.isdecimal() else (1, part) for part in parts]


@lru_cache(maxsize=1)
def named_classes(tree: Tree) -> dict[int, str] | None:
    """Class names by integer label from the first file that lists them: {"0": "angry"} in JSON, `names` in
    YOLO's data.yaml, or one word per line in classes.txt and the like; None without such a file."""
    names = sorted(filter(_may_name_classes, tree.files), key=lambda n: (n.count("/"), n))
    return next(filter(None, (_names_in(tree.files[name]) for name in names)), None)


def _may_name_classes(name: str) -> bool:
    """Whether to open a file: a data set for YOLO has a text file for every image."""
    if name.lower().endswith((".json", ".yaml", ".yml")):
        return True
    telling = re.search("class|label|names|emotion|categor", stem(name).lower())
    return name.lower().endswith((".txt", ".names")) and telling is not None


def _names_in(path: Path) -> dict[int, str] | None:
    try:
        if path.stat().st_size > 2**14:
            return None
        text = path.read_text(encoding="utf-8-sig", errors="replace")
        if path.suffix.lower() == ".json":
            return class_map(json.loads(text))
        is_yaml = path.suffix.lower() in (".yaml", ".yml")
        return _yaml_names(yaml.safe_load(text)) if is_yaml else _listed_names(text)
    except (ValueError, OSError, RecursionError, yaml.YAMLError):
        return None


def _yaml_names(content: object) -> dict[int, str] | None:
    names = content.get("names") if isinstance(content, dict) else None
    if isinstance(names, list):
        names = dict(enumerate(names))
    if not isinstance(names, dict) or not 2 <= len(names) <= 1000:
        return None
    # Nested aliases in YAML could expand a few lines to gigabytes of text.
    plain = all(isinstance(code, int) and isinstance(word, (str, int, float)) for code, word in names.items())
    return {code: str(word) for code, word in names.items()} if plain else None


def _listed_names(text: str) -> dict[int, str] | None:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    words = [re.sub(r"^\d+\s*[:,. ]\s*", "", line) for line in lines]
    codes = [as_int(re.match(r"\d*", line)[0]) for line in lines]
    if not 2 <= len(words) <= 100 or sum(canonical(word) is not None for word in words) < 0.7 * len(words):
        return None
    return dict(zip(range(len(words)) if None in codes else codes, words, strict=True))
