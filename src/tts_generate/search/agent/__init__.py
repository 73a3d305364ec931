"""The agent proposer: a language model writes controllers, sees what became of them, and writes better ones.

It costs money, and keeps to a budget: see `ledger`. What it writes runs in the sandbox: see `search.written`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tts_generate.arguments import check_fields
from tts_generate.errors import InputError
from tts_generate.search.history import read_settings

MODEL = "claude-sonnet-5-5"
MOST_CALLS = 1000


@dataclass(frozen=True)
class Agent:
    """How the agent works, and what it may spend.

    Raises:
        InputError: a number that cannot be.
    """

    max_cost_usd: float | None = None
    """Of the whole search, sittings before counted; nothing is charged where a program or a file answers."""
    model: str = MODEL
    """As the Messages API names it."""
    program: str | None = None
    """A command that answers in the place of the API (`program`)."""
    conversation: Path | None = None
    """The folder of a search whose replies answer once more, without a key."""
    prices: Path | None = None
    """A price table instead of the one that ships."""
    effort: str | None = None
    """How much the model thinks, if it can be told: low, medium, high, xhigh or max."""
    max_tokens: int = 16_000
    """Of one reply, thinking included."""
    calls: int = 16
    """Requests of one round at most."""
    traces: bool = True
    """Whether it sees executions (off: an ablation of the paper)."""
    beta: bool = True
    """Whether it writes families over beta, or single controllers (off: an ablation of the paper)."""
    profile: Path | None = None
    """Of a device: candidates that were looked at closest are told their seconds on it, too."""
    retries: int = 8
    """Of a request that the API did not take, each after a longer pause or as long as it says."""

    def __post_init__(self) -> None:
        check_fields(self)
        if self.program is not None and not self.program.strip():
            raise InputError("--program is a command to run, got an empty one.")
        if self.max_cost_usd is None and self.charged:
            raise InputError("--proposer anthropic spends money: say how much it may spend by --max-cost-usd.")
        if self.max_cost_usd is not None and not 0 < self.max_cost_usd < float("inf"):
            raise InputError(f"--max-cost-usd must be a number above 0, got {self.max_cost_usd}.")
        for name, least, most in (("max_tokens", 1024, 32_000), ("calls", 1, MOST_CALLS), ("retries", 0, 100)):
            if not least <= getattr(self, name) <= most:
                option = name.replace("_", "-")
                raise InputError(f"--{option} must be from {least} to {most}, got {getattr(self, name)}.")
        efforts = ("low", "medium", "high", "xhigh", "max")
        if self.effort is not None and self.effort not in efforts:
            raise InputError(f"--effort is one of {', '.join(efforts)}, got {self.effort!r}.")

    @property
    def charged(self) -> bool:
        """Whether its replies cost money."""
        return self.program is None and self.conversation is None

    @property
    def proposer(self) -> str:
        """As `--proposer` names it."""
        return "anthropic" if self.program is None else "command"

    @classmethod
    def of(cls, run: Path) -> Agent:
        """The agent of the search in a folder, answered from what is on file there.

        Raises:
            InputError: no model wrote there.
        """
        told = read_settings(run)
        if "model" not in told:
            raise InputError(f"{run} holds no conversation: no model wrote there.")
        how: dict[str, Any] = {name: name not in told["without"] for name in ("traces", "beta")}
        program = told["model"] if told["proposer"] == "command" else None
        how["calls"] = MOST_CALLS  # as many as are on file, whatever they were allowed
        return cls(model=told["model"], effort=told["effort"], program=program, conversation=run, **how)
