"""Stop strings: where they end a branch, however its text came in pieces, is where transformers ends it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from local_servers import ASKED, OPTIONS, QUESTIONS
from server_checks import assert_replays
from token_server import TokenServer
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, StopStringCriteria

from tts_generate import ServerModel, TrajectoryStore
from tts_generate.controller import Controller
from tts_generate.errors import InputError
from tts_generate.server.stops import text_until, tokens_until
from tts_generate.state import Decision, State

TEXTS = ["Q: a = 6 ;\n\nso a?\nQ: b", "naïve café \U0001f600\U0001f600 ends, ends here\r\n", "ababab aab.\n\nQ. 日本語"]
LETTERS = "ab \nQ:.é\U0001f600日"


def byte_level() -> PreTrainedTokenizerFast:
    """A tokenizer of bytes and what often stands together, as most models have."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(TEXTS, trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False))
    return PreTrainedTokenizerFast(tokenizer_object=made)


TOKENIZER = byte_level()


def decode(ids: Sequence[int]) -> str:
    return str(TOKENIZER.decode(list(ids), clean_up_tokenization_spaces=False))


def in_pieces(whole: Any, ends: list[int], found: Callable[[Any, Any], int | None]) -> int | None:
    """Where what comes in pieces, which end there, is cut; `found` is asked with what was before, and the piece."""
    at = 0
    for end in [*sorted(min(end, len(whole)) for end in ends), len(whole)]:
        if end > at and (place := found(whole[:at], whole[at:end])) is not None:
            return at + place
        at = end
    return None


PIECES = st.lists(st.integers(0, 40), max_size=12)
WRITTEN = st.text(LETTERS, max_size=40) | st.sampled_from(TEXTS)
STOPS = st.lists(st.text(LETTERS, min_size=1, max_size=4), min_size=1, max_size=3)


@settings(max_examples=300, deadline=None)
@given(WRITTEN, PIECES, STOPS)
def test_a_text_in_pieces_is_cut_where_it_is_in_one(text: str, ends: list[int], stop: list[str]) -> None:
    def found(before: str, piece: str) -> int | None:
        place = text_until(before + piece, len(before), stop)
        return None if place is None else place - len(before)

    first = next((n for n in range(1, len(text) + 1) if text[:n].endswith(tuple(stop))), None)
    assert in_pieces(text, ends, found) == in_pieces(text, [], found) == first


@settings(max_examples=300, deadline=None)
@given(WRITTEN, WRITTEN, PIECES, STOPS)
def test_tokens_in_pieces_are_cut_where_transformers_ends_them(
    prompt: str, text: str, ends: list[int], stop: list[str]
) -> None:
    """Also where a character, or a stop string, is in several tokens; and one that begins in the prompt counts."""
    before, ids = (list(TOKENIZER(each)["input_ids"]) for each in (prompt, text))

    def found(so_far: list[int], piece: list[int]) -> int | None:
        return tokens_until(decode, [*before, *so_far], piece, stop)

    criterion, seen = StopStringCriteria(TOKENIZER, stop), [*before, *ids]
    first = next(
        (n for n in range(1, len(ids) + 1) if bool(criterion(torch.tensor([seen[: len(before) + n]]), None))), None
    )
    assert in_pieces(ids, ends, found) == in_pieces(ids, [], found) == first


@settings(max_examples=300, deadline=None)
@given(st.lists(st.integers(0, 299), max_size=40), PIECES, st.data())
def test_so_are_tokens_of_which_no_text_is_made(ids: list[int], ends: list[int], data: Any) -> None:
    """A model says them in any order: bytes that are no UTF-8 among them."""
    said = decode(ids).replace("\ufffd", "")
    at = data.draw(st.integers(0, max(0, len(said) - 1)))
    stop = [said[at : at + data.draw(st.integers(1, 5))] or "a", data.draw(st.text(LETTERS, min_size=1, max_size=3))]

    def found(so_far: list[int], piece: list[int]) -> int | None:
        return tokens_until(decode, so_far, piece, stop)

    assert in_pieces(ids, ends, found) == in_pieces(ids, [], found)


class Stepwise(Controller):
    """Reads three branches to their end, a step at a time."""

    probing = "never"
    width: int

    @staticmethod
    def schedule(beta: float) -> dict[str, float]:
        return {"width": 3}

    def begin(self, state: State, do: Decision) -> None:
        do.open = self.width

    def plan(self, state: State, do: Decision) -> None:
        do.steps[:] = 1


STOP = "; c"
"""Two tokens; no request of one token says it."""


@pytest.mark.parametrize("tokens", [True, False], ids=["tokens", "text"])
@pytest.mark.parametrize("interval", [1, 3])
def test_no_branch_runs_past_a_stop_string_that_straddles_two_requests(
    token_server: TokenServer, tokens: bool, interval: int
) -> None:
    model = ServerModel(token_server.url, tokenizer=token_server.tokenizer if tokens else None)
    options = {**OPTIONS, "interval_tokens": interval, "max_new_tokens": 60, "seed": 1}
    output = model.generate(QUESTIONS, controller=Stepwise.from_beta(), stop_strings=STOP, **options)
    assert_replays(output, Stepwise.from_beta(), interval_tokens=interval)
    ended = [branch for branches in output.branches for branch in branches]
    assert {branch.finish_reason for branch in ended} == {"stop"}
    if tokens:
        texts = [token_server.tokenizer.decode(branch.token_ids) for branch in ended]
        assert all(text.find(STOP) == len(text) - len(STOP) for text in texts)
    assert all(text.find(STOP) == len(text) - len(STOP) for text in output.texts)


@pytest.mark.parametrize("tokens", [True, False], ids=["tokens", "text"])
def test_a_recording_is_cut_there_too(token_server: TokenServer, tmp_path: Path, tokens: bool) -> None:
    """Of a branch read in one request, and of one read a step at a time."""
    model = ServerModel(token_server.url, tokenizer=token_server.tokenizer)
    if not tokens:
        token_server.requests.clear()
        model.tokenizer = None
    options = {**OPTIONS, "interval_tokens": 2, "max_new_tokens": 60, "progress": False}
    with pytest.raises(InputError, match="votes is of replay"):
        model.record(ASKED, tmp_path / "s", votes="math")
    store = model.record(ASKED, tmp_path / "s", branches=3, seed=1, stop_strings=[STOP], **options)
    rows = store.trajectories()
    assert {row.finish_reason for row in rows} == {"stop"}
    texts = [token_server.tokenizer.decode(row.token_ids) for row in rows if row.token_ids is not None]
    assert all(text.find(STOP) == len(text) - len(STOP) for text in texts)
    assert len(texts) == (6 if tokens else 0)
    assert store.manifest.generation_config["stop_strings"] == [STOP]
    assert TrajectoryStore.open(tmp_path / "s").trajectories() == rows


def test_what_a_stop_string_closes_is_read(token_server: TokenServer) -> None:
    """A server that speaks text leaves out what stopped it; the brace that closes the answer is put back."""
    model = ServerModel(token_server.url)
    options = {**OPTIONS, "controller": "self_consistency", "controller_kwargs": {"max_samples": 2}, "seed": 1}
    output = model.generate(QUESTIONS, stop_strings="}", **options)
    assert all(branch.final_answer for branches in output.branches for branch in branches)
    assert all(text.endswith("}") for text in output.texts)


def test_more_stop_strings_than_a_server_takes_are_all_looked_for(token_server: TokenServer) -> None:
    model = ServerModel(token_server.url, tokenizer=token_server.tokenizer)
    options = {**OPTIONS, "controller": "self_consistency", "controller_kwargs": {"max_samples": 2}, "seed": 1}
    token_server.requests.clear()
    output = model.generate(QUESTIONS, stop_strings=["never", "said", "by", "it", "b ="], **options)
    assert {branch.finish_reason for branches in output.branches for branch in branches} == {"stop"}
    assert all(text.endswith("b =") for text in output.texts)
    assert max(len(body.get("stop", ())) for body in token_server.requests) == 4
    usage = output.usage  # what came behind the string that the server did not know
    assert usage.completion_tokens - output.total_cost.generated_tokens == usage.discarded_tokens > 0
