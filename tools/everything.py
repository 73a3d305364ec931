"""Which tests need nothing but this machine: pytest's own selection of pyproject.toml, and the long ones."""

from __future__ import annotations

SELECTION = ["-m", "not gpu and not hub and not paid and not families and not vllm"]
