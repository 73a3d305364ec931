"""A few tokens in two rows and a probe, decoded as the engine would and held against the model itself."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel

from tts_generate.engine.cache import Prefix
from tts_generate.engine.decoder import Decoder
from tts_generate.engine.device import input_device, on_device
from tts_generate.engine.memory import out_of_memory
from tts_generate.engine.plan import feed
from tts_generate.engine.shared import Shared
from tts_generate.errors import TTSError
from tts_generate.live.branch import Probe

_WORK = {"cpu": 3e9}
"""Multiplications that a sequence may take on a device, and 1e13 elsewhere: how far windows can be looked behind."""
_FINE, _COARSE = (0.02, 0.1), (0.15, 0.5)
"""Of the spread of a token's logits, how far ours may be off, and how far where the model's own are as noisy; the
second of each where it computes in half precision."""
_GAP = 4
_LENGTHS = re.compile(r"attention_chunk_size|index_topk|block_size|(\w+_)?window(_size)?")


def lengths(config: PreTrainedConfig) -> dict[str, int]:
    """Numbers of tokens in a config beyond which its layers may read otherwise."""
    found = {
        name: value
        for name in config.to_dict()
        if _LENGTHS.fullmatch(name) and isinstance(value := getattr(config, name), int) and value > 1
    }
    blocks = getattr(config, "index_topk_blocks", None)
    if blocks:
        found["index_topk_blocks"] = blocks * config.index_block_size
    window = found.get("sliding_window")
    return {name: length for name, length in found.items() if name == "sliding_window" or length != window}


def reach(model: PreTrainedModel) -> int:
    """Tokens of the longest sequence that is tried."""
    count = sum(parameter.numel() for parameter in model.parameters())
    return int(min(1000, _WORK.get(input_device(model).type, 1e13) / max(1, count)))


class Trial:
    """A few tokens in two rows and a probe, and what the model says of them by itself."""

    noise: float
    """How far a token's logits are off once more tokens come after it: by rounding, or because they are read."""

    def __init__(self, model: PreTrainedModel) -> None:
        config = model.config.get_text_config(decoder=True)
        first = max((length for length in lengths(config).values() if length < reach(model)), default=4) + 5
        ids = _ids(model, first + 40)
        self.prompts = [ids[:first], ids[first : first + 5]]
        self.rows = [ids[first + 5 : first + 8], ids[first + 8 : first + 11]]
        self.forced, self.next = ids[first + 11 : first + 14], ids[first + 14]
        self.model = model
        self._prefilled: list[tuple[Prefix, Tensor]] = []
        probing = [*self.prompts[0], self.rows[0][0], *self.forced, self.next]
        behind = ids[: first - len(self.prompts[1])]  # what comes later is not read, which `noise` shows
        whole = [[*self.prompts[0], *self.rows[0]], [*self.prompts[1], *self.rows[1], *behind]]
        self.want = [*self._plain(whole), *self._plain([probing])]
        self.noise = max(_off(one, two) for one, two in zip(self.want[0][: first + 1], self.want[2], strict=False))
        least, self.most = _FINE if _computes_finely(model) else _COARSE
        self.tolerance = min(max(least, 4 * self.noise), self.most)

    def _plain(self, ids: Sequence[Sequence[int]]) -> Tensor:
        """(B, length, V) logits without a cache."""
        fed = on_device(np.array(ids, np.int64), input_device(self.model))
        logits: Tensor = self.model(input_ids=fed, use_cache=False).logits.float()
        return logits

    def wrong(self, decoder: Decoder, shared: bool = False) -> str:
        """What is wrong with a path; nothing if nothing is."""
        try:
            worst = float(np.max([_off(got, want) for got, want in self._heard(decoder, shared)]))
        except Exception as error:
            raise_ours(error)
            return f"fails ({said(error)})"
        return "" if worst <= self.tolerance else f"is off by {worst:.2g} of the spread of its logits"

    def _heard(self, decoder: Decoder, shared: bool) -> Iterator[tuple[Tensor, Tensor]]:
        """Logits (V,) as decoded, and as the model says."""
        prompted = np.array([len(prompt) for prompt in self.prompts])
        if not self._prefilled:
            self._prefilled = [decoder.prefill(prompt) for prompt in self.prompts]
        prefixes = [prefix for prefix, _ in self._prefilled]
        for (_, logits), want, count in zip(self._prefilled, self.want, prompted, strict=False):
            yield logits, want[count - 1]
        columns = 0 * prompted if shared else prompted
        behind = 3 + _GAP + 5 + decoder.shapes.min_tokens + 1
        cache = decoder.cache
        cache.resize(2, decoder.shapes.capacity(int(columns.max()) + behind), 0)
        for slot, prefix in enumerate(prefixes):
            cache.admit([layer.first(0) for layer in prefix] if shared else prefix, [slot])
        steps = self._steps(int(columns[0]), again=not decoder.packed)
        for step, (fed, probe, wanted) in enumerate(steps):
            slots = np.arange(fed)
            tokens = np.array([self.rows[slot][step] for slot in slots], np.int64)
            probes = [] if probe is None else [(0, probe)]
            plan = feed(slots, tokens, columns[:fed] + step, probes, _GAP, decoder.shapes, decoder.in_row)
            if shared:
                at = plan.plan.slots
                plan.plan.offset = prompted[at]
                plan.plan.shared = [Shared(np.flatnonzero(at == slot), prefixes[slot]) for slot in np.unique(at)]
            logits = decoder.run(on_device(plan.tokens, decoder.device), plan.plan)
            decoder.settle(True)
            own = [self.want[slot][prompted[slot] + step] for slot in slots]
            yield from zip(logits, [*own, *wanted], strict=True)

    def _steps(self, column: int, again: bool) -> Iterator[tuple[int, Probe | None, list[Tensor]]]:
        """How many rows feed a token, the first one's probe, and what is wanted of that.

        Args:
            column: where the first row's own tokens begin.
            again: whether its last token is also read again, which states must have been kept for.
        """
        probe = Probe(1, self.forced, "", column + 1)
        yield 2, None, []
        yield 2, probe, [self.want[2][-2]]
        probe.said.append(self.next)
        yield 2, probe, [self.want[2][-1]]
        if again:
            yield 0, Probe(3, [], "", column + 2, again=self.rows[0][2]), [self.want[0][-1]]


def _computes_finely(model: PreTrainedModel) -> bool:
    rounded = torch.is_autocast_enabled(input_device(model).type) or getattr(model, "is_quantized", False)
    return model.dtype in (torch.float32, torch.float64) and not rounded


def _ids(model: PreTrainedModel, count: int) -> list[int]:
    """Token ids here and there in the vocabulary, none that the configs name."""
    text = model.config.get_text_config(decoder=True)
    named = [value for config in (model.config, text) for name, value in config.to_dict().items() if "token" in name]
    special = [each for value in named for each in (value if isinstance(value, list) else [value])]
    usable = np.setdiff1d(np.arange(text.vocab_size), [each for each in special if isinstance(each, int)])
    ids: list[int] = np.resize(np.random.default_rng(0).permutation(usable), count).tolist()
    return ids


def _off(got: Tensor, want: Tensor) -> float:
    """How far logits (V,) are off, as a share of their spread; those that a model rules out are not looked at."""
    used = want.abs() < 1e4
    want, got = want[used].cpu(), got[used].cpu()
    difference = got - want
    if len(want) < 2:
        return 0.0
    return float((difference - difference.mean()).square().mean().sqrt() / want.std().clamp(min=1e-9))


def raise_ours(error: Exception) -> None:
    """Raise an error that is not the model's fault."""
    if isinstance(error, TTSError) or out_of_memory(error):
        raise error


def said(error: Exception) -> str:
    """An error in one line."""
    text = str(error).strip().split("\n", 1)[0]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
