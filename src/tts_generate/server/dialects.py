"""How a server is spoken to: by token ids where it takes and returns them, else by text.

Four dialects are known, tried in this order; the first that the server is known to honour is used:

- "tokens" (vLLM): prompts are token ids and `return_token_ids` returns them. Prefixes are exactly what was decoded.
- "text": prompts are text, and sampling options beyond OpenAI's are fields of the request (SGLang, vLLM without a
  tokenizer here).
- "transformers" (`transformers serve`): prompts are text, unknown fields are refused, and sampling options travel as a
  `generation_config`. Only a server that has refused a field by its name is spoken to so: others may take that one
  without looking at it.
- "openai": prompts are text; there are OpenAI's own options only.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from tts_generate.errors import ServerError, UnsupportedError
from tts_generate.live.branch import Branch, ProbeRecord
from tts_generate.live.task import Prompt
from tts_generate.server.reply import Completion, within
from tts_generate.server.stops import text_until, tokens_until
from tts_generate.trajectories import Trajectory

Dialect = Literal["tokens", "text", "transformers", "openai"]
TELLING = "return_token_ids"
"""A field that servers honour, ignore or refuse by its name, which tells the dialects apart."""
DIALECTS: tuple[Dialect, ...] = ("tokens", "text", "transformers", "openai")
OPENAI = ("temperature", "top_p")
"""Sampling options that every server takes."""
_MOST_STOPS = 4
"""Stop strings that a server takes; of more of them, the others are looked for here alone."""
_STREAMED = 512
"""Tokens at most of a request whose answer comes as a whole: of longer ones, silence would tell too little."""
_NOTHING = Prompt()


@dataclass(frozen=True, slots=True)
class Piece:
    """What a request added to a branch or to a probe."""

    ids: list[int]
    """Token ids, or handles of `Pieces`."""
    logprobs: list[float]
    """Log-probability of each token; 0 where the server tells none."""
    end: Literal["eos", "stop"] | None
    """Why it ended, if not for its length."""


class Pieces:
    """Text of which only the number of tokens is known, as handles: the first one stands for it, the others for "".

    It takes the place of a tokenizer where a server speaks text, so that a branch is a list of ints everywhere.

    >>> pieces = Pieces({})
    >>> ids = [*pieces.add("a = 7 ;", 4), *pieces.add(" so", 1)]
    >>> len(ids), pieces.decode(ids), pieces.decode(ids[:4])
    (5, 'a = 7 ; so', 'a = 7 ;')
    """

    def __init__(self, tokens: Mapping[str, int]) -> None:
        self.tokens = tokens
        """Number of tokens of the texts that `__call__` is asked for."""
        self._texts = [""]

    def add(self, text: str, tokens: int) -> list[int]:
        """`tokens` handles of a text; none of one of no token."""
        if tokens == 0:
            return []
        self._texts.append(text)
        return [len(self._texts) - 1, *[0] * (tokens - 1)]

    def __call__(self, text: str, add_special_tokens: bool = False) -> dict[str, list[int]]:
        """As a tokenizer: the handles of a text whose number of tokens is known."""
        return {"input_ids": self.add(text, self.tokens[text] if text else 0)}

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = False) -> str:
        """The texts behind handles, one after the other."""
        return "".join(self._texts[i] for i in ids)


class Wire:
    """Makes requests and reads completions, in one dialect.

    Args:
        dialect: which one.
        model: name of the model in requests; None leaves it out.
        sampling: options that were given, by transformers' names.
        extra_body: fields for every request, as they are.
        tokenizer: the model's, where there is one here; the dialect "tokens" needs it.
        top_logprobs: how many log-probabilities are asked for beside each token's own; None asks for none at all.
    """

    def __init__(
        self,
        dialect: Dialect,
        model: str | None,
        sampling: Mapping[str, Any],
        extra_body: Mapping[str, Any],
        tokenizer: Any = None,
        top_logprobs: int | None = None,
    ) -> None:
        self.dialect, self.model, self.tokenizer = dialect, model, tokenizer
        self.sampling, self.extra_body = sampling, extra_body
        self.exact = dialect == "tokens"
        """Whether branches are kept as the very ids that the server decoded."""
        self.top_logprobs = top_logprobs
        self.logprobs = self.exact and top_logprobs is not None
        self.pieces = Pieces({})

    @property
    def codec(self) -> Any:
        """What turns a branch's ids into text: the tokenizer, or `Pieces`."""
        return self.tokenizer if self.exact else self.pieces

    def body(
        self,
        prompt: Prompt,
        ids: Sequence[int],
        max_tokens: int,
        stop: Sequence[str] = (),
        *,
        greedy: bool = False,
        seed: int | None = None,
        stream: bool = False,
    ) -> dict[str, Any]:
        """The request that continues `prompt` + `ids` by at most `max_tokens`; long answers are streamed anyway."""
        # `transformers serve` notices that a client has gone only while it streams.
        stream = stream or self.dialect == "transformers" or max_tokens > _STREAMED
        asked: dict[str, Any] = {"max_tokens": max_tokens, "stream": stream}
        asked["prompt"] = [*prompt.ids, *ids] if self.exact else (prompt.text or "") + self.pieces.decode(ids)
        if self.model is not None:
            asked["model"] = self.model
        if seed is not None:
            asked["seed"] = seed
        if stop:
            asked["stop"] = list(stop[:_MOST_STOPS])
        return {**asked, **self._options(greedy, stream), **self.extra_body}

    def _options(self, greedy: bool, stream: bool) -> dict[str, Any]:
        """Sampling options and what is asked for beside the text, in the dialect's words."""
        if self.dialect == "transformers":
            config = {"do_sample": False} if greedy else {"do_sample": True, **self.sampling}
            return {"generation_config": json.dumps(config)}
        options: dict[str, Any] = {"temperature": 0.0} if greedy else dict(self.sampling)
        if stream:
            options["stream_options"] = {"include_usage": True}
        if self.dialect == "openai":
            beyond = sorted(set(self.sampling) - set(OPENAI))
            if beyond:
                raise UnsupportedError(f"this server takes OpenAI's options only and would refuse {', '.join(beyond)}.")
            return options
        if options.get("top_k") == 0:  # none, in transformers' words
            options["top_k"] = -1
        options[TELLING] = True
        if self.logprobs:
            options["logprobs"] = self.top_logprobs
        return options

    def read(
        self,
        completion: Completion,
        max_tokens: int,
        prompt: Prompt = _NOTHING,
        before: Sequence[int] = (),
        stop: Sequence[str] = (),
    ) -> Piece:
        """What a completion adds to `prompt` + `before`, as far as the first stop string in them all.

        Raises:
            ServerError: the answer lacks what the dialect stands on, or is longer than asked for.
        """
        ended = completion.finish_reason == "stop"
        by_string = isinstance(completion.stop_reason, str)
        logprobs = list(completion.logprobs)
        if self.exact:
            ids = self._ids(completion, ended, max_tokens)
            if self.logprobs and len(logprobs) != len(ids):
                raise ServerError(f"the server sent {len(logprobs)} log-probabilities for {len(ids)} tokens.")
            found = tokens_until(self._text, [*prompt.ids, *before], ids, stop)
            ids = ids[:found]
        else:
            ids, found = self._handles(completion, ended, max_tokens, (prompt.text or "") + self._text(before), stop)
        end: Literal["eos", "stop"] | None = "eos" if ended and not by_string else None
        if by_string or found is not None:
            end = "stop"
        return Piece(ids, logprobs[: len(ids)] if self.logprobs else [0.0] * len(ids), end)

    def _text(self, ids: Sequence[int]) -> str:
        """What ids say, to the letter."""
        how = {"clean_up_tokenization_spaces": False} if self.exact else {}
        decoded: str = self.codec.decode(list(ids), skip_special_tokens=False, **how)
        return decoded

    def _ids(self, completion: Completion, ended: bool, max_tokens: int) -> list[int]:
        """The tokens of a completion; one that ended at once has at least the token that ended it."""
        if completion.token_ids is None:
            raise ServerError("the server has stopped returning token ids; are all its replicas the same?")
        ids, counted = list(completion.token_ids), completion.completion_tokens
        within(max_tokens, len(ids))
        if ids and counted not in (None, len(ids)):
            raise ServerError(f"the server sent the ids of {len(ids)} tokens, and counts {counted}.")
        return ids or ([self.tokenizer.eos_token_id] if ended else [])

    def _handles(
        self, completion: Completion, ended: bool, max_tokens: int, so_far: str, stop: Sequence[str]
    ) -> tuple[list[int], int | None]:
        """The text of a completion as handles, with the stop string that the server left out; where one ends it."""
        text, tokens, left_out = completion.text, completion.completion_tokens, completion.stop_reason
        if tokens is None:
            tokens = self.count(text)
        within(max_tokens, tokens)
        if isinstance(left_out, str) and not text.endswith(left_out):
            text += left_out
        found = text_until(so_far + text, len(so_far), stop)
        if found is not None and found < len(so_far + text):
            text = text[: found - len(so_far)]
            tokens = tokens if self.tokenizer is None else min(tokens, self.count(text))
        return self.pieces.add(text, max(tokens, int(ended or found is not None))), found

    def count(self, text: str) -> int:
        """Tokens of a text by the tokenizer at hand.

        Raises:
            ServerError: there is none.
        """
        if self.tokenizer is None:
            raise ServerError(
                "the server does not count tokens (its responses have no usage), and there is no tokenizer here to "
                "count them: pass tokenizer=."
            )
        return len(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def probe(self, record: ProbeRecord) -> ProbeRecord:
        """A probe as it is kept: without log-probability where the server tells none."""
        return record if self.logprobs else replace(record, logprob=None)

    def trajectory(self, branch: Branch, question_id: str, seed: int | None, prompt_tokens: int) -> Trajectory:
        """A branch as a row of a trajectory store.

        Where the server speaks text, its token ids are those of its text by the tokenizer here, and only if they are
        as many as the server counted.
        """
        row = branch.trajectory(question_id, seed, prompt_tokens, with_ids=self.exact)
        if not self.logprobs:
            row = replace(row, step_logprobs=())
        if self.exact or self.tokenizer is None:
            return row
        ids = list(self.tokenizer(self.pieces.decode(branch.ids), add_special_tokens=False)["input_ids"])
        if branch.finish_reason == "eos" and self.tokenizer.eos_token_id is not None:
            ids.append(self.tokenizer.eos_token_id)
        return replace(row, token_ids=tuple(ids)) if len(ids) == row.tokens else row
