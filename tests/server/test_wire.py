"""Dialects, request by request: what is sent, and how what comes back is read and counted."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from tts_generate.errors import ServerError, UnsupportedError
from tts_generate.live.task import Prompt
from tts_generate.server.dialects import Dialect, Pieces, Wire
from tts_generate.server.reply import Completion

SAID = Completion("a = 7 ;", "length", None, None, (), 3, 4, 0)
PROMPT = Prompt((37, 17), "Q: a")


def wire(dialect: Dialect, tokenizer: Any = None, **sampling: Any) -> Wire:
    made = Wire(dialect, "m", sampling, {"priority": 1}, tokenizer, top_logprobs=1)
    made.pieces = Pieces({})
    return made


def test_each_dialect_has_its_words(tokenizer: Any) -> None:
    options = {"temperature": 0.7, "top_k": 0}
    tokens = wire("tokens", tokenizer, **options).body(PROMPT, [27], 5, ["x"], seed=9)
    assert tokens["prompt"] == [37, 17, 27]
    assert (tokens["top_k"], tokens["return_token_ids"], tokens["logprobs"]) == (-1, True, 1)
    assert (tokens["seed"], tokens["max_tokens"], tokens["stop"], tokens["priority"]) == (9, 5, ["x"], 1)
    strict = wire("transformers", **options)
    body = strict.body(PROMPT, strict.pieces.add(" = 7", 2), 5, seed=9)
    assert body["prompt"] == "Q: a = 7"
    assert json.loads(body["generation_config"]) == {"do_sample": True, **options}
    assert json.loads(strict.body(PROMPT, [], 5, greedy=True)["generation_config"]) == {"do_sample": False}
    assert not {"temperature", "top_k", "return_token_ids", "stream_options"} & set(body)
    assert wire("text", **options).body(PROMPT, [], 5, greedy=True)["temperature"] == 0
    assert wire("openai", temperature=0.7).body(PROMPT, [], 5, seed=1)["temperature"] == 0.7
    with pytest.raises(UnsupportedError, match="would refuse top_k"):
        wire("openai", **options).body(PROMPT, [], 5, seed=1)


def test_text_is_counted_by_the_server_else_by_the_tokenizer(tokenizer: Any) -> None:
    assert len(wire("text").read(SAID, 4).ids) == 4
    uncounted = replace(SAID, completion_tokens=None)
    assert len(wire("text", tokenizer).read(uncounted, 4).ids) == len(tokenizer(SAID.text)["input_ids"]) == 4
    with pytest.raises(ServerError, match="does not count tokens"):
        wire("text").read(uncounted, 4)


def test_an_end_is_a_token_and_says_what_it_was(tokenizer: Any) -> None:
    nothing = replace(SAID, text="", finish_reason="stop", completion_tokens=0)
    piece = wire("text").read(nothing, 4)
    assert (len(piece.ids), piece.end) == (1, "eos")
    piece = wire("tokens", tokenizer).read(replace(nothing, token_ids=(), logprobs=(0.0,)), 4)
    assert (piece.ids, piece.end) == ([tokenizer.eos_token_id], "eos")
    assert wire("text").read(replace(SAID, finish_reason="stop"), 4, stop=[";"]).end == "stop"
    assert wire("text").read(replace(SAID, finish_reason="stop", stop_reason="so"), 4).end == "stop"
    piece = wire("text").read(replace(SAID, finish_reason="stop", stop_reason="b"), 4)  # which the server left out
    assert (piece.end, len(piece.ids)) == ("stop", 4)
    assert wire("text").read(SAID, 4, stop=["b"]).end is None
    assert wire("text").read(SAID, 4, stop=[";"]).end == "stop"  # though the server has not seen it


def test_a_server_that_does_not_keep_its_word_is_told_so(tokenizer: Any) -> None:
    with pytest.raises(ServerError, match="asked for 3 tokens, the server sent 4: it ignores max_tokens"):
        wire("text").read(SAID, 3)
    with pytest.raises(ServerError, match="stopped returning token ids"):
        wire("tokens", tokenizer).read(SAID, 4)
    with pytest.raises(ServerError, match="0 log-probabilities for 2 tokens"):
        wire("tokens", tokenizer).read(replace(SAID, token_ids=(17, 27), completion_tokens=2), 4)
    with pytest.raises(ServerError, match="ids of 2 tokens, and counts 4"):
        wire("tokens", tokenizer).read(replace(SAID, token_ids=(17, 27)), 4)
