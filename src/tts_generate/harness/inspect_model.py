"""The model behind Inspect's provider `tts`: samples that wait together are answered in one call of the engine."""

from __future__ import annotations

import logging
import queue
import threading
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import anyio
from inspect_ai.model import (
    ChatCompletionChoice,
    ChatMessage,
    ChatMessageAssistant,
    GenerateConfig,
    ModelAPI,
    ModelOutput,
    ModelUsage,
    StopReason,
)
from inspect_ai.tool import ToolChoice, ToolInfo
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from tts_generate.engine.given import padded
from tts_generate.errors import InputError, UnsupportedError
from tts_generate.harness.asking import OPTIONS, SAMPLING, Answered, Asker, PromptBatch, repeat_seed
from tts_generate.live.task import check_enable_thinking

logger = logging.getLogger(__name__)
_LINGER = 0.1
"""Seconds for which a call waits for more samples after the last one came."""
_INSPECT = {
    "adaptive_connections", "attempt_timeout", "fail_on_refusal", "max_connections", "max_retries",
    "max_tool_output", "stream_idle_timeout", "system_message", "timeout",
}  # fmt: skip
"""Options that Inspect itself sees to."""
_OURS = {"max_tokens", "seed", "stop_seqs", "temperature", "top_k", "top_p"}
Settings = tuple[int, int, tuple[str, ...], tuple[tuple[str, Any], ...]]
"""Tokens of a branch, seed, stops and sampling: what the samples of one call have in common."""


@dataclass(slots=True)
class _Waiting:
    """A sample on its way: what it asks, and where its answer goes."""

    prompt: tuple[int, ...]
    settings: Settings
    answer: Future[Answered] = field(default_factory=Future)


def _stop_reason(found: Answered) -> StopReason:
    """Inspect's word for how an answer ended: cut by its length, or broken off by a deadline or an error."""
    if not found.truncated:
        return "stop"
    return "max_tokens" if found.finish_reason == "answer" else "unknown"


def _loaded(name: str, options: dict[str, Any]) -> PreTrainedModel:
    """The model of that name, in evaluation mode."""
    try:
        return AutoModelForCausalLM.from_pretrained(name, **options).eval()
    except TypeError as error:
        if "unexpected keyword argument" not in str(error):
            raise
        raise InputError(
            f"one of {', '.join(options)} is no option of the provider tts, of AutoTTS or of from_pretrained: {error}."
        ) from None


class TTSAPI(ModelAPI):
    """Inspect's provider `tts`: `--model tts/MODEL -M controller=cmc -M beta=0.5`.

    Args:
        model_name: a name on the Hub, or a folder; a label where `pretrained` is given.
        base_url: refused; for servers there is `tts_generate.ServerModel`.
        api_key: refused.
        config: Inspect's; what of it cannot be honoured is refused when asked.
        pretrained: a model that is loaded already, with its `tokenizer`.
        tokenizer: a name, a folder, or an object; that of the model if left out.
        device: where the model goes.
        seed: a prompt's answer depends on it and on the prompt only; asked again, as in a later epoch, it has another.
        batch_size: samples answered in one call at most; also the samples in flight.
        think_end_token: only what follows it is graded, and stop sequences count in it alone.
        chat_template: instead of the tokenizer's own.
        enable_thinking: handed on to the chat template, which must know it; as it pleases if left out.
        trust_remote_code: for the model's code and for a controller's.
        **kwargs: arguments of `AutoTTS`, how branches are sampled, and whatever else `from_pretrained` takes.
    """

    def __init__(
        self,
        model_name: str,
        base_url: str | None = None,
        api_key: str | None = None,
        config: GenerateConfig | None = None,
        *,
        pretrained: PreTrainedModel | None = None,
        tokenizer: Any = None,
        device: str | None = None,
        seed: int = 0,
        batch_size: int = 64,
        think_end_token: str | int | None = None,
        chat_template: str | None = None,
        enable_thinking: bool | None = None,
        trust_remote_code: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(model_name, base_url, api_key, [], config or GenerateConfig())
        if base_url is not None or api_key is not None:
            raise UnsupportedError("the provider tts runs a model in this process; leave out base_url and api_key.")
        options = {name: kwargs.pop(name) for name in (*OPTIONS, *SAMPLING) if name in kwargs}
        model = pretrained
        if model is None:
            kwargs = {"dtype": "auto", "trust_remote_code": trust_remote_code, **kwargs}
            model = _loaded(model_name, kwargs)
            model = model if device is None else model.to(device)
        elif kwargs or device is not None:
            raise InputError(f"a model that is loaded already takes no {', '.join([*kwargs, 'device'][:3])}.")
        if tokenizer is None or isinstance(tokenizer, str):
            tokenizer = AutoTokenizer.from_pretrained(tokenizer or model_name, trust_remote_code=trust_remote_code)
        self.asker = Asker(model, tokenizer, think_end_token, trust_remote_code=trust_remote_code, **options)
        self.seed, self.batch_size, self.chat_template = seed, batch_size, chat_template
        self.templating = {} if enable_thinking is None else {"enable_thinking": enable_thinking}
        if enable_thinking is not None:
            self._check_thinking(enable_thinking)
        self.limiter: anyio.CapacityLimiter | None = None
        self._asked: Counter[tuple[Any, ...]] = Counter()
        self._waiting: queue.Queue[_Waiting] = queue.Queue()
        self._thread: threading.Thread | None = None
        self._warned = False

    async def generate(
        self, input: list[ChatMessage], tools: list[ToolInfo], tool_choice: ToolChoice, config: GenerateConfig
    ) -> ModelOutput:
        """Answer a chat.

        Raises:
            UnsupportedError: tools, or an option of `config` that the engine cannot honour.
            InputError: a chat that the tokenizer has no template for.
        """
        if tools:
            raise UnsupportedError("the provider tts votes on answers and calls no tools; leave them out.")
        waiting = self._submit(self._prompt(input), config)
        if self.limiter is None:
            self.limiter = anyio.CapacityLimiter(self.batch_size)
        found = await anyio.to_thread.run_sync(waiting.answer.result, abandon_on_cancel=True, limiter=self.limiter)
        message = ChatMessageAssistant(content=found.text, model=self.model_name, source="generate")
        cost = found.cost
        return ModelOutput(
            model=self.model_name,
            choices=[ChatCompletionChoice(message=message, stop_reason=_stop_reason(found))],
            usage=ModelUsage(
                input_tokens=cost.prompt_tokens,
                output_tokens=cost.tokens,
                total_tokens=cost.total_tokens,
            ),
            time=found.seconds,
            metadata={"tts": {**found.to_dict(), "votes": dict(found.votes), "controller": self.asker.controller}},
        )

    def max_connections(self) -> int:
        """Samples in flight, which is how many one call may answer."""
        return self.batch_size

    def max_tokens(self) -> int | None:
        """Tokens of a branch where nobody says: as the model's generation config has it."""
        found = self.asker.model.generation_config.max_new_tokens
        return None if found is None else int(found)

    def _prompt(self, messages: Sequence[ChatMessage]) -> tuple[int, ...]:
        """Token ids of a chat; of a single user's message as it stands, where the tokenizer has no template."""
        tokenizer = self.asker.tokenizer
        for message in messages:
            if not isinstance(message.content, str) and any(part.type != "text" for part in message.content):
                raise UnsupportedError("the provider tts takes text only.")
        if self.chat_template or getattr(tokenizer, "chat_template", None):
            turns = [{"role": message.role, "content": message.text} for message in messages]
            text = self._templated(turns)
            return tuple(tokenizer(text, add_special_tokens=False)["input_ids"])
        if len(messages) == 1 and messages[0].role == "user":
            return tuple(tokenizer(messages[0].text)["input_ids"])
        raise InputError(
            f"{type(tokenizer).__name__} has no chat template for {len(messages)} messages; pass -M chat_template=…."
        )

    def _templated(self, turns: list[dict[str, str]], **given: Any) -> str:
        template = self.asker.tokenizer.apply_chat_template
        options = {"tokenize": False, "add_generation_prompt": True, **self.templating, **given}
        return str(template(turns, chat_template=self.chat_template, **options))

    def _check_thinking(self, enable_thinking: Any) -> None:
        """Refuse what the chat template would ignore."""
        if isinstance(enable_thinking, bool) and not (
            self.chat_template or getattr(self.asker.tokenizer, "chat_template", None)
        ):
            raise UnsupportedError(
                "enable_thinking is for chat templates that know it: there is none, and the prompt goes to the model "
                "as it stands; leave it out."
            )
        turn = [{"role": "user", "content": "7"}]
        check_enable_thinking(lambda on: self._templated(turn, enable_thinking=on), enable_thinking)

    def _submit(self, prompt: tuple[int, ...], config: GenerateConfig) -> _Waiting:
        given = config.model_dump(exclude_none=True)
        if given.pop("cache", False):
            raise UnsupportedError(
                "the provider tts cannot be used with Inspect's cache: it would hand out answers and tokens of other "
                "controllers, budgets and seeds, which its key does not know. Leave it out."
            )
        unknown = sorted(set(given) - _OURS - _INSPECT)
        if unknown:
            raise UnsupportedError(f"the provider tts cannot honour {', '.join(unknown)}; leave it out.")
        sampling = {name: given[name] for name in ("temperature", "top_k", "top_p") if name in given}
        if sampling.get("temperature") == 0:
            del sampling["temperature"]
            if not self._warned:
                self._warned = True
                logger.warning("temperature 0 makes all branches the same; they are sampled as the model says instead")
        length = given.get("max_tokens", self.max_tokens() or 2048)
        seed, stops = given.get("seed", self.seed), tuple(given.get("stop_seqs", ()))
        alike = (prompt, length, seed, stops, tuple(sampling.items()))
        settings = (length, repeat_seed(seed, self._asked[alike]), stops, tuple(sampling.items()))
        self._asked[alike] += 1
        waiting = _Waiting(prompt, settings)
        self._waiting.put(waiting)
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, daemon=True, name="tts_generate answers for Inspect")
            self._thread.start()
        return waiting

    def _work(self) -> None:
        """Answer what waits, until the process ends."""
        while True:
            batch = [self._waiting.get()]
            while len(batch) < self.batch_size:
                try:
                    batch.append(self._waiting.get(timeout=_LINGER))
                except queue.Empty:
                    break
            for settings in dict.fromkeys(waiting.settings for waiting in batch):
                alike = [waiting for waiting in batch if waiting.settings == settings]
                self._answer(alike)

    def _answer(self, alike: Sequence[_Waiting]) -> None:
        """Answer samples with the same settings; where they fail together, each by itself: one may be too long."""
        try:
            request = self._request([waiting.prompt for waiting in alike], alike[0].settings)
            for number, found in self.asker.ask(request):
                alike[number].answer.set_result(found)
        except Exception as error:
            for waiting in [waiting for waiting in alike if not waiting.answer.done()]:
                if len(alike) == 1:
                    waiting.answer.set_exception(error)
                else:
                    self._answer([waiting])

    def _request(self, prompts: Sequence[tuple[int, ...]], settings: Settings) -> PromptBatch:
        length, seed, stops, sampling = settings
        return PromptBatch(*padded(prompts, self.asker.model.device), length, seed, stops, dict(sampling))
