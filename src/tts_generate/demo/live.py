"""One method on questions kept aside, answered by the model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tts_generate.engine import AutoTTSOutput
from tts_generate.evaluate import accuracy_interval
from tts_generate.runner import Cost


@dataclass(frozen=True)
class LiveRun:
    """One method on the kept-aside questions, answered by the model."""

    output: AutoTTSOutput
    correct: NDArray[np.bool_]
    seconds: float

    @property
    def cost(self) -> Cost:
        """Tokens of the whole run."""
        return self.output.total_cost

    @property
    def tokens(self) -> int:
        """Generated and probe tokens; prompts cost every method the same."""
        return self.cost.tokens

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; accuracy as a share, tokens summed over the questions."""
        return {
            "accuracy": float(self.correct.mean()),
            "accuracy_ci": list(accuracy_interval(self.correct)),
            "prompt_tokens": self.cost.prompt_tokens,
            "generated_tokens": self.cost.generated_tokens,
            "probe_tokens": self.cost.probe_tokens,
            "wasted_tokens": self.cost.wasted_tokens,
            "seconds": self.seconds,
        }
