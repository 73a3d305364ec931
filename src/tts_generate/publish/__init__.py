"""A measured controller as a repo of the Hub: its numbers, its page, and the one commit that puts it there."""

from tts_generate.hub.front import Benchmark
from tts_generate.publish.contest import Verdict
from tts_generate.publish.inspect import evaluation_of, verify
from tts_generate.publish.live import measure_live
from tts_generate.publish.measuring import measure
from tts_generate.publish.push import Published, publish
from tts_generate.publish.run import is_run, publish_run, push_controller
from tts_generate.publish.stores import PublishedStore, publish_store

__all__ = [
    "Benchmark", "Published", "PublishedStore", "Verdict", "evaluation_of", "is_run", "measure", "measure_live",
    "publish", "publish_run", "publish_store", "push_controller", "verify",
]  # fmt: skip
