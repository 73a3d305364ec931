"""What the engine does on a device: speed beside transformers' generate, its own share of the time, and live = replay.

    python benchmarks/engine.py --quick                                   # under a minute; JSON to standard output
    python benchmarks/engine.py benchmarks/results/engine_cpu.json        # everything

Speeds are tokens a second of branches that end by themselves, ours over `generate(num_return_sequences=64)`, on the
same model, prompts and sampling, run by turns. Two models: the shipped tiny one, and a random one of 30 million
parameters whose end-of-text token is made likely enough for heavy-tailed lengths.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import torch
import transformers
import typer
from transformers import AutoModelForCausalLM, LogitsProcessorList, Qwen3Config
from transformers.generation.logits_process import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from tts_generate import tiny
from tts_generate.answers import AnswerFormat
from tts_generate.engine import AutoTTS, enable, record, shared
from tts_generate.engine.batch import Batch
from tts_generate.engine.decoder import Decoder, cache_argument
from tts_generate.engine.loop import Loop
from tts_generate.engine.sample import Sampler
from tts_generate.engine.settings import Settings
from tts_generate.live.branch import branch_key
from tts_generate.live.reader import Reader
from tts_generate.live.task import Prompt, Task
from tts_generate.loading import DEFAULT_CONTROLLER, load_controller
from tts_generate.publish.live import replay_of
from tts_generate.replay import Recording, replay

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
END = 1
SUFFIX = "s s s s s s"


class Numbers:
    """A tokenizer for models without a language: a text is its token ids, and a word of a suffix is token 7."""

    def __call__(self, text: str, add_special_tokens: bool = True) -> dict[str, list[int]]:
        """Token ids of a text."""
        return {"input_ids": [7 for _ in text.split()]}

    def decode(self, ids: list[int], skip_special_tokens: bool = False) -> str:
        """The text of token ids."""
        return " ".join(map(str, ids))


SIZES_30M = {
    "hidden_size": 512, "intermediate_size": 1536, "num_hidden_layers": 8, "num_attention_heads": 8,
    "num_key_value_heads": 4, "head_dim": 64, "vocab_size": 8192,
}  # fmt: skip


def random_model(
    mean_tokens: int | None,
    sizes: dict[str, int] = SIZES_30M,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    context: int = 2048,
) -> Any:
    """A random Qwen3; its branches have `mean_tokens` tokens on average, or never end."""
    torch.manual_seed(0)
    config = Qwen3Config(
        **sizes, tie_word_embeddings=False, eos_token_id=END, pad_token_id=0, bos_token_id=None,
        max_position_embeddings=context,
    )  # fmt: skip
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype).eval()
    width, vocabulary = sizes["hidden_size"], sizes["vocab_size"]
    model.generation_config.update(eos_token_id=END, pad_token_id=0, do_sample=True, temperature=1.0, top_k=50)
    with torch.no_grad():
        model.lm_head.weight[END] = 0
        if mean_tokens is not None:
            model.model.embed_tokens.weight += torch.randn(width).to(model.lm_head.weight) * 0.05
            ids = torch.randint(2, vocabulary, (16, 32)).to(device)
            hidden = model.model(ids).last_hidden_state.reshape(-1, width)
            direction = hidden.mean(0) / hidden.mean(0).norm()
            low, high = 0.0, 100.0
            for _ in range(40):  # how strong the direction must be in the head for the wanted share of ends
                middle = (low + high) / 2
                model.lm_head.weight[END] = direction * middle
                top = model.lm_head(hidden).topk(50).values.softmax(-1)
                share = top[model.lm_head(hidden).topk(50).indices == END].sum() / len(hidden)
                low, high = (middle, high) if share < 1 / mean_tokens else (low, middle)
    return model


def ours(
    model: Any, prompts: torch.Tensor, tokenizer: Any, branches: int, cap: int,
    generation: dict[str, Any] | None = None, **options: Any,
) -> Any:  # fmt: skip
    """Self-consistency through the engine; `generation` are arguments of transformers' own."""
    recipe = AutoTTS(
        "self_consistency", controller_kwargs={"max_samples": branches}, max_branches=max(branches, 1),
        tokenizer=tokenizer, seed=0, interval_tokens=min(500, cap), **options,
    )  # fmt: skip
    mask = (prompts != 0).long()
    return type(model).generate(
        model, prompts, attention_mask=mask, custom_generate=recipe, do_sample=True, max_new_tokens=cap,
        return_dict_in_generate=True, **(generation or {}),
    )  # fmt: skip


def theirs(model: Any, prompts: torch.Tensor, branches: int, cap: int) -> list[int]:
    """The same by transformers; tokens of each branch."""
    mask = (prompts != 0).long()
    found = type(model).generate(
        model, prompts, attention_mask=mask, num_return_sequences=branches, do_sample=True, max_new_tokens=cap
    )[:, prompts.shape[1] :]
    return lengths(found, model.generation_config.eos_token_id)


def lengths(found: torch.Tensor, end: int | list[int]) -> list[int]:
    """Tokens of each branch (rows of `found`) up to its end, the end included."""
    ended = (found == (end[0] if isinstance(end, list) else end)).int()
    first = torch.where(ended.any(1), ended.argmax(1) + 1, found.shape[1])
    return [int(length) for length in first]


def speed(model: Any, prompts: torch.Tensor, tokenizer: Any, branches: int, cap: int, repeats: int) -> dict[str, Any]:
    """Seconds per token by turns and with as many rows at most; medians, since transformers' lengths differ by turn."""
    speeds, ragged, rates = [], [], []
    for repeat in range(repeats):
        start = time.perf_counter()
        output = ours(model, prompts, tokenizer, branches, cap, max_rows=len(prompts) * branches)
        rates.append(output.total_cost.generated_tokens / (time.perf_counter() - start))
        torch.manual_seed(repeat)
        start = time.perf_counter()
        lengths = theirs(model, prompts, branches, cap)
        speeds.append(rates[-1] * (time.perf_counter() - start) / sum(lengths))
        ragged.append(max(lengths) * len(lengths) / sum(lengths))
    return {
        "prompts": len(prompts), "branches": branches, "speedup": median(speeds), "longest_over_mean": median(ragged),
        "speedup_over_longest_over_mean": median(a / b for a, b in zip(speeds, ragged, strict=True)),
        "tokens_per_second": median(rates), "speedups": sorted(speeds),
    }  # fmt: skip


def tiny_prompts(count: int) -> tuple[Any, Any, torch.Tensor]:
    """The shipped model, its tokenizer, and its first questions, (count, length)."""
    model, tokenizer = tiny.load()
    asked = [q.question for q in tiny.questions("record")[:count]]
    batch = tokenizer(asked, return_tensors="pt", padding=True, padding_side="left")
    return model, tokenizer, batch["input_ids"]


AHEAD_ROWS = 32


def cmc_saving(
    prompts: int, repeats: int, device: str = "cpu", max_rows: int | None = None, quick: bool = False
) -> dict[str, Any]:
    """CMC at half budget against self-consistency of 64, live, tokens and seconds, with `prompts` in flight.

    Once as it is, once with idle rows decoding ahead: what those decode in vain is in no saving, but stands beside it.
    And the default controller at half budget. With `max_rows`, all of them have that many rows; `quick`: CMC as it is.
    """
    model, tokenizer, ids = tiny_prompts(prompts)
    model, ids = model.to(device), ids.to(device)
    enable(model, tokenizer=tokenizer)
    inputs = {"input_ids": ids, "attention_mask": (ids != tokenizer.pad_token_id).long()}
    ways: dict[str, dict[str, Any]] = {
        "as_it_is": {"controller": "cmc", "beta": 0.5},
        "ahead": {"controller": "cmc", "beta": 0.5, "ahead_rows": AHEAD_ROWS},
        DEFAULT_CONTROLLER: {"beta": 0.5},
        "self_consistency": {"controller": "self_consistency", "controller_kwargs": {"max_samples": 64}},
    }
    if quick:
        ways = {name: ways[name] for name in ("as_it_is", "self_consistency")}
    rows = {} if max_rows is None else {"max_rows": max_rows}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    tokens, passes, discarded = {}, {}, {}
    for _ in range(repeats):
        for name, how in ways.items():
            counted: list[int] = []
            hook = model.register_forward_pre_hook(lambda *_, counted=counted: counted.append(1))
            start = time.perf_counter()
            output = model.generate(
                **inputs, strategy="autotts", seed=0, return_dict_in_generate=True, **how, **rows
            ).whole()
            seconds[name].append(time.perf_counter() - start)
            hook.remove()
            tokens[name] = output.total_cost.generated_tokens + output.total_cost.probe_tokens
            passes[name], discarded[name] = len(counted), output.discarded_tokens
    whole = tokens.pop("self_consistency")
    found: dict[str, Any] = {
        "prompts": prompts,
        "token_saving": 1 - tokens["as_it_is"] / whole,
        "self_consistency_passes": passes["self_consistency"],
    }
    for name in tokens:
        saved = 1 - tokens[name] / whole
        time_saving = 1 - min(seconds[name]) / min(seconds["self_consistency"])
        found[name] = {
            "token_saving": saved, "time_saving": time_saving, "time_saving_over_token_saving": time_saving / saved,
            "passes": passes[name], "discarded_over_tokens": discarded[name] / tokens[name],
            "seconds": min(seconds[name]),
        }  # fmt: skip
    if "ahead" in found:
        found["ahead"]["rows"] = AHEAD_ROWS
    found["self_consistency_tokens"] = whole
    return found


def over_generate(saving: dict[str, Any], speed: dict[str, Any]) -> dict[str, float]:
    """The time saved over transformers' `generate` of as many branches, in this run; and that over tokens saved."""
    theirs = saving["self_consistency_tokens"] * speed["speedup"] / speed["tokens_per_second"]
    names = [name for name in ("as_it_is", "ahead", DEFAULT_CONTROLLER) if name in saving]
    found = {name: 1 - saving[name]["seconds"] / theirs for name in names}
    return found | {f"{name}_over_token_saving": time / saving[name]["token_saving"] for name, time in found.items()}


class Decoding:
    """`rows` branches of one prompt being decoded to `tokens` tokens, probed or not, and where the seconds go."""

    def __init__(self, model: Any, rows: int, tokens: int, interval: int, probe: bool) -> None:
        settings = Settings(
            seed=0, interval_tokens=interval, max_new_tokens=tokens, eos_token_ids=(), pad_token_id=0, max_rows=rows,
            probe_every_step=probe,
        )  # fmt: skip
        self.seconds = {"all": 0.0, "forward": 0.0, "sample": 0.0}
        processors = LogitsProcessorList([TemperatureLogitsWarper(0.6), TopKLogitsWarper(20), TopPLogitsWarper(0.95)])
        decoder, sampler = Decoder(model), Sampler(processors)
        decoder._forward = self.timed("forward", decoder._forward)  # type: ignore[method-assign]
        batch = Batch(
            decoder, sampler, Reader(Numbers(), AnswerFormat(SUFFIX, think_end="", max_probe_tokens=8)), settings
        )
        batch.passes._draw = self.timed("sample", batch.passes._draw)  # type: ignore[method-assign]
        prompt = Prompt([3 + place % 32 for place in range(64)])
        task = Task("0", prompt, load_controller("self_consistency", max_samples=rows))
        self.loop = Loop(batch, [task], settings)
        self.turn = self.timed("all", self.loop._guarded)

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, its seconds counted."""

        def run(*args: Any) -> Any:
            start = time.perf_counter()
            try:
                return function(*args)
            finally:
                self.seconds[name] += time.perf_counter() - start

        return run

    @property
    def done(self) -> bool:
        """Whether all is decoded."""
        return not (self.loop.waiting or self.loop.running)


def overheads(model: Any, tokens: int, repeats: int) -> dict[str, Any]:
    """The engine's own share of a step at 64 rows, and what probing every branch adds.

    Both are decoded at once, a turn of the loop each, so that a machine's slower seconds fall on both alike; and
    some tokens beyond the last probe, so that all of it falls beside decoding.
    """
    share, ratios = [], []
    for _ in range(repeats):
        plain, probed = (Decoding(model, 64, tokens, 64, probe) for probe in (False, True))
        while not (plain.done and probed.done):
            for each in (plain, probed):
                if not each.done:
                    each.turn()
        share.append(1 - (plain.seconds["forward"] + plain.seconds["sample"]) / plain.seconds["all"])
        probes = (tokens - 1) // 64
        ratios.append((probed.seconds["all"] / plain.seconds["all"] - 1) * tokens / (64 * probes))
    at_64 = median(ratios)
    return {
        "own_overhead": median(share),
        "probe_overhead": {
            "at_64": at_64, "at_500_from_the_same_probes": at_64 * 64 / 500, "turns_at_64": sorted(ratios),
        },
    }  # fmt: skip


def sampling(top_k: int | None = 20, rows: int = 64, vocabulary: int = 151_936) -> dict[str, float]:
    """Seconds a step of the fused sampler and of transformers' warpers with multinomial, with or without top-k."""
    cut = [TopKLogitsWarper(top_k)] if top_k else []
    processors = LogitsProcessorList([TemperatureLogitsWarper(0.6), *cut, TopPLogitsWarper(0.95)])
    logits = torch.randn(rows, vocabulary, generator=torch.Generator().manual_seed(0)) * 2
    logits[:, :20] += 8  # most of the mass is on few tokens, but not top_p's share: without top-k, the worst case
    keys = torch.tensor([branch_key(0, [1], branch) for branch in range(rows)])
    sampler, places = Sampler(processors), torch.zeros(rows, dtype=torch.long)

    def plain() -> None:
        torch.multinomial(processors(None, logits.clone()).softmax(-1), 1)

    best = {}
    for name, run in (("fused", lambda: sampler(logits, keys, places, lambda row: torch.zeros(0))), ("warpers", plain)):
        times = []
        for _ in range(2):
            start = time.perf_counter()
            run()
            times.append(time.perf_counter() - start)
        best[name] = min(times)
    return {"fused_s": best["fused"], "warpers_s": best["warpers"], "speedup": best["warpers"] / best["fused"]}


def _kept(make: Callable[..., Loop], made: list[Loop]) -> Callable[..., Loop]:
    """A maker of loops that keeps what it made."""

    def loop(*args: Any, **kwargs: Any) -> Loop:
        made.append(make(*args, **kwargs))
        return made[-1]

    return loop


def _counting(prefills: list[int]) -> Callable[..., None]:
    """A hook that counts forward passes over an empty cache."""

    def see(module: Any, args: Any, kwargs: Any) -> None:
        if kwargs[cache_argument(module)].get_seq_length() == 0:
            prefills.append(1)

    return see


def growth(counts: tuple[int, ...], branches: int = 64) -> list[dict[str, float]]:
    """Time and cache as questions grow at a constant number of rows."""
    rows = []
    for count in counts:
        model, tokenizer, ids = tiny_prompts(count)
        recipe = AutoTTS(
            "self_consistency", controller_kwargs={"max_samples": branches}, tokenizer=tokenizer, seed=0, max_rows=128
        )
        made: list[Loop] = []
        prefills: list[int] = []
        recipe.loop = _kept(recipe.loop, made)  # type: ignore[method-assign]
        hook = model.register_forward_pre_hook(_counting(prefills), with_kwargs=True)
        start = time.perf_counter()
        output = model.generate(
            ids, attention_mask=(ids != 0).long(), custom_generate=recipe, return_dict_in_generate=True
        ).whole()
        seconds = time.perf_counter() - start
        hook.remove()
        cache, room = made[0].batch.decoder.cache, made[0].admission.room
        assert room is not None
        tokens = output.total_cost.generated_tokens
        rows.append({
            "prompts": count, "tokens": tokens, "seconds": seconds, "us_per_token": 1e6 * seconds / tokens,
            "cache_bytes": cache.rows * room.row_bytes(cache.capacity), "prefills": len(prefills),
        })  # fmt: skip
    return rows


def agreement(device: str, dtype: torch.dtype, questions: int = 32, branches: int = 64) -> dict[str, Any]:
    """Episodes of CMC at three budgets: live from scratch against the recording, and against itself written down."""
    model, tokenizer = tiny.load()
    enable(model.to(device=device, dtype=dtype), tokenizer=tokenizer)
    asked = tiny.questions("record")[:questions]
    with tempfile.TemporaryDirectory() as folder:
        store = record(model, tokenizer, asked, Path(folder) / "store", branches=branches, seed=0, progress=False)
        recording = Recording.from_store(store)
    batch = tokenizer([q.question for q in asked], return_tensors="pt", padding=True, padding_side="left").to(device)
    inputs = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
    counts: dict[str, Any] = {
        "episodes": 0,
        "recording_equal": 0,
        "written_down_equal": 0,
        "branches": 0,
        "branches_equal": 0,
    }
    for beta in (0.2, 0.5, 1.0):
        live = model.generate(
            **inputs,
            strategy="autotts",
            controller="cmc",
            beta=beta,
            seed=0,
            max_rows=100,
            return_dict_in_generate=True,
        ).whole()
        again = replay_of(live, load_controller("cmc", beta=beta), recording.interval_tokens)
        first = replay(recording, "cmc", beta=beta, shuffles=0, traces=True)
        counts["episodes"] += len(asked)
        counts["recording_equal"] += sum(a.events == b.events for a, b in zip(live.trace, first.traces, strict=True))
        counts["written_down_equal"] += sum(a.events == b.events for a, b in zip(live.trace, again.traces, strict=True))
        for recorded, found in zip(recording.questions, live.branches, strict=True):
            for mine, branch in zip(recorded.rows.branches, found, strict=False):
                counts["branches"] += 1
                whole = branch.finish_reason is not None
                counts["branches_equal"] += mine.tokens == branch.tokens if whole else mine.tokens >= branch.tokens
    return counts | {"same_bits_beside_any_neighbours": Decoder(model).shapes.exact}


def measure(quick: bool) -> dict[str, Any]:
    """Every figure but the agreement."""
    model, tokenizer, ids = tiny_prompts(8)
    ours(model, ids[:1], tokenizer, 4, 64)  # warm up
    repeats = 1 if quick else 3
    eight = speed(model, ids, tokenizer, 64, 320, 2 * repeats - 1)
    one = speed(model, ids[:1], tokenizer, 64, 320, 2 * repeats - 1)
    saving = cmc_saving(8, repeats, quick=quick)
    parts = overheads(random_model(None), 80 if quick else 225, repeats)
    result: dict[str, Any] = {
        "sc_speedup_8_prompts": eight["speedup"], "sc_speedup_1_prompt": one["speedup"], **parts,
        "time_saving_over_token_saving": saving["as_it_is"]["time_saving_over_token_saving"],
        "time_saving_over_generate": over_generate(saving, eight),
        "sampling_speedup": (drawn := sampling())["speedup"],
        "details": {"tiny": [eight, one], "cmc": saving, "sampling": drawn},
    }  # fmt: skip
    if not quick:
        mid, prompts = random_model(30), torch.randint(2, 8192, (8, 64), generator=torch.Generator().manual_seed(1))
        even = random_model(None)
        details = result["details"]
        result["time_saving_over_token_saving_ahead"] = saving["ahead"]["time_saving_over_token_saving"]
        result["probe_overhead_tiny"] = overheads(model, 225, 5)["probe_overhead"]
        details["sampling_top_p_alone"] = sampling(None)
        details["random_30m"] = [speed(mid, prompts[:n], Numbers(), 64, 160, 3) for n in (1, 8)]
        details["tiny_even"] = even_lengths(model, ids[:1], tokenizer)
        details["random_30m_even"] = even_lengths(even, prompts[:1], Numbers())
        details["growth"] = growth((1, 4, 16, 64))
        details["long_prompt_30m"] = long_prompt(mid, 1024)
        details["cmc_96_prompts"] = cmc_saving(96, 1)
        details["cmc_64_rows"] = cmc_saving(8, repeats, max_rows=64)
    return result


def long_prompt(model: Any, tokens: int) -> dict[str, float]:
    """64 branches of a long prompt that stands once, against a copy of it in every row, and against transformers."""
    prompt = torch.randint(2, model.config.vocab_size, (1, tokens), generator=torch.Generator().manual_seed(1))
    prompt = prompt.to(model.device)
    seconds: dict[str, list[float]] = {"once": [], "copied": [], "generate": []}
    held: dict[str, int] = {}
    least = shared.LEAST
    for _ in range(2):
        for name in ("once", "copied"):
            made: list[Loop] = []
            recipe = AutoTTS(
                "self_consistency", controller_kwargs={"max_samples": 64}, tokenizer=Numbers(), seed=0, max_rows=64,
                interval_tokens=64,
            )  # fmt: skip
            recipe.loop = _kept(recipe.loop, made)  # type: ignore[method-assign]
            shared.LEAST = least if name == "once" else 1 << 30
            start = time.perf_counter()
            output = model.generate(
                prompt, custom_generate=recipe, do_sample=True, max_new_tokens=64, return_dict_in_generate=True
            ).whole()
            seconds[name].append((time.perf_counter() - start) / output.total_cost.generated_tokens)
            shared.LEAST = least
            cache, room = made[0].batch.decoder.cache, made[0].admission.room
            assert room is not None
            held[name] = room.row_bytes(cache.rows * cache.capacity + tokens * (name == "once"))
        start = time.perf_counter()
        lengths = theirs(model, prompt, 64, 64)
        seconds["generate"].append((time.perf_counter() - start) / sum(lengths))
    best = {name: min(times) for name, times in seconds.items()}
    return {
        "prompt_tokens": tokens, "speedup_over_copied": best["copied"] / best["once"],
        "speedup_over_generate": best["generate"] / best["once"], "cache_bytes": held["once"],
        "cache_bytes_copied": held["copied"], "cache_saving": 1 - held["once"] / held["copied"],
    }  # fmt: skip


def even_lengths(model: Any, prompt: torch.Tensor, tokenizer: Any) -> float:
    """Speed over transformers' where no branch ends before the others, 64 branches."""
    kept = model.generation_config.eos_token_id
    model.generation_config.eos_token_id = None
    try:
        a, b = [], []
        for _ in range(6):
            start = time.perf_counter()
            ours(model, prompt, tokenizer, 64, 48)
            middle = time.perf_counter()
            type(model).generate(
                model, prompt, attention_mask=(prompt != 0).long(), num_return_sequences=64, do_sample=True,
                max_new_tokens=48,
            )  # fmt: skip
            a.append(middle - start)
            b.append(time.perf_counter() - middle)
        return min(b) / min(a)
    finally:
        model.generation_config.eos_token_id = kept


def main(
    out: Annotated[Path | None, typer.Argument(help="JSON file to write.")] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda, for the agreement.")] = "cpu",
    questions: Annotated[int, typer.Option(help="Questions of the agreement.")] = 32,
    quick: Annotated[bool, typer.Option("--quick", help="Under a minute: the headline figures only.")] = False,
) -> None:
    """Measure, print JSON, and write it where a file is named."""
    torch.set_num_threads(1)
    result: dict[str, Any] = {
        "format": "tts-benchmark/1",
        "device": torch.cuda.get_device_name() if device != "cpu" else "cpu",
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        **measure(quick),
    }
    if not quick:
        dtypes = DTYPES if device != "cpu" else {k: v for k, v in DTYPES.items() if k != "float16"}  # slow on CPU
        result["agreement"] = {name: agreement(device, dtype, questions) for name, dtype in dtypes.items()}
    if out is not None:
        out.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    typer.run(main)
