"""Branch processors: limits chained around any controller, as logits processors are around a model's scores."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import ClassVar

from tts_generate.arguments import checked
from tts_generate.errors import InputError
from tts_generate.state import Decision, State


class BranchProcessor:
    """Sees each decision of a controller last, and may tighten it; one object may serve many episodes at once."""

    reads_logprobs: ClassVar[bool] = True
    """Whether it may read `State.logprobs`, which servers are then asked for."""

    def begin(self, question_id: str) -> BranchProcessor:
        """The processor of one question, asked for when a call begins; itself, unless it keeps something a question."""
        return self

    def expired(self) -> bool:
        """Whether the question must end now, decided or not; asked between the forward passes of a live run."""
        return False

    def __call__(self, state: State, do: Decision) -> None:
        """Tighten `do` in place; called after `begin`, `plan` and `review`."""
        raise NotImplementedError


class BranchProcessorList(list[BranchProcessor]):
    """Applies its processors in order.

    >>> BranchProcessorList([MaxBranches(8), TokenBudget(20_000)])
    [MaxBranches(8), TokenBudget(20000)]
    """

    def __init__(self, processors: Iterable[BranchProcessor] = ()) -> None:
        super().__init__(processors)
        for processor in self:
            if not isinstance(processor, BranchProcessor):
                raise InputError(
                    f"a BranchProcessorList holds BranchProcessor objects, got {type(processor).__name__}."
                )

    def begin(self, question_id: str) -> BranchProcessorList:
        """The processors of one question, as a call begins."""
        return BranchProcessorList([processor.begin(question_id) for processor in self])

    def expired(self) -> bool:
        """Whether any of them says that the question must end now."""
        return any(processor.expired() for processor in self)

    def __call__(self, state: State, do: Decision) -> None:
        """Let every processor tighten `do`, the first one first."""
        for processor in self:
            processor(state, do)


class MaxBranches(BranchProcessor):
    """Never lets an episode open more than `max_branches` branches."""

    reads_logprobs = False

    @checked
    def __init__(self, max_branches: int) -> None:
        if max_branches < 1:
            raise InputError(f"MaxBranches needs at least 1 branch, got {max_branches}.")
        self.max_branches = max_branches

    def __call__(self, state: State, do: Decision) -> None:
        """Cut `do.open` to what is left."""
        do.open = max(0, min(do.open, self.max_branches - state.opened))

    def __repr__(self) -> str:
        return f"MaxBranches({self.max_branches})"


class TokenBudget(BranchProcessor):
    """Never lets an episode spend more than `max_tokens` generated and probe tokens.

    Steps are allowed while a whole one still fits, with its probe, in the order in which branches were opened; when
    none fits the episode answers with what it has. Of branches to be opened there are rather fewer than shorter ones:
    as many as can all come as far as they are to be read, or one that is read as far as the budget goes.
    """

    reads_logprobs = False

    @checked
    def __init__(self, max_tokens: int) -> None:
        if max_tokens < 1:
            raise InputError(f"TokenBudget needs at least 1 token, got {max_tokens}.")
        self.max_tokens = max_tokens

    def __call__(self, state: State, do: Decision) -> None:
        """Cut steps and openings to the steps that still fit; stop when nothing does."""
        if do.stop:
            return
        left = self.max_tokens - state.generated_tokens - state.probe_tokens
        spare = max(0, left // (state.interval_tokens + state.max_probe_tokens))
        if spare == 0 and state.opened == 0:
            raise InputError(
                f"{self!r} does not cover one step: {state.interval_tokens} tokens and up to "
                f"{state.max_probe_tokens} of its probe. Raise max_tokens or lower interval_tokens."
            )
        if spare == 0:
            do.open = 0
            do.stop = True
            return
        for i in range(state.opened):
            if not (state.finished[i] or state.pruned[i] or do.prune[i]):
                do.steps[i] = min(do.steps[i], spare)
                spare -= do.steps[i]
        whole = spare // max(1, min(do.open_steps, state.max_depth))
        do.open = min(do.open, max(whole, min(1, spare)))
        if do.open > 0 and do.open * do.open_steps > spare:
            do.open_steps = spare // do.open

    def __repr__(self) -> str:
        return f"TokenBudget({self.max_tokens})"


class Deadline(BranchProcessor):
    """Ends every question of a call `seconds` after the call began, with the majority so far.

    It is wall-clock time, polled between forward passes, so a live run is late by one pass at most; without any answer
    so far, by those of a probe: branches are asked where they stand. A question that ends so has `finish_reason`
    "deadline". Replay has no clock and refuses it.

    >>> Deadline(2.5)
    Deadline(2.5)
    """

    reads_logprobs = False

    @checked
    def __init__(self, seconds: float) -> None:
        if not seconds > 0:
            raise InputError(f"Deadline needs more than 0 seconds, got {seconds}.")
        self.seconds = seconds
        self.ends: float | None = None

    def begin(self, question_id: str) -> Deadline:
        """One whose time runs from now."""
        started = Deadline(self.seconds)
        started.ends = time.monotonic() + self.seconds
        return started

    def expired(self) -> bool:
        """Whether the time is over."""
        return self.ends is not None and time.monotonic() >= self.ends

    def __call__(self, state: State, do: Decision) -> None:
        """Stop once the time is over.

        Raises:
            InputError: where no clock runs, that is in replay.
        """
        if self.ends is None:
            raise InputError(f"{self!r} is about a live run; a replay takes no time. Leave it out, or use TokenBudget.")
        if self.expired():
            do.open = 0
            do.stop = True

    def __repr__(self) -> str:
        return f"Deadline({self.seconds})"


class OnRound(BranchProcessor):
    """Calls `callback(question_id, state)` at every decision on a question, as progress bars do; changes nothing.

    Args:
        callback: given the question's id (in `generate`: its number in the call, as text) and its `State`, which it may
            read: `state.round`, `state.opened`, `state.generated_tokens`, … What it raises ends the question with the
            majority so far, as an error of a controller does, and `KeyboardInterrupt` ends the call.
    """

    def __init__(self, callback: Callable[[str, State], None], question_id: str = "") -> None:
        if not callable(callback):
            raise InputError(f"OnRound takes a function of (question_id, state), got {callback!r}.")
        self.callback, self.question_id = callback, question_id

    def begin(self, question_id: str) -> OnRound:
        """One that knows its question."""
        return OnRound(self.callback, question_id)

    def __call__(self, state: State, do: Decision) -> None:
        """Tell the callback."""
        self.callback(self.question_id, state)

    def __repr__(self) -> str:
        return f"OnRound({self.callback!r})"
