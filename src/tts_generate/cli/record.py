"""`tts-generate record | import | demo`: trajectories from a model, or from somebody else."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from tts_generate.cli.base import (
    AnswerPattern,
    ApiKey,
    Dtype,
    IntervalTokens,
    MaxInFlight,
    MaxProbeTokens,
    ModelHereOrThere,
    ProbeSuffix,
    Temperature,
    ThinkEnd,
    Tokenizer,
    TopK,
    TopP,
    app,
    console,
    given,
    guarded,
    importers,
    read,
    refuse,
)  # fmt: skip
from tts_generate.cli.models import check_sampling, device_of, load_model, servers_of
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
    out: Annotated[Path, typer.Option(help="Folder of the store; an unfinished one is gone on with.")],
    model: ModelHereOrThere = None,
    questions: Annotated[Path | None, typer.Option(help="JSON lines: question_id, question, gold_answer.")] = None,
    dataset: Annotated[
        str | None,
        typer.Option(
            help="Questions from a file (jsonl, json, parquet, csv), a folder, or the Hub: name or name:config."
        ),
    ] = None,
    split: Annotated[str | None, typer.Option(help="With --dataset: which part (test, or the only one).")] = None,
    question_column: Annotated[str | None, typer.Option(help="With --dataset: guessed if left out.")] = None,
    answer_column: Annotated[
        str | None, typer.Option(help="With --dataset: of answers, or solutions with #### or a box; guessed too.")
    ] = None,
    id_column: Annotated[str | None, typer.Option(help="With --dataset: of ids; guessed, or the row's number.")] = None,
    prompt_template: Annotated[
        str | None, typer.Option(help="With --dataset: text around {question}; other columns in braces too.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only so many questions, the first.")] = None,
    branches: Annotated[int, typer.Option(min=1, help="Branches a question.")] = 64,
    seed: Annotated[
        int | None, typer.Option(help="Seed of the branches' randomness (0; with --server, none is sent).")
    ] = None,
    interval_tokens: IntervalTokens = None,
    max_new_tokens: Annotated[int | None, typer.Option(min=1, help="Tokens of a branch at most.")] = None,
    temperature: Temperature = None,
    top_p: TopP = None,
    top_k: TopK = None,
    min_p: Annotated[float | None, typer.Option(help="Min-p sampling.")] = None,
    stop_string: Annotated[list[str] | None, typer.Option(help="Text that ends a branch; repeatable.")] = None,
    probe_suffix: ProbeSuffix = None,
    think_end: ThinkEnd = None,
    answer_pattern: AnswerPattern = None,
    max_probe_tokens: MaxProbeTokens = None,
    force_answer: Annotated[
        bool | None, typer.Option(help="Ask a branch that is cut without an answer once, at its end (yes).")
    ] = None,
    chat: Annotated[bool, typer.Option("--chat", help="Wrap questions into the model's chat template.")] = False,
    enable_thinking: Annotated[
        bool | None, typer.Option(help="With --chat, for templates that know it: let the model think, or not.")
    ] = None,
    max_rows: Annotated[
        int | None, typer.Option(min=1, help="Branches decoded in one forward pass at most (256).")
    ] = None,
    dtype: Dtype = None,
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda (under accelerate launch: a GPU each), cuda:1 … (cpu).")
    ] = None,
    server: Annotated[
        list[str] | None,
        typer.Option(help="Address of a completions endpoint with the model, e.g. http://host:8000/v1; repeatable."),
    ] = None,
    tokenizer: Tokenizer = None,
    max_in_flight: MaxInFlight = None,
    wait: Annotated[
        float | None, typer.Option(min=0, help="With --server: seconds to wait for one that is still starting (0).")
    ] = None,
    extra_body: Annotated[
        str | None, typer.Option(help="With --server: fields for every request, as a JSON object.")
    ] = None,
    api_key: ApiKey = None,
) -> None:
    """Record trajectories of a question set, probed at every step, on a model here or on servers.

    Under `accelerate launch` all its processes record, into one store.
    """
    options = given(
        interval_tokens=interval_tokens,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_p=top_p,
        top_k=top_k,
        min_p=min_p,
        stop_strings=stop_string or None,
        probe_suffix=probe_suffix,
        think_end=think_end,
        answer_pattern=answer_pattern,
        max_probe_tokens=max_probe_tokens,
        force_answer=force_answer,
    )
    here = given(max_rows=max_rows, dtype=dtype, device=device)
    there = given(tokenizer=tokenizer, max_in_flight=max_in_flight, wait=wait, extra_body=extra_body)
    if model is None and not server:
        raise InputError("record needs a model: a folder, a Hub id, 'tiny', or --server with an address.")
    check_sampling(options)
    refuse(here if server else there, "the server's business" if server else "for --server only")
    columns = given(
        split=split,
        question_column=question_column,
        answer_column=answer_column,
        id_column=id_column,
        prompt_template=prompt_template,
    )
    asked = _asked(model, questions, dataset, limit, columns)
    if enable_thinking is not None and not chat:
        raise InputError("enable_thinking is an argument of the chat template; add --chat.")
    shared = {
        "branches": branches,
        "chat": given(enable_thinking=enable_thinking) or chat,
        **given(seed=seed),
        **options,
    }
    if server:
        rows = _record_there(server, model, asked, out, api_key, there, shared)
    elif (found := _record_here(str(model), asked, out, here, shared)) is not None:
        rows = found
    else:
        return
    tokens = sum(row.tokens for row in rows)
    probes = sum(sum(row.probe_tokens) for row in rows)
    console.print(f"{len(rows)} branches of {len(asked)} questions in {out}: {tokens:,} tokens, {probes:,} for probes")


def _record_here(
    model: str, asked: list[Any], out: Path, here: dict[str, Any], shared: dict[str, Any]
) -> list[Any] | None:
    """The recorded rows; None in all processes of a job but the main one."""
    from tts_generate.engine import record as run
    from tts_generate.engine.processes import launched, own_device

    device = own_device(device_of(here.pop("device", "cpu")))
    loaded, tokenizer = load_model(model, here.pop("dtype", "float32"), device)
    store = run(loaded, tokenizer, asked, out, **here, **shared)
    return store.trajectories() if launched().main else None


def _record_there(
    urls: list[str],
    model: str | None,
    asked: list[Any],
    out: Path,
    api_key: str | None,
    there: dict[str, Any],
    shared: dict[str, Any],
) -> list[Any]:
    store = servers_of(urls, model=model, api_key=api_key, **there).record(asked, out, **shared)
    console.print(f"the servers were spoken to as {store.manifest.model['served']!r}")
    rows: list[Any] = store.trajectories()
    return rows


def _asked(
    model: str | None, questions: Path | None, dataset: str | None, limit: int | None, columns: dict[str, Any]
) -> list[Any]:
    """The questions to record: of a file of ours, of a data set, or those of the model that ships here."""
    from tts_generate import tiny
    from tts_generate.question_sets import load_questions
    from tts_generate.trajectories.schema import questions_from_jsonl

    if dataset is not None:
        if questions is not None:
            raise InputError("--questions and --dataset both say what to ask; leave one out.")
        return load_questions(dataset, limit=limit, **columns)
    refuse(columns, "for --dataset only")
    if questions is None and model != "tiny":
        raise InputError(
            "--questions is needed (JSON lines with question_id, question, gold_answer), or --dataset (a file, a "
            "folder, or a data set of the Hub)."
        )
    if questions is None:
        return tiny.questions("record")[:limit]
    if not questions.is_file():
        raise InputError(f"{questions} is not a file.")
    return list(questions_from_jsonl(read(questions), questions))[:limit]


@app.command()
@guarded
def demo(
    out: Annotated[Path, typer.Option(help="Folder of what the demo writes.")] = Path("build/demo"),
    recorded: Annotated[int, typer.Option(help="Questions to record.")] = 32,
    live: Annotated[int, typer.Option(help="Kept-aside questions to answer live.")] = 40,
    branches: Annotated[int, typer.Option(help="Branches a question, in the recording and of the baseline.")] = 64,
    minutes: Annotated[float, typer.Option(help="Time for the rounds of the search.")] = 0.6,
) -> None:
    """The main job, end to end, with the tiny model that ships here; then replay and search of a real one."""
    from tts_generate.demo.run import run

    run(out, recorded=recorded, live=live, branches=branches, minutes=minutes, console=console)
