"""The command line, `tts-generate`.

Of models: inspect, profile.
Of recordings: record, import, replay, sweep, trace, store, report.
On servers: serve.
Of controllers: search, history, publish, pull, show, lock, verify, sandbox.
"""

from tts_generate.cli import history, hub, inspect, profile, record, replay, report, sandbox, search, serve, store
from tts_generate.cli.base import app

__all__ = [
    "app", "history", "hub", "inspect", "profile", "record", "replay", "report", "sandbox", "search", "serve", "store",
]  # fmt: skip
