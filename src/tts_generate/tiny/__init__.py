"""The tiny reasoning model shipped with the package: small enough for a laptop core, unsure enough to need votes.

Its card is `README.md` beside this file; `examples/train_tiny.py` regenerates the folder from nothing.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tts_generate.errors import UnknownNameError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, Qwen3ForCausalLM

    from tts_generate.trajectories.schema import Question

SPLITS = ("record", "test")


def path() -> Path:
    """The folder of the model, as `from_pretrained` takes it.

    >>> (path() / "config.json").is_file()
    True
    """
    return Path(__file__).parent


def load() -> tuple[Qwen3ForCausalLM, PreTrainedTokenizerBase]:
    """The model, ready to decode on the CPU, and its tokenizer, which pads on the left.

    The weights are float16 on disk and float32 in memory: on a CPU, float16 decodes about three times slower.
    """
    import torch
    from transformers import AutoTokenizer, Qwen3ForCausalLM

    model = Qwen3ForCausalLM.from_pretrained(path(), dtype=torch.float32)
    return model.eval(), AutoTokenizer.from_pretrained(path())


def questions(split: Literal["record", "test"]) -> list[Question]:
    """The questions to record, or the kept-aside ones, in random order: the first n of them are a fair sample.

    A question is the prompt text, given to the tokenizer as is; its answer is one digit. The two sets are disjoint,
    and neither occurs in the model's training data.

    Raises:
        UnknownNameError: `split` is neither "record" nor "test".
    """
    from tts_generate.trajectories.schema import Question

    if split not in SPLITS:
        raise UnknownNameError.of("question set", split, SPLITS)
    lines = (path() / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
    return [Question(**json.loads(line)) for line in lines]
