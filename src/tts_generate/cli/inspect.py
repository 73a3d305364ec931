"""`tts-generate inspect`: a first look at a model."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated

import typer

from tts_generate.cli.base import JsonFile, ProbeSuffix, ThinkEnd, app, console, guarded, plain, write_json
from tts_generate.cli.models import device_of, load_model

if TYPE_CHECKING:
    from tts_generate.engine.inspection import Inspection

_QUESTION = "A baker fills 7 boxes with 6 rolls each and eats 5 rolls. How many rolls are left?"
_SHOWN = (360, 240)
"""Characters of a branch that are shown, of its beginning and of its end."""


@app.command()
@guarded
def inspect(
    model: Annotated[str, typer.Argument(help="A model's folder or Hub id ('tiny' ships here).")],
    prompt: Annotated[str | None, typer.Option(help="What to ask; a word problem if left out.")] = None,
    no_chat: Annotated[bool, typer.Option("--no-chat", help="Ask the text as it is, without chat template.")] = False,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Tokens of the branch at most.")] = 256,
    seed: Annotated[int, typer.Option(help="Seed of the branch's randomness.")] = 0,
    probe_suffix: ProbeSuffix = None,
    think_end: ThinkEnd = None,
    answer_pattern: Annotated[str | None, typer.Option(help="How answers are read, as of record.")] = None,
    dtype: Annotated[str, typer.Option(help="Number type of the weights.")] = "float32",
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1 …")] = "cpu",
    json_file: JsonFile = None,
) -> None:
    """Show whether a model is supported and how it is asked, and what is read of one branch at its half and its end."""
    from tts_generate import tiny
    from tts_generate.engine.inspection import inspect_model

    loaded, tokenizer = load_model(model, dtype, device_of(device))
    if prompt is None:
        prompt = tiny.questions("test")[0].question if model == "tiny" else _QUESTION
    found = inspect_model(
        loaded,
        tokenizer,
        prompt,
        chat=False if no_chat else None,
        max_new_tokens=max_new_tokens,
        seed=seed,
        probe_suffix=probe_suffix,
        think_end=think_end,
        answer_pattern=answer_pattern,
    )
    table = plain("")
    table.show_header = False
    for name, text in _rows(found):
        table.add_row(name, text)
    console.print(table)
    if json_file is not None:
        write_json(json_file, {"format": "tts-inspect/1", **dataclasses.asdict(found)})
    if found.refused is not None:
        raise typer.Exit(1)
    if found.answer is None or found.half is None or found.half.answer is None:
        console.print(
            "Where none is read, see how the branch states its answer: --answer-pattern takes hashes, tag, sentence, "
            "choice, number, text, json:KEY, auto or a regular expression; or have the prompt ask for \\boxed{}.",
            soft_wrap=True,
        )


def _rows(found: Inspection) -> list[tuple[str, str]]:
    asked, context = found.asked, "" if found.context is None else f", context {found.context:,} tokens"
    end = repr(asked.think_end) if asked.think_end else "none apart"
    rows = [
        ("model", f"{found.model}, {found.parameters:,} parameters{context}"),
        ("strategy='autotts'", "supported" if found.refused is None else f"refused: {found.refused}"),
        ("think_end", f"{end}: {found.thinking}"),
        ("probe_suffix", repr(asked.probe_suffix)),
        ("answer_pattern", f"{asked.answer_pattern}; a probe takes {asked.max_probe_tokens} tokens at most"),
        ("interval_tokens", f"{found.interval_tokens} of max_new_tokens={found.max_new_tokens}"),
        ("prompt", f"{'in the chat template' if found.chat else 'as it is'}: {found.prompt!r}"),
    ]
    if found.refused is not None:
        return rows
    rows.append(("branch", _short(found.text)))
    if (half := found.half) is not None:
        said = f"{half.forced!r} is forced, it says {half.said!r}" if half.forced else "it had stated its answer"
        rows.append((f"at {half.tokens} tokens", f"{said}: {_told(half.answer)}"))
    ended = "cut by max_new_tokens" if found.finish_reason == "length" else "it ended by itself"
    ended += ", and asked there" if found.forced else ""
    return [*rows, (f"at {found.tokens} tokens", f"{ended}: {_told(found.answer)}")]


def _told(answer: str | None) -> str:
    return "no answer is read" if answer is None else f"the answer {answer!r}"


def _short(text: str) -> str:
    first, last = _SHOWN
    return text.strip() if len(text) <= first + last else f"{text[:first].strip()} […] {text[-last:].strip()}"
