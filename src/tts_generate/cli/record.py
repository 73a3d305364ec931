"""`tts-generate record | import | demo`: trajectories from a model, or from somebody else."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from tts_generate.cli.base import app, console, guarded, importers
from tts_generate.errors import InputError


@importers.command("autotts")
@guarded
def import_autotts(
    json_file: Annotated[Path, typer.Argument(help="A published table, e.g. Qwen3-4B/aime24.json.")],
    out: Annotated[Path, typer.Option(help="Folder of the new store.")],
    model: Annotated[str | None, typer.Option(help="Model name to note; the file's folder if left out.")] = None,
) -> None:
    """Import a table that the authors of AutoTTS published."""
    from tts_generate.trajectories import import_autotts as run

    store = run(json_file, out, model=model)
    console.print(f"{len(store.trajectories())} branches of {len(store.questions)} questions in {out}")


@app.command()
@guarded
def record(
    model: Annotated[str, typer.Argument(help="A model's folder or Hub id; 'tiny' for the one that ships here.")],
    out: Annotated[Path, typer.Option(help="Folder of the store; an unfinished one is gone on with.")],
    questions: Annotated[Path | None, typer.Option(help="JSON lines: question_id, question, gold_answer.")] = None,
    branches: Annotated[int, typer.Option(help="Branches a question.")] = 64,
    seed: Annotated[int, typer.Option(help="Seed of the branches' randomness.")] = 0,
    interval_tokens: Annotated[int | None, typer.Option(help="Tokens of one step.")] = None,
    max_new_tokens: Annotated[int | None, typer.Option(help="Tokens of a branch at most.")] = None,
    temperature: Annotated[float | None, typer.Option(help="Sampling temperature.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Nucleus sampling.")] = None,
    top_k: Annotated[int | None, typer.Option(help="Top-k sampling; 0 for none.")] = None,
    max_rows: Annotated[int, typer.Option(help="Branches decoded in one forward pass at most.")] = 256,
    chat: Annotated[bool, typer.Option("--chat", help="Wrap questions into the model's chat template.")] = False,
    dtype: Annotated[str, typer.Option(help="Number type of the weights.")] = "float32",
    device: Annotated[
        str, typer.Option(help="cpu, cuda, cuda:1 …; under accelerate launch, cuda is a GPU for each.")
    ] = "cpu",
) -> None:
    """Record trajectories of a question set, probed at every step; under `accelerate launch` with all its processes."""
    from tts_generate.engine import record as run
    from tts_generate.engine.processes import launched, own_device
    from tts_generate.trajectories import Question

    asked: list[Question]
    loaded, tokenizer, asked = _load(model, questions, dtype, own_device(device))
    store = run(
        loaded,
        tokenizer,
        asked,
        out,
        branches=branches,
        seed=seed,
        interval_tokens=interval_tokens,
        max_rows=max_rows,
        chat=chat,
        **_given(max_new_tokens=max_new_tokens, temperature=temperature, top_p=top_p, top_k=top_k),
    )
    if not launched().main:
        return
    rows = store.trajectories()
    tokens = sum(row.tokens for row in rows)
    probes = sum(sum(row.probe_tokens) for row in rows)
    console.print(f"{len(rows)} branches of {len(asked)} questions in {out}: {tokens:,} tokens, {probes:,} for probes")


def _given(**options: Any) -> dict[str, Any]:
    """The options that were given."""
    return {name: value for name, value in options.items() if value is not None}


def _load(model: str, questions: Path | None, dtype: str, device: str) -> tuple[Any, Any, list[Any]]:
    import torch

    from tts_generate import tiny
    from tts_generate.trajectories.schema import questions_from_jsonl

    if questions is None and model != "tiny":
        raise InputError("--questions is needed: JSON lines with question_id, question, gold_answer.")
    if questions is not None and not questions.is_file():
        raise InputError(f"{questions} is not a file.")
    asked = tiny.questions("record") if questions is None else None
    if questions is not None:
        asked = list(questions_from_jsonl(questions.read_text("utf-8"), questions))
    kind = getattr(torch, dtype, None)
    if not isinstance(kind, torch.dtype):
        raise InputError(f"--dtype must be a torch type such as float32 or bfloat16, got {dtype!r}.")
    if model == "tiny":
        loaded, tokenizer = tiny.load()
    else:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        try:
            tokenizer = AutoTokenizer.from_pretrained(model)
            loaded = AutoModelForCausalLM.from_pretrained(model, dtype=kind)
        except (OSError, ValueError) as error:
            raise InputError(f"model {model!r} cannot be loaded: {str(error).splitlines()[0]}") from error
    return loaded.to(device=device, dtype=kind).eval(), tokenizer, list(asked or [])


@app.command()
@guarded
def demo(
    out: Annotated[Path, typer.Option(help="Folder of what the demo writes.")] = Path("build/demo"),
    recorded: Annotated[int, typer.Option(help="Questions to record.")] = 32,
    live: Annotated[int, typer.Option(help="Kept-aside questions to answer live.")] = 96,
    branches: Annotated[int, typer.Option(help="Branches a question, in the recording and of the baseline.")] = 64,
) -> None:
    """The main job, end to end, with the tiny model that ships here: record, replay, answer live."""
    from tts_generate.demo import run

    run(out, recorded=recorded, live=live, branches=branches, console=console)
