"""Replay: controllers run on recorded branches, no token is decoded; interpreted, or compiled over all episodes."""

from tts_generate.replay.recording import RecordedQuestion, Recording
from tts_generate.replay.run import ReplayResult, replay, shuffled_orders

__all__ = ["RecordedQuestion", "Recording", "ReplayResult", "replay", "shuffled_orders"]
