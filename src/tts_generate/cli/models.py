"""Models, tokenizers and devices as commands name them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tts_generate.cli.base import object_of
from tts_generate.errors import InputError
from tts_generate.live.sampling import SAMPLING, wrong_sampling


def load_model(name: str, dtype: str, device: str) -> tuple[Any, Any]:
    """A model ready to decode, and its tokenizer; `tiny` is the one that ships here.

    Raises:
        InputError: there is none, or no such type of numbers.
    """
    import torch

    kind = getattr(torch, dtype, None)
    if not isinstance(kind, torch.dtype):
        raise InputError(f"--dtype must be a torch type such as float32 or bfloat16, got {dtype!r}.")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = _loaded(AutoTokenizer, "tokenizer", name)
    loaded = _loaded(AutoModelForCausalLM, "model", name, dtype=kind)
    return loaded.to(device).eval(), tokenizer


def _loaded(kind: Any, what: str, name: str, **how: Any) -> Any:
    from tts_generate import tiny

    try:
        return kind.from_pretrained(tiny.path() if name == "tiny" else name, **how)
    except Exception as error:  # of whatever kind: it reads what may be anything
        raise InputError(f"{what} {name!r} cannot be loaded: {str(error).partition(chr(10))[0]}") from error


def servers_of(urls: list[str], tokenizer: str | None = None, extra_body: str | None = None, **how: Any) -> Any:
    """A `ServerModel`, its tokenizer by name and its extra body as JSON.

    Raises:
        InputError: no such tokenizer, or no JSON object.
    """
    from transformers import AutoTokenizer

    from tts_generate.server import ServerModel

    return ServerModel(
        urls,
        tokenizer=None if tokenizer is None else _loaded(AutoTokenizer, "tokenizer", tokenizer),
        extra_body=None if extra_body is None else object_of("--extra-body", extra_body),
        **how,
    )


def device_of(text: str) -> str:
    """A device that there is.

    Raises:
        InputError: there is none of that name here.
    """
    import torch

    try:
        torch.empty(1, device=text).tolist()  # on "meta" there are no numbers
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise InputError(f"--device {text!r} cannot be used here: {str(error).splitlines()[0]}.") from error
    return text


def check_sampling(options: Mapping[str, Any]) -> None:
    """Refuse what nothing can be sampled with, before a model is loaded.

    Raises:
        InputError: naming the option.
    """
    for name in set(SAMPLING) & options.keys():
        if wrong := wrong_sampling(name, options[name]):
            raise InputError(f"--{name.replace('_', '-')} {wrong}, got {options[name]!r}.")
