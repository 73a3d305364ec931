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


def export(folder: str | Path) -> Path:
    """Write the model and its tokenizer for servers whose kernels want heads that are 32 columns wide (vLLM).

    The heads are filled up with zeros. The model says the same, to rounding: what turns positions into angles, and
    what is divided by the width of a head, is set right for the new one.
    """
    import torch

    model, tokenizer = load()
    config, old, width = model.config, model.config.head_dim, 32
    half, new_half = old // 2, width // 2
    state = model.state_dict()
    for name, tensor in state.items():
        kind = name.split(".")[-2]
        if kind in ("q_proj", "k_proj", "v_proj"):
            rows = tensor.new_zeros(tensor.shape[0] // old, 2, new_half, tensor.shape[1])
            rows[:, :, :half] = tensor.view(-1, 2, half, tensor.shape[1])
            state[name] = rows.flatten(0, 2)
        elif kind == "o_proj":
            columns = tensor.new_zeros(tensor.shape[0], tensor.shape[1] // old, 2, new_half)
            columns[..., :half] = tensor.view(tensor.shape[0], -1, 2, half)
            state[name] = columns.flatten(1)
        elif kind in ("q_norm", "k_norm"):
            columns = tensor.new_zeros(2, new_half)
            columns[:, :half] = tensor.view(2, half)
            # The mean square is of more columns; scores are divided by the root of their number, which undoes it once.
            state[name] = columns.flatten() * (1.0 if kind == "q_norm" else (old / width) ** 0.5)
    config.head_dim = width
    config.rope_parameters["rope_theta"] **= width / old
    wide = type(model)(config)
    wide.load_state_dict(state)
    wide.generation_config = model.generation_config
    for each in (wide.to(torch.float32), tokenizer):
        each.save_pretrained(folder)
    return Path(folder)


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
