"""Tables with an image in each row: its grey levels (fer2013.csv, or train.csv and test.csv), or the bytes
of an image file (parquet and Arrow files, as on Hugging Face)."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from itertools import combinations

import pandas as pd

from fer_utils.arrays_on_disk import empty
from fer_utils.competition import DataError
from fer_utils.data.decode_images import ImageFormat, read_files
from fer_utils.data.files.file_index import Tree, stem
from fer_utils.data.known_column_names import COLUMNS
from fer_utils.data.known_expressions_and_splits import (
    as_int,
    canonical,
    column_splits,
    is_number,
    split_of,
)
from fer_utils.data.layouts.found_pictures import Decoded, Pictures, Read, reader, stacked
from fer_utils.data.layouts.joined_tables import joined
from fer_utils.data.tables import Table, read_chunks
from fer_utils.data.tables_json_parquet import metadata_classes

LAYOUT, ONE_TABLE, VOTES, ENCODED = "pixel tables", "fer2013.csv", "FER+ votes", "parquet images"
LOOKS_FOR = {
    VOTES: "fer2013.csv and beside it fer2013new.csv with votes for every row",
    ONE_TABLE: "a table with columns emotion, pixels and Usage",
    LAYOUT: "train.csv with pixels (one column or many) and labels, or y_train.csv beside it, and test.csv",
    ENCODED: "parquet or Arrow files with encoded images and labels (Hugging Face)",
}
ROWS_TOGETHER = 512  # of encoded images


def propose(tree: Tree) -> list[Pictures]:
    """A table of pixels that holds all splits alone, also with votes beside; the others of each folder
    together; all tables of encoded images together."""
    tables = {name: table for name, table in tree.tables.items() if table.pixels}
    whole = [table for table in tables.values() if split_of(stem(table.name)) is None and _has_splits(table)]
    rest: dict[str, list[Table]] = defaultdict(list)
    for name, table in tables.items():
        if table not in whole:
            rest[name.rpartition("/")[0]].append(table)
    labelled = [
        folder
        for folder, group in rest.items()
        if any(len(t.frame.columns) and split_of(stem(t.name)) in ("train", None) for t in group)
    ]
    if len(labelled) == 1:  # train.csv and test.csv in folders of their own
        rest = {labelled[0]: [table for folder in rest for table in rest[folder]]}
    for group in rest.values():  # public tests go before private or hidden ones
        group.sort(key=lambda table: ("public" not in table.name.lower(), table.name))
    proposals, votes = [], _vote_table(tree) if tree.layout in ("auto", VOTES) else None
    for table in whole:
        if votes:
            proposals.append(_pictures(tree, [table], VOTES, votes))
        proposals.append(_pictures(tree, [table], ONE_TABLE))
    proposals += [_pictures(tree, group, LAYOUT) for group in rest.values()]
    encoded = [table for table in tree.tables.values() if table.encoded is not None]
    return [*proposals, _encoded_images(tree, encoded)] if encoded else proposals


def _copies(tables: Sequence[Table]) -> list[tuple[str, str, int]]:
    """The tables of one split, by their names, that hold most of the same images, and how many."""
    splits = {table.name: split_of(stem(table.name)) or "train" for table in tables}
    twice = {split for split in splits.values() if list(splits.values()).count(split) > 1}
    images = {t.name: {image.tobytes() for image in t.pictures[0]} for t in tables if splits[t.name] in twice}
    pairs = [(one, other, len(images[one] & images[other])) for one, other in combinations(images, 2)]
    return [
        (one, other, n)
        for one, other, n in pairs
        if splits[one] == splits[other] and 2 * n > min(len(images[one]), len(images[other]))
    ]


def _has_splits(table: Table) -> bool:
    """Whether a column says for each row which split it belongs to."""
    return any(
        "train" in column_splits(column, table.frame[column].unique()).values() for column in table.frame
    )


def _pictures(tree: Tree, tables: list[Table], layout: str, votes: Table | None = None) -> Pictures:
    notes = [f"labels from the votes in {votes.name}, row by row"] if votes else []
    frames = [joined(tree, table, notes) if votes is None else _with_votes(table, votes) for table in tables]
    read = reader(list(map(len, frames)), tables)
    return _of_tables(layout, tables, frames, read, notes=notes, copies=_copies(tables))


def _of_tables(
    layout: str, tables: Sequence[Table], frames: Sequence[pd.DataFrame], read: Read, **more
) -> Pictures:
    """The images in all rows of some tables, which `frames` describe."""
    rows = [(table, row) for table in tables for row in range(len(table.frame))]
    places, ids = [table.place(row) for table, row in rows], [str(row) for _, row in rows]
    return Pictures(layout, stacked(frames), [table.name for table, _ in rows], places, ids, read, **more)


def _vote_table(tree: Tree) -> Table | None:
    """The first table without pixels that counts votes for expressions: FER+ (Barsoum et al. 2016)."""
    for table in tree.tables.values():
        if not table.pixels and len(table.frame) > 1 and "usage" in table.columns:
            known = [column for column in table.frame if canonical(column)]
            if sum(table.frame[column].map(is_number).all() for column in known) >= 3:
                return table
    return None


def _with_votes(table: Table, votes: Table) -> pd.DataFrame:
    """The columns of both tables, row by row, without the label that the votes replace.

    Raises:
        DataError: the rows of the two tables do not match.
    """
    alone = f"(layout={ONE_TABLE!r} reads {table.name} alone)"
    if len(votes.frame) != len(table.frame):
        raise DataError(
            f"{votes.path.name} has votes for {len(votes.frame):,} images, but {table.path.name} holds "
            f"{len(table.frame):,}: they must be the same, row by row {alone}"
        )
    if "usage" in table.columns:
        differ = (votes.frame["usage"] != table.frame["usage"]).to_numpy()
        if differ.any():
            row = int(differ.argmax())
            raise DataError(
                f"{votes.place(row)}: {votes.frame['usage'][row]}, but {table.place(row)}: "
                f"{table.frame['usage'][row]}; the votes must be in the order of {table.name} {alone}"
            )
    both = votes.frame[[c for c in votes.frame if c not in table.columns]]
    labels = [c for c in table.frame if c in COLUMNS["label"]]
    return pd.concat([table.frame.drop(columns=labels), both], axis=1)


def _encoded_images(tree: Tree, tables: list[Table]) -> Pictures:
    notes: list[str] = []
    frames = [joined(tree, table, notes).copy() for table in tables]
    names = {column: words for table in tables for column, words in metadata_classes(table.path).items()}
    for frame in frames:  # the words are the labels, and their numbers are known
        for column in names.keys() & set(frame.columns):
            frame[column] = [names[column].get(as_int(cell), cell) for cell in frame[column]]

    def read(chosen: Sequence[int], wanted: ImageFormat) -> Decoded:
        images = empty((len(chosen), *wanted.shape))
        broken, forms = {}, Counter()
        for position, encoded in _encoded(tables, chosen):
            images[position], wrong, seen = read_files(encoded, wanted)
            broken |= {position[k]: why for k, why in wrong.items()}
            forms.update(seen)
        return images, broken, forms

    return _of_tables(ENCODED, tables, frames, read, names=names, notes=notes)


def _encoded(tables: list[Table], chosen: Sequence[int]) -> Iterator[tuple[list[int], list[bytes | None]]]:
    """The encoded images of some rows of all tables together, and their positions among these rows; some
    hundreds at a time, so that a large data set need not fit into memory."""
    places, first = {row: position for position, row in enumerate(chosen)}, 0
    for table in tables:
        following = first + len(table.frame)
        if any(first <= row < following for row in chosen):
            for chunk in read_chunks(table, [table.encoded], ROWS_TOGETHER):
                wanted = [k for k in range(len(chunk)) if first + k in places]
                cells = [chunk[table.encoded].iloc[k] for k in wanted]
                cells = [cell.get("bytes") if isinstance(cell, dict) else cell for cell in cells]
                # Text would be opened as the name of a file, anywhere.
                encoded = [content if isinstance(content, bytes) else None for content in cells]
                yield [places[first + k] for k in wanted], encoded
                first += len(chunk)
        first = following
