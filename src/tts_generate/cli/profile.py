"""`tts-generate profile`: what a device takes for a pass."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tts_generate.cli.base import app, console, given, guarded, plain
from tts_generate.cli.models import check_sampling, device_of, load_model


@app.command()
@guarded
def profile(
    model: Annotated[str, typer.Argument(help="A model's folder or Hub id ('tiny' ships here).")],
    out: Annotated[Path, typer.Option(help="Where the profile goes, as JSON.")],
    max_rows: Annotated[int, typer.Option(min=1, help="Rows of a pass at most.")] = 64,
    passes: Annotated[int, typer.Option(min=1, help="Passes of each kind; the median counts.")] = 5,
    temperature: Annotated[float | None, typer.Option(help="Sampling temperature.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Nucleus sampling.")] = None,
    top_k: Annotated[int | None, typer.Option(min=0, help="Top-k sampling; 0 for none.")] = None,
    dtype: Annotated[str, typer.Option(help="Number type of the weights.")] = "float32",
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1 …")] = "cpu",
) -> None:
    """Measure what a pass of a model takes here, for `sweep --profile` to predict seconds with."""
    from tts_generate.engine.profiling import measure

    sampling = given(temperature=temperature, top_p=top_p, top_k=top_k)
    check_sampling(sampling)
    loaded, tokenizer = load_model(model, dtype, device_of(device))
    found = measure(loaded, tokenizer, max_rows=max_rows, passes=passes, do_sample=True, **sampling)
    table = plain(f"{model}: seconds of a pass")
    for column in ("rows", "alone", "behind 256 columns each"):
        table.add_column(column, justify="right")
    for rows in found.tokens:
        alone, behind = found.passes([rows, rows], [0, 256 * rows])
        table.add_row(str(rows), f"{alone:.4f}", f"{behind:.4f}")
    console.print(table)
    if found.error:
        median, worst = (100 * found.error[name] for name in ("median", "worst"))
        console.print(f"Between these it is wrong by {median:.0f} % (median), {worst:.0f} % at worst.")
    found.save(out)
    console.print(f"Wrote {out}.")
