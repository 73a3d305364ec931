"""`ServerModel`: the same controllers, over completions endpoints instead of a model in this process."""

from __future__ import annotations

import json
import math
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Unpack

import httpx2

from tts_generate.arguments import checked, whole
from tts_generate.controller import Controller
from tts_generate.errors import InputError, UnknownNameError
from tts_generate.live.output import LiveOutput, collected
from tts_generate.live.rows import tasks_of
from tts_generate.live.settings import MAX_BRANCHES
from tts_generate.live.task import Prompt, prompt_of
from tts_generate.live.unanswered import Unanswered
from tts_generate.live.winner import shown_ids
from tts_generate.loading import DEFAULT_CONTROLLER, chosen
from tts_generate.processors import BranchProcessor, BranchProcessorList
from tts_generate.secret import held
from tts_generate.server.address import addresses
from tts_generate.server.connection import Connection
from tts_generate.server.options import Call, ServerOptions, check_extra_body
from tts_generate.server.pool import Policy, ServerUsage
from tts_generate.server.question import Served
from tts_generate.server.record import record
from tts_generate.server.requests import ServerLoop
from tts_generate.server.wait import wait_for
from tts_generate.tracking import Progress
from tts_generate.trajectories import Question, TrajectoryStore

Chat = Sequence[Mapping[str, Any]]


@dataclass(kw_only=True)
class ServerOutput(LiveOutput):
    """Output of `ServerModel.generate`; lists have one entry a question, in the order asked."""

    texts: list[str]
    """Text of the winning branch, without the prompt; "" where no branch was opened."""
    usage: ServerUsage
    """What the call took at the servers: requests, retries, tokens sent."""


def collect(done: Sequence[Served], loop: ServerLoop) -> ServerOutput:
    """Put questions, in the order they were asked, into one output."""
    text = loop.reader.text
    return ServerOutput(
        **collected(done, loop.settings.seed),
        texts=["" if each.winner < 0 else text(shown_ids(each.branches[each.winner])) for each in done],
        usage=loop.pool.usage,
    )


class ServerModel:
    """A model behind one or more OpenAI-compatible completions endpoints: vLLM, SGLang, `transformers serve`.

    Args:
        base_urls: one address, or several of servers with the same model, such as "http://host:8000/v1"; an address
            without a path gets "/v1". User and password in it are sent, and shown nowhere.
        model: its name there; may be left out where the server has one model.
        tokenizer: the model's tokenizer. With it, a server that takes and returns token ids (vLLM) is spoken to by
            ids, and chats can be asked; without it everything is text, counted by what the server reports.
        api_key: sent as a bearer token, without the space around it; shown nowhere.
        max_in_flight: requests in flight at most, at each endpoint.
        max_retries: times that a failed request is sent again, with exponential back-off. After more rests in a row
            than that an endpoint is given up, until it answers again.
        timeout: seconds without a token after which a response counts as stalled; a queued request is silent too. A
            whole request has twice that time, and a sixtieth of it for each token asked for.
        connect_timeout: seconds to wait for a connection.
        wait: seconds, at the beginning of a call, to wait for servers that are still starting; those that are not there
            by then are left out, and asked from when they answer.
        extra_body: fields put into every request as they are, such as `{"logit_bias": {"13": -5}}`; none of those that
            say what a request is for, or that count within one. Texts in fields named for a key, a token or a password
            are stored and shown nowhere.

    >>> ServerModel("http://127.0.0.1:8000").urls
    ('http://127.0.0.1:8000/v1',)
    """

    @checked
    def __init__(
        self,
        base_urls: str | Sequence[str],
        *,
        model: str | None = None,
        tokenizer: Any = None,
        api_key: str | None = None,
        max_in_flight: int = 16,
        max_retries: int = 5,
        timeout: float = 600.0,
        connect_timeout: float = 10.0,
        wait: float = 0.0,
        extra_body: Mapping[str, Any] | None = None,
    ) -> None:
        self._keys = addresses([base_urls] if isinstance(base_urls, str) else base_urls, api_key)
        self.urls = tuple(self._keys)
        for name, seconds in (("timeout", timeout), ("connect_timeout", connect_timeout)):
            if not seconds > 0:
                raise InputError(f"{name} must be a positive number of seconds, got {seconds!r}.")
        if not 0 <= wait < math.inf:
            raise InputError(f"wait must be a number of seconds, 0 for not at all, got {wait!r}.")
        self.model, self.tokenizer, self.wait = model, tokenizer, wait
        self.policy = Policy(whole("max_in_flight", max_in_flight), whole("max_retries", max_retries, 0))
        check_extra_body(extra_body or {})
        self.extra_body: dict[str, Any] = held(extra_body or {})
        try:
            json.dumps(self.extra_body, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise InputError(f"extra_body cannot be sent as JSON: {error}.") from error
        self._timeout = httpx2.Timeout(timeout, connect=connect_timeout, pool=None)

    @checked
    def generate(
        self,
        prompts: str | Sequence[str] | Chat | Sequence[Chat],
        *,
        strategy: str = "autotts",
        controller: str | Path | Controller = DEFAULT_CONTROLLER,
        branch_processors: Sequence[BranchProcessor] = (),
        seed: int | None = None,
        interval_tokens: int | None = None,
        max_new_tokens: int | None = None,
        max_branches: int = MAX_BRANCHES,
        stop_strings: str | Sequence[str] = (),
        progress: bool = False,
        **options: Unpack[ServerOptions],
    ) -> ServerOutput:
        """Answer questions as `model.generate(strategy="autotts")` does, with branches decoded by the servers.

        A call begins with a few requests for a single token at each server, to find out how it is spoken to.
        Ctrl-C, a server that fails and a controller that raises end a question with the majority so far, see
        `ServerOutput.finish_reason`.

        Args:
            prompts: a prompt, a chat (a list of {"role", "content"}), or a list of either.
            strategy: "autotts".
            controller: see `AutoTTS`.
            branch_processors: limits chained around the controller.
            seed: each request's seed follows from (seed, prompt, branch, position); left out, none is sent. vLLM on a
                CPU may die of one ("CPU Generator does not use offset").
            interval_tokens: tokens of one step; 500, or an eighth of a `max_new_tokens` below 4,000, if left out.
            max_new_tokens: tokens of a branch at most; left out, what the server says its context holds.
            max_branches: branches of one question at most; a controller that wants more is an error.
            stop_strings: text that ends a branch.
            progress: show a bar over the questions, with the tokens saved so far.
            **options: those of the controller and of the probe, see `AutoTTS`; latency left out is what the requests
                that may be in flight for each question allow. And temperature, top_p, top_k (0 for none), min_p,
                repetition_penalty; what is left out is the server's default.

        Raises:
            UnknownNameError: a keyword, controller or knob that is not known.
            InputError: a setting out of range, or a prompt that leaves no room for its branches.
            ServerError: no server answers, or none of the questions got a single token.
        """
        if strategy != "autotts":
            raise UnknownNameError.of("strategy", strategy, ["autotts"])
        decides = chosen(controller, options)
        processors = BranchProcessorList(branch_processors)
        rows = self.policy.max_in_flight * len(self.urls)
        tasks = tasks_of(self.prompts(prompts), decides, rows, processors)
        call = Call(
            seed=seed,
            interval_tokens=interval_tokens,
            max_new_tokens=max_new_tokens,
            max_branches=max_branches,
            stop_strings=stop_strings,
            options=options,
        )

        async def ask() -> tuple[ServerOutput, Unanswered]:
            async with self.connected() as connection:
                loop = await connection.loop(tasks, call)
                with Progress(len(tasks), "answering", shown=progress) as bar:
                    questions = await loop.run(tasks, lambda question: bar.add(question.cost, question.rows))
                errors = [each.error for each in questions if each.error is not None]
                if errors and not any(branch.ids for each in questions for branch in each.branches):
                    raise errors[0]
                return collect(questions, loop), Unanswered(loop.reader, questions)

        output, unanswered = wait_for(ask)
        unanswered.tell()
        return output

    def prompts(self, prompts: str | Sequence[Any]) -> list[Prompt]:
        """Prompts and chats as they are sent."""
        if not len(prompts):
            raise InputError("there is no prompt; give every question at least one token.")
        one = isinstance(prompts, str) or isinstance(prompts[0], Mapping)
        asked = [prompts] if one else list(prompts)
        for number, each in enumerate(asked):
            turns = [] if isinstance(each, (str, Mapping)) else each
            if not isinstance(each, str) and not (turns and all(isinstance(turn, Mapping) for turn in turns)):
                raise InputError(f"prompt {number} must be text or a list of {{'role', 'content'}}, got {each!r:.80}.")
        return [prompt_of(self.tokenizer, each, f"prompt {number}") for number, each in enumerate(asked)]

    @checked
    def record(self, questions: Sequence[Question], out: str | Path, **options: Any) -> TrajectoryStore:
        """Record trajectories at the servers; see `tts_generate.server.record.record`."""
        return record(self, questions, out, **options)

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[Connection]:
        """The servers, for calls one after the other or at once, with what the first of them found out."""
        async with self._http() as http:
            connection = Connection(self, http)
            try:
                yield connection
            finally:
                await connection.close()

    def _http(self) -> httpx2.AsyncClient:
        """What speaks to the servers; no redirect is followed, so that no key goes where it was not given for."""
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=None)
        try:
            return httpx2.AsyncClient(auth=self._authorized, timeout=self._timeout, limits=limits)
        except (ValueError, ImportError, httpx2.InvalidURL) as error:
            problem = type(error).__name__
        raise InputError(  # here, so that it does not carry the proxy's password with it
            f"a proxy named in the environment (HTTP_PROXY, HTTPS_PROXY, ALL_PROXY) cannot be used: {problem}."
        )

    def _authorized(self, request: httpx2.Request) -> httpx2.Request:
        header = self._keys.get(str(request.url).rpartition("/")[0])
        if header is not None:
            request.headers["Authorization"] = header
        return request
