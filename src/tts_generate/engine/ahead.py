"""What a controller may ask for next: rows that would be idle decode it before it has decided.

A pass costs about as much with a few rows as with many, and a controller that widens step by step leaves most of them
empty: few tokens, but many passes. Every branch's tokens depend on its key only, so what is decoded ahead is what would
have been decoded later; it counts once it is asked for, and what never is, is discarded.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from tts_generate.engine.question import Running
from tts_generate.engine.rows import Job, Rows
from tts_generate.engine.settings import Settings
from tts_generate.runner import Unit


def ahead(questions: Collection[Running], rows: Rows, settings: Settings) -> Iterator[Job]:
    """The next step of every branch that waits for a decision; then new branches, one of each question by turns."""
    for running in questions:
        for number, branch in enumerate(running.branches):
            pruned = running.episode.state.pruned[number]
            if rows.waits(branch) and not pruned:
                yield _step(running, number, settings)
    widening = list(questions)
    while widening and rows.empty():
        widening = [running for running in widening if len(running.branches) < _most(running, settings)]
        for running in widening:
            running.open()
            yield _step(running, len(running.branches) - 1, settings)


def _step(running: Running, number: int, settings: Settings) -> Job:
    """One step of a branch, and its probe; or the probe alone, where it was given up."""
    branch, interval = running.branches[number], settings.interval_tokens
    steps, rest = divmod(len(branch.ids), interval)
    probe = running.task.controller.probing != "never"
    unprobed = probe and not rest and not branch.has(len(branch.ids), probe) and len(branch.ids) > branch.read
    target = min((steps + (not unprobed)) * interval, settings.max_new_tokens)
    return Job(running.index, Unit(number, steps, 1, probe), branch, target, ahead=True)


def _most(running: Running, settings: Settings) -> int:
    """Branches that may be there: as many new ones as the question has opened, none that its controller never opens."""
    task, opened = running.task, running.episode.state.opened
    known = task.controller.most_branches
    there = settings.max_branches if task.order is None else len(task.order)
    return min(2 * opened, there, there if known is None else known)
