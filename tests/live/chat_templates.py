"""Chat templates in the shapes of well-known models, and a tokenizer of bytes with each."""

from __future__ import annotations

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

OFF = "{% if enable_thinking is defined and enable_thinking is false %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}OPEN{% endif %}"
)
R1 = (
    "{% for m in messages %}{% set c = m.content %}"
    "{% if m.role == 'assistant' %}{{ '<A>' + c.split('</think>')[-1] }}{% else %}{{ '<U>' + c }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<A>OPEN' }}{% endif %}"
)
TEMPLATES = {
    "plain": CHATML.replace("OPEN", ""),
    "qwen3": CHATML.replace("OPEN", OFF),
    "always_thinks": "{# '</think>' in content #}" + CHATML.replace("OPEN", "{{ '<think>\n' }}"),
    "r1": R1.replace("OPEN", "<think>\n"),
    "r1_first": R1.replace("OPEN", ""),
    "v3": R1.replace("OPEN", "</think>"),
    "gpt_oss": (
        "{% for m in messages %}{% if m.role == 'assistant' %}"
        "{% if '<|channel|>final<|message|>' in m.content %}{{ raise_exception('no') }}{% endif %}"
        "{{ '<|start|>assistant<|channel|>final<|message|>' + m.content + '<|end|>' }}{% else %}"
        "{{ '<|start|>' + m.role + '<|message|>' + m.content + '<|end|>' }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|start|>assistant' }}{% endif %}"
    ),
    "gemma4": (
        "{% for m in messages %}{{ '<|turn>user\n' + m.content.split('<channel|>')[-1] + '<turn|>\n' }}{% endfor %}"
        "{{ '<|turn>model\n' }}"
        "{% if not enable_thinking | default(false) %}{{ '<|channel>thought\n<channel|>' }}{% endif %}"
    ),
    "magistral": "{% for m in messages %}{{ '[INST]' + m.content + '[/INST]' }}{% endfor %}{# [THINK] [/THINK] #}",
}
SPECIAL = [
    "<|im_start|>", "<|im_end|>", "<think>", "</think>", "<|start|>", "<|end|>", "<|channel|>", "<|message|>",
    "<|return|>", "<|channel>", "<channel|>", "<|turn>", "<turn|>", "[THINK]", "[/THINK]",
]  # fmt: skip


def tokenizer_of(template: str | None, special: list[str] = SPECIAL) -> PreTrainedTokenizerFast:
    """Bytes, and special tokens as real vocabularies have them."""
    alphabet = {sign: number for number, sign in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    inner = Tokenizer(models.BPE(alphabet, []))
    inner.pre_tokenizer, inner.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    made = PreTrainedTokenizerFast(tokenizer_object=inner, additional_special_tokens=special)
    made.chat_template = template and TEMPLATES.get(template, template)
    return made
