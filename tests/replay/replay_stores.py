"""Random recordings: ragged branches, gaps in probes, ties, repeated answers, no answer, and published oddities."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from tts_generate.replay import Recording
from tts_generate.trajectories import Question, Trajectory

INTERVAL = 10
answers = st.one_of(st.none(), st.sampled_from(["1", "2", "3"]))


@st.composite
def branches(draw: st.DrawFn, question: str, number: int, published: bool) -> Trajectory:
    """A branch; published tables may list more probes than their tokens reach (T < interval * P)."""
    tokens = draw(st.integers(1, 75))
    count = draw(st.integers(0, 8)) if published else max(0, -(-tokens // INTERVAL) - 1)
    steps = count + 1
    return Trajectory(
        question_id=question,
        branch=number,
        seed=0,
        prompt_tokens=5,
        tokens=tokens,
        finish_reason="eos",
        final_answer=draw(answers),
        probe_positions=tuple(INTERVAL * (k + 1) for k in range(count)),
        probe_answers=tuple(draw(st.lists(answers, min_size=count, max_size=count))),
        probe_tokens=(draw(st.integers(0, 4)),) * count,
        probe_logprobs=(None,) * count,
        step_logprobs=tuple(draw(st.lists(st.floats(-3, 0), min_size=steps, max_size=steps))),
    )


@st.composite
def recordings(draw: st.DrawFn, min_branches: int = 1, max_branches: int = 12) -> Recording:
    """Up to three questions, of different numbers of branches."""
    published = draw(st.booleans())
    questions = [Question(f"q{n}", "", "1") for n in range(draw(st.integers(1, 3)))]
    rows: list[Any] = []
    for question in questions:
        count = draw(st.integers(min_branches, max_branches))
        rows += [draw(branches(question.question_id, n, published)) for n in range(count)]
    return Recording.of(questions, rows, INTERVAL, source="autotts" if published else "recorded")
