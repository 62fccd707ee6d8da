"""What a recogniser proposes: images, and everything that the data says about each of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import pandas as pd

from fer_utils.arrays_on_disk import empty
from fer_utils.data.decode_images import Form, ImageFormat, resize, with_channels

# The readers of image files, by what the label is taken from.
LISTS, FOLDERS, NAMES, LABEL_FILES = "image list", "class folders", "labels in file names", "label files"

# Rows and the format to uint8 [n, C, S, S], why images are broken, by position, and the forms they had.
Decoded = tuple[np.ndarray, dict[int, str], Counter[Form]]
Read = Callable[[Sequence[int], ImageFormat], Decoded]
TOGETHER = 2048  # images converted at a time, so that no further copy fills the memory


class Source(Protocol):
    """A table or an array."""

    @property
    def pictures(self) -> tuple[np.ndarray, dict[int, str]]:
        """uint8 [n, 1 or 3, S, S], and why any are broken, by position."""


@dataclass(eq=False)
class Pictures:
    """A set of images with the columns that describe them. Which column is the label, the split or the id
    is decided later, from what all its cells are (`fer_utils.data.roles`).

    Attributes:
        layout: the name of the reader.
        rows: [N] rows of text cells; columns by their names in lower case; None where a row's table has no
            such column, "" where its cell is empty.
        parts: [N], the table or array that a row comes from; "" for files that no table lists.
        places: [N], file and row, for messages.
        ids: [N], what each image is called.
        read: decodes some rows.
        files: [N], the image's file in the data; None where it lies in a table or is missing.
        layouts: another name of the reader for some columns, if the label is taken from them.
        names: class names by number, for columns whose file names them.
        copies: two tables that hold the same images, and how many of these.
        image_column: of the lists, the column that names the files, if it is one for all.
        notes: what was recognised and what was left out.
    """

    layout: str
    rows: pd.DataFrame
    parts: list[str]
    places: list[str]
    ids: list[str]
    read: Read
    files: list[str | None] = field(default_factory=list)
    layouts: dict[str, str] = field(default_factory=dict)
    names: dict[str, dict[int, str]] = field(default_factory=dict)
    copies: list[tuple[str, str, int]] = field(default_factory=list)
    image_column: str = ""
    notes: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.rows)

    def cells(self, column: str) -> list[str | None]:
        """A whole column."""
        return self.rows[column].tolist()

    def tables_or_files(self) -> set[str]:
        """The tables that hold the images, or their files."""
        return {file for file in self.files if file} if self.files else set(self.parts)

    def table_columns(self) -> list[str]:
        """The columns that tables hold, not those made of the files' paths."""
        return [column for column in self.rows.columns if column not in self.layouts]


def reader(lengths: Sequence[int], sources: Sequence[Source]) -> Read:
    """Reads rows of tables or arrays, `lengths` images each, that lie one after the other."""
    starts = np.cumsum([0, *lengths])

    def read(chosen: Sequence[int], wanted: ImageFormat) -> Decoded:
        rows, broken, forms = np.asarray(chosen, np.int64), {}, Counter()
        images = empty((len(rows), *wanted.shape))
        of = np.searchsorted(starts, rows, side="right") - 1
        for number in np.unique(of):
            there, wrong = sources[number].pictures
            targets = np.flatnonzero(of == number)
            own = rows[targets] - starts[number]
            forms[(there.shape[:1:-1], there.shape[1] == 3)] += len(own)
            pairs = zip(targets.tolist(), own.tolist(), strict=True)
            broken |= {target: wrong[row] for target, row in pairs if row in wrong}
            for k in range(0, len(own), TOGETHER):
                some = with_channels(there[own[k : k + TOGETHER]], wanted.channels)
                images[targets[k : k + TOGETHER]] = resize(some, wanted.size, wanted.aspect)
        return images, broken, forms

    return read


def stacked(frames: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Tables one below the other; None where one has no such column."""
    frame = pd.concat([f.astype(object) for f in frames], ignore_index=True)
    return frame.astype(object).where(frame.notna(), None)
