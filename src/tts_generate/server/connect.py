"""Before anything is decoded: which model the servers have, and in which dialect they are spoken to."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import httpx2

from tts_generate.answers import AnswerFormat
from tts_generate.errors import InputError, ServerError, UnsupportedError
from tts_generate.live.task import Prompt
from tts_generate.server.dialects import DIALECTS, TELLING, Dialect, Pieces, Wire
from tts_generate.server.failures import GarbledError, PassingError, RefusedError
from tts_generate.server.pool import Policy, Pool
from tts_generate.server.reply import ServedModel
from tts_generate.server.stream import list_models

logger = logging.getLogger(__name__)
_AGAIN = 1
"""Times that a server which does not answer is asked again before it is left out."""
_WRONG_WORDS = (400, 422)
"""Status codes by which a server says that it does not know a field."""
_NO_ENTRY = (401, 403)
"""Those by which it says that the key is missing, or not the right one."""
_CANNOT_BE = {"top_k": -2, "min_p": 2.0, "repetition_penalty": -1.0}
"""What a server refuses that honours these options, which are not among OpenAI's."""
_TEXT = "1"
UNLIKE = "%s answers now, but not like the others: it is not asked"
_LOOK = 1.0
"""Seconds between two looks whether a server has started."""


@dataclass(frozen=True, slots=True)
class Speaker:
    """What is said to servers in whichever dialect they take; see `Wire`."""

    model: str | None
    tokenizer: Any
    sampling: Mapping[str, Any]
    extra_body: Mapping[str, Any]
    seed: int | None
    """None sends none: vLLM on a CPU may die of one."""
    logprobs: bool
    """Whether anything reads log-probabilities; that they are told costs servers time."""

    @property
    def ways(self) -> list[tuple[Dialect, int | None]]:
        """Dialects as they are tried; with token ids, also how many log-probabilities beside a token's own."""
        told = (1, 0, None) if self.logprobs else (None,)
        ids: list[tuple[Dialect, int | None]] = [] if self.tokenizer is None else [("tokens", each) for each in told]
        return [*ids, *((dialect, None) for dialect in DIALECTS[1:])]

    def wire(self, dialect: Dialect, model: str | None, top_logprobs: int | None) -> Wire:
        """How it is said in one of them."""
        return Wire(dialect, model, self.sampling, self.extra_body, self.tokenizer, top_logprobs)


@dataclass(frozen=True, slots=True)
class Found:
    """What was learnt of one server."""

    url: str
    dialect: Dialect
    model: str | None
    context: int | None
    """Tokens of prompt and answer at most, if the server says so."""
    top_logprobs: int | None


@dataclass(frozen=True, slots=True)
class Session:
    """The servers that answer, and how they are spoken to."""

    urls: tuple[str, ...]
    dialect: Dialect
    model: str | None
    context: int | None
    top_logprobs: int | None
    forced: Mapping[str, int] = field(default_factory=dict)
    """Tokens of the texts that probes force, where they are counted beforehand."""

    def is_like(self, found: Found) -> bool:
        """Whether another server may answer as these do."""
        room = self.context is None or found.context is None or found.context >= self.context
        same = (found.dialect, found.model, found.top_logprobs) == (self.dialect, self.model, self.top_logprobs)
        return same and room

    def wire(self, speaker: Speaker) -> Wire:
        """How a call is said to them, with the texts of that call alone."""
        wire = speaker.wire(self.dialect, self.model, self.top_logprobs)
        wire.pieces = Pieces(self.forced)
        return wire


async def connect(
    client: httpx2.AsyncClient,
    urls: Sequence[str],
    policy: Policy,
    speaker: Speaker,
    answer_format: AnswerFormat,
    wait: float,
    before: Session | None = None,
) -> Session:
    """Ask every server for one token; servers that cannot be reached in `wait` seconds are left out, with a warning.

    So are those that are not as they were `before`, if any still is.

    Raises:
        ServerError: no server can be reached, they have no such model, or they do not speak alike.
    """
    asked = [find(client, url, policy, speaker, wait) for url in urls]
    answers = await asyncio.gather(*asked, return_exceptions=True)
    found = [answer for answer in answers if isinstance(answer, Found)]
    failed = {url: answer for url, answer in zip(urls, answers, strict=True) if isinstance(answer, BaseException)}
    same = before is not None and any(before.is_like(each) for each in found)
    passing = (ServerError, InputError) if same else ServerError
    for url, error in failed.items():
        if not found or not isinstance(error, passing) or (isinstance(error, RefusedError) and not same):
            raise error
        logger.warning("%s is left out: %s", url, error)
    if before is not None and same:
        for other in [each for each in found if not before.is_like(each)]:
            logger.warning(UNLIKE, other.url)
            found.remove(other)
    spoken = {each.url: (each.dialect, each.model) for each in found}
    if len(set(spoken.values())) > 1:
        raise ServerError(f"the servers are not alike: {spoken}. Use servers of one kind, with one model.")
    first, told = found[0], [each.top_logprobs for each in found if each.top_logprobs is not None]
    session = Session(
        tuple(each.url for each in found),
        first.dialect,
        first.model,
        min((each.context for each in found if each.context is not None), default=None),
        min(told) if len(told) == len(found) else None,
    )
    wire = session.wire(speaker)
    if wire.exact:
        return session
    pool = Pool(client, session.urls, policy)
    return replace(session, forced=await _count_suffixes(pool, wire, answer_format))


async def find(client: httpx2.AsyncClient, url: str, policy: Policy, speaker: Speaker, wait: float) -> Found:
    """Which model a server has, and the first dialect that it is known to honour."""
    listed = await _listed(client, url, wait)
    names, model = [each.name for each in listed], speaker.model
    if model is None and len(names) > 1:
        raise InputError(f"{url} has several models, name one with model=: {', '.join(map(repr, names))}.")
    name = model if model is not None or not names else names[0]
    there = f"Model {name!r}, its /v1/models lists {', '.join(map(repr, names)) or 'nothing'}."
    pool = Pool(client, [url], Policy(1, min(_AGAIN, policy.max_retries), policy.first_rest))
    try:
        dialect, top_logprobs = await _way(pool, url, speaker, name)
    except RefusedError as error:
        hint = " Pass the key of that server as api_key=." if error.status in _NO_ENTRY else ""
        raise RefusedError(f"{url} refuses. {there} It says: {error}.{hint}", error.status) from None
    except ServerError as error:
        raise ServerError(f"{error} ({there})") from error
    return Found(url, dialect, name, next((each.context for each in listed if each.name == name), None), top_logprobs)


async def _way(pool: Pool, url: str, speaker: Speaker, name: str | None) -> tuple[Dialect, int | None]:
    """The first way in which a server is known to honour what it is asked."""
    ids = () if speaker.tokenizer is None else tuple(speaker.tokenizer(_TEXT, add_special_tokens=False)["input_ids"])
    refusals: list[str] = []
    status = _WRONG_WORDS[0]
    for dialect, top_logprobs in speaker.ways:
        strict = any(TELLING in refusal for refusal in refusals)  # it refuses what it does not know
        if dialect != "openai" and (dialect == "transformers") != strict:
            continue
        try:
            body = speaker.wire(dialect, name, top_logprobs).body(Prompt(ids, _TEXT), [], 1, seed=speaker.seed)
            completion, _ = await pool.complete(body)
        except (UnsupportedError, RefusedError) as error:
            refusals.append(str(error))
            if isinstance(error, RefusedError) and (status := error.status) not in _WRONG_WORDS:
                break
            continue
        told = len(completion.logprobs) >= len(completion.token_ids or ())
        if dialect != "tokens" or (completion.token_ids is not None and (told or top_logprobs is None)):
            _tell(url, dialect, refusals)
            if dialect == "text" and completion.token_ids is None:
                await _check_options(pool, url, body)
            return dialect, top_logprobs
    raise RefusedError("; ".join(dict.fromkeys(refusals)), status)


async def _listed(client: httpx2.AsyncClient, url: str, wait: float) -> list[ServedModel]:
    """The models of a server, which is waited for while it starts."""
    end = time.monotonic() + wait
    while True:
        try:
            return await list_models(client, url)
        except GarbledError as error:
            raise ServerError(f"{url}/models: {error}") from error
        except PassingError as error:
            if (left := end - time.monotonic()) <= 0:
                raise ServerError(
                    f"{url} cannot be reached: {error}. Is the server running, and is the URL right? One that is still "
                    "starting is waited for with wait=."
                ) from error
        await asyncio.sleep(min(_LOOK, left))


def _tell(url: str, dialect: Dialect, refusals: Sequence[str]) -> None:
    """Say how a server is spoken to; aloud, if that is less than it might be and not only for what it does not know."""
    refused = [refusal for refusal in refusals if TELLING not in refusal]
    say = logger.warning if refused else logger.info
    say("%s is spoken to as %r%s", url, dialect, "".join(f"; it says: {each}" for each in dict.fromkeys(refused)))


async def _check_options(pool: Pool, url: str, body: Mapping[str, Any]) -> None:
    """Warn of sampling options that a server, which takes fields that it does not know, may not look at."""
    for name in _CANNOT_BE.keys() & body.keys():
        try:
            await pool.complete({**body, name: _CANNOT_BE[name]})
        except ServerError:
            continue
        logger.warning("%s takes %s=%r, which cannot be: it may not look at it", url, name, _CANNOT_BE[name])


async def _count_suffixes(pool: Pool, wire: Wire, answer_format: AnswerFormat) -> dict[str, int]:
    """Tokens of the texts that probes force: by the tokenizer at hand, else as the server counts a prompt of them.

    A server whose tokenizer begins every prompt with a token of its own counts one too many.
    """
    texts = {answer_format.probe_suffix, answer_format.suffix_for(answer_format.think_end)} - {""}
    if wire.tokenizer is not None:
        return {text: wire.count(text) for text in texts}
    counts = {}
    for text in texts:
        completion, _ = await pool.complete(wire.body(Prompt(text=text), [], 1, greedy=True))
        counts[text] = wire.count(text) if completion.prompt_tokens is None else completion.prompt_tokens
    return counts
