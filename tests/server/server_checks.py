"""What every run on servers must satisfy."""

from __future__ import annotations

import os
import signal
import threading
import time
import warnings
from collections.abc import Callable
from typing import Any

from local_servers import OPTIONS, QUESTIONS
from token_server import TokenServer
from transformers import AutoTokenizer

from tts_generate import BranchProcessor, ServerModel, ServerOutput, enable, tiny
from tts_generate.controller import Controller
from tts_generate.replay import Recording
from tts_generate.replay import replay as replayed
from tts_generate.state import Decision, State
from tts_generate.trajectories import Question


def assert_replays(
    output: ServerOutput, controller: Any, interval_tokens: int = OPTIONS["interval_tokens"], **knobs: Any
) -> None:
    """Answers, costs and traces equal those of a replay of the run's own branches, in recorded order."""
    questions = [Question(str(number), "") for number in range(len(output.answers))]
    rows = [branch for branches in output.branches for branch in branches]
    recording = Recording.of(questions, rows, interval_tokens, source="live")
    knobs = {} if isinstance(controller, Controller) else knobs
    result = replayed(recording, controller, shuffles=0, traces=True, **knobs)
    assert [answer or "" for answer in output.answers] == result.answers[0].tolist()
    for name in ("generated_tokens", "probe_tokens", "wasted_tokens", "prompt_tokens"):
        assert [getattr(cost, name) for cost in output.cost] == getattr(result, name)[0].tolist()
    assert [trace.events for trace in output.trace] == [trace.events for trace in result.traces]
    assert set(output.finish_reason) == {"answer"}


def of_the_engine(tiny: tuple[Any, Any], **options: Any) -> Any:
    """What the tiny model says to the questions, decoded here."""
    model, tokenizer = tiny
    inputs = tokenizer(QUESTIONS, return_tensors="pt", padding=True, padding_side="left")
    how = {"strategy": "autotts", "return_dict_in_generate": True, "do_sample": True, **OPTIONS, **options}
    return enable(model, tokenizer=tokenizer).generate(**inputs, **how)


def of_a_server(tiny: tuple[Any, Any], **options: Any) -> Any:
    """The same at a server of it."""
    with TokenServer(batch=1) as server:
        return ServerModel(server.url, tokenizer=tiny[1]).generate(QUESTIONS, **{**OPTIONS, **options})


class Alarm(BranchProcessor):
    """Expires once something has happened; one for all questions."""

    def __init__(self, happened: Callable[[], bool]) -> None:
        self.happened, self.rang = happened, 0.0
        self.questions: list[str] = []

    def __call__(self, state: State, do: Decision) -> None: ...

    def begin(self, question_id: str) -> BranchProcessor:
        self.questions.append(question_id)
        return self

    def expired(self) -> bool:
        if not self.rang and self.happened():
            self.rang = time.monotonic()
        return self.rang > 0


def interrupted(url: str) -> None:
    """A call that Ctrl-C ends; prints what it came to, and what it left open."""
    warnings.simplefilter("error")
    model = ServerModel(url, tokenizer=AutoTokenizer.from_pretrained(tiny.path()), max_in_flight=4)
    questions = [question.question for question in tiny.questions("test")[:3]]
    model.generate(questions[0], controller="dynasor", **OPTIONS)
    before = len(os.listdir("/proc/self/fd")), threading.active_count()
    threading.Timer(4, os.kill, (os.getpid(), signal.SIGINT)).start()
    output = model.generate(questions, controller="self_consistency", seed=1, **OPTIONS)
    print(output.finish_reason, output.usage.cancelled)
    print(before == (len(os.listdir("/proc/self/fd")), threading.active_count()))
    print(sum(branch.tokens for branch in output.branches[0]) == output.cost[0].generated_tokens > 0)


def interrupted_while_asked() -> None:
    """A call whose time is up and that Ctrl-C ends while its branches are asked where they stand; prints its end."""
    warnings.simplefilter("ignore")  # no answer has come
    with TokenServer(batch=8, context=2048, pause=0.5) as server:

        def time_is_up() -> bool:
            if server.decoded < 12:
                return False
            threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
            return True

        options = {**OPTIONS, "controller_kwargs": {"max_samples": 2}}
        options |= {"interval_tokens": 600, "max_new_tokens": 600}  # long answers are streamed
        output = ServerModel(server.url, tokenizer=server.tokenizer).generate(
            QUESTIONS[0], controller="self_consistency", branch_processors=[Alarm(time_is_up)], seed=1, **options
        )
        print(output.finish_reason, output.usage.cancelled > 0)
        print(sum(branch.tokens for branch in output.branches[0]) == output.cost[0].generated_tokens > 0)
