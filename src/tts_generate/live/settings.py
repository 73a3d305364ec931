"""What one call is asked for, checked once: numbers of its episodes, and texts that end a branch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tts_generate.arguments import fits, whole
from tts_generate.errors import InputError

INTERVAL_TOKENS = 500
"""Tokens of one step, where nothing else is said and branches may be long: the paper's."""
_STEPS = 8
"""Steps of a branch at least, where nothing is said of their length."""
MAX_BRANCHES = 128
"""Branches of one question at most, where nothing else is said."""
_MOST_BRANCHES, _MOST_STEPS = 100_000, 1 << 24
"""Of one question, and of all its branches together: what a controller sees of each is allocated beforehand."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodeSettings:
    """Numbers of a call that shape its episodes, wherever branches are decoded; in tokens unless named otherwise."""

    seed: int | None
    """None at servers that are sent none."""
    interval_tokens: int = INTERVAL_TOKENS
    """Tokens of one step."""
    max_new_tokens: int
    """Tokens of a branch at most."""
    max_branches: int = MAX_BRANCHES
    """Branches of one question at most."""
    probe_every_step: bool = False
    """Probe at every step whatever the controller reads: what a recording does."""

    def __post_init__(self) -> None:
        for name in ("interval_tokens", "max_new_tokens", "max_branches"):
            object.__setattr__(self, name, whole(name, getattr(self, name)))
        if self.seed is not None:
            object.__setattr__(self, "seed", whole("seed", self.seed, -(1 << 63)))
            if self.seed >= 1 << 63:
                raise InputError(f"seed must be a whole number of 64 bits, from -2^63 to 2^63 - 1, got {self.seed}.")
        if self.max_branches > _MOST_BRANCHES:
            raise InputError(f"max_branches must be {_MOST_BRANCHES:,} at most, got {self.max_branches}.")
        if self.max_new_tokens < self.interval_tokens:
            raise InputError(
                f"max_new_tokens={self.max_new_tokens} is less than one step of interval_tokens="
                f"{self.interval_tokens}: a controller would never decide anything. Raise max_new_tokens or pass a "
                "smaller interval_tokens."
            )
        steps = -(-self.max_new_tokens // self.interval_tokens)
        if self.max_branches * steps > _MOST_STEPS:
            raise InputError(
                f"max_new_tokens={self.max_new_tokens} of {self.max_branches} branches are {steps:,} steps each of "
                f"interval_tokens={self.interval_tokens}, and a question has room for {_MOST_STEPS:,} in all: pass "
                "fewer max_new_tokens, a smaller max_branches, or a larger interval_tokens."
            )


def interval_for(max_new_tokens: int) -> int:
    """Tokens of one step, where nothing is said: 500 for branches of 4,000 tokens or more, else an eighth of them.

    >>> interval_for(32_000), interval_for(4000), interval_for(200), interval_for(5)
    (500, 500, 25, 1)
    """
    return min(INTERVAL_TOKENS, -(-max_new_tokens // _STEPS))


def advice_on_room(tokens: int) -> str:
    """What to do where a context leaves so many tokens for an answer.

    >>> advice_on_room(12), advice_on_room(-3)
    ('Shorten the prompt or pass max_new_tokens=12 or less', 'Shorten the prompt')
    """
    return f"Shorten the prompt or pass max_new_tokens={tokens} or less" if tokens > 0 else "Shorten the prompt"


def stop_texts(strings: Any) -> list[str]:
    """Stop strings as a list.

    Raises:
        InputError: one is empty, or no text.
    """
    texts = [strings] if isinstance(strings, str) else strings if strings is not None else []
    if not fits(texts, Sequence[str]) or "" in texts:
        raise InputError(f"stop_strings must be texts of one character or more, got {strings!r:.80}.")
    return list(texts)
