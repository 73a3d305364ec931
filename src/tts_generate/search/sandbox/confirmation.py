"""What came of confirming bulk replay by strict replay."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tts_generate.errors import CandidateError


@dataclass(frozen=True)
class Difference:
    """Where strict mode does not come out as bulk mode did."""

    beta: float
    shuffle: int
    question: int
    column: str
    bulk: Any
    strict: Any


@dataclass(frozen=True)
class Confirmation:
    """What `Sandbox.confirm` found."""

    episodes: int
    different: tuple[Difference, ...]

    @property
    def same(self) -> bool:
        """Whether every episode came out the same."""
        return not self.different

    def require(self) -> None:
        """Nothing, where every episode came out the same.

        Raises:
            CandidateError: one did not; the candidate is disqualified.
        """
        if self.different:
            first = self.different[0]
            raise CandidateError(
                "different",
                f"in {len(self.different)} of {self.episodes} episodes the candidate decides otherwise when it sees "
                f"only what was revealed (first: shuffle {first.shuffle}, question {first.question}, beta "
                f"{first.beta:g}: {first.column} {first.strict} instead of {first.bulk}). It looks ahead, remembers "
                "other episodes, or draws on time, chance or the numbers of answer ids.",
            )
