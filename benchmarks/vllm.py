"""Against what a user of vLLM does today, one request of n = 64 and a vote: tokens and seconds on a real vLLM.

    VLLM_PYTHON=build/vllm/bin/python python benchmarks/vllm.py benchmarks/results/vllm.json

The server is started here, on this machine's CPU, with the shipped tiny model in the shape that vLLM takes
(`tiny.export`). Client and server share the machine's cores. Also measured: how many tokens are sent for each that is
decoded, where branches run on and where each step is a request of its own (which a seed asks for).

With `--model` a real model is asked instead, in bfloat16, in a chat like Qwen's; with `--plain` (for
SmolLM2-135M-Instruct) it is shown plain text, and a stop string ends a branch. With `--profile` the server is timed by
`tts-generate profile --server`, and what a recording made there predicts is set beside what calls take.
Either puts its section into the file, and leaves the others as they are.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import httpx2
import typer

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "server"))
from local_servers import OPTIONS, free_port  # noqa: E402
from vllm_servers import KEY, Vllm, vllm_serve  # noqa: E402

from tts_generate import ServerModel, ServerOutput, tiny  # noqa: E402
from tts_generate.answers import AnswerFormat  # noqa: E402
from tts_generate.controller import Controller  # noqa: E402
from tts_generate.engine.predict import predict  # noqa: E402
from tts_generate.live.rows import suited  # noqa: E402
from tts_generate.loading import DEFAULT_CONTROLLER, held_within, load_controller  # noqa: E402
from tts_generate.profile import Profile  # noqa: E402
from tts_generate.publish.live import replay_of, same_episodes  # noqa: E402
from tts_generate.trajectories import Question  # noqa: E402

BRANCHES, INTERVAL = 64, 32
METHODS: dict[str, Any] = {
    "default": DEFAULT_CONTROLLER,
    "cmc": "cmc",
    "asc": load_controller("asc", max_samples=BRANCHES),
    "short_m_at_k": "short_m_at_k",
    "self_consistency": load_controller("self_consistency", max_samples=BRANCHES),
}
STEPS = (16, 32, 64)
TINY = {**OPTIONS, "interval_tokens": INTERVAL}
RECORDED = 32
"""Branches of a question in the recording that predicts seconds."""
PLAIN = {
    "interval_tokens": 16, "max_new_tokens": 64, "temperature": 0.7, "top_p": 0.95, "stop_strings": ["\nQ:"],
}  # fmt: skip
"""For a model that is shown questions and answers, and goes on with more of them."""
CHAT = {"interval_tokens": 32, "max_new_tokens": 256, "temperature": 0.7, "top_p": 0.95}
REAL_BRANCHES, REAL_QUESTIONS = 32, 8
"""Of a real model at most."""
MOST = 512
"""Requests in flight, as many as the server takes at once."""


def voted(
    server: Vllm, tokenizer: Any, asked: Sequence[Question], options: dict[str, Any], branches: int
) -> list[str | None]:
    """One request of n for each question, all at once, and a vote: the answers."""
    read = AnswerFormat()
    sampling = {name: options[name] for name in ("temperature", "top_p") if name in options}

    async def one(client: httpx2.AsyncClient, question: Question) -> str | None:
        body = {"model": "tiny", "prompt": tokenizer(question.question)["input_ids"], "n": branches}
        body |= {"max_tokens": options["max_new_tokens"], "stop": options.get("stop_strings"), **sampling}
        told = (await client.post(f"{server.url}/completions", json=body)).json()
        found = [read.find(choice["text"], ended=choice["finish_reason"] == "stop") for choice in told["choices"]]
        votes = Counter(answer for answer in found if answer is not None).most_common(1)
        return votes[0][0] if votes else None

    async def every() -> list[str | None]:
        headers = {"authorization": f"Bearer {KEY}"}
        async with httpx2.AsyncClient(headers=headers, timeout=1800) as client:
            return await asyncio.gather(*[one(client, question) for question in asked])

    return asyncio.run(every())


def controlled(
    server: Vllm, tokenizer: Any, asked: Sequence[Question], method: Any, options: dict[str, Any], branches: int
) -> tuple[ServerOutput, Controller]:
    """One call of ours, and the controller as it suits the room that there is."""
    room = min(MOST, branches * len(asked))
    model = ServerModel(server.url, tokenizer=tokenizer, api_key=KEY, max_in_flight=room)
    controller = suited(held_within(load_controller(method), branches), room, len(asked))
    return model.generate([question.question for question in asked], controller=controller, **options), controller


def took(output: ServerOutput) -> dict[str, Any]:
    """What a call took by our own account."""
    usage, cost = output.usage, output.total_cost
    return {
        "decoded_tokens": usage.completion_tokens,
        "discarded_tokens": usage.discarded_tokens,
        "probe_tokens": cost.probe_tokens,
        "sent_tokens": usage.sent_tokens,
        "requests": usage.requests,
        "sent_over_decoded": usage.sent_tokens / usage.completion_tokens,
    }


def measured(
    server: Vllm, tokenizer: Any, asked: Sequence[Question], in_flight: int, method: Any,
    options: dict[str, Any] = TINY, branches: int = BRANCHES,
) -> dict[str, Any]:  # fmt: skip
    """All questions by one method, so many at a time; the server's own counts beside ours."""
    before, start = server.counted(), time.perf_counter()
    answers: list[str | None] = []
    calls = []
    for first in range(0, len(asked), in_flight):
        some = asked[first : first + in_flight]
        if method is None:
            answers += voted(server, tokenizer, some, options, branches)
        else:
            calls.append(controlled(server, tokenizer, some, method, options, branches))
            answers += calls[-1][0].answers
    seconds, after = time.perf_counter() - start, server.counted()
    ours = {
        "told_decoded": sum(output.usage.completion_tokens for output, _ in calls) + len(calls),  # a look for each
        "replayed": sum(
            sum(same_episodes(output, replay_of(output, controller, options["interval_tokens"])))
            for output, controller in calls
        ),
    }
    return {
        "seconds": seconds,
        "right": sum(answer == question.gold_answer for answer, question in zip(answers, asked, strict=True)),
        **{f"server_{name}": after[name] - before[name] for name in after},
        **(ours if calls else {}),
    }


def compared(rows: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """With what each saves of the vote."""
    vote = rows["vote"]
    for name, row in rows.items():
        if name != "vote":
            row["tokens_saved"] = 1 - row["server_decoded"] / vote["server_decoded"]
            row["seconds_over_vote"] = row["seconds"] / vote["seconds"]
    return rows


@contextlib.contextmanager
def served(folder: Path | None, *options: str) -> Iterator[Vllm]:
    """A server with a model, or with the tiny one."""
    with tempfile.TemporaryDirectory() as made:
        model = tiny.export(Path(made) / "tiny") if folder is None else folder
        options = ("--stream-interval", "8", "--max-num-batched-tokens", "32768", *options)
        with vllm_serve(model, free_port(), Path(made) / "log", *options) as server:
            yield server.wait()


def votes(questions: int, alone: int) -> dict[str, Any]:
    """The tiny model: seconds and tokens of every method, and tokens sent for each decoded."""
    tokenizer, asked = tiny.load()[1], tiny.questions("test")[:questions]
    result: dict[str, Any] = {"questions": questions, "alone": alone, "branches": BRANCHES}
    result |= {"interval_tokens": INTERVAL, "in_flight": {}, "sent": {}}
    with served(None, "--max-num-seqs", str(MOST)) as server:
        voted(server, tokenizer, asked[:1], TINY, BRANCHES)  # the first requests of a process are slow
        for in_flight in (questions, 8, 1):
            these = asked[:alone] if in_flight == 1 else asked
            ways = {"vote": None, **METHODS}
            rows = {name: measured(server, tokenizer, these, in_flight, method) for name, method in ways.items()}
            result["in_flight"][str(in_flight)] = compared(rows)
            print(in_flight, json.dumps(rows), flush=True)
        for name, method in (("default", DEFAULT_CONTROLLER), ("cmc", "cmc")):
            for interval in STEPS:
                for kind, seed in (("runs_on", None), ("stepwise", 1)):
                    options = {**TINY, "interval_tokens": interval, "seed": seed}
                    output, _ = controlled(server, tokenizer, asked[:2], method, options, BRANCHES)
                    result["sent"].setdefault(name, {}).setdefault(f"steps_of_{interval}", {})[kind] = took(output)
    return result


def real(folder: Path, questions: int, plain: bool) -> dict[str, Any]:
    """A real model: the same methods, whether each episode replays, and its tokens by vLLM's count and by ours."""
    from real_live import EXAMPLES, TEMPLATE
    from real_live import questions as questions_of
    from transformers import AutoTokenizer

    tokenizer, options = AutoTokenizer.from_pretrained(folder), PLAIN if plain else CHAT
    shown = "".join(f"Q: {question}\nA: {answer}\n" for question, answer in EXAMPLES) + "Q: {question}\nA:"
    asked = questions_of("aside", questions, shown if plain else TEMPLATE)
    rows: dict[str, dict[str, Any]] = {}
    with served(folder, "--dtype", "bfloat16", "--max-model-len", "1024", "--max-num-seqs", str(MOST)) as server:
        voted(server, tokenizer, asked[:1], {**options, "max_new_tokens": 2}, 2)
        for name in ("vote", "default", "cmc", *(["asc"] if plain else [])):  # a chat's branches are too long for it
            rows[name] = measured(
                server, tokenizer, asked, questions, METHODS.get(name), options, branches=REAL_BRANCHES
            )
            print(name, json.dumps(rows[name]), flush=True)
    return {
        "questions": questions, "branches": REAL_BRANCHES, "dtype": "bfloat16", **options,
        "episodes": questions * (len(rows) - 1), "replayed": sum(row.get("replayed", 0) for row in rows.values()),
        "methods": compared(rows), "load_after": os.getloadavg()[0],
    }  # fmt: skip


def profiled(questions: int) -> dict[str, Any]:
    """The tiny model's server timed from outside, and seconds of calls: predicted from a recording, and measured."""
    tokenizer, asked = tiny.load()[1], tiny.questions("test")[:questions]
    result: dict[str, Any] = {"questions": questions, "branches": RECORDED, "rows": BRANCHES, "calls": []}
    with served(None, "--max-num-seqs", str(MOST)) as server, tempfile.TemporaryDirectory() as made:
        command = ["profile", "--server", server.url, "--tokenizer", "tiny", "--max-in-flight", str(BRANCHES)]
        command += ["--extra-body", '{"ignore_eos": true}', "--api-key", KEY, "--out", f"{made}/profile.json"]
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "tts_generate.cli", *command], check=True)
        profile = Profile.load(f"{made}/profile.json")
        result |= {"profile_seconds": time.perf_counter() - start, "error": profile.error}
        model = ServerModel(server.url, tokenizer=tokenizer, api_key=KEY, max_in_flight=BRANCHES)
        store = model.record(asked, Path(made) / "store", branches=RECORDED, progress=False, **TINY)
        for name, prompts in itertools.product(("self_consistency", "pace"), (1, questions)):
            controller = held_within(suited(load_controller(name), BRANCHES, prompts), RECORDED)
            said = predict(store, controller, profile, prompts=prompts, max_rows=BRANCHES, first_shuffle=None)
            start = time.perf_counter()
            for first in range(0, questions, prompts):
                some = [question.question for question in asked[first : first + prompts]]
                model.generate(some, controller=controller, **TINY)
            seconds, predicted = time.perf_counter() - start, float(said.calls.sum())
            row = {"controller": name, "prompts": prompts, "measured": seconds, "predicted": predicted}
            result["calls"].append({**row, "error": predicted / seconds - 1})
            print(json.dumps(result["calls"][-1]), flush=True)
    return result


def main(
    out: Annotated[Path, typer.Argument(help="JSON file to write.")],
    questions: Annotated[int, typer.Option(help="Questions asked, all at once and eight at once.")] = 64,
    alone: Annotated[int, typer.Option(help="The first so many of them, one at a time.")] = 8,
    model: Annotated[Path | None, typer.Option(help="Ask this model, and the others not.")] = None,
    plain: Annotated[bool, typer.Option(help="Show that model plain questions and answers, without a chat.")] = False,
    profile: Annotated[bool, typer.Option(help="Time the server, and nothing else.")] = False,
) -> None:
    """Measure, and write one JSON file, or a section of it."""
    result = json.loads(out.read_text("utf-8")) if model or profile else {"format": "tts-benchmark/1"}
    load = os.getloadavg()[0]
    if model:
        told = real(model, min(questions, REAL_QUESTIONS), plain)
        result.setdefault("real", {})[model.name] = {"load_before": load, **told}
    elif profile:
        result["profile"] = {"load_before": load, **profiled(alone)}
    else:
        result |= {"cores": os.cpu_count(), "load_before": load, **votes(questions, alone)}
    out.write_text(json.dumps(result, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    typer.run(main)
