"""From what transformers' `generate` prepared to what the loop needs; whatever cannot be honoured is refused here."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessorList, PreTrainedModel, StoppingCriteriaList
from transformers.generation.configuration_utils import GenerationMode
from transformers.generation.logits_process import MinLengthLogitsProcessor, MinNewTokensLengthLogitsProcessor
from transformers.generation.stopping_criteria import EosTokenCriteria, MaxLengthCriteria, MaxTimeCriteria

from tts_generate.answers import AnswerFormat, AnswerOptions
from tts_generate.engine.honoured import FIELDS, Place
from tts_generate.engine.sample import Sampler
from tts_generate.engine.settings import Settings
from tts_generate.errors import InputError, UnsupportedError
from tts_generate.live.settings import advice_on_room
from tts_generate.live.task import Prompt
from tts_generate.live.thinking import asked_of
from tts_generate.processors import BranchProcessorList, Deadline

_USUAL_TOKENS = 20
"""What transformers generates where nothing else is said."""
_REFUSED_OUTPUTS = ("output_scores", "output_logits", "output_attentions", "output_hidden_states")


@dataclass(frozen=True, slots=True)
class Prepared:
    """A call as transformers' `generate` prepared it: its prompts, and what shapes their branches."""

    model: PreTrainedModel
    config: GenerationConfig
    input_ids: Tensor
    """(questions, width) int64, with their padding, on either side."""
    prompts: Sequence[Prompt]
    leads: Sequence[int]
    """Columns of padding before each."""
    processors: LogitsProcessorList
    criteria: StoppingCriteriaList

    @property
    def width(self) -> int:
        """Tokens of the longest prompt, and of all others with their padding."""
        return self.input_ids.shape[1]


def setting(name: str, given: Any, config: GenerationConfig, default: Any) -> Any:
    """A setting of ours: as given, else as the model's generation config has it, else the default."""
    if given is not None:
        return given
    kept = getattr(config, name, None)
    return default if kept is None else kept


def check_modes(config: GenerationConfig) -> None:
    """Refuse decoding modes and outputs that the engine would otherwise have to ignore.

    Raises:
        UnsupportedError: naming what was asked for and why it cannot be done.
        InputError: greedy decoding, in which all branches would be the same.
    """
    mode = config.get_generation_mode()
    if mode is GenerationMode.GREEDY_SEARCH:
        raise InputError(
            "do_sample=False makes all branches of a question the same, so there is nothing to vote on; pass "
            "do_sample=True (and a temperature)."
        )
    if mode is not GenerationMode.SAMPLE:
        raise UnsupportedError(
            f"strategy='autotts' samples independent branches and cannot do {mode.value.replace('_', ' ')}; leave out "
            "the argument that asks for it."
        )
    if (config.num_return_sequences or 1) != 1:
        raise UnsupportedError(
            "num_return_sequences is not used by strategy='autotts': the controller opens the branches. Set its knobs "
            "instead (e.g. controller_kwargs={'max_samples': 16}), and read all branches from output.branches."
        )
    for name in _REFUSED_OUTPUTS:
        if getattr(config, name, None):
            raise UnsupportedError(
                f"{name}=True is not offered by strategy='autotts': branches come and go in a batch."
            )
    check_fields(config)
    check_cache_kind(config.use_cache, config.cache_implementation)
    if config.compile_config is not None:
        raise UnsupportedError(
            "strategy='autotts' does not compile the model; leave out compile_config (cache_implementation='static' "
            "captures CUDA graphs)."
        )


def check_fields(*places: Mapping[str, Any] | GenerationConfig) -> None:
    """Refuse fields of a generation config that would have to be ignored, wherever they are set.

    Raises:
        UnsupportedError: naming the first.
    """
    for place in places:
        for name, advice in FIELDS.items():
            value = place.get(name) if isinstance(place, Mapping) else getattr(place, name, None)
            if value:
                raise UnsupportedError(f"strategy='autotts' cannot honour {name}={value!r}: {advice}.")


def check_cache_kind(use_cache: bool | None, cache_implementation: str | None) -> None:
    """Refuse a key-value cache of another kind than the engine's own.

    Raises:
        UnsupportedError: no cache, or one of transformers' that is not "static".
    """
    if use_cache is False or cache_implementation not in (None, "static"):
        raise UnsupportedError(
            "strategy='autotts' keeps its own key-value cache; leave out use_cache, and cache_implementation unless it "
            "is 'static' (passes of a few fixed shapes, captured as graphs on a CUDA device). With custom_generate, "
            "use_cache=True, cache_implementation=None is said over the model's own generation config."
        )


def check_lengths(model: PreTrainedModel, prompts: Sequence[Prompt], settings: Settings, probe_tokens: int) -> None:
    """Refuse prompts that do not leave room for a branch and its probes in the model's context.

    Raises:
        InputError: naming the prompt and the numbers.
        UnsupportedError: the model rescales its positions by the longest row of a batch, and a branch would get there.
    """
    config = model.config.get_text_config(decoder=True)
    context = getattr(config, "max_position_embeddings", None)
    lengths = [len(prompt.ids) for prompt in prompts]
    length = max(lengths)
    longest = lengths.index(length)
    if context is not None and length + settings.max_new_tokens + probe_tokens > context:
        raise InputError(
            f"prompt {longest} has {length} tokens; with max_new_tokens={settings.max_new_tokens} and {probe_tokens} "
            f"for a probe that is beyond the model's context of {context}. "
            f"{advice_on_room(context - length - probe_tokens)}."
        )
    rope = getattr(config, "rope_parameters", None) or {}
    original = rope.get("original_max_position_embeddings") or context
    moving = rope.get("rope_type") in ("dynamic", "longrope")
    if moving and original is not None and length + settings.max_new_tokens + probe_tokens > original:
        raise UnsupportedError(
            f"this model's {rope['rope_type']} rope rescales all rows of a batch once the longest is beyond {original} "
            f"tokens, so a branch would depend on its neighbours. {advice_on_room(original - length - probe_tokens)}."
        )


def eos_ids(config: GenerationConfig) -> tuple[int, ...]:
    """Every token id that ends a branch."""
    eos = config.eos_token_id
    return () if eos is None else tuple(torch.as_tensor(eos).flatten().tolist())


def pad_id(config: GenerationConfig) -> int:
    """The token id that fills returned sequences."""
    ends = eos_ids(config)
    return int(config.pad_token_id) if config.pad_token_id is not None else ends[0] if ends else 0


def max_new_tokens(config: GenerationConfig, padded_length: int, prompts: Sequence[Prompt]) -> int:
    """Tokens a branch may have, from whichever limit the caller gave.

    Raises:
        InputError: a `max_length` that leaves each question another number.
    """
    if config.max_new_tokens is not None:
        return int(config.max_new_tokens)
    limit, lengths = int(config.max_length or 0), {len(prompt.ids) for prompt in prompts}
    if limit - padded_length == _USUAL_TOKENS:  # the default of transformers, which counts no prompt
        return _USUAL_TOKENS
    if len(lengths) > 1:
        raise InputError(
            f"max_length={limit} counts the prompt, and prompts of {min(lengths)} to {max(lengths)} tokens would leave "
            "branches of different lengths; pass max_new_tokens."
        )
    return max(1, limit - lengths.pop())


def answer_format(tokenizer: Any, asked: Mapping[str, Any], config: GenerationConfig) -> AnswerFormat:
    """How this model is asked: as the caller says, else as its generation config does, else as its tokenizer does."""
    names = AnswerOptions.__annotations__
    return asked_of(tokenizer, **{name: setting(name, asked.get(name), config, None) for name in names})


def sampler(call: Prepared, max_new_tokens: int) -> Sampler:
    """A sampler for the prepared processors, which were made for padded prompts; a branch's own tokens have none.

    `min_new_tokens` is counted by the engine, and not also as the `min_length` of a padded prompt that transformers
    makes of it.

    Raises:
        UnsupportedError: a processor that cannot be honoured branch by branch.
        InputError: something that is no processor.
    """
    kept, least, ends = LogitsProcessorList(), 0, None
    for processor in call.processors:
        minimum = type(processor) is MinNewTokensLengthLogitsProcessor
        if minimum and not least and processor.prompt_length_to_skip == call.width:
            least, ends = processor.min_new_tokens, processor.eos_token_id
        else:
            kept.append(processor)
    for processor in [p for p in kept if least and type(p) is MinLengthLogitsProcessor]:
        if processor.min_length == call.width + least:
            kept.remove(processor)

    leads = {tuple(prompt.ids): lead for prompt, lead in zip(call.prompts, call.leads, strict=True)}

    def place(prompt: Tensor) -> Place:
        return Place(prompt, call.width, leads[tuple(prompt[0].tolist())], call.config.max_length, max_new_tokens)

    return Sampler(kept, least, ends, place)


def deadline(
    processors: BranchProcessorList, prepared: StoppingCriteriaList
) -> tuple[BranchProcessorList, StoppingCriteriaList]:
    """`max_time` of transformers as the `Deadline` it is: it ends questions, where a criterion would end branches.

    A criterion's time has run since it was made, or since its `initial_timestamp`.
    """
    limits = [Deadline(_left(criterion)) for criterion in prepared if isinstance(criterion, MaxTimeCriteria)]
    others = [criterion for criterion in prepared if not isinstance(criterion, MaxTimeCriteria)]
    return BranchProcessorList([*processors, *limits]), StoppingCriteriaList(others)


def _left(criterion: MaxTimeCriteria) -> float:
    """Seconds of it; what is no time is left to `Deadline` to refuse."""
    most, gone = float(criterion.max_time), time.time() - criterion.initial_timestamp
    return max(most - gone, sys.float_info.min) if most > 0 else most


def criteria(prepared: StoppingCriteriaList, config: GenerationConfig) -> StoppingCriteriaList:
    """The criteria that need a branch's tokens; its length and its end are counted by the engine.

    Raises:
        UnsupportedError: lengths and ends that a criterion says and the generation config does not, and lm-eval's own
            criteria, which count the rows of the prompt batch.
    """
    kept = StoppingCriteriaList()
    for criterion in prepared:
        if hasattr(criterion, "done_tracker"):
            raise UnsupportedError(
                "lm-eval's stopping criteria count rows of the prompt batch, and a branch has none there; enable the "
                "model with tts_generate.harness.lm_eval.enable_hf(model, tokenizer=tokenizer)."
            )
        if type(criterion) is MaxLengthCriteria and criterion.max_length != config.max_length:
            raise UnsupportedError(
                "strategy='autotts' counts lengths itself; say max_new_tokens, not MaxLengthCriteria."
            )
        if type(criterion) is EosTokenCriteria and set(criterion.eos_token_id.tolist()) != set(eos_ids(config)):
            raise UnsupportedError("strategy='autotts' looks for ends itself; say eos_token_id, not EosTokenCriteria.")
        if type(criterion) not in (MaxLengthCriteria, EosTokenCriteria):
            kept.append(criterion)
    return kept
