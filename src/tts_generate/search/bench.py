"""How candidates are run: families of a controller whose code is ours, here; code that a model wrote, in `written`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypedDict, Unpack

from tts_generate.controller import Controller
from tts_generate.recorded.recording import fewest_branches
from tts_generate.search.archive import Telling
from tts_generate.search.candidate import KnobCandidate, Proposal
from tts_generate.search.narrow import narrowed
from tts_generate.search.objective import Cost, Curve, Fidelity, curve_of
from tts_generate.search.questions import Part


@dataclass(frozen=True)
class Look:
    """What a look at a candidate shows."""

    curve: Curve
    telling: Sequence[Telling] = ()
    warned: Sequence[str] = ()
    """What its process warned of. Untrusted text."""


class Looking(TypedDict, total=False):
    """How a candidate is looked at, beside its fidelity."""

    cost: Cost
    """What its budgets are counted in; tokens."""
    threads: int | None
    """Of its replay; one."""
    confirm: int | None
    """Seed of the choice of episodes that are to come out the same in strict mode."""
    tell: bool
    """Look for telling episodes too."""
    strict: bool
    """Whether the host counts every episode and hands over only what was paid for: so does all that chooses or is
    reported. Otherwise code may be taken at its word, which is faster and good for a sieve."""


class Bench(Protocol):
    """Runs candidates of one kind."""

    @property
    def confirms(self) -> int:
        """Episodes that `look` runs again to confirm the others; 0 where nothing has to be confirmed."""

    def look(self, part: Part, candidate: Proposal, fidelity: Fidelity, **how: Unpack[Looking]) -> Look:
        """What a candidate does on `part`, whose branches are no fewer than it asks for.

        Raises:
            CandidateError: code that failed, or that does not come out the same.
        """


@dataclass(frozen=True)
class Families:
    """Runs schedules of the knobs of one controller, in this process: its code is trusted."""

    kind: type[Controller]
    confirms: int = 0

    def look(self, part: Part, candidate: Proposal, fidelity: Fidelity, **how: Unpack[Looking]) -> Look:
        """See `Bench.look`; it is strict always, there is nothing to confirm, and nobody to tell."""
        assert isinstance(candidate, KnobCandidate)
        family = narrowed(candidate.family(self.kind), fewest_branches(part.recordings))
        return Look(curve_of(part, family, fidelity, cost=how.get("cost", "tokens"), threads=how.get("threads", 1)))
