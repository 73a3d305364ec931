"""How candidates are run: families of a controller whose code is ours, here; code that a model wrote, in `written`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from tts_generate.controller import Controller
from tts_generate.search.archive import Telling
from tts_generate.search.candidate import KnobCandidate, Proposal
from tts_generate.search.narrow import narrowed
from tts_generate.search.objective import Cost, Curve, Fidelity, curve_of
from tts_generate.search.questions import Part, fewest_branches


@dataclass(frozen=True)
class Look:
    """What a look at a candidate shows."""

    curve: Curve
    telling: Sequence[Telling] = ()
    warned: Sequence[str] = ()
    """What its process warned of. Untrusted text."""


class Bench(Protocol):
    """Runs candidates of one kind."""

    @property
    def confirms(self) -> int:
        """Episodes that `look` runs again to confirm the others; 0 where nothing has to be confirmed."""

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
        """What a candidate does on `part`.

        Args:
            part: the questions.
            candidate: asks for no more branches than `part` holds.
            fidelity: how closely to look.
            cost: what its budgets are counted in.
            threads: of its replay.
            confirm: seed of the choice of episodes that are to come out the same in strict mode.
            tell: look for telling episodes too.
            strict: whether the host counts every episode and hands over only what was paid for: so does all that
                chooses or is reported. Otherwise code may be taken at its word, which is faster and good for a sieve.

        Raises:
            CandidateError: code that failed, or that does not come out the same.
        """


@dataclass(frozen=True)
class Families:
    """Runs schedules of the knobs of one controller, in this process: its code is trusted."""

    kind: type[Controller]
    confirms: int = 0

    def look(
        self,
        part: Part,
        candidate: Proposal,
        fidelity: Fidelity,
        *,
        cost: Cost = "tokens",
        threads: int | None = 1,
        **more: object,
    ) -> Look:
        """See `Bench.look`; it is strict always, there is nothing to confirm, and nobody to tell."""
        assert isinstance(candidate, KnobCandidate)
        family = narrowed(candidate.family(self.kind), fewest_branches(part.recordings))
        return Look(curve_of(part, family, fidelity, cost=cost, threads=threads))
