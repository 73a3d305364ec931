"""What a call returns: the winning branch as token ids, or everything that was decoded and what it took."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers.utils import ModelOutput

from tts_generate.engine.question import Running
from tts_generate.engine.settings import Settings
from tts_generate.live.output import LiveOutput, collected
from tts_generate.live.winner import shown_ids


@dataclass
class Sequences(ModelOutput):
    """Token ids, which come first in an output of transformers."""

    sequences: torch.Tensor | None = None
    """(questions, length) prompt as it was given, with its padding, on whichever side that is + the winning branch,
    which so begins where the prompts' width ends, padded on the right."""


@dataclass
class AutoTTSOutput(LiveOutput, Sequences):
    """Output of `generate(strategy="autotts", return_dict_in_generate=True)`; lists have one entry a question."""

    discarded_tokens: int | None = None
    """Tokens of the whole call decoded ahead of a decision that did not want them; in nobody's cost."""
    questions: list[int] | None = None
    """Which prompts of the call these are: all of them, or with `stream=True` the one that is answered."""


def collect(
    input_ids: torch.Tensor, done: Sequence[Running], settings: Settings, discarded_tokens: int
) -> AutoTTSOutput:
    """Put finished questions, in the order they were asked, into one output."""
    asked = input_ids[[running.index for running in done]]
    tails = [[] if each.winner < 0 else shown_ids(each.branches[each.winner]) for each in done]
    padded = torch.full((len(tails), max(map(len, tails))), settings.pad_token_id, dtype=input_ids.dtype)
    for row, tail in enumerate(tails):
        padded[row, : len(tail)] = torch.tensor(tail)
    return AutoTTSOutput(
        **collected(done, settings.seed),
        sequences=torch.cat([asked, padded.to(input_ids.device)], dim=1),
        discarded_tokens=discarded_tokens,
        questions=[running.index for running in done],
    )
