"""What is to be answered: prompts as a model reads them, and who decides on their branches."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tts_generate.controller import Controller
from tts_generate.errors import InputError, UnsupportedError
from tts_generate.processors import BranchProcessorList


@dataclass(frozen=True, slots=True)
class Prompt:
    """A question as a model reads it: its token ids, and its text where it came as one."""

    ids: Sequence[int] = ()
    """() where no tokenizer is at hand."""
    text: str | None = None

    @property
    def identity(self) -> Sequence[int]:
        """What names the question in its branches' keys: the bytes of its text, or its token ids."""
        return self.ids if self.text is None else self.text.encode()


@dataclass(frozen=True, slots=True)
class Task:
    """One question to answer: its prompt, who decides, and the branch numbers to open, in order (0, 1, … if None)."""

    question_id: str
    prompt: Prompt
    controller: Controller
    order: Sequence[int] | None = None
    processors: BranchProcessorList = field(default_factory=BranchProcessorList)

    @property
    def reads_logprobs(self) -> bool:
        """Whether anything that decides on it looks at log-probabilities."""
        return self.controller.reads_logprobs or any(each.reads_logprobs for each in self.processors)


def prompt_of(tokenizer: Any, asked: str | Sequence[Mapping[str, Any]], name: str, **template: Any) -> Prompt:
    """A text, or a chat in the tokenizer's template, as it is asked.

    Raises:
        InputError: a chat for which there is no template, or that it does not take, or nothing at all.
        UnsupportedError: a template that does not know an argument.
    """
    text, chat = (asked, False) if isinstance(asked, str) else (_chat(tokenizer, asked, name, template), True)
    ids = () if tokenizer is None else tuple(tokenizer(text, add_special_tokens=not chat)["input_ids"])
    if not text or (tokenizer is not None and not ids):
        raise InputError(f"{name} is empty; give every question at least one token.")
    return Prompt(ids, as_sent(tokenizer, text) if chat else text)


def as_sent(tokenizer: Any, text: str) -> str:
    """A text without the token that a prompt begins with: a server that is sent text puts it there itself."""
    begins = getattr(tokenizer, "bos_token", None)
    if begins and tokenizer("")["input_ids"][:1] == [tokenizer.bos_token_id]:
        return text.removeprefix(begins)
    return text


def check_enable_thinking(render: Callable[[bool], str], said: Any) -> None:
    """Refuse an `enable_thinking` that a chat template would ignore.

    Raises:
        InputError: it is neither true nor false.
        UnsupportedError: it makes no difference.
    """
    if not isinstance(said, bool):
        raise InputError(f"enable_thinking must be true or false, got {said!r}.")
    if render(True) == render(False):
        raise UnsupportedError(
            "enable_thinking is for chat templates that know it: this one makes the same prompt with and without it; "
            "leave it out."
        )


def _chat(tokenizer: Any, turns: Sequence[Mapping[str, Any]], name: str, template: Mapping[str, Any]) -> str:
    """Turns in the tokenizer's template."""
    if not getattr(tokenizer, "chat_template", None):
        who = "there is no tokenizer here" if tokenizer is None else f"{type(tokenizer).__name__} has no chat template"
        raise InputError(f"a chat needs a tokenizer with a chat template, and {who}; pass one, or ask without chat.")

    def render(**given: Any) -> str:
        asked = {"tokenize": False, "add_generation_prompt": True, **template, **given}
        try:
            return str(tokenizer.apply_chat_template(list(turns), **asked))
        except Exception as error:  # of whatever kind: a template is a program
            raise InputError(f"{name}: the model's chat template does not take it: {error}.") from error

    if "enable_thinking" in template:
        check_enable_thinking(lambda on: render(enable_thinking=on), template["enable_thinking"])
    return render()
