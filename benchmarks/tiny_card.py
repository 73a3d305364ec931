"""Measures the shipped tiny model on its kept-aside questions and writes the numbers of its card.

    python benchmarks/tiny_card.py

Samples 64 branches of every kept-aside question with transformers' own `generate`, then asks each branch for its
answer at four depths. About 15 minutes on one core.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from scipy.stats import bootstrap
from tqdm import tqdm
from transformers import PreTrainedTokenizerBase, Qwen3ForCausalLM

from tts_generate import tiny
from tts_generate.answers import AnswerFormat
from tts_generate.votes import NO_ANSWER, confidence, majority

BRANCHES = 64
RESAMPLINGS = 200
DEPTHS_PERCENT = (25, 50, 75, 100)
RESULT = Path(__file__).parent / "results" / "tiny_card.json"

Digits = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Sample:
    """All branches of all questions (Q questions, B branches)."""

    gold: Digits
    """Right answers, (Q,)."""
    tokens: list[list[list[int]]]
    """Generated token ids of each branch of each question, the end-of-sequence token included."""
    answers: Digits
    """Final answers, (Q, B); `NO_ANSWER` for an unfinished branch."""

    @property
    def lengths(self) -> Digits:
        """Generated tokens, (Q, B)."""
        return np.array([[len(branch) for branch in branches] for branches in self.tokens])


def digit(text: str | None) -> int:
    """The answer as a number; `NO_ANSWER` if `text` is not one digit."""
    return int(text) if text is not None and text in tuple("0123456789") else NO_ANSWER


def sample_branches(model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerBase, per_batch: int) -> Sample:
    """Samples every kept-aside question, `per_batch` questions of like length in a batch."""
    questions = tiny.questions("test")
    order = sorted(range(len(questions)), key=lambda q: len(questions[q].question))
    tokens: list[list[list[int]]] = [[] for _ in questions]
    pad, eos = model.generation_config.pad_token_id, model.generation_config.eos_token_id
    for start in tqdm(range(0, len(order), per_batch), desc="sample", unit="batch"):
        rows = order[start : start + per_batch]
        inputs = tokenizer([questions[q].question for q in rows], return_tensors="pt", padding=True)
        prompt_tokens = inputs["input_ids"].shape[1]
        out = model.generate(**inputs, num_return_sequences=BRANCHES)[:, prompt_tokens:].tolist()
        for i, row in enumerate(out):
            branch = [token for token in row if token != pad]
            if eos in branch and branch.index(eos) != len(branch) - 1:
                raise AssertionError("a branch goes on after its end")
            tokens[rows[i // BRANCHES]].append(branch)
    find = AnswerFormat(probe_suffix=model.generation_config.probe_suffix).find
    answers = [[digit(find(text)) for text in tokenizer.batch_decode(branches)] for branches in tokens]
    return Sample(np.array([int(q.gold_answer) for q in questions]), tokens, np.array(answers))


@torch.inference_mode()
def probe_branches(model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerBase, sample: Sample, percent: int) -> Digits:
    """Answers when each branch is stopped at `percent` of its thinking and the suffix is forced, greedy; (Q, B)."""
    suffix = tokenizer(model.generation_config.probe_suffix)["input_ids"]
    think_end = suffix[0]
    answers = np.full_like(sample.answers, NO_ANSWER)
    for q, question in enumerate(tqdm(tiny.questions("test"), desc=f"probe {percent} %", unit="question")):
        prompt = tokenizer(question.question)["input_ids"]
        texts = []
        for branch in sample.tokens[q]:
            thinking = branch[: branch.index(think_end)] if think_end in branch else branch
            texts.append(prompt + thinking[: round(len(thinking) * percent / 100)] + suffix)
        last = torch.tensor([len(text) - 1 for text in texts])
        # Right padding needs no mask: attention is causal and nothing right of the suffix is read.
        padded = torch.nn.utils.rnn.pad_sequence([torch.tensor(text) for text in texts], batch_first=True)
        logits = model(input_ids=padded, use_cache=False).logits  # (B, T, V) float32
        said = logits[torch.arange(len(texts)), last].argmax(-1)
        answers[q] = [digit(token) for token in tokenizer.convert_ids_to_tokens(said.tolist())]
    return answers


def vote(answers: Digits) -> int:
    """The majority's answer."""
    return majority(answers, len(answers))[0]


def adaptive(answers: Digits, lengths: Digits, threshold: float = 0.95) -> tuple[int, int, int]:
    """Adaptive consistency over the branches in order: (answer, branches read, their tokens)."""
    for read in range(2, len(answers) + 1):
        answer, first, second = majority(answers, read)
        if confidence(first, second) > threshold:
            break
    return answer, read, int(lengths[:read].sum())


def mean_over_orders(
    sample: Sample, rng: np.random.Generator, score: Callable[[int, Digits], float]
) -> NDArray[np.float64]:
    """`score(question, order of its branches)` averaged over random orders, one value a question, (Q,)."""
    scores = np.zeros(len(sample.gold))
    for q in range(len(sample.gold)):
        orders = (rng.permutation(BRANCHES) for _ in range(RESAMPLINGS))
        scores[q] = np.mean([score(q, order) for order in orders])
    return scores


def estimate(per_question: NDArray[np.float64]) -> dict[str, float]:
    """The mean over questions and its 95 % interval, by resampling questions (paired, as one value is one question)."""
    interval = bootstrap((per_question,), np.mean, n_resamples=10_000, method="percentile", rng=0).confidence_interval
    return {"mean": float(per_question.mean()), "low": float(interval.low), "high": float(interval.high)}


def vote_numbers(sample: Sample) -> dict[str, Any]:
    """Accuracy by number of votes, the gaps between them, and what adaptive consistency reads."""
    rng = np.random.default_rng(0)
    right = {1: (sample.answers == sample.gold[:, None]).mean(1)}
    for votes in (4, 8, 16, 32, 64):
        right[votes] = mean_over_orders(
            sample, rng, lambda q, order, n=votes: vote(sample.answers[q, order[:n]]) == sample.gold[q]
        )
    runs: list[tuple[int, int]] = []

    def asc_right(q: int, order: Digits) -> bool:
        answer, read, tokens = adaptive(sample.answers[q, order], sample.lengths[q, order])
        runs.append((read, tokens))
        return answer == sample.gold[q]

    asc = estimate(mean_over_orders(sample, rng, asc_right))
    branches_read, tokens_read = np.mean(runs, axis=0)
    return {
        "accuracy": {f"votes_{votes}": estimate(values) for votes, values in right.items()},
        "gap": {
            "votes_64_over_1": estimate(right[64] - right[1]),
            "votes_64_over_8": estimate(right[64] - right[8]),
        },
        "asc": asc | {"branches": branches_read, "token_share": tokens_read / sample.lengths.sum(1).mean()},
        "pass_at_1_histogram": np.histogram(right[1], 10, (0, 1))[0].tolist(),
    }


def probe_numbers(model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerBase, sample: Sample) -> dict[str, Any]:
    """Accuracy of probes by depth, of one branch and of the majority of all."""
    numbers: dict[str, Any] = {}
    for percent in DEPTHS_PERCENT:
        answers = probe_branches(model, tokenizer, sample, percent)
        numbers[f"percent_{percent}"] = {
            "branch": float((answers == sample.gold[:, None]).mean()),
            "majority": float(np.mean([vote(row) for row in answers] == sample.gold)),
            "equals_final_answer": float((answers == sample.answers).mean()),
        }
    return numbers


def file_numbers() -> dict[str, int]:
    """Size in bytes of the weights."""
    return {"weights": (tiny.path() / "model.safetensors").stat().st_size}


def main(
    out: Annotated[Path, typer.Option(help="JSON file to write.")] = RESULT,
    threads: Annotated[int, typer.Option(min=1)] = 1,
    per_batch: Annotated[int, typer.Option(min=1, help="Questions sampled together.")] = 4,
) -> None:
    """Measures the tiny model and writes the numbers of its card."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    model, tokenizer = tiny.load()
    sample = sample_branches(model, tokenizer, per_batch)
    p10, p50, p90, longest = np.percentile(sample.lengths, (10, 50, 90, 100)).tolist()
    card = {
        "format": "tts-tiny-card/1",
        "questions": len(sample.gold),
        "branches": BRANCHES,
        **vote_numbers(sample),
        "length_tokens": {"mean": sample.lengths.mean(), "p10": p10, "p50": p50, "p90": p90, "max": longest},
        "length_p90_over_p10": p90 / p10,
        "unfinished_share": float((sample.answers == NO_ANSWER).mean()),
        "probes": probe_numbers(model, tokenizer, sample),
        "bytes": file_numbers(),
        "training": json.loads((tiny.path() / "training.json").read_text(encoding="utf-8")),
    }
    out.write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
    typer.echo(f"wrote {out}")


if __name__ == "__main__":
    typer.run(main)
