"""What `custom_generate/generate.py` of a controller's repo calls: the controller on a stock model of transformers.

    output = model.generate(**inputs, custom_generate="user/repo", trust_remote_code=True, revision=COMMIT, beta=0.5)

Whoever passes `trust_remote_code=True` to transformers lets it run `generate.py` of that repo; the controller's own
code, beside it, is checked against its card before it runs all the same. Old repos call this, so it stays as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, PreTrainedModel

from tts_generate.engine.generate import EnabledGenerate
from tts_generate.errors import InputError
from tts_generate.hub.card import CARD
from tts_generate.hub.source import Source, read_source
from tts_generate.loading import budget_of, class_of, load_controller, set_by_hand

_LOADING = {
    "cache_dir", "code_revision", "force_download", "local_files_only", "proxies", "repo_type", "revision",
    "subfolder", "token",
}  # fmt: skip
"""Arguments by which transformers found the repo, and which it hands on."""


def answer(model: PreTrainedModel, card: str, code: Path | None, arguments: Mapping[str, Any]) -> Any:
    """Answer the prompts with a repo's controller, as `generate(strategy="autotts")` would.

    Args:
        model: a causal language model of transformers.
        card: the text of the repo's `controller.json`.
        code: its code file; None for a controller that is data alone.
        arguments: those of `generate` and of `AutoTTS`; `tokenizer` is looked up by the model's name if left out.

    Returns:
        What `generate` returns: (questions, length) token ids, or an `AutoTTSOutput`.

    Raises:
        ControllerError: the code is not what the card says.
        InputError: no tokenizer, or an argument that nobody knows.
    """
    given = {name: value for name, value in arguments.items() if name not in _LOADING}
    source = _source(card, code)
    budget = budget_of(source, given.pop("beta", None))
    latency = given.pop("latency", None)
    controller = class_of(source).from_beta(budget, **set_by_hand(given.pop("controller_kwargs", None)))
    controller = load_controller(controller, latency=latency)
    tokenizer = given.pop("tokenizer", None) or _tokenizer_of(model)
    return EnabledGenerate(model, tokenizer, None)(strategy="autotts", controller=controller, **given)


@lru_cache(maxsize=64)
def _source(card: str, code: Path | None) -> Source:
    folder = code.parent if code is not None else Path()

    def read(name: str, limit: int) -> bytes:
        if name == CARD or code is None:
            return card.encode()
        return code.read_bytes()

    return read_source(folder, read, lambda name: str(folder / name))


def _tokenizer_of(model: PreTrainedModel) -> Any:
    name = model.config._name_or_path
    try:
        return _tokenizer(name)
    except (OSError, ValueError) as error:
        raise InputError(
            f"reading answers needs the tokenizer, and none can be loaded by the model's name {name!r} "
            f"({str(error).splitlines()[0]}); pass tokenizer=tokenizer."
        ) from error


@lru_cache(maxsize=8)
def _tokenizer(name: str) -> Any:
    return AutoTokenizer.from_pretrained(name)
