"""Runs controllers written for the published program: `LLMDesignedMethod.solve(question)`, unmodified.

Such a method calls `probe_new`, `probe_more` and `get_new_branch_final_answer` and waits for what they return. Here it
runs in a thread of its own and is answered by the runner, so that it takes part in replay and live runs as any
controller does, with every token counted by the one cost rule. It never holds the gold answer or unrevealed probes.
Source: the interface of AutoTTS (arXiv 2605.08083, github.com/zhengkid/AutoTTS).
"""

from __future__ import annotations

import importlib.util
import operator
import queue
import sys
import threading
import weakref
from pathlib import Path
from typing import Any, ClassVar

from tts_generate.controller import Controller
from tts_generate.errors import ControllerError, TTSError
from tts_generate.state import TO_END, Decision, State


class LLMDesignedMethod:
    """The base class of the published interface, for files that use it without bringing their own."""

    NAME = "unnamed_method"

    def __init__(self, config: dict[str, Any] | None = None) -> None:
        self.config = config or {}

    def __call__(self, question: Any) -> str | None:
        """Answer one question."""
        answer: str | None = self.solve(question)  # type: ignore[attr-defined]
        return answer


class _Over(BaseException):
    """Ends the thread of a method whose episode is over."""


class _Channel:
    """One request at a time from the method's thread, one reply back."""

    def __init__(self) -> None:
        self.requests: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
        self.replies: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def ask(self, what: str, value: Any = None) -> Any:
        self.requests.put((what, value))
        reply = self.replies.get()
        if isinstance(reply, BaseException):
            raise reply
        return reply

    def close(self) -> None:
        self.replies.put(_Over())


class PublishedQuestion:
    """What a published method is handed: the three verbs, and the step in tokens."""

    def __init__(self, channel: _Channel, probe_freq: int) -> None:
        self._ask = channel.ask
        self.probe_freq = probe_freq

    def probe_new(self) -> tuple[str, int, bool]:
        """Open a branch and take its first step: (answer, index, finished).

        Raises:
            ValueError: no branch is left.
        """
        answer, index, finished = self._ask("new")
        return answer, index, finished

    def probe_more(self, index: int) -> tuple[str, bool]:
        """One more step of a branch: (answer, finished). A finished branch gives its answer again, free of charge.

        Raises:
            ValueError: that branch is not open.
        """
        answer, finished = self._ask("more", index)
        return answer, finished

    def get_new_branch_final_answer(self) -> str:
        """Open a branch and read it to its end.

        Raises:
            IndexError: no branch is left.
        """
        answer: str = self._ask("read")
        return answer


class PublishedMethod(Controller):
    """A method of the published interface as a controller; its only knob is `beta`."""

    compiles = False
    method: ClassVar[type]
    _channel: _Channel

    @staticmethod
    def schedule(beta: float) -> dict[str, float]:
        """The method works its knobs out of beta by itself."""
        return {}

    def memory(self, max_branches: int) -> None:
        """A thread for the method, started with the first request."""
        if "_channel" in vars(self):
            self._channel.close()
        self._channel = _Channel()
        self._ids: dict[str, int] = {}
        self._request: tuple[str, Any] = ("", None)
        self._opened = 0  # when the request came
        weakref.finalize(self, self._channel.close)

    def begin(self, state: State, do: Decision) -> None:
        """Start the method and open what it asks for first."""
        question = PublishedQuestion(self._channel, state.interval_tokens)
        method = self.method(config={"beta": self.beta})
        threading.Thread(target=_solve, args=(method, question, self._channel), daemon=True).start()
        self._next(state)
        if not self._open(state, do):
            raise ControllerError(f"{self.method.__name__} answered before it opened a branch.")

    def plan(self, state: State, do: Decision) -> None:
        """Reply to an opening; take the step that is asked for next."""
        if self._request[0] in ("new", "read"):
            self._reply_opened(state)
        what, index = self._request
        if what == "more":
            do.steps[index] = 1
        elif what == "done":
            self._stop(do)

    def review(self, state: State, do: Decision) -> None:
        """Reply to a step; open the branch that is asked for next, or end."""
        what, index = self._request
        if what == "more":
            self._reply(state, (self._text(state, index), bool(state.finished[index])))
        if not self._open(state, do) and self._request[0] == "done":
            self._stop(do)

    def _open(self, state: State, do: Decision) -> bool:
        what = self._request[0]
        do.open = int(what in ("new", "read"))
        do.open_steps = TO_END if what == "read" else 1
        return bool(do.open)

    def _stop(self, do: Decision) -> None:
        answer = self._request[1]
        do.stop = True
        if not (answer is None or (isinstance(answer, str) and answer in self._ids)):
            raise ControllerError(f"{self.method.__name__} answered {answer!r}, which no branch has shown.")
        do.answer = -1 if answer is None else self._ids[answer]

    def answer(self, state: State) -> int:
        """What the method returned, nothing where it returned None; of one that a limit stopped, the usual majority."""
        return -1 if self._request[0] == "done" else super().answer(state)

    def _reply_opened(self, state: State) -> None:
        index = state.opened - 1
        if index < self._opened:  # a limit let none be opened
            self._channel.replies.put(_none_left(self._request[0]))
            self._next(state)
            return
        text, finished = self._text(state, index), bool(state.finished[index])
        self._reply(state, text if self._request[0] == "read" else (text, index, finished))

    def _reply(self, state: State, value: Any) -> None:
        self._channel.replies.put(value)
        self._next(state)

    def _next(self, state: State) -> None:
        """The next request that needs the runner; those that do not are answered here."""
        while True:
            what, value = self._channel.requests.get()
            if what == "failed":
                raise ControllerError(f"{self.method.__name__} failed: {type(value).__name__}: {value}.") from value
            if what in ("new", "read") and state.opened >= state.max_branches:
                self._channel.replies.put(_none_left(what))
                continue
            value = _place(value) if what == "more" else value
            if what == "more" and not 0 <= value < state.opened:
                self._channel.replies.put(ValueError("Index out of range for branches."))
            elif what == "more" and state.finished[value]:
                self._channel.replies.put((self._text(state, value), True))
            else:
                self._request, self._opened = (what, value), state.opened
                return

    def _text(self, state: State, branch: int) -> str:
        assert state.text is not None
        answer = int(state.answer[branch])
        text = state.text(answer) or ""
        self._ids.setdefault(text, answer)
        return text


def _none_left(what: str) -> Exception:
    """What the published program raises where there is no further branch."""
    return (ValueError if what == "new" else IndexError)("Index out of range for branches.")


def _place(index: Any) -> int:
    """The branch that an index names, of Python or of numpy, as lists take both; -1 for what is none."""
    try:
        return operator.index(index)
    except TypeError:
        return -1


def _solve(method: Any, question: PublishedQuestion, channel: _Channel) -> None:
    try:
        channel.requests.put(("done", method.solve(question)))
    except _Over:
        pass
    except BaseException as error:
        channel.requests.put(("failed", error))


def load_published(path: Path, beta: float | None) -> PublishedMethod:
    """The method of a file in the published interface, run at `beta` (0.5 if left out).

    Raises:
        ControllerError: the file does not load, or holds no such class, or several.
    """
    name = f"tts_generate_published_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ControllerError(f"{path} cannot be loaded as Python code.")
    module = importlib.util.module_from_spec(spec)
    module.__dict__["LLMDesignedMethod"] = LLMDesignedMethod
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except TTSError:
        raise
    except (Exception, SystemExit) as error:
        raise ControllerError(f"{path} does not load: {type(error).__name__}: {error}.") from error
    found = [
        value
        for value in vars(module).values()
        if isinstance(value, type)
        and callable(getattr(value, "solve", None))
        and value.__module__ == name
        and value.__name__ != "LLMDesignedMethod"
    ]
    if not found:
        raise ControllerError(f"{path} holds no class with solve(question), as the published interface asks for.")
    kind: type[PublishedMethod] = type(found[-1].__name__, (PublishedMethod,), {"method": found[-1]})
    return kind.from_beta(0.5 if beta is None else beta)
