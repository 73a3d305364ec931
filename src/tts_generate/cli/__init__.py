"""The command line: record, import, replay, sweep, trace, search, history, report, demo and sandbox."""

from tts_generate.cli import record, replay, report, sandbox, search
from tts_generate.cli.base import app

__all__ = ["app", "record", "replay", "report", "sandbox", "search"]
