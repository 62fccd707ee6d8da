"""Names in tables and the files that they mean, decided for a whole column at once."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from os.path import commonprefix

from fer_utils.data.decode_images import IMAGE_SUFFIXES
from fer_utils.data.files.file_index import folder_split
from fer_utils.data.known_expressions_and_splits import as_int, split_of


@dataclass(frozen=True)
class Resolved:
    """Which file each name of a column means.

    Attributes:
        files: [N], None where there is no such file or more than one.
        leniency: how the names were compared: 0 as they are written, higher numbers with less of the name.
        ambiguous: how many names mean several files.
    """

    files: list[str | None]
    leniency: int = 0
    ambiguous: int = 0

    @property
    def n(self) -> int:
        """How many were found."""
        return len(self.files) - self.files.count(None)


def image_stem(name: str) -> str:
    """The last part of a name, in lower case, without the suffix of an image."""
    base = name.rpartition("/")[2].lower()
    suffix = next((s for s in IMAGE_SUFFIXES if base.endswith(s)), "")
    return base[: len(base) - len(suffix)]


# The ways to compare the last part of a path, from the strictest to the most lenient.
_KEYS: tuple[Callable[[str], str | int | None], ...] = (
    lambda name: name.rpartition("/")[2],
    lambda name: name.rpartition("/")[2].lower(),
    image_stem,
    lambda name: image_stem(name).removesuffix("_aligned"),  # RAF-DB lists the images before alignment
    lambda name: as_int(image_stem(name)),  # 7 for 00007.jpg
    lambda name: as_int(re.sub(r"^[^\W\d]+[_-]?(?=\d+$)", "", image_stem(name))),  # 7 for img_00007.jpg
)
BY_NUMBER = 4  # from here on names are compared as numbers, which row numbers are too


def plain_path(name: str) -> str:
    """A path as it is compared: forward slashes, no drive, no ./ before it, one form of Unicode."""
    path = unicodedata.normalize("NFC", name.strip().replace("\\", "/"))
    return re.sub(r"^([A-Za-z]:)?/+|^(\./)+", "", path)


class References:
    """The files that names may mean, by their paths, or other texts that stand for images."""

    def __init__(self, files: Sequence[str]):
        self._plain = {file: plain_path(file) for file in files}
        self.n = len(files)
        self._indices: dict[int, dict[str | int | None, list[str]]] = {}

    def _files_by_key(self, leniency: int) -> dict[str | int | None, list[str]]:
        if leniency not in self._indices:
            index = self._indices[leniency] = defaultdict(list)
            for file, path in self._plain.items():
                index[_KEYS[leniency](path)].append(file)
            index.pop(None, None)
        return self._indices[leniency]

    def resolve(self, listed: Sequence[str], hints: Callable[[int], set[str]] | None = None) -> Resolved:
        """Find the files that a column of names [N] means, with or without folders and suffix; "" means none.

        Paths are matched by their longest common end. One way of comparing is taken for the whole column: the
        strictest of those that find the most, if no two names mean one file. Where paths alone leave several,
        `hints` gives words in lower case that the folders of a row's file contain.
        """
        names = [plain_path(name) for name in listed]
        best = Resolved([None] * len(names))
        for leniency, key in enumerate(_KEYS):
            index, found, ambiguous = self._files_by_key(leniency), [], 0
            for row, name in enumerate(names):
                candidates = index.get(key(name), ()) if name else ()
                file = self._choose(name, candidates, hints, row) if candidates else None
                ambiguous += file is None and len(candidates) > 1
                found.append(file)
            pairs = {(file, name) for file, name in zip(found, names, strict=True) if file}
            result = Resolved(found, leniency, ambiguous)
            if len({file for file, _ in pairs}) == len(pairs) and result.n > best.n:
                best = result
            elif ambiguous and not best.n:
                best = Resolved(best.files, leniency, ambiguous)
            if best.n == len(names) - names.count(""):
                break
        return best

    def _choose(
        self, name: str, candidates: Sequence[str], hints: Callable[[int], set[str]] | None, row: int
    ) -> str | None:
        """The candidate with the longest common end; of several the one that the hints name, else the one
        that lies highest (a data set that holds itself once more further down), if all are of one split."""
        if len(candidates) == 1:
            said, own = map(folder_split, (name, candidates[0]))
            return candidates[0] if said in (None, own) or own is None else None
        folders = name.lower().split("/")[-2::-1]
        rankings = [lambda parts: len(commonprefix([folders, parts])), lambda parts: -len(parts)]
        if words := hints and hints(row):
            rankings.insert(1, lambda parts: sum(p in words or split_of(p) in words for p in parts))
        for ranking in rankings:
            if ranking is rankings[-1] and len(set(map(folder_split, candidates))) > 1:
                return None
            ranks = [ranking(self._plain[file].lower().split("/")[-2::-1]) for file in candidates]
            best = max(ranks)
            candidates = [file for file, r in zip(candidates, ranks, strict=True) if r == best]
        return candidates[0] if len(candidates) == 1 else None


def find_rows(
    wanted: Sequence[str], columns: Mapping[str, Sequence[str | None]]
) -> tuple[str, list[int | None], bool]:
    """The rows that ids mean, by the first column that holds all of them, else by the one where most can be
    found in another form.

    Returns:
        the column's name, the row of each id (None where there is none), and whether the ids stand there as
        they are written.
    """
    rows = {name: {cell: row for row, cell in enumerate(cells) if cell} for name, cells in columns.items()}
    for name, row_of in rows.items():
        if row_of.keys() >= set(wanted):
            return name, [row_of[id_] for id_ in wanted], True
    found = {name: References(list(row_of)).resolve(wanted) for name, row_of in rows.items()}
    name = max(found, key=lambda name: found[name].n)
    return name, [rows[name].get(text) for text in found[name].files], False
