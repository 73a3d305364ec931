"""A store of the Hub as a folder of one's own."""

from __future__ import annotations

import shutil
from pathlib import Path

from tts_generate.arguments import checked
from tts_generate.errors import StoreError
from tts_generate.trajectories.remote import fetch, read_index
from tts_generate.trajectories.store import TrajectoryStore


@checked
def pull(repo_id: str, out: str | Path, *, revision: str | None = None) -> TrajectoryStore:
    """Copy a store of the Hub into a folder, where a recording can go on with it.

    Args:
        repo_id: a dataset, `user/name`.
        out: the folder; it must not be there, or be empty. It appears whole or not at all.
        revision: a branch, a tag or a commit; `main` if left out.

    Raises:
        StoreError: there is something in `out`, or it cannot be written; or what `fetch` raises.
        HubError: see `fetch`.
    """
    out = Path(out)
    if out.resolve() == Path.cwd():
        raise StoreError(f"{out} is the folder that you stand in, and it would be replaced; pull into another one.")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise StoreError(f"{out} is not empty; pull into another folder.")
    folder, commit = fetch(repo_id, revision)
    aside = out.with_name(f".{out.name}.part")
    try:
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        for name in read_index(f"datasets/{repo_id}", commit).files:
            shutil.copyfile(folder / name, aside / name)
        if out.is_dir():
            out.rmdir()
        aside.rename(out)
    except OSError as error:
        raise StoreError(f"cannot write {out}: {error.strerror}.") from error
    return TrajectoryStore.open(out)
