"""Logits processors and stopping criteria as one branch has them, and what those of a user may do.

They are asked about the rows of a batch, and which branches those are changes from call to call. One that keeps
something from call to call says how by a method `for_branch()`, which returns the one for a new branch: that sees this
branch alone, (1, length) token ids, once a token. (`return self` says: it keeps nothing about a row.) Without that
method one that changes its own attributes when it is called is refused; what the first call makes may be for good.
"""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from tts_generate.engine.given import told
from tts_generate.engine.honoured import Place, Rule, rule_of
from tts_generate.errors import InputError, TTSError, UnsupportedError
from tts_generate.live.branch import Branch

_ITEMS = 1000
"""How many things that a user's object keeps are looked at; containers beyond that are known by their length."""


class Foreign:
    """A processor or criterion that is not transformers' own: called as it is, and watched.

    Args:
        thing: what the user gave, or what its `for_branch()` returned.
        watched: whether it must keep nothing from call to call.
    """

    def __init__(self, thing: Any, watched: bool = True) -> None:
        self.thing, self.name, self.watched = thing, type(thing).__name__, watched
        self.called = False
        try:
            inspect.signature(thing).bind(None, None)
        except ValueError:  # a callable of C, which does not say
            pass
        except TypeError:
            raise InputError(
                f"a logits processor or stopping criterion is called with (input_ids, scores), and {thing!r:.80} "
                "cannot be."
            ) from None

    def __call__(self, input_ids: Tensor, scores: Tensor | None) -> Any:
        """What it returns.

        Raises:
            UnsupportedError: the call has changed what it keeps.
        """
        before = _kept(self.thing) if self.watched else None
        found = self.thing(input_ids, scores)
        first, self.called = not self.called, True
        if self.watched and not first and _kept(self.thing) != before:
            raise UnsupportedError(
                f"{self.name} keeps something from call to call, and the branches it is asked about change: give it a "
                "method for_branch() that returns a new one for each branch, or itself if what it keeps is about no "
                "branch."
            )
        return found


class Own:
    """The processors, or criteria, of one call as each branch has them.

    Args:
        things: as transformers prepared them, those of users among them.
        place: of a prompt (1, length), what those that count are made for; nothing is padded if left out.
        first: tokens of a branch when they are asked about it first.

    Raises:
        UnsupportedError: one cannot be honoured.
        InputError: one is no processor or criterion.
    """

    def __init__(self, things: Sequence[Any], place: Callable[[Tensor], Place] | None = None, first: int = 0) -> None:
        self.place, self.first = place or (lambda prompt: Place(prompt, prompt.shape[1], 0, None, 0)), first
        ruled = [_ruled(thing) for thing in things]
        self.things, self.rules = [thing for thing, _ in ruled], [rule for _, rule in ruled]
        self._prompts: dict[int, list[Any]] = {}
        self._branches: WeakKeyDictionary[Branch, tuple[list[Any], int]] = WeakKeyDictionary()

    @property
    def scores_only(self) -> bool:
        """Whether all of them look at a row's scores and at nothing else."""
        return all(rule.scores_only for rule in self.rules)

    def of(self, branch: Branch, ids: Tensor) -> list[Any]:
        """Those of a branch with these ids (1, length); the same list for all that may be asked together.

        Raises:
            TTSError: some keep what they see, and would see a token twice.
        """
        prompt = ids[:, : len(branch.prompt_ids)]
        if not any(rule.fork for rule in self.rules):
            return self._of_prompt(branch, prompt)
        tokens = ids.shape[1] - prompt.shape[1]
        found, due = self._branches.get(branch, ([], self.first))
        if tokens == self.first:
            mine = zip(self._of_prompt(branch, prompt), self.rules, strict=True)
            found, due = [rule.fork(thing) if rule.fork else thing for thing, rule in mine], tokens
        if tokens != due:
            raise TTSError(
                "out of memory, a token would be drawn again, and a logits processor keeps what it has seen of it; "
                "pass a smaller max_rows."
            )
        self._branches[branch] = found, due + 1
        return found

    def _of_prompt(self, branch: Branch, prompt: Tensor) -> list[Any]:
        if not any(rule.make for rule in self.rules):
            return self.things
        question = branch.order[0]
        if question not in self._prompts:
            place = self.place(prompt)
            pairs = zip(self.things, self.rules, strict=True)
            made = [rule.make(thing, place) if rule.make else thing for thing, rule in pairs]
            self._prompts[question] = self.things if all(map(operator.is_, made, self.things)) else made
        return self._prompts[question]


def _ruled(thing: Any) -> tuple[Any, Rule]:
    """A processor or criterion as it is called, and how it is honoured."""
    rule = rule_of(thing)
    if rule is not None:
        return thing, rule
    if not hasattr(thing, "for_branch"):
        return Foreign(thing), Rule()
    forks = thing.for_branch() is not thing
    return Foreign(thing, watched=False), Rule(
        fork=(lambda foreign: Foreign(foreign.thing.for_branch(), watched=False)) if forks else None
    )


def shaped(processors: Sequence[Any], ids: Tensor, logits: Tensor) -> Tensor:
    """The scores (B, V) that processors leave of logits (B, V), for branches with token ids (B, length).

    Raises:
        InputError: one returned something else, or they leave nothing to draw from.
    """
    scores = logits
    for processor in processors:
        found = processor(ids, scores)
        if isinstance(processor, Foreign):
            fits = isinstance(found, Tensor) and found.shape == scores.shape and found.is_floating_point()
            if not fits:
                raise InputError(
                    f"{processor.name} must return scores of the shape {tuple(scores.shape)} that it was given, got "
                    f"{told(found)}."
                )
            found = found.to(logits)
        scores = found
    best = scores.amax(-1)
    if bool(((best.isnan() | best.isneginf()) & ~logits.isnan().any(-1)).any()):
        raise InputError(
            f"the logits processors leave no token to draw, or give NaN: {', '.join(map(_name, processors))}. Check "
            "what they forbid."
        )
    return scores


def met(criteria: Sequence[Any], ids: Tensor) -> bool:
    """Whether any criterion ends the branch with these token ids (1, length).

    Raises:
        InputError: one returned something else than one bool.
    """
    answers = [_answer(criterion, criterion(ids, None)) for criterion in criteria]  # all of them: some keep count
    return any(answers)


def _answer(criterion: Any, found: Any) -> bool:
    one = isinstance(found, (bool, np.bool_)) or (
        isinstance(found, Tensor) and found.dtype == torch.bool and tuple(found.shape) in ((), (1,))
    )
    if not one:
        raise InputError(
            f"{_name(criterion)} must return a bool tensor with one entry for each row of input_ids, here of shape "
            f"(1,), got {told(found)}."
        )
    return bool(found)


def _name(thing: Any) -> str:
    return thing.name if isinstance(thing, Foreign) else type(thing).__name__


def _kept(value: Any, depth: int = 6, room: list[int] | None = None) -> object:
    """Something that differs once what an object keeps has changed, as far as that can be seen from outside."""
    room = [_ITEMS] if room is None else room
    room[0] -= 1
    if value is None or isinstance(value, (bool, int, float, str, bytes)):
        return repr(value) if isinstance(value, float) else value
    if isinstance(value, Tensor):
        return id(value), None if value.is_inference() else value._version
    if isinstance(value, np.ndarray):
        return id(value), value.tobytes() if value.nbytes <= 4096 else None
    if isinstance(value, (list, tuple, set, frozenset, dict)):
        if not depth or len(value) > room[0] or isinstance(value, (set, frozenset)):
            return type(value), len(value)
        items = [*value, *value.values()] if isinstance(value, dict) else value
        return type(value), [_kept(item, depth - 1, room) for item in items]
    kept = getattr(value, "__dict__", None)
    looked = depth and kept is not None and not isinstance(value, (type, torch.nn.Module))
    if not looked or type(value).__module__.partition(".")[0] in ("torch", "transformers", "tokenizers", "builtins"):
        return id(value)
    return id(value), _kept(kept, depth - 1, room)
