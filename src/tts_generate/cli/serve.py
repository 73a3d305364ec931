"""`tts-generate serve`: an OpenAI-compatible server, each of whose answers a controller decides on."""

from __future__ import annotations

import warnings
from typing import Annotated

import typer

from tts_generate.cli.base import (
    AnswerPattern,
    Beta,
    Confined,
    Controller,
    IntervalTokens,
    Knobs,
    Latency,
    MaxProbeTokens,
    ProbeSuffix,
    ThinkEnd,
    Trust,
    VotesBy,
    app,
    complaints,
    console,
    given,
    guarded,
    knobs_of,
)  # fmt: skip
from tts_generate.cli.models import check_sampling, servers_of
from tts_generate.loading import DEFAULT_CONTROLLER

_LOCAL = ("127.0.0.1", "::1", "localhost")


@app.command()
@guarded
def serve(
    upstream: Annotated[
        list[str], typer.Option(help="Address of a completions endpoint with the model; repeatable, for several.")
    ],
    controller: Controller = DEFAULT_CONTROLLER,
    beta: Beta = None,
    latency: Latency = None,
    knobs: Knobs = None,
    trust_remote_code: Trust = False,
    sandbox: Confined = False,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port there; 0 for any.")] = 8010,
    name: Annotated[str | None, typer.Option(help="What clients call the model; as upstream if left out.")] = None,
    client_key: Annotated[
        str | None, typer.Option(envvar="TTS_CLIENT_KEY", show_envvar=True, help="Key that clients must send.")
    ] = None,
    max_requests: Annotated[int, typer.Option(min=1, help="Requests of clients at once; more are sent away.")] = 256,
    max_body: Annotated[int, typer.Option(min=1, help="Bytes of a request at most.")] = 4 << 20,
    model: Annotated[str | None, typer.Option(help="The model's name upstream, where there are several.")] = None,
    tokenizer: Annotated[
        str | None, typer.Option(help="Folder or Hub id of the tokenizer ('tiny' ships here); chats need it.")
    ] = None,
    api_key: Annotated[
        str | None, typer.Option(envvar="TTS_API_KEY", show_envvar=True, help="Bearer token for upstream.")
    ] = None,
    max_in_flight: Annotated[int, typer.Option(min=1, help="Requests at once, at each upstream.")] = 16,
    wait: Annotated[float, typer.Option(min=0, help="Seconds to wait for an upstream that is still starting.")] = 0.0,
    timeout: Annotated[float, typer.Option(help="Seconds without a token after which an upstream has stalled.")] = 600,
    extra_body: Annotated[str | None, typer.Option(help="Fields for every request upstream, as a JSON object.")] = None,
    interval_tokens: IntervalTokens = None,
    max_new_tokens: Annotated[
        int | None, typer.Option(min=1, help="Tokens of a branch, where a client does not say (what upstream holds).")
    ] = None,
    max_branches: Annotated[int, typer.Option(min=1, help="Branches of a question at most, whatever is asked.")] = 128,
    temperature: Annotated[float | None, typer.Option(help="Where a client does not say.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Where a client does not say.")] = None,
    top_k: Annotated[int | None, typer.Option(min=0, help="Where a client does not say; 0 for none.")] = None,
    min_p: Annotated[float | None, typer.Option(help="Where a client does not say.")] = None,
    probe_suffix: ProbeSuffix = None,
    think_end: ThinkEnd = None,
    answer_pattern: AnswerPattern = None,
    max_probe_tokens: MaxProbeTokens = None,
    votes: VotesBy = "equal",
) -> None:
    """Answer OpenAI clients with what a controller makes of a model behind other servers (vLLM, SGLang, …)."""
    from tts_generate.arguments import key
    from tts_generate.loading import load_controller
    from tts_generate.serve.responder import Bounds, ProxySettings
    from tts_generate.serve.run import serve as run

    sampling = given(temperature=temperature, top_p=top_p, top_k=top_k, min_p=min_p)
    check_sampling(sampling)
    asking = given(
        probe_suffix=probe_suffix,
        think_end=think_end,
        answer_pattern=answer_pattern,
        max_probe_tokens=max_probe_tokens,
        votes=votes,
    )
    how = {"trust_remote_code": trust_remote_code, "sandbox": sandbox, **knobs_of(knobs or [])}
    settings = ProxySettings(
        model=servers_of(
            upstream,
            tokenizer,
            extra_body,
            model=model,
            api_key=api_key,
            max_in_flight=max_in_flight,
            timeout=timeout,
            wait=wait,
        ),
        controller=load_controller(controller, beta=beta, latency=latency, **how),
        options={**sampling, **asking},
        interval_tokens=interval_tokens,
        max_new_tokens=max_new_tokens,
        max_branches=max_branches,
    )
    wanted = None if client_key is None else key("client_key", client_key)
    if wanted is None and host not in _LOCAL:
        complaints.print(f"Whoever reaches {host}:{port} can ask: pass --client-key to say who may.")

    def opened(url: str, called: str) -> None:
        console.print(f"{called} is served at {url}, answered by {settings.controller!r}.", soft_wrap=True)

    warnings.simplefilter("always", RuntimeWarning)  # of each question that fails, and none of them remembered
    run(settings, Bounds(key=wanted, max_body=max_body, max_requests=max_requests), name, host, port, opened)
