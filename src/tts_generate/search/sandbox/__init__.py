"""Sandbox."""

from tts_generate.search.sandbox.box import Confirmation, Difference, Sandbox
from tts_generate.search.sandbox.candidate import Candidate
from tts_generate.search.sandbox.channel import Limits

__all__ = ["Candidate", "Confirmation", "Difference", "Limits", "Sandbox"]
