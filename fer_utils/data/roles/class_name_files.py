"""Class names that a person gave, or that files of the data list."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

import pandas as pd
import yaml

from fer_utils.competition import DataError
from fer_utils.data.files.file_index import Tree, stem
from fer_utils.data.known_expressions_and_splits import are_counted, as_int, as_pairs, canonical
from fer_utils.data.tables_json_parquet import class_map
from fer_utils.files import find_path

TELLING = re.compile("class|label|names|emotion|expression|categor|sentiment|mood|data")
LARGEST_LIST = 2**16  # bytes of a file that is looked at
# 0 = angry, "0": "angry", | 0 | angry |; and the other way round.
STATED = (
    re.compile(r"\b(?P<code>\d{1,2})[^\w\n]{0,3}[-:=|][^\w\n]{0,3}(?P<word>[a-z]+)", re.I),
    re.compile(r"\b(?P<word>[a-z]+)[^\w\n]{0,3}[-:=|][^\w\n]{0,3}(?P<code>\d{1,2})\b", re.I),
)


class PlainList(dict):
    """Class names in the order of their numbers, which the file does not state."""

    def __repr__(self) -> str:
        return f"PlainList({super().__repr__()})"


def read_classes(classes: str) -> str | dict[int, str]:
    """What a person said about the classes; if it is the name of a file, the class names in it, by number.

    Raises:
        DataError: no text, no such file, or a file that lists no class names.
    """
    if not isinstance(classes, str):
        raise DataError(f"classes must be text, got {classes!r}")
    if not Path(classes).suffix or set(classes) & set(",="):
        return classes
    path = find_path(classes)
    if not path.is_file() or not (names := names_in(path)):
        raise DataError(f"classes: {path} lists no class names")
    return names


def parse_classes(classes: str | Mapping[int, str], codes: list[int] | None = None) -> dict[int, str]:
    """Class names by number, as a person gave them (`read_classes`): "angry, happy" in ascending order of
    the numbers, or "0=angry, 3=happy", or the names from a file.

    Args:
        codes: the numbers in the data; None where its labels are words, which are numbered from 0 then.

    Raises:
        DataError: text of another form, or too few or too many names.
    """
    if not isinstance(classes, str):
        _check_once(classes.values())
        return fitting_names(classes, codes) or dict(classes)
    pairs = as_pairs(classes)
    _check_once(word if "=" in classes else first for first, word in pairs)
    if "=" in classes:
        if not all(word and as_int(code) is not None for code, word in pairs):
            raise DataError(f"classes must be like 'angry, happy' or '0=angry, 1=happy', got {classes!r}")
        return {as_int(code): word for code, word in pairs}
    items = [word for word, _ in pairs]
    codes = list(range(len(items))) if codes is None else codes
    if len(items) != len(codes):
        raise DataError(
            f"classes names {len(items)} classes ({', '.join(items)}), but the data has {len(codes)}: "
            f"{', '.join(map(str, codes[:8]))}"
        )
    return dict(zip(codes, items, strict=True))


def _check_once(words: Iterable[str]) -> None:
    """Raise a DataError if two classes have one name."""
    counts = Counter(word.strip().lower() for word in words)
    if twice := [word for word, n in counts.items() if word and n > 1]:
        raise DataError(f"classes names {twice[0]} twice: give each class a name of its own")


def fitting_names(names: Mapping[int, str], codes: Collection[int] | None) -> dict[int, str] | None:
    """Class names with the numbers that the data has (`codes`); None if these are others. A plain list of
    words may be counted from 1: where it has more words than the data has numbers, and no 0 is among these,
    which of its words is the first is not known, so it fits none."""
    if codes is None:
        return dict(names)
    from_one = {number + 1: word for number, word in names.items()} if isinstance(names, PlainList) else {}
    if set(codes) == set(from_one):
        return from_one
    return dict(names) if set(codes) <= set(names) and not set(codes) <= set(from_one) else None


def named_classes(tree: Tree) -> dict[str, dict[int, str]]:
    """Class names by number from each file that lists them: dictionaries and lists in JSON, `names` in YOLO's
    data.yaml, a README, a word a line in classes.txt, small tables of ids and words."""
    names = sorted(filter(_may_name_classes, tree.files), key=lambda n: (n.count("/"), n))
    found = {name: words for name in names[:100] if (words := names_in(tree.files[name]))}
    for name, table in tree.tables.items():
        if name not in found and not table.holds_images and (words := _names_in_table(table.frame)):
            found[name] = words
    return {name: words for name, words in found.items() if _is_told(name, words, tree)}


def _is_told(name: str, words: dict[int, str], tree: Tree) -> bool:
    """Whether words are those of classes: expressions, or by the name of the file or of a column."""
    columns = tree.tables[name].columns if name in tree.tables else ()
    told = TELLING.search(stem(name).lower()) or any(map(TELLING.search, columns))
    return bool(told) or 2 * sum(canonical(word) is not None for word in words.values()) >= len(words)


def _may_name_classes(name: str) -> bool:
    """Whether to open a file: a data set for YOLO has a text file for every image."""
    if name.lower().endswith((".json", ".yaml", ".yml")) or stem(name).lower() == "readme":
        return True
    return name.lower().endswith((".txt", ".names")) and TELLING.search(stem(name).lower()) is not None


def _names_in_table(frame: pd.DataFrame) -> dict[int, str] | None:
    """Class names from a table of two columns or so, a number and a word in each row."""
    if len(frame) > 100 or not 2 <= frame.shape[1] <= 3:
        return None
    columns = [frame[column].tolist() for column in frame if frame[column].is_unique]
    codes = next((c for c in columns if None not in map(as_int, c)), None)
    words = next((c for c in columns if _are_classes(c) and not re.search(r"\d", "".join(c))), None)
    return dict(zip(map(as_int, codes), words, strict=True)) if codes and words else None


def names_in(path: Path) -> dict[int, str] | None:
    """The class names in a file, by number; None if it lists none."""
    try:
        if path.stat().st_size > LARGEST_LIST:
            return None
        text = path.read_text(encoding="utf-8-sig", errors="replace")
        kind = path.suffix.lower()
        if kind == ".json":
            return _json_names(json.loads(text))
        if kind == ".md":  # YAML between two lines of dashes at its start
            match = re.match(r"\s*---(.*?)---", text, re.DOTALL)
            return (_nested_names(yaml.safe_load(match[1])) if match else None) or _stated_names(text)
        if kind in (".yaml", ".yml"):
            return _nested_names(yaml.safe_load(text))
        return _listed_names(text) or _stated_names(text)
    except (ValueError, OSError, RecursionError, yaml.YAMLError):
        return None


def _json_names(content: object) -> dict[int, str] | None:
    if isinstance(content, list) and all(isinstance(word, str) for word in content):
        return PlainList(enumerate(content)) if _are_classes(content) else None
    inner = content.values() if isinstance(content, dict) else ()
    return next(filter(None, map(class_map, [content, *inner])), None) or _nested_names(content)


def _nested_names(content: object, seen: set[int] | None = None) -> dict[int, str] | None:
    """The first `names` in nested dictionaries and lists, as YOLO and Hugging Face write them."""
    seen = set() if seen is None else seen
    # Nested aliases in YAML could expand a few lines to gigabytes: each part is looked at once.
    if id(content) in seen or not isinstance(content, (dict, list)):
        return None
    seen.add(id(content))
    names = content.get("names") if isinstance(content, dict) else None
    if isinstance(names, (list, dict)):
        pairs = enumerate(names) if isinstance(names, list) else names.items()
        if words := class_map({str(code): word for code, word in pairs}):
            return PlainList(words) if isinstance(names, list) else words
    inner = content.values() if isinstance(content, dict) else content
    return next(filter(None, (_nested_names(item, seen) for item in inner)), None)


def _are_classes(words: list[str]) -> bool:
    """Whether texts can be the names of classes: a word or a few each, no path or sentence, none twice."""
    fitting = 2 <= len(words) <= 100 and len(set(words)) == len(words)
    return fitting and all(re.fullmatch(r"[^\W\d][\w' -]{0,40}", w) and len(w.split()) <= 3 for w in words)


def _stated_names(text: str) -> dict[int, str] | None:
    """Expressions with their numbers, all from 0 or from 1 on, that a text says."""
    found = []
    for form in STATED:
        pairs = {(int(m["code"]), m["word"].lower()) for m in form.finditer(text) if canonical(m["word"])}
        names = dict(pairs)
        if len(names) == len(pairs) == len({*names.values()}) >= 3 and are_counted(names):
            found.append(dict(sorted(names.items())))
    found.sort(key=len)  # "angry=0 | disgust=1" read the other way round says one less
    return found[-1] if found and (not found[1:] or len(found[0]) < len(found[1])) else None


def _listed_names(text: str) -> dict[int, str] | None:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    words = [re.sub(r"^\d+\s*[-:,.=; \t]\s*", "", line) for line in lines]
    codes = [as_int(re.match(r"\d*", line)[0]) for line in lines]
    if not _are_classes(words) or re.search(r"\d", "".join(words)):
        return None
    return PlainList(enumerate(words)) if None in codes else dict(zip(codes, words, strict=True))
