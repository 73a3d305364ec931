"""What the server backend does with requests in flight and endpoints: time, requests, tokens sent again.

    python benchmarks/server.py benchmarks/results/server.json

Against two `transformers serve` processes and one server that speaks token ids (`tools/token_server.py`, which decodes
waiting requests together), all with the shipped tiny model on this machine, so client, servers and all share its cores.
What is compared runs in turn, twice; the better of each counts.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import transformers
import typer
from transformers import AutoTokenizer

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "server"))
from local_servers import OPTIONS, Proxy, free_port, transformers_serve  # noqa: E402

from tts_generate import ServerModel, tiny  # noqa: E402
from tts_generate.loading import load_controller  # noqa: E402

INTERVAL = 32
"""Tokens of one step."""


@contextlib.contextmanager
def token_process(batch: int) -> Iterator[str]:
    """The server that speaks token ids, in a process of its own."""
    port = free_port()
    script = ROOT / "tools" / "token_server.py"
    command = [sys.executable, str(script), "--port", str(port), "--batch", str(batch)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().split()[-1]
        finally:
            process.kill()


def measured(
    urls: list[str], controller: Any, questions: int, tokenizer: Any, room: int, seed: int = 0
) -> dict[str, Any]:
    """One call: its seconds, what it took at the servers, and the client's own share of the time."""
    model = ServerModel(urls, tokenizer=tokenizer, max_in_flight=room)
    asked = [question.question for question in tiny.questions("test")[:questions]]
    options = {**OPTIONS, "interval_tokens": INTERVAL}
    start, busy = time.perf_counter(), time.process_time()
    output = model.generate(asked, controller=controller, seed=seed, **options)
    seconds, own = time.perf_counter() - start, time.process_time() - busy
    usage, cost = output.usage, output.total_cost
    decoded = cost.generated_tokens + cost.probe_tokens
    return {
        "endpoints": len(urls),
        "max_in_flight": room,
        "seconds": seconds,
        "client_cpu_share": own / seconds,
        "client_cpu_ms_per_request": 1000 * own / usage.requests,
        "requests": usage.requests,
        "retries": usage.retries,
        "most_in_flight": usage.most_in_flight,
        "generated_tokens": cost.generated_tokens,
        "probe_tokens": cost.probe_tokens,
        "sent_tokens": usage.sent_tokens,
        "sent_over_decoded": usage.sent_tokens / decoded,
        "seconds_per_1000_tokens": 1000 * seconds / decoded,
        "finish_reason": sorted(set(output.finish_reason)),
    }


def main(out: Annotated[Path, typer.Argument(help="JSON file to write.")]) -> None:
    """Measure everything and write one JSON file."""
    tokenizer = AutoTokenizer.from_pretrained(tiny.path())
    fixed = load_controller("self_consistency", max_samples=8)
    rows: dict[str, Any] = {}
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        logs = [Path(folder) / f"log{n}" for n in range(2)]
        urls = [stack.enter_context(transformers_serve(log)) for log in logs]
        measured(urls, fixed, 1, None, 4)  # the first requests of a process are slow
        pairs = [(measured(urls[:1], fixed, 2, None, 16), measured(urls, fixed, 2, None, 8)) for _ in range(2)]
        rows["transformers_1_endpoint"], rows["transformers_2_endpoints"] = _better(pairs)
        rows["transformers_cmc"] = measured(urls, "cmc", 3, None, 8)
        with Proxy(urls[0], lambda n: "500" if n % 10 == 5 else "") as proxy:
            rows["transformers_1_in_10_fails"] = measured([proxy.url, urls[1]], "cmc", 3, None, 8)
    with token_process(16) as url:
        measured([url], fixed, 1, tokenizer, 4)
        pairs = [(measured([url], fixed, 2, tokenizer, 1), measured([url], fixed, 2, tokenizer, 16)) for _ in range(2)]
        rows["tokens_1_in_flight"], rows["tokens_16_in_flight"] = _better(pairs)
        rows["tokens_cmc"] = measured([url], "cmc", 3, tokenizer, 16)
    result = {
        "format": "tts-benchmark/1",
        "cores": os.cpu_count(),
        "load_before": load,
        "interval_tokens": INTERVAL,
        "versions": {"transformers": transformers.__version__},
        "runs": rows,
        "speed_of_2_endpoints_over_1": _pace(rows["transformers_1_endpoint"]) / _pace(rows["transformers_2_endpoints"]),
        "speed_of_16_in_flight_over_1": _pace(rows["tokens_1_in_flight"]) / _pace(rows["tokens_16_in_flight"]),
    }
    out.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    print(json.dumps(result, indent=1))


def _better(pairs: list[tuple[dict[str, Any], dict[str, Any]]]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Of runs that took turns, the better one of each."""
    return min((one for one, _ in pairs), key=_pace), min((other for _, other in pairs), key=_pace)


def _pace(row: dict[str, Any]) -> float:
    """Seconds that a thousand tokens take."""
    return float(row["seconds_per_1000_tokens"])


if __name__ == "__main__":
    typer.run(main)
