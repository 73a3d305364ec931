"""What searches differ in: who proposes, how candidates are run, how the best is written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from tts_generate.search.bench import Bench
from tts_generate.search.candidate import Proposal, Proposer
from tts_generate.search.choice import Contest, Measured
from tts_generate.search.history import History
from tts_generate.search.loop import Judge
from tts_generate.search.objective import Fidelity, Gains


class Way(Protocol):
    """What one kind of search does its own way: who proposes, how candidates run, how the best is written."""

    @property
    def bench(self) -> Bench:
        """What runs the candidates."""

    @property
    def gain(self) -> Gains:
        """How their gains are read off."""

    def settings(self) -> dict[str, Any]:
        """What two searches of one folder must agree in, plain JSON values."""

    def proposer(self, judge: Judge, history: History) -> Proposer:
        """Who proposes."""

    def usd(self) -> float:
        """What the proposals have cost so far, US dollars."""

    def about(
        self, candidate: Proposal, measured: Measured, contest: Contest, fidelity: Fidelity, history: History
    ) -> dict[str, Any]:
        """What the result says of the candidate chosen: `candidate`, `ablation`, and more."""

    def write_best(self, history: History, candidate: Proposal, gained: str, provenance: Mapping[str, Any]) -> None:
        """Write the candidate as the controller folder `best` of the search."""

    def close(self) -> None:
        """End what it holds open."""
