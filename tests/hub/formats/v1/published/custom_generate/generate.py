"""This repo's controller on any model: generate(custom_generate="user/repo", trust_remote_code=True).

Written by tts-generate from controller.json and controller.py; `tts-generate verify` says whether they still match.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from tts_generate.recipe import answer

if TYPE_CHECKING:  # transformers fetches what is imported here; it is checked before it runs
    from .controller import Few

CARD = """{
  "format": "tts-controller/1",
  "api": 1,
  "name": "few",
  "description": "Reads a few branches.",
  "entry": "controller.py:Few",
  "beta": {
    "default": 0.7,
    "range": [
      0.0,
      1.0
    ]
  },
  "sha256": "73b1717cace46e18fd7468884d002aab79eb2844df9cd90f0366dfa7d5a2045e",
  "requires": {
    "tts_generate": ">=0.1"
  },
  "provenance": {}
}"""


def generate(model, **arguments):
    """Takes the arguments of transformers' `generate` and of `tts_generate.AutoTTS`, such as beta=0.5 and seed=1."""
    return answer(model, CARD, Path(__file__).with_name("controller.py"), arguments)
