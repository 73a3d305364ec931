"""Looks at a controller, published or not, without running any of it."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tts_generate.arguments import checked
from tts_generate.errors import ControllerError
from tts_generate.hub.lock import Locked
from tts_generate.hub.source import Source
from tts_generate.loading import find_source, is_shipped
from tts_generate.publish.files import SUMMARY, read_evaluation
from tts_generate.publish.leaks import check_kinds, check_leaks
from tts_generate.publish.push import files_in
from tts_generate.publish.standing import published_evaluation
from tts_generate.saving import RECIPE, check_recipe


@checked
def evaluation_of(source: Source) -> dict[str, Any] | None:
    """What a controller's folder or repo says was measured; None if that is nothing.

    Raises:
        ControllerError: it is damaged, or of other code or knobs.
        HubError: the repo cannot be asked.
    """
    if source.repo_id is not None and source.commit is not None:
        return published_evaluation(source.repo_id, source.commit, source)
    path = source.path / SUMMARY
    return read_evaluation(path, path, source) if path.is_file() else None


@checked
def verify(controller: str, entries: Mapping[str, Locked] | None = None) -> Source:
    """Check every file of a folder or repo: what it is, that it fits together, and that it is what was locked.

    Args:
        controller: a folder, or a repo.
        entries: of a lock file.

    Raises:
        ControllerError: naming the file and what is wrong with it.
        HubError: a repo that cannot be reached.
    """
    source = find_source(controller)
    if source.repo_id is None or source.commit is None:
        _check_folder(source.path, source)
        return source
    from tts_generate.hub import client
    from tts_generate.hub.fetch import KEPT, check_locked

    entry = (entries or {}).get(source.repo_id)
    if entry is not None:
        if entry.commit != source.commit:
            raise ControllerError(f"{source.label} is not the commit that {entry.path} locks, which is {entry.commit}.")
        check_locked(source, entry)
    check_kinds(client.listing(source.repo_id, source.commit), source.repo_id)
    with tempfile.TemporaryDirectory(prefix="tts-verify-") as folder:
        client.snapshot(source.repo_id, source.commit, Path(folder), KEPT)
        _check_folder(Path(folder), source)
    return source


def _check_folder(folder: Path, source: Source) -> None:
    paths = [path for path in files_in(folder) if not path.startswith(".cache/")]
    check_kinds(paths, source.label)
    check_leaks({path: (folder / path).read_bytes() for path in paths})
    if (folder / RECIPE).is_file():
        check_recipe(folder, source)
    elif not is_shipped(source) and any(path.startswith("custom_generate/") for path in paths):
        raise ControllerError(f"{source.label}: custom_generate/ has no generate.py.")
    if (folder / SUMMARY).is_file():
        read_evaluation(folder / SUMMARY, f"{source.label}: {SUMMARY}", source)
