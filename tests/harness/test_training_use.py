"""Where `generate` is called in other people's code: pipelines, chats, training loops, adapters."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from harness_tasks import QUESTIONS, SEED, own_evaluation
from harness_tasks import expected as known
from transformers import pipeline

import tts_generate
from tts_generate import tiny

HOW: dict[str, Any] = {
    "strategy": "autotts",
    "controller": "cmc",
    "beta": 0.0,
    "seed": SEED,
    "max_new_tokens": 64,
}
TEXTS = [question.question for question in QUESTIONS[:2]]
CHAT = "{% for m in messages %}{{ m.content }} {% endfor %}{% if add_generation_prompt %}<think>{% endif %}"


@pytest.fixture(scope="module")
def enabled() -> tuple[Any, Any]:
    model, tokenizer = tiny.load()
    return tts_generate.enable(model, tokenizer=tokenizer), tokenizer


def inputs(tokenizer: Any) -> dict[str, torch.Tensor]:
    batch = tokenizer(TEXTS, return_tensors="pt", padding=True)
    return {name: batch[name] for name in ("input_ids", "attention_mask")}


def sequences(enabled: tuple[Any, Any]) -> torch.Tensor:
    model, tokenizer = enabled
    found: torch.Tensor = model.generate(**inputs(tokenizer), **HOW)
    return found


def surprise(model: Any, tokenizer: Any) -> float | None:
    """Mean log-probability of the first step of the first branch: it tells weights apart."""
    output = model.generate(**inputs(tokenizer), **HOW, return_dict_in_generate=True)
    found: float | None = output.branches[0][0].step_logprobs[0]
    return found


class TestPipeline:
    @pytest.mark.long
    def test_texts_in_batches(self, enabled: tuple[Any, Any]) -> None:
        model, tokenizer = enabled
        pipe = pipeline("text-generation", model=model, tokenizer=tokenizer)
        expected = tokenizer.batch_decode(sequences(enabled), skip_special_tokens=True)
        for size in (1, 4):
            found = [row["generated_text"] for (row,) in pipe(TEXTS, batch_size=size, **HOW)]
            assert list(map(squeezed, found)) == list(map(squeezed, expected))  # it decodes the prompt apart
        tails = [row["generated_text"] for (row,) in pipe(TEXTS, return_full_text=False, **HOW)]
        assert [squeezed(text + tail) for text, tail in zip(TEXTS, tails, strict=True)] == list(map(squeezed, found))

    def test_chats(self, enabled: tuple[Any, Any]) -> None:
        """A chat through the pipeline is the templated text through `generate`."""
        model, tokenizer = enabled
        tokenizer.chat_template = CHAT
        try:
            pipe = pipeline("text-generation", model=model, tokenizer=tokenizer)
            chat = [{"role": "user", "content": TEXTS[0].removesuffix(" <think>")}]
            (row,) = pipe([chat], **HOW)[0]
            answer = row["generated_text"][-1]
            assert answer["role"] == "assistant"
            batch = tokenizer.apply_chat_template(
                [chat], add_generation_prompt=True, return_tensors="pt", return_dict=True
            )
            tokens = model.generate(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], **HOW)
            said = tokenizer.decode(tokens[0, batch["input_ids"].shape[1] :], skip_special_tokens=True)
            assert answer["content"].strip() == said.strip()
            assert said
        finally:
            tokenizer.chat_template = None


class TestTraining:
    """As TRL calls it: in a loop, between backward passes, with an adapter around the model."""

    @pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
    def test_under_no_grad_and_inference_mode(self, enabled: tuple[Any, Any], mode: Any) -> None:
        expected = sequences(enabled)
        for _ in range(2):
            with mode():
                assert torch.equal(sequences(enabled), expected)

    def test_between_steps_of_an_optimizer(self) -> None:
        """The model may be in training mode; generating leaves mode, gradients and graph alone."""
        model, tokenizer = tiny.load()
        tts_generate.enable(model, tokenizer=tokenizer)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.3)
        model.train()
        before = surprise(model, tokenizer)
        for _ in range(2):
            tokens = model.generate(**inputs(tokenizer), **HOW)
            assert model.training
            assert not tokens.requires_grad
            loss = model(input_ids=tokens, labels=tokens).loss
            loss.backward()
            assert all(weight.grad is not None for weight in model.parameters())
            optimizer.step()
            optimizer.zero_grad()
        assert surprise(model, tokenizer) == surprise(model, tokenizer) != before  # the new weights, at once

    def test_gradient_checkpointing_in_evaluation_mode_or_switched_off_meanwhile(self) -> None:
        model, tokenizer = tiny.load()
        tts_generate.enable(model, tokenizer=tokenizer)
        expected = model.generate(**inputs(tokenizer), **HOW)
        model.gradient_checkpointing_enable()
        assert torch.equal(model.generate(**inputs(tokenizer), **HOW), expected)
        assert model.is_gradient_checkpointing
        model.train()
        model.gradient_checkpointing_disable()
        assert torch.equal(model.generate(**inputs(tokenizer), **HOW), expected)

    @pytest.mark.long
    @pytest.mark.parametrize("wrapped_first", [False, True])
    def test_a_model_wrapped_by_peft(self, enabled: tuple[Any, Any], wrapped_first: bool) -> None:
        peft = pytest.importorskip("peft", reason="pip install 'tts-generate[peft]'")
        model, tokenizer = tiny.load()
        expected = sequences(enabled)
        if wrapped_first:
            wrapped = peft.get_peft_model(model, _lora(peft))
            tts_generate.enable(wrapped.get_base_model(), tokenizer=tokenizer)
        else:
            tts_generate.enable(model, tokenizer=tokenizer)
            wrapped = peft.get_peft_model(model, _lora(peft))
        wrapped.eval()
        assert torch.equal(wrapped.generate(**inputs(tokenizer), **HOW), expected)  # an adapter begins as nothing
        with torch.no_grad():
            for name, weight in wrapped.named_parameters():
                if "lora_B" in name:
                    weight.normal_(std=0.5)
        adapted = surprise(wrapped, tokenizer)
        assert adapted != surprise(*enabled)
        with wrapped.disable_adapter():
            assert torch.equal(wrapped.generate(**inputs(tokenizer), **HOW), expected)
        merged = surprise(wrapped.merge_and_unload(), tokenizer)
        assert merged == pytest.approx(adapted, rel=1e-3)

    def test_custom_generate_of_a_model_wrapped_by_peft(self) -> None:
        peft = pytest.importorskip("peft", reason="pip install 'tts-generate[peft]'")
        model, tokenizer = tiny.load()
        expected = known().answers
        assert own_evaluation(peft.get_peft_model(model, _lora(peft)).eval(), tokenizer).answers == expected


def _lora(peft: Any) -> Any:
    return peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")


def squeezed(text: str) -> str:
    return text.replace(" ", "")
