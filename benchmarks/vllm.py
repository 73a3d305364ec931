"""Against what a user of vLLM does today, one request of n = 64 and a vote: tokens and seconds on a real vLLM.

    VLLM_PYTHON=build/vllm/bin/python python benchmarks/vllm.py benchmarks/results/vllm.json

The server is started here, on this machine's CPU, with the shipped tiny model in the shape that vLLM takes
(`tiny.export`). Client and server share the machine's cores. Also measured: how many tokens are sent for each that is
decoded, where branches run on and where each step is a request of its own (which a seed asks for).
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import httpx2
import typer

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "server"))
from local_servers import OPTIONS, free_port  # noqa: E402
from vllm_servers import KEY, Vllm, vllm_serve  # noqa: E402

from tts_generate import ServerModel, tiny  # noqa: E402
from tts_generate.answers import AnswerFormat  # noqa: E402
from tts_generate.loading import DEFAULT_CONTROLLER, load_controller  # noqa: E402
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
MOST = 512
"""Requests in flight, as many as the server takes at once."""


def voted(server: Vllm, tokenizer: Any, asked: Sequence[Question]) -> tuple[list[str | None], int]:
    """One request of n for each question, all at once, and a vote: the answers, and the tokens decoded."""
    read = AnswerFormat()

    async def one(client: httpx2.AsyncClient, question: Question) -> tuple[str | None, int]:
        body = {"model": "tiny", "prompt": tokenizer(question.question)["input_ids"], "n": BRANCHES}
        body |= {"max_tokens": OPTIONS["max_new_tokens"], "temperature": OPTIONS["temperature"]}
        told = (await client.post(f"{server.url}/completions", json=body)).json()
        found = [read.find(choice["text"], ended=choice["finish_reason"] == "stop") for choice in told["choices"]]
        votes = Counter(answer for answer in found if answer is not None).most_common(1)
        return votes[0][0] if votes else None, told["usage"]["completion_tokens"]

    async def every() -> list[tuple[str | None, int]]:
        headers = {"authorization": f"Bearer {KEY}"}
        async with httpx2.AsyncClient(headers=headers, timeout=600) as client:
            return await asyncio.gather(*[one(client, question) for question in asked])

    answers = asyncio.run(every())
    return [answer for answer, _ in answers], sum(tokens for _, tokens in answers)


def controlled(
    server: Vllm, tokenizer: Any, asked: Sequence[Question], method: Any, interval: int = INTERVAL, seed: Any = None
) -> tuple[list[str | None], dict[str, Any]]:
    """One call of ours: the answers, and what it took."""
    model = ServerModel(server.url, tokenizer=tokenizer, api_key=KEY, max_in_flight=min(MOST, BRANCHES * len(asked)))
    options = {**OPTIONS, "interval_tokens": interval, "seed": seed}
    output = model.generate([question.question for question in asked], controller=method, **options)
    usage, cost = output.usage, output.total_cost
    return output.answers, {
        "decoded_tokens": usage.completion_tokens,
        "discarded_tokens": usage.discarded_tokens,
        "probe_tokens": cost.probe_tokens,
        "sent_tokens": usage.sent_tokens,
        "requests": usage.requests,
        "sent_over_decoded": usage.sent_tokens / usage.completion_tokens,
    }


def measured(server: Vllm, tokenizer: Any, asked: Sequence[Question], in_flight: int, method: Any) -> dict[str, Any]:
    """All questions by one method, so many at a time; the server's own counts beside ours."""
    before, start = server.counted(), time.perf_counter()
    answers: list[str | None] = []
    for first in range(0, len(asked), in_flight):
        some = asked[first : first + in_flight]
        answers += (
            voted(server, tokenizer, some)[0] if method is None else controlled(server, tokenizer, some, method)[0]
        )
    seconds, after = time.perf_counter() - start, server.counted()
    return {
        "seconds": seconds,
        "right": sum(answer == question.gold_answer for answer, question in zip(answers, asked, strict=True)),
        **{f"server_{name}": after[name] - before[name] for name in after},
    }


def main(
    out: Annotated[Path, typer.Argument(help="JSON file to write.")],
    questions: Annotated[int, typer.Option(help="Questions asked, all at once and eight at once.")] = 64,
    alone: Annotated[int, typer.Option(help="The first so many of them, one at a time.")] = 8,
) -> None:
    """Measure everything and write one JSON file."""
    tokenizer, asked, load = tiny.load()[1], tiny.questions("test")[:questions], os.getloadavg()[0]
    result: dict[str, Any] = {"format": "tts-benchmark/1", "cores": os.cpu_count(), "load_before": load}
    result |= {"questions": questions, "alone": alone, "branches": BRANCHES, "interval_tokens": INTERVAL}
    result["in_flight"] = {}
    with tempfile.TemporaryDirectory() as folder:
        model = tiny.export(Path(folder) / "tiny")
        options = ("--stream-interval", "8", "--max-num-batched-tokens", "32768", "--max-num-seqs", str(MOST))
        with vllm_serve(model, free_port(), Path(folder) / "log", *options) as server:
            server.wait()
            voted(server, tokenizer, asked[:1])  # the first requests of a process are slow
            for in_flight in (questions, 8, 1):
                these = asked[:alone] if in_flight == 1 else asked
                rows = {"vote": measured(server, tokenizer, these, in_flight, None)}
                for name, method in METHODS.items():
                    rows[name] = measured(server, tokenizer, these, in_flight, method)
                    rows[name]["tokens_saved"] = 1 - rows[name]["server_decoded"] / rows["vote"]["server_decoded"]
                    rows[name]["seconds_over_vote"] = rows[name]["seconds"] / rows["vote"]["seconds"]
                result["in_flight"][str(in_flight)] = rows
                print(in_flight, json.dumps(rows), flush=True)
            steps: dict[str, Any] = {}
            for name, method in (("default", DEFAULT_CONTROLLER), ("cmc", "cmc")):
                for interval in STEPS:
                    for kind, seed in (("runs_on", None), ("stepwise", 1)):
                        took = controlled(server, tokenizer, asked[:2], method, interval, seed)[1]
                        steps.setdefault(name, {}).setdefault(f"steps_of_{interval}", {})[kind] = took
            result["sent"] = steps
    out.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    print(json.dumps(steps, indent=1))


if __name__ == "__main__":
    typer.run(main)
