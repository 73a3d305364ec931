r"""How a model is asked for its answer, where nobody says: what ends its thinking, and what a probe forces to end it.

The end of the thinking is the first of `ENDS` that is found, looked for in this order:

1. in a `probe_suffix` that is given;
2. in the text of the chat template, if the tokenizer has one: what a template never writes, its model is not asked for,
   though its vocabulary may have a token for it (Qwen3-Instruct-2507), and one that only takes thoughts out of earlier
   turns says that there are some (R1 distils);
3. among the tokens, if it has none (base models): an end that is one token of the vocabulary.

A model without any does not think apart, and none is forced into it. Without a tokenizer it is `</think>`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tts_generate.answer_formats import NAMED, named_format
from tts_generate.answers import AnswerFormat

_CHANNELS = "<|channel|>final<|message|>"
"""Begins the answer of gpt-oss, which thinks in the channel `analysis`."""
ENDS = {
    "</think>": "\n</think>\n\n",
    _CHANNELS: f"<|end|><|start|>assistant{_CHANNELS}",
    "<channel|>": "\n<channel|>",
    "[/THINK]": "[/THINK]",
    "<|END_THINKING|>": "<|END_THINKING|>",
    "</seed:think>": "</seed:think>",
    "</thought>": "\n</thought>\n\n",
    "◁/think▷": "◁/think▷",
}
"""Texts that end a thinking, and what is forced to end it: of Qwen3, R1 and many more, gpt-oss, Gemma 4, Magistral,
Command A, Seed-OSS, EXAONE Deep, Kimi-VL."""


@dataclass(frozen=True, slots=True)
class Thinking:
    """What ends a model's thinking, and how that is known."""

    end: str
    """"" for a model that does not think apart."""
    why: str


def thinking_of(tokenizer: Any, probe_suffix: str = "") -> Thinking:
    """What ends the thinking of the model that a tokenizer belongs to."""
    template = getattr(tokenizer, "chat_template", None)
    if isinstance(template, Mapping):
        template = template.get("default") or " ".join(map(str, template.values()))
    if told := next((end for end in ENDS if end in probe_suffix), None):
        return Thinking(told, "the given probe_suffix has it")
    if tokenizer is None:
        return Thinking("</think>", "there is no tokenizer here to say otherwise")
    if template:
        found = next((end for end in ENDS if end in template), "")
        return Thinking(found, f"the chat template has {'it' if found else 'none'}")
    found = next((end for end in ENDS if _one_token(tokenizer, end)), "")
    return Thinking(found, "it is a token, and there is no chat template" if found else "there is no such token")


def _one_token(tokenizer: Any, end: str) -> bool:
    """Whether an end is one token; of channels, their mark."""
    text = "<|channel|>" if end == _CHANNELS else end
    ids = list(tokenizer(text, add_special_tokens=False)["input_ids"])
    return len(ids) == 1 and str(tokenizer.decode(ids, skip_special_tokens=False)).strip() == text


def asked_of(tokenizer: Any, **given: Any) -> AnswerFormat:
    r"""How the model of a tokenizer is asked: as given, and where that is None, as its tokenizer says.

    The suffix ends the thinking and opens an answer as the format has it: behind words, where a box would come out of
    nothing in the middle of a text (SmolLM2 goes on with its text in it).

    >>> asked_of(None, answer_pattern="hashes").probe_suffix, asked_of(None, think_end="").probe_suffix
    ('\n</think>\n\n#### ', '\n\nThe final answer is \\boxed{')
    """
    found = {name: value for name, value in given.items() if value is not None}
    pattern = AnswerFormat(**found).pattern_name  # checks what is given
    if "think_end" not in found:
        found["think_end"] = thinking_of(tokenizer, found.get("probe_suffix", "")).end
    if "probe_suffix" not in found:
        end, box = found["think_end"], NAMED["boxed"]
        way = named_format(pattern) or box
        plain = "\n\nThe final answer is " if way.opening == box.opening else "\n\n"
        found["probe_suffix"] = (ENDS.get(end, f"\n{end}\n\n") if end else plain) + way.opening
    return AnswerFormat(**found)
