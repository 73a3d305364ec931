"""Runs candidates that are code in the sandbox: curves, confirmation, traces."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

from tts_generate.controller import Controller
from tts_generate.errors import CandidateError, ControllerError, StoreError
from tts_generate.recorded.run import WORTH_COMPILING
from tts_generate.replay import Recording, ReplayResult
from tts_generate.sandbox import Candidate, Sandbox
from tts_generate.sandbox.strictly import order_of
from tts_generate.search.archive import Telling
from tts_generate.search.bench import Look
from tts_generate.search.candidate import Proposal, Written
from tts_generate.search.objective import Cost, Fidelity, curve_from, replays_of
from tts_generate.search.questions import Part
from tts_generate.search.written.telling import telling_episodes
from tts_generate.search.written.traces import compact
from tts_generate.trace import Event

_Replays = list[list[ReplayResult]]
"""By recording, then by budget."""


class Workbench:
    """Runs code in `box`; see `bench.Bench`. Gold answers stay outside.

    Args:
        box: where candidates run.
        reference: what their episodes are told beside.
    """

    confirms = 128

    def __init__(self, box: Sandbox, reference: type[Controller]) -> None:
        self.box = box
        self._reference = reference
        self._lock = threading.Lock()
        self._kept: tuple[str, Candidate] | None = None
        self._replays: dict[tuple[int, Fidelity], tuple[Part, _Replays]] = {}

    def look(
        self,
        part: Part,
        candidate: Proposal,
        fidelity: Fidelity,
        *,
        cost: Cost = "tokens",
        threads: int | None = 1,
        confirm: int | None = None,
        tell: bool = False,
        strict: bool = False,
    ) -> Look:
        """See `Bench.look`; a bulk process is one thread, whatever `threads` says."""
        assert isinstance(candidate, Written)
        if strict:
            return Look(curve_from(self._strictly(part, candidate, fidelity, threads), fidelity, cost))
        results, warned = self._replay(part, candidate, fidelity)
        if confirm is not None:
            flat = [row for rows in results for row in rows]
            orders: dict[str, Any] = {"shuffles": fidelity.shuffles, "first_shuffle": fidelity.first_shuffle}
            orders |= {"episodes": self.confirms, "seed": confirm, "threads": threads}
            self.box.confirm(candidate.code, flat, **orders).require()
        telling = telling_episodes(results, self.reference_replays(part, fidelity)) if tell else []
        return Look(curve_from(results, fidelity, cost), telling, warned)

    def trace(self, part: Part, candidate: Written, fidelity: Fidelity, telling: Telling) -> str:
        """A telling episode of a candidate, run in strict mode, and what the reference does on it.

        Raises:
            CandidateError: it fails there.
        """
        recording = next(one for one in part.recordings if one.name == telling.recording)
        (q,) = recording.numbers(telling.question)
        branches = recording.questions[q].branches
        order = order_of(branches, telling.shuffle, fidelity.shuffles, fidelity.first_shuffle).tolist()
        with self.box.candidate(candidate.code, mode="strict", quiet=True) as opened:
            ours = _events(recording, opened.controller(beta=telling.beta), q, order)
        theirs = _events(recording, self._reference.from_beta(telling.reference_beta), q, order)
        gold = recording.questions[q].gold
        return (
            f"{candidate.name} at beta {telling.beta:g}:\n{compact(ours, gold)}\n\n"
            f"the reference at beta {telling.reference_beta:g}, same branches in the same order:\n"
            f"{compact(theirs, gold, lines=16)}"
        )

    def close(self) -> None:
        """End the process that is kept."""
        self._keep(None)

    def _replay(self, part: Part, candidate: Written, fidelity: Fidelity) -> tuple[_Replays, tuple[str, ...]]:
        """Every replay of a curve, compiled where that is worth while.

        The process of the last candidate is kept, because what it has compiled serves the next look at it too.
        """
        compiled = len(fidelity.betas) * fidelity.shuffles * part.count >= WORTH_COMPILING and _has_numba()
        if compiled:
            self.box.prepare(part.recordings)
        with self._lock:
            kept, self._kept = self._kept, None
        if kept is not None and kept[0] == candidate.name:
            with contextlib.suppress(CandidateError):  # it may have come to its limits by the looks before
                return self._replayed(kept[1], part, candidate, fidelity, compiled)
        elif kept is not None:
            kept[1].close()
        opened = self.box.candidate(candidate.code, quiet=True)
        return self._replayed(opened, part, candidate, fidelity, compiled)

    def _strictly(self, part: Part, candidate: Written, fidelity: Fidelity, threads: int | None) -> _Replays:
        """Every replay of a curve, counted here; each order of the branches in a process of its own."""
        how: dict[str, Any] = {"shuffles": fidelity.shuffles, "first_shuffle": fidelity.first_shuffle}
        with self.box.candidate(candidate.code, mode="strict", quiet=True) as opened, _as_a_candidates():
            return opened.replays(part.recordings, fidelity.betas, **how, threads=threads)

    def _replayed(
        self, opened: Candidate, part: Part, candidate: Written, fidelity: Fidelity, compiled: bool
    ) -> tuple[_Replays, tuple[str, ...]]:
        """The replays and what the process warned of; it is ended if it fails, and kept if not."""
        how: dict[str, Any] = {"shuffles": fidelity.shuffles, "first_shuffle": fidelity.first_shuffle}
        opened.renew()
        try:
            with _as_a_candidates():
                results = [
                    [opened.replay(recording, beta=beta, compiled=compiled, **how) for beta in fidelity.betas]
                    for recording in part.recordings
                ]
        except BaseException:
            opened.close()
            raise
        self._keep((candidate.name, opened))
        return results, tuple(dict.fromkeys(opened.warnings))

    def _keep(self, opened: tuple[str, Candidate] | None) -> None:
        with self._lock:
            before, self._kept = self._kept, opened
        if before is not None:
            before[1].close()

    def reference_replays(self, part: Part, fidelity: Fidelity) -> _Replays:
        """The reference's replays at the same fidelity; the part is kept with them, so that its id stays its own."""
        key = id(part), fidelity
        if key not in self._replays:
            self._replays[key] = part, replays_of(part, self._reference, fidelity, threads=None)
        return self._replays[key][1]


@contextlib.contextmanager
def _as_a_candidates() -> Iterator[None]:
    """Have it be the candidate's fault where it wants to read what this search set does not hold."""
    try:
        yield
    except StoreError as error:
        raise CandidateError("decision", str(error)) from error


def _events(recording: Recording, controller: Controller, question: int, order: list[int]) -> list[Event]:
    events: list[Event] = []
    try:
        recording.episode(controller, question, order, events=events)
    except CandidateError:
        raise
    except ControllerError as error:
        raise CandidateError("decision", str(error)) from error
    return events


def _has_numba() -> bool:
    return find_spec("numba") is not None
