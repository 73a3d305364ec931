"""What the documents say runs: every python and bash block of every page, in its order, in a folder of its own.

A block that cannot run here says why in the line before it, in words that the reader sees: `*Not run here: …*`. What
stands in a `text` block after a python block is what that prints.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from forked import Forked, command

from tts_generate import tiny
from tts_generate.trajectories.schema import questions_to_jsonl

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^(?P<before>[^\n]*)\n+```(?P<kind>[^\n]*)\n(?P<code>.*?)^```$", re.DOTALL | re.MULTILINE)
KINDS = {"python", "bash", "text", "json"}
"""The first two run."""
NOT_RUN = re.compile(r"^\*Not run here: .{8,}\*$")
ELSEWHERE = {
    "hub.md": "tests/hub/test_docs.py",
    "stores-on-the-hub.md": "tests/hub/test_docs_of_stores.py",
    "harnesses.md": "tests/harness/test_examples.py",
    "search-agent.md": "tests/search/test_agent.py",
    "serving.md": "tests/server/test_page.py",
    "proxy.md": "tests/serve/test_page.py",
    "vllm.md": "tests/server/test_vllm.py",
}
"""Pages whose blocks need more than an empty folder (a Hub, a provider, a harness), and the tests that run them."""


def blocks(text: str) -> list[tuple[str, str]]:
    """Kind and code of each block that is to run, and of each that says what the one before printed."""
    fenced = [match.groupdict() for match in BLOCK.finditer("\n" + text)]
    return [(b["kind"], b["code"]) for b in fenced if b["kind"] != "json" and not NOT_RUN.match(b["before"])]


@pytest.mark.long
@pytest.mark.parametrize("page", [page for page in PAGES if page.name not in ELSEWHERE], ids=lambda page: page.name)
def test_every_block_runs(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Blocks of one page run in order; names go from one python block to the next.

    The folder of a page holds `questions.jsonl`, which a reader is told to have, and nothing else.
    """
    asked = tiny.questions("record")[:8]
    (tmp_path / "questions.jsonl").write_text(questions_to_jsonl(asked), "utf-8")
    monkeypatch.chdir(tmp_path)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {"TMPDIR": str(tmp_path), "PATH": path}  # the first is of pytest in a block
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    names: dict[str, object] = {"__name__": page.stem}
    for kind, code in blocks(page.read_text("utf-8")):
        if kind == "python":
            capsys.readouterr()
            exec(compile(code, str(page), "exec"), names)
        elif kind == "text":
            assert capsys.readouterr().out == code
        elif (commands := plain_commands(code)) is not None:
            for words in commands:
                done = Forked(command, str(tmp_path), words, **environment)
                out, err = done.communicate(timeout=240)
                assert done.returncode == 0, f"{words}\n{out}\n{err}"
        else:
            done = subprocess.run(["bash", "-euo", "pipefail", "-c", code], capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"{code}\n{done.stdout}\n{done.stderr}"


def plain_commands(code: str) -> list[list[str]] | None:
    """The arguments of each `tts-generate` of a block that holds nothing else; None where it needs a shell."""
    found = [shlex.split(line, comments=True) for line in code.replace("\\\n", " ").splitlines()]
    plain = all(words[:1] == ["tts-generate"] and not {"&&", "||", "|", ">", ";"} & set(words) for words in found)
    return [words[1:] for words in found] if plain else None


def test_which_blocks_need_a_shell() -> None:
    assert plain_commands("tts-generate record \\\n  tiny # so\ntts-generate history run\n") == [
        ["record", "tiny"], ["history", "run"],
    ]  # fmt: skip
    assert plain_commands("tts-generate store check store && exit 1\n") is None
    assert plain_commands("pip install x\n") is None


def test_blocks_are_found_and_the_marked_are_left_out() -> None:
    text = "a\n\n```python\nx = 1\n```\n\n*Not run here: needs a GPU.*\n\n```bash\nfail\n```\n\nb\n```bash\ntrue\n```\n"
    assert blocks(text) == [("python", "x = 1\n"), ("bash", "true\n")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_block_escapes(page: Path) -> None:
    """Every fence opens a block of a known kind, so that none is left out without a word."""
    text = page.read_text("utf-8")
    kinds = [match["kind"] for match in BLOCK.finditer("\n" + text)]
    assert set(kinds) <= KINDS
    assert 2 * len(kinds) == len(re.findall(r"^\s*(?:```|~~~)", text, re.MULTILINE))


def rendered(markdown: str) -> str:
    """About what a reader sees of it: no comments, no addresses of links, no marks of tables."""
    seen = re.sub(r"<!--.*?-->", "", markdown, flags=re.DOTALL)
    seen = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", seen)
    return re.sub(r"[|#`*>]|^-{3,}", " ", re.sub(r"\|(?:-+\|)+", "", seen), flags=re.MULTILINE)


def test_the_readme_is_short() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    assert len(rendered(text).split()) <= 1000
    running = [line for line in text.splitlines() if not line.startswith(("|", "#"))]
    assert len(re.findall(r"<!--=\w", "\n".join(running))) <= 10


def test_a_sentence_of_a_page_links_to_what_there_is() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)\s#]+)", page.read_text("utf-8")):
            if not re.match(r"[a-z]+:", target):
                assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_pages_that_are_run_elsewhere_are() -> None:
    for page, test in ELSEWHERE.items():
        if (ROOT / "docs" / page).exists():
            assert page in (ROOT / test).read_text("utf-8"), f"{test} does not run {page}"


def nav() -> list[str]:
    return re.findall(r"^  - ([\w-]+\.md)$", (ROOT / "mkdocs.yml").read_text("utf-8"), re.MULTILINE)


def test_every_page_is_in_the_navigation() -> None:
    there = {page.name for page in (ROOT / "docs").glob("*.md")}
    assert set(nav()) == there


def test_every_public_name_is_in_the_reference() -> None:
    import tts_generate

    named = set(
        re.findall(
            r"^::: tts_generate\.(?:[\w.]+\.)?(\w+)$", (ROOT / "docs" / "api.md").read_text("utf-8"), re.MULTILINE
        )
    )
    raised = {"TTSError"}  # with the other errors
    assert set(tts_generate.__all__) - {"__version__"} - raised <= named


def test_every_result_says_how_it_was_made() -> None:
    text = (ROOT / "docs" / "numbers.md").read_text("utf-8")
    commands = dict(re.findall(r"^\| `(\w+\.json)` \| `([^`]+)`", text, re.MULTILINE))
    for result in (ROOT / "benchmarks" / "results").glob("*.json"):
        assert re.match(r"python (?:benchmarks|tools)/\w+\.py( [\w/.-]+)*$|make [\w-]+$", commands[result.name])
    for script in re.findall(r"(?:benchmarks|tools)/\w+\.py", text):
        assert (ROOT / script).is_file(), script


@pytest.mark.skipif(
    find_spec("mkdocs") is None, reason="needs mkdocs: pip install 'tts-generate[docs]'; CI has make docs"
)
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", str(tmp_path / "site")]
    quiet = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=quiet, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    reference = (tmp_path / "site" / "api.html").read_text("utf-8")
    assert "from_beta" in reference
    assert "Never lets an episode open more than" in reference
