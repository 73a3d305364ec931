"""Counter-based randomness: noise is a function of (seed, question, branch, position, token) and nothing else.

Gumbel-max over keyed noise gives the same tokens whatever the neighbours, the row or the order of admission, and is as
robust to rounding of the logits as greedy decoding.
"""

from __future__ import annotations

import torch
from torch import Tensor

_WORD = (1 << 64) - 1


def _signed(value: int) -> int:
    """A 64-bit word as the int64 that torch wants."""
    value &= _WORD
    return value - (1 << 64) if value >> 63 else value


_MULTIPLY_1 = _signed(0xBF58476D1CE4E5B9)
_MULTIPLY_2 = _signed(0x94D049BB133111EB)
_GOLDEN = _signed(0x9E3779B97F4A7C15)


def mix(x: Tensor) -> Tensor:
    """The splitmix64 finaliser, element by element; int64 in and out, multiplication wraps.

    Source: Steele, Lea and Flood, "Fast splittable pseudorandom number generators" (2014).
    """
    x = (x ^ ((x >> 30) & ((1 << 34) - 1))) * _MULTIPLY_1
    x = (x ^ ((x >> 27) & ((1 << 37) - 1))) * _MULTIPLY_2
    return x ^ ((x >> 31) & ((1 << 33) - 1))


def gumbel(keys: Tensor, positions: Tensor, tokens: Tensor) -> Tensor:
    """Standard Gumbel noise for each (row, candidate token).

    Args:
        keys: (B,) int64, one `branch_key` a row.
        positions: (B,) int64, index of the token about to be drawn.
        tokens: (B, K) or (1, K) int64, candidate token ids.

    Returns:
        (B, K) float64.
    """
    stream = mix(keys + positions * _GOLDEN)
    bits = mix(stream[:, None] ^ mix(tokens * _GOLDEN + 1))
    uniform = (((bits >> 11) & ((1 << 53) - 1)).double() + 0.5) * (1.0 / (1 << 53))
    return -torch.log(-torch.log(uniform))
