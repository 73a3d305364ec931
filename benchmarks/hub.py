"""Measures controllers on the Hub: reloaded decisions, load times, requests, hostile repos; against a local server.

    python benchmarks/hub.py [OUT.json]

The server is `tests/hub/local_hub`, the clients are the real ones; what travels takes no time here.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import platform
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests" / "hub"), str(ROOT / "tests" / "hub" / "hostile"), str(ROOT / "tests" / "search")]
from hostile_repos import REPOS  # noqa: E402
from hub_checks import forget, put, read  # noqa: E402
from local_hub import HubServer  # noqa: E402
from search_stores import make_store  # noqa: E402
from typer.testing import CliRunner  # noqa: E402

import tts_generate  # noqa: E402
from tts_generate import load_controller, tiny  # noqa: E402
from tts_generate.cli import app  # noqa: E402
from tts_generate.errors import TTSError  # noqa: E402
from tts_generate.publish import publish  # noqa: E402
from tts_generate.replay import replay  # noqa: E402
from tts_generate.testing import random_trajectories, recording_of  # noqa: E402

CONTROLLERS = ("asc", "cmc", "esc", "parallel_probe", "dynasor")
RECORDINGS = 100
"""Random ones of each controller, of some questions each."""
REPEATS = 20


def published(hub: HubServer, folder: Path) -> dict[str, str]:
    """The code of shipped controllers, published under other names, as somebody's own; the commits."""
    commits = {}
    for name in CONTROLLERS:
        mine = Path(shutil.copytree(ROOT / "controllers" / name, folder / name))
        commits[name] = publish(mine, f"user/{name}").commit
    return commits


def decisions(commits: dict[str, str]) -> dict[str, int]:
    """Random episodes that a reloaded controller decides, event by event, as the one that was published."""
    episodes = equal = 0
    for name, commit in commits.items():
        for number in range(RECORDINGS):
            rng = random.Random(f"{name} {number}")
            recording, beta = recording_of(random_trajectories(rng, 64)), rng.random()
            ours = load_controller(name, beta=beta)
            theirs = load_controller(f"user/{name}", revision=commit, beta=beta, trust_remote_code=True)
            assert type(ours) is not type(theirs)
            pairs = zip(*(replay(recording, c, shuffles=1, traces=True).traces for c in (ours, theirs)), strict=True)
            same = [one.events == two.events for one, two in pairs]
            episodes += len(same)
            equal += sum(same)
    return {"controllers": len(commits), "episodes": episodes, "equal": equal}


def load_times(hub: HubServer, home: Path, commit: str) -> dict[str, Any]:
    """Milliseconds to load a pinned controller from the cache: in new processes after their imports, and here."""
    code = (
        "import sys, time, tts_generate.hub.fetch; from tts_generate import load_controller; t = time.perf_counter(); "
        f"load_controller('user/cmc', revision='{commit}', trust_remote_code=True); "
        "print(1000 * (time.perf_counter() - t), 'torch' in sys.modules)"
    )
    hub.forget_requests()
    first, torch = [], []
    for _ in range(REPEATS):
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, **hub.environ(home)},
        )
        milliseconds, loaded = done.stdout.split()
        first.append(float(milliseconds))
        torch.append(loaded == "True")
    again, confined = [], []
    for _ in range(REPEATS):
        start = time.perf_counter()
        load_controller("user/cmc", revision=commit, trust_remote_code=True)
        again.append(1000 * (time.perf_counter() - start))
        start = time.perf_counter()
        load_controller("user/cmc", revision=commit, sandbox=True)
        confined.append(1000 * (time.perf_counter() - start))
    return {
        "first_ms": {"median": statistics.median(first), "worst": max(first)},
        "again_ms": {"median": statistics.median(again), "worst": max(again)},
        "sandbox_ms": {"median": statistics.median(confined), "first": confined[0]},
        "torch_loaded": any(torch),
        "requests": len(hub.requests()),
    }


def requests_of_generate(hub: HubServer, commit: str) -> dict[str, int]:
    """Requests of a `generate` call with a pinned controller: not cached, cached, by its recipe on a stock model."""
    model, tokenizer = tiny.load()
    stock, _ = tiny.load()
    tts_generate.enable(model, tokenizer=tokenizer)
    batch = tokenizer([tiny.questions("test")[0].question], return_tensors="pt")
    inputs = {
        "input_ids": batch["input_ids"],
        "attention_mask": batch["attention_mask"],
        "max_new_tokens": 20,
        "seed": 1,
    }
    ours = {"strategy": "autotts", "controller": "user/esc", "revision": commit, "trust_remote_code": True}
    recipe = {"custom_generate": "user/esc", "revision": commit, "trust_remote_code": True}
    shutil.rmtree(Path(os.environ["HF_HOME"]) / "hub" / "models--user--esc")
    forget()
    counts = {}
    for name, chosen, how in (
        ("not_cached", model, ours),
        ("cached", model, ours),
        ("recipe_not_cached", stock, recipe),
        ("recipe_cached", stock, recipe),
    ):
        hub.forget_requests()
        chosen.generate(**inputs, **how)
        counts[name] = len(hub.requests())
    return counts


def hostile(hub: HubServer) -> dict[str, int]:
    """Hostile repos refused, by an error of ours that names the file, and those whose code ran."""
    refused = named = ran = 0
    for number, repo in enumerate(REPOS):
        commit = put(hub, f"user/hostile{number}", repo.files)
        heard = io.StringIO()
        try:
            with contextlib.redirect_stdout(heard):
                load_controller(f"user/hostile{number}", revision=commit, trust_remote_code=True)
        except TTSError as error:
            refused += 1
            named += repo.file in str(error)
        ran += "RAN" in heard.getvalue()
    return {"repos": len(REPOS), "refused": refused, "named": named, "ran": ran}


def publishing(hub: HubServer, folder: Path) -> dict[str, Any]:
    """Seconds and requests of publishing a controller that is measured already, and of a search that publishes."""
    store = make_store(folder / "store", seed=1)
    mine = load_controller("esc", beta=0.3, max_samples=12).save_pretrained(folder / "mine")
    publish(mine, "user/mine", stores=[store], betas=(0.0, 1.0), shuffles=2)
    repo = hub.repo("user/mine")
    for path in repo.commits[repo.head].files:
        if path != ".gitattributes":
            (mine / path).parent.mkdir(parents=True, exist_ok=True)
            (mine / path).write_bytes(repo.read(path))
    hub.forget_requests()
    start = time.perf_counter()
    publish(mine, "user/other")
    seconds, requests = time.perf_counter() - start, len(hub.requests())
    command = [
        "search",
        str(store),
        "--out",
        str(folder / "run"),
        "--minutes",
        "1",
        "--rounds",
        "1",
        "--push-to",
        "user/found",
    ]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    found = load_controller(f"user/found@{hub.repo('user/found').head}", beta=0.5)
    same = found.knobs == load_controller(folder / "run" / "best", beta=0.5).knobs
    return {"seconds": seconds, "requests": requests, "files": len(read(mine)), "search_push_to_loads": same}


def main(out: Path) -> None:
    """Measure, print, and write one JSON file."""
    with tempfile.TemporaryDirectory() as name, HubServer() as hub:
        home, folder = Path(name) / "home", Path(name)
        with hub.clients(home):
            commits = published(hub, folder)
            forget()
            result = {
                "format": "tts-benchmark/1",
                "machine": {"cpu": platform.machine(), "cores": os.cpu_count(), "python": platform.python_version()},
                "decisions": decisions(commits),
                "load": load_times(hub, home, commits["cmc"]),
                "generate_requests": requests_of_generate(hub, commits["esc"]),
                "hostile": hostile(hub),
                "publish": publishing(hub, folder),
            }
    text = json.dumps(result, indent=1) + "\n"
    out.write_text(text, "utf-8")
    sys.stdout.write(text)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Measure controllers on the Hub.")
    parser.add_argument("out", nargs="?", type=Path, default=ROOT / "benchmarks" / "results" / "hub.json")
    main(parser.parse_args().out)
