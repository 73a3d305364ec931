"""The command line: `tts-generate record | import | replay | sweep | trace | search | history | demo | sandbox`."""

from tts_generate.cli import history, record, replay, sandbox, search
from tts_generate.cli.base import app

__all__ = ["app", "history", "record", "replay", "sandbox", "search"]
