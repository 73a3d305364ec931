"""Metrics for `evaluate`: each folder here is, as it stands, a Space for the Hub, and `evaluate.load` takes its path.

>>> sorted(names())
['maj_at_k', 'pass_at_k', 'tts_accuracy_cost']
"""

from __future__ import annotations

from pathlib import Path

from tts_generate.errors import UnknownNameError


def names() -> list[str]:
    """The metrics that ship with the package."""
    return sorted(file.parent.name for file in Path(__file__).parent.glob("*/README.md"))


def path(name: str) -> str:
    """The folder of a metric, as `evaluate.load` takes it.

    Raises:
        UnknownNameError: there is none of that name.

    >>> path("maj_at_k").endswith("maj_at_k")
    True
    """
    if name not in names():
        raise UnknownNameError.of("metric", name, names())
    return str(Path(__file__).parent / name)
