"""Shapes of passes in which a row's numbers do not depend on its neighbours; on a CPU they are found by trying.

In float32 a sum depends on the order in which it is added up. CPU libraries choose it by the shape of a product: one
path for few rows and another for many, and long sums in parts whose ends depend on their length. Which shapes give the
same bits differs from CPU to CPU, so each process tries its own, once for each kind of model. In half precision, and
where none do (several threads; CPUs whose products also depend on a row's place), tokens are as robust as keyed noise
makes them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

BUCKET = 32
"""Widths are multiples of this."""
PART = 512
"""torch's CPU attention goes through the columns that it reads in parts of this many."""
BLOCK = 32
"""On CPU, neighbouring rows that read the same number of columns."""
ALL_ROWS = 1 << 30
"""On other devices all rows do."""
FEW = 4
"""Tokens that a pass feeds at least, on CPU."""

_NEVER = (PART, PART)
_LEFT_OUT = (_NEVER, (192, 384), (256, 512), (192, 512), (128, 512), (0, 512))
"""Lengths (between which two) that the last part is not left at, the cheapest to do without first."""
_QUERIES = (2, 3, 4, 6, 8, 12, 16, 24, 32)
"""Of a row in a pass, in trials: a probe's suffix has some ten tokens."""
_TOKENS = (4, 5, 6, 7, 8, 9, 12, 15, 16, 17, 24, 31, 32, 33, 48, 64, 65, 128, 256)
"""Tokens of a pass, in trials."""
_MANY = 16
"""Passes are not filled up beyond this: it would cost more than same bits are worth."""


def bucketed(columns: int) -> int:
    """The least multiple of `BUCKET` that holds `columns` columns.

    >>> [bucketed(columns) for columns in (1, 32, 33, 200, 300)]
    [32, 32, 64, 224, 320]
    """
    return -(-columns // BUCKET) * BUCKET


@dataclass(frozen=True, slots=True)
class Shapes:
    """What passes look like on a device.

    >>> shapes = Shapes(block=32, several=(192, 384))
    >>> [shapes.width(columns, queries=2) for columns in (192, 193, 300, 385, 705)]
    [192, 384, 384, 416, 896]
    """

    block: int
    """Rows that read the same number of columns."""
    min_tokens: int = 1
    """Tokens that a pass feeds at least."""
    one: tuple[int, int] = _NEVER
    """Lengths that the last part is not left at where one query reads a row's keys (with the heads that share them)."""
    several: tuple[int, int] = _NEVER
    """The same where several queries do."""
    exact: bool = False
    """Whether a row's numbers were found to have the same bits in all of these shapes."""

    @property
    def few_calls(self) -> bool:
        """Whether what a pass reads is put into few calls, also with some of it read in vain.

        On a GPU a call takes longer than what it reads; and bits depend on neighbours in any case.
        """
        return self.block >= ALL_ROWS

    def width(self, columns: int, queries: int = 1) -> int:
        """The width that reads `columns` columns for `queries` queries of a row."""
        width = bucketed(columns)
        part = width % PART
        low, high = self.one if queries == 1 else self.several
        return width + high - part if low < part < high else width

    def capacity(self, columns: int) -> int:
        """A width that is as good for any number of queries."""
        return max(self.width(columns), self.width(columns, 2))


def shapes_of(model: PreTrainedModel, device: torch.device) -> Shapes:
    """The shapes of a model's passes on the device that its token ids go to."""
    if device.type != "cpu":
        return Shapes(block=ALL_ROWS)
    if model.dtype != torch.float32 or torch.is_autocast_enabled("cpu"):
        return Shapes(BLOCK, FEW)
    config = model.config.get_text_config(decoder=True)
    heads = {_heads(layer) for layer in getattr(config, "per_layer_config", None) or [config]}
    threads = torch.get_num_threads()
    linear = {
        (module.in_features, min(module.out_features, 512)) for module in model.modules() if type(module) is nn.Linear
    }
    least = _least_tokens(tuple(sorted(linear)), threads)
    one, several = None, None
    if len(heads) == 1 and (known := heads.pop()):
        sharing, dim = known
        one = _left_out((sharing,), dim, threads)
        several = _left_out(tuple(sharing * queries for queries in _QUERIES), dim, threads)
    exact = least is not None and one is not None and several is not None
    return Shapes(BLOCK, least or FEW, one or _NEVER, several or _NEVER, exact)


def _heads(config: PreTrainedConfig) -> tuple[int, int] | None:
    """How many queries of a token read the same keys, and the size of a head; None where values have another size."""
    heads = getattr(config, "num_attention_heads", None) or 1
    sharing = heads // (getattr(config, "num_key_value_heads", None) or heads)
    dim = getattr(config, "qk_head_dim", None) or getattr(config, "head_dim", None) or config.hidden_size // heads
    return (sharing, dim) if (getattr(config, "v_head_dim", None) or dim) == dim else None


@lru_cache(maxsize=64)
@torch.no_grad()
def _left_out(queries: Sequence[int], dim: int, threads: int) -> tuple[int, int] | None:
    """Without which lengths of the last part attention gives the same bits at all others; the cheapest to do without.

    None where it never does.

    Args:
        queries: that read the same keys.
        dim: of a head.
        threads: that torch may use.
    """
    found = [same for count in queries for same in _attended(count, dim)]
    for low, high in _LEFT_OUT:
        if all(len({bits for width, bits in same.items() if not low < width % PART < high}) == 1 for same in found):
            return low, high
    return None


def _attended(queries: int, dim: int) -> list[dict[int, bytes]]:
    """For some numbers of columns that are seen: the bits that each width gives."""
    query, keys, values = (_random(1, 1, rows, dim) for rows in (queries, 2 * PART, 2 * PART))
    places = torch.arange(2 * PART, device="cpu")
    lowest = torch.finfo(torch.float32).min
    found = []
    for columns in (5, 130, 190, 200, 250, 300, 380, 450, 700):
        mask = torch.zeros_like(query[:, :, :1, :1]).where(places < columns, lowest)
        found.append({
            width: nn.functional.scaled_dot_product_attention(
                query, keys[:, :, :width], values[:, :, :width], attn_mask=mask[..., :width]
            ).contiguous().numpy().tobytes()
            for width in range(bucketed(columns), 2 * PART + 1, BUCKET)
        })  # fmt: skip
    return found


@lru_cache(maxsize=64)
@torch.no_grad()
def _least_tokens(linear: Sequence[tuple[int, int]], threads: int) -> int | None:
    """From how many tokens on these linear layers give each of them the same bits; None if that takes too many.

    Args:
        linear: (inputs, outputs) of each.
        threads: that torch may use.
    """
    least = FEW
    for inputs, outputs in linear:
        tokens, weight = _random(max(_TOKENS), inputs), _random(outputs, inputs)
        all_of_them = nn.functional.linear(tokens, weight)
        differing = [
            count for count in _TOKENS if not nn.functional.linear(tokens[:count], weight).equal(all_of_them[:count])
        ]
        least = max(least, min((count for count in _TOKENS if count > max(differing, default=0)), default=_MANY + 1))
    return least if least <= _MANY else None


def _random(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(shape, generator=generator, dtype=torch.float32, device="cpu")
