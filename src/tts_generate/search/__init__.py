"""The search: controllers found on recorded trajectories, at no model cost; those that a model wrote run in a sandbox.

Names are looked up when they are first used: the sandbox's processes need none of the search.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tts_generate.search.best import write_controller
    from tts_generate.search.candidate import KnobCandidate, Proposer, Scored
    from tts_generate.search.history import read_history
    from tts_generate.search.loop import SearchProgress, best_of
    from tts_generate.search.objective import Fidelity
    from tts_generate.search.run import Search, Setup, write_report

_MODULES = {
    "KnobCandidate": "candidate",
    "Fidelity": "objective",
    "SearchProgress": "loop",
    "Proposer": "candidate",
    "Scored": "candidate",
    "Search": "run",
    "Setup": "run",
    "best_of": "loop",
    "read_history": "history",
    "write_controller": "best",
    "write_report": "run",
}

__all__ = [
    "Fidelity",
    "KnobCandidate",
    "Proposer",
    "Scored",
    "Search",
    "SearchProgress",
    "Setup",
    "best_of",
    "read_history",
    "write_controller",
    "write_report",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """Load the module that holds a name, the first time it is asked for."""
    if name in _MODULES:
        return getattr(import_module(f"tts_generate.search.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
