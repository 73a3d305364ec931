"""transformers' logits processors and stopping criteria, all of them: how each is honoured for a branch, or why not.

transformers makes them for the padded prompts of a call. A branch has no padding, and who shares its batch changes from
token to token; so each must see the branch's own tokens, count from its own prompt, and keep nothing about a row.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from transformers.generation import logits_process as processors
from transformers.generation import stopping_criteria as criteria

from tts_generate.errors import UnsupportedError


@dataclass(frozen=True, slots=True)
class Place:
    """What processors that count are made for: one question of a call."""

    prompt: Tensor
    """(1, length) int64, without padding."""
    padded: int
    """Tokens of the call's prompts with their padding: what transformers has counted from."""
    lead: int
    """Those of them that are padding before the prompt."""
    max_length: int | None
    """Tokens of padded prompt and branch at most, as transformers has counted them."""
    max_new_tokens: int

    @property
    def length(self) -> int:
        """Tokens of the prompt."""
        return self.prompt.shape[1]

    def tokens(self, columns: int) -> int:
        """Tokens of prompt and branch in the first so many columns of their padded row; below 0 within the padding."""
        inside = columns < self.padded
        return min(columns - self.lead, self.length) if inside else columns - self.padded + self.length


@dataclass(frozen=True, slots=True)
class Rule:
    """How one class is honoured; as it is, on a branch's own tokens, where nothing else is said."""

    scores_only: bool = False
    """It looks at a row's scores and at nothing else: it may run on a whole batch."""
    make: Callable[[Any, Place], Any] | None = None
    """From transformers' own to that of one question."""
    fork: Callable[[Any], Any] | None = None
    """From that to one of a new branch, where it remembers what it has seen."""
    refused: str = ""


def own(processor: Any, **values: Any) -> Any:
    """A copy of a processor with these attributes."""
    twin = copy.copy(processor)
    for name, value in values.items():
        setattr(twin, name, value)
    return twin


def _counted(name: str) -> Rule:
    return Rule(make=lambda processor, place: own(processor, **{name: place.tokens(getattr(processor, name))}))


def _repetition(processor: Any, place: Place) -> Any:
    """A penalty that skips leading tokens: transformers has it skip each row's padding, and a caller a prompt."""
    skipped = processor.prompt_ignore_length
    if isinstance(skipped, Tensor):
        if place.lead not in skipped.tolist():
            raise UnsupportedError(
                "RepetitionPenaltyLogitsProcessor has a prompt_ignore_length for each row of the prompt batch, and "
                "branches have no rows there; give it one number for all, in tokens of the padded prompts."
            )
        return own(processor, prompt_ignore_length=None)
    return processor if skipped is None else own(processor, prompt_ignore_length=max(0, place.tokens(skipped)))


def _forced_eos(processor: Any, place: Place) -> Any:
    made = processor.max_length == place.max_length
    return own(processor, max_length=place.length + place.max_new_tokens) if made else processor


SCORES, IDS = Rule(scores_only=True), Rule()
_HALVES = Rule(refused="it takes the second half of a batch for prompts")
_SPEECH = Rule(refused="it is made for the codes of a speech model")
PROCESSORS: Mapping[type, Rule] = {
    processors.TemperatureLogitsWarper: SCORES,
    processors.TopHLogitsWarper: SCORES,
    processors.TopKLogitsWarper: SCORES,
    processors.TopPLogitsWarper: SCORES,
    processors.MinPLogitsWarper: SCORES,
    processors.TypicalLogitsWarper: SCORES,
    processors.EpsilonLogitsWarper: SCORES,
    processors.EtaLogitsWarper: SCORES,
    processors.InfNanRemoveLogitsProcessor: SCORES,
    processors.LogitNormalization: SCORES,
    processors.MinLengthLogitsProcessor: IDS,
    processors.NoRepeatNGramLogitsProcessor: IDS,
    processors.SequenceBiasLogitsProcessor: IDS,
    processors.NoBadWordsLogitsProcessor: IDS,
    processors.ForcedBOSTokenLogitsProcessor: IDS,
    processors.SuppressTokensLogitsProcessor: IDS,
    processors.WatermarkLogitsProcessor: IDS,
    processors.MinNewTokensLengthLogitsProcessor: _counted("prompt_length_to_skip"),
    processors.ExponentialDecayLengthPenalty: _counted("regulation_start"),
    processors.SuppressTokensAtBeginLogitsProcessor: _counted("begin_index"),
    processors.RepetitionPenaltyLogitsProcessor: Rule(make=_repetition),
    processors.ForcedEOSTokenLogitsProcessor: Rule(make=_forced_eos),
    processors.EncoderRepetitionPenaltyLogitsProcessor: Rule(
        make=lambda processor, place: own(processor, encoder_input_ids=place.prompt)
    ),
    processors.EncoderNoRepeatNGramLogitsProcessor: Rule(
        make=lambda processor, place: type(processor)(processor.ngram_size, place.prompt)
    ),
    processors.SynthIDTextWatermarkLogitsProcessor: Rule(fork=lambda processor: own(processor, state=None)),
    processors.PrefixConstrainedLogitsProcessor: Rule(
        refused="prefix_allowed_tokens_fn counts rows of a batch that keeps changing"
    ),
    processors.UnbatchedClassifierFreeGuidanceLogitsProcessor: Rule(
        refused="guidance_scale runs the model on prompts of its own, with a second cache"
    ),
    processors.ClassifierFreeGuidanceLogitsProcessor: _HALVES,
    processors.DiaClassifierFreeGuidanceLogitsProcessor: _HALVES,
    processors.WhisperTimeStampLogitsProcessor: _SPEECH,
    processors.WhisperNoSpeechDetection: _SPEECH,
    processors.AlternatingCodebooksLogitsProcessor: _SPEECH,
    processors.BarkEosPrioritizerLogitsProcessor: _SPEECH,
    processors.DiaEOSChannelFilterLogitsProcessor: _SPEECH,
    processors.DiaEOSDelayPatternLogitsProcessor: _SPEECH,
}
"""Every logits processor of `transformers.generation`."""

CRITERIA: Mapping[type, Rule] = {
    criteria.MaxLengthCriteria: IDS,
    criteria.EosTokenCriteria: IDS,
    criteria.MaxTimeCriteria: IDS,
    criteria.StopStringCriteria: IDS,
    criteria.ConfidenceCriteria: Rule(refused="it is made for the assistant of assisted generation"),
}
"""Every stopping criterion of `transformers.generation`; the engine itself counts lengths, ends and time."""

FIELDS = {
    "token_healing": "tokenize the prompts so that they end where a token does",
    "is_assistant": "leave it out",
    "use_mtp": "leave it out",
    "prefill_chunk_size": "leave it out; each prompt is prefilled by itself",
}
"""Fields of a generation config that would have to be ignored, and what to do instead."""


def rule_of(thing: Any) -> Rule | None:
    """How a processor or criterion is honoured; None for one that is not transformers' own.

    Raises:
        UnsupportedError: it cannot be honoured, or this version of transformers has it and we do not know it.
    """
    kind = type(thing)
    rule = PROCESSORS.get(kind) or CRITERIA.get(kind)
    if rule is None and kind.__module__.startswith("transformers."):
        rule = Rule(refused="this version of tts-generate does not know it")
    if rule is not None and rule.refused:
        raise UnsupportedError(f"strategy='autotts' cannot honour {kind.__name__}: {rule.refused}. Leave it out.")
    return rule
