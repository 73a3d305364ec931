"""Strict mode: a controller whose hooks run in the sandbox, a step at a time, on nothing but what was revealed.

To the runner it is a controller like any other, in replay and live; the episode, its rules and its costs stay in the
host. Answer ids are numbered anew in every episode, in the order in which they are revealed, so that they say nothing.
"""

from __future__ import annotations

import copy
import weakref
from collections.abc import Mapping
from typing import Any, Self

from tts_generate.controller import Controller, Knob
from tts_generate.errors import InputError
from tts_generate.search.sandbox.channel import Channel
from tts_generate.state import Decision, State
from tts_generate.votes import NO_ANSWER

_WHOLE = range(-(1 << 63), 1 << 63)


class StrictController(Controller):
    """A candidate as a controller; made by `Candidate.controller`.

    Not compiled, and no faster than its process answers: about a tenth of a millisecond a hook.
    """

    compiles = False
    home: object = None
    """What must live for as long as any copy of it."""

    _channel: Channel
    _given: Mapping[str, Knob]
    _told: Mapping[str, Knob]

    def __init__(self, channel: Channel, beta: float, given: Mapping[str, Knob], told: Mapping[str, Knob]) -> None:
        self.beta = beta
        self._channel = channel
        self._given = given
        self._told = told
        self._slots: list[int] = [0]  # the last one used, shared by all copies
        self._over: list[int] = []
        self._slot = [0]

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

    def for_episode(self, max_branches: int) -> Self:
        """A copy with an episode of its own in the candidate's process."""
        mine = copy.copy(self)
        mine._slot = [0]
        mine.memory(max_branches)
        weakref.finalize(mine, _end, self._over, mine._slot)
        return mine

    def memory(self, max_branches: int) -> None:
        """Another episode in the candidate's process; the one before it is over."""
        _end(self._over, self._slot)
        self._slots[0] += 1
        self._slot[0] = self._slots[0]
        self._seen = _Seen()

    _seen: _Seen

    def begin(self, state: State, do: Decision) -> None:
        """Ask the candidate."""
        shape = [int(n) for n in (state.max_branches, state.max_depth, state.interval_tokens, state.max_probe_tokens)]
        self._hook("begin", state, do, {"shape": shape, "beta": self.beta, "knobs": dict(self._given)})

    def plan(self, state: State, do: Decision) -> None:
        """Ask the candidate."""
        self._hook("plan", state, do, {})

    def review(self, state: State, do: Decision) -> None:
        """Ask the candidate."""
        self._hook("review", state, do, {})

    def answer(self, state: State) -> int:
        """Ask the candidate."""
        return self._seen.real(self._channel, self._ask("answer", state, {}).get("answer"))

    def _ask(self, hook: str, state: State, more: Mapping[str, Any]) -> dict[str, Any]:
        over = [self._over.pop() for _ in range(len(self._over))]
        seen = self._seen.since(state)
        reply, _ = self._channel.ask("hook", {"hook": hook, "slot": self._slot[0], "over": over, "seen": seen, **more})
        return dict(reply)

    def _hook(self, hook: str, state: State, do: Decision, more: Mapping[str, Any]) -> None:
        """Carry over what the candidate decides, once every part of it is what it must be."""
        refuse = self._channel.refuse
        did = self._ask(hook, state, more).get("did")
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
        for name in ("prune", "probe"):
            chosen = did[name]
            if type(chosen) is not list or not all(_is_whole(i) and 0 <= i < opened for i in chosen):
                refuse(f"{hook} decided {name}={chosen!r:.80}, numbers of the {opened} opened branches are expected")
        do.open, do.open_steps, do.stop = did["open"], did["open_steps"], did["stop"]
        do.answer = self._seen.real(self._channel, did["answer"])
        do.steps[:opened] = steps
        do.prune[did["prune"]] = True
        do.probe[did["probe"]] = True


def _end(over: list[int], slot: list[int]) -> None:
    """Let the candidate's process forget an episode, if one was begun."""
    if slot[0]:
        over.append(slot[0])


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
