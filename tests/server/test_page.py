"""The block of docs/serving.md runs, against a real `transformers serve`."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parents[2] / "docs" / "serving.md"


@pytest.mark.long
def test_the_page(served: str) -> None:
    (block,) = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    assert "http://127.0.0.1:8000/v1" in block
    names: dict[str, object] = {}
    exec(block.replace("http://127.0.0.1:8000/v1", served), names)
    output = names["output"]
    assert len(output.answers) == 2
    assert output.finish_reason == ["answer", "answer"]
