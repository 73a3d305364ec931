"""Which tests need nothing but this machine: pytest's own selection of pyproject.toml, and the long ones."""

from __future__ import annotations

import shlex
import tomllib
from pathlib import Path

_PYPROJECT = Path(__file__).resolve().parent.parent / "pyproject.toml"
_USUAL = shlex.split(tomllib.loads(_PYPROJECT.read_text("utf-8"))["tool"]["pytest"]["ini_options"]["addopts"])
SELECTION = ["-m", _USUAL[_USUAL.index("-m") + 1].replace("not long and ", "")]
