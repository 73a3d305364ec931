"""The search whose candidates a language model writes: what it does its own way (`way.Way`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tts_generate.controller import Controller
from tts_generate.disk import write_whole
from tts_generate.errors import InputError
from tts_generate.profile import Profile
from tts_generate.sandbox import Limits, Sandbox
from tts_generate.search.agent import Agent, prompts
from tts_generate.search.agent.client import connected, unconnected
from tts_generate.search.agent.ledger import JOURNAL, Ledger, Wire, on_file_only
from tts_generate.search.agent.prices import free, price_of
from tts_generate.search.agent.program import Program
from tts_generate.search.agent.proposer import AgentProposer
from tts_generate.search.archive import Archive, Entry
from tts_generate.search.best import write_written
from tts_generate.search.candidate import Proposal
from tts_generate.search.choice import Contest, Measured
from tts_generate.search.history import History
from tts_generate.search.loop import Judge
from tts_generate.search.objective import Fidelity, Gains, Objective, gain_at_own_cost, gain_over
from tts_generate.search.written.seconds import Clock
from tts_generate.search.written.workbench import Workbench
from tts_generate.secret import without_secrets

_CALLS, _OUTPUT, _RESULT, _TOOLS, _OPENING = 10, 3000, 1200, 1500, 800
"""Of a usual round: requests; tokens of a reply, of a tool's result, of the tools' definitions, of the opening."""
_PATIENCE = 45.0
"""Seconds that a look at a candidate may take, so that no call of a tool takes a minute."""
_BYTES = 3.5
"""Of a token of the system prompt, about."""


class AgentWay:
    """A search by `agent`; nothing is asked of the API before `proposer` is.

    Raises:
        InputError: no key, no price, or a budget below one round.
        SandboxUnavailable: this machine cannot lock candidates up.
    """

    def __init__(
        self,
        agent: Agent,
        seed: int,
        reference: type[Controller],
        reference_name: str,
        say: Callable[[str], None],
        box: Sandbox | None = None,
        *,
        objective: Objective = "tokens",
        stores: Mapping[str, Path] | None = None,
    ) -> None:
        self._agent, self._seed, self._reference_name, self._say = agent, seed, reference_name, say
        self._objective = objective
        self._clock = None if agent.profile is None else Clock(Profile.load(agent.profile), stores or {})
        self._model = without_secrets(agent.program or agent.model)  # as it is stored, shown and published
        self._price = price_of(agent.model, agent.prices) if agent.charged else free(self._model)
        self._estimate = self._usual_round()
        self._budget = agent.max_cost_usd or 0.0
        if self._budget < self._estimate:
            raise InputError(
                f"--max-cost-usd {self._budget:g} is below one round, which is expected to cost about "
                f"${self._estimate:.2f} with {agent.model}: give more, or a cheaper --model, or fewer --calls."
            )
        self._client = connected(agent.retries) if agent.charged else unconnected()
        self._program: Program | None = None
        self._own = Sandbox(Limits(seconds=_PATIENCE)) if box is None else None
        self.bench = Workbench(box or self._own, reference)  # type: ignore[arg-type]
        self.gain: Gains = gain_over if agent.beta else gain_at_own_cost
        self._ledger: Ledger | None = None
        say(self.bench.box.line)

    def settings(self) -> dict[str, Any]:
        """What two searches of one folder must agree in; the budget may be raised."""
        off = [name for name, on in (("traces", self._agent.traces), ("beta", self._agent.beta)) if not on]
        told = {"controller": f"code by {self._model}", "proposer": self._agent.proposer, "without": off}
        return {**told, "model": self._model, "effort": self._agent.effort}

    def proposer(self, judge: Judge, history: History) -> AgentProposer:
        """Who proposes; says what the budget affords."""
        self._ledger = ledger = Ledger(history.folder, self._price, self._budget, self._say, self._wire(history.folder))
        ledger.client = client = self._client.with_options(middleware=[ledger])
        proposer = AgentProposer(
            self._agent, client, ledger, judge, self.bench, history,
            reference=self._reference_name, seed=self._seed, estimate=self._estimate, clock=self._clock, say=self._say,
        )  # fmt: skip
        if not self._agent.charged:
            return proposer
        source = "expected" if history.rounds == 0 else f"the mean of {history.rounds}"
        self._say(
            f"${ledger.spent:.2f} of ${self._budget:.2f} spent; a round of {self._agent.model} costs about "
            f"${proposer.expected:.2f} ({source}, prices of {self._price.date}): that affords {proposer.affords} more."
        )
        return proposer

    def usd(self) -> float:
        """What the model has cost so far."""
        return 0.0 if self._ledger is None else self._ledger.spent

    def about(
        self, candidate: Proposal, measured: Measured, contest: Contest, fidelity: Fidelity, history: History
    ) -> dict[str, Any]:
        """The candidate with its knobs, its lineage, what changed from its parent, and what the search has cost."""
        entry = history.archive.written[candidate.name]
        assert self._ledger is not None
        last = history.archive.last(candidate.name)
        written = {
            "model": self._model,
            "calls": self._ledger.calls,
            "failures": len(history.archive.failures),
            "confirmed": ((last.confirmed if last is not None else None) or {}).get("episodes", 0),
            "lineage": [_ancestor(one, history.archive) for one in history.archive.lineage(candidate.name)],
            "diff": difference(history.archive, entry),
        }
        told = {**candidate.to_dict(), "class": entry.kind, "round": entry.round, "usd": entry.usd}
        return {"candidate": {**told, "knobs": _ends(entry)}, "ablation": {}, "written": written}

    def write_best(self, history: History, candidate: Proposal, gained: str, provenance: Mapping[str, Any]) -> None:
        """Write the code as a controller folder."""
        entry = history.archive.written[candidate.name]
        more = {"source": "tts-generate search", "proposer": self._agent.proposer, "model": self._model}
        write_written(
            history.folder / "best",
            entry.candidate.code,
            entry.kind,
            name=f"found_{candidate.name}",
            description=f"Written by {self._model} and chosen by search: {gained}",
            idea=entry.candidate.idea,
            provenance={**more, "parent": candidate.parent, "round": entry.round, **provenance},
        )

    def close(self) -> None:
        """End the candidates' processes, the connections and the journal."""
        self.bench.close()
        if self._own is not None:
            self._own.close()
        self._client.close()
        if self._program is not None:
            self._program.close()
        if self._ledger is not None:
            self._ledger.close()

    def _wire(self, folder: Path) -> Wire | None:
        """Who answers instead of the API, if somebody does."""
        told = self._agent.conversation
        if told is not None:
            if not (told / JOURNAL).is_file():
                raise InputError(f"{told} holds no conversation: it has no {JOURNAL}.")
            if not (folder / JOURNAL).exists():  # whole or not at all: half a conversation would pass for all of it
                write_whole(folder / JOURNAL, (told / JOURNAL).read_bytes())
            self._say(f"answers come from {told}, and nothing is charged.")
            return on_file_only
        if self._agent.program is not None:
            self._program = Program(self._agent.program)
            self._say(f"answers come from {self._model!r}, and nothing is charged.")
        return self._program

    def _usual_round(self) -> float:
        system = prompts.system(self._reference_name, self._objective, beta=self._agent.beta, traces=self._agent.traces)
        prompt = round(len(system.encode()) / _BYTES) + _TOOLS + _OPENING
        return self._price.of_round(
            prompt, min(_CALLS, self._agent.calls), min(_OUTPUT, self._agent.max_tokens), _RESULT
        )


def difference(archive: Archive, entry: Entry) -> str:
    """What changed from a candidate's parent, as a unified diff; "" if it has none in the archive."""
    parent = archive.written.get(entry.candidate.parent or "")
    return "" if parent is None else "\n".join(parent.candidate.difference(entry.candidate))


def _ancestor(entry: Entry, archive: Archive) -> dict[str, Any]:
    last = archive.last(entry.candidate.name)
    told = {"name": entry.candidate.name, "round": entry.round, "idea": entry.candidate.idea, "usd": entry.usd}
    return {**told, "gain": last.mean if last is not None and last.problem is None else None}


def _ends(entry: Entry) -> dict[str, Any]:
    """Its knobs at beta 0 and 1, as a schedule's are told."""
    low, high = entry.knobs["0"], entry.knobs["1"]
    return {name: value if value == high[name] else {"start": value, "end": high[name]} for name, value in low.items()}
