"""Every causal model class of transformers: the engine decodes what the model says, or refuses it with a reason."""

from __future__ import annotations

import families
import pytest

REPRESENTATIVE = {
    "bloom": "refused",  # takes no mask for each row
    "cpmant": "refused",  # reads ahead
    "deepseek_v3": "fell back",  # keys and values are made of what is cached
    "diffllama": "fell back",  # values are cut in halves after the cache
    "doge": "refused",
    "gemma3n_text": "right",  # layers share keys and values
    "gemma4_text": "right",  # heads of two sizes
    "gpt_neo": "refused",  # masks of its own
    "hrm_text": "right",  # a module stands for several layers
    "jetmoe": "fell back",  # keys and values are repeated after the cache
    "llama4_text": "right",  # chunks
    "minimax": "refused",  # a cache of its own
    "musicgen": "refused",  # a generate of its own
    "recurrent_gemma": "refused",  # states in its modules
    "xmod": "refused",  # positions counted from the padding token
}


@pytest.mark.parametrize("family", REPRESENTATIVE)
def test_a_family_of_each_kind(family: str) -> None:
    verdict = families.judge(family, ["in row"])
    assert verdict.what == REPRESENTATIVE[family], verdict.why


@pytest.mark.families
@pytest.mark.parametrize("family", families.FAMILIES)
def test_no_family_is_wrong_without_a_word(family: str) -> None:
    verdict = families.judge(family)
    assert verdict.what in families.GOOD, verdict.why
