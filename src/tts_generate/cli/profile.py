"""`tts-generate profile`: what a device takes for a pass, or servers as seen from here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from tts_generate.cli.base import (
    ApiKey,
    Dtype,
    MaxInFlight,
    ModelHereOrThere,
    Temperature,
    Tokenizer,
    TopK,
    TopP,
    app,
    console,
    given,
    guarded,
    plain,
    refuse,
)  # fmt: skip
from tts_generate.cli.models import check_sampling, device_of, load_model, servers_of
from tts_generate.errors import InputError


@app.command()
@guarded
def profile(
    out: Annotated[Path, typer.Option(help="Where the profile goes, as JSON.")],
    model: ModelHereOrThere = None,
    max_rows: Annotated[
        int | None, typer.Option(min=1, help="Rows of a pass at most (64; with --server, requests at once).")
    ] = None,
    passes: Annotated[
        int | None, typer.Option(min=1, help="Passes of each kind at least, of a model here (5).")
    ] = None,
    temperature: Temperature = None,
    top_p: TopP = None,
    top_k: TopK = None,
    dtype: Dtype = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1 … (cpu).")] = None,
    server: Annotated[
        list[str] | None,
        typer.Option(help="Address of a completions endpoint with the model; repeatable. It should be idle."),
    ] = None,
    tokenizer: Tokenizer = None,
    max_in_flight: MaxInFlight = None,
    extra_body: Annotated[
        str | None, typer.Option(help='With --server: fields for every request; vLLM: {"ignore_eos": true}.')
    ] = None,
    api_key: ApiKey = None,
) -> None:
    """Measure what a pass of a model takes here or at servers, for `sweep --profile` to predict seconds with."""
    sampling = given(temperature=temperature, top_p=top_p, top_k=top_k)
    check_sampling(sampling)
    here = given(passes=passes, dtype=dtype, device=device)
    there = given(tokenizer=tokenizer, max_in_flight=max_in_flight, extra_body=extra_body)
    refuse(here if server else there, "for a model here" if server else "for --server only")
    if model is None and not server:
        raise InputError("profile needs a model: a folder, a Hub id, 'tiny', or --server with an address.")
    rows = given(max_rows=max_rows)
    if server:
        from tts_generate.server.profiling import measure as measure_servers

        servers = servers_of(server, model=model, api_key=api_key, **there)
        found = measure_servers(servers, **rows, **sampling)
    else:
        found = _here(str(model), here, rows, sampling)
    _tell(found, model or "the server")
    found.save(out)
    console.print(f"Wrote {out}.")


def _here(model: str, here: dict[str, Any], rows: dict[str, Any], sampling: dict[str, Any]) -> Any:
    from tts_generate.engine.profiling import measure

    loaded, tokenizer = load_model(model, here.pop("dtype", "float32"), device_of(here.pop("device", "cpu")))
    return measure(loaded, tokenizer, **here, **rows, do_sample=True, **sampling)


def _tell(found: Any, model: str) -> None:
    """Seconds of passes, and how wrong they are in between."""
    table = plain(f"{model}: seconds of a pass", "rows", "alone", "behind 256 columns each", words=0)
    for rows in found.tokens:
        alone, behind = found.passes([rows, rows], [0, 256 * rows])
        table.add_row(str(rows), f"{alone:.4f}", f"{behind:.4f}")
    console.print(table)
    if found.error:
        median, worst = (100 * found.error[name] for name in ("median", "worst"))
        console.print(f"Between these it is wrong by {median:.0f} % (median), {worst:.0f} % at worst.")
