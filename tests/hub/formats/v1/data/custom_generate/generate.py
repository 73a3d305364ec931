"""This repo's controller on any model: generate(custom_generate="user/repo", trust_remote_code=True).

Written by tts-generate from controller.json and controller.py; `tts-generate verify` says whether they still match.
"""

from tts_generate.recipe import answer

CARD = """{
  "format": "tts-controller/1",
  "api": 1,
  "name": "surer",
  "description": "Reads branches one at a time until the majority is unlikely to change.",
  "beta": {
    "default": 0.3,
    "range": [
      0.0,
      1.0
    ]
  },
  "sha256": "b03a49c248bc76dcf4cce6a23d124ce642ccec7bed21bd045711f18f9c2b4f04",
  "requires": {
    "tts_generate": ">=0.1"
  },
  "provenance": {
    "source": "arXiv:2305.11860"
  },
  "builtin": "asc",
  "knobs": {
    "max_samples": 10,
    "threshold": 0.8
  }
}"""


def generate(model, **arguments):
    """Takes the arguments of transformers' `generate` and of `tts_generate.AutoTTS`, such as beta=0.5 and seed=1."""
    return answer(model, CARD, None, arguments)
