"""The cells of tables: read in chunks, by column, as votes, or just as they are written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd

from fer_utils.competition import DataError
from fer_utils.data.json_parquet import as_text, json_frame, parquet_chunks, table_errors
from fer_utils.data.tables import JSON_SUFFIXES, Table, open_table

CHUNK_ROWS = 1024


def read_chunks(table: Table, positions: Sequence[int], rows: int = CHUNK_ROWS) -> Iterator[pd.DataFrame]:
    """Read some columns, `rows` rows at a time; columns are named by position.

    Cells are text and missing ones "", but in parquet they are what it holds, and where each pixel has a
    column of its own, those are numbers if all of a chunk are.
    """
    wanted = sorted(set(positions))
    with table_errors(table.path):
        if table.path.suffix.lower() == ".parquet":
            yield from parquet_chunks(table.path, wanted, rows)
            return
        if table.path.suffix.lower() in JSON_SUFFIXES:
            frame = json_frame(table.path).set_axis(range(len(table.columns)), axis=1)[wanted]
            for start in range(0, len(frame), rows):
                yield frame.iloc[start : start + rows]
            return
        reader = pd.read_csv(
            table.path,
            sep=table.separator,
            header=0 if table.header else None,
            names=range(len(table.columns)),
            usecols=wanted,
            index_col=False,
            dtype=dict.fromkeys(wanted if len(table.pixels) < 2 else set(wanted) - set(table.pixels), str),
            na_filter=False,
            encoding=table.encoding,
            encoding_errors="replace",
            skipinitialspace=True,
            chunksize=rows,
            low_memory=False,
        )
        with reader:
            for chunk in reader:
                yield chunk.fillna("")


def read_ahead(chunks: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
    """The same chunks, the next of which is read while the last is being worked on."""
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(next, chunks, None)
        while (chunk := coming.result()) is not None:
            coming = pool.submit(next, chunks, None)
            yield chunk


def read_column(table: Table, role: str, limit: int | None = None) -> list[str]:
    """Read one column as stripped text (the first `limit` rows); empty if the table has none of that role."""
    position = table.column(role)
    if position is None:
        return []
    cells: list[str] = []
    for chunk in read_chunks(table, [position], rows=limit or 8 * CHUNK_ROWS):
        cells += [as_text(cell).strip() for cell in chunk[position]]
        if limit:
            break
    return cells


def read_votes(table: Table) -> np.ndarray:
    """The votes of a table as float32 [N, K], a column for each name in `table.votes`.

    Raises:
        DataError: a cell is no number or below zero.
    """
    blocks = []
    for chunk in read_chunks(table, list(table.votes.values()), rows=8 * CHUNK_ROWS):
        votes = chunk[list(table.votes.values())].apply(pd.to_numeric, errors="coerce").to_numpy(np.float32)
        wrong = ~(np.isfinite(votes) & (votes >= 0))
        if wrong.any():
            row, column = (int(i) for i in np.argwhere(wrong)[0])
            place = table.place(sum(map(len, blocks)) + row)
            raise DataError(
                f"{place}: {list(table.votes)[column]} holds {chunk.iloc[row, column]!r}, no count"
            )
        blocks.append(votes)
    return np.concatenate(blocks) if blocks else np.empty((0, len(table.votes)), np.float32)


def read_frame(table: Table) -> pd.DataFrame:
    """Read a whole text table as cells under its own column names, just as they are written."""
    with table_errors(table.path):
        options = {"encoding": table.encoding, "encoding_errors": "replace"}
        # pandas would change column names that are empty or come twice.
        frame = pd.read_csv(
            table.path, sep=table.separator, header=None, dtype=str, na_filter=False, **options
        ).fillna("")
    if not table.header:
        return frame.rename(columns=str)
    return frame.iloc[1:].set_axis(frame.iloc[0].tolist(), axis=1).reset_index(drop=True)


def sample_label_position(table: Table) -> int:
    """The column of a sample submission that the answers go into: by its name, else the last."""
    position = table.column("label")
    return len(table.columns) - 1 if position is None else position


def sample_id_position(table: Table) -> int | None:
    """The column of a sample submission that names the pictures: by its name, else the first; or None."""
    label = sample_label_position(table)
    named = [table.column("image"), table.column("id"), *range(len(table.columns))]
    return next((position for position in named if position not in (None, label)), None)


def sample_ids(path: Path) -> list[str]:
    """The ids that a sample submission lists; none if it holds only labels."""
    table = open_table(path)
    position = sample_id_position(table)
    return [] if position is None else read_frame(table).iloc[:, position].str.strip().tolist()
