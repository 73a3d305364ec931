"""The shipped tiny model: small, sane, and with questions on which the number of votes matters."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer, GenerationConfig, PreTrainedTokenizerBase, Qwen3ForCausalLM

from tts_generate import tiny
from tts_generate.answers import AnswerFormat
from tts_generate.errors import UnknownNameError

CARD = Path(__file__).parents[1] / "benchmarks" / "results" / "tiny_card.json"
PROGRAM = re.compile(r"Q:((?: [a-j] = [^;]+ ;)+) ([a-j]) \? <think>")


@pytest.fixture(scope="module")
def loaded() -> tuple[Qwen3ForCausalLM, PreTrainedTokenizerBase]:
    return tiny.load()


@pytest.fixture(scope="module")
def card() -> dict[str, Any]:
    return json.loads(CARD.read_text(encoding="utf-8"))


def solve(question: str) -> str:
    """The right answer, worked out by Python itself from the question's text."""
    program = PROGRAM.fullmatch(question)
    assert program is not None, question
    values: dict[str, int] = {}
    for line in program[1].split(";")[:-1]:
        name, expression = line.split("=")
        values[name.strip()] = eval(expression, {}, values) % 10
    return str(values[program[2]])


def test_every_shipped_file_is_small() -> None:
    sizes = {file.name: file.stat().st_size for file in tiny.path().iterdir() if file.is_file()}
    assert sum(sizes.values()) <= 1_000_000, sizes


def test_weights_are_float32_in_memory_and_ready_to_decode(loaded: tuple[Any, Any]) -> None:
    model, _ = loaded
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert not model.training
    assert model.config.model_type == "qwen3"


def test_generation_settings_survive_saving(loaded: tuple[Any, Any], tmp_path: Path) -> None:
    loaded[0].generation_config.save_pretrained(tmp_path)
    settings = GenerationConfig.from_pretrained(tmp_path)
    assert (settings.do_sample, settings.temperature, settings.top_k, settings.top_p) == (True, 1.0, 0, 1.0)
    assert settings.probe_suffix == "</think>\\boxed{"
    assert settings.interval_tokens >= 1
    assert settings.max_probe_tokens >= 2


@pytest.mark.parametrize(("split", "least"), [("record", 48), ("test", 200)])
def test_gold_answers_are_right(split: Any, least: int) -> None:
    questions = tiny.questions(split)
    assert len(questions) >= least
    assert len({q.question_id for q in questions}) == len(questions)
    assert [q.gold_answer for q in questions] == [solve(q.question) for q in questions]


def test_question_sets_are_disjoint() -> None:
    record, test = ({q.question for q in tiny.questions(split)} for split in tiny.SPLITS)
    assert not record & test


def test_unknown_question_set_is_refused() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'test'"):
        tiny.questions("tests")  # type: ignore[arg-type]


def test_tokenizer_round_trip(loaded: tuple[Any, Any]) -> None:
    _, tokenizer = loaded
    for split in tiny.SPLITS:
        for q in tiny.questions(split):
            ids = tokenizer(q.question)["input_ids"]
            assert tokenizer.unk_token_id not in ids
            assert tokenizer.decode(ids) == q.question
            assert tokenizer(q.question.replace(" ", ""))["input_ids"] == ids


def test_probe_suffix_is_the_text_of_an_answer_cut_short(loaded: tuple[Any, Any]) -> None:
    model, tokenizer = loaded
    suffix = tokenizer(model.generation_config.probe_suffix)["input_ids"]
    assert tokenizer.convert_ids_to_tokens(suffix) == ["</think>", "\\boxed{"]
    whole = tokenizer("so c = 7 . </think> \\boxed{ 7 } <eos>")["input_ids"]
    assert whole[-5:-3] == suffix
    assert tokenizer.decode(whole, skip_special_tokens=True).endswith("\\boxed{ 7 }")


def test_greedy_answers_are_sensible_alone_and_left_padded(loaded: tuple[Any, Any]) -> None:
    model, tokenizer = loaded
    questions = tiny.questions("record")[:16]
    greedy = {"do_sample": False, "temperature": None, "top_k": None, "top_p": None}
    inputs = tokenizer([q.question for q in questions], return_tensors="pt", padding=True)
    assert (inputs["attention_mask"][:, -1] == 1).all(), "padded on the left"
    together = tokenizer.batch_decode(model.generate(**inputs, **greedy), skip_special_tokens=True)
    answers = [AnswerFormat(model.generation_config.probe_suffix).find(text) for text in together]
    assert set(answers) <= set("0123456789")
    assert sum(a == q.gold_answer for a, q in zip(answers, questions, strict=True)) >= 8
    for q, text in list(zip(questions, together, strict=True))[:4]:
        alone = model.generate(**tokenizer(q.question, return_tensors="pt"), **greedy)
        assert tokenizer.decode(alone[0], skip_special_tokens=True) == text
        assert text.startswith(q.question)


def test_card_is_about_the_shipped_files(card: dict[str, Any]) -> None:
    assert card["format"] == "tts-tiny-card/1"
    assert card["questions"] == len(tiny.questions("test")) >= 200
    assert card["branches"] == 64
    assert card["bytes"]["weights"] == (tiny.path() / "model.safetensors").stat().st_size
    assert card["training"] == json.loads((tiny.path() / "training.json").read_text(encoding="utf-8"))


def test_card_shows_what_matters(card: dict[str, Any]) -> None:
    """The targets of the tiny model: votes help, many votes help more, depth helps, and questions differ."""
    assert card["gap"]["votes_64_over_1"]["mean"] >= 0.08
    assert card["gap"]["votes_64_over_8"]["mean"] >= 0.03
    assert card["gap"]["votes_64_over_8"]["low"] > 0
    assert card["length_p90_over_p10"] >= 2
    assert card["unfinished_share"] <= 0.02
    assert card["training"]["seconds"] <= 15 * 60
    for voters in ("branch", "majority"):
        shallow_to_deep = [card["probes"][f"percent_{p}"][voters] for p in (25, 50, 75, 100)]
        assert shallow_to_deep == sorted(shallow_to_deep)
    hardest, *middle, easiest = card["pass_at_1_histogram"]
    assert min(hardest, easiest) >= 2
    assert sum(middle) >= card["questions"] / 2


def test_with_wider_heads_it_says_the_same(
    loaded: tuple[Qwen3ForCausalLM, PreTrainedTokenizerBase], tmp_path: Path
) -> None:
    model, tokenizer = loaded
    wide = Qwen3ForCausalLM.from_pretrained(tiny.export(tmp_path / "wide"), dtype=torch.float32).eval()
    assert (model.config.head_dim, wide.config.head_dim) == (24, 32)
    for question in tiny.questions("test")[:3]:
        ids = tokenizer(question.question, return_tensors="pt").input_ids
        with torch.inference_mode():
            apart = (model(ids).logits - wide(ids).logits).abs().max()
        assert apart < 1e-4
    assert AutoTokenizer.from_pretrained(tmp_path / "wide")(question.question) == tokenizer(question.question)
