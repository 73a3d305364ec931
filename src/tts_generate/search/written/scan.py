"""A candidate's numbers fitted at no cost: schedules of the knobs that it declares ranges for, proposed by Optuna."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from dataclasses import dataclass

from tts_generate.controller import Knob
from tts_generate.errors import CandidateError
from tts_generate.recorded.recording import fewest_branches
from tts_generate.schedule import Ends, Range
from tts_generate.search.archive import Entry
from tts_generate.search.candidate import KnobCandidate, Scored
from tts_generate.search.loop import CANDIDATES, Judge
from tts_generate.search.narrow import narrowed_ranges
from tts_generate.search.objective import cost_of
from tts_generate.search.parameters import ParametersProposer
from tts_generate.search.written.workbench import Workbench

SECONDS = 30.0
"""Of a scan; its last look takes a few more."""
_MOST = 20
"""Rounds of proposals."""
_CLOSER = 6
"""Of the best, looked at on other orders of the branches too: what wins on one alone is luck."""


@dataclass(frozen=True)
class Scanned:
    """What a scan found."""

    tried: int
    schedule: Mapping[str, Knob | Ends]
    score: float
    """At the second rung; the same of the candidate's own schedule is `before`."""
    before: float


def scan(judge: Judge, bench: Workbench, entry: Entry, seed: int, *, families: bool) -> Scanned:
    """Try schedules of a candidate's knobs, its own first, for half a minute; constants where it is no family.

    Raises:
        CandidateError: it declares no ranges, or fails with some knobs.
    """
    part, candidate = judge.part, entry.candidate
    end = time.monotonic() + SECONDS
    logprobs = all(recording.has_logprobs for recording in part.recordings)
    with bench.process(candidate) as opened:
        ranges = narrowed_ranges(_within(opened.ranges(), entry), fewest_branches(part.recordings), logprobs)
        if not families:
            ranges = {name: dataclasses.replace(room, moves=False) for name, room in ranges.items()}
        low, high = entry.knobs["0"], entry.knobs["1"]
        own = {name: Ends(low[name], high[name], room.scale) for name, room in ranges.items()}

        def scored(one: KnobCandidate, rung: int) -> Scored:
            curve = bench.curve(opened, part, judge.rungs[rung], cost_of(judge.contest.objective), one.schedule)
            gain = judge.gain(curve, rung)
            half = max(1, len(gain.at_costs) // 2)
            ends = sum(gain.at_costs[:half]) / half, sum(gain.at_costs[-half:]) / half
            return Scored(one, rung, ends, gain.score)

        proposer = ParametersProposer(ranges, [own], seed)
        found: dict[str, Scored] = {}
        for _ in range(_MOST):
            told = []
            for one in proposer.propose(CANDIDATES):
                assert isinstance(one, KnobCandidate)
                found[one.name] = found.get(one.name) or scored(one, 0)
                told.append(found[one.name])
                if time.monotonic() > end:
                    break
            if time.monotonic() > end:
                break
            proposer.learn(told)
        closer = min(1, len(judge.rungs) - 1)
        first, *others = found.values()
        before = scored(first.candidate, closer)  # type: ignore[arg-type]
        best = sorted(others, key=lambda one: -one.score)[:_CLOSER]
        looks = [before, *(scored(one.candidate, closer) for one in best)]  # type: ignore[arg-type]
    chosen = max(looks, key=lambda one: one.score)
    assert isinstance(chosen.candidate, KnobCandidate)
    return Scanned(len(found), chosen.candidate.schedule, chosen.score, before.score)


def fitted(entry: Entry, schedule: Mapping[str, Knob | Ends]) -> str:
    """A candidate's code with a class at its end that has another schedule for some of its knobs."""
    knobs = "".join(
        f'            "{name}": '
        + (
            f'Ends({knob.start!r}, {knob.end!r}, "{knob.scale}").at(beta),\n'
            if isinstance(knob, Ends)
            else f"{knob!r},\n"
        )
        for name, knob in schedule.items()
    )
    return (
        f"{entry.candidate.code.rstrip()}\n\n\nfrom tts_generate.schedule import Ends\n\n\n"
        f"class {entry.kind}Fitted({entry.kind}):\n    @staticmethod\n    def schedule(beta):\n"
        f"        return {{\n            **{entry.kind}.schedule(beta),\n{knobs}        }}\n"
    )


def _within(ranges: Mapping[str, Range], entry: Entry) -> Mapping[str, Range]:
    """The ranges that a candidate declares, of its knobs."""
    if not ranges:
        raise CandidateError(
            "knobs",
            f'{entry.kind} declares no ranges: give the class `ranges = {{"knob": Range(low, high)}}` '
            '(from tts_generate.schedule import Range; Range(1, 64, "log") for what counts) and write it again.',
        )
    for name, room in ranges.items():
        if not isinstance(entry.knobs["0"].get(name), (int, float)):
            raise CandidateError("knobs", f"{entry.kind}: ranges names {name}, which is no knob that is a number.")
        if not room.low < room.high or (room.scale == "log" and room.low <= 0):
            raise CandidateError("knobs", f"{entry.kind}: the range of {name} must rise, from above 0 if it is log.")
    return ranges
