"""Shards: parquet files of a store, one row a branch."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tts_generate.errors import StoreFormatError
from tts_generate.trajectories.schema import SCHEMA, Trajectory, from_table, to_table


def read_parts(path: Path) -> list[Trajectory]:
    """The rows of every shard.

    Raises:
        StoreFormatError: naming the shard that is damaged or foreign, and what to do.
    """
    return [row for part in sorted(path.glob("part-*.parquet")) for row in read_part(part)]


def read_part(part: Path) -> list[Trajectory]:
    """The rows of a shard.

    Raises:
        StoreFormatError: it is damaged or foreign.
    """
    try:
        table = pq.read_table(part, page_checksum_verification=True)
        other = None if table.schema.equals(SCHEMA, check_metadata=False) else table.column_names
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise StoreFormatError(
            f"shard {part} cannot be read ({str(error).partition(chr(10))[0]}). Move it aside (tts-generate store "
            "repair) and record again: the same command fills in what is missing."
        ) from error
    if other is not None:
        raise StoreFormatError(f"shard {part} has other columns than a trajectory: {', '.join(other)}.")
    try:
        return from_table(table)
    except (StoreFormatError, UnicodeDecodeError) as error:
        raise StoreFormatError(f"shard {part} holds rows that are no trajectories: {error}") from error


def write_part(rows: Iterable[Trajectory], path: Path) -> int:
    """Write a shard, its rows by question and branch; how many there are."""
    table = to_table(sorted(rows, key=lambda row: row.key))
    pq.write_table(table, path, compression="zstd", write_page_checksum=True)
    return int(table.num_rows)
