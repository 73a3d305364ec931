"""Every causal model class of transformers, tiny and with random weights: does the engine decode what the model says?

    python benchmarks/families.py [FAMILY ...]

Each class of `MODEL_FOR_CAUSAL_LM_MAPPING` gets a config of a few layers, one of each of its kinds, with windows and
chunks shorter than the prompts, and weights with a standard deviation of 0.25, so that logits differ as trained ones
do. What `generate(strategy="autotts")` draws is drawn again from transformers' own forward pass without a cache. The
result goes to benchmarks/results/families.json; `pytest -m families` asks the same of each family.
"""

from __future__ import annotations

import json
import math
import sys
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedTokenizerFast
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from tts_generate.engine import enable
from tts_generate.engine.decoder import Decoder
from tts_generate.engine.noise import branch_key, gumbel
from tts_generate.errors import TTSError

RESULT = Path(__file__).parent / "results" / "families.json"
FAMILIES = sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
SPECIAL = ["<pad>", "<unk>", "<eos>", "<think>", "</think>", "\\boxed{", "}"]
WORDS = [*SPECIAL, *"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTU"]
SUFFIX = [4, 5]
"""`</think>`, `\\boxed{`."""
SMALL: dict[str, Any] = {
    **dict.fromkeys(("vocab_size", "vocab_size_per_layer_input"), len(WORDS)),
    **dict.fromkeys(("hidden_size", "d_model", "n_embd", "dim", "embed_dim", "embedding_size", "emb_dim"), 32),
    **dict.fromkeys(("word_embed_proj_dim", "hidden_dim", "lru_width", "attention_hidden_size"), 32),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers", "decoder_layers"), 2),
    **dict.fromkeys(("encoder_layers", "num_decoder_layers", "num_encoder_layers"), 2),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads", "decoder_attention_heads"), 4),
    **dict.fromkeys(("encoder_attention_heads", "num_decoder_attention_heads", "num_encoder_attention_heads"), 4),
    **dict.fromkeys(("num_key_value_heads", "num_kv_heads", "n_kv_heads", "kv_n_heads"), 2),
    **dict.fromkeys(("intermediate_size", "ffn_dim", "n_inner", "dff", "ffn_hidden_size", "decoder_ffn_dim"), 64),
    **dict.fromkeys(("encoder_ffn_dim", "d_ff", "dim_ff", "ffn_embed_dim", "d_inner"), 64),
    **dict.fromkeys(("head_dim", "global_head_dim"), 16),
    **dict.fromkeys(("dim_head", "d_kv", "rotary_dim"), 8),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "position_max_length"), 512),
    **dict.fromkeys(("max_target_positions", "max_source_positions"), 512),
    **dict.fromkeys(("sliding_window", "window_size", "attention_window_size", "local_attention"), 24),
    "attention_chunk_size": 32,
    **dict.fromkeys(("num_experts", "n_routed_experts", "num_local_experts", "moe_num_experts"), 4),
    **dict.fromkeys(("num_experts_per_tok", "moe_k", "moe_topk", "moe_top_k", "top_k_experts"), 2),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size"), 32),
    **dict.fromkeys(("n_group", "topk_group", "first_k_dense_replace"), 1),
    **dict.fromkeys(("q_lora_rank", "kv_lora_rank"), 16),
    **dict.fromkeys(("qk_rope_head_dim", "qk_nope_head_dim"), 8),
    **dict.fromkeys(("linear_num_value_heads",), 4),
    **dict.fromkeys(("linear_num_key_heads",), 2),
    **dict.fromkeys(("linear_key_head_dim", "linear_value_head_dim"), 16),
    **dict.fromkeys(("mamba_n_heads", "mamba_d_head", "mamba_num_heads", "mamba_head_dim"), 8),
    **dict.fromkeys(("mamba_n_groups", "n_groups"), 1),
    **dict.fromkeys(("mamba_d_state", "ssm_state_size", "state_size"), 16),
    "mamba_d_ssm": 64,
    "pad_token_id": 0,
    "eos_token_id": 2,
    "bos_token_id": 3,
}
_MLA = {"v_head_dim": 12, "head_dim": 8}
OVERRIDES: dict[str, dict[str, Any]] = {}
"""Where the sizes above do not make a config: what else it needs."""


def make_tokenizer() -> PreTrainedTokenizerFast:
    words = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="<unk>"))
    pattern = Regex(r"<[/a-z]+>|\\boxed\{|\S")
    words.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Split(pattern, "isolated")]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", unk_token="<unk>", eos_token="<eos>", padding_side="left"
    )


def _text(length: int) -> str:
    return " ".join(WORDS[7 + (5 * i + i * i // 3) % (len(WORDS) - 7)] for i in range(length - 1)) + " <think>"


PROMPTS = [_text(5), _text(45), _text(150)]
"""Short; beyond windows and chunks; shared by all branches."""


def shrunk(config: PreTrainedConfig, given: dict[str, Any]) -> dict[str, Any]:
    """Keywords that make a config of this kind tiny."""
    found = {n: v for n, v in SMALL.items() if getattr(type(config), n, None) is not None or n.endswith("_token_id")}
    if hasattr(config, "qk_rope_head_dim"):
        found |= {name: size for name, size in _MLA.items() if hasattr(config, name)}
    kinds = list(dict.fromkeys(getattr(config, "layer_types", None) or ()))
    if len(kinds) > 1 and isinstance(getattr(type(config), "num_hidden_layers", None), int):
        found |= {"layer_types": kinds, "num_hidden_layers": len(kinds)}
    for name in getattr(type(config), "sub_configs", {}):
        part = getattr(config, name, None)
        if isinstance(part, PreTrainedConfig):
            found[name] = {"model_type": part.model_type, **shrunk(part, given.get(name, {}))}
    return {
        name: value
        for name, value in {**given, **found, **{n: v for n, v in given.items() if not isinstance(v, dict)}}.items()
        if value != "absent"
    }


def make_config(family: str) -> PreTrainedConfig:
    kind = CONFIG_MAPPING[family]
    return kind(**shrunk(kind(), OVERRIDES.get(family, {})))


def make_model(family: str) -> Any:
    torch.manual_seed(0)
    config = make_config(family)
    classes = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    kind = classes[0] if isinstance(classes, tuple) else classes
    return trained_scale(kind._from_config(config))


def trained_scale(model: Any) -> Any:
    """Random matrices of standard deviation 0.25: logits then differ from token to token as a trained model's do."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.copy_(0.25 * torch.randn(parameter.shape, generator=generator))
    return model.float().eval()


@dataclass
class Verdict:
    """What became of a family: `right`, `fell back`, `refused`, `WRONG` or `RAW`."""

    family: str
    what: str
    why: str = ""
    seconds: float = 0.0


def judge(family: str) -> Verdict:
    """Build a family's model and hold what the engine draws on every path against the model itself."""
    start = time.perf_counter()
    try:
        model = make_model(family)
    except ImportError as error:
        return Verdict(family, "not built", f"{error}".strip().split("\n")[0])
    what, why = judged(model)
    return Verdict(family, what, why, round(time.perf_counter() - start, 1))


WAYS: dict[str, dict[str, Any]] = {"usual": {}, "in row": {}, "few rows": {"max_rows": 3}, "static": {"cache_implementation": "static"}}


def judged(model: Any) -> tuple[str, str]:
    told: list[str] = []
    for way, options in WAYS.items():
        try:
            with warnings.catch_warnings(record=True) as caught, _in_row(way == "in row"):
                warnings.simplefilter("always")
                output = decode(model, **options)
        except TTSError as error:
            if way == "static":
                continue
            return "refused", str(error)
        except Exception as error:
            import traceback
            frame = traceback.extract_tb(error.__traceback__)[-1]
            return "RAW", f"{way}: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''} ({Path(frame.filename).name}:{frame.lineno})"
        told += [str(each.message) for each in caught if "instead" in str(each.message) and "tts" in str(each.message)]
        if found := differing(model, output):
            return "WRONG", f"{way}: {found}"
    return ("fell back", told[0]) if told else ("right", "")


@contextmanager
def _in_row(wanted: bool) -> Iterator[None]:
    """As on a GPU, where a row is read once for a branch and its probe."""
    before = Decoder.__dict__["in_row"]
    if wanted:
        Decoder.in_row = property(lambda decoder: decoder.packed)  # type: ignore[assignment]
    try:
        yield
    finally:
        Decoder.in_row = before  # type: ignore[method-assign]


def decode(model: Any, **options: Any) -> Any:
    tokenizer = make_tokenizer()
    enable(model, tokenizer=tokenizer)
    inputs = tokenizer(PROMPTS, return_tensors="pt", padding=True)
    return model.generate(
        input_ids=inputs["input_ids"],
        attention_mask=inputs["attention_mask"],
        strategy="autotts",
        **{
            "controller": "cmc",
            "beta": 0.2,
            "seed": 0,
            "interval_tokens": 8,
            "max_new_tokens": 24,
            "max_probe_tokens": 3,
            "max_branches": 6,
            "do_sample": True,
            "temperature": 1.0,
            "top_k": 0,
            "top_p": 1.0,
            "return_dict_in_generate": True,
            **options,
        },
    )


def plain(model: Any, ids: Sequence[int]) -> Tensor:
    """(length, V) logits of transformers' own forward pass, without a cache."""
    with torch.no_grad():
        logits: Tensor = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0].float()
    return logits


def differing(model: Any, output: Any) -> str:
    """Where what was decoded is not what the model says; "" if nowhere."""
    tokenizer = make_tokenizer()
    for number, (text, branches) in enumerate(zip(PROMPTS, output.branches, strict=True)):
        prompt = tokenizer(text)["input_ids"]
        probes = 3
        for branch in branches:
            ids = list(branch.token_ids)
            logits = plain(model, prompt + ids)[len(prompt) - 1 : -1]
            where = f"prompt {number}, branch {branch.branch}"
            if found := _drawn(logits, ids, branch_key(0, prompt, branch.branch), branch.step_logprobs):
                return f"{where}: {found}"
            for place, logprob, tokens in zip(branch.probe_positions, branch.probe_logprobs, branch.probe_tokens, strict=True):
                if probes and tokens and 4 not in ids[:place]:
                    probes -= 1
                    want = _probed(model, prompt + ids[:place] + SUFFIX, tokens - len(SUFFIX))
                    if abs(want - logprob) > 5e-3:
                        return f"{where}: probe at {place} has log-probability {logprob:.4f}, not {want:.4f}"
    return ""


def _drawn(logits: Tensor, ids: list[int], key: int, steps: Sequence[float]) -> str:
    count = len(ids)
    noise = gumbel(torch.full((count,), key), torch.arange(count), torch.arange(logits.shape[1])[None])
    scores = logits.double() + noise
    mine = scores.gather(1, torch.tensor(ids)[:, None])[:, 0]
    lost = scores.amax(1) - mine
    if float(lost.max()) > 2e-3:
        return f"token {int(lost.argmax())} is off by {float(lost.max()):.3g}"
    logprobs = logits.log_softmax(-1).gather(1, torch.tensor(ids)[:, None])[:, 0]
    for step, mean in enumerate(steps):
        want = float(logprobs[8 * step : 8 * step + 8].mean())
        if not math.isclose(mean, want, abs_tol=2e-3):
            return f"step {step} has log-probability {mean:.4f}, not {want:.4f}"
    return ""


def _probed(model: Any, ids: list[int], count: int) -> float:
    """Mean log-probability of a greedy answer of `count` tokens."""
    total = 0.0
    for _ in range(count):
        logprobs = plain(model, ids)[-1].log_softmax(-1)
        total += float(logprobs.max())
        ids = [*ids, int(logprobs.argmax())]
    return total / count


def main(names: Sequence[str]) -> None:
    transformers.logging.set_verbosity_error()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    verdicts = []
    for family in names or FAMILIES:
        try:
            verdict = judge(family)
        except Exception as error:
            verdict = Verdict(family, "NOT BUILT", f"{type(error).__name__}: {str(error)[:140]}")
            if len(names) == 1: raise
        verdicts.append(verdict)
        print(f"{verdict.family:26} {verdict.what:10} {verdict.seconds:5.1f} {verdict.why[:230]}", flush=True)
    counts = Counter(verdict.what for verdict in verdicts)
    print(dict(counts))
    if not names:
        RESULT.write_text(json.dumps({"transformers": transformers.__version__, "counts": counts, "families": [asdict(v) for v in verdicts]}, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
