"""What the engine decodes is what the model says, whoever else is in the batch; every token is on the ledger."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from engine_models import CONFIGS, QUESTIONS, Live, make_live, said
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tts_generate.answers import AnswerFormat
from tts_generate.engine import admission, shared
from tts_generate.engine.decoder import Decoder
from tts_generate.engine.noise import gumbel
from tts_generate.engine.plan import Pass
from tts_generate.live.branch import Branch, Probe, ProbeRecord, branch_key
from tts_generate.live.reader import Reader
from tts_generate.live.task import Prompt
from tts_generate.loading import load_controller

SIX = {name: load_controller(name, max_samples=6) for name in ("self_consistency", "asc")}
"""All at once, and one after the other."""


def prompt_ids(live: Live, question: str) -> list[int]:
    return list(live.tokenizer(question)["input_ids"])


def redecode(live: Live, question: str, number: int, ids: tuple[int, ...], seed: int = 0) -> list[int]:
    """The slow twin: every token of a branch drawn again from one plain forward pass over all of it."""
    prompt = prompt_ids(live, question)
    whole = torch.tensor([prompt + list(ids)])
    with torch.no_grad():
        logits = live.model(input_ids=whole).logits[0, len(prompt) - 1 : -1].float()
    count = len(ids)
    keys = torch.full((count,), branch_key(seed, prompt, number))
    noise = gumbel(keys, torch.arange(count), torch.arange(logits.shape[1])[None])
    return (logits.double() + noise).argmax(-1).tolist()


@pytest.mark.parametrize("controller", ["self_consistency", "cmc"])
def test_tokens_are_those_of_a_plain_forward_pass(live: Live, controller: str) -> None:
    output = live.run(*QUESTIONS, controller=controller, beta=0.2)
    for question, branches in zip(QUESTIONS, output.branches, strict=True):
        assert len(branches) >= 2
        for branch in branches:
            assert redecode(live, question, branch.branch, branch.token_ids) == list(branch.token_ids)


def test_probes_are_forced_suffix_and_greedy_answer_forgotten(live: Live) -> None:
    """A probe decodes what a plain greedy pass over branch + suffix decodes, and the branch goes on untouched."""
    output = live.run(*QUESTIONS, beta=0.2)
    suffix = live.tokenizer("</think>\\boxed{", add_special_tokens=False)["input_ids"]
    seen = 0
    for question, branches in zip(QUESTIONS, output.branches, strict=True):
        for branch in branches:
            for position, answer, tokens in zip(
                branch.probe_positions, branch.probe_answers, branch.probe_tokens, strict=True
            ):
                ids = branch.token_ids[:position]
                if 4 in ids:  # </think>: other suffixes; see test_answers
                    continue
                said = greedy(live, prompt_ids(live, question) + list(ids) + suffix, 4)
                text = live.tokenizer.decode(suffix + said)
                found = text.split("\\boxed{")[1].split("}")[0].strip() if "}" in text else None
                assert (answer or None) == (found or None)
                assert tokens == len(suffix) + len(said)
                seen += 1
    assert seen > 10


def greedy(live: Live, ids: list[int], most: int) -> list[int]:
    said: list[int] = []
    while len(said) < most:
        with torch.no_grad():
            token = int(live.model(input_ids=torch.tensor([ids + said])).logits[0, -1].argmax())
        said.append(token)
        if token in (2, 6):  # <eos>, }
            break
    return said


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    max_rows=st.integers(1, 30),
    order=st.permutations(range(3)),
    repeat=st.booleans(),
    controller=st.sampled_from(["cmc", SIX["asc"]]),
)
def test_same_branches_whatever_the_neighbours(
    qwen: Live, max_rows: int, order: list[int], repeat: bool, controller: Any
) -> None:
    alone = {q: reference(qwen, controller, q) for q in QUESTIONS}
    asked = [QUESTIONS[i] for i in order] + ([QUESTIONS[0]] if repeat else [])
    output = qwen.run(*asked, controller=controller, beta=_beta(controller), max_rows=max_rows)
    for number, question in enumerate(asked):
        expected = alone[question]
        assert output.answers[number] == expected.answers[0]
        assert output.cost[number] == expected.cost[0]
        assert output.trace[number].events == expected.trace[0].events
        assert [b.token_ids for b in output.branches[number]] == [b.token_ids for b in expected.branches[0]]


_REFERENCES: dict[tuple[str, str], Any] = {}


def reference(live: Live, controller: Any, question: str) -> Any:
    key = str(controller), question
    if key not in _REFERENCES:
        _REFERENCES[key] = live.run(question, controller=controller, beta=_beta(controller))
    return _REFERENCES[key]


def _beta(controller: Any) -> float | None:
    return 0.3 if isinstance(controller, str) else None


def test_seed_changes_everything_and_torch_seed_governs_none(qwen: Live) -> None:
    first = qwen.run(QUESTIONS[0], seed=1)
    assert first.seed == 1
    assert first.branches[0][0].token_ids != qwen.run(QUESTIONS[0], seed=2).branches[0][0].token_ids
    torch.manual_seed(7)
    drawn = qwen.run(QUESTIONS[0], seed=None)
    torch.manual_seed(7)
    assert qwen.run(QUESTIONS[0], seed=None).branches == drawn.branches
    assert qwen.run(QUESTIONS[0], seed=drawn.seed).branches == drawn.branches


WAYS: list[dict[str, Any]] = [
    {"max_rows": 3},
    {"sync_every": 4},
    {"decode_ahead": False},
    {"ahead_rows": 40},
    {"ahead_rows": 40, "max_cache_bytes": 4 * 96 * 512},
]
COUNTED = [(family, {}, controller) for family in sorted(CONFIGS) for controller in (SIX["asc"], "cmc")] + [
    (family, how, controller)
    for family in ("qwen3", "mistral_windowed")
    for how in WAYS
    for controller in (*SIX.values(), "cmc")
]
"""Every family plainly, and two of them, one with a window, in every way."""


@pytest.mark.parametrize(("live", "how", "controller"), COUNTED, ids=str, indirect=["live"])
def test_ledger_equals_tokens_fed_to_the_model(
    live: Live, controller: Any, how: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prompt + generated + probe tokens + those decoded ahead in vain, counted at the model's forward.

    A sequence's very last token is drawn and never fed: one for each finished branch, one for each probe.
    """
    if "max_cache_bytes" in how:  # rows at work are taken back as the cache grows
        monkeypatch.setattr(admission, "_AT_ONCE", 0)
        monkeypatch.setattr(admission, "_FIRST_COLUMNS", 0)
    fed, filler = [], []
    real = Decoder.run

    def spy(self: Decoder, tokens: Any, plan: Any) -> Any:
        filler.append(len(tokens) - plan.wanted)
        return real(self, tokens, plan)

    monkeypatch.setattr(Decoder, "run", spy)
    hook = live.model.register_forward_pre_hook(
        lambda module, args, kwargs: fed.append(kwargs["input_ids"].numel()), with_kwargs=True
    )
    try:
        output = live.run(*QUESTIONS, controller=controller, beta=_beta(controller), **how)
    finally:
        hook.remove()
    branches = [branch for question in output.branches for branch in question]
    unfed = sum(b.finish_reason is not None for b in branches) + sum(t > 0 for b in branches for t in b.probe_tokens)
    cost = output.total_cost
    assert cost.total_tokens + output.discarded_tokens == sum(fed) - sum(filler) + unfed
    assert cost.prompt_tokens == sum(len(prompt_ids(live, question)) for question in QUESTIONS)
    assert cost.generated_tokens == sum(b.tokens for b in branches)
    assert cost.probe_tokens == sum(sum(b.probe_tokens) for b in branches)
    assert 0 <= cost.wasted_tokens <= cost.generated_tokens


def test_eager_attention_gives_the_same_branches() -> None:
    """Another attention implementation rounds differently; on this model no token flips."""
    eager, sdpa = make_live("qwen3_mixed", attention="eager"), make_live("qwen3_mixed")
    first, second = eager.run(*QUESTIONS), sdpa.run(*QUESTIONS)
    assert first.branches[0][0].token_ids == second.branches[0][0].token_ids
    assert first.answers == second.answers


def test_spans_give_what_stock_attention_gives(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    """The slow twin: rows gathered for transformers' own sdpa, one sequence a token, the same masks."""
    packed = live.run(*QUESTIONS, beta=0.2)
    monkeypatch.setattr("tts_generate.engine.decoder.knows_spans", lambda model: False)
    plain = live.run(*QUESTIONS, beta=0.2)
    assert packed.cost == plain.cost
    for ours, theirs in zip(packed.branches, plain.branches, strict=True):
        assert [b.token_ids for b in ours] == [b.token_ids for b in theirs]
        assert [b.probe_answers for b in ours] == [b.probe_answers for b in theirs]


def test_probes_that_read_with_their_branch_change_no_token(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU, where a row is read once for both; on these models the other last bits flip no token.

    Also where a prompt stands once, and where rows are few.
    """
    chosen: dict[str, Any] = {"controller": "cmc", "beta": 1.0}
    apart = live.run(*QUESTIONS, **chosen)
    together_read: set[int] = set()
    run = Decoder.run

    def look(decoder: Decoder, tokens: torch.Tensor, plan: Pass) -> torch.Tensor:
        for span in plan.spans:
            probing = plan.probing[span.tokens].reshape(span.rows, span.queries)
            together_read.update([span.queries] if (probing.any(1) & ~probing.all(1)).any() else [])
        return run(decoder, tokens, plan)

    monkeypatch.setattr(Decoder, "in_row", True)
    monkeypatch.setattr(Decoder, "run", look)
    for least, options in itertools.product((1, 128), ({}, {"max_rows": 5, "sync_every": 3})):
        together_read.clear()
        monkeypatch.setattr(shared, "LEAST", least)
        together = live.run(*QUESTIONS, **chosen, **options)
        assert said(together) == said(apart)
        assert together.cost == apart.cost
        assert 2 in together_read, "a branch's token and one of its probe's answer"
        assert max(together_read) > 2, "a branch's token and its probe's suffix"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_decodes(dtype: torch.dtype) -> None:
    output = make_live("llama", dtype=dtype).run(*QUESTIONS)
    assert len(output.answers) == 3


def test_behind_a_prompt_that_has_ended_the_thinking_a_branch_is_asked_at_once(qwen: Live) -> None:
    """As chat templates with `enable_thinking=False` write it: no second end is forced, and a box counts."""
    reader = Reader(qwen.tokenizer, AnswerFormat(max_probe_tokens=4))
    open_ids, closed_ids = (prompt_ids(qwen, text) for text in (QUESTIONS[0], QUESTIONS[0] + " </think>"))
    said = prompt_ids(qwen, "= 3 ;")
    boxed = [*said, *prompt_ids(qwen, "\\boxed{3}")]

    def branch(prompt: list[int], own: list[int]) -> Branch:
        return Branch(0, 0, prompt, thought=reader.thought(Prompt(prompt)), ids=own)

    forced = {
        where: reader.begin_probe(branch(ids, said)).forced  # type: ignore[union-attr]
        for where, ids in (("open", open_ids), ("closed", closed_ids))
    }
    assert forced["open"] == prompt_ids(qwen, "</think> \\boxed{")
    assert forced["closed"] == prompt_ids(qwen, "\\boxed{")
    assert isinstance(reader.begin_probe(branch(open_ids, boxed)), Probe)
    assert reader.begin_probe(branch(closed_ids, boxed)) == ProbeRecord(len(boxed), "3", 0, None)

    output = qwen.run(QUESTIONS[0] + " </think>", beta=0.2, answer_pattern="boxed")
    tokens = [n for branch in output.branches[0] for n in branch.probe_tokens]
    assert tokens
    assert max(tokens) == 1 + 4  # of the suffix, and said
