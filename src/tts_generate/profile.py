"""What a device takes for a pass, in seconds: measured by the engine's own passes, and read by replay as its clock."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tts_generate.arguments import check_fields
from tts_generate.errors import InputError
from tts_generate.trajectories.files import parse, read_text

FORMAT = "tts-profile/1"

_FREE = 0.1
"""Share of a pass's seconds that rows which would be idle may add to it."""


@dataclass(frozen=True)
class Profile:
    """Seconds of a pass by the tokens that it feeds and the columns of the cache that they read, on one device.

    A pass of N tokens that read C columns, all rows together, takes `fixed(N) + C * column(N)` seconds; between the
    numbers of tokens that were measured both are straight lines, and beyond the last they go on as they did.

    >>> profile = Profile((1, 64), (0.01, 0.02), (0.0, 1e-6), (16, 512), (0.02, 0.2))
    >>> profile.passes([1, 64, 64], [0, 0, 10_000]).round(3).tolist(), round(profile.prefill(264), 3)
    ([0.01, 0.02, 0.03], 0.11)

    Raises:
        InputError: figures that no device has.
    """

    tokens: tuple[int, ...]
    """Numbers of tokens that were measured, ascending; those that only fill a pass are not counted."""
    fixed: tuple[float, ...]
    """Seconds of a pass of so many, without what they read."""
    column: tuple[float, ...]
    """Seconds for each column that one of them reads."""
    prompts: tuple[int, ...]
    """Lengths of prompts that were measured, ascending."""
    prefills: tuple[float, ...]
    """Seconds in which they are read."""
    shared_column: float = 0.0
    """Seconds for each token and column of a prompt that stands once for all its branches."""
    shared: float = 0.0
    """Seconds that a pass takes longer for reading any such prompt."""
    span: float = 0.0
    """Seconds for each run of rows, after the first, that a pass reads by a call of its own: of probes, mostly."""
    copied_column: float = 0.0
    """Seconds for each column of a row that is copied: rows that move, grow, or begin with a prompt."""
    column_bytes: int = 0
    """Of the key-value cache, a column of a row; 0: memory is no matter."""
    block: int = 1 << 30
    """Neighbouring rows that read as many columns as the longest of them."""
    min_tokens: int = 1
    """Tokens that a pass feeds at least."""
    shares_from: int = 128
    """Tokens from which on a prompt stands once for all its branches; 0: never."""
    suffix_tokens: int = 0
    """Tokens that a probe forces; 0: not known, then what was recorded says about how many."""
    computed: bool = False
    """Whether the figures were computed from what the device is said to do, not measured."""
    error: Mapping[str, float] = field(default_factory=dict)
    """Of passes between those that were measured: `median` and `worst` relative error."""
    about: Mapping[str, Any] = field(default_factory=dict)
    """Model, device, dtype, versions."""

    def __post_init__(self) -> None:
        check_fields(self)
        for xs, *ys in ((self.tokens, self.fixed, self.column), (self.prompts, self.prefills)):
            good = len(xs) > 0 and all(len(y) == len(xs) for y in ys) and xs[0] >= 1
            if not good or any(b <= a for a, b in pairwise(xs)):
                raise InputError(f"a profile needs ascending numbers of tokens from 1 on with a figure each, got {xs}.")
            if not all(np.isfinite(y).all() and min(y) >= 0 for y in ys):
                raise InputError(f"a profile's seconds must be finite and not below 0, got {ys}.")

    @cached_property
    def _lines(self) -> NDArray[np.float64]:
        return np.array([self.fixed, self.column], np.float64)

    def passes(
        self, tokens: ArrayLike, columns: ArrayLike, shared: ArrayLike = 0, spans: ArrayLike = 1
    ) -> NDArray[np.float64]:
        """Seconds of passes that feed `tokens` tokens, which read `columns` columns, added up over the tokens' rows.

        Those of prompts that stand once are counted in `shared`, added up over the tokens; `spans` are the runs of rows
        that are read by calls of their own.
        """
        fixed, column = (_line(np.asarray(tokens, np.float64), self.tokens, line) for line in self._lines)
        once = np.asarray(shared, np.float64)
        beside = self.shared_column * once + self.shared * (once > 0) + self.span * (np.asarray(spans, np.float64) - 1)
        found: NDArray[np.float64] = fixed + np.asarray(columns, np.float64) * column + beside
        return found

    def free_rows(self, rows: int, columns: float, most: int) -> int:
        """Rows, `most` at most, of which a pass takes hardly longer than one of `rows`: a tenth longer.

        Args:
            rows: at work anyway.
            columns: of the cache that each row reads.
            most: rows there may be.

        >>> flat = Profile((1, 64), (0.01, 0.011), (1e-7, 1e-7), (16,), (0.02,))
        >>> flat.free_rows(4, 10, 256), flat.free_rows(4, 1_000, 256), flat.free_rows(4, 10_000, 256)
        (63, 13, 5)
        """
        counts = np.arange(rows, max(rows, most) + 1)
        seconds = self.passes(counts, counts * columns)
        return rows + int(np.count_nonzero(np.maximum.accumulate(seconds) <= (1 + _FREE) * seconds[0])) - 1

    def prefill(self, prompt_tokens: int) -> float:
        """Seconds in which a prompt is read; prompts are read one by one."""
        return float(_line(np.array([float(prompt_tokens)]), self.prompts, np.array(self.prefills))[0])

    @classmethod
    def roofline(
        cls,
        parameters: float,
        column_bytes: int,
        *,
        weight_bytes: int = 2,
        bandwidth: float = 3.35e12,
        flops: float = 4.95e14,
        launch: float = 0.0015,
        rows: int = 1024,
        **about: Any,
    ) -> Profile:
        """What a device could do at best, marked as computed: weights and cache once over its bandwidth, and launch.

        Args:
            parameters: that a token passes through.
            column_bytes: of the cache, a column of a row.
            weight_bytes: of a parameter.
            bandwidth: bytes a second; an H100's if left out.
            flops: that are reached in a second; half of an H100's in bfloat16.
            launch: seconds of a pass in which nothing is computed.
            rows: up to which passes are told.
            **about: noted.

        >>> Profile.roofline(8.2e9, 147_456).passes([1, 256], [0, 0]).round(4).tolist()
        [0.0064, 0.01]
        """
        tokens = tuple(2**power for power in range(rows.bit_length()))
        weights = weight_bytes * parameters / bandwidth
        of = {count: launch + max(weights, 2 * parameters * count / flops) for count in tokens}
        prompts = (1, 1024)
        return cls(
            tokens,
            tuple(of.values()),
            (column_bytes / bandwidth,) * len(tokens),
            prompts,
            tuple(launch + max(weights, 2 * parameters * length / flops) for length in prompts),
            column_bytes=column_bytes,
            computed=True,
            about=about,
        )

    def checked_by(self, measured: Sequence[float], said: Sequence[float]) -> Profile:
        """The same with its error on passes that were measured beside those it was made of, in seconds both."""
        wrong = np.abs(np.array(said) / np.array(measured) - 1)
        error = {"median": float(np.median(wrong)), "worst": float(wrong.max())} if len(wrong) else {}
        return replace(self, error=error)

    @classmethod
    def of(cls, profile: Profile | str | Path | None) -> Profile | None:
        """A profile, or that of a file."""
        return cls.load(profile) if isinstance(profile, (str, Path)) else profile

    def save(self, path: str | Path) -> None:
        """Write it as JSON, making its folder; `load` reads it."""
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(json.dumps({"format": FORMAT, **asdict(self)}, indent=2) + "\n", "utf-8")

    @classmethod
    def load(cls, path: str | Path) -> Profile:
        """Read one that `tts-generate profile` wrote.

        Raises:
            InputError: it is none.
        """
        try:
            found = parse(read_text(Path(path)))
            if found.pop("format") != FORMAT:
                raise ValueError(f"format is not {FORMAT!r}")
            lists: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in found.items()}
            return cls(**lists)
        except (InputError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise InputError(
                f"{path} is no profile of a device ({error}); make one with tts-generate profile."
            ) from error


def _line(x: NDArray[np.float64], xs: tuple[int, ...], ys: NDArray[np.float64]) -> NDArray[np.float64]:
    """Straight lines through points; beyond the last, as between the last two, and never below 0."""
    found = np.interp(x, xs, ys)
    if len(xs) > 1:
        slope = (ys[-1] - ys[-2]) / (xs[-1] - xs[-2])
        found = np.where(x > xs[-1], np.maximum(0.0, ys[-1] + (x - xs[-1]) * slope), found)
    return found


def doubling(most: int) -> list[int]:
    """Numbers of rows that are measured: 1, 2, 4, … and the most.

    >>> doubling(12), doubling(1)
    ([1, 2, 4, 8, 12], [1])
    """
    return sorted({min(2**power, most) for power in range(most.bit_length() + 1)})
