"""Writers killed (SIGKILL) while they record: many branches a store, so that a kill seldom finds the work done.

The delay of a kill counts from the first branch that its writer acknowledges; of one in `OPENING` it counts from the
start, to hit the opening too. Run as a program it is a nursery of writers.
"""

from __future__ import annotations

import dataclasses
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
from crashes import MANIFEST, QUESTIONS, Ledger
from nursery import PLACES, Nursery, serve
from test_store import row

from tts_generate.trajectories import StoreWriter, Trajectory, TrajectoryStore
from tts_generate.trajectories.parts import read_parts
from tts_generate.trajectories.schema import from_table, to_table

SECONDS = 0.1
"""The longest delay of a kill: some dozens of records."""
OPENING = 8
RECORDING = ("recording", "sealing", "acknowledging")
MOST = 3
"""Branches recorded at once."""


def branches(count: int) -> list[Trajectory]:
    """So many branches of each question, one in ten with a record of some 20 kB."""
    rows = [row(question, branch) for question in "ab" for branch in range(count)]
    long = tuple(range(100_000, 103_000))
    more = {"tokens": len(long), "token_ids": long, "step_logprobs": ()}
    return [dataclasses.replace(one, **more) if one.branch % 10 == 9 else one for one in rows]


def random_kills(folder: Path, count: int, seed: int, branches_each: int = 400) -> dict[str, Any]:
    """Kill writers until `count` were hit while they recorded; every store is gone on with until it is whole.

    Returns:
        `kills`; `hit`, how many of them where; `recording`, those of `RECORDING`; `stores`; `acknowledged` branches;
        `lost` of these; `unreadable` stores; `changed_parts`, shards that did not stay as they were;
        `unacknowledged`, the most branches that one kill left recorded and not acknowledged; `left_over`, temporary
        files; `unlike_uninterrupted`, finished stores that differ from one whose writer nobody killed.
    """
    rng, rows = random.Random(seed), branches(branches_each)
    found: dict[str, Any] = dict.fromkeys(
        ("kills", "recording", "stores", "acknowledged", "lost", "unreadable", "changed_parts", "unacknowledged",
         "left_over", "unlike_uninterrupted"), 0
    )  # fmt: skip
    hit = dict.fromkeys(PLACES, 0)
    with Nursery(__file__) as nursery:
        nursery.work(folder / "whole", branches_each=branches_each)
        whole = TrajectoryStore.open(folder / "whole")
        table = whole.table()
        while found["recording"] < count:
            path, killed = folder / f"store-{found['stores']}", True
            ledger = Ledger(path, rows)
            while killed:
                # Once there are enough kills, the last store is finished in peace.
                enough = found["recording"] >= count
                how = {} if enough else {"ready": rng.randrange(OPENING) > 0, "seconds": rng.uniform(0, SECONDS)}
                told = nursery.work(path, branches_each=branches_each, **how)
                ledger.note({"told": [key for line in told["told"] for key in line]})
                killed = told["killed"]
                found["kills"] += killed
                hit[told["place"]] += killed
                found["recording"] = sum(map(hit.__getitem__, RECORDING))
                found["lost"] += ledger.lost()
            found["stores"] += 1
            found["acknowledged"] += len(ledger.acknowledged)
            found["unreadable"] += ledger.unreadable
            found["changed_parts"] += ledger.changed_parts
            found["unacknowledged"] = max(found["unacknowledged"], ledger.unacknowledged)
            found["left_over"] += len(list(path.glob("*.tmp")))
            found["unlike_uninterrupted"] += not _alike(path, whole, table)
    return {**found, "hit": {place: number for place, number in hit.items() if number}}


def _alike(path: Path, whole: TrajectoryStore, table: Any) -> bool:
    """Whether a store holds what the other does, row for row, and every row in one shard."""
    store = TrajectoryStore.open(path)
    same = (store.manifest, store.questions) == (whole.manifest, whole.questions) and store.table().equals(table)
    return same and len(read_parts(path)) == table.num_rows


def _batches(rows: list[Trajectory]) -> Iterator[list[Trajectory]]:
    """One to `MOST` at once."""
    at = 0
    while at < len(rows):
        size = 1 + rows[at].branch % MOST
        yield rows[at : at + size]
        at += size


def _write(tell: Callable[[Any], None], enter: Callable[[str], None], path: Path, branches_each: int) -> None:
    enter("opening")
    with StoreWriter.open(path, dataclasses.replace(MANIFEST, branches=branches_each), QUESTIONS) as writer:
        missing = [one for one in branches(branches_each) if one.key not in writer.done]
        for number, batch in enumerate(_batches(missing)):
            enter("recording")
            writer.append(batch)
            enter("acknowledging")
            tell([one.key for one in batch])
            if number % 11 == 10:
                enter("sealing")
                writer.seal()
        enter("closing")
    enter("done")


if __name__ == "__main__":
    from_table(to_table(branches(1)))  # imports what a first record would, 0.1 s long
    serve(_write)
