"""Answer questions on a completions server, with and without a controller, and see what each took.

transformers serve src/tts_generate/tiny --port 8000          # or vllm serve, or an SGLang server
python examples/server.py http://127.0.0.1:8000/v1            # more addresses of the same model may follow
"""

from __future__ import annotations

from typing import Annotated

import typer
from transformers import AutoTokenizer

from tts_generate import ServerModel, tiny


def main(
    urls: Annotated[list[str], typer.Argument(help="Addresses of servers with one model.")],
    questions: Annotated[int, typer.Option(help="Questions to answer.")] = 4,
    seed: Annotated[int | None, typer.Option(help="Seed of the requests; none is sent if left out.")] = None,
) -> None:
    """Compare a fixed number of branches with a controller."""
    model = ServerModel(urls, tokenizer=AutoTokenizer.from_pretrained(tiny.path()))
    asked = tiny.questions("test")[:questions]
    for controller, beta in (("self_consistency", 0.1), ("cmc", 0.1)):
        output = model.generate(
            [question.question for question in asked],
            controller=controller,
            beta=beta,
            seed=seed,
            interval_tokens=32,  # what follows is in the generation config of the tiny model, which no server tells
            max_new_tokens=320,
            max_probe_tokens=4,
            probe_suffix="</think>\\boxed{",
            temperature=1.0,
        )
        right = sum(answer == question.gold_answer for answer, question in zip(output.answers, asked, strict=True))
        print(f"{controller:17} {right} of {len(asked)} right, {output.total_cost}")
        print(f"{'':17} {output.usage.requests} requests, {output.usage.sent_tokens:,} tokens sent with them")


if __name__ == "__main__":
    typer.run(main)
