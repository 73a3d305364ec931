"""Inspect: the provider gives the answers and tokens of our own evaluation, and its log tells them."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
from collections.abc import Coroutine, Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
from harness_tasks import LENGTH, QUESTIONS, SEED
from harness_tasks import expected as known

pytest.importorskip("inspect_ai", reason="pip install 'tts-generate[inspect]'")

from inspect_ai import Task
from inspect_ai import eval as inspect_eval
from inspect_ai.dataset import Sample
from inspect_ai.log import EvalLog
from inspect_ai.model import ChatMessageSystem, ChatMessageUser, GenerateConfig, get_model
from inspect_ai.scorer import pattern
from inspect_ai.solver import solver
from inspect_ai.tool import ToolInfo

from tts_generate.errors import InputError, UnsupportedError
from tts_generate.harness.asking import repeat_seed
from tts_generate.harness.inspect_ai import _tokens_of, cost
from tts_generate.harness.inspect_model import TTSAPI
from tts_generate.tiny import path

pytestmark = pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)  # streams Inspect leaves open


@pytest.fixture(autouse=True)
def swept() -> Iterator[None]:
    """What Inspect leaves open is found here, not in somebody else's test."""
    yield
    gc.collect()


def provider(tiny: tuple[Any, Any], **options: Any) -> Any:
    model, tokenizer = tiny
    given = {"controller": "cmc", "beta": 0.0, "seed": SEED, **options}
    return get_model("tts/tiny", pretrained=model, tokenizer=tokenizer, memoize=False, **given)


def run(model: Any, folder: Path, *, baseline: str | None = None, **config: Any) -> EvalLog:
    samples = [Sample(input=q.question, target=q.gold_answer, id=q.question_id) for q in QUESTIONS]
    task = Task(
        dataset=samples,
        scorer=[pattern(r"(?s).*boxed\{\s*(\d)"), cost(baseline)],
        config=GenerateConfig(max_tokens=LENGTH, **config),
    )
    (log,) = inspect_eval(
        task, model=model, log_dir=str(folder), display="none", log_level="warning", log_format="json"
    )
    assert log.status == "success", log.error
    return log


def wait(answer: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(answer)


def told(log: EvalLog) -> list[dict[str, Any]]:
    return [(sample.output.metadata or {})["tts"] for sample in log.samples or []]


def metrics(log: EvalLog) -> dict[str, float]:
    assert log.results is not None
    return {name: found.value for score in log.results.scores for name, found in score.metrics.items()}


def test_inspects_cache_is_refused(tiny: tuple[Any, Any]) -> None:
    """Its key has neither controller nor seed: self-consistency's answers and tokens were told as another's."""
    model = provider(tiny)
    with pytest.raises(UnsupportedError, match="cannot be used with Inspect's cache"):
        wait(model.generate("Q", config=GenerateConfig(max_tokens=LENGTH, cache=True)))
    assert wait(model.generate(QUESTIONS[0].question, config=GenerateConfig(max_tokens=LENGTH, cache=False))).choices


def test_same_answers_and_tokens_as_our_own_evaluation(tiny: tuple[Any, Any], tmp_path: Path) -> None:
    log, expected = run(provider(tiny), tmp_path / "logs"), known()
    assert [row["answer"] for row in told(log)] == expected.answers
    assert [row["generated_tokens"] for row in told(log)] == [c.generated_tokens for c in expected.cost or []]
    assert [row["probe_tokens"] for row in told(log)] == [c.probe_tokens for c in expected.cost or []]
    usage = log.stats.model_usage["tts/tiny"]
    assert usage.input_tokens == expected.total_cost.prompt_tokens
    assert usage.output_tokens == expected.total_cost.generated_tokens + expected.total_cost.probe_tokens
    right = [answer == q.gold_answer for answer, q in zip(expected.answers or [], QUESTIONS, strict=True)]
    assert metrics(log)["accuracy"] == pytest.approx(sum(right) / len(right))
    assert metrics(log)["tokens"] == pytest.approx(usage.output_tokens / len(QUESTIONS))

    other = run(provider(tiny, controller="self_consistency"), tmp_path / "other", baseline=log.location)
    saved = 1 - metrics(other)["tokens"] / metrics(log)["tokens"]
    assert metrics(other)["saving"] == pytest.approx(saved)


def test_sequences_that_stop_and_epochs(tiny: tuple[Any, Any], tmp_path: Path) -> None:
    """An epoch asks the same prompts again, with other seeds."""
    log = run(provider(tiny, think_end_token="</think>"), tmp_path, stop_seqs=[";"])
    assert [row["answer"] for row in told(log)] == known().answers
    assert all(sample.output.completion.startswith("\\boxed{") for sample in log.samples or [])


@pytest.mark.long
def test_asked_again_a_prompt_has_another_seed(tiny: tuple[Any, Any]) -> None:
    model = provider(tiny)
    config = GenerateConfig(max_tokens=LENGTH)
    asked = [wait(model.generate(QUESTIONS[0].question, config=config)) for _ in range(2)]
    expected = [known(seed=repeat_seed(SEED, n)).cost or [] for n in range(2)]
    found = [output.metadata["tts"]["generated_tokens"] for output in asked]
    assert found == [costs[0].generated_tokens for costs in expected]
    assert found[0] != found[1]


@pytest.mark.parametrize(
    ("config", "text"),
    [({"num_choices": 2}, "num_choices"), ({"logprobs": True}, "logprobs"), ({"frequency_penalty": 0.5}, "frequency")],
)
def test_what_cannot_be_honoured_is_refused(tiny: tuple[Any, Any], config: dict[str, Any], text: str) -> None:
    with pytest.raises(UnsupportedError, match=text):
        wait(provider(tiny).generate("Q: a = 3 ; a ? <think>", config=GenerateConfig(**config)))


def test_wrong_input_is_refused(tiny: tuple[Any, Any]) -> None:
    api = provider(tiny).api
    chat = [ChatMessageSystem(content="Be brief."), ChatMessageUser(content="Q: a = 3 ; a ? <think>")]
    with pytest.raises(InputError, match="no chat template for 2 messages"):
        wait(api.generate(chat, [], "auto", GenerateConfig()))
    with pytest.raises(UnsupportedError, match="no tools"):
        wait(api.generate(chat[1:], [ToolInfo(name="add", description="Adds.")], "auto", GenerateConfig()))
    with pytest.raises(InputError, match="context of 512"):
        wait(api.generate(chat[1:], [], "auto", GenerateConfig(max_tokens=600)))
    with pytest.raises(UnsupportedError, match="base_url"):
        TTSAPI("tiny", base_url="http://localhost")
    with pytest.raises(InputError, match="no file"):
        cost("/nowhere.json")


def test_chats_go_through_the_template(tiny: tuple[Any, Any]) -> None:
    template = "{% for m in messages %}{{ m.content }} {% endfor %}{% if add_generation_prompt %}<think>{% endif %}"
    chat = [ChatMessageSystem(content="Q:"), ChatMessageUser(content="a = 3 ; b = a + 1 ; b ?")]
    config = GenerateConfig(max_tokens=LENGTH)
    templated = wait(provider(tiny, chat_template=template).api.generate(chat, [], "auto", config))
    plain = wait(provider(tiny).generate("Q: a = 3 ; b = a + 1 ; b ? <think>", config=config))
    assert templated.completion == plain.completion
    assert templated.metadata["tts"]["generated_tokens"] == plain.metadata["tts"]["generated_tokens"]


TEMPLATE = (
    "{% for m in messages %}{{ m.content }} {% endfor %}{% if add_generation_prompt %}<think>"
    "{% if enable_thinking is defined and not enable_thinking %} </think>{% endif %}{% endif %}"
)


def test_thinking_is_switched_by_the_template(tiny: tuple[Any, Any]) -> None:
    """Behind a prompt that has ended it, probes force no second end, and stops count from the first token on."""
    chat = [ChatMessageUser(content="Q: a = 3 ; b = a + 1 ; b ?")]
    config = GenerateConfig(max_tokens=LENGTH, stop_seqs=[";"])
    for thinking in (True, False, None):
        options = {"think_end_token": "</think>", "chat_template": TEMPLATE}
        api = provider(tiny, enable_thinking=thinking, **options).api
        text = "Q: a = 3 ; b = a + 1 ; b ? <think>" + (" </think>" if thinking is False else "")
        assert api._prompt(chat) == tuple(tiny[1](text, add_special_tokens=False)["input_ids"])
        found = wait(api.generate(chat, [], "auto", config))
        assert thinking is not False or ";" not in found.completion


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"enable_thinking": False}, UnsupportedError, "there is none"),
        (
            {"enable_thinking": False, "chat_template": "{{ messages[0].content }}"},
            UnsupportedError,
            "with and without",
        ),
        ({"enable_thinking": "no", "chat_template": TEMPLATE}, InputError, "true or false"),
        ({"enabel_thinking": False, "pretrained": None, "tokenizer": None}, InputError, "enabel_thinking"),
    ],
    ids=str,
)
def test_options_that_nobody_knows(tiny: tuple[Any, Any], options: dict[str, Any], error: Any, text: str) -> None:
    model, tokenizer = tiny
    given = {"pretrained": model, "tokenizer": tokenizer, **options}
    with pytest.raises(error, match=text):
        TTSAPI(str(path()), **given)


def test_the_entry_point_is_light() -> None:
    names = {point.name: point.value for point in entry_points(group="inspect_ai")}
    assert names.get("tts_generate", "tts_generate.harness.inspect_ai") == "tts_generate.harness.inspect_ai"
    code = (
        "import sys, tts_generate.harness.inspect_ai; print([m for m in ('torch', 'transformers') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def test_a_sample_that_is_too_long_fails_alone(tiny: tuple[Any, Any]) -> None:
    async def together() -> list[Any]:
        model, config = provider(tiny), GenerateConfig(max_tokens=LENGTH)
        first, second = (q.question for q in QUESTIONS[:2])
        asked = [model.generate(text, config=config) for text in (first, first * 40, second)]
        return list(await asyncio.gather(*asked, return_exceptions=True))

    first, long, second = wait(together())
    assert isinstance(long, InputError)
    found = [output.metadata["tts"]["generated_tokens"] for output in (first, second)]
    assert found == [cost.generated_tokens for cost in (known().cost or [])[:2]]


def test_a_sample_costs_what_all_its_answers_took(tiny: tuple[Any, Any], tmp_path: Path) -> None:
    @solver
    def ask_twice() -> Any:
        async def solve(state: Any, generate: Any) -> Any:
            for _ in range(2):
                state.messages = state.messages[:1]
                state = await generate(state)
            return state

        return solve

    q = QUESTIONS[0]
    task = Task(
        dataset=[Sample(input=q.question, target=q.gold_answer, id=q.question_id)],
        solver=ask_twice(),
        scorer=cost(),
        config=GenerateConfig(max_tokens=LENGTH),
    )
    (log,) = inspect_eval(task, model=provider(tiny), log_dir=str(tmp_path), display="none", log_format="json")
    assert metrics(log)["tokens"] == log.stats.model_usage["tts/tiny"].output_tokens
    expected = [known(seed=repeat_seed(SEED, n)).cost or [] for n in range(2)]
    assert metrics(log)["tokens"] == sum(costs[0].tokens for costs in expected)
    assert _tokens_of(log.location) == {f'["{q.question_id}", 1]': metrics(log)["tokens"]}


@pytest.mark.parametrize("name", ["x.eval", "x.json", "x.txt"])
def test_a_baseline_that_is_no_log_is_one_clear_error(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text('{"version": 2}')
    with pytest.raises(InputError, match="is no log of Inspect"):
        cost(str(tmp_path / name))
