"""The two doors: `generate(strategy="autotts")` of an enabled model, and `custom_generate=AutoTTS(...)` of any."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Unpack, cast

from torch import Tensor
from transformers import (
    GenerationConfig,
    GenerationMixin,
    LogitsProcessorList,
    PreTrainedModel,
    StoppingCriteriaList,
)

from tts_generate.answers import AnswerOptions
from tts_generate.arguments import checked, hints_of, part
from tts_generate.controller import Controller
from tts_generate.engine import given, request, selfcheck
from tts_generate.engine.asked import with_our_ways
from tts_generate.engine.batch import Batch
from tts_generate.engine.decoder import Decoder, check_model
from tts_generate.engine.device import input_device
from tts_generate.engine.loop import Loop
from tts_generate.engine.output import AutoTTSOutput, collect
from tts_generate.engine.request import Prepared
from tts_generate.engine.settings import MAX_ROWS, AutoTTSOptions, DecodingOptions, Settings
from tts_generate.engine.wrapped import check_inputs, check_wrapping, inside
from tts_generate.errors import InputError, UnknownNameError, UnsupportedError
from tts_generate.live.reader import Reader
from tts_generate.live.rows import tasks_of
from tts_generate.live.settings import interval_for, stop_texts
from tts_generate.live.task import Prompt, Task
from tts_generate.live.unanswered import Unanswered
from tts_generate.loading import DEFAULT_CONTROLLER, chosen
from tts_generate.processors import BranchProcessor, BranchProcessorList
from tts_generate.profile import Profile
from tts_generate.tracking import Progress


class AutoTTS:
    """Test-time scaling as a `custom_generate` callable: batched branches, steered by a controller.

    Args:
        controller: name, folder or object; see `load_controller`.
        beta: the budget in [0, 1]; the controller's default when left out.
        latency: 0 for few tokens, 1 for a short chain of tokens that wait for one another; left out, what the rows of
            each question allow (`live.rows`). A controller that has no schedules for it takes none.
        tokenizer: needed to force probes and to read answers.
        stop_strings: texts that end a branch; those of a generation config or of `generate` go there by themselves,
            except on a stock model, where transformers asks for a tokenizer and hands none on.
        seed: every branch's tokens depend on (seed, question, branch, position) only; None draws one from torch's
            global generator.
        interval_tokens: tokens of one step; else the model's generation config says, else 500, or an eighth of a
            `max_new_tokens` below 4,000.
        probe_suffix, think_end, answer_pattern, max_probe_tokens, force_answer, votes: how the model is asked for its
            answer, how that is read, and which answers are one, see `AnswerFormat`; else the model's generation config
            says, else its tokenizer does (`live/thinking.py`).
        max_rows: branches decoded in one forward pass at most.
        max_branches: branches of one question at most; a controller that wants more is an error, and `MaxBranches` in
            `branch_processors` holds any to fewer.
        max_cache_bytes: memory of the key-value cache at most; a share of what is free when left out. Branches that
            do not fit wait, or leave their rows for a while.
        decode_ahead: let a branch decode on while its probe is under way, before it is known whether it is wanted; it
            saves time, changes no token, and what is not wanted is counted as `discarded_tokens`.
        ahead_rows: rows up to which those that would be idle decode what no controller has asked for yet: further steps
            of branches that wait for a decision, and new branches. The same answers and costs come of fewer passes;
            what nobody asks for in the end is counted as `discarded_tokens`. 0: none; "auto", the default: those that
            the `profile` says are free, none without one.
        profile: what passes take on this device (`tts-generate profile`, or `engine.profiling.measure`), or its file.
        sync_every: forward passes in a row before the host looks at what they drew; 1 on a CPU and 8 elsewhere when
            left out.
        branch_processors: limits chained around the controller.
        stream: return an iterator of `AutoTTSOutput`, each with one question, as they are answered.
        streamer: what has the `put` and `end` of transformers' `BaseStreamer`, given the prompt and then the winning
            branch; for a call of one question.
        controller_kwargs: knobs of the controller to set by hand.
        progress: show a bar over the questions, with the tokens saved so far.
        revision: the commit of a controller on the Hub, see `load_controller`.
        trust_remote_code: needed for controller code that did not come with this package: True, or a list of repos.
        sandbox: run such code in a locked process instead, which needs no trust.
        self_check: the first time that a kind of model decodes in this process, hold a few tokens of every path against
            the model's own forward pass without a cache; what differs takes a slower path, or is refused.

    Of transformers' own arguments, `cache_implementation="static"` runs passes in a few fixed shapes over fixed
    addresses, captured as CUDA graphs on a GPU: worth it where launching kernels takes longer than running them, that
    is for small models and few rows. The whole cache is allocated at once then.

    Source: AutoTTS (arXiv 2605.08083) for the controllers; the seam is transformers' `custom_generate`.
    """

    @checked
    def __init__(
        self,
        controller: str | Path | Controller = DEFAULT_CONTROLLER,
        *,
        tokenizer: Any = None,
        seed: int | None = None,
        stop_strings: str | Sequence[str] | None = None,
        branch_processors: Sequence[BranchProcessor] = (),
        stream: bool = False,
        streamer: Any = None,
        progress: bool = False,
        **options: Unpack[AutoTTSOptions],
    ) -> None:
        self.controller = chosen(controller, options)
        options["profile"] = Profile.of(options.get("profile"))
        given.check_tokenizer(tokenizer)
        given.check_streamer(streamer)
        self.tokenizer, self.seed, self.options = tokenizer, seed, options
        self.stop_strings = stop_texts(stop_strings)
        self.max_rows = options.get("max_rows", MAX_ROWS)
        self.processors = BranchProcessorList(branch_processors)
        self.stream, self.streamer, self.progress = stream, streamer, progress

    def __call__(
        self,
        model: PreTrainedModel,
        input_ids: Tensor,
        logits_processor: LogitsProcessorList | None = None,
        stopping_criteria: StoppingCriteriaList | None = None,
        generation_config: GenerationConfig | None = None,
        **model_kwargs: Any,
    ) -> AutoTTSOutput | Tensor | Iterator[AutoTTSOutput]:
        """Decode with inputs as transformers' `generate` prepared them; called by it.

        Returns:
            (questions, length) token ids; an `AutoTTSOutput` if `return_dict_in_generate` is set; an iterator of them,
            one a question, if `stream` is.
        """
        config = generation_config or model.generation_config
        request.check_modes(config)
        check_wrapping(model, input_ids, model_kwargs)
        leads, ids = zip(*given.prompts(model, config, input_ids, model_kwargs.get("attention_mask")), strict=True)
        processors = logits_processor or LogitsProcessorList()
        criteria = stopping_criteria or StoppingCriteriaList()
        prompts = [Prompt(each) for each in ids]
        return self.answer(Prepared(model, config, input_ids, prompts, leads, processors, criteria))

    def answer(self, call: Prepared) -> AutoTTSOutput | Tensor | Iterator[AutoTTSOutput]:
        """Decode a call."""
        input_ids, config = call.input_ids, call.config
        if self.streamer is not None and len(call.prompts) > 1:
            raise InputError(f"streamer takes one question a call, got {len(call.prompts)}; use stream=True instead.")
        processors, criteria = request.deadline(self.processors, call.criteria)
        tasks = tasks_of(call.prompts, self.controller, self.max_rows, processors)
        settings = self.settings(call)
        loop = self.loop(call, settings, tasks, criteria)
        if self.stream:
            return self._stream(loop, input_ids, settings, len(tasks))
        # Tensors alone could not say that they are partial: only an output with `finish_reason` survives Ctrl-C.
        partial = bool(config.return_dict_in_generate)
        done = []
        with Progress(len(tasks), "answering", shown=self.progress) as bar:
            for running in loop.run(partial):
                done.append(running)
                bar.add(running.cost, running.rows)
        done.sort(key=lambda running: running.index)
        output = collect(input_ids, done, settings, loop.batch.discarded_tokens)
        if self.streamer is not None:
            self._put(output, input_ids)
        Unanswered(loop.batch.reader, done).tell()
        return output if config.return_dict_in_generate else cast(Tensor, output.sequences)

    def _stream(self, loop: Loop, input_ids: Tensor, settings: Settings, count: int) -> Iterator[AutoTTSOutput]:
        """Each question as it is answered."""
        unanswered = Unanswered(loop.batch.reader)
        with Progress(count, "answering", shown=self.progress) as bar:
            for running in loop.run():
                output = collect(input_ids, [running], settings, loop.batch.discarded_tokens)
                bar.add(running.cost, running.rows)
                unanswered.add(running)
                if self.streamer is not None:
                    self._put(output, input_ids)
                yield output
        unanswered.tell()

    def _put(self, output: AutoTTSOutput, input_ids: Tensor) -> None:
        """Hand the answered question to the streamer, prompt first, as transformers' generate does."""
        assert self.streamer is not None
        assert output.sequences is not None
        self.streamer.put(input_ids.cpu())
        self.streamer.put(output.sequences[0, input_ids.shape[1] :].cpu())
        self.streamer.end()

    def settings(self, call: Prepared) -> Settings:
        """The numbers of this call, checked."""
        config, decoding = call.config, part(self.options, DecodingOptions)
        if decoding.get("sync_every") is None:
            decoding["sync_every"] = 1 if input_device(call.model).type == "cpu" else 8
        step = self.options.get("interval_tokens")
        most = request.max_new_tokens(config, call.width, call.prompts)
        return Settings(
            seed=given.drawn_seed(self.seed),
            interval_tokens=request.setting("interval_tokens", step, config, interval_for(most)),
            max_new_tokens=most,
            eos_token_ids=request.eos_ids(config),
            pad_token_id=request.pad_id(config),
            static=config.cache_implementation == "static",
            **decoding,
        )

    def reader(self, config: GenerationConfig) -> Reader:
        """What asks for answers and reads them: as said here, else in the generation config, else by the tokenizer."""
        return Reader(self.tokenizer, request.answer_format(self.tokenizer, part(self.options, AnswerOptions), config))

    def loop(
        self, call: Prepared, settings: Settings, tasks: Sequence[Task], criteria: StoppingCriteriaList, **hooks: Any
    ) -> Loop:
        """A loop ready to run `tasks`, everything checked before anything is decoded."""
        model, reader, prompts = call.model, self.reader(call.config), [task.prompt for task in tasks]
        request.check_lengths(model, prompts, settings, reader.max_tokens)
        sampler = request.sampler(call, settings.max_new_tokens)
        criteria = request.criteria(criteria, call.config)
        if self.stop_strings:
            criteria.append(given.stop_criterion(self.tokenizer, self.stop_strings))
        tokens = max(len(prompt.ids) for prompt in prompts) + settings.max_new_tokens + reader.max_tokens
        static = settings.static
        decoder = (
            selfcheck.checked(model, static, tokens) if self.options.get("self_check", True) else Decoder(model, static)
        )
        return Loop(Batch(decoder, sampler, reader, settings, criteria), tasks, settings, **hooks)


_OWN = set(hints_of(AutoTTS.__init__)) - {"stop_strings"}
_KEPT = ("controller", "beta", "latency", "controller_kwargs")
_READ = {*_KEPT, "interval_tokens", *AnswerOptions.__annotations__}
"""What a generation config may say beside `strategy`; what is not kept is read where it is used."""


class EnabledGenerate:
    """`model.generate` of an enabled model: knows `strategy`, and hands everything else to the model's own generate."""

    def __init__(self, model: PreTrainedModel, tokenizer: Any, plain: Any) -> None:
        self.model, self.tokenizer, self.plain = model, tokenizer, plain

    def __call__(self, *args: Any, strategy: str | None = None, **kwargs: Any) -> Any:
        """As transformers' `generate`; with `strategy="autotts"` also the arguments of `AutoTTS`."""
        named = self._named(args, kwargs)
        kept = named.get("generation_config") or self.model.generation_config
        strategy = getattr(kept, "strategy", None) if strategy is None else strategy
        generate = type(self.model).generate
        if strategy is None:
            alone = sorted({*_KEPT, "branch_processors"} & set(kwargs))
            if alone:
                raise InputError(f"{', '.join(alone)} needs strategy='autotts'; without it they would be ignored.")
            if isinstance(named.get("custom_generate"), AutoTTS):
                return run(self.model, named.pop("custom_generate"), **named)
            return generate(self.model, *args, **kwargs) if self.plain is None else self.plain(*args, **kwargs)
        kwargs = named
        if strategy != "autotts":
            raise UnknownNameError.of("strategy", strategy, ["autotts"])
        self._check_names(kwargs)
        own = {name: kwargs.pop(name) for name in _OWN & set(kwargs)}
        request.check_fields(kwargs, kept, self.model.generation_config)
        self._check_inputs(kwargs)
        check_model(self.model)
        kwargs = with_our_ways(self.model.generation_config, kwargs)
        kind = kwargs.get("cache_implementation", getattr(kept, "cache_implementation", None))
        request.check_cache_kind(kwargs.get("use_cache"), kind)  # before transformers makes one of that kind
        fed = set(inspect.signature(type(self.model).forward).parameters) - set(GenerationConfig().to_dict())
        check_inputs(self.model, {name: kwargs[name] for name in fed & set(kwargs)})  # before it encodes an image
        return run(self.model, self.recipe(kept, own), **kwargs)

    def _named(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments by their names, those too that come by their place, as a generation config may.

        Raises:
            TypeError: as Python has it, of one that is given twice, or has no place.
        """
        signature = inspect.signature(type(self.model).generate)
        if args:
            signature.bind_partial(self.model, *args, **kwargs)
        return {**dict(zip([*signature.parameters][1:], args, strict=False)), **kwargs}

    def recipe(self, kept: GenerationConfig, given: Mapping[str, Any]) -> AutoTTS:
        """What answers a call of these arguments; what a generation config says counts where they say nothing.

        Raises:
            InputError: a config with settings of ours says what is read in a call alone.
        """
        ours = [name for name in sorted(_OWN - _READ - set(given)) if getattr(kept, name, None) is not None]
        if ours and any(getattr(kept, name, None) is not None for name in ("strategy", *_KEPT)):
            raise InputError(
                f"the generation config says {', '.join(ours)}, which only a call can; pass it to generate. Read there "
                f"are strategy, {', '.join(sorted(_READ))}."
            )
        said = {name: getattr(kept, name) for name in _KEPT if getattr(kept, name, None) is not None}
        return AutoTTS(**{"tokenizer": self.tokenizer, **said, **{name: given[name] for name in _OWN & set(given)}})

    def _check_names(self, kwargs: Mapping[str, Any]) -> None:
        """Refuse a keyword that neither we, transformers nor the model knows."""
        known = _OWN | set(GenerationConfig().to_dict()) | set(inspect.signature(GenerationMixin.generate).parameters)
        for call in (self.model.forward, type(self.model).forward, self.model.prepare_inputs_for_generation):
            known |= set(inspect.signature(call).parameters)  # a forward that was patched may name none
        known |= {"max_new_tokens", "stop_strings"}
        for name in kwargs:
            if name not in known:
                raise UnknownNameError.of("keyword of generate", name, known - {"self", "args", "kwargs"})
        for name in ("assistant_model", "custom_generate", "negative_prompt_ids", "synced_gpus"):
            if kwargs.get(name) is not None and kwargs[name] is not False:
                raise UnsupportedError(f"strategy='autotts' cannot be combined with {name}; leave it out.")

    def _check_inputs(self, kwargs: Mapping[str, Any]) -> None:
        """Refuse prompts that are none before transformers looks at them."""
        for ids in [ids for ids in (kwargs.get("inputs"), kwargs.get("input_ids")) if ids is not None]:
            given.check_inputs(ids, kwargs.get("attention_mask"))


def run(model: PreTrainedModel, recipe: AutoTTS, **kwargs: Any) -> Any:
    """The `generate` of a model's class with a recipe of ours, which gets the stop strings that are asked for.

    Those of the call, else the recipe's own, else those of the generation config: transformers would make a criterion
    of them before it calls a recipe, and does not give it the tokenizer.
    """
    said = "stop_strings" in kwargs
    strings = given.stop_strings(model, kwargs)
    if said or not recipe.stop_strings:
        recipe = copy.copy(recipe)
        recipe.stop_strings = stop_texts(strings)
    return type(model).generate(model, custom_generate=recipe, **kwargs)


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
            f"AutoModelForCausalLM.from_pretrained(...).{inside(model)}"
        )
    given.check_tokenizer(tokenizer)
    if "custom_generate" not in inspect.signature(type(model).generate).parameters:
        raise UnsupportedError(
            f"{type(model).__name__} has a generate of its own that takes no custom_generate, which is how "
            "strategy='autotts' decodes. If it hands all of them on: model.generate(custom_generate=AutoTTS(...))."
        )
    check_model(model)
    bound = model.__dict__.get("generate")
    plain = bound.plain if isinstance(bound, EnabledGenerate) else bound
    model.generate = EnabledGenerate(model, tokenizer, plain)
    return model
