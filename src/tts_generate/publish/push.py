"""Publishes a controller: measured, checked, in one commit on what was there, read back, tagged; or nothing at all."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Unpack

from tts_generate.arguments import checked
from tts_generate.errors import ControllerError, InputError
from tts_generate.hub import client, commit
from tts_generate.hub.card import entry_of
from tts_generate.hub.front import Benchmark
from tts_generate.hub.names import check_paths, check_repo_id
from tts_generate.hub.source import Source, read_folder
from tts_generate.publish.contest import Verdict
from tts_generate.publish.files import LIVE, SUMMARY, licence_of, own_words_of, read_evaluation, read_page, repo_files
from tts_generate.publish.leaks import check_kinds, check_leaks
from tts_generate.publish.measuring import MeasuringOptions, measure
from tts_generate.publish.standing import LEFT, LICENCES, OURS, check_standing
from tts_generate.strict_json import check_shape


@dataclass(frozen=True)
class Published:
    """What was published, and where."""

    repo_id: str
    commit: str
    tag: str | None
    """None where nothing changed, and so nothing was tagged."""
    url: str
    verdict: Verdict | None = field(default=None, compare=False)
    """Against what was there before; None if that was nothing, or nothing comparable."""

    def __str__(self) -> str:
        return f"{self.repo_id} at commit {self.commit}" + (f", tagged {self.tag}" if self.tag else ", as it was")


@checked
def publish(
    folder: str | Path,
    repo_id: str,
    *,
    stores: Sequence[str | Path] = (),
    live: Sequence[Mapping[str, Any]] = (),
    benchmarks: Mapping[str, Benchmark] | None = None,
    replace: bool = False,
    private: bool | None = None,
    licence: str | None = None,
    message: str | None = None,
    **options: Unpack[MeasuringOptions],
) -> Published:
    """Publish a controller's folder as a repo of the Hub.

    Everything is one commit, made on the head that was looked at: if somebody else commits meanwhile, theirs stands
    and this raises. What an interrupted upload leaves is the repo as it was.

    Args:
        folder: with `controller.json`, as `save_pretrained` and a search write it.
        repo_id: `user/name`; made where it does not exist.
        stores: trajectory stores to measure it on, folders or datasets of the Hub; what `evaluation/` in the folder
            holds is taken if left out.
        live: rows of `measure_live`.
        benchmarks: of the Hub, by the name of the store with their questions; they get `.eval_results/`.
        replace: publish it even if it is no better than what is there, or cannot be compared with it.
        private: make a new repo private; one that is there must be.
        licence: an identifier such as `mit`; what the folder's README says, else `apache-2.0`.
        message: of the commit.
        **options: betas, shuffles, threads and trust_remote_code of `measure`, where there are stores.

    Raises:
        InputError: options without stores; or `private`, and the repo is there and public.
        ControllerError: the folder is not fit to be published; the message names the file.
        ConflictError: somebody committed meanwhile; or what is there is as good, and `replace` was not said.
        HubError: the Hub cannot be reached, or refuses; `main` is as it was.
    """
    check_repo_id(repo_id)
    source = read_folder(Path(folder))
    _check_files(source)
    commit.check_login(repo_id)
    evaluation = _evaluated(source, stores, live, options)
    chosen = dict(benchmarks or {})
    for name in chosen:
        if evaluation is None or name not in {store["name"] for store in evaluation["stores"]}:
            raise InputError(f"benchmarks names {name!r}, and no store of that name was measured.")
    readme = source.path / "README.md"
    text = read_page(readme, readme) if readme.is_file() else ""
    files = repo_files(
        source,
        evaluation,
        repo_id,
        benchmarks=chosen,
        licence=licence or licence_of(text, readme) or "apache-2.0",
        own_words=own_words_of(text),
    )
    files |= {name: (source.path / name).read_bytes() for name in LICENCES if (source.path / name).is_file()}
    check_leaks(files)
    check_paths(files, repo_id)
    parent = commit.head_of(repo_id)
    if private and parent is not None:
        commit.check_private(repo_id)
    there = list(client.listing(repo_id, parent)) if parent is not None else []
    verdict = check_standing(repo_id, parent, there, source.card, evaluation, replace)
    if parent is None:
        parent = commit.create(repo_id, private=private)
        there = list(client.listing(repo_id, parent))
    return _push(repo_id, parent, there, files, message or f"Publish {source.card['name']} with tts-generate", verdict)


def _push(
    repo_id: str, parent: str, there: Sequence[str], files: Mapping[str, bytes], message: str, verdict: Verdict | None
) -> Published:
    """One commit, read back, then tagged; and so is one that is there already, if that was cut off before its tag."""
    stale = [path for path in there if path not in files and OURS.fullmatch(path)]
    same = not stale and set(files) <= set(there) and not client.differing(repo_id, parent, files)
    known = commit.tags(repo_id)
    if same and parent in known.values():
        return Published(repo_id, parent, None, client.page(repo_id, parent), verdict)
    tag = _next_tag([*known])
    made = parent if same else commit.commit(repo_id, files, stale, parent, message)
    commit.tag(repo_id, tag, made)
    return Published(repo_id, made, tag, client.page(repo_id, made), verdict)


def _check_files(source: Source) -> None:
    """Refuse a folder with files that would have to be left out, or must not go up."""
    paths = [path for path in files_in(source.path) if not any(p.startswith((".", "__")) for p in path.split("/"))]
    check_kinds(paths, source.path)
    code = {entry_of(source.card)[0]} if "entry" in source.card else set()
    for path in paths:
        foreign_code = path.endswith(".py") and "/" not in path and path not in code
        if foreign_code or not (OURS.fullmatch(path) or path in LEFT):
            raise ControllerError(
                f"{source.path / path} is no part of a controller's repo, which is one file of code, its card and what "
                "was measured; take it out."
            )


def files_in(folder: Path) -> list[str]:
    """Every file of a folder, by its path there; links out of it are refused.

    Raises:
        ControllerError: naming the link.
    """
    found = []
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() and folder not in path.resolve().parents:
            raise ControllerError(f"{path} leads out of its folder, to {path.resolve()}; nothing outside is published.")
        if path.is_file():
            found.append(path.relative_to(folder).as_posix())
    return found


def _evaluated(
    source: Source,
    stores: Sequence[str | Path],
    live: Sequence[Mapping[str, Any]],
    options: MeasuringOptions,
) -> dict[str, Any] | None:
    """What is measured now, else what the folder says was."""
    kept = source.path / SUMMARY
    check_shape(list(live), [LIVE], "live")
    if stores:
        told = measure(source, stores, **options)
    elif asked := [name for name, value in options.items() if value not in (None, False)]:
        raise InputError(
            f"{', '.join(asked)}: for measuring, and there is no store to measure on. Give stores too (--store), or "
            "leave it out."
        )
    elif kept.is_file():
        told = read_evaluation(kept, kept, source)
    elif live:
        raise InputError("live rows are shown beside replay: give stores too.")
    else:
        return None
    return {**told, "live": [*told["live"], *map(dict, live)]}


def _next_tag(tags: Sequence[str]) -> str:
    """The next of v1, v2 and so on.

    >>> _next_tag(["v1", "v9", "old"])
    'v10'
    """
    numbers = [int(tag[1:]) for tag in tags if re.fullmatch(r"v\d{1,9}", tag)]
    return f"v{max(numbers, default=0) + 1}"
