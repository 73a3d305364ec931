"""The command line, `tts-generate`.

Of recordings: record, import, replay, sweep, trace, report, demo, store.
Of controllers: search, history, sandbox, publish, pull, show, lock, verify.
"""

from tts_generate.cli import hub, record, replay, report, sandbox, search, store
from tts_generate.cli.base import app

__all__ = ["app", "hub", "record", "replay", "report", "sandbox", "search", "store"]
