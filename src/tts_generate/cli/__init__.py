"""The command line, `tts-generate`: record, import, replay, sweep, trace, search, history, demo, sandbox, store."""

from tts_generate.cli import record, replay, sandbox, search, store
from tts_generate.cli.base import app

__all__ = ["app", "record", "replay", "sandbox", "search", "store"]
