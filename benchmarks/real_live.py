"""A real language model on a device: its recordings, its profile, and live runs on questions kept aside.

    python benchmarks/real_live.py MODEL [--device cuda] [--dtype bfloat16] [--rows 1024] [--out build/real_live]

MODEL is a folder of Qwen2.5-Coder-0.5B-Instruct. Both sets of `real_questions.jsonl` are recorded, 64 branches a
question; then the questions kept aside are answered live, all in one call, and some in calls of eight and alone.
Everything is written as it is done, and not done again by a further run; `benchmarks/real_model.py` reads it. Needs
the engine alone: no numba, datasets or reasoning-gym.
"""

from __future__ import annotations

import json
import platform
import time
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
import transformers
import typer
from engine import lengths
from real_questions import FILE
from transformers import AutoModelForCausalLM, AutoTokenizer

from tts_generate.answers import AnswerFormat
from tts_generate.controller import Controller
from tts_generate.engine import enable, record
from tts_generate.engine.profiling import measure
from tts_generate.loading import held_within, load_controller
from tts_generate.publish.live import prompts, replay_of, same_episodes
from tts_generate.trajectories import Question

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "build" / "real_live"
BRANCHES, STEP, MOST, SEED = 64, 32, 256, 0
SAMPLING = {"max_new_tokens": MOST, "temperature": 0.7, "top_p": 0.95}
BETA = 0.5
_TURN = "<|im_start|>user\n%s<|im_end|>\n<|im_start|>assistant\n"
EXAMPLES = (
    (
        "A baker fills 7 boxes with 6 rolls each and eats 5 rolls. How many rolls are left?",
        "First, how many rolls the boxes hold: there are 7 boxes with 6 rolls each, so 7 * 6 = 42 rolls.\n"
        "Then the baker eats 5 of them, so 42 - 5 = 37 rolls are left.\nThe answer is \\boxed{37}.",
    ),
    (
        "Ann has 48 marbles. She gives 25% of them to Ben and then buys 3 bags of 15 marbles. "
        "How many does she have now?",
        "First, what she gives away: 25% of 48 is 48 * 0.25 = 12 marbles, so she keeps 48 - 12 = 36.\n"
        "Next, what she buys: 3 bags of 15 marbles are 3 * 15 = 45 marbles.\nTogether she has 36 + 45 = 81 marbles.\n"
        "The answer is \\boxed{81}.",
    ),
    (
        "Solve for x: 12*x + 30 = 282",
        "First, take 30 from both sides: 12*x = 282 - 30 = 252.\nThen divide both sides by 12: x = 252 / 12 = 21.\n"
        "The answer is \\boxed{21}.",
    ),
)
TEMPLATE = (
    "<|im_start|>system\nYou solve problems in a few short steps and put the final number in \\boxed{}.<|im_end|>\n"
    + "".join(_TURN % asked + answer + "<|im_end|>\n" for asked, answer in EXAMPLES)
    + _TURN % "{question}"
)
"""Three examples, so that a branch is about 80 tokens long, not 250."""
CONTROLLERS: dict[str, tuple[str, dict[str, Any]]] = {
    "pace": ("pace", {"beta": BETA}),
    "self_consistency": ("self_consistency", {"max_samples": BRANCHES}),
    "self_consistency_8": ("self_consistency", {"max_samples": 8}),
    "self_consistency_16": ("self_consistency", {"max_samples": 16}),
    "cmc": ("cmc", {"beta": BETA}),
    "short_m_at_k": ("short_m_at_k", {"beta": BETA}),
    "thrift": ("thrift", {"beta": BETA}),
    "pace_short": ("pace", {"beta": BETA, "latency": 1.0}),
    "asc": ("asc", {"max_samples": BRANCHES}),
}
"""What is compared live: the name of a way, its controller and what is set of it."""


def questions(name: str, count: int | None = None, template: str = TEMPLATE) -> list[Question]:
    """A set's questions, in the template."""
    lines = [json.loads(line) for line in FILE.read_text("utf-8").splitlines()]
    chosen = [line for line in lines if line["set"] == name][:count]
    return [
        Question(line["question_id"], template.replace("{question}", line["question"]), line["gold_answer"])
        for line in chosen
    ]


def held(name: str, branches: int, found: Path | None = None) -> Controller:
    """A way's controller, within the branches there are."""
    source, options = CONTROLLERS.get(name, (found, {"beta": BETA}))
    return held_within(load_controller(source, **options), branches)


def answer(
    model: Any, tokenizer: Any, asked: Sequence[Question], controller: Controller, **more: Any
) -> dict[str, Any]:
    """Answer questions in one call, and what replay says of the branches that it decoded."""
    inputs = prompts(model, tokenizer, asked)
    start = time.perf_counter()
    output = model.generate(
        **inputs, strategy="autotts", controller=controller, seed=SEED, interval_tokens=STEP,
        return_dict_in_generate=True, **SAMPLING, **more,
    ).whole()  # fmt: skip
    seconds = time.perf_counter() - start
    again = replay_of(output, controller, STEP)
    return {
        "seconds": seconds,
        "answers": output.answers,
        "tokens": [cost.generated_tokens + cost.probe_tokens for cost in output.cost],
        "probe_tokens": [cost.probe_tokens for cost in output.cost],
        "chain": again.sequential_tokens[0].tolist(),
        "branches": again.opened[0].tolist(),
        "live_is_replay": same_episodes(output, again),
    }


def by_generate(model: Any, tokenizer: Any, asked: Sequence[Question], branches: int) -> dict[str, Any]:
    """Samples of transformers' own `generate` and the majority of what they say, the first where two have as many."""
    inputs = prompts(model, tokenizer, asked)
    torch.manual_seed(1)
    start = time.perf_counter()
    out = model.generate(**inputs, do_sample=True, num_return_sequences=branches, **SAMPLING)
    new = out[:, inputs["input_ids"].shape[1] :]
    length = lengths(new, tokenizer.eos_token_id)
    reader = AnswerFormat(think_end="")
    texts = tokenizer.batch_decode(new, skip_special_tokens=True)
    said = [reader.find(text, ended=count < MOST) for text, count in zip(texts, length, strict=True)]
    seconds = time.perf_counter() - start
    groups = [said[k * branches : (k + 1) * branches] for k in range(len(asked))]
    votes = [Counter(each for each in group if each is not None).most_common(1) for group in groups]
    tokens = torch.tensor(length).reshape(len(asked), branches)
    return {
        "seconds": seconds,
        "answers": [vote[0][0] if vote else None for vote in votes],
        "tokens": tokens.sum(1).tolist(),
        "probe_tokens": [0] * len(asked),
        "chain": tokens.amax(1).tolist(),
        "branches": [branches] * len(asked),
    }


class Live:
    """Answers that are written down as they come, and not asked for twice."""

    def __init__(self, model: Any, tokenizer: Any, out: Path, branches: int, rows: int, found: Path | None) -> None:
        self.model, self.tokenizer, self.branches, self.rows, self.found = model, tokenizer, branches, rows, found
        self.kept = out / "live.jsonl"
        lines = self.kept.read_text("utf-8").splitlines() if self.kept.exists() else []
        self.done = {(line["way"], line["static"], tuple(line["ids"])) for line in map(json.loads, lines)}

    def ask(self, way: str, asked: Sequence[Question], static: bool = False) -> None:
        """Answer these questions in one call by one way."""
        key = (way, static, tuple(question.question_id for question in asked))
        if key in self.done:
            return
        options = {"cache_implementation": "static"} if static else {}
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            if way == "generate":
                found, text = by_generate(self.model, self.tokenizer, asked, self.branches), ""
            else:
                controller = held(way, self.branches, self.found)
                found, text = (
                    answer(self.model, self.tokenizer, asked, controller, max_rows=self.rows, **options),
                    str(controller),
                )
        line = {"way": way, "static": static, "ids": key[2], "controller": text, **found}
        line["warnings"] = [str(each.message)[:200] for each in caught]
        with self.kept.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        self.done.add(key)
        print(f"{way}{' static' if static else ''}, {len(asked)} prompts: {found['seconds']:.1f} s", flush=True)


def recorded(
    model: Any, tokenizer: Any, out: Path, count: int | None, branches: int, rows: int, done: Callable[[str], None]
) -> dict[str, float]:
    """The profile and both recordings; seconds of each."""
    if not (out / "profile.json").exists():
        profile = measure(model, tokenizer, max_rows=rows, do_sample=True, **SAMPLING)
        profile.save(out / "profile.json")
        done(f"profile, error {profile.error}")
    how: dict[str, Any] = {"branches": branches, "seed": SEED, "interval_tokens": STEP, "max_rows": rows, **SAMPLING}
    seconds = {}
    for name in ("recorded", "aside"):
        start = time.perf_counter()
        store = record(model, tokenizer, questions(name, count), out / name, progress=False, **how)
        seconds[name] = time.perf_counter() - start
        done(f"{name}: {len(store.questions)} questions of {store.manifest.branches} branches")
    return seconds


def answered(live: Live, aside: Sequence[Question], alone: int) -> None:
    """All in one call, some in calls of eight, and some alone."""
    ways = [*CONTROLLERS, *(["found"] if live.found else [])]
    for way in ways:
        live.ask(way, aside)
    for way, static in ((way, static) for way in ("pace", "self_consistency") for static in (False, True)):
        live.ask(way, aside[:8], static)
    for first in range(0, min(len(aside), 24), 8):
        live.ask("generate", aside[first : first + 8])
    for question in aside[:alone]:
        for way in ("pace", "pace_short", "self_consistency"):
            for static in (False, True):
                live.ask(way, [question], static)
        live.ask("generate", [question])


def main(
    model: Annotated[Path, typer.Argument(help="Folder of the model.")],
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    dtype: Annotated[str, typer.Option(help="float32 or bfloat16.")] = "float32",
    rows: Annotated[int, typer.Option(help="Branches of a pass at most.")] = 1024,
    branches: Annotated[int, typer.Option(help="Branches a question.")] = BRANCHES,
    count: Annotated[int | None, typer.Option("--questions", help="Of each set; all if left out.")] = None,
    alone: Annotated[int, typer.Option(help="Questions that are answered one by one.")] = 3,
    found: Annotated[Path | None, typer.Option(help="Folder of one more controller, called `found`.")] = None,
    only: Annotated[str, typer.Option(help="Ways, by commas: nothing but one call of each, for a slow machine.")] = "",
    out: Annotated[Path, typer.Option(help="Where everything goes.")] = FOLDER,
) -> None:
    """Record, measure, answer."""
    out.mkdir(parents=True, exist_ok=True)
    network = AutoModelForCausalLM.from_pretrained(model, dtype=getattr(torch, dtype)).to(device).eval()
    tokenizer = AutoTokenizer.from_pretrained(model)
    enable(network, tokenizer=tokenizer)
    live = Live(network, tokenizer, out, branches, rows, found)
    aside = questions("aside", count)
    live.ask("self_consistency_8", aside[:1])  # warms up; too short a call to tell anything
    started = time.perf_counter()

    def done(what: str) -> None:
        print(f"{what}: {time.perf_counter() - started:.0f} s since the start", flush=True)

    seconds: dict[str, float] = {}
    if only:
        for way in only.split(","):
            live.ask(way, aside)
    else:
        seconds = recorded(network, tokenizer, out, count, branches, rows, done)
        answered(live, aside, alone)
    done("live")
    told = {
        "device": torch.cuda.get_device_name() if device == "cuda" else platform.processor() or platform.machine(),
        "dtype": dtype, "max_rows": rows, "branches": branches, "recording_seconds": seconds,
        "torch": torch.__version__, "transformers": transformers.__version__,
    }  # fmt: skip
    (out / "machine.json").write_text(json.dumps(told, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    typer.run(main)
