"""Write a controller, check it, replay it, and let it answer live: the same object.

python examples/record.py STORE
python examples/write_a_controller.py STORE
"""

from __future__ import annotations

import sys

import tts_generate
from tts_generate import Controller, tiny
from tts_generate.replay import replay
from tts_generate.testing import check_controller
from tts_generate.votes import majority


class EarlyMajority(Controller):
    """Reads `width` branches a step at a time and answers once `share` of them show one answer."""

    width: int
    share: float

    @staticmethod
    def schedule(beta):
        """Every knob from the one budget knob, monotone."""
        return {"width": round(4 + 12 * beta), "share": 0.5 + 0.4 * beta}

    def begin(self, state, do):
        """Open them all."""
        do.open = self.width

    def plan(self, state, do):
        """Read each a step on."""
        for i in range(state.opened):
            do.steps[i] = 1

    def review(self, state, do):
        """Stop once enough of them agree."""
        winner, votes, _ = majority(state.answer, state.opened)
        if votes >= self.share * state.opened:
            do.stop, do.answer = True, winner


check_controller(EarlyMajority.from_beta(0.5))  # no look into the future, no memory between episodes, compiled = plain
for beta in (0.0, 0.5, 1.0):
    result = replay(sys.argv[1], EarlyMajority.from_beta(beta), shuffles=20)
    print(f"replay β={beta:g}: {result.accuracy:.1%} right, {result.tokens:.0f} tokens a question")

model, tokenizer = tiny.load()
tts_generate.enable(model, tokenizer=tokenizer)
question = tiny.questions("test")[0]
inputs = tokenizer(question.question, return_tensors="pt")
output = model.generate(
    **inputs, strategy="autotts", controller=EarlyMajority.from_beta(0.5), return_dict_in_generate=True
)
print(f"live β=0.5: answers {output.answers[0]} (gold {question.gold_answer}), {output.total_cost}")
