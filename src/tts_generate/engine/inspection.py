"""A first look at a model: whether it is supported, how it is asked, and what is read of one branch."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from tts_generate.answers import AnswerFormat
from tts_generate.engine import request
from tts_generate.engine.asked import with_our_ways
from tts_generate.engine.decoder import check_model
from tts_generate.engine.device import input_device
from tts_generate.engine.generate import AutoTTS, run
from tts_generate.engine.request import Prepared
from tts_generate.errors import UnsupportedError
from tts_generate.live.branch import Branch, Probe
from tts_generate.live.reader import Reader
from tts_generate.live.settings import interval_for
from tts_generate.live.task import Task, prompt_of
from tts_generate.live.thinking import thinking_of
from tts_generate.loading import load_controller


@dataclass(frozen=True, slots=True)
class Probed:
    """What was asked of a branch at one place, and what was read."""

    tokens: int
    """Of the branch, up to there."""
    forced: str
    """What was put behind it; "" where it had stated its answer."""
    said: str
    """What the model said to that."""
    answer: str | None


@dataclass(frozen=True, slots=True)
class Inspection:
    """What a look at a model found."""

    model: str
    parameters: int
    context: int | None
    """Tokens that its configuration says it holds."""
    refused: str | None
    """Why strategy='autotts' does not take it; None if it does."""
    thinking: str
    """How it is known what ends the thinking."""
    asked: AnswerFormat
    max_new_tokens: int
    interval_tokens: int
    chat: bool
    """Whether the question was put into the chat template."""
    prompt: str
    """As the model reads it."""
    text: str = ""
    """The branch."""
    tokens: int = 0
    finish_reason: str | None = None
    answer: str | None = None
    """What is read of it at its end."""
    forced: bool = False
    """Whether it was asked for that, because it was cut without an answer."""
    half: Probed | None = None
    """What is read of it at half of its length; None if it has no half."""


class _OneBranch(AutoTTS):
    """Decodes one branch, probed at every step if there is more than one."""

    def __init__(self, **options: Any) -> None:
        super().__init__(load_controller("self_consistency", max_samples=1), **options)
        self.branches: list[Branch] = []

    def answer(self, call: Prepared) -> Tensor:
        """Keep the branch; returns the prompt unchanged."""
        settings = self.settings(call)
        probed = dataclasses.replace(settings, probe_every_step=settings.interval_tokens < settings.max_new_tokens)
        tasks = [Task("0", prompt, self.controller) for prompt in call.prompts]
        loop = self.loop(call, probed, tasks, call.criteria, on_branch=lambda _, branch: self.branches.append(branch))
        for _ in loop.run():
            pass
        return call.input_ids


def inspect_model(
    model: PreTrainedModel,
    tokenizer: Any,
    question: str,
    *,
    chat: bool | None = None,
    max_new_tokens: int = 256,
    seed: int = 0,
    **options: Any,
) -> Inspection:
    """Look at a model, decode one branch of a question, and ask it at half of its length.

    Args:
        model: a causal language model of transformers.
        tokenizer: its tokenizer.
        question: what it is asked.
        chat: put the question into the chat template; if there is one, if left out.
        max_new_tokens: tokens of the branch at most.
        seed: of the branch's randomness.
        **options: of `AutoTTS` that say how it is asked.

    Raises:
        InputError: an option out of range, a prompt that leaves no room.
    """
    chat = bool(getattr(tokenizer, "chat_template", None)) if chat is None else chat
    prompt = prompt_of(tokenizer, [{"role": "user", "content": question}] if chat else question, "the question")
    recipe = _OneBranch(tokenizer=tokenizer, seed=seed, **options)
    config = model.generation_config
    asked = recipe.reader(config).format
    suffix = request.setting("probe_suffix", options.get("probe_suffix"), config, "")
    given = request.setting("think_end", options.get("think_end"), config, None) is not None
    found = Inspection(
        model=type(model).__name__,
        parameters=model.num_parameters(),
        context=getattr(model.config.get_text_config(decoder=True), "max_position_embeddings", None),
        refused=None,
        thinking="as given" if given else thinking_of(tokenizer, suffix).why,
        asked=asked,
        max_new_tokens=max_new_tokens,
        interval_tokens=request.setting("interval_tokens", None, config, interval_for(max_new_tokens)),
        chat=chat,
        prompt=str(tokenizer.decode(list(prompt.ids), skip_special_tokens=False)),
    )

    def branch_of(tokens: int, step: int) -> Branch:
        """The branch up to so many tokens: what it says depends on its seed and place alone."""
        recipe = _OneBranch(tokenizer=tokenizer, seed=seed, interval_tokens=step, **options)
        ids = torch.tensor([list(prompt.ids)], device=input_device(model))
        said = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "max_new_tokens": tokens}
        run(model, recipe, **with_our_ways(config, said))
        return recipe.branches[0]

    try:
        check_model(model)
        branch = branch_of(max_new_tokens, max_new_tokens)
    except UnsupportedError as error:
        return dataclasses.replace(found, refused=str(error))
    half = len(branch.ids) // 2
    return dataclasses.replace(
        found,
        text=recipe.reader(config).text(branch.ids),
        tokens=len(branch.ids),
        finish_reason=branch.finish_reason,
        answer=branch.final_answer,
        forced=branch.forced,
        half=_probed(branch_of(half + 1, half), recipe.reader(config)) if half else None,
    )


def _probed(branch: Branch, reader: Reader) -> Probed:
    probe = branch.probes[0]
    begun = reader.begin_probe(branch, probe.position)
    forced = begun.forced if isinstance(begun, Probe) else []
    said = reader.text(probe.ids[len(forced) :])
    return Probed(probe.position, reader.text(forced), said, probe.answer)
