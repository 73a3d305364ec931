"""What one call of the engine is asked for, checked once."""

from __future__ import annotations

from dataclasses import dataclass

from tts_generate.answers import AnswerFormat
from tts_generate.arguments import fits
from tts_generate.errors import InputError

_MOST_BRANCHES = 100_000
"""Of one question: what a controller sees of each is allocated beforehand."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Numbers of one run, in tokens unless named otherwise."""

    seed: int
    interval_tokens: int
    """Tokens of one step."""
    max_new_tokens: int
    """Tokens of a branch at most."""
    eos_token_ids: tuple[int, ...]
    pad_token_id: int
    max_rows: int = 256
    """Branches decoded in one forward pass at most."""
    max_branches: int = 128
    """Branches of one question at most."""
    probe_every_step: bool = False
    """Probe at every step whatever the controller reads: what a recording does."""
    max_cache_bytes: int | None = None
    """Memory of the key-value cache at most; None: a share of what is free."""
    decode_ahead: bool = True
    """Whether a branch decodes on while its probe is under way."""
    ahead_rows: int = 0
    """Rows up to which those that would be idle decode what no controller has asked for yet."""
    sync_every: int = 1
    """Passes in a row before the host looks at what they drew; what came after a branch's end is discarded."""

    static: bool = False
    """Whether passes run in a few fixed shapes (`cache_implementation="static"`)."""

    def __post_init__(self) -> None:
        for name in ("interval_tokens", "max_new_tokens", "max_rows", "max_branches", "sync_every", "max_cache_bytes"):
            value = getattr(self, name)
            if name == "max_cache_bytes" and value is None:
                continue
            if not fits(value, int) or value < 1:
                raise InputError(f"{name} must be a whole number of at least 1, got {value!r}.")
            object.__setattr__(self, name, int(value))  # also of numpy's
        if not fits(self.ahead_rows, int) or self.ahead_rows < 0:
            raise InputError(f"ahead_rows must be a whole number, 0 for none, got {self.ahead_rows!r}.")
        if self.max_branches > _MOST_BRANCHES:
            raise InputError(f"max_branches must be {_MOST_BRANCHES:,} at most, got {self.max_branches}.")
        if self.max_new_tokens < self.interval_tokens:
            raise InputError(
                f"max_new_tokens={self.max_new_tokens} is less than one step of interval_tokens="
                f"{self.interval_tokens}: a controller would never decide anything. Raise max_new_tokens or pass a "
                "smaller interval_tokens."
            )


@dataclass(frozen=True, slots=True)
class Probing:
    """How a model is asked for its answer, with the budget of one probe."""

    format: AnswerFormat
    max_probe_tokens: int = 20
    """Tokens of a probed answer at most, the forced suffix not counted."""

    def __post_init__(self) -> None:
        if not fits(self.max_probe_tokens, int) or self.max_probe_tokens < 1:
            raise InputError(f"max_probe_tokens must be a whole number of at least 1, got {self.max_probe_tokens!r}.")
