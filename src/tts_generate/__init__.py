"""Test-time scaling for transformers: controllers that decide where a reasoning model spends its tokens.

Shapes in this package: B rows of a batch, V vocabulary, H key-value heads, D head dimension, W columns of the cache.
Importing it loads nothing heavy: names are looked up when they are first used.
"""

from __future__ import annotations

from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

from tts_generate.above import HANDED
from tts_generate.version import __version__ as __version__

if TYPE_CHECKING:
    from tts_generate.controller import Controller
    from tts_generate.engine import AutoTTS, AutoTTSOutput, enable, generate_distributed, record
    from tts_generate.errors import NoAnswerWarning, TTSError
    from tts_generate.loading import load_controller
    from tts_generate.processors import (
        BranchProcessor,
        BranchProcessorList,
        Deadline,
        MaxBranches,
        OnRound,
        TokenBudget,
    )
    from tts_generate.question_sets import load_questions
    from tts_generate.replay import Recording
    from tts_generate.server import ServerModel, ServerOutput
    from tts_generate.state import Decision, State
    from tts_generate.trajectories import Question, Trajectory, TrajectoryStore

_MODULES = {
    "AutoTTS": "engine",
    "AutoTTSOutput": "engine",
    "BranchProcessor": "processors",
    "BranchProcessorList": "processors",
    "Controller": "controller",
    "Deadline": "processors",
    "Decision": "state",
    "MaxBranches": "processors",
    "NoAnswerWarning": "errors",
    "OnRound": "processors",
    "Question": "trajectories",
    "Recording": "replay",
    "ServerModel": "server",
    "ServerOutput": "server",
    "State": "state",
    "TTSError": "errors",
    "TokenBudget": "processors",
    "Trajectory": "trajectories",
    "TrajectoryStore": "trajectories",
    "enable": "engine",
    "generate_distributed": "engine",
    "load_controller": "loading",
    "load_questions": "question_sets",
    "record": "engine",
}

__all__ = [
    "AutoTTS", "AutoTTSOutput", "BranchProcessor", "BranchProcessorList", "Controller", "Deadline", "Decision",
    "MaxBranches", "NoAnswerWarning", "OnRound", "Question", "Recording", "ServerModel", "ServerOutput", "State",
    "TTSError", "TokenBudget", "Trajectory", "TrajectoryStore", "enable", "generate_distributed", "load_controller",
    "load_questions", "record",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """Load the module that holds a public name, the first time it is asked for."""
    if name in _MODULES:
        return getattr(import_module(f"tts_generate.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _call(module: str, name: str, /, *args: Any, **named: Any) -> Any:
    """A function of a module that is loaded when it is first needed."""
    return getattr(import_module(f"tts_generate.{module}"), name)(*args, **named)


HANDED["save"] = partial(_call, "saving", "save")
HANDED["push_controller"] = partial(_call, "publish.run", "push_controller")
HANDED["publish_store"] = partial(_call, "publish.stores", "publish_store")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
