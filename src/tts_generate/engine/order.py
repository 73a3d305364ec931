"""Which row is to stand where: those at work come first, and like lengths together once that pays.

Rows of one block read as many columns of the cache as the longest of them, see `shapes`.
"""

from __future__ import annotations

import numpy as np

from tts_generate.engine.shapes import bucketed

MOVE = 3
"""What it takes to move a column of a row, in columns read by a pass (measured on a CPU)."""


class Order:
    """The order of rows from pass to pass."""

    def __init__(self, block: int) -> None:
        self.block = block
        self._in_vain = 0  # columns read since rows were last sorted, because they were not

    def moves(self, held: np.ndarray, working: np.ndarray, length: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Which rows move, and where to: all at once, with those that wait where a row at work goes taking its place.

        Where a row has come or gone, the last ones fill the gaps; all are sorted, longest first, once the columns that
        were read for want of it are worth the rows that it moves. A row moves only if it is in the wrong block.

        Args:
            held: (rows,) whether a branch is in each row.
            working: (rows,) whether it is at work.
            length: (rows,) columns that it takes.
        """
        live = np.flatnonzero(working)
        count = len(live)
        order = np.arange(count)
        order[~working[:count]] = live[live >= count]
        if count > self.block:
            by_length = live[np.argsort(-length[live], kind="stable")]
            moved = length[by_length[~self._stays(by_length)]].sum()
            self._in_vain += self._columns_read(length[order]) - self._columns_read(length[by_length])
            if self._in_vain > MOVE * moved:
                order, self._in_vain = by_length, 0
        stays = self._stays(order)
        if stays.all():
            return live[:0], live[:0]
        movers, targets = order[~stays], np.setdiff1d(np.arange(count), order[stays])
        waiting = targets[held[targets] & ~working[targets]]
        vacated = movers[movers >= count][: len(waiting)]
        return np.concatenate([movers, waiting]), np.concatenate([targets, vacated])

    def _stays(self, order: np.ndarray) -> np.ndarray:
        """(N,) whether each of the rows that are to come first, in this order, is in the right block already."""
        there = order // self.block == np.arange(len(order)) // self.block
        stays: np.ndarray = there & (order < len(order))
        return stays

    def _columns_read(self, lengths: np.ndarray) -> int:
        """Columns that a pass of rows of these lengths reads, each block as many as its longest row."""
        starts = np.arange(0, len(lengths), self.block)
        longest = np.maximum.reduceat(lengths, starts) + 1
        rows = np.diff(np.append(starts, len(lengths)))
        return sum(bucketed(columns) * count for columns, count in zip(longest.tolist(), rows.tolist(), strict=True))
