"""What one call of the engine is asked for, checked once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypedDict

from tts_generate.answers import AnswerOptions
from tts_generate.arguments import fits, whole
from tts_generate.errors import InputError
from tts_generate.live.settings import EpisodeSettings
from tts_generate.loading import ControllerOptions
from tts_generate.profile import Profile

MAX_ROWS = 256
"""Branches decoded in one forward pass at most, where nothing else is said."""


class DecodingOptions(TypedDict, total=False):
    """How branches are decoded, see `Settings`."""

    max_rows: int
    max_branches: int
    max_cache_bytes: int | None
    decode_ahead: bool
    ahead_rows: int | Literal["auto"]
    sync_every: int | None
    profile: Profile | str | Path | None


class AutoTTSOptions(ControllerOptions, AnswerOptions, DecodingOptions, total=False):
    """Arguments of `AutoTTS` by kind: who decides, how the model is asked, how its branches are decoded."""

    interval_tokens: int | None
    self_check: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings(EpisodeSettings):
    """Numbers of one run of the engine, in tokens unless named otherwise."""

    eos_token_ids: tuple[int, ...]
    pad_token_id: int
    max_rows: int = MAX_ROWS
    """Branches decoded in one forward pass at most."""
    max_cache_bytes: int | None = None
    """Memory of the key-value cache at most; None: a share of what is free."""
    decode_ahead: bool = True
    """Whether a branch decodes on while its probe is under way."""
    ahead_rows: int | Literal["auto"] = "auto"
    """Rows up to which those that would be idle decode what no controller has asked for yet; "auto": those that are
    free by the profile; without one it becomes 0."""
    profile: Profile | None = None
    """Of the device."""
    sync_every: int = 1
    """Passes in a row before the host looks at what they drew; what came after a branch's end is discarded."""
    static: bool = False
    """Whether passes run in a few fixed shapes (`cache_implementation="static"`)."""

    def __post_init__(self) -> None:
        EpisodeSettings.__post_init__(self)  # a class with slots is not the one that `super()` knows
        for name in ("max_rows", "sync_every", *(["max_cache_bytes"] if self.max_cache_bytes is not None else [])):
            object.__setattr__(self, name, whole(name, getattr(self, name)))
        if self.ahead_rows != "auto" and (not fits(self.ahead_rows, int) or self.ahead_rows < 0):
            raise InputError(f"ahead_rows must be a whole number, 0 for none, or 'auto', got {self.ahead_rows!r}.")
        if self.ahead_rows == "auto" and self.profile is None:
            object.__setattr__(self, "ahead_rows", 0)
