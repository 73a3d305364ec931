"""Answer a question with a controller, live, and see what it cost; any causal language model will do.

python examples/quickstart.py
"""

from __future__ import annotations

import tts_generate
from tts_generate import tiny

model, tokenizer = tiny.load()
tts_generate.enable(model, tokenizer=tokenizer)
questions = tiny.questions("test")[:4]
inputs = tokenizer(
    [question.question for question in questions],
    return_tensors="pt",
    padding=True,
    padding_side="left",
)
for controller in ("self_consistency", "asc", "cmc"):
    output = model.generate(
        **inputs, strategy="autotts", controller=controller, beta=0.1, seed=0, return_dict_in_generate=True
    )
    right = sum(answer == question.gold_answer for answer, question in zip(output.answers, questions, strict=True))
    print(f"{controller:17} {right} of {len(questions)} right, {output.total_cost}")
