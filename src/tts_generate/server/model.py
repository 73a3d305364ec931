"""`ServerModel`: the same controllers, over completions endpoints instead of a model in this process."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

from tts_generate.arguments import checked
from tts_generate.controller import Controller
from tts_generate.engine.branch import Reader
from tts_generate.engine.settings import Settings
from tts_generate.errors import InputError, UnknownNameError
from tts_generate.loading import DEFAULT_CONTROLLER, Trust, load_controller, set_by_hand
from tts_generate.processors import BranchProcessor, BranchProcessorList
from tts_generate.secret import held
from tts_generate.server.address import addresses
from tts_generate.server.asked import Asked
from tts_generate.server.connect import Session, connect
from tts_generate.server.loop import ServerLoop
from tts_generate.server.options import (
    Call,
    check_controllers,
    check_sampling,
    fitting,
    max_tokens,
    probing,
)
from tts_generate.server.output import ServerOutput, collect
from tts_generate.server.pool import Policy, Pool, ServerUsage
from tts_generate.server.wait import wait_for
from tts_generate.server.wire import Prompt
from tts_generate.tracking import Progress
from tts_generate.trajectories import Question, TrajectoryStore

Chat = Sequence[Mapping[str, Any]]


@dataclass(slots=True)
class Done:
    """What a call leaves."""

    asked: list[Asked]
    session: Session
    reader: Reader
    usage: ServerUsage
    interrupted: bool = False
    """Whether Ctrl-C ended it."""


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
        max_retries: times that a failed request is sent again, with exponential back-off; also the number of rests in a
            row after which an endpoint is given up for the rest of the call.
        timeout: seconds without a token after which a response counts as stalled; a queued request is silent too. A
            whole request has twice that time, and a sixtieth of it for each token asked for.
        connect_timeout: seconds to wait for a connection.
        extra_body: fields put into every request as they are; texts in fields named for a key, a token or a password
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
        extra_body: Mapping[str, Any] | None = None,
    ) -> None:
        self._keys = addresses([base_urls] if isinstance(base_urls, str) else base_urls, api_key)
        self.urls = tuple(self._keys)
        for name, value, least in (("max_in_flight", max_in_flight, 1), ("max_retries", max_retries, 0)):
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise InputError(f"{name} must be a whole number of at least {least}, got {value!r}.")
        for name, seconds in (("timeout", timeout), ("connect_timeout", connect_timeout)):
            if not seconds > 0:
                raise InputError(f"{name} must be a positive number of seconds, got {seconds!r}.")
        self.model, self.tokenizer = model, tokenizer
        self.policy = Policy(max_in_flight, max_retries)
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
        beta: float | None = None,
        controller_kwargs: Mapping[str, Any] | None = None,
        branch_processors: Sequence[BranchProcessor] = (),
        seed: int | None = None,
        interval_tokens: int = 500,
        max_new_tokens: int | None = None,
        max_branches: int = 128,
        max_probe_tokens: int = 20,
        probe_suffix: str | None = None,
        think_end: str | None = None,
        answer_pattern: str | None = None,
        stop_strings: str | Sequence[str] = (),
        progress: bool = False,
        revision: str | None = None,
        trust_remote_code: Trust = False,
        sandbox: bool = False,
        **sampling: Any,
    ) -> ServerOutput:
        """Answer questions as `model.generate(strategy="autotts")` does, with branches decoded by the servers.

        A call begins with one to four requests for a single token at each server, to find out how it is spoken to.
        Ctrl-C, a server that fails and a controller that raises end a question with the majority so far, see
        `ServerOutput.finish_reason`.

        Args:
            prompts: a prompt, a chat (a list of {"role", "content"}), or a list of either.
            strategy: "autotts".
            controller: see `AutoTTS`, as for beta, controller_kwargs, branch_processors and the probe's options.
            beta: the budget in [0, 1].
            controller_kwargs: knobs of the controller to set by hand.
            branch_processors: limits chained around the controller.
            seed: each request's seed follows from (seed, prompt, branch, position); None draws one.
            interval_tokens: tokens of one step.
            max_new_tokens: tokens of a branch at most; left out, what the server says its context holds.
            max_branches: branches of one question at most.
            max_probe_tokens: tokens of a probed answer at most.
            probe_suffix: text that makes the model state its answer.
            think_end: text that ends the model's thinking.
            answer_pattern: how answers are read.
            stop_strings: text that ends a branch.
            progress: show a bar over the questions, with the tokens saved so far.
            revision: the commit of a controller on the Hub.
            trust_remote_code: needed for controller code that did not come with this package: True, or a list of repos.
            sandbox: run such code in a locked process instead, which needs no trust.
            **sampling: temperature, top_p, top_k, min_p, repetition_penalty; what is left out is the server's default.

        Raises:
            UnknownNameError: a keyword, controller or knob that is not known.
            InputError: a setting out of range, or a prompt that leaves no room for its branches.
            ServerError: no server answers, or none of the questions got a single token.
        """
        if strategy != "autotts":
            raise UnknownNameError.of("strategy", strategy, ["autotts"])
        chosen = load_controller(
            controller,
            revision=revision,
            beta=beta,
            trust_remote_code=trust_remote_code,
            sandbox=sandbox,
            **set_by_hand(controller_kwargs),
        )
        if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int)):
            raise InputError(f"seed must be a whole number or None, got {seed!r}.")
        processors = BranchProcessorList(branch_processors)
        texts = self.prompts(prompts)
        asked = [
            Asked(n, str(n), prompt, chosen, processors.begin(str(n)), prompt_tokens=len(prompt.ids or ()))
            for n, prompt in enumerate(texts)
        ]
        call = Call(
            settings=Settings(
                seed=random.getrandbits(62) if seed is None else seed,
                interval_tokens=interval_tokens,
                max_new_tokens=max_tokens(max_new_tokens),
                eos_token_ids=(),
                pad_token_id=0,
                max_branches=max_branches,
            ),
            probing=probing(probe_suffix, think_end, answer_pattern, max_probe_tokens),
            sampling=check_sampling(sampling),
            stop=(stop_strings,) if isinstance(stop_strings, str) else tuple(stop_strings),
            progress=progress,
        )
        done = self.run(asked, call)
        errors = [each.error for each in asked if each.error is not None]
        if errors and not any(branch.ids for each in asked for branch in each.branches):
            raise errors[0]
        return collect(asked, done.session.wire, done.reader, call.settings.seed, done.usage)

    def prompts(self, prompts: str | Sequence[Any]) -> list[Prompt]:
        """Prompts and chats as they are sent."""
        if not prompts:
            raise InputError("there is no prompt; give every question at least one token.")
        one = isinstance(prompts, str) or isinstance(prompts[0], Mapping)
        found = [self._prompt(number, each) for number, each in enumerate([prompts] if one else prompts)]
        for number, prompt in enumerate(found):
            if not prompt.text or prompt.ids == ():
                raise InputError(f"prompt {number} is empty; give every question at least one token.")
        return found

    def _prompt(self, number: int, prompt: Any) -> Prompt:
        tokenizer = self.tokenizer
        if isinstance(prompt, str):
            ids = None if tokenizer is None else tuple(tokenizer(prompt)["input_ids"])
            return Prompt(prompt, ids)
        if isinstance(prompt, Mapping) or not all(isinstance(turn, Mapping) for turn in prompt):
            raise InputError(f"prompt {number} must be text or a list of {{'role', 'content'}}, got {prompt!r:.80}.")
        if tokenizer is None or not getattr(tokenizer, "chat_template", None):
            raise InputError(
                "a chat needs a tokenizer with a chat template here: ServerModel(..., tokenizer=tokenizer)."
            )
        text = str(tokenizer.apply_chat_template(list(prompt), tokenize=False, add_generation_prompt=True))
        ids = tuple(tokenizer(text, add_special_tokens=False)["input_ids"])
        begins = getattr(tokenizer, "bos_token", None)
        if begins and tokenizer("")["input_ids"][:1] == [tokenizer.bos_token_id]:
            text = text.removeprefix(begins)  # a server that is sent text puts it there itself
        return Prompt(text, ids)

    @checked
    def record(self, questions: Sequence[Question], out: str | Path, **options: Any) -> TrajectoryStore:
        """Record trajectories at the servers; see `tts_generate.server.record.record`."""
        from tts_generate.server.record import record

        return record(self, questions, out, **options)

    def run(self, asked: list[Asked], call: Call) -> Done:
        """Have questions answered, and wait; Ctrl-C calls off what is in flight and leaves what there is."""
        return wait_for(lambda: self._run(asked, call))

    def _client(self) -> httpx2.AsyncClient:
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
        """A request with the key of the server that it goes to."""
        header = self._keys.get(str(request.url).rpartition("/")[0])
        if header is not None:
            request.headers["Authorization"] = header
        return request

    async def _run(self, asked: list[Asked], call: Call) -> Done:
        async with self._client() as client:
            session = await connect(
                client,
                self.urls,
                self.policy,
                model=self.model,
                tokenizer=self.tokenizer,
                sampling=call.sampling,
                extra_body=self.extra_body,
                answer_format=call.probing.format,
            )
            reader = Reader(session.wire.codec, call.probing.format, call.probing.max_probe_tokens)
            settings = fitting(call.settings, session, asked, reader.max_tokens)
            check_controllers(session, asked)
            if call.prepared is not None:
                asked = call.prepared(session, settings)
            pool = Pool(client, session.urls, self.policy)
            pool.usage.dialect = session.wire.dialect
            loop = ServerLoop(pool, session.wire, reader, settings, call.stop, call.on_branch)
            done = Done(asked, session, reader, pool.usage)
            with Progress(len(asked), "answering", shown=call.progress) as bar:
                try:
                    await loop.run(asked, lambda one: bar.add(one.cost, one.read(settings.seed)))
                except asyncio.CancelledError:
                    done.interrupted = True
            return done
