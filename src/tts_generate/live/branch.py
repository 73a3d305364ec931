"""One branch as it is decoded, its probes, and what is written down of both."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tts_generate.trajectories import Trajectory

LEAST_LIKELY = -1e30
"""The least that a log-probability may be, so that means of them fit any float: what the model rules out has it."""


def branch_key(seed: int | None, prompt: Sequence[int], branch: int) -> int:
    """The int64 key of a branch's randomness; its prompt's ids stand for the question, or the bytes of its text."""
    text = f"{seed}|{branch}|{','.join(map(str, prompt))}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little", signed=True)


@dataclass(frozen=True, slots=True)
class ProbeRecord:
    """An intermediate answer: after how many tokens, what was said, what it took, how sure the model was."""

    position: int
    answer: str | None
    tokens: int
    logprob: float | None
    ids: tuple[int, ...] = ()

    @property
    def fed(self) -> int:
        """Tokens of it that the model was fed: its last one never is."""
        return max(0, self.tokens - 1)


@dataclass(slots=True, eq=False, weakref_slot=True)
class Branch:
    """Tokens and probes of one branch; `number` names it in the recording and keys its randomness."""

    number: int
    key: int
    prompt_ids: Sequence[int]
    order: tuple[int, int] = (0, 0)
    """Its question's place in the call, and its own in the order of opening."""
    thought: str = ""
    """What its prompt has said for it: the end of its thinking, or nothing."""
    ids: list[int] = field(default_factory=list)
    """Tokens decoded; what is drawn while a probe is under way is not among them."""
    read: int = 0
    """Tokens that were asked for; those behind them were decoded ahead of a decision."""
    finish_reason: str | None = None
    final_answer: str | None = None
    probes: list[ProbeRecord] = field(default_factory=list)
    """Those that were asked for."""
    heard: list[ProbeRecord] = field(default_factory=list)
    """Those that nobody has asked for yet."""
    asking: bool = False
    """Whether it has come to its limit, and is being asked for its answer there."""
    step_logprobs: list[float] = field(default_factory=list)
    open_logprob: float = 0.0
    """Sum of log-probabilities of the step in progress."""

    @property
    def prompt_columns(self) -> int:
        """Columns that the prompt takes before the branch."""
        return len(self.prompt_ids)

    @property
    def finished(self) -> bool:
        """Whether the branch has come to its end."""
        return self.finish_reason is not None

    @property
    def cut(self) -> bool:
        """Whether it came to its end because it ran into the limit of its length."""
        return self.finish_reason == "length"

    def ends_with(self, probe: ProbeRecord) -> bool:
        """Whether a probe asked for the answer at the end of the branch, which had come to its limit without one."""
        return self.finished and probe.position == len(self.ids)

    @property
    def forced(self) -> bool:
        """Whether it was asked for its answer at its end."""
        return any(map(self.ends_with, self.probes[-1:]))

    @property
    def asked_here(self) -> bool:
        """Whether it was asked for its answer behind all of its tokens."""
        return any(probe.position == len(self.ids) for probe in self.probes[-1:])

    def has(self, target: int, probe: bool) -> bool:
        """Whether `target` tokens have been decoded, or the branch has ended before; and been probed there if so.

        One that is being asked at its end has all that comes before it.
        """
        if self.asking and target >= len(self.ids):
            return False
        if self.finished and len(self.ids) <= target:
            return True
        return len(self.ids) >= target and (not probe or any(record.position == target for record in self.heard))

    def ask(self, target: int, probes: Callable[[ProbeRecord], bool]) -> tuple[list[ProbeRecord], int]:
        """Count what was decoded up to `target` tokens.

        Args:
            target: tokens of the branch; its end may come before.
            probes: which of the probes up to there were asked for.

        Returns:
            Those probes, and the tokens that were fed for the others, which are forgotten.
        """
        self.read = min(target, len(self.ids))
        due = [record for record in self.heard if record.position <= self.read]
        self.heard = self.heard[len(due) :]
        asked = [record for record in due if probes(record)]
        self.probes += asked
        return asked, sum(record.fed for record in due) - sum(record.fed for record in asked)

    def forget_unread(self, interval_tokens: int) -> int:
        """Drop what nobody has asked for; how many tokens were fed for it."""
        tokens = len(self.ids) - self.read + sum(record.fed for record in self.heard)
        if self.read < len(self.ids):
            tokens -= self.finished or self.asking  # its last token was drawn only
            del self.ids[self.read :], self.step_logprobs[self.read // interval_tokens :]
            self.finish_reason = self.final_answer = None
        self.heard.clear()
        return tokens

    def take(self, tokens: Sequence[int], logprobs: Sequence[float], interval_tokens: int) -> None:
        """Append tokens, closing a step at every multiple of `interval_tokens`."""
        start = 0
        while start < len(tokens):
            stop = min(len(tokens), start + interval_tokens - len(self.ids) % interval_tokens)
            self.ids.extend(tokens[start:stop])
            self.open_logprob += sum(logprobs[start:stop])
            if len(self.ids) % interval_tokens == 0:
                self.close_step(interval_tokens)
            start = stop

    def close_step(self, interval_tokens: int) -> None:
        """Note the mean log-probability of the step in progress, if it has any token."""
        length = len(self.ids) - interval_tokens * len(self.step_logprobs)
        if length > 0:
            self.step_logprobs.append(self.open_logprob / length)
            self.open_logprob = 0.0

    def depth(self, interval_tokens: int) -> int:
        """Steps asked for, the last one perhaps short."""
        return -(-self.read // interval_tokens)

    def trajectory(self, question_id: str, seed: int | None, prompt_tokens: int, with_ids: bool = True) -> Trajectory:
        """The branch as a row of a trajectory store."""
        return Trajectory(
            question_id=question_id,
            branch=self.number,
            seed=seed,
            prompt_tokens=prompt_tokens,
            tokens=len(self.ids),
            finish_reason=self.finish_reason,
            final_answer=self.final_answer,
            probe_positions=tuple(probe.position for probe in self.probes),
            probe_answers=tuple(probe.answer for probe in self.probes),
            probe_tokens=tuple(probe.tokens for probe in self.probes),
            probe_logprobs=tuple(probe.logprob for probe in self.probes),
            step_logprobs=tuple(self.step_logprobs),
            token_ids=tuple(self.ids) if with_ids else None,
        )


@dataclass(slots=True)
class Probe:
    """A probe under way: forced tokens, then a greedy answer, then forgotten.

    Its tokens stand in the branch's own row behind a hole of columns, while the branch goes on; neither sees the other.
    """

    position: int
    """Tokens of the branch it asks about."""
    forced: list[int]
    text: str
    """What the branch has said after its thinking ended; "" while it thinks."""
    base: int
    """Columns that it reads before its own."""
    again: int | None = None
    """The branch's last token, fed before what is forced: again where that is nothing, for the answer begins with what
    follows the token; for the first time where it is the branch's end."""
    at_end: bool = False
    """Whether it asks at the end of the branch, whose last token has not been fed."""
    said: list[int] = field(default_factory=list)
    logprob: float = 0.0

    def feeds(self) -> list[int]:
        """The tokens to feed next: all that are forced at once, then the answer one by one."""
        if self.said:
            return self.said[-1:]
        return self.forced if self.again is None else [self.again, *self.forced]

    def column(self, gap: int) -> int:
        """Where the first of them goes, behind a hole of `gap` columns."""
        before = len(self.forced) + (self.again is not None)
        return self.base + gap + (before + len(self.said) - 1 if self.said else 0)

    @property
    def fed(self) -> int:
        """Tokens of it that the model has been fed so far."""
        return len(self.forced) + (self.again is not None) + len(self.said) - 1 if self.said else 0

    def record(self, answer: str | None) -> ProbeRecord:
        """What is kept of the probe."""
        mean = self.logprob / len(self.said) if self.said else None
        tokens = len(self.forced) + len(self.said)
        return ProbeRecord(self.position, answer, tokens, mean, (*self.forced, *self.said))
