"""Trajectories: branches recorded to their end, in stores that replay and people read."""

from tts_generate.trajectories.autotts import import_autotts
from tts_generate.trajectories.download import pull
from tts_generate.trajectories.health import CheckedStore, check, repair
from tts_generate.trajectories.schema import Manifest, Question, Trajectory
from tts_generate.trajectories.store import StoreWriter, TrajectoryStore

__all__ = [
    "CheckedStore", "Manifest", "Question", "StoreWriter", "Trajectory", "TrajectoryStore", "check", "import_autotts",
    "pull", "repair",
]  # fmt: skip
