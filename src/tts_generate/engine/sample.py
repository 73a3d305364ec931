"""Draws each row's next token: transformers' processors shape the distribution, keyed Gumbel noise draws from it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessorList
from transformers.generation.logits_process import (
    MinPLogitsWarper,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from tts_generate.engine.honoured import Place
from tts_generate.engine.noise import gumbel
from tts_generate.engine.own import Own, shaped
from tts_generate.live.branch import Branch

_LIKELY = (256, 4096)
"""Tokens among which a nucleus is looked for, the fewest first."""

Seen = Callable[[int], tuple[Branch, Tensor]]
"""Row number -> the branch of that row, and its (1, length) token ids, prompt included."""


@dataclass(frozen=True)
class Nucleus:
    """top-p and min-p without top-k: what they leave is nearly always among a few likely tokens; those are sorted.

    Whether it is must be looked at, so this is for the CPU, where looking costs nothing.
    """

    temperature: float
    top_p: float
    min_p: float

    @classmethod
    def of(cls, processors: LogitsProcessorList) -> Nucleus | None:
        """That of a list which holds a temperature, top-p and min-p at most, in this order; None for any other."""
        kinds = [type(processor) for processor in processors]
        order = [TemperatureLogitsWarper, TopPLogitsWarper, MinPLogitsWarper]
        if kinds != [kind for kind in order if kind in kinds] or set(kinds) <= {TemperatureLogitsWarper}:
            return None
        usual = {"min_tokens_to_keep": 1, "filter_value": -torch.inf}
        if any(getattr(p, name, value) != value for p in processors for name, value in usual.items()):
            return None
        of = {kind: processor for kind, processor in zip(kinds, processors, strict=True)}
        return cls(
            getattr(of.get(TemperatureLogitsWarper), "temperature", 1.0),
            getattr(of.get(TopPLogitsWarper), "top_p", 1.0),
            getattr(of.get(MinPLogitsWarper), "min_p", 0.0),
        )

    def few(self, logits: Tensor) -> tuple[Tensor, Tensor] | None:
        """Scores and tokens (B, K) of the likeliest tokens, all others removed; None if any row leaves more."""
        scores = logits / self.temperature
        whole = scores.logsumexp(-1, keepdim=True)
        for count in [count for count in _LIKELY if 2 * count < logits.shape[-1]]:
            likely, tokens = torch.topk(scores, count, dim=-1)
            probability = (likely - whole).exp()
            through = probability.cumsum(-1)
            least = self.min_p * probability[:, :1]
            inside = (through[:, -1:] >= self.top_p) | (probability[:, -1:] < least)
            if bool(inside.all()):
                left = (through - probability < self.top_p) & (probability >= least)
                left[:, 0] = True
                return likely.masked_fill(~left, -torch.inf), tokens
        return None


class Sampler:
    """The next token of each row from its logits, honouring a prepared list of logits processors.

    Processors that look at one row's scores alone run on the whole batch at once; if any other is in the list (a
    repetition penalty, a user's own), the whole list runs on the branches' own tokens.

    Args:
        processors: as transformers prepared them.
        min_new_tokens: tokens before which no branch ends.
        eos_token_ids: those that would end it.
        place: of a prompt, what processors that count are made for.
    """

    def __init__(
        self,
        processors: LogitsProcessorList,
        min_new_tokens: int = 0,
        eos_token_ids: Tensor | None = None,
        place: Callable[[Tensor], Place] | None = None,
    ) -> None:
        self.processors = processors
        self.min_new_tokens, self.eos_token_ids = min_new_tokens, eos_token_ids
        self.own = Own(processors, place)
        self.row_wise = self.own.scores_only
        top_k = [p.top_k for p in processors if type(p) is TopKLogitsWarper]
        kinds = [type(p) for p in processors]
        # With a temperature alone before it, top-k first loses nothing: what it drops no later warper brings back.
        leading = kinds[: kinds.index(TopKLogitsWarper)] if top_k else []
        fused = self.row_wise and bool(top_k) and all(kind is TemperatureLogitsWarper for kind in leading)
        self.top_k = top_k[0] if fused else None
        self.nucleus = Nucleus.of(processors)

    def __call__(self, logits: Tensor, keys: Tensor, positions: Tensor, seen: Seen) -> Tensor:
        """Draw one token a row.

        Args:
            logits: (B, V) float32, raw.
            keys: (B,) int64, `branch_key` of each row's branch.
            positions: (B,) int64, index of the token drawn in its branch.
            seen: the branch of a row and its ids, asked for only where a processor needs them.

        Returns:
            (B,) int64.
        """
        if not len(logits):  # a pass of probes alone: processors of other people are never asked about no row
            return keys
        if self.min_new_tokens and self.eos_token_ids is not None:
            early = positions < self.min_new_tokens
            ends = torch.isin(
                torch.arange(logits.shape[-1], device=logits.device), self.eos_token_ids.to(logits.device)
            )
            logits = logits.masked_fill(early[:, None] & ends, -torch.inf)
        few = self.nucleus.few(logits) if self.nucleus is not None and logits.device.type == "cpu" else None
        scores, tokens = few if few is not None else self._processed(logits, seen)
        noisy = scores.double() + gumbel(keys, positions, tokens)
        return tokens.expand_as(noisy).gather(1, noisy.argmax(-1, keepdim=True))[:, 0]

    def _processed(self, logits: Tensor, seen: Seen) -> tuple[Tensor, Tensor]:
        """Scores (B, K) that the processors leave, and the tokens (B or 1, K) that they are of."""
        if self.top_k is not None and self.top_k < logits.shape[-1]:
            logits, tokens = torch.topk(logits, self.top_k, dim=-1)
        else:
            tokens = torch.arange(logits.shape[-1], device=logits.device)[None]
        if not self.row_wise:
            return self._by_branch(logits, seen), tokens
        for processor in self.processors:
            logits = processor(None, logits)
        return logits, tokens

    def _by_branch(self, logits: Tensor, seen: Seen) -> Tensor:
        """Processors that look at token ids, on those rows at once that may be asked together: none needs padding."""
        together: dict[tuple[int, int], tuple[list[Any], list[int], list[Tensor]]] = {}
        for row in range(logits.shape[0]):
            branch, ids = seen(row)
            own = self.own.of(branch, ids)
            _, rows, theirs = together.setdefault((id(own), ids.shape[1]), (own, [], []))
            rows.append(row)
            theirs.append(ids)
        scores = torch.empty_like(logits)
        for own, rows, theirs in together.values():
            scores[rows] = shaped(own, torch.cat(theirs), logits[rows])
        return scores
