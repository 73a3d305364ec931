"""What methods of lower layers reach of the layers above them: functions that the package's `__init__` hands down.

A user saves and publishes by a method of what is to be saved (`Controller.push_to_hub`); its class stands below what
does it, and imports nothing of that.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

HANDED: dict[str, Callable[..., Any]] = {}
"""By name; each imports its module when it is first called."""
