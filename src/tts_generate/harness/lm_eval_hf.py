"""lm-eval's own model `hf`, with a controller where a task or `--gen_kwargs` ask for `strategy=autotts`."""

from __future__ import annotations

from typing import Any

from lm_eval.models.huggingface import HFLM
from transformers import PreTrainedModel, StoppingCriteriaList

from tts_generate.engine import enable
from tts_generate.engine.generate import EnabledGenerate
from tts_generate.harness.asking import PromptBatch
from tts_generate.harness.stopping import StopTexts


class HarnessGenerate(EnabledGenerate):
    """`model.generate` of an enabled model, as lm-eval's own `hf` calls it.

    Its stopping criteria count rows of the prompt batch, in which branches have none, and its `max_length` loses
    against the `max_new_tokens` of a model's generation config; both are put into the words of `generate(strategy=…)`.
    """

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """As `EnabledGenerate`."""
        if kwargs.get("strategy") is not None:
            ids, mask = kwargs["input_ids"], kwargs["attention_mask"]
            given = kwargs.pop("stopping_criteria", [])
            stops = [criterion.sequence for criterion in given if hasattr(criterion, "done_tracker")]
            others = [criterion for criterion in given if not hasattr(criterion, "done_tracker")]
            prompts = PromptBatch(ids, mask, 0, 0).prompts
            kwargs["stopping_criteria"] = StoppingCriteriaList([*others, StopTexts(self.tokenizer, stops, prompts)])
            kwargs["max_new_tokens"] = kwargs.pop("max_length") - ids.shape[1]
        return super().__call__(*args, **kwargs)


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
