"""A model and how it is asked: what every harness does alike, with each question's account."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor
from transformers import StoppingCriteriaList

from tts_generate.answers import ends_thinking
from tts_generate.arguments import hints_of
from tts_generate.controller import describe
from tts_generate.engine import AutoTTS
from tts_generate.engine.asked import with_our_ways
from tts_generate.engine.generate import run
from tts_generate.harness.stopping import StopTexts, cut
from tts_generate.runner import Cost
from tts_generate.trajectories import Trajectory

_OURS = {"tokenizer", "stop_strings", "stream", "streamer", "progress", "seed"}
OPTIONS = tuple(name for name in hints_of(AutoTTS.__init__) if name not in _OURS)
"""Arguments of `AutoTTS` that a harness hands on."""
SAMPLING = ("temperature", "top_p", "top_k", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff", "repetition_penalty")
"""Arguments of `generate` that shape the distribution of the tokens."""


@dataclass(frozen=True, slots=True)
class PromptBatch:
    """Prompts asked in one call, with the same settings."""

    input_ids: Tensor
    """(questions, length) int64, padded on the left."""
    attention_mask: Tensor
    """The same shape, 0 on padding."""
    max_new_tokens: int
    seed: int
    stops: Sequence[str] = ()
    """Text that ends a branch."""
    options: Mapping[str, Any] | None = None
    """Arguments of `AutoTTS` and of `generate`, over those of the `Asker`."""

    @property
    def prompts(self) -> list[list[int]]:
        """Token ids of each prompt, without padding."""
        rows = zip(self.input_ids.tolist(), self.attention_mask.tolist(), strict=True)
        return [[token for token, real in zip(ids, mask, strict=True) if real] for ids, mask in rows]


@dataclass(frozen=True, slots=True)
class Answered:
    """A question's answer and what it took."""

    text: str
    """What the harness grades: the winning branch, after its thinking if that was asked for, without a stop string.
    Empty where it was cut in its thinking: a reasoning is no answer."""
    answer: str | None
    """The answer decided on."""
    votes: Mapping[str, int]
    cost: Cost
    branches: Sequence[Trajectory]
    finish_reason: str
    """Of the question, see `AutoTTSOutput`."""
    truncated: bool
    """Whether the text breaks off, see `AutoTTSOutput`."""
    seconds: float
    """From the beginning of its call to its answer; questions of one call share the machine."""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "answer": self.answer,
            **asdict(self.cost),
            "tokens": self.cost.tokens,
            "branches": len(self.branches),
            "finish_reason": self.finish_reason,
            "truncated": self.truncated,
            "seconds": round(self.seconds, 3),
        }


class Asker:
    """Asks a model with a controller.

    Args:
        model: a causal language model of transformers, enabled or not, also wrapped by PEFT.
        tokenizer: its tokenizer.
        think_end_token: text, or id of the token, that ends the thinking: only what follows is graded, and stop strings
            count in it alone. None: everything is.
        options: arguments of `AutoTTS` (`OPTIONS`) and of `generate` (`SAMPLING`).

    Raises:
        TTSError: an option is not usable; found out now, not after an hour of asking.
    """

    def __init__(self, model: Any, tokenizer: Any, think_end_token: str | int | None = None, **options: Any) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.options = {name: value for name, value in options.items() if value is not None}
        self.think_end, self.think_id = _think_end(tokenizer, think_end_token)
        self.controller = describe(self._recipe(0, {}).controller)

    def _recipe(self, seed: int, options: Mapping[str, Any]) -> AutoTTS:
        own = {name: value for name, value in {**self.options, **options}.items() if name in OPTIONS}
        return AutoTTS(tokenizer=self.tokenizer, seed=seed, stream=True, **own)

    def probe_tokens(self, options: Mapping[str, Any]) -> int:
        """The most tokens of a probe, which the model's context must hold behind a branch."""
        recipe = self._recipe(0, {name: value for name, value in options.items() if name in OPTIONS})
        return recipe.reader(self.model.generation_config).max_tokens

    def how(self, request: PromptBatch) -> dict[str, Any]:
        """Who decides on a request, and how its branches are sampled, as plain JSON values."""
        options = {**self.options, **(request.options or {})}
        sampled = {name: value for name, value in options.items() if name in SAMPLING}
        return {"controller": describe(self._recipe(0, options).controller), "seed": request.seed, **sampled}

    def begun(self, request: PromptBatch) -> Iterator[Any]:
        """The outputs of a request, nothing of which is decoded before the first is asked for.

        Raises:
            TTSError: it asks for what cannot be honoured.
        """
        options = request.options or {}
        plain = {name: value for name, value in {**self.options, **options}.items() if name not in OPTIONS}
        if request.stops:
            stop = StopTexts(self.tokenizer, request.stops, request.prompts, self.think_end)
            plain["stopping_criteria"] = StoppingCriteriaList([stop])
        answers: Iterator[Any] = run(
            self.model,
            self._recipe(request.seed, options),
            input_ids=request.input_ids,
            attention_mask=request.attention_mask,
            max_new_tokens=request.max_new_tokens,
            return_dict_in_generate=True,
            **with_our_ways(self.model.generation_config, plain),
        )
        return answers

    def ask(self, request: PromptBatch) -> Iterator[tuple[int, Answered]]:
        """Answer the prompts of a request; each with its place, as it is answered."""
        start = time.perf_counter()
        for output in self.begun(request):
            (branches,), (winner,) = output.branches, output.winners
            own = list(branches[winner].token_ids) if winner >= 0 else []
            closing = output.sequences[0, request.input_ids.shape[1] + len(own) :].tolist()
            (truncated,), number = output.truncated, output.questions[0]
            prompt = self.tokenizer.decode(list(request.prompts[number]), skip_special_tokens=False)
            thinks = truncated and not ends_thinking(prompt, self.think_end)
            yield (
                number,
                Answered(
                    text=self._text(own, closing, request.stops, thinks),
                    answer=output.answers[0],
                    votes=output.votes[0],
                    cost=output.cost[0],
                    branches=branches,
                    finish_reason=output.finish_reason[0],
                    truncated=truncated,
                    seconds=time.perf_counter() - start,
                ),
            )

    def _text(self, own: list[int], closing: list[int], stops: Sequence[str], thinks: bool) -> str:
        """The text of a branch, "" if it breaks off while it `thinks`.

        One closed by its probe has met no stop, and the probe's suffix may look like one.
        """
        ids = [*own, *closing]
        if self.think_id in ids:
            ids = ids[len(ids) - ids[::-1].index(self.think_id) :]
        text = str(self.tokenizer.decode(ids, skip_special_tokens=True))
        if self.think_end is not None:
            if thinks and self.think_id not in [*own, *closing] and self.think_end not in text:
                return ""
            text = text.rpartition(self.think_end)[2].lstrip()
        return text if closing else cut(text, stops)


def _think_end(tokenizer: Any, token: str | int | None) -> tuple[str | None, int | None]:
    """The end of the thinking as text, and as a token id where it is a single token (which decoding may leave out)."""
    if token is None:
        return None, None
    if isinstance(token, int) or token.isdigit():
        return str(tokenizer.decode([int(token)], skip_special_tokens=False)), int(token)
    ids = list(tokenizer(token, add_special_tokens=False)["input_ids"])
    return token, ids[0] if len(ids) == 1 else None


def repeat_seed(seed: int, repeat: int) -> int:
    """The seed of a prompt's `repeat`-th asking: another for each, and the same wherever in the list the prompt stands.

    >>> repeat_seed(7, 0), repeat_seed(7, 1) != repeat_seed(8, 0)
    (7, True)
    """
    if repeat == 0:
        return seed
    return int.from_bytes(hashlib.sha256(f"{seed} {repeat}".encode()).digest()[:7], "big")
