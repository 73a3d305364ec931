"""Shards: parquet files of a store, one row a branch."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tts_generate.errors import StoreFormatError
from tts_generate.trajectories.files import check_memory, new_file, open_file
from tts_generate.trajectories.schema import SCHEMA, Trajectory, from_table, to_table

_TEXTS = ("question_id", "finish_reason", "final_answer", "probe_answers")
_LEAVES = [f"{name}.list.element" if pa.types.is_list(SCHEMA.field(name).type) else name for name in _TEXTS]
"""The columns of text as parquet names them."""
_VALUE = 40
"""Bytes that a number takes in memory, its place in a tuple included."""


def shards(path: Path) -> list[Path]:
    """The shards of a store, in order."""
    return sorted(path.glob("part-*.parquet"))


def read_parts(path: Path, parts: Sequence[Path] | None = None) -> list[Trajectory]:
    """The rows of every shard of a store, or of some.

    Raises:
        StoreFormatError: naming the shard that is damaged or foreign, and what to do.
        StoreError: they would take more memory than a store may.
    """
    rows: list[Trajectory] = []
    taken = 0
    for part in shards(path) if parts is None else parts:
        found, needed = read_part(part, taken)
        rows += found
        taken += needed
    return rows


def read_part(part: Path, taken: int = 0) -> tuple[list[Trajectory], int]:
    """The rows of a shard, and the bytes of memory that they take, about; `taken` are those of the shards before.

    A few bytes of a parquet file may stand for any number of values: they are counted by what its metadata says before
    anything is read, and texts, which are written once however often they stand there, before they are written out.

    Raises:
        StoreFormatError: it is damaged or foreign.
        StoreError: it would take more memory than a store may.
    """
    try:
        os.close(open_file(part, linked=True))
        with pq.ParquetFile(part) as file:
            schema, needed = file.schema_arrow, _values(file.metadata)
        if not schema.equals(SCHEMA, check_metadata=False):
            raise StoreFormatError(f"shard {part} has other columns than a trajectory: {', '.join(schema.names)}.")
        check_memory(part, taken + needed)
        table = pq.read_table(part, page_checksum_verification=True, read_dictionary=_LEAVES)
        needed += sum(map(_written_out, (table[name] for name in _TEXTS)))
        check_memory(part, taken + needed)
        table = table.cast(SCHEMA)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise StoreFormatError(
            f"shard {part} cannot be read ({str(error).partition(chr(10))[0]}). Move it aside (tts-generate store "
            "repair) and record again: the same command fills in what is missing."
        ) from error
    try:
        return from_table(table), needed
    except (StoreFormatError, UnicodeDecodeError) as error:
        raise StoreFormatError(f"shard {part} holds rows that are no trajectories: {error}") from error


def _values(metadata: pq.FileMetaData) -> int:
    """The bytes that the values of a shard take, each text counted once for all its values."""
    columns = [
        metadata.row_group(group).column(column)
        for group in range(metadata.num_row_groups)
        for column in range(metadata.num_columns)
    ]
    counted = sum(column.num_values * _VALUE + column.total_uncompressed_size for column in columns)
    return int(max(counted, metadata.num_rows * len(SCHEMA) * _VALUE))


def _written_out(column: pa.ChunkedArray) -> int:
    """The bytes of the texts of a column, each counted as often as it stands there.

    It was asked for as a dictionary, and a shard that says in its own schema that it has none comes without one.
    """
    count = 0
    for chunk in column.chunks:
        array = chunk.flatten() if pa.types.is_list(chunk.type) else chunk
        if pa.types.is_dictionary(array.type):
            lengths = pc.binary_length(array.dictionary).take(array.indices)
        else:
            lengths = pc.binary_length(array)
        count += pc.sum(lengths).as_py() or 0
    return count


def write_part(rows: Iterable[Trajectory], path: Path) -> int:
    """Write a shard, its rows by question and branch; how many there are."""
    table = to_table(sorted(rows, key=lambda row: row.key))
    with new_file(path) as file:
        pq.write_table(table, file, compression="zstd", write_page_checksum=True)
    return int(table.num_rows)
