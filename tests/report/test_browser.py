"""The page in a real Chromium: no complaint, no request, keys, dark mode, and enough frames a second."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import report_page
from report_pages import HOSTILE, hostile_page

from tts_generate.evaluate import baselines, methods
from tts_generate.replay import Recording
from tts_generate.report.gather import of_recordings
from tts_generate.report.page import render

if report_page.chromium() is None or find_spec("playwright") is None:
    pytest.skip(
        "needs Chromium (apt-get install chromium, or $CHROMIUM) and playwright (pip install playwright)",
        allow_module_level=True,
    )


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with report_page.browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def tiny_page(tiny_recording: Recording, tmp_path_factory: pytest.TempPathFactory) -> Path:
    watched = methods(["cmc", "parallel_probe"], [0.5])
    page = of_recordings([Path("tiny")], [tiny_recording], watched, watched, baselines(64), shuffles=2)
    path = tmp_path_factory.mktemp("page") / "tiny.html"
    path.write_text(render(page), "utf-8")
    return path


class Opened:
    """A page, and what it said and asked for since it was opened."""

    def __init__(self, chromium: Any, path: Path, **options: Any) -> None:
        self.page = chromium.new_page(viewport={"width": 1280, "height": 900}, **options)
        self.said: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("dialog", lambda dialog: self.said.append(dialog.message))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(path.as_uri())
        self.page.wait_for_selector("html[data-watch]")

    def moves(self) -> list[str]:
        """ "move 3 of 20" of each side that is shown."""
        stands = self.page.locator(".side:not([hidden]) .stand").all_text_contents()
        return [stand.split(" · ")[0] for stand in stands]

    def settled(self) -> None:
        self.page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


@pytest.fixture
def opened(chromium: Any, tiny_page: Path) -> Iterator[Opened]:
    found = Opened(chromium, tiny_page)
    yield found
    assert found.said == []
    assert found.asked == [tiny_page.as_uri()]
    found.page.close()


@pytest.mark.long
def test_it_opens_at_the_end_of_both_episodes(opened: Opened, tiny_recording: Recording) -> None:
    from tts_generate.loading import load_controller

    stands = opened.page.locator(".stand").all_text_contents()
    for stand, name in zip(stands, ("cmc", "parallel_probe"), strict=True):
        trace = tiny_recording.trace(load_controller(name, beta=0.5), 0)
        last = trace.events[-1]
        assert f"move {len(trace.events)} of {len(trace.events)}" in stand
        assert f"{last['tokens']:,} tokens" in stand
        assert f"answers {last['answer']}" in stand


def test_keys_move_through_the_episode(opened: Opened) -> None:
    page = opened.page
    last = opened.moves()
    page.focus("#watch-time")
    page.keyboard.press("Home")
    opened.settled()
    assert all(move.startswith("move 1 of") for move in opened.moves())
    page.keyboard.press("ArrowRight")
    opened.settled()
    assert sum(move.startswith("move 2 of") for move in opened.moves()) >= 1
    page.keyboard.press("ArrowLeft")
    opened.settled()
    assert all(move.startswith("move 1 of") for move in opened.moves())
    page.keyboard.press("Space")
    assert page.get_attribute("#watch-play", "aria-pressed") == "true"
    page.wait_for_function("() => document.getElementById('watch-time').valueAsNumber > 0")
    page.keyboard.press("End")
    opened.settled()
    assert page.get_attribute("#watch-play", "aria-pressed") == "false"
    assert opened.moves() == last
    page.keyboard.press("]")
    page.wait_for_function("() => document.getElementById('watch-question').selectedIndex === 1")
    page.keyboard.press("[")
    page.wait_for_function("() => document.getElementById('watch-question').selectedIndex === 0")


def test_a_branch_can_be_read_by_keys_and_by_pointer(opened: Opened) -> None:
    page = opened.page
    lanes = page.locator("#watch-left-side canvas.lanes")
    lanes.focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    opened.settled()
    assert page.locator("#watch-left-side .lane").text_content().startswith("branch 1: opened in move 1, depth")
    lanes.hover(position={"x": 60, "y": 8})
    opened.settled()
    assert page.locator("#watch-left-side .lane").text_content().startswith("branch 0:")


def test_every_control_is_reached_by_tab_and_has_a_name(opened: Opened) -> None:
    page = opened.page
    page.focus("#watch-question")
    reached = []
    for _ in range(12):
        reached.append(page.evaluate("() => document.activeElement.id || document.activeElement.className"))
        page.keyboard.press("Tab")
    wanted = ["watch-question", "watch-before", "watch-after", "watch-left", "watch-right", "watch-clock"]
    assert [name for name in reached if name in wanted] == wanted
    assert {"watch-play", "watch-time", "lanes"} <= set(reached)
    names = page.eval_on_selector_all("#watch canvas", "(all) => all.map((one) => one.getAttribute('aria-label'))")
    assert all(name for name in names)


def test_two_controllers_or_one_and_another_clock(opened: Opened) -> None:
    page = opened.page
    page.select_option("#watch-clock", "moves")
    page.select_option("#watch-right", "SC@64")
    opened.settled()
    assert page.locator("#watch-right-side h3").text_content() == "SC@64"
    page.select_option("#watch-right", "cmc β=0.5")
    opened.settled()
    assert page.locator("#watch-right-side").is_hidden()


def test_the_table_sorts_and_opens_a_question(opened: Opened) -> None:
    page = opened.page
    head = page.locator("#questions th button").nth(3)
    tokens = "(rows) => rows.map((row) => Number(row.cells[3].textContent.replaceAll(',', '')))"
    for turn in (1, -1):
        head.click()
        found = page.eval_on_selector_all("#questions tbody tr", tokens)
        assert found == sorted(found, reverse=turn < 0)
    name = page.locator("[data-question]").nth(2).text_content()
    page.locator("[data-question]").nth(2).click()
    page.wait_for_selector(f"html[data-watch='{name}']")


def colours_of(found: Opened) -> tuple[str, bytes]:
    ground = found.page.evaluate("() => getComputedStyle(document.body).backgroundColor")
    return ground, found.page.locator("#watch-left-side canvas.lanes").screenshot()


def test_dark_mode_is_dark_at_once_and_on_change(chromium: Any, tiny_page: Path) -> None:
    light, dark = Opened(chromium, tiny_page, color_scheme="light"), Opened(chromium, tiny_page, color_scheme="dark")
    assert colours_of(light)[0] == "rgb(255, 255, 255)"
    assert colours_of(dark)[0] == "rgb(18, 22, 27)"
    light.page.emulate_media(color_scheme="dark")
    light.settled()
    assert colours_of(light) == colours_of(dark)
    for found in (light, dark):
        assert found.said == []
        found.page.close()


def test_hostile_answers_do_nothing(chromium: Any, tmp_path: Path) -> None:
    (tmp_path / "hostile.html").write_text(render(hostile_page()), "utf-8")
    found = Opened(chromium, tmp_path / "hostile.html")
    found.settled()
    assert found.said == []
    assert found.asked == [(tmp_path / "hostile.html").as_uri()]
    assert HOSTILE in found.page.locator("#watch-left-side .stand").text_content()
    found.page.close()


def test_64_branches_of_200_steps_stay_fluid(chromium: Any, tmp_path: Path) -> None:
    path = tmp_path / "long.html"
    path.write_text(report_page.long_page(questions=1), "utf-8")
    page = chromium.new_page(viewport={"width": 1280, "height": 900})
    told = report_page.measured(page, path, seconds=1.0)
    page.close()
    assert told["console_messages"] == told["requests_beside_the_page"] == 0
    assert told["interactive_s"] < 2  # 1 s on a machine that does nothing else: benchmarks/report_page.py
    assert told["frames_per_s"] > 10
