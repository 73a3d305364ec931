"""Reads answers out of token ids: one tokenizer, one answer format."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tts_generate.answers import AnswerFormat
from tts_generate.live.branch import Branch, Probe, ProbeRecord
from tts_generate.live.task import Prompt

_TAIL = 32
"""Tokens of white space at most that a prompt ends with."""


class Reader:
    """Reads what branches and probes have said, and begins probes."""

    def __init__(self, tokenizer: object, answer_format: AnswerFormat) -> None:
        self.tokenizer = tokenizer
        self.format = answer_format
        self._suffixes: dict[str, list[int]] = {}
        added = getattr(tokenizer, "added_tokens_decoder", {})
        self._ends = {
            id_ for id_, token in added.items() if token.special and str(token) not in answer_format.think_end
        }

    @property
    def max_probe_tokens(self) -> int:
        """Tokens of a probed answer at most, the forced suffix not counted."""
        return self.format.max_probe_tokens

    @property
    def max_tokens(self) -> int:
        """Upper bound of one probe's tokens."""
        return len(self.suffix_ids(self.format.probe_suffix)) + self.max_probe_tokens

    def text(self, ids: Sequence[int]) -> str:
        """Decoded text, special tokens kept (they may end the thinking)."""
        decoded: str = self.tokenizer.decode(list(ids), skip_special_tokens=False)  # type: ignore[attr-defined]
        return decoded

    def said(self, ids: Sequence[int]) -> str:
        """The text of a branch or a probe without the special tokens at its end, which are no part of an answer."""
        count = len(ids)
        while count and ids[count - 1] in self._ends:
            count -= 1
        return self.text(ids[:count])

    def thought(self, prompt: Prompt) -> str:
        """What a prompt has said for its branches: one that has ended the thinking is read as if they had."""
        if prompt.text is not None:
            return self.format.thought(prompt.text)
        return self.format.thought(self.text(prompt.ids[-_TAIL - len(self.format.think_end) :]))

    def suffix_ids(self, suffix: str) -> list[int]:
        """Token ids of a suffix, without any special tokens of the tokenizer's own."""
        if suffix not in self._suffixes:
            ids = self.tokenizer(suffix, add_special_tokens=False)["input_ids"]  # type: ignore[operator]
            self._suffixes[suffix] = list(ids)
        return self._suffixes[suffix]

    def final_answer(self, branch: Branch) -> str | None:
        """The answer that a finished branch states."""
        return self.format.find(branch.thought + self.said(branch.ids), ended=not branch.cut, cut=branch.cut)

    def begin_probe(self, branch: Branch, position: int | None = None) -> Probe | ProbeRecord:
        """A probe after `position` tokens, or all; its result at once, where the branch has stated its answer."""
        ids = branch.ids[:position]
        text = branch.thought + self.text(ids)
        end = text.rfind(self.format.think_end) if self.format.think_end else -1
        said = branch.thought + self.said(ids) if self._ends.issuperset(ids[-1:]) else text
        stated = self.format.find(said, cut=True) if end >= 0 else None
        if stated is not None:
            return ProbeRecord(len(ids), stated, 0, None)
        suffix = self.suffix_ids(self.format.suffix_for(text))
        again = None if suffix else ids[-1]
        base = branch.prompt_columns + len(ids) - (again is not None)
        return Probe(len(ids), suffix, text[end:] if end >= 0 else "", base, again)

    def at_end(self, branch: Branch) -> Probe | None:
        """A probe of a branch that was cut and has not stated its answer; None where there is nothing to ask."""
        if not (self.format.force_answer and branch.cut and branch.final_answer is None):
            return None
        begun = self.begin_probe(branch)
        assert isinstance(begun, Probe)  # it has stated nothing
        return replace(begun, base=branch.prompt_columns + len(branch.ids) - 1, again=branch.ids[-1], at_end=True)

    def probe_answer(self, probe: Probe, ended: bool) -> tuple[bool, str | None]:
        """Whether the probe is complete, and its answer if so; complete too when it `ended` or ran out of tokens."""
        text = probe.text + self.said([*probe.forced, *probe.said])
        exhausted = ended or len(probe.said) >= self.max_probe_tokens
        complete = exhausted or self.format.closed(text)
        return complete, self.format.find(text) if complete else None
