"""The command line, `tts-generate`.

Of recordings: record, import, replay, sweep, trace. Of controllers: search, history, publish, pull, show, lock, verify.
"""

from tts_generate.cli import hub, record, replay, sandbox, search
from tts_generate.cli.base import app

__all__ = ["app", "hub", "record", "replay", "sandbox", "search"]
