"""How many operations a GPU's passes launch while a recording's rows probe and end out of step; counted on any CPU.

    python benchmarks/gpu_calls.py [OUT.json]

The shipped tiny model is recorded in the passes that a GPU gets, prompts standing once. `few` is as it is now; `cut` a
call for each run of neighbouring rows and each prompt, as it was when a recording on an H100 was more than ten times
slower than the card's profile says. What is told is operations of torch in a pass and layer, the model's own included.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any
from unittest import mock

import numpy as np
import torch
import typer
from torch.utils._python_dispatch import TorchDispatchMode

from tts_generate import tiny
from tts_generate.engine import decoder, enable, record, shared
from tts_generate.engine.decoder import Decoder
from tts_generate.engine.shapes import ALL_ROWS, Shapes

ROOT = Path(__file__).resolve().parent.parent
SIZES = {"one_question": 1, "sixteen_questions": 16}
BRANCHES, STEP = 64, 32


class Calls(TorchDispatchMode):
    """Counts operations of passes."""

    def __init__(self) -> None:
        super().__init__()
        self.passes: list[int] = []

    def of(self, run: Callable[..., Any]) -> Callable[..., Any]:
        """`run`, of which each call is a pass."""

        def counting(*args: Any) -> Any:
            self.passes.append(0)
            with self:
                return run(*args)

        return counting

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.passes[-1] += 1
        return func(*args, **(kwargs or {}))


def counted(questions: int, few: bool) -> dict[str, float]:
    """Operations a pass and layer, over the passes of one recording."""
    model, tokenizer = tiny.load()
    enable(model, tokenizer=tokenizer)
    calls = Calls()
    with (
        mock.patch.object(decoder, "shapes_of", return_value=Shapes(block=ALL_ROWS)),
        mock.patch.object(Decoder, "in_row", property(lambda self: self.packed)),
        mock.patch.object(Shapes, "few_calls", property(lambda self: few)),
        mock.patch.object(shared, "LEAST", 1),
        mock.patch.object(Decoder, "run", calls.of(Decoder.run)),
        tempfile.TemporaryDirectory() as folder,
    ):
        asked = tiny.questions("record")[:questions]
        how: dict[str, Any] = {"branches": BRANCHES, "interval_tokens": STEP, "max_rows": 1024, "progress": False}
        record(model, tokenizer, asked, folder + "/store", **how)
    each = np.array(calls.passes) / model.config.num_hidden_layers
    return {"passes": len(each), "median": float(np.median(each)), "mean": float(each.mean())}


def main(out: Annotated[Path, typer.Argument()] = ROOT / "benchmarks" / "results" / "gpu_calls.json") -> None:
    """Count, and write."""
    ways = {"few": True, "cut": False}
    found = {name: {size: counted(questions, few) for size, questions in SIZES.items()} for name, few in ways.items()}
    ratio = {size: found["cut"][size]["mean"] / found["few"][size]["mean"] for size in SIZES}
    result = {"format": "tts-benchmark/1", "torch": torch.__version__, **found, "cut_over_few": ratio}
    out.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    typer.run(main)
