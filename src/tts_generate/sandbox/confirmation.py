"""What came of confirming bulk replay by strict replay."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tts_generate.errors import CandidateError
from tts_generate.recorded.episodes import Columns


@dataclass(frozen=True)
class Difference:
    """Where an episode that is run alone, in strict mode, does not come out as it did before."""

    beta: float
    shuffle: int
    question: int
    column: str
    bulk: Any
    strict: Any

    @classmethod
    def of(
        cls, beta: float, shuffle: int, question: int, before: NDArray[np.int64], alone: NDArray[np.int64]
    ) -> Difference | None:
        """The first column that differs; None if none does."""
        for name, bulk, strict in zip(Columns._fields, before.tolist(), alone.tolist(), strict=True):
            if bulk != strict:
                return cls(beta, shuffle, question, name, bulk, strict)
        return None


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
                f"in {len(self.different)} of {self.episodes} episodes the candidate decides otherwise when it is "
                f"alone and sees only what was revealed (first: shuffle {first.shuffle}, question {first.question}, "
                f"beta {first.beta:g}: {first.column} {first.strict} instead of {first.bulk}). It looks ahead, "
                "remembers other episodes, or draws on time, chance or the numbers of answer ids.",
            )
