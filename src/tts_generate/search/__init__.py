"""The search: controllers found on recorded trajectories, at no model cost; those a model wrote run in a sandbox."""

from tts_generate.search.best import write_controller
from tts_generate.search.candidate import KnobCandidate, Proposer, Scored
from tts_generate.search.history import read_history
from tts_generate.search.loop import SearchProgress, best_of
from tts_generate.search.objective import Fidelity
from tts_generate.search.run import Search, Setup, write_report

__all__ = [
    "Fidelity", "KnobCandidate", "Proposer", "Scored", "Search", "SearchProgress", "Setup", "best_of", "read_history",
    "write_controller", "write_report",
]  # fmt: skip
