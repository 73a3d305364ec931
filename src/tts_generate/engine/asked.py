"""What the caller asks of `generate`, told apart from how a checkpoint's generation config says to decode."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformers import GenerationConfig

_OURS: dict[str, Any] = {
    "do_sample": True,
    "num_beams": 1,
    "num_return_sequences": 1,
    "penalty_alpha": None,
    "dola_layers": None,
    "prompt_lookup_num_tokens": None,
    "use_cache": True,
    "cache_implementation": None,
    "compile_config": None,
    "output_scores": False,
    "output_logits": False,
    "output_attentions": False,
    "output_hidden_states": False,
}
"""Ways to decode, as strategy='autotts' has them; what shapes the distribution of the tokens is not among them."""


def with_our_ways(own: GenerationConfig, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of `generate` that put our way to decode over the model's own, where the caller says nothing of it.

    Args:
        own: the model's generation config. That its `cache_implementation` is "static" stays: we have that too.
        kwargs: what the caller passes; a `generation_config` among it says what it does not have from `own`.

    >>> checkpoint = GenerationConfig(num_beams=4, cache_implementation="hybrid")
    >>> with_our_ways(checkpoint, {"use_cache": False, "temperature": 0.6})
    {'use_cache': False, 'temperature': 0.6, 'do_sample': True, 'num_beams': 1, 'cache_implementation': None}
    """
    given, added = kwargs.get("generation_config"), {}
    for name, ours in _OURS.items():
        kept = getattr(own, name, None)
        said = getattr(given, name, None)
        if name in kwargs or said not in (None, kept):
            continue
        usual = kept is None and name != "do_sample"
        if not usual and kept not in (ours, "static"):
            added[name] = ours
    return {**kwargs, **added}
