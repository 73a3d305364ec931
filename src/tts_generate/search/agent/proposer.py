"""The agent as a proposer: a round is one conversation, whose tools write, measure and compare controllers."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import anthropic

from tts_generate.errors import InputError, ServerError
from tts_generate.search.agent import Agent, prompts
from tts_generate.search.agent.ledger import BudgetReached, Ended, Ledger
from tts_generate.search.agent.tools import Desk
from tts_generate.search.candidate import Scored, Written
from tts_generate.search.history import History
from tts_generate.search.loop import Judge
from tts_generate.search.written.niches import Parent, first_of, parents
from tts_generate.search.written.seconds import Clock
from tts_generate.search.written.workbench import Workbench

if TYPE_CHECKING:
    from anthropic.types.beta import BetaMessage

FRUITLESS = 3
"""Rounds in succession without a candidate, after which the search ends."""


class AgentProposer:
    """Proposes what a language model writes.

    A round that the history holds is not asked for again, and one that was cut off is gone through again with the
    replies that were paid for. A round is expected to cost `estimate` US dollars while none has been run.
    """

    def __init__(
        self,
        agent: Agent,
        client: anthropic.Anthropic,
        ledger: Ledger,
        judge: Judge,
        bench: Workbench,
        history: History,
        *,
        reference: str,
        seed: int,
        estimate: float,
        clock: Clock | None,
        say: Callable[[str], None],
    ) -> None:
        self._agent, self._client, self._ledger = agent, client, ledger
        self._judge, self._bench, self._history = judge, bench, history
        self._reference, self._seed, self._estimate, self._say = reference, seed, estimate, say
        self._clock, self._number = clock, 0
        self.name = agent.proposer
        self._system = prompts.system(reference, judge.contest.objective, beta=agent.beta, traces=agent.traces)

    @property
    def expected(self) -> float:
        """US dollars that the next round is expected to cost: what those before it did on average."""
        rounds = self._history.rounds
        if rounds == 0:
            return self._estimate
        return sum(self._ledger.of_round(number) for number in range(rounds)) / rounds

    @property
    def affords(self) -> int:
        """Rounds that what is left of the budget is expected to pay for."""
        return int(max(0.0, self._ledger.left) / max(self.expected, 1e-9))

    def propose(self, count: int) -> Sequence[Written] | None:
        """The candidates of the next round that passed; a round writes as many as it does, whatever `count` says."""
        number, self._number = self._number, self._number + 1
        if number < self._history.rounds:
            return [e.candidate for e in self._history.archive.written.values() if e.round == number]
        begun = self._ledger.opening(number) is not None
        if self._fruitless(number) or not (begun or self._pays()):
            return None
        return self._converse(number)

    def learn(self, scored: Sequence[Scored]) -> None:
        """Nothing: the next round is told what the archive holds."""

    def _pays(self) -> bool:
        """Whether another round can be paid for."""
        if self.affords >= 1 or not self._agent.charged:
            return True
        self._say(
            f"the budget ends the search: ${self._ledger.spent:.2f} of ${self._agent.max_cost_usd or 0.0:.2f} spent, a "
            f"round costs about ${self.expected:.2f}."
        )
        return False

    def _fruitless(self, number: int) -> bool:
        """Whether the last rounds all came to nothing."""
        archive = self._history.archive
        if number < FRUITLESS or any(entry.round >= number - FRUITLESS for entry in archive.written.values()):
            return False
        last = archive.failures[-1].problem if archive.failures else "nothing was written"
        if not archive.written:
            raise InputError(f"{number} rounds came to nothing, the last one so: {last}")
        self._say(f"{FRUITLESS} rounds in succession came to nothing, which ends the search; the last one so: {last}")
        return True

    def _converse(self, number: int) -> list[Written] | None:
        """One round: let the model work until it is done, or has used up its requests or the budget.

        None where nobody answers any more.
        """
        self._ledger.begin(number)
        desk = Desk(
            self._agent, self._ledger, self._judge, self._bench, self._history, number,
            seed=self._seed, clock=self._clock, say=self._say,
        )  # fmt: skip
        last: BetaMessage | None = None
        refused: Exception | None = None
        problem = ""
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Tool .* not found", UserWarning)  # the model is told
                runner = self._runner(number, desk)
                for last in runner:
                    # not before somebody has answered: a wrong key is told at once
                    self._bench.prepare(self._judge.part, self._judge.rungs[-1])
                    if last.stop_reason == "tool_use":
                        runner.generate_tool_call_response()
                    if desk.fault is not None:
                        raise desk.fault
            problem = _came_to(last, desk, self._agent)
        except BudgetReached as error:
            problem = "" if desk.candidates else f"the budget ended the round before a candidate passed: {error}"
        except Ended as error:
            if self._ledger.asked == 0:
                self._say(str(error))
                return None
            problem = _came_to(last, desk, self._agent)
        except anthropic.AnthropicError as error:
            refused = _refused(error, self._agent)
        if refused is not None:
            raise refused  # here, so that it does not carry what was being sent with it
        if problem:
            desk.failed(problem)
        self._ledger.write_transcript(number)
        return desk.candidates

    def _runner(self, number: int, desk: Desk) -> Any:
        """The conversation of a round, which sends its whole history each time: so it can be gone through again."""
        opening = self._ledger.opening(number) or prompts.opening(
            number, self._judge, self._reference, self._history.archive
        )
        if found := parents(self._judge, self._history.archive, number):
            self._say(f"round {number + 1} begins {_begins(found)}")
        more: dict[str, Any] = {} if self._agent.effort is None else {"output_config": {"effort": self._agent.effort}}
        return self._client.beta.messages.tool_runner(
            model=self._agent.model,
            max_tokens=self._agent.max_tokens,
            system=self._system,
            messages=[{"role": "user", "content": opening}],
            tools=desk.tools(),
            max_iterations=self._agent.calls,
            cache_control={"type": "ephemeral"},
            thread=False,
            **more,
        )


def _begins(found: Sequence[Parent]) -> str:
    known = "; ".join(f"{parent.name} {parent.why.partition(' (')[0]}" for parent in found)
    return f"from {first_of(found).name}, one of {len(found)} parents: {known}"


def _came_to(last: BetaMessage | None, desk: Desk, agent: Agent) -> str:
    """What went wrong in a conversation that ended by itself; "" if nothing did."""
    reason = None if last is None else last.stop_reason
    if reason == "refusal":
        return "the model refused to go on with the round."
    if reason == "max_tokens":
        return f"a reply was cut at {agent.max_tokens} tokens and its calls were not run; think and write less at once."
    if reason == "model_context_window_exceeded":
        return "the conversation grew too long for the model; read less in one round."
    if last is None or not last.content:
        return "the model answered with nothing."
    if not desk.candidates:
        return "the round ended without a candidate that passed."
    return ""


def _refused(error: anthropic.AnthropicError, agent: Agent) -> Exception:
    """An error of the API as one of ours: what came, and what to do."""
    kept = "What was paid for is kept: run the same command again to go on."
    if isinstance(error, anthropic.NotFoundError):
        return InputError(f"the API knows no model {agent.model!r} ({error.message}); name another by --model.")
    if isinstance(error, (anthropic.AuthenticationError, anthropic.PermissionDeniedError)):
        return InputError(
            f"the API does not take the key ({error.message}); set ANTHROPIC_API_KEY to one it takes. {kept}"
        )
    if isinstance(error, anthropic.APIStatusError):
        return ServerError(f"the API answered HTTP {error.status_code} ({error.message}). {kept}")
    return ServerError(f"the API cannot be reached ({error} {error.__cause__ or ''}). {kept}")
