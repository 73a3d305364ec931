"""`tts-generate inspect`: what it shows is what a recording of the same branch reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from engine_models import QUESTIONS, make_model, make_tokenizer
from transformers import MambaConfig, MambaForCausalLM
from typer.testing import CliRunner

from tts_generate import Question, record
from tts_generate.answers import AnswerFormat
from tts_generate.cli import app
from tts_generate.engine.inspection import inspect_model
from tts_generate.errors import InputError

REAL = Path("/work/real/smollm2")
"""A real model, where there is one: see shared/real."""
PLAIN = "{% for m in messages %}{{ 'Q: ' + m.content }}{% endfor %}{% if add_generation_prompt %}{{ ' .' }}{% endif %}"


def inspect(folder: Path, *arguments: str, code: int = 0) -> tuple[str, dict[str, Any]]:
    """What the command shows, and what it writes."""
    result = CliRunner().invoke(app, ["inspect", *arguments, "--json", str(folder / "i.json")])
    assert result.exit_code == code, result.output
    return result.output, json.loads((folder / "i.json").read_text("utf-8"))


def test_the_model_that_ships_here(tiny: tuple[Any, Any], tmp_path: Path) -> None:
    output, found = inspect(tmp_path, "tiny", "--seed", "0")
    assert found["format"] == "tts-inspect/1"
    assert (found["refused"], found["finish_reason"], found["chat"]) == (None, "eos", False)
    assert AnswerFormat(**found["asked"]) == AnswerFormat("</think>\\boxed{", "</think>", max_probe_tokens=4)
    half, question = found["half"], Question("0", found["prompt"])
    assert half["tokens"] == found["tokens"] // 2
    store = record(*tiny, [question], tmp_path / "s", branches=1, interval_tokens=half["tokens"], progress=False)
    (row,) = store.trajectories()
    assert tiny[1].decode(row.token_ids) == found["text"]
    assert (row.final_answer, row.probe_answers[0]) == (found["answer"], half["answer"])
    assert f"{half['said']!r}: the answer {half['answer']!r}" in output
    assert f"it ended by itself: the answer {found['answer']!r}" in output
    assert "Where none is read" not in output
    assert len(output.splitlines()) <= 40, "a screen"


def saved(folder: Path, model: Any, template: str | None) -> str:
    tokenizer = make_tokenizer()
    tokenizer.chat_template = template
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def test_a_plain_model_of_somebody(tmp_path: Path) -> None:
    """Random weights: nothing sensible is said, and what to do about that is shown."""
    model = saved(tmp_path / "m", make_model("llama"), PLAIN)
    short = ("--max-new-tokens", "4", "--prompt", "a = 3 ; a ?")
    output, found = inspect(tmp_path, model, *short)
    assert found["prompt"].replace(" ", "") == "Q:a=3;a?."
    assert (found["tokens"], found["finish_reason"], found["interval_tokens"]) == (4, "length", 1)
    assert found["asked"]["think_end"] == ""
    assert "none apart: the chat template has none" in output
    told = "no answer is read" if found["answer"] is None else f"the answer {found['answer']!r}"
    assert f"cut by max_new_tokens, and asked there: {told}" in output  # not said by itself
    assert ("Where none is read" in output) == (None in (found["answer"], found["half"]["answer"]))
    _, plain = inspect(tmp_path, model, *short, "--no-chat", "--probe-suffix", "</think>\\boxed{")
    assert plain["prompt"].replace(" ", "") == "a=3;a?"
    assert plain["asked"]["think_end"] == "</think>"
    assert plain["half"]["forced"].replace(" ", "") == "</think>\\boxed{"
    _, given = inspect(tmp_path, model, *short, "--think-end", "")
    assert given["thinking"] == "as given"


def test_a_model_that_is_refused(tmp_path: Path) -> None:
    """All that can be known is shown, with the reason."""
    config = MambaConfig(vocab_size=40, hidden_size=16, num_hidden_layers=1, eos_token_id=2, pad_token_id=0)
    output, found = inspect(tmp_path, saved(tmp_path / "m", MambaForCausalLM(config), None), code=1)
    assert "refused: MambaForCausalLM keeps states, and keys and values in no layer" in " ".join(output.split())
    assert found["refused"].startswith("MambaForCausalLM")
    assert found["text"] == ""
    assert "'</think>': it is a token, and there is no chat template" in output


def test_a_branch_too_short_for_a_half() -> None:
    found = inspect_model(make_model("qwen3"), make_tokenizer(), QUESTIONS[0], max_new_tokens=1)
    assert (found.tokens, found.half) == (1, None)
    with pytest.raises(InputError, match="context of 256"):
        inspect_model(make_model("qwen3"), make_tokenizer(), QUESTIONS[0], max_new_tokens=300)
    with pytest.raises(InputError, match="chat template"):
        inspect_model(make_model("qwen3"), make_tokenizer(), QUESTIONS[0], chat=True)


@pytest.mark.long
@pytest.mark.skipif(not REAL.is_dir(), reason=f"{REAL} is not here; see shared/real")
def test_a_real_model(tmp_path: Path) -> None:
    output, found = inspect(tmp_path, str(REAL), "--max-new-tokens", "8")
    assert (found["refused"], found["chat"], found["tokens"]) == (None, True, 8)
    assert found["half"]["forced"] == found["asked"]["probe_suffix"] == "\n\nThe final answer is \\boxed{"
    assert len(output.splitlines()) <= 40, "a screen"
