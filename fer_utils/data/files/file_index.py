"""The files of a competition's data, in folders and in archives, and how to find one by its id."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath

from fer_utils.competition import DataError
from fer_utils.data.decode_images import IMAGE_SUFFIXES
from fer_utils.data.files.archives import archive_stem, is_archive, opened
from fer_utils.data.files.list_files import walk
from fer_utils.data.known_expressions_and_splits import split_of
from fer_utils.data.tables import TABLE_SUFFIXES, Table, is_sample, open_table

MAX_TABLES = 100  # some data sets hold a text file per image


@dataclass(eq=False)
class Tree:
    """All files that may be read.

    Attributes:
        files: relative name with forward slashes -> where the file lies (unpacked archives lie elsewhere).
        columns: the column's name for some roles, where a person named it.
        layout: the only one that is looked for, where a person named it.
        unreadable: why a table or array could not be read, by its name; filled as they are looked at.
    """

    files: dict[str, Path]
    columns: dict[str, str] = field(default_factory=dict)
    unreadable: dict[str, str] = field(default_factory=dict)
    layout: str = "auto"

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
                tables[name] = open_table(self.files[name], name, self.columns)
                _ = tables[name].frame if not tables[name].pixels else None
            except DataError as error:  # empty, torn or no table at all: reported if no layout fits
                tables.pop(name, None)
                self.unreadable[name] = str(error).replace(str(self.files[name]), name)
        return tables

    @cached_property
    def samples(self) -> list[str]:
        """The names of the sample submissions, the one that counts first: that nearest the top."""
        return self._table_names(sample=True)

    @property
    def sample(self) -> str | None:
        """The name of the sample submission that counts."""
        return next(iter(self.samples), None)

    @cached_property
    def sample_table(self) -> Table | None:
        """The sample submission, opened."""
        return open_table(self.files[self.sample], self.sample) if self.sample else None

    def _table_names(self, sample: bool) -> list[str]:
        names = [n for n in self.files if n.lower().endswith(TABLE_SUFFIXES) and is_sample(n) == sample]
        # A submission.csv of one's own may lie beside sample_submission.csv.
        names.sort(key=lambda n: (n.count("/"), sample and not re.search("sample|example", n.lower()), n))
        # Of very many, the text files are the least likely to be lists.
        kept = set(sorted(names, key=lambda n: n.lower().endswith(".txt"))[:MAX_TABLES])
        return [name for name in names if name in kept]


def scan(root: Path, columns: Mapping[str, str] | None = None) -> Tree:
    """The files below a folder."""
    return Tree({_printable(name): Path(entry.path) for name, entry in walk(root)}, dict(columns or {}))


def _printable(name: str) -> str:
    """A file's name as text, also where it is no UTF-8 (unpacked from an old archive): %D0 for such a
    byte."""
    return re.sub("[\udc80-\udcff]", lambda byte: f"%{ord(byte[0]) - 0xDC00:02X}", name)


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


def table_split(name: str) -> str | None:
    """The split that a table's own name says, else one of its folders."""
    return split_of(stem(name)) or folder_split(name)


def folder_split(name: str) -> str | None:
    """The split that the folders of a file name, the innermost counting: test for data/test/0001.png."""
    return next(filter(None, map(split_of, name.split("/")[-2::-1])), None)


def below_split(name: str, outermost: bool = False) -> str:
    """The name of a file as seen from its innermost folder that names a split, or from the outermost."""
    parts = name.split("/")
    named = [i for i, part in enumerate(parts[:-1]) if split_of(part)] or [-1]
    return "/".join(parts[named[0 if outermost else -1] + 1 :])
