"""Strict mode: a controller whose hooks run in the sandbox, a step at a time, on nothing but what was revealed.

To the runner it is a controller like any other, in replay and live; the episode, its rules and its costs stay in the
host. Answer ids are numbered anew in every episode, in the order in which they are revealed, so that they say nothing.
"""

from __future__ import annotations

import copy
import weakref
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from tts_generate.controller import Controller, Knob
from tts_generate.errors import CandidateError, InputError
from tts_generate.recorded.recording import Recording
from tts_generate.sandbox.channel import Channel, clean
from tts_generate.sandbox.together import MOST_OWN
from tts_generate.state import Decision, State
from tts_generate.votes import NO_ANSWER

if TYPE_CHECKING:
    from tts_generate.sandbox.candidate import Candidate

_WHOLE = range(-(1 << 63), 1 << 63)


class StrictController(Controller):
    """A candidate as a controller; made by `Candidate.controller`.

    Every episode has a process of its own, which has run no other: nothing can be remembered from one to the next.
    """

    compiles = False
    home: object = None
    """What must live for as long as any copy of it."""

    own: dict[int, dict[str, float]] | None = None
    """Give a dictionary to have it filled with what the candidate remembers after each round, numbers only."""

    _told: Mapping[str, Knob]

    def __init__(self, candidate: Candidate, beta: float, given: Mapping[str, Knob], told: Mapping[str, Knob]) -> None:
        self.beta = beta
        self._candidate = candidate
        self.given = given
        self._told = told
        self._mine: list[Candidate] = []

    @property
    def knobs(self) -> dict[str, Knob]:
        """Name and value of every knob, as the candidate says."""
        return dict(self._told)

    @classmethod
    def from_beta(cls, beta: float = 0.5, **knobs: Any) -> Self:
        """Refused: a sandboxed controller is made by its candidate.

        Raises:
            InputError: always.
        """
        raise InputError(f"{cls.__name__} runs in a sandbox; make it at another budget by Candidate.controller.")

    def with_knobs(self, **knobs: Knob) -> Self:
        """The same candidate with other knobs by hand; those that it has by hand stay.

        Raises:
            CandidateError: it has no such knob.
        """
        made: Any = self._candidate.controller(beta=float(self.beta or 0.0), **{**self.given, **knobs})
        made.home = self.home
        return made  # type: ignore[no-any-return]

    def replayed(
        self, recording: Recording, shuffles: int, first_shuffle: int, threads: int | None
    ) -> NDArray[np.int64]:
        """The columns of a replay (`recorded.run.RunsElsewhere`), many episodes at once."""
        return self._candidate.columns([recording], self, shuffles, first_shuffle, threads)[0]

    def for_episode(self, max_branches: int) -> Self:
        """A copy with an episode, and a process, of its own."""
        mine = copy.copy(self)
        mine._mine = []
        mine.memory(max_branches)
        weakref.finalize(mine, self._candidate.over.extend, mine._mine)
        return mine

    def memory(self, max_branches: int) -> None:
        """Another episode; the process of the one before it ends."""
        self._end()
        self._seen = _Seen()

    def _end(self) -> None:
        while self._mine:
            self._mine.pop().close()

    @property
    def _channel(self) -> Channel:
        if not self._mine:
            raise CandidateError("ended", "this episode is over, and its process has ended.")
        return self._mine[0].channel

    _seen: _Seen

    def begin(self, state: State, do: Decision) -> None:
        """Ask the candidate."""
        self._mine.append(self._candidate.fresh())
        shape = [int(n) for n in (state.max_branches, state.max_depth, state.interval_tokens, state.max_probe_tokens)]
        self._hook("begin", state, do, {"shape": shape, "beta": self.beta, "knobs": dict(self.given)})

    def plan(self, state: State, do: Decision) -> None:
        """Ask the candidate."""
        self._hook("plan", state, do, {})

    def review(self, state: State, do: Decision) -> None:
        """Ask the candidate."""
        self._hook("review", state, do, {})

    def answer(self, state: State) -> int:
        """Ask the candidate."""
        told = self._seen.real(self._channel, self._ask("answer", state, {}).get("answer"))
        self._end()
        return told

    def _ask(self, hook: str, state: State, more: Mapping[str, Any]) -> dict[str, Any]:
        if self.own is None or hook == "answer":
            return dict(self._channel.ask("hook", {"hook": hook, "seen": self._seen.since(state), **more})[0])
        reply, _ = self._channel.ask("hook", {"hook": hook, "seen": self._seen.since(state), "own": True, **more})
        self.own[int(state.round)] = self._numbers(reply.get("own"))
        return dict(reply)

    def _hook(self, hook: str, state: State, do: Decision, more: Mapping[str, Any]) -> None:
        """Carry over what the candidate decides, once every part of it is what it must be."""
        refuse = self._channel.refuse
        reply = self._ask(hook, state, more)
        if hook == "begin":
            same_knobs(reply.get("knobs"), self._told)
        did = reply.get("did")
        if type(did) is not dict or set(did) != {"open", "open_steps", "stop", "answer", "steps", "prune", "probe"}:
            refuse(f"{hook} decided {did!r:.200}, no decision")
        steps, opened = did["steps"], int(state.opened)
        for name in ("open", "open_steps"):
            if not _is_whole(did[name]):
                refuse(f"{hook} decided {name}={did[name]!r:.80}, a whole number is expected")
        if type(did["stop"]) is not bool:
            refuse(f"{hook} decided stop={did['stop']!r:.80}, true or false is expected")
        if type(steps) is not list or len(steps) != opened or not all(map(_is_whole, steps)):
            refuse(f"{hook} decided steps that are not {opened} whole numbers")
        for name, most in (("prune", opened), ("probe", int(state.max_branches))):
            chosen = did[name]
            if type(chosen) is not list or not all(_is_whole(i) and 0 <= i < most for i in chosen):
                refuse(f"{hook} decided {name}={chosen!r:.80}, numbers of {most} branches are expected")
        do.open, do.open_steps, do.stop = did["open"], did["open_steps"], did["stop"]
        do.answer = self._seen.real(self._channel, did["answer"])
        do.steps[:opened] = steps
        do.prune[did["prune"]] = True
        do.probe[did["probe"]] = True
        if do.stop and do.answer != NO_ANSWER:
            self._end()

    def _numbers(self, told: object) -> dict[str, float]:
        """What a candidate says that it remembers."""
        if type(told) is not dict or len(told) > MOST_OWN:
            self._channel.refuse("numbers of its own that are no few")
        for name, value in told.items():
            if not (name.isidentifier() and len(name) <= 40 and type(value) in (int, float) and abs(value) < 1e18):
                self._channel.refuse(f"{name!r:.40} of its own, which is no number")
        return told


def same_knobs(here: object, there: Mapping[str, Knob]) -> None:
    """Refuse a candidate that is another one in each process.

    Raises:
        CandidateError: its knobs differ.
    """
    if here != there:
        raise CandidateError(
            "different",
            f"its knobs are {clean(repr(here))[:200]} in one process and {dict(there)!r:.200} in another, at one "
            "budget.",
        )


def _is_whole(value: object) -> bool:
    return type(value) is int and value in _WHOLE


class _Seen:
    """What one episode's candidate has been shown, and the ids by which it knows answers."""

    def __init__(self) -> None:
        self.ids: dict[int, int] = {NO_ANSWER: NO_ANSWER}
        self.order: list[int] = []
        self.depth: list[int] = []
        self.pruned: list[bool] = []
        self.pooled = 0

    def shown(self, answer: int) -> int:
        """The episode's id of an answer; a new one at first sight."""
        if answer not in self.ids:
            self.ids[answer] = len(self.order)
            self.order.append(answer)
        return self.ids[answer]

    def real(self, channel: Channel, answer: object) -> int:
        """The runner's id of what a candidate calls `answer`."""
        if type(answer) is not int or not NO_ANSWER <= answer < len(self.order):
            channel.fail("decision", f"the candidate answered {answer!r:.80}, an id that no branch has shown.")
        return NO_ANSWER if answer == NO_ANSWER else self.order[answer]

    def since(self, state: State) -> dict[str, Any]:
        """What is new in `state` since it was last shown, as plain numbers."""
        opened, pooled = int(state.opened), int(state.pooled)
        fresh = range(len(self.depth), opened)
        self.depth += [0] * len(fresh)
        self.pruned += [False] * len(fresh)
        depths, pruned = state.depth[:opened].tolist(), state.pruned[:opened].tolist()
        changed = [i for i in range(opened) if depths[i] != self.depth[i] or pruned[i] != self.pruned[i] or i in fresh]
        rows = [self._row(state, i, self.depth[i]) for i in changed]
        self.depth, self.pruned = depths, pruned
        pool = [self.shown(answer) for answer in state.pool[self.pooled : pooled].tolist()]
        self.pooled = pooled
        scalars = [
            pooled, self.shown(int(state.leader)), state.leader_votes, state.runner_up_votes, opened, state.live,
            state.round, state.generated_tokens, state.probe_tokens, state.sequential_tokens,
        ]  # fmt: skip
        return {"scalars": [int(value) for value in scalars], "rows": rows, "pool": pool}

    def _row(self, state: State, i: int, start: int) -> list[Any]:
        depth = int(state.depth[i])
        answers = [self.shown(answer) for answer in state.answers[i, start:depth].tolist()]
        logprobs = [None if value != value else value for value in state.logprobs[i, start:depth].tolist()]
        return [
            i, self.shown(int(state.answer[i])), depth, int(state.tokens[i]), bool(state.finished[i]),
            bool(state.pruned[i]), int(state.finish_rank[i]), start, answers,
            logprobs if any(value is not None for value in logprobs) else None,
        ]  # fmt: skip
