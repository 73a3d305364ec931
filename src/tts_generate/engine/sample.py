"""Draws each row's next token: transformers' processors shape the distribution, keyed Gumbel noise draws from it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from transformers import LogitsProcessorList
from transformers.generation.logits_process import (
    EpsilonLogitsWarper,
    EtaLogitsWarper,
    MinPLogitsWarper,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
    TypicalLogitsWarper,
)

from tts_generate.engine.noise import gumbel

_ROW_WISE = (
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
    MinPLogitsWarper,
    TypicalLogitsWarper,
    EpsilonLogitsWarper,
    EtaLogitsWarper,
)

RowIds = Callable[[int], Tensor]
"""Row number -> the (1, length) token ids of that row's branch, prompt included."""


class Sampler:
    """The next token of each row from its logits, honouring a prepared list of logits processors.

    Processors that look at one row's scores alone run on the whole batch at once; if any other is in the list (a
    repetition penalty, a user's own), the whole list runs row by row on the branch's own tokens.
    """

    def __init__(
        self, processors: LogitsProcessorList, min_new_tokens: int = 0, eos_token_ids: Tensor | None = None
    ) -> None:
        self.processors = processors
        self.min_new_tokens, self.eos_token_ids = min_new_tokens, eos_token_ids
        self.row_wise = all(type(processor) in _ROW_WISE for processor in processors)
        top_k = [p.top_k for p in processors if type(p) is TopKLogitsWarper]
        kinds = [type(p) for p in processors]
        # With a temperature alone before it, top-k first loses nothing: what it drops no later warper brings back.
        leading = kinds[: kinds.index(TopKLogitsWarper)] if top_k else []
        fused = self.row_wise and bool(top_k) and all(kind is TemperatureLogitsWarper for kind in leading)
        self.top_k = top_k[0] if fused else None

    def __call__(self, logits: Tensor, keys: Tensor, positions: Tensor, row_ids: RowIds) -> Tensor:
        """Draw one token a row.

        Args:
            logits: (B, V) float32, raw.
            keys: (B,) int64, `branch_key` of each row's branch.
            positions: (B,) int64, index of the token drawn in its branch.
            row_ids: the ids of a row, asked for only where a processor needs them.

        Returns:
            (B,) int64.
        """
        if self.min_new_tokens and self.eos_token_ids is not None:
            early = positions < self.min_new_tokens
            ends = torch.isin(
                torch.arange(logits.shape[-1], device=logits.device), self.eos_token_ids.to(logits.device)
            )
            logits = logits.masked_fill(early[:, None] & ends, -torch.inf)
        if self.top_k is not None and self.top_k < logits.shape[-1]:
            logits, tokens = torch.topk(logits, self.top_k, dim=-1)
        else:
            tokens = torch.arange(logits.shape[-1], device=logits.device)[None]
        if self.row_wise:
            scores = logits
            for processor in self.processors:
                scores = processor(None, scores)
        else:
            scores = self._by_length(logits, row_ids)
        noisy = scores.double() + gumbel(keys, positions, tokens)
        return tokens.expand_as(noisy).gather(1, noisy.argmax(-1, keepdim=True))[:, 0]

    def _by_length(self, logits: Tensor, row_ids: RowIds) -> Tensor:
        """Processors that look at token ids, on the rows of each length at once: no row needs padding."""
        ids = [row_ids(row) for row in range(logits.shape[0])]
        scores = torch.empty_like(logits)
        for length in sorted({row.shape[1] for row in ids}):
            rows = [number for number, row in enumerate(ids) if row.shape[1] == length]
            scores[rows] = self.processors(torch.cat([ids[row] for row in rows]), logits[rows])
        return scores
