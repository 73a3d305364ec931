"""Measures servers from outside: made-up prompts, answered by so many branches at once, timed by their tokens."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from typing import Any, Unpack

import numpy as np

from tts_generate.answers import AnswerOptions
from tts_generate.arguments import checked, part, whole
from tts_generate.errors import InputError, ServerError
from tts_generate.live.reader import Reader
from tts_generate.live.task import Task, prompt_of
from tts_generate.live.thinking import asked_of
from tts_generate.loading import load_controller
from tts_generate.profile import Profile, doubling
from tts_generate.server.connection import Connection
from tts_generate.server.model import ServerModel
from tts_generate.server.options import Call, RecordOptions
from tts_generate.server.wait import wait_for

_PROMPTS = (16, 64, 256)
_SHORT, _LONG = 16, 256
_CHECKED = (3, 6, 12, 24, 48, 96, 192)
"""Rows between those that are measured."""
_WORDS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


@checked
def measure(
    servers: ServerModel,
    *,
    max_rows: int | None = None,
    tokens: int = 48,
    repeats: int = 3,
    **options: Unpack[RecordOptions],
) -> Profile:
    """Time branches of `tokens` tokens, 1, 2, 4, … `max_rows` at once, behind a short prompt and a long one.

    What a pass takes is the time of a call beyond that of a call for one token, shared out over the other tokens of its
    longest branch. Branches that end early make it less exact; a server that knows `ignore_eos` (vLLM) has none with
    `extra_body={"ignore_eos": True}`.

    Args:
        servers: the model behind them; nobody else should ask it meanwhile.
        max_rows: branches at once at most; as many as `servers` has in flight if left out.
        tokens: of a branch, 8 or more.
        repeats: of each call; the median counts.
        **options: `temperature` and the like, as for `ServerModel.generate`.

    Returns:
        The profile of the servers as seen from here, with its error on numbers of branches in between.

    Raises:
        UnknownNameError: an option that is none.
        InputError: fewer tokens than can be timed.
        ServerError: no server answers, or every branch ended at once.
    """
    room = servers.policy.max_in_flight * len(servers.urls)
    most = room if max_rows is None else min(room, whole("max_rows", max_rows))
    if whole("tokens", tokens) < 8:
        raise InputError(f"tokens must be 8 or more, so that there is something to time, got {tokens}.")
    repeats = whole("repeats", repeats)

    async def run() -> Profile:
        async with servers.connected() as connection:
            return await _Outside(servers, connection, tokens, repeats, options).profile(most)

    return wait_for(run)


@dataclass
class _Outside:
    """Servers that are timed."""

    servers: ServerModel
    connection: Connection
    tokens: int
    repeats: int
    options: RecordOptions

    def __post_init__(self) -> None:
        tokenizer = self.servers.tokenizer
        told = len(_WORDS) if tokenizer is None else len(tokenizer(" ".join(_WORDS))["input_ids"])
        self._columns = _SHORT + self.tokens / 2  # that a pass reads of a branch behind the short prompt, on average
        self._tokens_a_word = told / len(_WORDS)  # a guess of one, where no tokenizer is at hand

    async def profile(self, max_rows: int) -> Profile:
        """All that a profile needs."""
        await self._call(1, _SHORT, 1)  # finds out how they are spoken to, and warms up
        grid: dict[int, tuple[float, float]] = {}
        for rows in doubling(max_rows):
            short, lasted = await self._pass(rows, _SHORT)
            long, _ = await self._pass(rows, _LONG)
            slope = max(0.0, (long - short) / ((_LONG - _SHORT) * lasted))
            grid[round(lasted)] = (max(0.0, short - slope * lasted * self._columns), slope)
        rows_measured = sorted(grid)
        tokenizer = self.servers.tokenizer
        asked = asked_of(tokenizer, **part(self.options, AnswerOptions))
        profile = Profile(
            tuple(rows_measured),
            tuple(grid[rows][0] for rows in rows_measured),
            tuple(grid[rows][1] for rows in rows_measured),
            _PROMPTS,
            tuple([await self._seconds(1, length, 1) for length in _PROMPTS]),
            block=1,
            shares_from=0,
            suffix_tokens=0 if tokenizer is None else len(Reader(tokenizer, asked).suffix_ids(asked.probe_suffix)),
            about=self._about(),
        )
        return await self._checked(profile, [n for n in _CHECKED if rows_measured[0] < n < rows_measured[-1]])

    async def _checked(self, profile: Profile, rows: list[int]) -> Profile:
        """The profile with its relative error where it was not measured."""
        measured, said = [], []
        for count in rows:
            seconds, lasted = await self._pass(count, _SHORT)
            measured.append(seconds)
            said.append(float(profile.passes(lasted, lasted * self._columns)))
        return profile.checked_by(measured, said)

    async def _pass(self, rows: int, prompt: int) -> tuple[float, float]:
        """(Seconds of a pass of so many branches, how many of them lasted on average), medians."""
        seconds, lasted = [], []
        for _ in range(self.repeats):
            first, _ = await self._call(rows, prompt, 1)
            whole_call, lengths = await self._call(rows, prompt, self.tokens)
            if max(lengths) > 1:
                seconds.append(max(1e-9, whole_call - first) / (max(lengths) - 1))
                lasted.append(max(1.0, sum(lengths) / max(lengths)))
        if not seconds:
            raise ServerError(
                "every branch ended with its first token, so no pass could be timed; with vLLM, ask for no ends: "
                "extra_body={'ignore_eos': True}."
            )
        return float(np.median(seconds)), float(np.median(lasted))

    async def _seconds(self, rows: int, prompt: int, tokens: int) -> float:
        return float(np.median([(await self._call(rows, prompt, tokens))[0] for _ in range(self.repeats)]))

    async def _call(self, rows: int, prompt: int, tokens: int) -> tuple[float, list[int]]:
        """Seconds of one call of a prompt that no server has seen, and the tokens of its branches."""
        text = " ".join(random.choices(_WORDS, k=max(1, round(prompt / self._tokens_a_word))))
        task = Task(
            "0", prompt_of(self.servers.tokenizer, text, "the prompt"),
            load_controller("self_consistency", max_samples=rows),
        )  # fmt: skip
        call = Call(
            seed=None, interval_tokens=tokens, max_new_tokens=tokens, max_branches=rows, stop_strings=(),
            options={"force_answer": False, **self.options},
        )  # fmt: skip
        loop = await self.connection.loop([task], call)
        start = time.perf_counter()
        questions = await loop.run([task], lambda question: None)
        seconds = time.perf_counter() - start
        for question in questions:
            if question.error is not None:
                raise question.error
        return seconds, [len(branch.ids) for question in questions for branch in question.branches]

    def _about(self) -> dict[str, Any]:
        where = ", ".join(self.servers.urls)
        return {"model": self.servers.model, "device": f"{len(self.servers.urls)} server(s)", "urls": where}
