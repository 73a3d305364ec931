"""Stop strings of a harness: they end a branch where its own text says them, after its thinking if it thinks apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import StoppingCriteria

from tts_generate.answers import ends_thinking


class StopTexts(StoppingCriteria):
    """Ends each branch, alone, at the first of `texts` in what it has said itself.

    A prompt's last tokens are not looked at, nor, given `think_end`, what stands before it: a reasoning trace is full
    of blank lines and of the word "Question:".

    Args:
        tokenizer: decodes the branch; its text is compared, so the tokens in which a stop is said do not matter.
        texts: what ends a branch; empty ones are no stops.
        prompts: token ids of every prompt of the call, without padding.
        think_end: text that ends the thinking; None if stops count in it too.
    """

    def __init__(
        self,
        tokenizer: Any,
        texts: Sequence[str],
        prompts: Sequence[Sequence[int]],
        think_end: str | None = None,
    ) -> None:
        self.tokenizer, self.think_end = tokenizer, think_end
        self.texts = [text for text in texts if text]
        self.lookback = max((len(text.encode()) for text in self.texts), default=0) + 4
        self.prompts = {tuple(prompt) for prompt in prompts}
        self.lengths = sorted({len(prompt) for prompt in self.prompts}, reverse=True)

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:
        """Whether each row, (rows, length) token ids of prompt and branch, ends here; (rows,) bool."""
        met = [self._met(ids) for ids in input_ids.tolist()]
        return torch.tensor(met, dtype=torch.bool, device=input_ids.device)

    def for_branch(self) -> StopTexts:
        """Itself: it keeps nothing about a branch."""
        return self

    def _met(self, ids: list[int]) -> bool:
        if not self._says(self._decode(ids[-self.lookback :])):
            return False
        start = next((n for n in self.lengths if tuple(ids[:n]) in self.prompts), 0)
        said = self._decode(ids[start:])
        if self.think_end:
            thought = self.think_end in said or ends_thinking(self._decode(ids[:start]), self.think_end)
            said = said.rpartition(self.think_end)[2] if thought else ""
        return self._says(said)

    def _says(self, said: str) -> bool:
        return any(text in said for text in self.texts)

    def _decode(self, ids: list[int]) -> str:
        return str(self.tokenizer.decode(ids, skip_special_tokens=False))


def cut(text: str, stops: Sequence[str]) -> str:
    r"""The text before the first stop in it.

    >>> cut("7 .\n\nQuestion: 8", ["Question:", "\n\n", ""])
    '7 .'
    """
    ends = [text.index(stop) for stop in stops if stop and stop in text]
    return text[: min(ends)] if ends else text
