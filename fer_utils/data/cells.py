"""The cells of tables: in chunks, by column, as votes, or unchanged as text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd

from fer_utils.competition import DataError
from fer_utils.data.json_parquet import as_text, json_frame, parquet_chunks, table_errors
from fer_utils.data.tables import JSON_SUFFIXES, Table, open_table

CHUNK_ROWS = 1024


def read_chunks(table: Table, positions: Sequence[int], rows: int = CHUNK_ROWS) -> Iterator[pd.DataFrame]:
    """Read some columns, `rows` rows at a time; columns are named by position.

    Cells are text, "" if missing. Parquet cells keep their types. A column for a single pixel holds numbers
    if all its cells in a chunk are numbers.
    """
    wanted = sorted(set(positions))
    suffix = table.path.suffix.lower()
    with table_errors(table.path):
        if suffix == ".parquet":
            yield from parquet_chunks(table.path, wanted, rows)
        elif suffix in JSON_SUFFIXES:
            frame = json_frame(table.path).set_axis(range(len(table.columns)), axis=1)[wanted]
            yield from (frame.iloc[start : start + rows] for start in range(0, len(frame), rows))
        else:
            single = table.pixels if len(table.pixels) > 1 else ()
            options = {"header": 0 if table.header else None, "names": range(len(table.columns))}
            options |= {"usecols": wanted, "dtype": dict.fromkeys(set(wanted) - set(single), str)}
            options |= {"index_col": False, "skipinitialspace": True, "low_memory": False, "chunksize": rows}
            with pd.read_csv(table.path, **options, **_as_written(table)) as reader:
                yield from (chunk.fillna("") for chunk in reader)


def _as_written(table: Table) -> dict[str, object]:
    """Options of `read_csv` for the text of a table, without empty cells turned into NaN."""
    options = {"sep": table.separator, "encoding": table.encoding, "encoding_errors": "replace"}
    return {**options, "na_filter": False}


def read_ahead(chunks: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
    """The same chunks; the next is read in a thread while the caller works on the last."""
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
    chunks = read_chunks(table, [position], rows=limit or 8 * CHUNK_ROWS)
    return [as_text(c).strip() for chunk in islice(chunks, 1 if limit else None) for c in chunk[position]]


def read_votes(table: Table) -> np.ndarray:
    """The votes of a table as float32 [N, K], a column for each name in `table.votes`.

    Raises:
        DataError: a cell is no number or below zero.
    """
    names, positions, blocks = list(table.votes), list(table.votes.values()), []
    for chunk in read_chunks(table, positions, rows=8 * CHUNK_ROWS):
        votes = chunk[positions].apply(pd.to_numeric, errors="coerce").to_numpy(np.float32)
        wrong = ~(np.isfinite(votes) & (votes >= 0))
        if wrong.any():
            row, column = np.argwhere(wrong)[0]
            place, cell = table.place(sum(map(len, blocks)) + row), chunk[positions].iloc[row, column]
            raise DataError(f"{place}: {names[column]} holds {cell!r}, no count")
        blocks.append(votes)
    return np.concatenate(blocks) if blocks else np.empty((0, len(names)), np.float32)


def read_frame(table: Table) -> pd.DataFrame:
    """Read a whole text table under its own column names; all cells are text, exactly as in the file."""
    with table_errors(table.path):
        # With header=0, pandas would rename empty or repeated columns.
        frame = pd.read_csv(table.path, header=None, dtype=str, **_as_written(table)).fillna("")
    if not table.header:
        return frame.rename(columns=str)
    return frame.iloc[1:].set_axis(frame.iloc[0].tolist(), axis=1).reset_index(drop=True)


def sample_label_position(table: Table) -> int:
    """The column of a sample submission for the predictions: by its name, else the last."""
    position = table.column("label")
    return len(table.columns) - 1 if position is None else position


def sample_id_position(table: Table) -> int | None:
    """The column of a sample submission that names the images: by its name, else the first; or None."""
    label = sample_label_position(table)
    named = [table.column("image"), table.column("id"), *range(len(table.columns))]
    return next((position for position in named if position not in (None, label)), None)


def sample_ids(path: Path) -> list[str]:
    """The ids in a sample submission; none if it holds only labels."""
    table = open_table(path)
    position = sample_id_position(table)
    return [] if position is None else read_frame(table).iloc[:, position].str.strip().tolist()
