"""A candidate that is code as a controller folder. Loading it runs that code: `trust_remote_code` is asked for."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tts_generate.loading import FORMAT
from tts_generate.search.history import write_whole
from tts_generate.version import __version__


def write_written(
    folder: Path, code: str, entry: str, *, name: str, description: str, idea: str, provenance: Mapping[str, Any]
) -> None:
    """Write code as a controller folder, without running it.

    Args:
        folder: of the new controller; what it held is written over file by file.
        code: of its `controller.py`.
        entry: the name of its class.
        name: of the controller.
        description: one sentence.
        idea: what its writer says of it; untrusted text.
        provenance: where it comes from, plain JSON values.
    """
    card = {
        "format": FORMAT,
        "api": 1,
        "name": name,
        "description": description,
        "entry": f"controller.py:{entry}",
        "beta": {"default": 0.5, "range": [0.0, 1.0]},
        "sha256": hashlib.sha256(code.encode()).hexdigest(),
        "requires": {"tts_generate": f">={'.'.join(__version__.split('.')[:2])}"},
        "provenance": dict(provenance),
    }
    write_whole(folder / "controller.py", code)
    write_whole(folder / "README.md", card_text(name, description, idea))
    write_whole(folder / "controller.json", json.dumps(card, indent=2, ensure_ascii=False) + "\n")


def card_text(name: str, description: str, idea: str) -> str:
    """The README of a controller that a model wrote."""
    quoted = "\n".join(f"> {line}" for line in idea.splitlines()) or "> (it says nothing)"
    return f"""---
library_name: tts_generate
license: apache-2.0
tags: [tts-controller, test-time-scaling]
---

# {name}

{description}

`controller.py` was written by a language model and ran in a sandbox until now. Read it before you trust it. What was
measured, and where it comes from: `provenance` in `controller.json`. Its writer says:

{quoted}

## Use

```python
tts_generate.enable(model, tokenizer=tokenizer)
how = {{"strategy": "autotts", "controller": "path/to/this/folder", "trust_remote_code": True}}
output = model.generate(**inputs, **how, beta=0.5)
```
"""
