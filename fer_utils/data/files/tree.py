"""The files of a competition's data, in folders and in archives, and how to find one by its id."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath

from fer_utils.competition import DataError
from fer_utils.data.files.archives import archive_stem, is_archive, opened
from fer_utils.data.images import IMAGE_SUFFIXES
from fer_utils.data.labels import as_int, split_of
from fer_utils.data.tables import TABLE_SUFFIXES, Table, is_sample, open_table
from fer_utils.files import walk

MAX_TABLES = 100  # some data sets hold a text file per picture


@dataclass(frozen=True, eq=False)
class Tree:
    """All files that may be read.

    Attributes:
        files: relative name with forward slashes -> where the file lies (unpacked archives lie elsewhere).
        columns: the column's name for some roles, where a person named it.
        unreadable: why a table or array could not be read, by its name; filled as they are looked at.
    """

    files: dict[str, Path]
    columns: dict[str, str] = field(default_factory=dict)
    unreadable: dict[str, str] = field(default_factory=dict)

    @cached_property
    def images(self) -> list[str]:
        """Names of the image files, sorted."""
        return sorted(name for name in self.files if name.lower().endswith(IMAGE_SUFFIXES))

    @cached_property
    def archives(self) -> list[str]:
        """Names of the archives, sorted."""
        return sorted(filter(is_archive, self.files))

    @cached_property
    def tables(self) -> dict[str, Table]:
        """The readable tables except samples, those nearest the top first."""
        tables = {}
        for name in self._table_names(sample=False):
            try:
                tables[name] = open_table(self.files[name], self.columns)
            except DataError as error:  # empty, or no table at all: reported if no layout fits
                self.unreadable[name] = str(error).replace(str(self.files[name]), name)
        return tables

    @cached_property
    def sample(self) -> str | None:
        """The sample submission nearest the top."""
        return next(iter(self._table_names(sample=True)), None)

    def _table_names(self, sample: bool) -> list[str]:
        names = [n for n in self.files if n.lower().endswith(TABLE_SUFFIXES) and is_sample(n) == sample]
        # A submission.csv of one's own may lie beside sample_submission.csv.
        names.sort(key=lambda n: (n.count("/"), sample and not re.search("sample|example", n.lower()), n))
        # Of very many, the text files are the least likely to be lists.
        kept = set(sorted(names, key=lambda n: n.lower().endswith(".txt"))[:MAX_TABLES])
        return [name for name in names if name in kept]


def scan(root: Path, columns: Mapping[str, str] | None = None) -> Tree:
    """The files below a folder."""
    return Tree({name: Path(entry.path) for name, entry in walk(root)}, dict(columns or {}))


def unpacked(tree: Tree, stack: ExitStack) -> Tree:
    """The tree with its archives opened beside them until `stack` closes; train.zip becomes train/."""
    files = dict(tree.files)
    for name in tree.archives:
        inner = scan(stack.enter_context(opened(files.pop(name)))).files
        folder = PurePosixPath(name).parent
        # Kaggle packs single tables too: train.csv.zip is train.csv.
        folder = folder if len(inner) == 1 else folder / archive_stem(name)
        files.update({(folder / inner_name).as_posix(): path for inner_name, path in inner.items()})
    return Tree(files, tree.columns)


def stem(name: str) -> str:
    """The last part of a name with forward slashes, without its suffix."""
    last = name.rpartition("/")[2]
    return last.rpartition(".")[0] or last


def folder_split(name: str) -> str | None:
    """The split that the folders of a file name, the innermost counting: test for data/test/0001.png."""
    return next(filter(None, map(split_of, name.split("/")[-2::-1])), None)


def below_split(name: str) -> str:
    """The name of a file as seen from its innermost folder that names a split."""
    parts = name.split("/")
    last = max((i for i, part in enumerate(parts[:-1]) if split_of(part)), default=-1)
    return "/".join(parts[last + 1 :])


_SHARD = re.compile(r"(?:^|/)\d+(?=\.parquet$)|-\d+(-of-\d+)(?:-[0-9a-f]+)?(?=\.\w+$)")


def shards(name: str, names: Iterable[str]) -> list[str]:
    """A file and its continuations, named as train-00000-of-00002.parquet or 0000.parquet."""
    whole = _shard_of(name)
    return sorted(n for n in names if _shard_of(n) == whole) if whole else [name]


def _shard_of(name: str) -> tuple[str, str | None] | None:
    match = _SHARD.search(name)
    return (name[: match.start()], match[1]) if match else None


# The ways a list names an image, from the strictest to the most lenient.
_KEYS: tuple[Callable[[str], str | int | None], ...] = (
    lambda name: name,
    lambda name: "/".join(name.split("/")[-2:]),
    lambda name: name.split("/")[-1],
    stem,
    lambda name: stem(name).removesuffix("_aligned"),  # RAF-DB lists the images before alignment
    lambda name: as_int(stem(name)),  # 7 for 00007.jpg
)


def _shallowest(
    named: Iterable[tuple[str | int | None, str]], known: Container[str | int]
) -> dict[str | int, str]:
    """For keys that several files have, the one file that lies higher than the others."""
    found: dict[str | int, list[str]] = defaultdict(list)
    for key, name in named:
        if key is not None and key not in known:
            found[key].append(name)
    deep = {key: sorted(names, key=lambda name: name.count("/")) for key, names in found.items()}
    return {key: n[0] for key, n in deep.items() if n[0].count("/") < n[1].count("/")}


def locate(listed: Sequence[str], files: Sequence[str], split: str | None = None) -> list[str | None]:
    """Find the files that a list means; files in folders of `split` go first.

    One way of naming is chosen for the whole list: the strictest of those that find the most.

    Returns:
        per listed name its file, None where there is none or more than one.
    """
    listed = [name.strip().replace("\\", "/").removeprefix("./").lower() for name in listed]
    splits = {name: folder_split(name) for name in files}
    scopes = [[name for name in files if splits[name] == wanted] for wanted in dict.fromkeys((split, None))]
    best: list[str | None] = [None] * len(listed)
    most = 0
    for scope in [*scopes, list(files)]:
        for key in _KEYS:
            keys = [key(name.lower()) for name in scope]
            counts = Counter(keys)
            index = {k: name for k, name in zip(keys, scope, strict=True) if k is not None and counts[k] == 1}
            if len(index) < len(counts):  # a data set that holds itself once more further down
                index |= _shallowest(zip(keys, scope, strict=True), index)
            found = [index.get(key(name)) for name in listed]
            hits = len(found) - found.count(None)
            if hits > most:
                best, most = found, hits
            if most == len(listed):
                return best
    return best
