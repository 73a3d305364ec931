"""Runs candidates that are code in the sandbox: curves, confirmation, traces."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any, Unpack

from tts_generate.controller import Controller
from tts_generate.errors import CandidateError, ControllerError, StoreError
from tts_generate.recorded.run import worth_compiling
from tts_generate.replay import Recording, ReplayResult
from tts_generate.sandbox import Candidate, Sandbox
from tts_generate.sandbox.strictly import order_of
from tts_generate.schedule import Schedule, at
from tts_generate.search.archive import Telling
from tts_generate.search.bench import Look, Looking
from tts_generate.search.candidate import Proposal, Written
from tts_generate.search.objective import Cost, Curve, Fidelity, curve_from, replays_of
from tts_generate.search.questions import Part
from tts_generate.search.written.conformance import Examined, examine
from tts_generate.search.written.speed import check_speed
from tts_generate.search.written.telling import telling_episodes
from tts_generate.search.written.traces import compact
from tts_generate.trace import Event

_Replays = list[list[ReplayResult]]
"""By recording, then by budget."""


class Workbench:
    """Runs code in `box`; see `bench.Bench`. Gold answers stay outside."""

    confirms = 128

    def __init__(self, box: Sandbox, reference: type[Controller]) -> None:
        self.box = box
        self._reference = reference
        self._lock = threading.Lock()
        self._kept: tuple[str, Candidate] | None = None
        self._replays: dict[tuple[int, Fidelity], tuple[Part, _Replays]] = {}

    def look(self, part: Part, candidate: Proposal, fidelity: Fidelity, **how: Unpack[Looking]) -> Look:
        """See `Bench.look`; a bulk process is one thread, whatever `threads` says."""
        assert isinstance(candidate, Written)
        cost, threads, confirm = how.get("cost", "tokens"), how.get("threads", 1), how.get("confirm")
        if how.get("strict"):
            return Look(curve_from(self._strictly(part, candidate, fidelity, threads), fidelity, cost))
        results, warned = self._replay(part, candidate, fidelity)
        if confirm is not None:
            flat = [row for rows in results for row in rows]
            orders = {**fidelity.orders, "episodes": self.confirms, "seed": confirm, "threads": threads}
            self.box.confirm(candidate.code, flat, **orders).require()
        telling = telling_episodes(results, self.reference_replays(part, fidelity)) if how.get("tell") else []
        return Look(curve_from(results, fidelity, cost), telling, warned)

    def prepare(self, part: Part, fidelity: Fidelity) -> None:
        """Compile what candidates share, if looks at this fidelity are compiled; so the first of them need not wait."""
        if _worth_compiling(part, fidelity):
            self.box.prepare(part.recordings)

    def examine(self, part: Part, candidate: Written, fidelity: Fidelity, *, families: bool = True) -> Examined:
        """Check a candidate that is new (`conformance.examine`), and its speed where closer looks are compiled.

        Raises:
            CandidateError: what is wrong with it, for whoever wrote it.
        """
        found = examine(self.box, candidate.code, families=families)
        self.prepare(part, fidelity)
        if _worth_compiling(part, fidelity):
            opened = self.box.candidate(candidate.code, quiet=True)
            try:
                with _as_a_candidates():
                    check_speed(opened, part, fidelity, self.box.limits.seconds / 2)
            except BaseException:
                opened.close()
                raise
            self._keep((candidate.name, opened))
        return found

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
            controller = opened.controller(beta=telling.beta)
            controller.own = {}
            ours = _events(recording, controller, q, order)
        theirs = _events(recording, self._reference.from_beta(telling.reference_beta), q, order)
        gold, names = recording.questions[q].gold, dict[int, str]()
        return (
            f"Answers are letters, the same in both; * marks the right one, - is none.\n"
            f"{candidate.name} at beta {telling.beta:g}:\n{compact(ours, gold, names=names, own=controller.own)}\n\n"
            f"the reference at beta {telling.reference_beta:g}, same branches in the same order:\n"
            f"{compact(theirs, gold, lines=16, names=names)}"
        )

    @contextlib.contextmanager
    def process(self, candidate: Written) -> Iterator[Candidate]:
        """A process of the candidate, in bulk mode: the one that is kept, or another; it is kept if all goes well."""
        with self._lock:
            kept, self._kept = self._kept, None
        if kept is not None and kept[0] != candidate.name:
            kept[1].close()
        same = kept is not None and kept[0] == candidate.name
        opened = kept[1] if kept is not None and same else self.box.candidate(candidate.code, quiet=True)
        try:
            yield opened
        except BaseException:
            opened.close()
            raise
        self._keep((candidate.name, opened))

    def curve(self, opened: Candidate, part: Part, fidelity: Fidelity, cost: Cost, schedule: Schedule) -> Curve:
        """What a candidate does with some of its knobs set, taken at its word."""
        return curve_from(self._results(opened, part, fidelity, schedule), fidelity, cost)

    def close(self) -> None:
        """End the process that is kept."""
        self._keep(None)

    def _replay(self, part: Part, candidate: Written, fidelity: Fidelity) -> tuple[_Replays, tuple[str, ...]]:
        """Every replay of a curve, compiled where that is worth while.

        The process of the last candidate is kept, because what it has compiled serves the next look at it too.
        """
        self.prepare(part, fidelity)
        with contextlib.suppress(CandidateError):  # it may have come to its limits by the looks before
            if self._kept is not None and self._kept[0] == candidate.name:
                with self.process(candidate) as opened:
                    return self._results(opened, part, fidelity, {}), tuple(dict.fromkeys(opened.warnings))
        with self.process(candidate) as opened:
            return self._results(opened, part, fidelity, {}), tuple(dict.fromkeys(opened.warnings))

    def _strictly(self, part: Part, candidate: Written, fidelity: Fidelity, threads: int | None) -> _Replays:
        """Every replay of a curve, counted here; each order of the branches in a process of its own."""
        with self.box.candidate(candidate.code, mode="strict", quiet=True) as opened, _as_a_candidates():
            return opened.replays(part.recordings, fidelity.betas, **fidelity.orders, threads=threads)

    def _results(self, opened: Candidate, part: Part, fidelity: Fidelity, schedule: Schedule) -> _Replays:
        """The replays; looks that are few in episodes are interpreted, unless it has compiled already."""
        compiled = _worth_compiling(part, fidelity) or opened.compiled
        opened.renew()

        def one(recording: Recording, beta: float) -> ReplayResult:
            knobs: dict[str, Any] = at(schedule, beta)
            return opened.replay(recording, beta=beta, compiled=compiled, **fidelity.orders, **knobs)

        with _as_a_candidates():
            return [[one(recording, beta) for beta in fidelity.betas] for recording in part.recordings]

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


def _worth_compiling(part: Part, fidelity: Fidelity) -> bool:
    return worth_compiling(len(fidelity.betas) * fidelity.shuffles * part.count)
