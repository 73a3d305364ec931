"""Harnesses that speak to OpenAI-compatible servers, unchanged: lm-eval's and Inspect's."""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness_tasks import QUESTIONS, task
from proxies import Opened

pytestmark = [
    pytest.mark.long,
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),  # streams that they leave open
]


@pytest.fixture(autouse=True)
def swept() -> Iterator[None]:
    """What they leave open is found here, not in somebody else's test."""
    yield
    gc.collect()


def test_lm_eval(opened: Opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("lm_eval", reason="pip install 'tts-generate[lm-eval]'")
    from lm_eval.evaluator import simple_evaluate
    from lm_eval.tasks import TaskManager

    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "datasets")
    monkeypatch.setattr("torch.utils.collect_env.get_pretty_env_info", lambda: "")
    for kind, path in (("local-chat-completions", "chat/completions"), ("local-completions", "completions")):
        found: dict[str, Any] = simple_evaluate(
            kind,
            model_args={
                "base_url": f"{opened.url}/v1/{path}",
                "model": "tiny",
                "tokenizer_backend": "none",
                "num_concurrent": 4,
                "tokenized_requests": False,
                "max_retries": 1,
            },
            tasks=[task()],
            limit=len(QUESTIONS),
            bootstrap_iters=0,
            log_samples=True,
            apply_chat_template="chat" in kind,
            task_manager=TaskManager(include_defaults=False),
        )
        samples = found["samples"]["tiny_digits"]
        assert len(samples) == len(QUESTIONS)
        assert all("boxed" in sample["resps"][0][0] for sample in samples)


def test_inspect(opened: Opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("inspect_ai", reason="pip install 'tts-generate[inspect]'")
    from inspect_ai import Task
    from inspect_ai import eval as inspect_eval
    from inspect_ai.dataset import Sample
    from inspect_ai.model import GenerateConfig
    from inspect_ai.scorer import pattern

    monkeypatch.setenv("TTS_API_KEY", "none")
    monkeypatch.setenv("TTS_BASE_URL", f"{opened.url}/v1")
    (log,) = inspect_eval(
        Task(
            dataset=[Sample(input=q.question, target=q.gold_answer, id=q.question_id) for q in QUESTIONS],
            scorer=pattern(r"(?s).*boxed\{\s*(\d)"),
            config=GenerateConfig(max_tokens=128, seed=1),
        ),
        model="openai-api/tts/tiny",
        log_dir=str(tmp_path),
        display="none",
        log_level="warning",
        log_format="json",
    )
    assert log.status == "success", log.error
    samples = log.samples or []
    assert len(samples) == len(QUESTIONS)
    for sample in samples:
        assert sample.output.usage is not None
        assert sample.output.usage.output_tokens > 0
        assert "boxed" in json.dumps(sample.output.completion)
