"""Branch processors: limits chained around any controller, as logits processors are around a model's scores."""

from __future__ import annotations

from collections.abc import Iterable

from tts_generate.errors import InputError
from tts_generate.state import Decision, State


class BranchProcessor:
    """Sees each decision of a controller last, and may tighten it; one object may serve many episodes at once."""

    def __call__(self, state: State, do: Decision) -> None:
        """Tighten `do` in place; called after `begin`, `plan` and `review`."""
        raise NotImplementedError

    def begin(self, question_id: str) -> BranchProcessor:
        """The processor that serves this question, called once when a call begins: itself, or a fresh one."""
        return self

    def expired(self) -> bool:
        """Whether the question must end now, with the majority so far; asked while its branches are decoded."""
        return False


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

    def __call__(self, state: State, do: Decision) -> None:
        """Let every processor tighten `do`, the first one first."""
        for processor in self:
            processor(state, do)

    def begin(self, question_id: str) -> BranchProcessorList:
        """The processors that serve this question."""
        return BranchProcessorList(processor.begin(question_id) for processor in self)

    def expired(self) -> bool:
        """Whether any of them says that the question must end."""
        return any(processor.expired() for processor in self)


class MaxBranches(BranchProcessor):
    """Never lets an episode open more than `max_branches` branches."""

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
    none fits the episode answers with what it has. A branch read to its end is read as far as the budget goes.
    """

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
        do.open = min(do.open, spare)
        if do.open > 0 and do.open * do.open_steps > spare:
            do.open_steps = spare // do.open

    def __repr__(self) -> str:
        return f"TokenBudget({self.max_tokens})"
