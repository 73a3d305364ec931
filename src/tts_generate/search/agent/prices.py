"""What a model's tokens cost: a dated table that ships with the package, or one of the user's."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

from tts_generate.errors import InputError, UnknownNameError

FORMAT = "tts-prices/1"
_MILLION = 1_000_000
_CACHED = ("cache_read_input_tokens", "cache_creation_input_tokens")
_FIELDS = ("input", "output", "cache_read", "cache_write")


@dataclass(frozen=True)
class Tier:
    """Prices of requests whose prompt has at most `prompt_up_to` tokens; US dollars per million."""

    input: float
    output: float
    cache_read: float
    cache_write: float
    prompt_up_to: float = float("inf")


@dataclass(frozen=True)
class Price:
    """What one model costs.

    >>> price = Price("one", "2026-10-24", (Tier(2.0, 10.0, 0.1, 2.5),))
    >>> price.of({"input_tokens": 1000, "output_tokens": 1000, "cache_read_input_tokens": 10_000})
    0.013
    """

    model: str
    date: str
    """Of the table."""
    tiers: tuple[Tier, ...]
    """By rising `prompt_up_to`."""
    geo: Mapping[str, float] = field(default_factory=dict)
    """How many times as much calls cost that were answered in a region of the user's choice, by `inference_geo`."""

    def of(self, usage: Mapping[str, Any]) -> float:
        """What a call cost, US dollars, from the `usage` of its reply, which must be a plausible one."""
        read, written = usage.get("cache_read_input_tokens") or 0, usage.get("cache_creation_input_tokens") or 0
        tier = next(tier for tier in self.tiers if prompt_tokens(usage) <= tier.prompt_up_to)
        paid = usage["input_tokens"] * tier.input + usage["output_tokens"] * tier.output
        paid += read * tier.cache_read + written * tier.cache_write
        return float(paid * self.geo.get(usage.get("inference_geo") or "", 1.0) / _MILLION)

    def at_most(self, prompt: int, output: int) -> float:
        """The most that a call can cost whose prompt has at most `prompt` tokens and whose reply at most `output`."""
        least, most = 0.0, 0.0
        for tier in self.tiers:
            if prompt > least or most == 0.0:
                dearest = max(tier.input, tier.cache_read, tier.cache_write)
                length = min(prompt, tier.prompt_up_to)
                most = max(most, (length * dearest + output * tier.output) / _MILLION)
            least = tier.prompt_up_to
        return most * max([1.0, *self.geo.values()])

    def of_round(self, prompt: int, calls: int, output: int, result: int) -> float:
        """What a conversation costs that finds in the cache all that was sent before.

        Args:
            prompt: tokens of its first request.
            calls: how many requests.
            output: tokens of each reply.
            result: tokens that the tools answer to each.
        """
        usd, before = 0.0, 0
        for _ in range(calls):
            usage = {"input_tokens": 0, "output_tokens": output, "cache_read_input_tokens": before}
            usd += self.of({**usage, "cache_creation_input_tokens": prompt - before})
            before, prompt = prompt, prompt + output + result
        return usd


def free(model: str) -> Price:
    """The price of what costs nothing."""
    return Price(model, "", (Tier(0.0, 0.0, 0.0, 0.0),))


def prompt_tokens(usage: Mapping[str, Any]) -> int:
    """All tokens of a call's prompt, those from and to the cache too."""
    cached = (usage.get("cache_read_input_tokens") or 0) + (usage.get("cache_creation_input_tokens") or 0)
    return int(usage["input_tokens"] + cached)


def implausible(usage: Any, prompt: int, output: int) -> str:
    """What a reply's usage says that cannot be; "" if all of it can.

    >>> implausible({"input_tokens": 3, "output_tokens": -50_000_000}, 10, 10)
    'output_tokens is -50000000'
    >>> implausible({"input_tokens": 3, "output_tokens": 9, "cache_read_input_tokens": None}, 10, 10)
    ''
    """
    if not isinstance(usage, Mapping):
        return "there is no usage"
    for name in ("input_tokens", "output_tokens", *_CACHED):
        value = usage.get(name, 0 if name in _CACHED else None)
        if value is None and name in _CACHED:
            continue
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 53:
            value = "a number without end" if isinstance(value, int) and value >= 1 << 53 else value
            return f"{name} is {value!r:.40}" if isinstance(value, (int, float, str)) else f"{name} is no number"
    if prompt_tokens(usage) > prompt:
        return f"{prompt_tokens(usage)!r:.40} tokens of a prompt that has {prompt} at most"
    if usage["output_tokens"] > output:
        return f"output_tokens is {usage['output_tokens']!r:.40}, {output} were asked for"
    return "" if isinstance(usage.get("inference_geo") or "", str) else "inference_geo is no text"


def price_of(model: str, table: Path | None = None) -> Price:
    """The price of a model.

    Args:
        model: as the API names it.
        table: a file like the `prices.json` beside this module; that one if left out.

    Raises:
        InputError: the file is no price table.
        UnknownNameError: the model is not in it.

    >>> price_of("claude-sonnet-5-5").tiers[0].output
    10.0
    """
    where = str(table or "the price table of this version")
    try:
        text = table.read_text("utf-8") if table else (files(__package__) / "prices.json").read_text("utf-8")
        row = json.loads(text)
        if row["format"] != FORMAT:
            raise ValueError(f"format {row['format']!r}, {FORMAT!r} is expected")
        models = {name: _tiers(tiers) for name, tiers in row["models"].items()}
        date, geo = str(row["date"]), {name: float(times) for name, times in row.get("inference_geo", {}).items()}
    except OSError as error:
        raise InputError(f"cannot read the prices in {table}: {error.strerror}.") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{where} is no price table: {type(error).__name__} {error}.") from error
    if model not in models:
        hint = f"A budget cannot be kept without its price: pass --prices FILE ({where} is of {date})."
        raise UnknownNameError.of("model", model, models, hint)
    return Price(model, date, models[model], geo)


def _tiers(rows: Any) -> tuple[Tier, ...]:
    tiers = tuple(Tier(**{name: float(value) for name, value in row.items()}) for row in rows)
    limits = [tier.prompt_up_to for tier in tiers]
    if not tiers or limits != sorted(limits) or limits[-1] != float("inf"):
        raise ValueError("a model's tiers must rise by prompt_up_to, the last one without it")
    if any(not 0 <= getattr(tier, name) < float("inf") for tier in tiers for name in _FIELDS):
        raise ValueError(f"{', '.join(_FIELDS)} must be numbers from 0 on")
    return tiers
