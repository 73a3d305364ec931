"""What was measured as a repo of the Hub: controllers and stores, their numbers, their page, and the one commit."""

from tts_generate.hub.front import Benchmark
from tts_generate.publish.contest import Verdict
from tts_generate.publish.live import measure_live
from tts_generate.publish.measure import measure
from tts_generate.publish.push import Published, publish
from tts_generate.publish.run import publish_run, push_controller
from tts_generate.publish.stores import PublishedStore, publish_store

__all__ = [
    "Benchmark", "Published", "PublishedStore", "Verdict", "measure", "measure_live", "publish", "publish_run",
    "publish_store", "push_controller",
]  # fmt: skip
