"""The weight and speed of the page of `tts-generate report` in a real browser; its pictures go into docs/images.

    python benchmarks/report_page.py [benchmarks/results/report_page.json]

Needs Chromium (on the PATH, or named by $CHROMIUM) and playwright. Two pages are measured: the report of a store of the
tiny model, 64 branches of 30 questions, and the trace viewer alone with 64 branches of 200 steps of 30 questions.
"""

from __future__ import annotations

import json
import os
import platform
import random
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tts_generate.controller import Controller, Knob
from tts_generate.loading import load_controller
from tts_generate.replay import Recording
from tts_generate.report.page import Asked, Page, render
from tts_generate.state import Decision, State
from tts_generate.trajectories import Question, Trajectory

ROOT = Path(__file__).resolve().parent.parent
IMAGES = ROOT / "docs" / "images"
FRAMES = """async (seconds) => {
  const gaps = [];
  document.getElementById("watch-play").click();
  let before = await new Promise(requestAnimationFrame);
  for (const end = before + 1000 * seconds; before < end;) {
    const now = await new Promise(requestAnimationFrame);
    gaps.push(now - before);
    before = now;
  }
  document.getElementById("watch-play").click();
  return gaps;
}"""
"""Plays for some seconds; the milliseconds between frames."""
LOADED = """() => {
  const [page] = performance.getEntriesByType("navigation");
  return { parsed: page.domInteractive, shown: window.watchedAt };
}"""


def chromium() -> str | None:
    """Where a Chromium is: $CHROMIUM, or one on the PATH."""
    names = (os.environ.get("CHROMIUM", ""), "chromium", "chromium-browser", "google-chrome", "chrome")
    return next((found for name in names if name and (found := shutil.which(name))), None)


@contextmanager
def browser() -> Iterator[Any]:
    """A headless Chromium, driven by playwright."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        yield opened
        opened.close()


def long_recording(branches: int = 64, steps: int = 200, questions: int = 30, interval_tokens: int = 500) -> Recording:
    """Branches of `steps` steps each, probed at every one; answers wander and settle on a few."""
    rng = random.Random(0)
    asked = [Question(f"long-{n}", "a question with long branches", "1") for n in range(questions)]
    rows = []
    for question in asked:
        for branch in range(branches):
            answers = [str(rng.randint(1, 12))]
            for step in range(1, steps):
                settled = rng.random() < step / steps
                wander = str(1 + branch % 3) if settled else str(rng.randint(1, 12))
                answers.append(wander if rng.random() < 0.15 else answers[-1])
            tokens = interval_tokens * steps
            rows.append(
                Trajectory(
                    question_id=question.question_id,
                    branch=branch,
                    seed=0,
                    prompt_tokens=50,
                    tokens=tokens,
                    finish_reason="eos",
                    final_answer=answers[-1],
                    probe_positions=tuple(interval_tokens * (k + 1) for k in range(steps - 1)),
                    probe_answers=tuple(answers[:-1]),
                    probe_tokens=(10,) * (steps - 1),
                    probe_logprobs=(None,) * (steps - 1),
                    step_logprobs=(),
                )
            )
    return Recording.of(asked, rows, interval_tokens)


class EveryStep(Controller):
    """Reads `width` branches to their end, a step at a time."""

    width: int

    @staticmethod
    def schedule(beta: float) -> dict[str, Knob]:
        """`width` from 1 to 64."""
        return {"width": 1 + round(63 * beta)}

    def begin(self, state: State, do: Decision) -> None:
        """Open all of them."""
        do.open = self.width

    def plan(self, state: State, do: Decision) -> None:
        """A step each."""
        for i in range(state.opened):
            do.steps[i] = 1


def long_page(questions: int = 30) -> str:
    """A page on which one of two controllers reads every step of 64 branches of 200 steps."""
    recording = long_recording(questions=questions)
    controllers = {
        "every step": EveryStep.from_beta(1.0),
        "answer_stability β=1": load_controller("answer_stability", beta=1.0),
    }
    asked = [
        Asked(
            recorded.question.question_id,
            recorded.question.question,
            recorded.question.gold_answer,
            [None] * len(controllers),
            [recording.trace(controller, number) for controller in controllers.values()],
        )
        for number, recorded in enumerate(recording.questions)
    ]
    return render(Page("64 branches of 200 steps", {}, methods=list(controllers), asked=asked))


def measured(page: Any, path: Path, seconds: float) -> dict[str, Any]:
    """Open a page three times (the last counts), play it, and say what was seen."""
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.add_init_script(
        "new MutationObserver((_, watch) => { if (document.documentElement?.dataset.watch) {"
        " window.watchedAt ??= performance.now(); watch.disconnect(); } }).observe(document, "
        "{ attributes: true, subtree: true, attributeFilter: ['data-watch'] });"
    )
    for _ in range(3):
        page.goto(path.as_uri())
        page.wait_for_selector("html[data-watch]")
    told = page.evaluate(LOADED)
    gaps = sorted(page.evaluate(FRAMES, seconds))
    return {
        "bytes": path.stat().st_size,
        "interactive_s": told["shown"] / 1000,
        "frames_per_s": 1000 * len(gaps) / sum(gaps),
        "frame_ms_median": gaps[len(gaps) // 2],
        "frame_ms_95_percent": gaps[int(0.95 * len(gaps))],
        "console_messages": len(said),
        "requests_beside_the_page": len([url for url in asked if url != path.as_uri()]),
    }


def pictures(opened: Any, path: Path) -> None:
    """What the README and the docs show: the viewer, half-way, in the light and in the dark; the whole page."""
    IMAGES.mkdir(parents=True, exist_ok=True)
    for scheme in ("light", "dark"):
        page = opened.new_page(viewport={"width": 1280, "height": 900}, color_scheme=scheme)
        page.goto(path.as_uri())
        page.wait_for_selector("html[data-watch]")
        page.select_option("#watch-question", SHOWN)
        page.wait_for_selector(f"html[data-watch='{SHOWN}']")
        page.screenshot(
            path=IMAGES / f"report-{scheme}.png", full_page=True, clip={"x": 0, "y": 0, "width": 1280, "height": 1620}
        )
        page.locator("#watch").screenshot(path=IMAGES / f"viewer-{scheme}.png")
        page.close()


SHOWN = "record-001"
"""A question of the tiny model on which branches are opened in waves and some are pruned."""


def main(out: Path) -> None:
    """Make the pages, measure them, write the JSON and the pictures."""
    from tts_generate import record, tiny
    from tts_generate.cli import app

    load = os.getloadavg()[0]  # of others: this machine may be shared
    with tempfile.TemporaryDirectory() as folder, browser() as opened:
        place = Path(folder)
        record(*tiny.load(), tiny.questions("record")[:30], place / "tiny", branches=64)
        os.chdir(place)  # so that the page names the store without our temporary folder
        app(["report", "tiny", "--out", "page.html"], standalone_mode=False)
        (place / "long.html").write_text(long_page(), "utf-8")
        size = {"width": 1280, "height": 900}
        told = {
            name: measured(opened.new_page(viewport=size), place / f"{name}.html", seconds=4.0)
            for name in ("page", "long")
        }
        pictures(opened, place / "page.html")
        version = opened.version
    result = {
        "format": "tts-report-page/1",
        "page": {"questions": 30, "branches": 64, "methods_traced": 4, **told["page"]},
        "long": {"questions": 30, "branches": 64, "steps": 200, "methods_traced": 2, **told["long"]},
        "chromium": version,
        "load_before": load,
        "python": platform.python_version(),
        "cores": os.cpu_count(),
    }
    out.write_text(json.dumps(result, indent=2) + "\n", "utf-8")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else ROOT / "benchmarks" / "results" / "report_page.json")
