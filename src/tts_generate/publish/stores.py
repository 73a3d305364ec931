"""Publishes a trajectory store as a dataset: in one commit on what was there, read back, or not at all."""

from __future__ import annotations

import dataclasses
import hashlib
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tts_generate.arguments import checked
from tts_generate.errors import ConflictError, ControllerError, InputError, StoreError
from tts_generate.hub import client, commit
from tts_generate.hub.client import Content, Listed
from tts_generate.hub.front import store_front_matter
from tts_generate.hub.names import check_repo_id
from tts_generate.publish.files import licence_of, read_page
from tts_generate.publish.leaks import check_leaks
from tts_generate.publish.standing import LEFT
from tts_generate.publish.store_summary import summarise
from tts_generate.report.store_page import store_page
from tts_generate.trajectories import Manifest, Trajectory, TrajectoryStore
from tts_generate.trajectories.files import read_text
from tts_generate.trajectories.parts import read_part, read_parts, shards, write_part
from tts_generate.trajectories.remote import INDEX, STORE_FILE, Index, sha256_of
from tts_generate.trajectories.schema import questions_to_jsonl
from tts_generate.trajectories.store import read_journals

_OWN_WORDS = re.compile(r"<!-- own words -->\n(.*?)\n<!-- end of own words -->", re.DOTALL)
_PART = re.compile(r"part-.*\.parquet")


@dataclass(frozen=True)
class PublishedStore:
    """What was published, and where."""

    repo_id: str
    commit: str
    branches: int
    changed: bool
    """False: the dataset held all of it before, and there is no new commit."""
    tag: str | None
    url: str

    def __str__(self) -> str:
        how = "" if self.changed else ", as it was"
        return f"{self.branches} branches in {self.repo_id} at commit {self.commit}{how}" + (
            f", tagged {self.tag}" if self.tag else ""
        )


@dataclass(frozen=True)
class _Contents:
    """What goes to the Hub, and the rows in it."""

    files: Mapping[str, Content]
    manifest: Manifest
    rows: Sequence[Trajectory]


@checked
def publish_store(
    store: TrajectoryStore | str | Path,
    repo_id: str,
    *,
    tag: str | None = None,
    private: bool | None = None,
    replace: bool = False,
    licence: str | None = None,
    description: str | None = None,
    message: str | None = None,
) -> PublishedStore:
    """Publish what is recorded so far, sealed or not, as a dataset of the Hub.

    The recording may go on meanwhile. What is published there before must be a part of this store: the same settings,
    and every branch that it has. Everything is one commit on the head that was looked at; if somebody commits
    meanwhile, theirs stands and this raises. What an interrupted upload leaves is the repo as it was; the same command
    goes on with it, and does not upload again what arrived.

    Args:
        store: a store, or its folder.
        repo_id: `user/name`; made where it does not exist.
        tag: for the commit.
        private: make a new repo private; one that is there must be.
        replace: publish it though the store that is there has branches or settings that this one has not.
        licence: an identifier such as `apache-2.0`; if left out, that of the page that is there is kept, if it has one.
        description: Markdown for the page; if left out, that of the page that is there is kept.
        message: of the commit.

    Raises:
        InputError: `repo_id` is no name of a repo, or the tag is taken; or `private`, and the repo is there and public.
        ConflictError: the dataset is something else, or holds what this store has not; or somebody was faster.
        HubError: the Hub cannot be reached, or refuses; `main` is as it was.
        StoreError: nothing is recorded, the store is damaged, or a secret would be published.
    """
    if not isinstance(store, TrajectoryStore):
        store = TrajectoryStore.open(store)
    check_repo_id(repo_id, "dataset")
    repo = f"datasets/{repo_id}"
    with tempfile.TemporaryDirectory(prefix="tts-push-") as folder:
        contents = _contents(store, Path(folder))
        commit.check_login(repo)
        if private and commit.head_of(repo) is not None:
            commit.check_private(repo)
        parent = commit.create(repo, private=private)
        there = client.listing(repo, parent)
        _check_follows(repo, parent, there, contents, replace)
        page = _page_there(repo, parent, there)
        words = description if description is not None else _own_words(page)
        licence = licence or licence_of(page, f"{repo}/README.md")
        files = {**contents.files, "README.md": _page(store, contents, repo_id, licence, words).encode()}
        _check_secrets(files)
        return _push(repo, parent, there, files, len(contents.rows), tag, message)


def _contents(store: TrajectoryStore, folder: Path) -> _Contents:
    """The files of a store as they are now; what is not sealed yet becomes a shard in `folder`."""
    journalled = read_journals(store.path)  # first: a row that is sealed meanwhile is seen twice, not never
    parts = shards(store.path)
    sealed = read_parts(store.path, parts)
    rows = store.ordered(sealed + journalled)
    if odd := [part.name for part in parts if not STORE_FILE.fullmatch(part.name)]:
        raise StoreError(
            f"{odd[0]} in {store.path} is called as no shard is, so nobody could read it from the Hub; give it a name "
            "of small letters, digits and '-' alone, such as part-00000-mine.parquet."
        )
    if not rows:
        raise StoreError(f"nothing is recorded in {store.path} yet; there is nothing to publish.")
    keys = {row.key for row in sealed}
    rest = [row for row in rows if row.key not in keys]
    if rest:
        name = hashlib.sha256("".join(repr(row.key) for row in rest).encode()).hexdigest()[:12]
        parts.append(folder / f"part-{len(parts):05d}-{name}.parquet")
        write_part(rest, parts[-1])
    manifest = store.manifest.published()
    files: dict[str, Content] = {
        "manifest.json": manifest.to_json().encode(),
        "questions.jsonl": questions_to_jsonl(store.questions).encode(),
        **{part.name: part for part in parts},
    }
    hashes = {
        name: sha256_of(content) if isinstance(content, Path) else hashlib.sha256(content).hexdigest()
        for name, content in files.items()
    }
    files[INDEX] = Index(hashes).to_json().encode()
    return _Contents(files, manifest, rows)


def _check_follows(repo: str, parent: str, there: Mapping[str, Listed], contents: _Contents, replace: bool) -> None:
    """Refuse to take away what somebody published."""
    if "manifest.json" not in there:
        foreign = sorted(set(there) - LEFT - {"README.md"})
        if foreign:
            raise ConflictError(
                f"{repo} holds something else than a trajectory store ({', '.join(foreign[:3])}); publish to another "
                "repo."
            )
        return
    if replace:
        return
    theirs = Manifest.from_json(read_text(client.download(repo, parent, "manifest.json")), f"{repo}/manifest.json")
    difference = theirs.difference(contents.manifest)
    if difference:
        raise ConflictError(
            f"{repo} holds a store recorded with other settings ({difference}); publish to another repo, or say "
            "replace (--replace)."
        )
    ours = {row.key: row for row in contents.rows}
    parts = {name: part for name, part in there.items() if _PART.fullmatch(name)}
    lost = [
        row
        for name, part in parts.items()
        if name not in contents.files or not part.holds(contents.files[name])
        for row in read_part(client.download(repo, parent, name))[0]
        if ours.get(row.key) != row
    ]
    if lost:
        raise ConflictError(
            f"{repo} at commit {parent} holds {len(lost)} branches that this store has not, or has otherwise (first "
            f"branch {lost[0].branch} of {lost[0].question_id!r}). Pull it and go on recording in that folder, "
            "publish to another repo, or say replace (--replace)."
        )


def _page_there(repo: str, parent: str, there: Mapping[str, Listed]) -> str:
    return read_page(client.download(repo, parent, "README.md"), f"{repo}/README.md") if "README.md" in there else ""


def _own_words(page: str) -> str:
    found = _OWN_WORDS.search(page)
    return found[1] if found else ""


def _page(store: TrajectoryStore, contents: _Contents, repo_id: str, licence: str | None, own_words: str) -> str:
    summary = summarise(contents.manifest, store.questions, contents.rows)
    head = store_front_matter(branches=len(contents.rows), licence=licence)
    told = dataclasses.asdict(contents.manifest)
    return f"{head}\n\n{store_page(summary, told, repo_id=repo_id, own_words=own_words.strip()).strip()}\n"


def _check_secrets(files: Mapping[str, Content]) -> None:
    try:
        check_leaks({name: content for name, content in files.items() if isinstance(content, bytes)})
    except ControllerError as error:
        raise StoreError(str(error)) from error


def _push(
    repo: str,
    parent: str,
    there: Mapping[str, Listed],
    files: Mapping[str, Content],
    branches: int,
    tag: str | None,
    message: str | None,
) -> PublishedStore:
    """One commit, read back, then tagged."""
    stale = [name for name in there if name not in files and STORE_FILE.fullmatch(name)]
    changed = bool(stale) or any(name not in there or not there[name].holds(content) for name, content in files.items())
    tagged = tag is not None and tag in commit.tags(repo)
    if tag is not None and tagged and (changed or client.resolve(repo, tag) != parent):
        raise InputError(f"{repo} has a tag {tag!r} already, of another commit; choose another.")
    made = parent
    if changed:
        made = commit.commit(repo, files, stale, parent, message or f"{branches} branches, with tts-generate")
    if tag is not None and not tagged:
        commit.tag(repo, tag, made)
    return PublishedStore(repo.removeprefix("datasets/"), made, branches, changed, tag, client.page(repo, made))
