"""Any desk: what does not lock anybody up works where there is no Linux; shown as far as one Linux can show it."""

from __future__ import annotations

import ast
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import other_desk
import pytest

from tts_generate.errors import HubError, InputError, StoreError, UnknownNameError
from tts_generate.hub.names import check_paths, repo_of
from tts_generate.loading import find_source
from tts_generate.trajectories import TrajectoryStore

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "tts_generate"
LINUX = {f"sandbox/{name}.py" for name in ("attacks", "keeper", "locks", "process")}
"""What runs once a machine is known to lock processes up: attributes of `os` and `signal`, but no import of others."""
IN_THE_CHILD = {"sandbox/keeper.py", "sandbox/locks.py"}
ASKED_FOR = {("trajectories/files.py", "pwrite"), ("equivalence.py", "register_at_fork")}
"""Used where `hasattr` says that it is there."""
PLACES = [r"C:\runs\mine", "C:/runs/mine", "C:mine", r"\\server\share\mine", r"runs\mine", r"C:\user/name"]


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda p: str(p.relative_to(SOURCE)))
def test_nothing_of_linux_alone(path: Path) -> None:
    file = path.relative_to(SOURCE).as_posix()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            named = [node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            assert file in IN_THE_CHILD or not set(other_desk.MODULES) & set(named), f"line {node.lineno}"
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and file not in LINUX:
            names = {"os": other_desk.OS, "signal": other_desk.SIGNALS, "select": ("poll", "epoll")}
            taken = node.attr in names.get(node.value.id, ()) and (file, node.attr) not in ASKED_FOR
            assert not taken or file in ("sandbox/channel.py", "sandbox/seccomp.py"), f"line {node.lineno}: {node.attr}"


@pytest.mark.long
def test_answers_records_and_replays_without_what_linux_alone_has(tmp_path: Path) -> None:
    code = b"from tts_generate.controller import Controller\nclass Mine(Controller):\n    '''Mine.'''\n"
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "controller.py").write_bytes(code)
    card = {"format": "tts-controller/1", "api": 1, "name": "mine", "entry": "controller.py:Mine",
            "beta": {"default": 0.5}, "sha256": hashlib.sha256(code).hexdigest()}  # fmt: skip
    (tmp_path / "mine" / "controller.json").write_text(json.dumps(card))
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests" / "house" / "other_desk.py"), str(tmp_path)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    answers, recorded, interpreted, compiled, controllers, link, folder, boxed, loaded = done.stdout.splitlines()
    assert (answers, recorded) == ("answers 2", "recorded 4 True")
    assert interpreted == compiled == "replayed (2, 2)"
    assert controllers.startswith("controllers ")
    assert "is a symbolic link, not a file of a store" in link
    assert "is a folder, not a file of a store" in folder
    assert boxed == loaded
    assert boxed.startswith("SandboxUnavailable: the sandbox needs Linux, which locks candidates up, and this is win32")


@pytest.mark.parametrize("place", PLACES)
def test_a_path_of_windows_is_no_repo(place: str) -> None:
    assert repo_of(place) is None
    with pytest.raises(UnknownNameError, match=r"A folder must hold controller\.json"):
        find_source(place)
    with pytest.raises(StoreError, match="is not a trajectory store"):
        TrajectoryStore.open(place)
    with pytest.raises(InputError, match="is for a repo of the Hub"):
        find_source(place, "main")
    with pytest.raises(HubError, match="nothing of it is written"):
        check_paths([place], "me/ctl")


def test_a_checkout_has_no_links(tmp_path: Path) -> None:
    """Where git makes none of them, a text stands in their place; and no line ending is changed on the way."""
    tracked = subprocess.run(["git", "ls-files", "-s"], cwd=ROOT, capture_output=True, text=True, check=False)
    if tracked.returncode:
        pytest.skip("this is no checkout")
    assert not [line for line in tracked.stdout.splitlines() if line.startswith("120000")]
    assert (ROOT / ".gitattributes").read_text("utf-8").splitlines()[-1] == "* -text"
