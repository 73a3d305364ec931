"""Before anything is decoded: which model the servers have, and in which dialect they are spoken to."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx2

from tts_generate.answers import AnswerFormat
from tts_generate.errors import InputError, ServerError, UnsupportedError
from tts_generate.live.task import Prompt
from tts_generate.server.dialects import DIALECTS, Dialect, Pieces, Wire
from tts_generate.server.failures import GarbledError, PassingError, RefusedError
from tts_generate.server.pool import Policy, Pool
from tts_generate.server.stream import list_models

logger = logging.getLogger(__name__)
_AGAIN = 1
"""Times that a server which does not answer is asked again before it is left out."""
_WRONG_WORDS = (400, 422)
"""Status codes by which a server says that it does not know a field."""


@dataclass(frozen=True, slots=True)
class Speaker:
    """What is said to servers in whichever dialect they take; see `Wire`."""

    model: str | None
    tokenizer: Any
    sampling: Mapping[str, Any]
    extra_body: Mapping[str, Any]

    def wire(self, dialect: Dialect, model: str | None, logprobs: bool = True) -> Wire:
        """How it is said in one of them."""
        return Wire(dialect, model, self.sampling, self.extra_body, self.tokenizer, logprobs)


@dataclass(frozen=True, slots=True)
class Found:
    """What was learnt of one server."""

    url: str
    dialect: Dialect
    model: str | None
    context: int | None
    """Tokens of prompt and answer at most, if the server says so."""
    logprobs: bool


@dataclass(frozen=True, slots=True)
class Session:
    """The servers that answer, and how they are spoken to."""

    urls: tuple[str, ...]
    wire: Wire
    context: int | None


async def connect(
    client: httpx2.AsyncClient,
    urls: Sequence[str],
    policy: Policy,
    speaker: Speaker,
    answer_format: AnswerFormat,
) -> Session:
    """Ask every server for one token; servers that cannot be reached are left out, with a warning.

    Raises:
        ServerError: no server can be reached, they have no such model, or they do not speak alike.
    """
    asked = [_find(client, url, policy, speaker) for url in urls]
    answers = await asyncio.gather(*asked, return_exceptions=True)
    found = [answer for answer in answers if isinstance(answer, Found)]
    failed = {url: answer for url, answer in zip(urls, answers, strict=True) if isinstance(answer, BaseException)}
    for url, error in failed.items():
        if not found or isinstance(error, RefusedError) or not isinstance(error, ServerError):
            raise error
        logger.warning("%s is left out: %s", url, error)
    spoken = {each.url: (each.dialect, each.model) for each in found}
    if len(set(spoken.values())) > 1:
        raise ServerError(f"the servers are not alike: {spoken}. Use servers of one kind, with one model.")
    first = found[0]
    logprobs = all(each.logprobs for each in found)
    wire = speaker.wire(first.dialect, first.model, logprobs)
    session = Session(
        tuple(each.url for each in found),
        wire,
        min((each.context for each in found if each.context is not None), default=None),
    )
    if not wire.exact:
        wire.pieces = Pieces(await _count_suffixes(client, session, policy, answer_format))
    return session


async def _find(client: httpx2.AsyncClient, url: str, policy: Policy, speaker: Speaker) -> Found:
    """Which model a server has, and the first dialect that it takes."""
    try:
        listed = await list_models(client, url)
    except GarbledError as error:
        raise ServerError(f"{url}/models: {error}") from error
    except PassingError as error:
        raise ServerError(f"{url} cannot be reached: {error}. Is the server running, and is the URL right?") from error
    names, model, tokenizer = [each.name for each in listed], speaker.model, speaker.tokenizer
    if model is None and len(names) > 1:
        raise InputError(f"{url} has several models, name one with model=: {', '.join(map(repr, names))}.")
    name = model if model is not None or not names else names[0]
    context = next((each.context for each in listed if each.name == name), None)
    text = "1"
    ids = () if tokenizer is None else tuple(tokenizer(text, add_special_tokens=False)["input_ids"])
    pool = Pool(client, [url], Policy(1, min(_AGAIN, policy.max_retries), policy.first_rest))
    refusals: list[str] = []
    status = _WRONG_WORDS[0]
    for dialect in DIALECTS if tokenizer is not None else DIALECTS[1:]:
        wire = speaker.wire(dialect, name)
        try:
            completion, _ = await pool.complete(wire.body(Prompt(ids, text), [], max_tokens=1, seed=0))
        except UnsupportedError as error:
            refusals.append(str(error))
            continue
        except RefusedError as error:
            refusals, status = [*refusals, str(error)], error.status
            if error.status not in _WRONG_WORDS:
                break
            continue
        except ServerError as error:
            raise ServerError(f"{error} (Model {name!r}; /v1/models lists {_listing(names)}.)") from error
        if dialect != "tokens" or completion.token_ids is not None:
            told = len(completion.logprobs) >= len(completion.token_ids or ())
            return Found(url, dialect, name, context, dialect == "tokens" and told)
    said = "; ".join(dict.fromkeys(refusals))
    raise RefusedError(
        f"{url} refuses. Model {name!r}, its /v1/models lists {_listing(names)}. It says: {said}", status
    )


def _listing(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names)) or "nothing"


async def _count_suffixes(
    client: httpx2.AsyncClient, session: Session, policy: Policy, answer_format: AnswerFormat
) -> dict[str, int]:
    """Tokens of the texts that probes force: by the tokenizer at hand, else as the server counts a prompt of them.

    A server whose tokenizer begins every prompt with a token of its own counts one too many.
    """
    wire = session.wire
    texts = {answer_format.probe_suffix, answer_format.suffix_for(answer_format.think_end)} - {""}
    if wire.tokenizer is not None:
        return {text: wire.count(text) for text in texts}
    pool = Pool(client, session.urls, policy)
    counts = {}
    for text in texts:
        completion, _ = await pool.complete(wire.body(Prompt(text=text), [], max_tokens=1))
        counts[text] = wire.count(text) if completion.prompt_tokens is None else completion.prompt_tokens
    return counts
