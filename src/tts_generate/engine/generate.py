"""The two doors: `generate(strategy="autotts")` of an enabled model, and `custom_generate=AutoTTS(...)` of any."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from tqdm.auto import tqdm
from transformers import (
    GenerationConfig,
    GenerationMixin,
    LogitsProcessorList,
    PreTrainedModel,
    StoppingCriteriaList,
    StopStringCriteria,
)

from tts_generate.controller import Controller
from tts_generate.engine import request
from tts_generate.engine.branch import Reader
from tts_generate.engine.decoder import Decoder, check_model
from tts_generate.engine.loop import Loop
from tts_generate.engine.output import AutoTTSOutput, collect
from tts_generate.engine.question import Task
from tts_generate.engine.settings import Settings
from tts_generate.errors import InputError, UnknownNameError, UnsupportedError
from tts_generate.loading import DEFAULT_CONTROLLER, load_controller
from tts_generate.processors import BranchProcessor, BranchProcessorList


class AutoTTS:
    """Test-time scaling as a `custom_generate` callable: batched branches, steered by a controller.

    Args:
        controller: name, folder or object; see `load_controller`.
        beta: the budget in [0, 1]; the controller's default when left out.
        tokenizer: needed to force probes and to read answers.
        seed: every branch's tokens depend on (seed, question, branch, position) only; None draws one from torch's
            global generator.
        interval_tokens: tokens of one step; else the model's generation config says, else 500.
        probe_suffix, think_end, answer_pattern, max_probe_tokens: how the model is asked for its answer, see
            `AnswerFormat`; else the model's generation config says.
        max_rows: branches decoded in one forward pass at most.
        max_branches: branches of one question at most.
        branch_processors: limits chained around the controller.
        controller_kwargs: knobs of the controller to set by hand.
        progress: show a tqdm bar over the questions.
        trust_remote_code: needed for a controller folder that did not come with this package.

    Source: AutoTTS (arXiv 2605.08083) for the controllers; the seam is transformers' `custom_generate`.
    """

    def __init__(
        self,
        controller: str | Path | Controller = DEFAULT_CONTROLLER,
        *,
        beta: float | None = None,
        tokenizer: Any = None,
        seed: int | None = None,
        interval_tokens: int | None = None,
        probe_suffix: str | None = None,
        think_end: str | None = None,
        answer_pattern: str | None = None,
        max_probe_tokens: int | None = None,
        max_rows: int = 256,
        max_branches: int = 128,
        branch_processors: Sequence[BranchProcessor] = (),
        controller_kwargs: Mapping[str, Any] | None = None,
        progress: bool = False,
        trust_remote_code: bool = False,
    ) -> None:
        knobs = dict(controller_kwargs or {})
        self.controller = load_controller(controller, beta=beta, trust_remote_code=trust_remote_code, **knobs)
        if tokenizer is None:
            raise InputError(
                "strategy='autotts' needs the tokenizer to read answers: tts_generate.enable(model, "
                "tokenizer=tokenizer), or AutoTTS(..., tokenizer=tokenizer)."
            )
        if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int)):
            raise InputError(f"seed must be a whole number or None, got {seed!r}.")
        self.tokenizer = tokenizer
        self.seed = seed
        self.interval_tokens = interval_tokens
        self.probing = {
            "probe_suffix": probe_suffix,
            "think_end": think_end,
            "answer_pattern": answer_pattern,
            "max_probe_tokens": max_probe_tokens,
        }
        self.max_rows, self.max_branches = max_rows, max_branches
        self.processors = BranchProcessorList(branch_processors)
        self.progress = progress

    def __call__(
        self,
        model: PreTrainedModel,
        input_ids: Tensor,
        logits_processor: LogitsProcessorList | None = None,
        stopping_criteria: StoppingCriteriaList | None = None,
        generation_config: GenerationConfig | None = None,
        **model_kwargs: Any,
    ) -> AutoTTSOutput | Tensor:
        """Decode with inputs as transformers' `generate` prepared them; called by it.

        Returns:
            (questions, length) token ids, or an `AutoTTSOutput` if `return_dict_in_generate` is set.
        """
        config = generation_config or model.generation_config
        request.check_modes(config, model_kwargs)
        questions = request.prompts(input_ids, model_kwargs.get("attention_mask"))
        tasks = [
            Task(str(number), ids, self.controller, processors=self.processors) for number, ids in enumerate(questions)
        ]
        settings = self.settings(config, input_ids.shape[1])
        loop = self.loop(model, config, settings, tasks, logits_processor, stopping_criteria)
        bar = tqdm(loop.run(tasks), total=len(tasks), desc="answering", unit="question", disable=not self.progress)
        done = sorted(bar, key=lambda running: running.index)
        output = collect(input_ids, done, settings)
        return output if config.return_dict_in_generate else cast(Tensor, output.sequences)

    def settings(self, config: GenerationConfig, padded_length: int) -> Settings:
        """The numbers of this call, checked."""
        seed = self.seed
        if seed is None:
            seed = int(torch.randint(2**62, ()))
        return Settings(
            seed=seed,
            interval_tokens=request.setting("interval_tokens", self.interval_tokens, config, 500),
            max_new_tokens=request.max_new_tokens(config, padded_length),
            eos_token_ids=request.eos_ids(config),
            pad_token_id=request.pad_id(config),
            max_rows=self.max_rows,
            max_branches=self.max_branches,
        )

    def loop(
        self,
        model: PreTrainedModel,
        config: GenerationConfig,
        settings: Settings,
        tasks: Sequence[Task],
        logits_processor: LogitsProcessorList | None,
        stopping_criteria: StoppingCriteriaList | None,
        **hooks: Any,
    ) -> Loop:
        """A loop ready to run `tasks`, everything checked before anything is decoded."""
        probing = request.probing(self.probing, config)
        reader = Reader(self.tokenizer, probing.format, probing.max_probe_tokens)
        request.check_lengths(model, [list(task.prompt_ids) for task in tasks], settings, reader.max_tokens)
        sampler = request.sampler(logits_processor or LogitsProcessorList())
        criteria = request.criteria(stopping_criteria or StoppingCriteriaList())
        rows = min(settings.max_rows, 64)
        return Loop(Decoder(model, rows), sampler, reader, settings, criteria, **hooks)


_OWN = set(inspect.signature(AutoTTS.__init__).parameters) - {"self"}


class EnabledGenerate:
    """`model.generate` of an enabled model: knows `strategy`, and hands everything else to the model's own generate."""

    def __init__(self, model: PreTrainedModel, tokenizer: Any, plain: Any) -> None:
        self.model, self.tokenizer, self.plain = model, tokenizer, plain

    def __call__(self, *args: Any, strategy: str | None = None, **kwargs: Any) -> Any:
        """As transformers' `generate`; with `strategy="autotts"` also the arguments of `AutoTTS`."""
        if strategy is None:
            given = kwargs.get("generation_config") or self.model.generation_config
            strategy = getattr(given, "strategy", None)
        generate = type(self.model).generate
        if strategy is None:
            alone = sorted({"controller", "beta", "controller_kwargs", "branch_processors"} & set(kwargs))
            if alone:
                raise InputError(f"{', '.join(alone)} needs strategy='autotts'; without it they would be ignored.")
            return generate(self.model, *args, **kwargs) if self.plain is None else self.plain(*args, **kwargs)
        if strategy != "autotts":
            raise UnknownNameError.of("strategy", strategy, ["autotts"])
        self._check_names(kwargs)
        own = {"tokenizer": self.tokenizer}
        own |= {name: kwargs.pop(name) for name in _OWN & set(kwargs)}
        if kwargs.pop("streamer", None) is not None:
            raise UnsupportedError("strategy='autotts' does not stream yet: its answer exists when it stops.")
        check_model(self.model)
        kwargs = self._with_stop_strings(_with_sampling(self.model, kwargs), own["tokenizer"])
        return generate(self.model, *args, custom_generate=AutoTTS(**own), **kwargs)

    def _check_names(self, kwargs: Mapping[str, Any]) -> None:
        """Refuse a keyword that neither we, transformers nor the model knows."""
        known = _OWN | set(GenerationConfig().to_dict()) | set(inspect.signature(GenerationMixin.generate).parameters)
        known |= set(inspect.signature(self.model.forward).parameters) | {"max_new_tokens", "stop_strings"}
        for name in kwargs:
            if name not in known:
                raise UnknownNameError.of("keyword of generate", name, known - {"self", "kwargs"})
        if kwargs.get("assistant_model") is not None or kwargs.get("custom_generate") is not None:
            raise UnsupportedError("strategy='autotts' cannot be combined with assistant_model or custom_generate.")

    def _with_stop_strings(self, kwargs: dict[str, Any], tokenizer: Any) -> dict[str, Any]:
        """Stop strings as a criterion: transformers builds it without the tokenizer when `custom_generate` is used."""
        strings = kwargs.pop("stop_strings", None)
        if strings is None:
            return kwargs
        criteria = StoppingCriteriaList(kwargs.get("stopping_criteria") or [])
        criteria.append(StopStringCriteria(tokenizer, strings))
        return {**kwargs, "stopping_criteria": criteria}


def _with_sampling(model: PreTrainedModel, kwargs: dict[str, Any]) -> dict[str, Any]:
    """Sample unless the caller, or the model's generation config, says otherwise."""
    config = kwargs.get("generation_config") or model.generation_config
    if "do_sample" in kwargs or config.do_sample is not None:
        return kwargs
    return {**kwargs, "do_sample": True}


def enable(model: PreTrainedModel, *, tokenizer: Any) -> PreTrainedModel:
    """Teach this model object `generate(strategy="autotts", ...)`; nothing else changes, nothing global is touched.

    Args:
        model: a causal language model of transformers.
        tokenizer: its tokenizer, used to force probes and to read answers.

    Returns:
        The same model.

    Raises:
        InputError: no tokenizer, or not a model that can generate.
        UnsupportedError: a model whose branches cannot be kept apart in a cache.
    """
    if not isinstance(model, GenerationMixin):
        raise InputError(
            f"enable() takes a transformers model that can generate, got {type(model).__name__}; load it with "
            "AutoModelForCausalLM.from_pretrained(...)."
        )
    if tokenizer is None or not callable(tokenizer):
        raise InputError("enable() needs the model's tokenizer: enable(model, tokenizer=tokenizer).")
    check_model(model)
    bound = model.__dict__.get("generate")
    plain = bound.plain if isinstance(bound, EnabledGenerate) else bound
    model.generate = EnabledGenerate(model, tokenizer, plain)
    return model
