"""Whether one measured controller beats another: at equal cost, on the same stores, question by question."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tts_generate.errors import ControllerError
from tts_generate.publish.measuring import FORMAT
from tts_generate.search.objective import Curve, gain_over
from tts_generate.strict_json import Amount, check_format, check_shape


@dataclass(frozen=True)
class Verdict:
    """What came of comparing two evaluations."""

    gain: float
    """Points of accuracy over the other at equal cost, mean over its costs."""
    interval: tuple[float, float]
    """Of the gain, 95 %, over questions."""
    stores: tuple[str, ...]
    """The stores on which both were measured."""

    @property
    def better(self) -> bool:
        """Whether the gain is above 0."""
        return self.gain > 0

    def __str__(self) -> str:
        low, high = self.interval
        where = ", ".join(self.stores)
        return f"{self.gain:+.2f} points at equal cost (95 % interval {low:+.2f} to {high:+.2f}) on {where}"


def compare(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> Verdict | None:
    """Our gain over theirs on the stores that both were measured on; None if there is none.

    Args:
        ours: an evaluation, as `measure` returns it.
        theirs: another.

    Raises:
        ControllerError: an evaluation that is damaged.
    """
    known = {store["fingerprint"]: store for store in _stores(theirs)}
    shared = [(store, known[store["fingerprint"]]) for store in _stores(ours) if store["fingerprint"] in known]
    if not shared:
        return None
    for here, there in shared:
        if here["questions"] != there["questions"]:
            raise ControllerError(
                f"evaluation/summary.json is damaged: {there['name']!r:.80} has {there['questions']} questions in it, "
                f"{here['questions']} in ours, and by its fingerprint it is the same store."
            )
    pairs = tuple(zip(*shared, strict=True))
    mine, other = (_curve(told, stores) for told, stores in zip((ours, theirs), pairs, strict=True))
    gain = gain_over(other, mine, np.full(len(shared), 1 / len(shared)))
    return Verdict(gain.mean, gain.interval(), tuple(str(store["name"]) for store, _ in shared))


def _stores(told: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    check_format(dict(told), FORMAT, "evaluation/summary.json", error=ControllerError)
    check_shape(
        dict(told),
        {"stores": [{"fingerprint": str, "name": str, "questions": Amount}]},
        "evaluation/summary.json",
        error=ControllerError,
    )
    return list(told["stores"])


def _curve(told: Mapping[str, Any], stores: Sequence[Mapping[str, Any]]) -> Curve:
    try:
        betas = tuple(float(beta) for beta in told["betas"])
        parts = [(_table(store, "accuracy", len(betas)), _table(store, "tokens", len(betas))) for store in stores]
    except (KeyError, TypeError, ValueError) as error:
        raise ControllerError(f"evaluation/summary.json is damaged: {type(error).__name__}: {error}.") from error
    return Curve(betas, tuple(100 * accuracy for accuracy, _ in parts), tuple(tokens for _, tokens in parts))


def _table(store: Mapping[str, Any], name: str, betas: int) -> NDArray[np.float64]:
    table = np.asarray(store["by_question"][name], np.float64)
    if table.shape != (betas, store["questions"]) or not np.isfinite(table).all() or (table < 0).any():
        raise ValueError(f"{name} of {store['name']} is no table of {betas} budgets and {store['questions']} questions")
    return table
