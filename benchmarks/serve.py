"""What the proxy adds to a request beside the server behind it: the same request straight to it and through the proxy.

    python benchmarks/serve.py benchmarks/results/serve.json

A stub stands upstream: it answers every completion with eight tokens, at once, or after as long as a short answer takes
to decode, so that 64 clients are not held up by two cores. The proxy is the command, with a controller of one branch,
so that each question is one request upstream. Requests go in turns, straight and through the proxy, over connections
that are kept; the overhead of a pair is the difference of their times. CPU is what the proxy's process takes.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import httpx2
import psutil
import typer
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

PAIRS, WARM = 500, 50
CLIENTS, ROUNDS, DECODING = 64, 10, 2.0
"""Clients at once, requests of each straight and through the proxy, and seconds that the stub takes for each."""
PROMPT, LENGTH = "Q: 3 + 4 ?", 64


def stub(port: int, decoding: float) -> None:
    """A completions server without a model."""

    async def models(request: Request) -> JSONResponse:
        return JSONResponse({"object": "list", "data": [{"id": "stub", "object": "model", "max_model_len": 4096}]})

    async def completions(request: Request) -> JSONResponse:
        body = await request.json()
        count = min(8, body["max_tokens"])
        if count > 1:
            await asyncio.sleep(decoding)
        choice = {"index": 0, "text": " \\boxed{7}", "finish_reason": "stop", "token_ids": list(range(5, 5 + count))}
        usage = {"prompt_tokens": len(body["prompt"]), "completion_tokens": count}
        return JSONResponse({"choices": [choice], "usage": usage})

    routes = [Route("/v1/models", models), Route("/v1/completions", completions, methods=["POST"])]
    uvicorn.run(Starlette(routes=routes), port=port, log_level="error", access_log=False)


@contextmanager
def started(*command: str) -> Iterator[subprocess.Popen[str]]:
    """A child process, ended afterwards."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"}
    with subprocess.Popen([sys.executable, *command], stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            yield process
        finally:
            process.terminate()


@contextmanager
def both(port: int, decoding: float) -> Iterator[tuple[str, str, psutil.Process]]:
    """The addresses of the stub and of a proxy before it, and the proxy's process."""
    upstream = f"http://127.0.0.1:{port}/v1"
    how = ["--controller", "self_consistency", "--set", "max_samples=1", "--tokenizer", "tiny", "--port", "0"]
    serve = ["-m", "tts_generate.cli", "serve", "--upstream", upstream, "--wait", "30", "--max-in-flight", "64", *how]
    with started(__file__, "--stub", str(port), "--decoding", str(decoding)), started(*serve) as proxy:
        assert proxy.stdout is not None
        found = re.search(r"http://\S+/v1", proxy.stdout.readline())
        assert found is not None
        yield upstream, found[0], psutil.Process(proxy.pid)


async def _asked(client: httpx2.AsyncClient, url: str, body: dict[str, Any]) -> float:
    """Milliseconds of one request."""
    start = time.perf_counter()
    response = await client.post(f"{url}/completions", json=body)
    assert response.status_code == 200, response.text
    return 1000 * (time.perf_counter() - start)


async def _in_turns(urls: tuple[str, str], count: int) -> list[tuple[float, float]]:
    """Milliseconds of requests of one client, straight and through the proxy."""
    bodies = (
        {"model": "stub", "prompt": list(range(5, 15)), "max_tokens": LENGTH},
        {"prompt": PROMPT, "max_tokens": LENGTH},
    )
    async with httpx2.AsyncClient(timeout=60) as client:
        return [
            (await _asked(client, urls[0], bodies[0]), await _asked(client, urls[1], bodies[1])) for _ in range(count)
        ]


def _told(pairs: list[tuple[float, float]], cpu: float) -> dict[str, Any]:
    over = sorted(through - straight for straight, through in pairs)
    return {
        "pairs": len(pairs),
        "straight_ms": statistics.median(straight for straight, _ in pairs),
        "through_ms": statistics.median(through for _, through in pairs),
        "overhead_ms": statistics.median(over),
        "overhead_p95_ms": over[int(0.95 * len(over))],
        "cpu_ms": 1000 * cpu / len(pairs),
    }


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


async def _one(port: int) -> dict[str, Any]:
    with both(port, 0.0) as (upstream, proxy, process):
        await _in_turns((upstream, proxy), WARM)
        before = _cpu(process)
        return _told(await _in_turns((upstream, proxy), PAIRS), _cpu(process) - before)


async def _many(port: int) -> dict[str, Any]:
    with both(port, DECODING) as (upstream, proxy, process):

        async def one(number: int) -> list[tuple[float, float]]:
            await asyncio.sleep(2 * DECODING * number / CLIENTS)  # they do not come in step
            return await _in_turns((upstream, proxy), ROUNDS)

        await _in_turns((upstream, proxy), 1)
        before = _cpu(process)
        each = await asyncio.gather(*[one(number) for number in range(CLIENTS)])
        return _told([pair for pairs in each for pair in pairs], _cpu(process) - before)


def main(
    out: Annotated[Path | None, typer.Argument(help="Where the result goes.")] = None,
    port: Annotated[int, typer.Option(help="Port of the stub.")] = 8197,
    stub_at: Annotated[int | None, typer.Option("--stub", help="Be the stub at this port.")] = None,
    decoding: Annotated[float, typer.Option(help="Seconds that the stub takes for an answer.")] = 0.0,
) -> None:
    """Measure, and write."""
    if stub_at is not None:
        return stub(stub_at, decoding)
    load = os.getloadavg()[0]
    result = {
        "format": "tts-serve/1",
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "load_before": load,
        "one": asyncio.run(_one(port)),
        "clients": CLIENTS,
        "decoding_s": DECODING,
        "many": asyncio.run(_many(port + 1)),
    }
    print(json.dumps(result, indent=2))
    if out is not None:
        out.write_text(json.dumps(result, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    typer.run(main)
