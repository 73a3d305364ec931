"""Files in the interface that AutoTTS published run unmodified: in replay, live, and with clear errors."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from tts_generate.errors import ControllerError, UnknownNameError, UntrustedCodeError
from tts_generate.loading import load_controller
from tts_generate.processors import BranchProcessor, BranchProcessorList, MaxBranches, TokenBudget
from tts_generate.replay import Recording, replay

FILE = Path(__file__).parent / "published_cmc.py"


def test_the_decisions_and_costs_of_our_cmc(tiny_recording: Recording) -> None:
    for beta in (0.0, 0.5, 1.0):
        ours = replay(tiny_recording, "cmc", beta=beta, shuffles=3)
        theirs = replay(tiny_recording, FILE, beta=beta, shuffles=3, trust_remote_code=True)
        for column in ("answer_ids", "generated_tokens", "opened"):
            assert (getattr(ours, column) == getattr(theirs, column)).all(), column
        assert (theirs.probe_tokens >= ours.probe_tokens).all()  # it probes every step of a burst, ours the last


def test_live_it_does_what_replay_said(tiny: tuple[Any, Any], tiny_recording: Recording) -> None:
    from tts_generate import enable
    from tts_generate.tiny import questions

    model, tokenizer = tiny
    enable(model, tokenizer=tokenizer)
    asked = questions("record")[:3]
    batch = tokenizer([q.question for q in asked], return_tensors="pt", padding=True, padding_side="left")
    controller = load_controller(FILE, beta=0.0, trust_remote_code=True)
    how = {"strategy": "autotts", "controller": controller, "seed": 0, "return_dict_in_generate": True}
    live = model.generate(batch["input_ids"], attention_mask=batch["attention_mask"], **how)
    said = replay(tiny_recording, controller, shuffles=0)
    assert [answer or "" for answer in live.answers] == said.answers[0, :3].tolist()
    assert [cost.generated_tokens for cost in live.cost] == said.generated_tokens[0, :3].tolist()
    assert [cost.probe_tokens for cost in live.cost] == said.probe_tokens[0, :3].tolist()


def test_no_thread_is_left_behind(tiny_recording: Recording) -> None:
    before = threading.active_count()
    replay(tiny_recording, FILE, beta=0.3, shuffles=3, trust_remote_code=True)
    assert threading.active_count() <= before + 1


def method(folder: Path, body: str) -> Path:
    """A file that relies on the base class being there, as pasted candidates do."""
    path = folder / "method.py"
    lines = "".join(f"        {line}\n" for line in body.splitlines())
    path.write_text(f"class Mine(LLMDesignedMethod):\n    def solve(self, question):\n{lines}")
    return path


def run(path: Path, recording: Recording) -> Any:
    return replay(recording, path, beta=0.5, shuffles=0, trust_remote_code=True)


def test_the_three_verbs(tmp_path: Path, tiny_recording: Recording) -> None:
    path = method(
        tmp_path,
        "whole = question.get_new_branch_final_answer()\n"
        "answer, index, finished = question.probe_new()\n"
        "assert index == 1\n"
        "while not finished:\n"
        "    answer, finished = question.probe_more(index)\n"
        "again, still = question.probe_more(index)\n"
        "assert still and again == answer\n"
        "return answer",
    )
    found = run(path, tiny_recording)
    tokens = tiny_recording.table.branches["tokens"]
    for q, recorded in enumerate(tiny_recording.questions):
        assert found.generated_tokens[0, q] == tokens[recorded.offset] + tokens[recorded.offset + 1]
        assert found.answers[0, q] == (recorded.book.text(recorded.rows.steps[_end(recorded, 1)].answer) or "")


def _end(recorded: Any, branch: int) -> int:
    row = recorded.rows.branches[branch]
    return int(row.first + row.interior)


def test_branches_run_out_as_published(tmp_path: Path, tiny_recording: Recording) -> None:
    body = (
        "count = 0\n"
        "try:\n"
        "    while True:\n"
        "        {call}\n"
        "        count += 1\n"
        "except {error}:\n"
        "    assert count == 64\n"
        "return None"
    )
    for call, error in (
        ("question.probe_new()", "ValueError"),
        ("question.get_new_branch_final_answer()", "IndexError"),
    ):
        found = run(method(tmp_path, body.format(call=call, error=error)), tiny_recording)
        assert (found.opened == 64).all()
        assert (found.answers == "").all()


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ("question.probe_new()\nreturn 1 / 0", "Mine failed: ZeroDivisionError"),
        ("return 'x'", "answered before it opened"),
        ("question.probe_new()\nreturn 'never shown'", "answered 'never shown', which no branch has shown"),
        ("question.probe_more(0)", "Mine failed: ValueError: Index out of range"),
        ("question.probe_new()\nquestion.gold_answer", "no attribute 'gold_answer'"),
    ],
)
def test_methods_that_break(tmp_path: Path, tiny_recording: Recording, body: str, text: str) -> None:
    with pytest.raises(ControllerError, match=text):
        run(method(tmp_path, body), tiny_recording)


@pytest.mark.parametrize("limit", [MaxBranches(1), MaxBranches(3), TokenBudget(400), TokenBudget(1000)])
def test_a_limit_takes_no_answer_away_and_counts_no_branch_twice(
    tmp_path: Path, tiny_recording: Recording, limit: BranchProcessor
) -> None:
    """What a limit kept from being opened was taken for the branch before; what it stopped had no answer at all."""
    steps = (
        "seen = []\nwhile len(seen) < 6:\n"
        "    try:\n        answer, index, finished = question.probe_new()\n"
        "    except ValueError:\n        break\n"
        "    assert index == len(seen)\n"
        "    while not finished:\n        answer, finished = question.probe_more(index)\n"
        "    seen.append(answer)\n"
        "return max(seen, key=seen.count)"
    )
    for body in (steps, "while True:\n    question.get_new_branch_final_answer()"):
        controller = load_controller(method(tmp_path, body), trust_remote_code=True)
        for number in range(3):
            try:
                episode = tiny_recording.episode(controller, number, processors=BranchProcessorList([limit]))
            except ControllerError as error:
                assert "IndexError" in str(error)  # noqa: PT017
                assert body != steps
                continue
            state = episode.state
            shown = [i for i in range(state.opened) if state.answer[i] >= 0]
            assert episode.answer >= 0 or not shown


def test_an_answer_that_is_no_text(tmp_path: Path, tiny_recording: Recording) -> None:
    with pytest.raises(ControllerError, match=r"answered \['7'\], which no branch has shown"):
        run(method(tmp_path, "question.probe_new()\nreturn ['7']"), tiny_recording)


def test_files_that_are_none(tmp_path: Path) -> None:
    path = tmp_path / "method.py"
    path.write_text("x = 1\n")
    with pytest.raises(UntrustedCodeError, match="trust_remote_code"):
        load_controller(path)
    with pytest.raises(ControllerError, match="no class with solve"):
        load_controller(path, trust_remote_code=True)
    path.write_text("import nowhere_to_be_found\n")
    with pytest.raises(ControllerError, match="does not load: ModuleNotFoundError"):
        load_controller(path, trust_remote_code=True)
    with pytest.raises(UnknownNameError, match="width"):
        load_controller(FILE, trust_remote_code=True, width=3)
