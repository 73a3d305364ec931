"""The recording of a real language model that ships with the package, out of those of `benchmarks/real_live.py`.

    python benchmarks/real_store.py RECORDING… [--out FOLDER]

Takes the questions of which every branch is recorded, without the tokens of the branches and without the examples that
stood before each question. The recordings must have been made with the same settings.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer
from real_live import TEMPLATE

from tts_generate import real
from tts_generate.publish.store_summary import summarise
from tts_generate.report.store_page import store_page
from tts_generate.trajectories import Question, Trajectory, TrajectoryStore
from tts_generate.trajectories.schema import questions_sha256
from tts_generate.trajectories.store import StoreWriter

MODEL = "Qwen/Qwen2.5-Coder-0.5B-Instruct"
_WORDS = """\
Recorded on a CPU in float32 with the prompts of `benchmarks/real_live.py`, so that replay, search and the demo have
an ordinary language model to work with.
The questions are those of [reasoning-gym](https://github.com/open-thought/reasoning-gym)
(Apache-2.0): `{family}-{seed}-{number}` is what `create_dataset(family, seed=seed, size=number + 1)[number]` asks. The
model read each behind the three worked examples that are in that script; here the question stands alone. Tokens of
the branches are left out. The model: [%s](https://huggingface.co/%s) (Apache-2.0).
"""
_USE = """

## Use

```python
from tts_generate import real
from tts_generate.replay import Recording, replay

result = replay(Recording.from_store(real.path()), "asc", max_samples=32)
print(result.accuracy, result.tokens)
```
"""


def whole(store: TrajectoryStore) -> tuple[list[Question], list[Trajectory]]:
    """The questions of which every branch is there, and those branches."""
    rows = store.trajectories()
    count = Counter(row.question_id for row in rows)
    asked = [question for question in store.questions if count[question.question_id] == store.manifest.branches]
    ids = {question.question_id for question in asked}
    return asked, [dataclasses.replace(row, token_ids=None) for row in rows if row.question_id in ids]


def alone(question: Question) -> Question:
    """A question without the template around it."""
    before, after = TEMPLATE.split("{question}")
    return dataclasses.replace(question, question=question.question.removeprefix(before).removesuffix(after))


def main(
    recordings: Annotated[list[Path], typer.Argument(help="Recordings of one model.")],
    out: Annotated[Path | None, typer.Option(help="The store that is made; the one that ships if left out.")] = None,
) -> None:
    """Write the store, and its card beside it."""
    out = out or real.path()
    stores = [TrajectoryStore.open(folder) for folder in recordings]
    parts = [whole(store) for store in stores]
    questions = [alone(question) for asked, _ in parts for question in asked]
    manifest = stores[0].manifest
    sampled = {name: value for name, value in manifest.generation_config.items() if name != "max_length"}
    for store in stores:  # transformers makes max_length of the longest prompt
        other = {**sampled, "max_length": store.manifest.generation_config["max_length"]}
        alike = dataclasses.replace(manifest, questions_sha256=store.manifest.questions_sha256, generation_config=other)
        assert not alike.difference(store.manifest), "recordings of one model, made alike"
    model = {**manifest.model, "name_or_path": MODEL}
    manifest = dataclasses.replace(
        manifest, model=model, generation_config=sampled, questions_sha256=questions_sha256(questions)
    )
    shutil.rmtree(out, ignore_errors=True)
    with StoreWriter.open(out, manifest, questions) as writer:
        for _, rows in parts:
            writer.append(rows)
        writer.seal()
    made = TrajectoryStore.open(out)
    summary = summarise(made.manifest, made.questions, made.trajectories())
    page = store_page(summary, dataclasses.asdict(made.manifest), repo_id=MODEL, own_words=_WORDS % (MODEL, MODEL))
    (out.parent / "README.md").write_text(page.partition("## Use")[0].strip() + _USE, "utf-8")
    print(summary)


if __name__ == "__main__":
    typer.run(main)
