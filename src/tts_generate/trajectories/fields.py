"""What the fields of a store may hold: one rule for what is recorded, imported and read, whoever wrote it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tts_generate.trajectories.schema import Manifest, Trajectory

FINISH_REASONS = ("eos", "stop", "length")
SOURCES = ("recorded", "live", "autotts")
MOST = 2**31 - 1
"""The largest number of tokens, or of a branch: what a column of a shard holds."""
MOST_STEPS = 2**20
"""The most steps of a branch."""
_HUGE = 1e300


def encodable(text: str) -> bool:
    r"""Whether UTF-8 can hold a text: it has no lone surrogates.

    >>> encodable("\u2028"), encodable("\ud800")
    (True, False)
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def mended(text: str) -> str:
    r"""The text with its surrogates in pairs, and U+FFFD for each that is alone.

    >>> mended("\ud83d\ude00, \ud800")
    '😀, �'
    """
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def shown(value: object) -> str:
    """A value for a message, cut short; a number may have more digits than Python prints."""
    try:
        return f"{value!r:.80}"
    except ValueError:
        return f"{type(value).__name__} of too many digits to show"


def wrong_trajectory(row: Trajectory) -> str:
    """Which field of a branch no column holds, or cannot belong with the others; "" if all is well."""
    for name, fits in _COLUMNS.items():
        value = getattr(row, name)
        if not fits(value):
            return f"{name} must be {_TOLD[fits]}, got {shown(value)}"
    if len({len(row.probe_positions), len(row.probe_answers), len(row.probe_tokens), len(row.probe_logprobs)}) > 1:
        return "probe_positions, probe_answers, probe_tokens and probe_logprobs must have one length"
    if any(a >= b for a, b in zip((0, *row.probe_positions), row.probe_positions, strict=False)):
        return f"probe_positions must ascend from above 0, got {shown(list(row.probe_positions))}"
    if row.finish_reason not in (*FINISH_REASONS, None):
        return f"finish_reason must be one of {', '.join(FINISH_REASONS)} or null, got {shown(row.finish_reason)}"
    if row.finish_reason is None and row.final_answer is not None:
        return "a branch not read to its end has no final_answer"
    if row.token_ids is not None and len(row.token_ids) != row.tokens:
        return f"{len(row.token_ids)} token_ids for {row.tokens} tokens"
    return ""


def wrong_manifest(manifest: Manifest) -> str:
    """Which field of a manifest is of another type or range than it can be; "" if none is."""
    for name in ("interval_tokens", "branches"):
        if not (_number(getattr(manifest, name)) and getattr(manifest, name)):
            return f"{name} must be a whole number from 1 to {MOST}, got {shown(getattr(manifest, name))}"
    if not _seed(manifest.seed):
        return f"seed must be {_TOLD[_seed]}, got {shown(manifest.seed)}"
    for name in ("model", "tokenizer", "generation_config", "probe", "versions"):
        if not _plain(getattr(manifest, name)):
            return f"{name} must be a JSON object, got {shown(getattr(manifest, name))}"
    if not _texts(tuple(manifest.versions.values())) or not _texts((manifest.model.get("name_or_path"),)):
        return "versions and the model's name_or_path must be texts"
    if manifest.source not in SOURCES:
        return f"source must be one of {', '.join(SOURCES)}, got {shown(manifest.source)}"
    if type(manifest.questions_sha256) is not str:
        return f"questions_sha256 must be text, got {shown(manifest.questions_sha256)}"
    return ""


def misfit(row: Trajectory, interval_tokens: int, source: str, branches: int = MOST) -> str:
    """Why a branch cannot be one of a recording with such steps; "" if it can.

    A branch of a published table lists one probe a step, the last ones perhaps beyond its tokens.
    """
    positions = row.probe_positions
    steps = max(row.tokens // interval_tokens, len(positions), len(row.step_logprobs) - 1)
    if row.branch >= branches:
        return f"there are {branches} branches a question"
    at_end = row.forced or (row.finish_reason is None and positions[-1:] == (row.tokens,))  # of one whose time was up
    if any(position % interval_tokens for position in (positions[:-1] if at_end else positions)):
        return f"it was probed elsewhere than at the ends of steps of {interval_tokens} tokens"
    if steps > MOST_STEPS:
        return f"it has {steps:,} steps; at most {MOST_STEPS:,} are read"
    if source == "autotts":
        listed = not positions or positions[-1] == interval_tokens * len(positions)
        return "" if listed else "it must be probed once a step, as published tables are"
    if positions and positions[-1] > row.tokens:
        return f"it was probed at {positions[-1]} tokens and has {row.tokens}"
    if row.step_logprobs and len(row.step_logprobs) - row.tokens // interval_tokens not in (0, 1):
        return f"it has log-probabilities of {len(row.step_logprobs)} steps in {row.tokens} tokens"
    return ""


def _number(value: Any) -> bool:
    return type(value) is int and 0 <= value <= MOST


def _seed(value: Any) -> bool:
    return value is None or (type(value) is int and -(2**63) <= value < 2**63)


def _text(value: Any) -> bool:
    return isinstance(value, str) and encodable(value)


def _texts(values: Any) -> bool:
    return isinstance(values, tuple) and all(issubclass(kind, (str, type(None))) for kind in set(map(type, values)))


def _answer(value: Any) -> bool:
    return value is None or isinstance(value, str)


def _numbers(values: Any) -> bool:
    """By sets of types, for there are many tokens."""
    return isinstance(values, tuple) and (
        not values or (set(map(type, values)) == {int} and min(values) >= 0 and max(values) <= MOST)
    )


def _numbers_or_none(values: Any) -> bool:
    return values is None or _numbers(values)


def _logprobs(values: Any) -> bool:
    return isinstance(values, tuple) and all(
        value is None or (isinstance(value, (float, int)) and abs(value) < _HUGE and float(value) == value)
        for value in values
    )


def _plain(value: Any) -> bool:
    try:
        return isinstance(value, dict) and encodable(json.dumps(value, allow_nan=False, ensure_ascii=False))
    except (TypeError, ValueError, RecursionError):
        return False


_COLUMNS: Mapping[str, Callable[[Any], bool]] = {
    "question_id": _text, "branch": _number, "seed": _seed, "prompt_tokens": _number, "tokens": _number,
    "finish_reason": _answer, "final_answer": _answer, "probe_positions": _numbers, "probe_answers": _texts,
    "probe_tokens": _numbers, "probe_logprobs": _logprobs, "step_logprobs": _logprobs, "token_ids": _numbers_or_none,
}  # fmt: skip
_TOLD: Mapping[Callable[[Any], bool], str] = {
    _number: f"a whole number from 0 to {MOST}",
    _seed: "a whole number of 64 bits, or null",
    _text: "text that UTF-8 can hold",
    _answer: "text, or null",
    _texts: "texts, null where there is none",
    _numbers: f"whole numbers from 0 to {MOST}",
    _numbers_or_none: f"whole numbers from 0 to {MOST}, or null",
    _logprobs: "finite numbers, null where there is none",
}
