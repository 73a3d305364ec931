"""The local Hub, as the real client libraries find it."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationCopy,
    CommitOperationDelete,
    HfApi,
    hf_hub_download,
    snapshot_download,
)
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import httpx
from local_hub import HubServer
from local_hub.objects import File, tree_ids

from tts_generate import tiny
from tts_generate.errors import InputError

WEIGHTS = bytes(range(256)) * 20


def add(path: str, content: bytes) -> CommitOperationAdd:
    return CommitOperationAdd(path, content)


def status_of(error: pytest.ExceptionInfo[HfHubHTTPError]) -> int:
    return error.value.response.status_code


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What people upload: a card, a config, weights in a folder."""
    path = tmp_path / "model"
    (path / "weights").mkdir(parents=True)
    (path / "README.md").write_text("---\nlicense: mit\ntags: [tiny]\nlibrary_name: transformers\n---\n# A model\n")
    (path / "config.json").write_text('{"a": 1}')
    (path / "weights" / "model.safetensors").write_bytes(WEIGHTS)
    return path


@pytest.fixture
def api(hub: HubServer, folder: Path) -> HfApi:
    """A client, and a repository with the folder in it."""
    client = HfApi()
    client.create_repo("user/model")
    client.upload_folder(repo_id="user/model", folder_path=folder, commit_message="first")
    return client


def test_upload_and_download_a_folder(hub: HubServer, api: HfApi, folder: Path) -> None:
    found = Path(snapshot_download("user/model"))
    names = [str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()]
    assert {name: (found / name).read_bytes() for name in names} == {
        name: (folder / name).read_bytes() for name in names
    }
    info = api.model_info("user/model", files_metadata=True)
    assert info.sha == found.name == hub.repo("user/model").head
    assert info.tags == ["tiny"]
    assert info.library_name == "transformers"
    weights = {file.rfilename: file for file in info.siblings or []}["weights/model.safetensors"]
    assert weights.lfs is not None
    assert weights.lfs.sha256 == hashlib.sha256(WEIGHTS).hexdigest()
    assert api.verify_repo_checksums("user/model").mismatches == []


def test_an_upload_is_batch_put_verify_commit_and_a_second_one_sends_nothing(
    hub: HubServer, api: HfApi, folder: Path
) -> None:
    steps = [request.path.rpartition("/")[2] for request in hub.requests() if request.method in ("POST", "PUT")]
    sha256 = hashlib.sha256(WEIGHTS).hexdigest()
    assert [step for step in steps if step != "validate-yaml"] == ["create", "main", "batch", sha256, "verify", "main"]
    hub.forget_requests()
    (folder / "weights" / "copy.safetensors").write_bytes(WEIGHTS)
    api.upload_folder(repo_id="user/model", folder_path=folder)
    assert hub.requests(method="PUT") == []  # LFS has it
    assert hub.repo("user/model").read("weights/copy.safetensors") == WEIGHTS


def test_large_files_go_up_in_parts(tmp_path: Path) -> None:
    with HubServer(part_bytes=1000) as hub, hub.clients(tmp_path):
        client = HfApi()
        client.create_repo("user/model")
        client.create_commit("user/model", [add("m.safetensors", WEIGHTS)], commit_message="m")
        assert len(hub.requests(method="PUT")) == 6
        assert hub.repo("user/model").read("m.safetensors") == WEIGHTS


def test_a_commit_on_a_head_that_has_moved_is_412(hub: HubServer, api: HfApi) -> None:
    seen = api.model_info("user/model").sha
    api.create_commit("user/model", [add("a.txt", b"a")], commit_message="mine", parent_commit=seen)
    head = hub.repo("user/model").head
    with pytest.raises(HfHubHTTPError, match="A commit has happened since") as error:
        api.create_commit("user/model", [add("a.txt", b"b")], commit_message="late", parent_commit=seen)
    assert status_of(error) == 412
    assert hub.repo("user/model").head == head
    assert hub.repo("user/model").read("a.txt") == b"a"


def test_of_two_publishers_at_once_one_wins(hub: HubServer, api: HfApi) -> None:
    seen = api.model_info("user/model").sha
    fault = hub.fault("*/commit/main", hold=True)
    outcomes: dict[str, object] = {}

    def publish(name: str) -> None:
        try:
            made = api.create_commit("user/model", [add(name, b"x")], commit_message=name, parent_commit=seen)
            outcomes[name] = made.oid
        except HfHubHTTPError as error:
            outcomes[name] = error.response.status_code

    slow = threading.Thread(target=publish, args=("slow",))
    slow.start()
    assert fault.arrived.wait(10)
    publish("fast")
    fault.released.set()
    slow.join()
    assert outcomes == {"fast": hub.repo("user/model").head, "slow": 412}


def test_commits_are_all_or_nothing(hub: HubServer, api: HfApi) -> None:
    head = hub.repo("user/model").head
    operations = [add("new.txt", b"new"), CommitOperationDelete("no-such-file")]
    with pytest.raises(EntryNotFoundError):
        api.create_commit("user/model", operations, commit_message="half")
    assert hub.repo("user/model").head == head
    with pytest.raises(EntryNotFoundError):
        hf_hub_download("user/model", "new.txt")


def test_deleting_and_copying(hub: HubServer, api: HfApi) -> None:
    operations = [
        CommitOperationDelete("config.json"),
        CommitOperationCopy("weights/model.safetensors", "other.safetensors"),
        CommitOperationCopy("README.md", "CARD.md"),
    ]
    api.create_commit("user/model", operations, commit_message="rearranged")
    api.create_commit("user/model", [CommitOperationDelete("weights/")], commit_message="gone")
    assert set(api.list_repo_files("user/model")) == {".gitattributes", "README.md", "CARD.md", "other.safetensors"}
    assert hub.repo("user/model").read("other.safetensors") == WEIGHTS


def test_history_tags_branches_and_pull_requests(hub: HubServer, api: HfApi) -> None:
    first = hub.repo("user/model").head
    api.create_tag("user/model", tag="v1")
    api.create_commit("user/model", [add("config.json", b"{}")], commit_message="second", commit_description="why")
    api.create_branch("user/model", branch="try", revision="v1")
    api.create_commit("user/model", [add("config.json", b"[]")], commit_message="third", revision="try")
    made = api.create_commit("user/model", [add("config.json", b"0")], commit_message="fourth", create_pr=True)
    assert made.pr_num == 1
    refs = api.list_repo_refs("user/model", include_pull_requests=True)
    assert [(tag.name, tag.target_commit) for tag in refs.tags] == [("v1", first)]
    assert {branch.name for branch in refs.branches} == {"main", "try"}
    texts = {r: Path(hf_hub_download("user/model", "config.json", revision=r)).read_text() for r in
             ("v1", "main", "try", "refs/pr/1", first, first[:7])}  # fmt: skip
    assert texts == {
        "v1": '{"a": 1}',
        "main": "{}",
        "try": "[]",
        "refs/pr/1": "0",
        first: '{"a": 1}',
        first[:7]: '{"a": 1}',
    }
    assert [commit.title for commit in api.list_repo_commits("user/model")] == ["second", "first", "initial commit"]
    with pytest.raises(HfHubHTTPError) as error:
        api.create_tag("user/model", tag="v1")
    assert status_of(error) == 409
    api.delete_tag("user/model", tag="v1")
    api.delete_branch("user/model", branch="try")
    with pytest.raises(RevisionNotFoundError):
        api.model_info("user/model", revision="v1")


def test_commit_ids_are_gits(tmp_path: Path) -> None:
    """The same trees and commits as the real git makes, of names that its order is peculiar about."""
    files = {"a.b": b"1", "a/x": b"2", "a/y/z": b"", "a0": b"3\n", "b/é": b"4"}
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)

    def git(*arguments: str) -> str:
        person = {f"GIT_{who}_{what}": "user" for who in ("AUTHOR", "COMMITTER") for what in ("NAME",)}
        person |= {f"GIT_{who}_EMAIL": "user@users.noreply.localhost" for who in ("AUTHOR", "COMMITTER")}
        person |= {f"GIT_{who}_DATE": "1700000000 +0000" for who in ("AUTHOR", "COMMITTER")}
        done = subprocess.run(
            ["git", *arguments], cwd=tmp_path, check=True, capture_output=True, text=True, env={**os.environ, **person}
        )
        return done.stdout.strip()

    git("init", "-q")
    git("add", ".")
    ours = {name: File.of(content) for name, content in files.items()}
    assert tree_ids(ours)[""] == git("write-tree")
    from local_hub import Commit

    git("commit", "-q", "-m", "title", "-m", "why")
    assert Commit(ours, (), "user", 1_700_000_000, "title", "why").oid == git("rev-parse", "HEAD")


def test_listings_come_in_pages(tmp_path: Path) -> None:
    with HubServer(page=3) as hub, hub.clients(tmp_path):
        files = {f"{folder}/{n}.txt": b"x" for folder in ("a", "b/c") for n in range(4)}
        hub.create("user/data", "dataset", files=files)
        api = HfApi()
        found = [entry.path for entry in api.list_repo_tree("user/data", repo_type="dataset", recursive=True)]
        assert set(found) == {*files, ".gitattributes", "a", "b", "b/c"}
        inner = api.list_repo_tree("user/data", "b/c", repo_type="dataset", expand=True)
        assert {entry.path: entry.last_commit.title for entry in inner if entry.last_commit} == {
            f"b/c/{n}.txt": "x" for n in range(4)
        }
        known = api.get_paths_info("user/data", ["a/0.txt", "b", "none"], repo_type="dataset")
        assert [entry.path for entry in known] == ["a/0.txt", "b"]
        with pytest.raises(EntryNotFoundError):
            list(api.list_repo_tree("user/data", "none", repo_type="dataset"))


def test_cache_offline_and_no_request(hub: HubServer, api: HfApi, monkeypatch: pytest.MonkeyPatch) -> None:
    head = hub.repo("user/model").head
    path = hf_hub_download("user/model", "config.json")
    hub.forget_requests()
    assert hf_hub_download("user/model", "config.json") == path
    assert [request.method for request in hub.requests()] == ["HEAD"]
    hub.forget_requests()
    assert hf_hub_download("user/model", "config.json", revision=head) == path
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert hf_hub_download("user/model", "config.json") == path
    with pytest.raises(LocalEntryNotFoundError):
        hf_hub_download("user/model", "README.md")
    assert hub.requests() == []


def test_ranges(hub: HubServer, api: HfApi) -> None:
    for name, content in {"config.json": b'{"a": 1}', "weights/model.safetensors": WEIGHTS}.items():
        url = f"{hub.url}/user/model/resolve/main/{name}"
        for asked, part in {"0-2": content[:3], "5-": content[5:], "-4": content[-4:], "2-99999": content[2:]}.items():
            got = httpx.get(url, headers={"Range": f"bytes={asked}"}, follow_redirects=True)
            assert (got.status_code, got.content) == (206, part), (name, asked)
        assert httpx.get(url, headers={"Range": "bytes=99999-"}, follow_redirects=True).status_code == 416
        whole = httpx.head(url)
        assert whole.headers["x-repo-commit"] == hub.repo("user/model").head
        assert whole.headers["etag"].strip('"') == hub.repo("user/model").file(hub.repo("user/model").head, name).etag
    assert (whole.status_code, whole.headers["x-linked-size"]) == (302, str(len(WEIGHTS)))
    with httpx.Client() as client:
        stolen = client.get(whole.headers["location"], headers={"Authorization": f"Bearer {hub.token}"})
        forged = client.get(whole.headers["location"] + "x")
    assert (stolen.status_code, forged.status_code) == (400, 403)


def test_missing_repositories_revisions_and_files(hub: HubServer, api: HfApi) -> None:
    with pytest.raises(RepositoryNotFoundError) as error:
        hf_hub_download("user/none", "config.json")
    assert status_of(error) == 404
    with pytest.raises(RevisionNotFoundError):
        hf_hub_download("user/model", "config.json", revision="none")
    with pytest.raises(EntryNotFoundError):
        hf_hub_download("user/model", "none.json")
    with pytest.raises(HfHubHTTPError) as created:
        api.create_repo("user/model")
    assert status_of(created) == 409
    assert api.create_repo("user/model", exist_ok=True).repo_id == "user/model"
    api.delete_repo("user/model")
    assert not api.repo_exists("user/model")


def test_private_and_gated_repositories_and_tokens(hub: HubServer, api: HfApi) -> None:
    hub.add_token("hf_other", "other")
    hub.add_token("hf_reader", "user", role="read")
    hub.add_token("hf_team", "mate", orgs=["team"])
    hub.create("user/secret", files={"a": b"1"}, private=True)
    hub.create("user/gated", files={"a": b"1"}, gated="manual")

    def refused(kind: type[HfHubHTTPError], status: int, repo_id: str, token: str | bool) -> None:
        with pytest.raises(kind) as error:
            hf_hub_download(repo_id, "a", token=token)
        assert status_of(error) == status

    refused(RepositoryNotFoundError, 401, "user/secret", False)
    refused(RepositoryNotFoundError, 404, "user/secret", "hf_other")
    refused(GatedRepoError, 401, "user/gated", False)
    refused(GatedRepoError, 403, "user/gated", "hf_other")
    assert api.model_info("user/gated", token="hf_other").gated == "manual"
    hub.repo("user/gated").allowed.add("other")
    for repo_id, token in (("user/gated", "hf_other"), ("user/secret", "hf_reader"), ("user/secret", hub.token)):
        assert Path(hf_hub_download(repo_id, "a", token=token)).read_text() == "1"
    for token in ("hf_other", "hf_reader"):
        with pytest.raises(HfHubHTTPError) as forbidden:
            api.create_commit("user/model", [add("a", b"2")], commit_message="no", token=token)
        assert status_of(forbidden) == 403
    with pytest.raises(HfHubHTTPError) as anonymous:
        api.create_commit("user/model", [add("a", b"2")], commit_message="no", token=False)
    assert status_of(anonymous) == 401
    assert api.create_repo("team/model", token="hf_team").repo_id == "team/model"
    hub.revoke("hf_other")
    with pytest.raises(HfHubHTTPError) as expired:
        api.whoami("hf_other")
    assert status_of(expired) == 401


def test_settings(hub: HubServer, api: HfApi) -> None:
    api.update_repo_settings("user/model", gated="auto", private=True)
    assert hub.repo("user/model").private
    info = api.model_info("user/model")
    assert (info.private, info.gated) == (True, "auto")
    api.auth_check("user/model")
    assert api.create_repo("user/hidden", private=True)
    with pytest.raises(RepositoryNotFoundError):
        api.model_info("user/hidden", token=False)


def test_a_card_with_broken_metadata_is_refused(hub: HubServer, api: HfApi) -> None:
    with pytest.raises(ValueError, match="Invalid metadata"):
        api.create_commit("user/model", [add("README.md", b"---\na: [\n---\n")], commit_message="card")


@pytest.mark.parametrize(
    ("what", "status"),
    [({"status": 429, "retry_after": 7}, 429), ({"status": 500}, 500), ({"status": 503}, 503), ({"status": 409}, 409)],
)
def test_a_commit_that_is_refused(hub: HubServer, api: HfApi, what: dict[str, Any], status: int) -> None:
    head = hub.repo("user/model").head
    hub.fault("*/commit/*", **what)
    with pytest.raises(HfHubHTTPError) as error:
        api.create_commit("user/model", [add("a", b"1")], commit_message="a")
    assert status_of(error) == status
    assert error.value.response.headers.get("retry-after") == ("7" if status == 429 else None)
    assert hub.repo("user/model").head == head
    api.create_commit("user/model", [add("a", b"1")], commit_message="a")  # one fault, one request
    assert hub.repo("user/model").read("a") == b"1"


def test_a_lost_reply_leaves_the_commit_and_a_reset_does_not(hub: HubServer, api: HfApi) -> None:
    repo = hub.repo("user/model")
    head = repo.head
    hub.fault("*/commit/*", reset=True)
    with pytest.raises(httpx.TransportError):
        api.create_commit("user/model", [add("a", b"1")], commit_message="a")
    assert repo.head == head
    hub.fault("*/commit/*", lose_reply=True)
    with pytest.raises(httpx.TransportError):
        api.create_commit("user/model", [add("a", b"1")], commit_message="a")
    assert repo.commits[repo.head].parents == (head,)


def test_a_download_that_breaks_off_is_resumed(hub: HubServer) -> None:
    """The client keeps pieces of 10 MiB."""
    content = bytes(11 << 20)
    hub.create("user/model", files={"large.txt": content})
    hub.fault("*/large.txt", method="GET", cut_after=len(content) - 1000)
    path = hf_hub_download("user/model", "large.txt")
    assert Path(path).read_bytes() == content
    ranges = [request.headers.get("range") for request in hub.requests("*/large.txt", "GET")]
    assert ranges == [None, f"bytes={10 << 20}-"]


def test_a_download_whose_connection_is_reset_is_not(hub: HubServer, api: HfApi) -> None:
    hub.fault("*/config.json", method="GET", reset_after=3)
    with pytest.raises(httpx.ReadError):
        hf_hub_download("user/model", "config.json")
    assert Path(hf_hub_download("user/model", "config.json")).read_text() == '{"a": 1}'


def test_a_download_that_is_changed_on_its_way_is_of_the_right_size_only(hub: HubServer, api: HfApi) -> None:
    """The client checks no hash: whoever needs integrity must."""
    hub.fault("*/config.json", method="GET", corrupt=True)
    found = Path(hf_hub_download("user/model", "config.json")).read_bytes()
    assert len(found) == 8
    assert found != b'{"a": 1}'
    assert api.verify_repo_checksums("user/model").mismatches


def test_slow_answers(hub: HubServer, api: HfApi) -> None:
    hub.fault("*/config.json", method="GET", bytes_per_second=40)
    hub.fault("*/config.json", method="HEAD", delay=0.2)
    start = time.monotonic()
    hf_hub_download("user/model", "config.json")
    assert time.monotonic() - start > 0.35


def post(hub: HubServer, path: str, content: bytes) -> Any:
    """A request that no client library would make."""
    return httpx.post(hub.url + path, content=content, headers={"Authorization": f"Bearer {hub.token}"})


@pytest.mark.parametrize(
    ("lines", "text"),
    [
        ([], "the first line of a commit is its header"),
        ([{"key": "file", "value": {"path": "a", "content": ""}}], "the first line of a commit is its header"),
        ([{"key": "rename", "value": {}}], "unknown line of a commit: 'rename'"),
        ([{"key": "file", "value": {"path": "a", "content": "?", "encoding": "base64"}}], "not base64"),
        ([{"key": "file", "value": {"path": "../a", "content": ""}}], "invalid path in a commit: '../a'"),
        ([{"key": "file", "value": {"path": ".git/config", "content": ""}}], "invalid path"),
        ([{"key": "lfsFile", "value": {"path": "a", "algo": "sha256", "oid": "0" * 64}}], "was not uploaded"),
    ],
)
def test_commits_that_no_client_makes(hub: HubServer, api: HfApi, lines: list[dict[str, Any]], text: str) -> None:
    head = hub.repo("user/model").head
    header = [{"key": "header", "value": {"summary": "x"}}] if "header" not in text else []
    body = "\n".join(json.dumps(line) for line in header + lines).encode()
    got = post(hub, "/api/models/user/model/commit/main", body)
    assert got.status_code == 400
    assert text in got.json()["error"]
    assert hub.repo("user/model").head == head


def test_an_upload_of_other_bytes_than_announced(hub: HubServer, api: HfApi) -> None:
    sha256 = hashlib.sha256(b"right").hexdigest()
    asked = {"operation": "upload", "objects": [{"oid": sha256, "size": 5}, {"oid": "short", "size": 1}]}
    told, wrong = post(hub, "/user/model.git/info/lfs/objects/batch", json.dumps(asked).encode()).json()["objects"]
    assert "not a sha256" in wrong["error"]["message"]
    upload, verify = (told["actions"][name]["href"] for name in ("upload", "verify"))
    assert httpx.put(upload, content=b"wrong").status_code == 400
    checked = json.dumps({"oid": sha256, "size": 5}).encode()
    assert post(hub, verify.removeprefix(hub.url), checked).status_code == 404
    assert httpx.put(upload, content=b"right").status_code == 200
    assert post(hub, verify.removeprefix(hub.url), checked).status_code == 200
    assert httpx.put(upload.replace("signature=", "signature=x"), content=b"right").status_code == 403


def test_what_this_hub_has_not(hub: HubServer, api: HfApi) -> None:
    assert "this Hub has no POST /api/spaces" in post(hub, "/api/spaces/semantic-search", b"").json()["error"]
    assert "this Hub has no POST" in post(hub, "/api/models/user/model/super-squash/main", b"").json()["error"]
    got = httpx.get(hub.url + "/api/models/user/model/xet-read-token/main")
    assert "HF_HUB_DISABLE_XET=1" in got.headers["x-error-message"]


def test_many_clients_at_once(hub: HubServer, api: HfApi) -> None:
    """Without `parent_commit` all commits land, in a line."""
    repo = hub.repo("user/model")

    def publish(n: int) -> None:
        api.create_commit(
            "user/model", [add(f"{n}.txt", bytes([n])), add(f"{n}.bin", bytes([n]))], commit_message=f"{n}"
        )

    threads = [threading.Thread(target=publish, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {commit.title for _, commit in repo.history()} == {*map(str, range(8)), "first", "initial commit"}
    assert all(repo.read(f"{n}.{ending}") == bytes([n]) for n in range(8) for ending in ("txt", "bin"))


def test_a_mistake_of_the_server_is_not_kept_quiet() -> None:
    hub = HubServer()
    hub.create("user/model").commits.clear()  # now it is broken
    assert httpx.get(f"{hub.url}/api/models/user/model").status_code == 500
    with pytest.raises(KeyError):
        hub.close()


def test_faults_that_make_no_sense(hub: HubServer) -> None:
    for what in (
        {},
        {"status": 500, "reset": True},
        {"reset": True, "cut_after": 3},
        {"reset": True, "retry_after": 3},
    ):
        with pytest.raises(InputError):
            hub.fault(**what)


def test_a_client_killed_between_upload_and_commit(hub: HubServer, folder: Path, tmp_path: Path) -> None:
    """A real SIGKILL: the storage has the file, `main` knows nothing of it, and doing it again goes through."""
    repo = hub.create("user/model")
    head = repo.head
    fault = hub.fault("*/commit/*", hold=True)
    code = (
        f"from huggingface_hub import HfApi; HfApi().upload_folder(repo_id='user/model', folder_path={str(folder)!r})"
    )
    environment = {**os.environ, **hub.environ(tmp_path / "home")}
    with subprocess.Popen([sys.executable, "-c", code], env=environment) as child:
        assert fault.arrived.wait(60)
        child.kill()
    assert repo.head == head
    assert list(repo.lfs.values()) == [WEIGHTS]
    HfApi().upload_folder(repo_id="user/model", folder_path=folder)
    assert repo.read("weights/model.safetensors") == WEIGHTS


def child(code: str, environment: dict[str, str]) -> dict[str, Any]:
    """What a clean process prints as JSON."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env={**kept, **environment}
    )
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def test_datasets_in_a_clean_process(hub: HubServer, tmp_path: Path) -> None:
    code = """
import json
from datasets import Dataset, load_dataset
Dataset.from_dict({"a": [1, 2, 3], "b": ["x", "y", None]}).push_to_hub("user/data")
found = load_dataset("user/data", split="train")
print(json.dumps(found.to_dict()))
"""
    assert child(code, hub.environ(tmp_path / "home")) == {"a": [1, 2, 3], "b": ["x", "y", None]}
    assert hub.repo("user/data", "dataset").read("README.md")
    assert any(file.sha256 for file in hub.repo("user/data", "dataset").commits[
        hub.repo("user/data", "dataset").head].files.values())  # fmt: skip


@pytest.mark.long
def test_transformers_in_a_clean_process(hub: HubServer, tmp_path: Path) -> None:
    HfApi().create_repo("user/tiny")
    made = HfApi().upload_folder(repo_id="user/tiny", folder_path=tiny.path(), ignore_patterns=["*.py", "*.jsonl"])
    code = f"""
import json
from transformers import AutoModelForCausalLM, AutoTokenizer
model = AutoModelForCausalLM.from_pretrained("user/tiny", revision="{made.oid}")
tokenizer = AutoTokenizer.from_pretrained("user/tiny", revision="{made.oid}")
tokens = tokenizer("Q: a = 6 ; a ? <think>")["input_ids"]
print(json.dumps({{"weights": sum(p.numel() for p in model.parameters()), "tokens": tokens}}))
"""
    hub.forget_requests()
    found = child(code, hub.environ(tmp_path / "home"))
    assert all(made.oid in request.path for request in hub.requests("*/resolve/*"))
    from transformers import AutoTokenizer

    assert found["weights"] == 308_592
    assert found["tokens"] == AutoTokenizer.from_pretrained(tiny.path())("Q: a = 6 ; a ? <think>")["input_ids"]


def test_the_server_as_a_process(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "local_hub", "--user", "me", "--token", "hf_mine"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parent
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        told = json.loads(process.stdout.readline())

        def ask(**what: object) -> Any:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(json.dumps(what) + "\n")
            process.stdin.flush()
            return json.loads(process.stdout.readline())

        api = HfApi(endpoint=told["url"], token=told["token"])
        with HubServer() as hub, hub.clients(tmp_path):  # lifts the ban on requests of the suite
            assert api.whoami()["name"] == "me"
            assert ask(create={"repo_id": "me/model"}) == {"ok": True}
            assert ask(fault={"path": "*/me/model", "status": 503}) == {"ok": True}
            assert "unknown request" in ask(fly=True)["error"]
            with pytest.raises(HfHubHTTPError):
                api.model_info("me/model")
            assert api.model_info("me/model").id == "me/model"
            assert ask(requests="*/me/model") == {"requests": [["GET", "/api/models/me/model", s] for s in (503, 200)]}
        process.stdin.close()
        assert process.wait(10) == 0
