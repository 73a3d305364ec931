"""Every causal model class of transformers, tiny and with random weights: does the engine decode what the model says?

    python benchmarks/families.py [FAMILY ...]

Each class of `MODEL_FOR_CAUSAL_LM_MAPPING` gets a config of a few layers, one of each of its kinds, with windows and
chunks shorter than the prompts, and weights with a standard deviation of 0.25, so that logits differ as trained ones
do. What `generate(strategy="autotts")` draws is drawn again from transformers' own forward pass without a cache. The
result goes to benchmarks/results/families.json; `pytest -m families` asks the same of each family.
"""

from __future__ import annotations

import json
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
from huggingface_hub.errors import StrictDataclassClassValidationError
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from torch import Tensor
from transformers import AutoModelForCausalLM, DynamicCache, PreTrainedConfig, PreTrainedTokenizerFast, Qwen3Config
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from tts_generate import tiny
from tts_generate.engine import enable
from tts_generate.engine.decoder import Decoder
from tts_generate.engine.noise import gumbel
from tts_generate.engine.selfcheck import checked
from tts_generate.errors import TTSError
from tts_generate.live.branch import branch_key

RESULT = Path(__file__).parent / "results" / "families.json"
FAMILIES = sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
SPECIAL = ["<pad>", "<unk>", "<eos>", "<think>", "</think>", "\\boxed{", "}"]
WORDS = [*SPECIAL, *"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTU"]
SUFFIX = [4, 5]
"""`</think>`, `\\boxed{`."""
CLOSE = 5e-3
"""How far a log-probability may be off."""
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
    **dict.fromkeys(("keep_window_size", "lsh_attn_chunk_length", "local_attn_chunk_length"), 24),
    "attention_chunk_size": 32,
    "block_size": 16,
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
_MLA = {"v_head_dim": 12, "head_dim": 8, "num_key_value_heads": 4}
"""Multi-head latent attention: a key's size is not a value's, and the heads share no keys."""
ABSENT = "absent"
_TEXT = {"dots3_note": "dots3_note_text"}
"""Whose config cannot be made small: the same class takes that of its text model."""
_ROPE = {"rope_type": "default", "rope_theta": 10000.0}
_ASSISTANT = {
    "hidden_size_per_layer_input": 0,
    "vocab_size_per_layer_input": 0,
    "num_hidden_layers": 4,
    "layer_types": ["sliding_attention", "full_attention"] * 2,
    "num_kv_shared_layers": 2,
}
_INDEXED = {
    "indexer_n_heads": 2,
    "indexer_kv_heads": 1,
    "indexer_head_dim": 16,
    "indexer_budget": 16,
    "indexer_compress_ratio": 4,
    "layer_types": ["linear_attention", "indexed_attention"],
    "num_hidden_layers": 2,
}
_ZAMBA = {"layer_types": ABSENT, "layers_block_type": ["linear_attention", "hybrid"] * 2, "num_hidden_layers": 4}
OVERRIDES: dict[str, dict[str, Any]] = {
    "bamba": {"attn_layer_indices": [1]},
    "blenderbot": {"encoder_no_repeat_ngram_size": 0},
    "cohere_compass_text": {
        "layer_types": ["sliding_attention", "full_attention"],
        "rope_parameters": {"sliding_attention": {**_ROPE}, "full_attention": {**_ROPE}},
    },
    "dbrx": {"attn_config": {"kv_n_heads": 2, "clip_qkv": 8.0, "rope_theta": 10000.0}},
    "deepseek_v2": {"n_routed_experts": 4, "num_experts_per_tok": 2, "topk_method": "greedy"},
    "dots1": {"n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2},
    "gemma3n_text": {
        "num_hidden_layers": 4,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
        "num_kv_shared_layers": 2,
        "intermediate_size": [64] * 4,
        "activation_sparsity_pattern": [0.0] * 4,
        "hidden_size_per_layer_input": 8,
        "laurel_rank": 8,
    },
    "gemma4": {
        "text_config": {
            "global_head_dim": 32,
            **_ASSISTANT,
            "hidden_size_per_layer_input": 8,
            "vocab_size_per_layer_input": len(WORDS),
        }
    },
    "gemma4_text": {"global_head_dim": 32},
    "gemma4_unified_text": {"global_head_dim": 32},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "granitemoehybrid": {"layer_types": ["mamba", "attention"], "mamba_n_heads": 8, "mamba_d_head": 8},
    "helium": {"head_dim": 8},
    "jetmoe": {"kv_channels": 16},
    "jamba": {"layer_types": ABSENT, "attn_layer_offset": 1, "attn_layer_period": 2, "mamba_d_state": 8},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"], "num_dense_layers": 1},
    "minimax_m3_vl_text": {"index_block_size": 8, "index_topk_blocks": 2},
    "mpt": {"use_cache": True},
    "nemotron": {"num_key_value_heads": 2},
    "qwen4_exp": {"text_config": _INDEXED},
    "qwen4_exp_text": _INDEXED,
    "reformer": {"axial_pos_embds": False, "num_buckets": 4},
    "prophetnet": {"num_hidden_layers": ABSENT},
    "recurrent_gemma": {"layer_types": ABSENT, "num_hidden_layers": 3},
    "xlnet": {"max_position_embeddings": ABSENT},
    "xlstm": {"v_head_dim": ABSENT},
    "xmod": {"languages": ["en_XX"], "default_language": "en_XX"},
    "zamba": {**_ZAMBA, "attention_head_dim": ABSENT},
    "zamba2": _ZAMBA,
    "zaya": {"num_experts_per_tok": 1},
}
"""Where the sizes above do not make a config: what else it needs."""


def make_tokenizer() -> PreTrainedTokenizerFast:
    """A word a token."""
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
    kind = type(config)
    found = {name: value for name, value in SMALL.items() if _has(kind, name) or name.endswith("_token_id")}
    if hasattr(config, "qk_rope_head_dim"):
        found |= {name: size for name, size in _MLA.items() if _has(kind, name)}
    if _has(kind, "is_decoder") and not config.is_encoder_decoder:
        found["is_decoder"] = True
    kinds = list(dict.fromkeys(getattr(config, "layer_types", None) or ()))
    if len(kinds) > 1 and _has(kind, "num_hidden_layers"):
        found |= {"layer_types": kinds, "num_hidden_layers": len(kinds)}
    for name in getattr(kind, "sub_configs", {}):
        part = getattr(config, name, None)
        if isinstance(part, PreTrainedConfig):
            found[name] = type(part)(**shrunk(part, given.get(name, {})))
    found |= {name: value for name, value in given.items() if not isinstance(found.get(name), PreTrainedConfig)}
    return {name: value for name, value in found.items() if value is not ABSENT}


def _has(kind: type, name: str) -> bool:
    """Whether a config has a size that can be set."""
    default = getattr(kind, name, None)
    asked = name == "head_dim" and hasattr(kind, name)
    return (default is not None or asked) and not isinstance(default, property)


def make_config(family: str) -> PreTrainedConfig:
    """A tiny config of a family, by transformers' name of it."""
    family = _TEXT.get(family, family)
    kind = CONFIG_MAPPING[family]
    if family.endswith("_assistant"):
        text = CONFIG_MAPPING[family.replace("_assistant", "_text")]
        return kind(text_config=text(**(shrunk(text(), {}) | _ASSISTANT)), backbone_hidden_size=32)
    return kind(**shrunk(kind(), OVERRIDES.get(family, {})))


def make_model(family: str) -> Any:
    """A tiny model of a family, with weights as of `trained_scale`."""
    torch.manual_seed(0)
    config = make_config(family)
    if not hasattr(config, "vocab_size") and type(config).__name__.startswith("Musicgen"):
        config = config.decoder
        return trained_scale(MODEL_FOR_CAUSAL_LM_MAPPING[CONFIG_MAPPING[family]]._from_config(config))
    return trained_scale(AutoModelForCausalLM.from_config(config))


def trained_scale(model: Any) -> Any:
    """Random matrices of standard deviation 0.25: logits then differ from token to token as a trained model's do."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.copy_(0.25 * torch.randn(parameter.shape, generator=generator))
    return model.float().eval()


WAYS: dict[str, dict[str, Any]] = {
    "usual": {},
    "in row": {"max_rows": 3},
    "static": {"cache_implementation": "static"},
}
"""How each family is run; in row as on a GPU, where a row is read once for a branch and its probe."""
CALL: dict[str, Any] = {
    "strategy": "autotts",
    "controller": "cmc",
    "beta": 0.2,
    "seed": 0,
    "interval_tokens": 8,
    "max_new_tokens": 16,
    "max_probe_tokens": 3,
    "max_branches": 6,
    "do_sample": True,
    "temperature": 1.0,
    "top_k": 0,
    "top_p": 1.0,
    "return_dict_in_generate": True,
}
GOOD = ("right", "fell back", "refused", "as cached", "not built")
"""As cached: what transformers' own decoding with a cache says, where its forward pass without one says otherwise."""


@dataclass
class Verdict:
    """What became of a family: one of `GOOD`, `WRONG` (decodes something else) or `RAW` (an error that is not ours)."""

    family: str
    what: str
    why: str = ""


def judge(family: str, ways: Sequence[str] = tuple(WAYS)) -> Verdict:
    """Build a family's model and hold what the engine draws on every path against the model itself."""
    try:
        model = make_model(family)
    except ImportError as error:
        return Verdict(family, "not built", str(error).strip().split("\n")[0])
    except StrictDataclassClassValidationError as error:
        if family != "gemma4_assistant":  # transformers wants all its layers to share keys and values, and refuses that
            raise
        return Verdict(family, "not built", " ".join(str(error).split()))
    told: list[str] = []
    reference = Reference(model)
    for way in ways:
        try:
            output = decode(model, way, told)
        except TTSError as error:
            if way == "static":
                continue
            return Verdict(family, "refused", str(error))
        except Exception as error:
            return Verdict(family, "RAW", f"{way}: {type(error).__name__}: {error}")
        if found := differing(reference, output):
            what = "WRONG" if differing(Cached(model), output) else "as cached"
            return Verdict(family, what, f"{way}: {found}")
    return Verdict(family, "fell back", told[0]) if told else Verdict(family, "right")


def decode(model: Any, way: str, told: list[str]) -> Any:
    """What the engine makes of the prompts; which path it leaves out is `told`."""
    tokenizer = make_tokenizer()
    enable(model, tokenizer=tokenizer)
    inputs = tokenizer(PROMPTS, return_tensors="pt", padding=True)
    inputs = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    with warnings.catch_warnings(record=True) as caught, _in_row(way == "in row"):
        warnings.simplefilter("always")
        output = model.generate(**inputs, **CALL, **WAYS[way])
    told += [str(each.message) for each in caught if "instead" in str(each.message) and each.category is RuntimeWarning]
    return output


@contextmanager
def _in_row(wanted: bool) -> Iterator[None]:
    before = Decoder.__dict__["in_row"]
    if wanted:
        Decoder.in_row = property(lambda decoder: decoder.packed)  # type: ignore[assignment]
    try:
        yield
    finally:
        Decoder.in_row = before  # type: ignore[method-assign]


class Reference:
    """Transformers' own forward pass, without a cache."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self._known: dict[tuple[int, ...], Tensor] = {}

    def __call__(self, ids: Sequence[int]) -> Tensor:
        """(length, V) logits."""
        key = tuple(ids)
        if key not in self._known:
            with torch.no_grad():
                self._known[key] = self.model(input_ids=torch.tensor([ids]), use_cache=False).logits[0].float()
        return self._known[key]


class Cached(Reference):
    """Transformers' own forward passes with its own cache: the prompt, then one token after the other."""

    def __call__(self, ids: Sequence[int]) -> Tensor:
        """(length, V) logits."""
        prompts = [make_tokenizer()(text)["input_ids"] for text in PROMPTS]
        prompt = next(prompt for prompt in prompts if prompt == list(ids[: len(prompt)]))
        parts, cache = [prompt, *([each] for each in ids[len(prompt) :])], DynamicCache(config=self.model.config)
        with torch.no_grad():
            outputs = [self.model(input_ids=torch.tensor([p]), past_key_values=cache, use_cache=True) for p in parts]
        return torch.cat([output.logits[0] for output in outputs]).float()


def differing(reference: Reference, output: Any) -> str:
    """Where what was decoded is not what the model says; "" if nowhere."""
    tokenizer = make_tokenizer()
    for number, (text, branches) in enumerate(zip(PROMPTS, output.branches, strict=True)):
        prompt = tokenizer(text)["input_ids"]
        for branch in branches[:2]:
            ids = list(branch.token_ids)
            logits = reference(prompt + ids)[len(prompt) - 1 : -1]
            key = branch_key(0, prompt, branch.branch)
            found = _drawn(logits, ids, key, branch.step_logprobs) or _probed(reference, prompt, branch)
            if found:
                return f"prompt {number}, branch {branch.branch}: {found}"
    return ""


def _drawn(logits: Tensor, ids: list[int], key: int, steps: Sequence[float]) -> str:
    """What is wrong with tokens that were drawn from these logits, and with what they were said to be worth."""
    count, drawn = len(ids), torch.tensor(ids)[:, None]
    noise = gumbel(torch.full((count,), key), torch.arange(count), torch.arange(logits.shape[1])[None])
    scores = logits.double() + noise
    lost = scores.amax(1) - scores.gather(1, drawn)[:, 0]
    if float(lost.max()) > CLOSE:
        return f"token {int(lost.argmax())} is off by {float(lost.max()):.3g}"
    logprobs = logits.log_softmax(-1).gather(1, drawn)[:, 0]
    for step, mean in enumerate(steps):
        want = float(logprobs[8 * step : 8 * step + 8].mean())
        if abs(mean - want) > CLOSE:
            return f"step {step} has log-probability {mean:.4f}, not {want:.4f}"
    return ""


def _probed(reference: Reference, prompt: list[int], branch: Any) -> str:
    """What is wrong with the first probe that was forced with the usual suffix: a greedy answer behind it."""
    ids = list(branch.token_ids)
    for place, logprob, tokens in zip(branch.probe_positions, branch.probe_logprobs, branch.probe_tokens, strict=True):
        if tokens and SUFFIX[0] not in ids[:place]:
            fed, total, count = prompt + ids[:place] + SUFFIX, 0.0, tokens - len(SUFFIX)
            for _ in range(count):
                logprobs = reference(fed)[-1].log_softmax(-1)
                total += float(logprobs.max())
                fed = [*fed, int(logprobs.argmax())]
            wrong = abs(total / count - logprob) > CLOSE
            return f"probe at {place} has log-probability {logprob:.4f}, not {total / count:.4f}" if wrong else ""
    return ""


def costs() -> dict[str, float]:
    """Seconds of one core that the first look takes: at the shipped model, and at one of 30 million parameters."""
    config = Qwen3Config(
        vocab_size=8192, hidden_size=512, num_hidden_layers=8, num_attention_heads=8, num_key_value_heads=4,
        head_dim=64, intermediate_size=1536,
    )  # fmt: skip
    models = {"shipped": tiny.load()[0], "30 million": AutoModelForCausalLM.from_config(config, dtype=torch.float32)}
    found = {}
    for name, model in models.items():
        Decoder(model)  # finds the shapes of its passes, which takes longer and is not asked here
        start = time.process_time()
        checked(model, static=False, tokens=100)
        found[name] = round(time.process_time() - start, 3)
    return found


def main(names: Sequence[str]) -> None:
    """Judge these families, or all of them, and write down what was found; others keep what is written of them."""
    transformers.logging.set_verbosity_error()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    seconds = costs()
    for family in names or FAMILIES:
        verdict = judge(family)
        print(f"{verdict.family:26} {verdict.what:10} {verdict.why[:230]}", flush=True)
        known = json.loads(RESULT.read_text("utf-8"))["families"] if RESULT.exists() else {}
        known = dict(sorted({**known, family: asdict(verdict)}.items()))
        counts = Counter(each["what"] for each in known.values())
        result = {"transformers": transformers.__version__, "counts": counts, "check_seconds": seconds}
        RESULT.write_text(json.dumps({**result, "families": known}, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
