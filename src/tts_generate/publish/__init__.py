"""A measured controller as a repo of the Hub: its numbers, its page, and the one commit that puts it there.

Names are looked up when they are first used: to look at a controller needs no model, and so no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tts_generate.hub.front import Benchmark
    from tts_generate.publish.contest import Verdict
    from tts_generate.publish.inspect import evaluation_of, verify
    from tts_generate.publish.live import measure_live
    from tts_generate.publish.measuring import measure
    from tts_generate.publish.push import Published, publish
    from tts_generate.publish.run import is_run, publish_run, push_controller
    from tts_generate.publish.stores import PublishedStore, publish_store

_MODULES = {
    "Benchmark": "hub.front",
    "Published": "publish.push",
    "PublishedStore": "publish.stores",
    "Verdict": "publish.contest",
    "evaluation_of": "publish.inspect",
    "is_run": "publish.run",
    "measure": "publish.measuring",
    "measure_live": "publish.live",
    "publish": "publish.push",
    "publish_run": "publish.run",
    "publish_store": "publish.stores",
    "push_controller": "publish.run",
    "verify": "publish.inspect",
}

__all__ = [
    "Benchmark", "Published", "PublishedStore", "Verdict", "evaluation_of", "is_run", "measure", "measure_live",
    "publish", "publish_run", "publish_store", "push_controller", "verify",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """Load the module that holds a name, the first time it is asked for."""
    if name in _MODULES:
        return getattr(import_module(f"tts_generate.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
