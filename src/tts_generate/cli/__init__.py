"""The command line: record, import, replay, sweep, trace, search, history, publish, pull, show, lock, verify, demo, sandbox."""

from tts_generate.cli import hub, record, replay, sandbox, search
from tts_generate.cli.base import app

__all__ = ["app", "hub", "record", "replay", "sandbox", "search"]
