"""Every damaged or hostile repo is refused before any of its code runs, by an error that names the file and why."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest
from hostile_repos import NAMES, REPOS, Hostile
from hub_checks import CODE, forget, good, put
from local_hub import HubServer

from tts_generate.errors import ControllerError, HubError, TTSError, UnknownNameError, UntrustedCodeError
from tts_generate.hub import client
from tts_generate.hub.fetch import pull
from tts_generate.hub.names import check_paths
from tts_generate.loading import load_controller
from tts_generate.publish import verify


@pytest.fixture(autouse=True)
def _nothing_runs(capfd: pytest.CaptureFixture[str]) -> Any:
    """No test of this file may run a controller's code, unless it reads what was printed."""
    before = set(sys.modules)
    yield
    assert "RAN" not in capfd.readouterr().out
    assert not [name for name in set(sys.modules) - before if name.startswith("tts_generate_controller_user")]


def test_there_are_enough() -> None:
    assert len({repo.name for repo in REPOS}) == len(REPOS) >= 60


def write(folder: Path, files: Any) -> Path:
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    return folder


def check(error: TTSError, repo: Hostile) -> None:
    assert repo.file in str(error), str(error)
    assert re.search(repo.reason, str(error), re.DOTALL), str(error)
    assert len(str(error)) < 2000


@pytest.mark.parametrize("repo", REPOS, ids=str)
def test_from_the_hub(repo: Hostile, hub: HubServer) -> None:
    commit = put(hub, "user/x", repo.files)
    for how in ({"trust_remote_code": True}, {"sandbox": True}):
        with pytest.raises((ControllerError, UnknownNameError)) as caught:
            load_controller("user/x", revision=commit, **how)
        check(caught.value, repo)
        assert "user/x" in str(caught.value)


@pytest.mark.parametrize("repo", REPOS, ids=str)
def test_from_a_folder(repo: Hostile, tmp_path: Path) -> None:
    folder = write(tmp_path / "x", {"README.md": b"", **repo.files})
    if "controller.json" not in repo.files:
        with pytest.raises(UnknownNameError, match=r"A folder must hold controller\.json"):
            load_controller(folder, trust_remote_code=True)
        return
    with pytest.raises((ControllerError, UnknownNameError)) as caught:
        load_controller(folder, trust_remote_code=True)
    check(caught.value, repo)


class TestNames:
    @pytest.mark.parametrize(("names", "why"), [row[1:] for row in NAMES], ids=[row[0] for row in NAMES])
    def test_in_a_repo(self, names: list[str], why: str, hub: HubServer, tmp_path: Path) -> None:
        commit = put(hub, "user/x", {**good(), **dict.fromkeys(names, b"x")})
        with pytest.raises(HubError, match=why) as caught:
            pull("user/x", commit, tmp_path / "out")
        assert str(caught.value).startswith(f"user/x at commit {commit} holds a file named ")
        assert not (tmp_path / "out").exists()
        with pytest.raises(HubError, match=why):
            verify(f"user/x@{commit}")

    @pytest.mark.parametrize("name", ["", "/etc/x", "../x", "evaluation/../../x", "a//b", "./x", "x/", "a/\ud800"])
    def test_that_no_repo_of_git_has(self, name: str) -> None:
        """A Hub that lies may list them."""
        with pytest.raises(HubError, match="me/x holds a file named "):
            check_paths([name], "me/x")

    def test_a_file_below_a_file(self) -> None:
        with pytest.raises(HubError, match="lies in 'a', which is a file"):
            check_paths(["a", "a/b"], "me/x")

    def test_those_that_are_usual(self) -> None:
        check_paths([".eval_results/AIME 24.yaml", "a-b/größer.json", "数学.md", "nullable.py", "x~1"], "me/x")


class TestFolders:
    def test_code_by_a_link_out_of_the_folder(self, tmp_path: Path) -> None:
        outside = write(tmp_path, {"elsewhere.py": CODE}) / "elsewhere.py"
        folder = write(tmp_path / "x", {"controller.json": good()["controller.json"]})
        (folder / "controller.py").symlink_to(outside)
        with pytest.raises(ControllerError, match=r"controller\.py leads out of its folder"):
            load_controller(folder, trust_remote_code=True)

    def test_a_card_by_a_link(self, tmp_path: Path) -> None:
        outside = write(tmp_path, {"card.json": good()["controller.json"]}) / "card.json"
        folder = write(tmp_path / "x", {"controller.py": CODE})
        (folder / "controller.json").symlink_to(outside)
        with pytest.raises(ControllerError, match=r"controller\.json leads out of its folder"):
            load_controller(folder, trust_remote_code=True)

    def test_a_folder_for_a_card(self, tmp_path: Path) -> None:
        (tmp_path / "x" / "controller.json").mkdir(parents=True)
        with pytest.raises(ControllerError, match=r"controller\.json is not there"):
            load_controller(tmp_path / "x", trust_remote_code=True)

    def test_a_pipe_for_code(self, tmp_path: Path) -> None:
        import os

        folder = write(tmp_path / "x", {"controller.json": good()["controller.json"]})
        os.mkfifo(folder / "controller.py")
        with pytest.raises(ControllerError, match=r"controller\.py.* is not there"):
            load_controller(folder, trust_remote_code=True)

    def test_of_unknown_origin(self, tmp_path: Path) -> None:
        with pytest.raises(UntrustedCodeError, match=r"did not come with this package: read .*controller\.py"):
            load_controller(write(tmp_path / "x", good()))

    def test_a_trusted_repo_is_no_folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        write(tmp_path / "user" / "x", good())  # squats on the name of a repo that is trusted
        with pytest.raises(UntrustedCodeError, match="a list of trusted repos does not cover it"):
            load_controller("user/x", trust_remote_code=["user/x"])


class TestHub:
    def test_pickles_and_weights_are_never_fetched(self, hub: HubServer) -> None:
        files = {**good(), "model.pkl": b"\x80\x04cos\nsystem\n", "pytorch_model.bin": b"x", "model.safetensors": b"x"}
        commit = put(hub, "user/x", files)
        with pytest.raises(UntrustedCodeError):
            load_controller("user/x", revision=commit)
        fetched = {request.path.rpartition("/")[2] for request in hub.requests("*/resolve/*")}
        assert fetched == {"controller.json", "controller.py"}

    def test_without_trust(self, hub: HubServer) -> None:
        commit = put(hub, "user/x", good())
        with pytest.raises(UntrustedCodeError) as caught:
            load_controller("user/x", revision=commit)
        assert f"{hub.url}/user/x/blob/{commit}/controller.py" in str(caught.value)
        assert "trust_remote_code=True" in str(caught.value)
        assert "sandbox=True" in str(caught.value)

    def test_trust_in_others(self, hub: HubServer) -> None:
        commit = put(hub, "user/x", good())
        for trusted in ([], ["other/x"], ("user/y", "user/x2")):
            with pytest.raises(UntrustedCodeError, match="user/x is not among the trusted repos"):
                load_controller("user/x", revision=commit, trust_remote_code=trusted)

    def test_a_branch_that_looks_like_a_commit(self, hub: HubServer) -> None:
        put(hub, "user/x", good())
        fake = "a" * 40
        hub.repo("user/x").refs[f"refs/heads/{fake}"] = hub.repo("user/x").head
        with pytest.raises(HubError, match="is no commit but a branch or tag that looks like one"):
            load_controller("user/x", revision=fake, trust_remote_code=True)

    def test_a_large_file_is_not_fetched(self, hub: HubServer) -> None:
        commit = put(hub, "user/x", {**good(), "controller.json": b" " * 30_000_000})
        with pytest.raises(ControllerError, match=r"controller\.json .* has 30,000,000 bytes; at most"):
            load_controller("user/x", revision=commit, trust_remote_code=True)
        assert not hub.requests("*/resolve/*", "GET")

    def test_a_copy_in_the_cache_that_was_edited(self, hub: HubServer) -> None:
        commit = put(hub, "user/x", good())
        with pytest.raises(UntrustedCodeError):
            load_controller("user/x", revision=commit)
        forget()
        path = client.cached("user/x", commit, "controller.py")
        assert path is not None
        path.resolve().write_bytes(b"import os\n" + CODE)
        with pytest.raises(UntrustedCodeError):  # fetched anew, and the good one at that
            load_controller("user/x", revision=commit)
        assert path.read_bytes() == CODE

    @pytest.mark.parametrize("how", [{"corrupt": True}, {"cut_after": 100}])
    def test_a_spoilt_download(self, hub: HubServer, how: dict[str, Any]) -> None:
        commit = put(hub, "user/x", good())
        hub.fault("*/controller.py", method="GET", times=None, **how)
        with pytest.raises((ControllerError, HubError), match=r"controller\.py|user/x at"):
            load_controller("user/x", revision=commit, trust_remote_code=True)

    @pytest.mark.parametrize("status", [401, 403, 404, 500])
    def test_a_hub_that_refuses(self, hub: HubServer, status: int) -> None:
        put(hub, "user/x", good())
        hub.fault("*user/x*", times=None, status=status)
        with pytest.raises(HubError, match=r"user/x|login") as caught:
            load_controller("user/x", trust_remote_code=True)
        assert hub.token not in str(caught.value)
