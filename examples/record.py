"""Record branches of some questions into a store; killed, the same command goes on where it stopped.

python examples/record.py STORE
"""

from __future__ import annotations

import sys

import tts_generate
from tts_generate import tiny

model, tokenizer = tiny.load()  # or AutoModelForCausalLM.from_pretrained("Qwen/Qwen3-4B", dtype="bfloat16")
questions = tiny.questions("record")[:8]  # or [tts_generate.Question("1", "What is 6 times 7?", "42"), …]

# Every branch is read to its end and probed at every step, through the same generate() that answers questions.
store = tts_generate.record(model, tokenizer, questions, sys.argv[1], branches=16, seed=0)
rows = store.trajectories()
first = rows[0]
print(
    f"{len(rows)} branches of {len(store.questions)} questions in {store.path}, a step is "
    f"{store.manifest.interval_tokens} tokens"
)
print(f"branch 0 of {first.question_id} showed {first.probe_answers}, and ended with {first.final_answer!r}")
