"""lm-eval's own model `hf`, with a controller where a task or `--gen_kwargs` ask for `strategy=autotts`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from lm_eval.models.huggingface import HFLM
from transformers import PreTrainedModel, StoppingCriteriaList

from tts_generate.engine import enable
from tts_generate.engine.generate import EnabledGenerate
from tts_generate.harness.asking import PromptBatch, repeat_seed
from tts_generate.harness.stopping import StopTexts


class HarnessGenerate(EnabledGenerate):
    """`model.generate` of an enabled model, as lm-eval's own `hf` calls it.

    Its stopping criteria count rows of the prompt batch, in which branches have none, and its `max_length` loses
    against the `max_new_tokens` of a model's generation config; both are put into the words of `generate(strategy=…)`.
    A prompt that is asked again, as a task's `repeats` are, has another seed.
    """

    def __init__(self, model: PreTrainedModel, tokenizer: Any, plain: Any) -> None:
        super().__init__(model, tokenizer, plain)
        self._asked: Counter[tuple[str, tuple[int, ...]]] = Counter()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """As `EnabledGenerate`."""
        if kwargs.get("strategy") is None:
            return super().__call__(*args, **kwargs)
        ids, mask = kwargs["input_ids"], kwargs["attention_mask"]
        given = kwargs.pop("stopping_criteria", [])
        stops = [criterion.sequence for criterion in given if hasattr(criterion, "done_tracker")]
        others = [criterion for criterion in given if not hasattr(criterion, "done_tracker")]
        prompts = PromptBatch(ids, mask, 0, 0).prompts
        kwargs["stopping_criteria"] = StoppingCriteriaList([*others, StopTexts(self.tokenizer, stops, prompts)])
        kwargs["max_new_tokens"] = kwargs.pop("max_length") - ids.shape[1]
        return self._each_repeat(prompts, kwargs)

    def _each_repeat(self, prompts: Sequence[Sequence[int]], kwargs: dict[str, Any]) -> Any:
        """One call for the prompts that are asked for the first time, one for those of the second, and so on."""
        ids, mask, criteria = (kwargs.pop(name) for name in ("input_ids", "attention_mask", "stopping_criteria"))
        how, seed = repr(sorted(kwargs.items())), kwargs.pop("seed", None)
        rows: dict[int, list[int]] = {}
        for row, prompt in enumerate(prompts):
            rows.setdefault(self._asked[how, tuple(prompt)], []).append(row)
            self._asked[how, tuple(prompt)] += 1
        said = []
        for repeat, these in rows.items():
            own = {"input_ids": ids[these], "attention_mask": mask[these], "stopping_criteria": criteria}
            own["seed"] = None if seed is None else repeat_seed(seed, repeat)
            said.append(super().__call__(**kwargs, **own))
        out = ids.new_full((len(ids), max(each.shape[1] for each in said)), kwargs["pad_token_id"])
        for these, each in zip(rows.values(), said, strict=True):
            out[these, : each.shape[1]] = each
        return out


def enable_hf(model: PreTrainedModel, *, tokenizer: Any) -> PreTrainedModel:
    """`tts_generate.enable`, for a model that goes into lm-eval's own `HFLM(pretrained=model, tokenizer=tokenizer)`.

    `gen_kwargs="strategy=autotts,controller=cmc,beta=0.5,do_sample=True,temperature=1.0"` then answers with a
    controller. `hf` decodes greedily unless it is told a temperature, and reports no tokens; for those take `tts`.
    """
    enable(model, tokenizer=tokenizer)
    model.generate = HarnessGenerate(model, tokenizer, model.generate.plain)
    return model


class EnabledHFLM(HFLM):
    """lm-eval's `hf`, whose model is enabled at the first request that asks for a strategy; nothing else differs.

    `harness.lm_eval` puts it in the place of `hf`, on the command line and in its `simple_evaluate`.
    """

    def _model_generate(self, context: Any, max_length: int, stop: list[str], **generation_kwargs: Any) -> Any:
        if generation_kwargs.get("strategy") is not None and not isinstance(self.model.generate, HarnessGenerate):
            enable_hf(self.model, tokenizer=self.tokenizer)
        return super()._model_generate(context, max_length, stop, **generation_kwargs)
