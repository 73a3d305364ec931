"""Trains the tiny reasoning model of `tts_generate.tiny` from nothing, on one CPU core, and writes its folder.

    python examples/train_tiny.py --out build/tiny

Writes the weights (fp16), the tokenizer, the generation settings and the two question sets; the same seed gives the
same files. The questions of both sets never occur in the training data. The data comes from `tiny_task.py`.
"""

from __future__ import annotations

import json
import math
import random
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated

import torch
import typer
from tiny_task import LETTERS, OPERATORS, Program, Pupil, example_tokens, sample_program
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from torch.nn.functional import cross_entropy
from tqdm import tqdm
from transformers import GenerationConfig, PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

VOCABULARY = (
    *("<pad>", "<unk>", "<eos>", "<think>", "</think>", "\\boxed{", "}"),
    *"0123456789",
    *LETTERS,
    *("=", *OPERATORS, ";", ".", "?", "so", "wait", "check", "Q:"),
)
TOKEN_IDS = {token: i for i, token in enumerate(VOCABULARY)}
MAX_NEW_TOKENS = 320
PROBED_SHARE = 0.35
RECORD_QUESTIONS = 64
TEST_QUESTIONS = 256
BATCH_TOKENS = 3072


def build_tokenizer() -> PreTrainedTokenizerFast:
    """One token a word or digit; spaces between them are optional when reading and written when decoding."""
    tokenizer = Tokenizer(models.WordLevel(TOKEN_IDS, unk_token="<unk>"))
    word = r"<[/a-z]+>|\\boxed\{|Q:|so|wait|check|[a-j]|[0-9]|\S"
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Split(Regex(word), "isolated")]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        unk_token="<unk>",
        eos_token="<eos>",
        padding_side="left",
        model_input_names=["input_ids", "attention_mask"],
        clean_up_tokenization_spaces=False,
        model_max_length=512,
    )


def build_model() -> Qwen3ForCausalLM:
    """A Qwen3 of 309 thousand parameters, freshly initialised."""
    return Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=len(VOCABULARY),
            hidden_size=96,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=24,
            intermediate_size=256,
            max_position_embeddings=512,
            tie_word_embeddings=True,
            rope_parameters={"rope_type": "default", "rope_theta": 1e4},
            initializer_range=0.05,
            bos_token_id=None,
            eos_token_id=TOKEN_IDS["<eos>"],
            pad_token_id=TOKEN_IDS["<pad>"],
        )
    )


def generation_config() -> GenerationConfig:
    """Plain sampling, and what tts-generate needs to probe this model."""
    return GenerationConfig(
        do_sample=True,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        max_new_tokens=MAX_NEW_TOKENS,
        eos_token_id=TOKEN_IDS["<eos>"],
        pad_token_id=TOKEN_IDS["<pad>"],
        interval_tokens=16,
        probe_suffix="</think>\\boxed{",
        max_probe_tokens=4,
    )


def sample_questions(rng: random.Random, count: int, taken: set[str]) -> list[Program]:
    """`count` different questions whose prompts are not in `taken`; theirs are added to it."""
    programs: list[Program] = []
    while len(programs) < count:
        program = sample_program(rng)
        if program.prompt() not in taken:
            taken.add(program.prompt())
            programs.append(program)
    return programs


def write_questions(path: Path, split: str, programs: Iterable[Program]) -> None:
    """One JSON row a question."""
    rows = (
        {"question_id": f"{split}-{i:03}", "question": program.prompt(), "gold_answer": str(program.answer())}
        for i, program in enumerate(programs)
    )
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def encode_example(rng: random.Random, pupil: Pupil, held_out: set[str]) -> tuple[list[int], list[int]]:
    """(token ids, labels) of one example; the label is -100 where nothing is learned."""
    program = sample_program(rng)
    while program.prompt() in held_out:
        program = sample_program(rng)
    example = list(example_tokens(rng, pupil, program, PROBED_SHARE))
    ids = [TOKEN_IDS[token] for token, _ in example]
    return ids, [i if learned else -100 for i, (_, learned) in zip(ids, example, strict=True)]


def batches(rng: random.Random, held_out: set[str]) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Endless (ids, labels), both (B, T) int64, of like lengths and at most `BATCH_TOKENS` tokens, right-padded."""
    pupil = Pupil()
    while True:
        pool = sorted((encode_example(rng, pupil, held_out) for _ in range(1024)), key=lambda e: len(e[0]))
        groups: list[list[tuple[list[int], list[int]]]] = [[]]
        for example in pool:
            if (len(groups[-1]) + 1) * len(example[0]) > BATCH_TOKENS:
                groups.append([])
            groups[-1].append(example)
        rng.shuffle(groups)
        for group in groups:
            width = max(len(ids) for ids, _ in group)
            ids = torch.tensor([ids + [TOKEN_IDS["<pad>"]] * (width - len(ids)) for ids, _ in group])
            labels = torch.tensor([labels + [-100] * (width - len(labels)) for _, labels in group])
            yield ids, labels


class Muon(torch.optim.Optimizer):
    """Muon in float32, with matrices of one shape orthogonalised together.

    `torch.optim.Muon` works in bfloat16 and on one matrix at a time, which halves the speed on a CPU without AMX.
    Source: https://kellerjordan.github.io/posts/muon (coefficients and five Newton-Schulz steps).
    """

    def __init__(self, matrices: list[torch.nn.Parameter], lr: float) -> None:
        by_shape: dict[torch.Size, list[torch.nn.Parameter]] = {}
        for matrix in matrices:
            by_shape.setdefault(matrix.shape, []).append(matrix)
        super().__init__([{"params": params} for params in by_shape.values()], {"lr": lr})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update of every group: Nesterov momentum 0.95, orthogonalised, scaled to the size of an AdamW step."""
        for group in self.param_groups:
            params = group["params"]
            gradient = torch.stack([p.grad for p in params])  # (matrices, rows, columns) float32
            momentum = self.state[params[0]].setdefault("momentum", torch.zeros_like(gradient))
            momentum.lerp_(gradient, 0.05)
            updates = orthogonalised(gradient.lerp(momentum, 0.95))
            scale = group["lr"] * 0.2 * math.sqrt(max(params[0].shape))
            for p, update in zip(params, updates, strict=True):
                p.mul_(1 - 0.01 * group["lr"]).sub_(update, alpha=scale)


def orthogonalised(matrices: torch.Tensor) -> torch.Tensor:
    """The nearest (semi-)orthogonal matrices, roughly, by five Newton-Schulz steps; (matrices, rows, columns)."""
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(5):
        gram = x @ x.mT
        x = 3.4445 * x + (2.0315 * gram @ gram - 4.7750 * gram) @ x
    return x.mT if tall else x


def train(model: Qwen3ForCausalLM, steps: int, seed: int, held_out: set[str]) -> None:
    """Muon for the matrices, AdamW for embedding and norms; warm-up, plateau, then linear decay over the last 60 %."""
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n]
    others = [p for n, p in model.named_parameters() if p.ndim != 2 or "embed" in n]
    optimizers = (
        Muon(matrices, lr=0.01),
        torch.optim.AdamW(others, lr=3e-3, betas=(0.9, 0.98), weight_decay=0.0),
    )
    schedules = [
        torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: min(1.0, (step + 1) / 50) * min(1.0, (1 - step / steps) / 0.6 + 0.01)
        )
        for optimizer in optimizers
    ]
    model.train()
    data = batches(random.Random(seed), held_out)
    smooth_loss = math.log(len(VOCABULARY))
    progress = tqdm(range(steps), unit="step")
    for _ in progress:
        ids, labels = next(data)
        logits = model(input_ids=ids, use_cache=False).logits  # (B, T, V) float32
        loss = cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer, schedule in zip(optimizers, schedules, strict=True):
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
        smooth_loss += 0.03 * (loss.item() - smooth_loss)
        progress.set_postfix(loss=f"{smooth_loss:.4f}", refresh=False)


def main(
    out: Annotated[Path, typer.Option(help="Folder to write.")] = Path("build/tiny"),
    steps: Annotated[int, typer.Option(min=1, help="Optimiser steps of about 3 thousand tokens.")] = 2000,
    seed: Annotated[int, typer.Option(help="Seed of weights and data.")] = 0,
) -> None:
    """Trains the tiny model and writes its folder."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    out.mkdir(parents=True, exist_ok=True)
    held_out: set[str] = set()
    write_questions(out / "record.jsonl", "record", sample_questions(random.Random(1001), RECORD_QUESTIONS, held_out))
    write_questions(out / "test.jsonl", "test", sample_questions(random.Random(1002), TEST_QUESTIONS, held_out))
    model = build_model()
    start_s = time.perf_counter()
    train(model, steps, seed, held_out)
    training = {
        "format": "tts-tiny-training/1",
        "steps": steps,
        "seed": seed,
        "parameters": sum(p.numel() for p in model.parameters()),
        "seconds": round(time.perf_counter() - start_s, 1),
        "torch": torch.__version__,
    }
    model.generation_config = generation_config()
    model.to(torch.float16).save_pretrained(out)
    build_tokenizer().save_pretrained(out)
    (out / "training.json").write_text(json.dumps(training, indent=1) + "\n", encoding="utf-8")
    typer.echo(f"{out}: {training['parameters']} parameters, {training['seconds']} s")


if __name__ == "__main__":
    typer.run(main)
