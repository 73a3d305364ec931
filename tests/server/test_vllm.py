"""A real vLLM, opt-in (`make vllm`): what the other tests believe of it, and its counts against ours."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from local_servers import ASKED, OPTIONS, QUESTIONS, free_port
from server_checks import assert_replays
from test_faults import patient
from vllm_servers import KEY, Vllm, started, vllm_serve

from tts_generate import ServerModel, tiny
from tts_generate.controller import Controller
from tts_generate.errors import InputError, ServerError
from tts_generate.evaluate import methods, sweep
from tts_generate.loading import load_controller
from tts_generate.replay import Recording
from tts_generate.server.failures import RefusedError

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.timeout(1800),
    pytest.mark.skipif("VLLM_PYTHON" not in os.environ, reason="VLLM_PYTHON names no python that has vLLM (make vllm)"),
]
ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "vllm.md"
CONTROLLERS = [
    load_controller("self_consistency", max_samples=6),
    load_controller("short_m_at_k", num_chains=6, votes=2),
    *(load_controller(name, beta=0.0) for name in ("asc", "cmc", "dynasor", "deepconf", "esc", "answer_stability")),
    load_controller("parallel_probe", num_chains=4, warm_up=1, patience=2, stability=3),
    load_controller("pace", beta=0.0, latency=0.0),
]
TOGETHER = {"SelfConsistency": 6, "DeepConf": 2, "ESC": 8}
"""Branches that are begun by one request, and read to their end: vLLM counts its prompt once for each."""


def blocks(kind: str) -> list[str]:
    """The blocks of the page, in order."""
    return re.findall(rf"```{kind}\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model, where the page's first blocks have been run; the environment was made before."""
    desk = tmp_path_factory.mktemp("vllm")
    (desk / "tools").symlink_to(ROOT / "tools")
    (desk / "build").mkdir()
    (desk / "build" / "vllm").symlink_to(Path(os.environ["VLLM_PYTHON"]).parents[1])
    subprocess.run(["bash", "-c", blocks("bash")[0]], cwd=desk, check=True)
    with contextlib.chdir(desk):
        exec(blocks("python")[0], {})
    return desk / "tiny-vllm"


@pytest.fixture(scope="module")
def vllm(folder: Path) -> Iterator[Vllm]:
    """The server that the page starts."""
    port, text = free_port(), blocks("bash")[1]
    assert "--port 8000" in text
    command = ["bash", "-c", text.replace("8000", str(port)).replace("1 build", "1 exec build")]
    with started(command, port, folder.parent / "log", folder.parent) as server:
        yield server.wait()


@pytest.fixture
def model(vllm: Vllm, tokenizer: Any) -> ServerModel:
    return ServerModel(vllm.url, tokenizer=tokenizer, api_key=KEY)


@pytest.mark.parametrize("seed", [None, 1], ids=["runs on", "seeds"])
@pytest.mark.parametrize("controller", CONTROLLERS, ids=str)
def test_what_vllm_decoded_replays_and_it_counts_as_we_do(
    model: ServerModel, vllm: Vllm, controller: Controller, seed: int | None
) -> None:
    before = vllm.counted()
    output = model.generate(QUESTIONS, controller=controller, seed=seed, **OPTIONS)
    counted = {name: count - before[name] for name, count in vllm.counted().items()}
    assert_replays(output, controller)
    usage, branches = output.usage, [branch for branches in output.branches for branch in branches]
    assert usage.dialect == "tokens"
    assert all(bool(branch.step_logprobs) == controller.reads_logprobs for branch in branches)
    looked = {"prompt": 1, "decoded": 1}  # at the beginning of the call
    again = TOGETHER.get(type(controller).__name__, 1) - 1 if seed is None else 0
    assert counted["prompt"] == usage.sent_tokens + again * output.total_cost.prompt_tokens + looked["prompt"]
    ahead = counted["decoded"] - usage.completion_tokens - looked["decoded"]
    called_off = usage.discarded_tokens > 0 or any(not branch.finish_reason for branch in branches)
    if seed is None:  # one that is held is called off too, and asked anew when it goes on
        called_off |= usage.requests > len(branches)
    assert 0 <= ahead <= (16 * len(branches) if called_off else 0)  # decoded before it noticed
    said = usage.completion_tokens - usage.discarded_tokens - output.total_cost.generated_tokens
    assert 0 <= said <= output.total_cost.probe_tokens
    if seed is not None:
        assert usage.cached_tokens == counted["cached"]


def test_a_recording_replays_and_sweeps_and_goes_on(model: ServerModel, tmp_path: Path) -> None:
    options = {**OPTIONS, "interval_tokens": 32}
    first = model.record(ASKED[:1], tmp_path / "s", branches=4, progress=False, min_p=0.05, **options)
    again = model.record(ASKED[:1], tmp_path / "s", branches=4, progress=False, min_p=0.05, **options)
    rows = again.trajectories()
    assert rows == first.trajectories()
    assert [row.branch for row in sorted(rows, key=lambda row: row.branch)] == [0, 1, 2, 3]
    assert all(row.token_ids and row.step_logprobs and row.probe_positions for row in rows if row.tokens > 32)
    assert all(position % 32 == 0 for row in rows for position in row.probe_positions if position < row.tokens)
    swept = sweep([Recording.from_store(tmp_path / "s")], methods(["asc"], [0.5], max_branches=4), 2)
    assert [row.tokens > 0 for row in swept.average] == [True]


def test_stop_strings_end_a_branch_wherever_its_steps_end(model: ServerModel, tokenizer: Any) -> None:
    stop = ["; a", "; b", "; c", "; d"]
    for seed, interval in ((None, 3), (1, 16)):
        options = {**OPTIONS, "interval_tokens": interval, "stop_strings": stop, "seed": seed}
        output = model.generate(QUESTIONS, controller=CONTROLLERS[1], **options)
        assert_replays(output, CONTROLLERS[1], interval)
        branches = [branch for branches in output.branches for branch in branches]
        assert "stop" in {branch.finish_reason for branch in branches}
        for branch in branches:
            texts = [tokenizer.decode(branch.token_ids[:end]) for end in (-1, None)]
            assert [any(each in text for each in stop) for text in texts] == [False, branch.finish_reason == "stop"]


def test_a_seed_draws_the_same_again(model: ServerModel) -> None:
    runs = [model.generate(QUESTIONS, controller=CONTROLLERS[1], seed=seed, **OPTIONS) for seed in (3, 3, 4)]
    assert runs[0].branches == runs[1].branches != runs[2].branches


def test_chats_and_texts(vllm: Vllm, model: ServerModel, tokenizer: Any) -> None:
    model.tokenizer.chat_template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    try:
        asked = model.generate([{"role": "user", "content": QUESTIONS[0]}], controller=CONTROLLERS[1], **OPTIONS)
    finally:
        model.tokenizer.chat_template = None
    assert asked.total_cost.prompt_tokens == len(tokenizer(QUESTIONS[0])["input_ids"])
    spoken = ServerModel(vllm.url, api_key=KEY).generate(QUESTIONS, controller=CONTROLLERS[1], **OPTIONS)
    assert spoken.usage.dialect == "text"
    assert_replays(spoken, CONTROLLERS[1])


def test_the_page(vllm: Vllm) -> None:
    """Its other blocks are what the server here was started by."""
    names: dict[str, Any] = {}
    exec(blocks("python")[1].replace("http://127.0.0.1:8000/v1", vllm.url), names)
    assert names["output"].finish_reason == ["answer"] * 4
    assert names["output"].usage.dialect == "tokens"


def test_what_is_wrong_is_said(vllm: Vllm, tokenizer: Any) -> None:
    for key in (None, "sk-wrong"):
        with pytest.raises(RefusedError, match=r"Unauthorized.*api_key="):
            ServerModel(vllm.url, tokenizer=tokenizer, api_key=key).generate(QUESTIONS[0], **OPTIONS)
    named = ServerModel(vllm.url, tokenizer=tokenizer, api_key=KEY, model="other")
    with pytest.raises(ServerError, match=r"'other'.*lists 'tiny'"):
        named.generate(QUESTIONS[0], **OPTIONS)
    model = ServerModel(vllm.url, tokenizer=tokenizer, api_key=KEY)
    with pytest.raises(InputError, match="beyond the server's context of 512"):
        model.generate(QUESTIONS[0], **{**OPTIONS, "max_new_tokens": 512})
    with pytest.raises(InputError, match=r"prompt '0'.*context of 512"):
        model.generate(" ".join([QUESTIONS[0]] * 60), **OPTIONS)


def test_several_engines_behind_one_address(folder: Path, tokenizer: Any) -> None:
    """vLLM's own data parallelism, with a cache for each engine; together they count what we do."""
    asked = [question.question for question in tiny.questions("test")[:8]]
    with vllm_serve(folder, free_port(), folder.parent / "several", "--data-parallel-size", "2") as server:
        server.wait()
        model = ServerModel(server.url, tokenizer=tokenizer, api_key=KEY, max_in_flight=64)
        output = model.generate(asked, controller=CONTROLLERS[0], **OPTIONS)
        text = urllib.request.urlopen(f"{server.root}/metrics", timeout=30).read().decode()
    assert_replays(output, CONTROLLERS[0])
    each = [float(n) for n in re.findall(r"^vllm:generation_tokens_total{.*engine=.*} (\S+)$", text, re.MULTILINE)]
    assert len(each) == 2
    assert min(each) > 0.2 * sum(each)
    assert sum(each) == output.usage.completion_tokens + 1, "and the one by which it was found out"


def test_a_second_server_is_taken_up_when_it_has_started_and_its_death_costs_nothing(
    vllm: Vllm, folder: Path, tokenizer: Any
) -> None:
    asked, controller = [question.question for question in tiny.questions("test")[:12]], CONTROLLERS[1]
    with vllm_serve(folder, free_port(), folder.parent / "second", "--no-enable-prefix-caching") as second:
        urls = [second.url, vllm.url]
        waits = patient(second.url, tokenizer=tokenizer, api_key=KEY, wait=900.0)
        early = waits.generate(QUESTIONS, controller=controller, **OPTIONS)  # it is still starting
        assert_replays(early, controller)
        assert second.counted()["cached"] == 0
        both = patient(urls, tokenizer=tokenizer, api_key=KEY, max_in_flight=4, retries=1)
        output = both.generate(asked, controller=controller, **OPTIONS)
        assert_replays(output, controller)
        assert min(output.usage.requests_by_url.values()) > 0.1 * output.usage.requests
        threading.Timer(2.0, second.process.kill).start()
        output = both.generate(asked * 3, controller=controller, **OPTIONS)
    assert_replays(output, controller)
    assert output.usage.retries > 0
    assert output.usage.requests_by_url[vllm.url] > 0
