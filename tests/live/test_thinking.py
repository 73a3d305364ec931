"""How a model is asked follows from its tokenizer: by templates in the shapes of real ones, and real tokenizers."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
from chat_templates import OFF, SPECIAL, TEMPLATES, tokenizer_of
from engine_models import QUESTIONS, make_model, make_tokenizer
from transformers import AutoTokenizer
from typer.testing import CliRunner

from tts_generate import enable, record
from tts_generate.answers import AnswerFormat
from tts_generate.cli import app
from tts_generate.errors import InputError, StoreFormatError, UnsupportedError
from tts_generate.live.branch import Branch, Probe
from tts_generate.live.reader import Reader
from tts_generate.live.task import Prompt, prompt_of
from tts_generate.live.thinking import ENDS, asked_of, thinking_of
from tts_generate.trajectories import Question

REAL = Path("/work/real")
"""Real models, where there are some: see shared/real."""
THINKS = "\n</think>\n\n\\boxed{"
PLAIN = "\n\nThe final answer is \\boxed{"
CHANNELS = "<|channel|>final<|message|>"
CASES = [
    ("plain", SPECIAL, "", PLAIN),
    ("qwen3", SPECIAL, "</think>", THINKS),
    ("always_thinks", SPECIAL, "</think>", THINKS),
    ("r1", SPECIAL, "</think>", THINKS),
    ("r1_first", SPECIAL, "</think>", THINKS),
    ("gpt_oss", SPECIAL, CHANNELS, f"<|end|><|start|>assistant{CHANNELS}\\boxed{{"),
    ("gemma4", SPECIAL, "<channel|>", "\n<channel|>\\boxed{"),
    ("magistral", SPECIAL, "[/THINK]", "[/THINK]\\boxed{"),
    (None, ["<|im_end|>"], "", PLAIN),
    (None, ["<think>", "</think>"], "</think>", THINKS),
    (None, ["<|channel|>", "<|message|>"], CHANNELS, f"<|end|><|start|>assistant{CHANNELS}\\boxed{{"),
]


@pytest.mark.parametrize(("template", "special", "end", "suffix"), CASES)
def test_what_ends_the_thinking(template: str | None, special: list[str], end: str, suffix: str) -> None:
    """A template decides, though the vocabulary may have a token for what it never writes; without one, the tokens."""
    tokenizer = tokenizer_of(template, special)
    asked = asked_of(tokenizer)
    assert (asked.think_end, asked.probe_suffix) == (end, suffix)
    assert asked == AnswerFormat(probe_suffix=suffix, think_end=end)
    assert asked.find(f"so 3 or \\boxed{{4}}{asked.probe_suffix}7}}") == "7"
    assert asked.find("so \\boxed{4}") == "4"
    for name, opening in (("hashes", "#### "), ("sentence", "The answer is ")):
        assert (
            asked_of(tokenizer, answer_pattern=name).probe_suffix
            == (suffix if end else "\n\n").removesuffix("\\boxed{") + opening
        )


def test_what_is_given_stands() -> None:
    """Each option for itself; what is left out follows from the others, then from the tokenizer."""
    qwen, plain = tokenizer_of("qwen3"), tokenizer_of("plain")
    assert asked_of(qwen, think_end="").probe_suffix == PLAIN
    assert asked_of(plain, think_end="</think>").probe_suffix == THINKS
    assert asked_of(plain, think_end="<end_of_thought>").probe_suffix == "\n<end_of_thought>\n\n\\boxed{"
    assert asked_of(plain, probe_suffix="</think>\\boxed{").think_end == "</think>"
    assert asked_of(plain, probe_suffix="Answer: ").think_end == ""
    assert asked_of(qwen, probe_suffix="Answer: ") == AnswerFormat("Answer: ", "</think>")
    assert asked_of(None) == AnswerFormat(), "no tokenizer: as ever"
    assert asked_of(qwen, max_probe_tokens=4, answer_pattern=r"is (\d)").probe_suffix == THINKS
    several = copy.deepcopy(qwen)
    several.chat_template = {"default": TEMPLATES["plain"], "tool_use": TEMPLATES["qwen3"]}
    assert thinking_of(several).end == ""


def reader_of(name: str, **turns: Any) -> tuple[Reader, Branch]:
    """What reads the branches of a template's model, and one of a question in it."""
    tokenizer = tokenizer_of(name)
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": "How many?"}], tokenize=False, add_generation_prompt=True, **turns
    )
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    reader = Reader(tokenizer, asked_of(tokenizer, answer_pattern="boxed"))
    return reader, Branch(0, 0, ids, thought=reader.thought(Prompt(ids)))


def said_of(reader: Reader, branch: Branch, text: str) -> tuple[str, str | None]:
    """What is forced behind a branch that has said a text, and what it states by itself."""
    branch.ids = reader.tokenizer(text, add_special_tokens=False)["input_ids"]  # type: ignore[operator]
    branch.finish_reason = "eos"
    begun = reader.begin_probe(branch)
    return reader.text(begun.forced) if isinstance(begun, Probe) else "", reader.final_answer(branch)


def test_a_switch_that_is_off_closes_the_thinking() -> None:
    """`enable_thinking=False`: nothing to end, and what is said is the answer, not a thought."""
    reader, branch = reader_of("qwen3", enable_thinking=False)
    assert branch.thought == "</think>"
    assert said_of(reader, branch, "It is 3 or 4, so") == ("\\boxed{", None)
    assert said_of(reader, branch, "It is \\boxed{4}.") == ("", "4")
    for name in ("gemma4", "v3"):
        reader, branch = reader_of(name)
        assert branch.thought == reader.format.think_end != ""
        assert said_of(reader, branch, "It is 3 or 4, so") == ("\\boxed{", None)
    reader, branch = reader_of("qwen3")
    assert branch.thought == ""
    assert said_of(reader, branch, "<think>\nIt is \\boxed{3} or") == (THINKS, "3")
    assert said_of(reader, branch, "<think>\n\\boxed{3}\n</think>\n\nIt is") == ("\\boxed{", None)


def test_channels() -> None:
    """The final channel is what is said; a probe goes there, or stays there."""
    reader, branch = reader_of("gpt_oss")
    thought = "<|channel|>analysis<|message|>Is it \\boxed{3}? No"
    final = f"{thought}<|end|><|start|>assistant{CHANNELS}"
    assert said_of(reader, branch, thought)[0] == f"<|end|><|start|>assistant{CHANNELS}\\boxed{{"
    assert said_of(reader, branch, f"{final}It is") == ("\\boxed{", None)
    assert said_of(reader, branch, f"{final}It is \\boxed{{4}}.<|return|>") == ("", "4")
    assert len(reader.suffix_ids(reader.format.probe_suffix)) == len("assistant") + len("final") + len("\\boxed{") + 4


@pytest.mark.parametrize(
    ("template", "text", "answer"),
    [
        ("plain", "67<|im_end|>", "67"),
        ("plain", "The answer is Paris<|im_end|><|im_end|>", "Paris"),
        ("plain", "#### 7<|im_end|>", "7"),
        ("gpt_oss", f"<|channel|>analysis<|message|>3?<|end|><|start|>assistant{CHANNELS}67<|return|>", "67"),
        ("magistral", "[THINK]so 3[/THINK]67<|im_end|>", "67"),
        ("magistral", "[THINK]it is \\boxed{3}[/THINK]", None),
        ("plain", "6<|im_end|>7", "6<|im_end|>7"),
    ],
)
def test_what_ends_a_branch_is_no_part_of_its_answer(template: str, text: str, answer: str | None) -> None:
    """Nor of a probe's; the end of a thinking, which may be a special token too, stays one."""
    reader, branch = reader_of(template)
    reader = Reader(reader.tokenizer, asked_of(reader.tokenizer, answer_pattern="auto"))
    assert said_of(reader, branch, text)[1] == answer
    probe = Probe(1, [], "", 0, said=list(branch.ids))
    if template == "plain" and "answer" in text:
        assert reader.probe_answer(probe, True) == (True, answer)


def test_a_special_token_that_ends_no_branch_is_no_answer() -> None:
    """Of a branch that is cut behind one, which a pattern takes for an answer, the answer is asked for."""
    tokenizer = make_tokenizer()
    how = {"answer_pattern": r"\w+", "think_end": "</think>", "probe_suffix": "</think> \\boxed{"}
    reader = Reader(tokenizer, asked_of(tokenizer, **how))
    branch = Branch(0, 0, [7, 8], ids=tokenizer("a </think> <unk>")["input_ids"], finish_reason="length")
    branch.final_answer = reader.final_answer(branch)
    assert branch.final_answer is None
    assert reader.at_end(branch) is not None


def test_forced_text_is_the_model_s_own_tokens() -> None:
    """Of every end whose tokens a vocabulary has, those are what is fed."""
    for end in ENDS:
        tokenizer = tokenizer_of("{# " + end + " #}", [*SPECIAL, end])
        asked = asked_of(tokenizer)
        assert asked.think_end == end
        ids = tokenizer(asked.probe_suffix, add_special_tokens=False)["input_ids"]
        assert tokenizer.decode(ids, skip_special_tokens=False) == asked.probe_suffix


def test_the_model_that_ships_here_is_asked_as_ever(tiny: tuple[Any, Any]) -> None:
    model, tokenizer = tiny
    config = model.generation_config
    asked = asked_of(tokenizer, probe_suffix=config.probe_suffix, max_probe_tokens=config.max_probe_tokens)
    assert asked == AnswerFormat("</think>\\boxed{", "</think>", max_probe_tokens=4)
    assert asked_of(tokenizer) == AnswerFormat()


@pytest.mark.parametrize("name", ["smollm2", "qwen05"])
def test_real_tokenizers(name: str) -> None:
    """Plain instruct models, in whose template nothing is thought."""
    if not (REAL / name).is_dir():
        pytest.skip(f"{REAL / name} is not here; see shared/real")
    tokenizer = AutoTokenizer.from_pretrained(REAL / name)
    assert thinking_of(tokenizer).end == ""
    assert asked_of(tokenizer) == AnswerFormat(PLAIN, "")
    prompt = prompt_of(tokenizer, [{"role": "user", "content": "How many?"}], "it")
    assert Reader(tokenizer, asked_of(tokenizer)).thought(prompt) == ""


@pytest.mark.filterwarnings("ignore::tts_generate.errors.NoAnswerWarning")
def test_it_is_written_into_a_recording(tmp_path: Path) -> None:
    """And goes on where it was recorded so, whoever says it."""
    tokenizer, questions = make_tokenizer(), [Question(str(n), text) for n, text in enumerate(QUESTIONS[:2])]
    model = enable(make_model("llama"), tokenizer=tokenizer)
    how = {"branches": 2, "interval_tokens": 8, "max_new_tokens": 16, "max_probe_tokens": 4, "progress": False}
    store = record(model, tokenizer, questions, tmp_path / "thinks", **how)
    assert store.manifest.probe["format"]["think_end"] == "</think>"
    assert store.manifest.probe["format"]["probe_suffix"] == THINKS
    tokenizer.chat_template = TEMPLATES["plain"]
    store = record(model, tokenizer, questions, tmp_path / "plain", **how)
    told = store.manifest.probe["format"]
    assert (told["think_end"], told["probe_suffix"]) == ("", PLAIN)
    again = record(model, tokenizer, questions, tmp_path / "plain", think_end="", probe_suffix=PLAIN, **how)
    assert again.trajectories() == store.trajectories()


@pytest.mark.filterwarnings("ignore::tts_generate.errors.NoAnswerWarning")
def test_a_recording_without_thinking(tmp_path: Path) -> None:
    """The chat template's own switch, by hand and by the command line; a template that ignores it is told."""
    tokenizer, questions = make_tokenizer(), [Question("0", QUESTIONS[0])]
    tokenizer.chat_template = "{% for m in messages %}Q: {{ m['content'] }} A:{% endfor %}" + OFF
    model = enable(make_model("llama"), tokenizer=tokenizer)
    how = {"branches": 2, "interval_tokens": 8, "max_new_tokens": 16, "max_probe_tokens": 4, "progress": False}
    thinks = record(model, tokenizer, questions, tmp_path / "thinks", chat=True, **how)
    store = record(model, tokenizer, questions, tmp_path / "off", chat={"enable_thinking": False}, **how)
    assert (thinks.manifest.tokenizer["chat"], store.manifest.tokenizer["chat"]) == (True, {"enable_thinking": False})
    assert store.trajectories()[0].prompt_tokens > thinks.trajectories()[0].prompt_tokens
    with pytest.raises(StoreFormatError, match="other settings"):
        record(model, tokenizer, questions, tmp_path / "off", chat=True, **how)
    with pytest.raises(InputError, match="true or false"):
        record(model, tokenizer, questions, tmp_path / "x", chat={"enable_thinking": "no"}, **how)
    tokenizer.chat_template = TEMPLATES["plain"]
    with pytest.raises(UnsupportedError, match="same prompt with and without"):
        record(model, tokenizer, questions, tmp_path / "x", chat={"enable_thinking": False}, **how)
    said = CliRunner().invoke(app, ["record", "tiny", "--out", str(tmp_path / "y"), "--no-enable-thinking"])
    assert "add --chat" in " ".join((said.stdout + said.stderr).split())
