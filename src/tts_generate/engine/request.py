"""From what transformers' `generate` prepared to what the loop needs; whatever cannot be honoured is refused here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessorList, PreTrainedModel, StoppingCriteriaList
from transformers.generation.configuration_utils import GenerationMode
from transformers.generation.logits_process import (
    MinLengthLogitsProcessor,
    MinNewTokensLengthLogitsProcessor,
    PrefixConstrainedLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    SuppressTokensAtBeginLogitsProcessor,
    UnbatchedClassifierFreeGuidanceLogitsProcessor,
)
from transformers.generation.stopping_criteria import EosTokenCriteria, MaxLengthCriteria, MaxTimeCriteria

from tts_generate.answers import AnswerFormat
from tts_generate.engine.sample import Sampler
from tts_generate.engine.settings import Probing, Settings
from tts_generate.errors import InputError, UnsupportedError
from tts_generate.processors import BranchProcessorList, Deadline

_REFUSED_PROCESSORS = {
    PrefixConstrainedLogitsProcessor: "prefix_allowed_tokens_fn, which counts rows of a batch that keeps changing",
    UnbatchedClassifierFreeGuidanceLogitsProcessor: "guidance_scale, which keeps a second cache of its own",
    SuppressTokensAtBeginLogitsProcessor: "begin_suppress_tokens",
}
_REFUSED_OUTPUTS = ("output_scores", "output_logits", "output_attentions", "output_hidden_states")


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
    check_cache_kind(config.use_cache, config.cache_implementation)
    if config.compile_config is not None:
        raise UnsupportedError(
            "strategy='autotts' does not compile the model; leave out compile_config (cache_implementation='static' "
            "captures CUDA graphs)."
        )


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


def prompts(input_ids: Tensor, attention_mask: Tensor | None) -> list[list[int]]:
    """The token ids of each question, its left padding gone.

    Args:
        input_ids: (questions, length) int64.
        attention_mask: the same shape, 0 on padding; None if there is none.

    Raises:
        InputError: an empty prompt, or padding that is not on the left.
    """
    if attention_mask is None:
        attention_mask = torch.ones_like(input_ids)
    found = []
    for number, (ids, mask) in enumerate(zip(input_ids.tolist(), attention_mask.bool().tolist(), strict=True)):
        start = mask.index(True) if True in mask else len(mask)
        if start == len(mask):
            raise InputError(f"prompt {number} is empty; give every question at least one token.")
        if not all(mask[start:]):
            raise InputError(
                f"prompt {number} is padded inside or on the right; tokenize with tokenizer.padding_side = 'left'."
            )
        found.append(ids[start:])
    return found


def check_lengths(model: PreTrainedModel, questions: list[list[int]], settings: Settings, probe_tokens: int) -> None:
    """Refuse prompts that do not leave room for a branch and its probes in the model's context.

    Raises:
        InputError: naming the prompt and the numbers.
        UnsupportedError: the model rescales its positions by the longest row of a batch, and a branch would get there.
    """
    config = model.config.get_text_config(decoder=True)
    context = getattr(config, "max_position_embeddings", None)
    longest = max(range(len(questions)), key=lambda number: len(questions[number]))
    length = len(questions[longest])
    if context is not None and length + settings.max_new_tokens + probe_tokens > context:
        raise InputError(
            f"prompt {longest} has {length} tokens; with max_new_tokens={settings.max_new_tokens} and {probe_tokens} "
            f"for a probe that is beyond the model's context of {context}. Shorten the prompt or pass max_new_tokens="
            f"{max(0, context - length - probe_tokens)} or less."
        )
    rope = getattr(config, "rope_parameters", None) or {}
    original = rope.get("original_max_position_embeddings") or context
    moving = rope.get("rope_type") in ("dynamic", "longrope")
    if moving and original is not None and length + settings.max_new_tokens + probe_tokens > original:
        raise UnsupportedError(
            f"this model's {rope['rope_type']} rope rescales all rows of a batch once the longest is beyond {original} "
            f"tokens, so a branch would depend on its neighbours; stay below that with max_new_tokens="
            f"{max(0, original - length - probe_tokens)} or less."
        )


def eos_ids(config: GenerationConfig) -> tuple[int, ...]:
    """Every token id that ends a branch."""
    eos = config.eos_token_id
    return () if eos is None else tuple(eos) if isinstance(eos, list) else (int(eos),)


def pad_id(config: GenerationConfig) -> int:
    """The token id that fills returned sequences."""
    ends = eos_ids(config)
    return int(config.pad_token_id) if config.pad_token_id is not None else ends[0] if ends else 0


def max_new_tokens(config: GenerationConfig, padded_length: int) -> int:
    """Tokens a branch may have, from whichever limit the caller gave."""
    if config.max_new_tokens is not None:
        return int(config.max_new_tokens)
    return max(1, int(config.max_length or 0) - padded_length)


def probing(options: Mapping[str, Any], config: GenerationConfig) -> Probing:
    """How this model is asked for its answer."""
    usual = AnswerFormat()
    answer_format = AnswerFormat(
        probe_suffix=setting("probe_suffix", options.get("probe_suffix"), config, usual.probe_suffix),
        think_end=setting("think_end", options.get("think_end"), config, usual.think_end),
        answer_pattern=setting("answer_pattern", options.get("answer_pattern"), config, usual.answer_pattern),
    )
    return Probing(answer_format, setting("max_probe_tokens", options.get("max_probe_tokens"), config, 20))


def sampler(processors: LogitsProcessorList) -> Sampler:
    """A sampler for the prepared processors, which were made for padded prompts; a branch's own tokens have none.

    `min_new_tokens` is therefore counted by the engine, and not also as the `min_length` of a padded prompt that
    transformers makes of it; and a repetition penalty told to skip padding skips nothing.

    Raises:
        UnsupportedError: a processor that cannot be honoured branch by branch.
    """
    kept, least, ends = LogitsProcessorList(), 0, None
    for processor in processors:
        for kind, what in _REFUSED_PROCESSORS.items():
            if isinstance(processor, kind):
                raise UnsupportedError(f"strategy='autotts' cannot honour {what}.")
        if type(processor) is MinNewTokensLengthLogitsProcessor:
            least, ends = processor.min_new_tokens, processor.eos_token_id
        elif isinstance(getattr(processor, "prompt_ignore_length", None), Tensor):
            kept.append(RepetitionPenaltyLogitsProcessor(processor.penalty))
        else:
            kept.append(processor)
    if least:
        kept = LogitsProcessorList([each for each in kept if type(each) is not MinLengthLogitsProcessor])
    return Sampler(kept, least, ends)


def deadline(
    processors: BranchProcessorList, prepared: StoppingCriteriaList
) -> tuple[BranchProcessorList, StoppingCriteriaList]:
    """`max_time` of transformers as the `Deadline` it is: it ends questions, where a criterion would end branches."""
    limits = [Deadline(criterion.max_time) for criterion in prepared if isinstance(criterion, MaxTimeCriteria)]
    others = [criterion for criterion in prepared if not isinstance(criterion, MaxTimeCriteria)]
    return BranchProcessorList([*processors, *limits]), StoppingCriteriaList(others)


def criteria(prepared: StoppingCriteriaList) -> StoppingCriteriaList:
    """The criteria that need a branch's tokens; its length and its end are counted by the engine.

    Raises:
        UnsupportedError: lm-eval's own, which count the rows of the prompt batch.
    """
    if any(hasattr(criterion, "done_tracker") for criterion in prepared):
        raise UnsupportedError(
            "lm-eval's stopping criteria count rows of the prompt batch, and a branch has none there; enable the model "
            "with tts_generate.harness.lm_eval.enable_hf(model, tokenizer=tokenizer)."
        )
    return StoppingCriteriaList([c for c in prepared if not isinstance(c, (MaxLengthCriteria, EosTokenCriteria))])
