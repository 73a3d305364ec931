"""Measures a controller on a model: questions answered live, to be shown beside what replay says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tts_generate.answers import is_right
from tts_generate.arguments import checked
from tts_generate.controller import Controller
from tts_generate.equivalence import same_answer
from tts_generate.errors import InputError
from tts_generate.evaluate import accuracy_interval
from tts_generate.live.output import LiveOutput
from tts_generate.replay import Recording, ReplayResult, replay
from tts_generate.trajectories import Question
from tts_generate.trajectories.schema import public_model


@checked
def measure_live(
    model: Any,
    tokenizer: Any,
    questions: Sequence[Question],
    controllers: Sequence[Controller],
    *,
    dataset: str,
    seed: int = 1,
    **generate: Any,
) -> list[dict[str, Any]]:
    """Answer `questions` with each controller, the same seed for all: rows for `publish(live=...)`.

    Args:
        model: a causal language model of transformers.
        tokenizer: its tokenizer.
        questions: with their right answers.
        controllers: at their budgets.
        dataset: what the questions are called.
        seed: of the branches.
        **generate: arguments of `generate`; answers are right that its `votes` say are the gold ones.

    Raises:
        InputError: a question without a right answer.
        KeyboardInterrupt: Ctrl-C; there are no rows then.
    """
    from tts_generate.engine import enable
    from tts_generate.engine.cards import model_card

    for question in questions:
        if question.gold_answer is None:
            raise InputError(f"question {question.question_id!r} has no gold_answer; accuracy needs one of each.")
    same = same_answer(generate.get("votes") or "equal")
    enable(model, tokenizer=tokenizer)
    inputs = prompts(model, tokenizer, questions)
    rows = []
    for controller in controllers:
        output = model.generate(
            **inputs, strategy="autotts", controller=controller, seed=seed, return_dict_in_generate=True, **generate
        ).whole()
        answered = zip(output.answers, questions, strict=True)
        right = np.array([is_right(answer, question.gold_answer or "", same) for answer, question in answered])
        low, high = accuracy_interval(right)
        cost = output.total_cost
        rows.append(
            {
                **output.trace[0].controller,  # as the rows suited it
                "model": public_model(model_card(model)),
                "dataset": dataset,
                "questions": len(questions),
                "seed": int(seed),
                "accuracy": 100 * float(right.mean()),
                "accuracy_ci": [100 * low, 100 * high],
                "tokens": (cost.generated_tokens + cost.probe_tokens) / len(questions),
                "probe_tokens": cost.probe_tokens / len(questions),
                "wasted_tokens": cost.wasted_tokens / len(questions),
            }
        )
    return rows


def prompts(model: Any, tokenizer: Any, questions: Sequence[Question]) -> dict[str, Any]:
    """The questions as `generate` takes them: token ids on the model's device, padded on the left, and their mask."""
    texts = [question.question for question in questions]
    batch = tokenizer(texts, return_tensors="pt", padding=True, padding_side="left").to(model.device)
    return {name: batch[name] for name in ("input_ids", "attention_mask")}


def replay_of(output: LiveOutput, controller: Controller, interval_tokens: int) -> ReplayResult:
    """What replay says of the branches that a call decoded, in the order in which they were opened."""
    numbered = [Question(str(number), "") for number in range(len(output.answers))]
    decoded = [branch for branches in output.branches for branch in branches]
    written = Recording.of(numbered, decoded, interval_tokens, source="live")
    return replay(written, controller, shuffles=0, traces=True)


def same_episodes(output: LiveOutput, again: ReplayResult) -> list[bool]:
    """Of each question of a call, whether its actions, answer and tokens are those of a replay without shuffles."""
    lives = zip(output.trace, output.answers, output.cost, strict=True)
    told = zip(again.traces, again.answers[0].tolist(), again.cost[0].tolist(), strict=True)
    return [
        (trace.events, answer or "", cost.tokens) == (other.events, said, tokens)
        for (trace, answer, cost), (other, said, tokens) in zip(lives, told, strict=True)
    ]
