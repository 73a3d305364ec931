"""What a repo holds already, and whether another controller may take its place."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from tts_generate.errors import ConflictError, ControllerError, UnknownNameError
from tts_generate.hub import client
from tts_generate.hub.card import CARD, Card, identity, parse_card
from tts_generate.hub.source import Source
from tts_generate.publish.contest import Verdict, compare
from tts_generate.publish.files import SUMMARY, read_evaluation
from tts_generate.strict_json import LARGEST

OURS = re.compile(r"README\.md|controller\.json|[A-Za-z_]\w*\.py|(evaluation|\.eval_results|custom_generate)/[^/]+")
"""Paths that a controller's repo may hold, and a later commit may take away."""
LICENCES = ("LICENSE", "LICENSE.txt", "LICENSE.md")
LEFT = {".gitattributes", ".gitignore", *LICENCES}


def check_standing(
    repo_id: str, parent: str | None, there: Sequence[str], card: Card, ours: Mapping[str, Any] | None, replace: bool
) -> Verdict | None:
    """Whether ours may take the place of what is there.

    Raises:
        ConflictError: it may not, or that cannot be told.
    """
    foreign = [path for path in there if not (OURS.fullmatch(path) or path in LEFT)]
    if parent is None or (CARD not in there and not foreign):
        return None
    otherwise = "publish elsewhere, or say replace=True (--replace)"
    if CARD not in there:
        if not replace:
            raise ConflictError(f"{repo_id} is something else than a controller (it holds {foreign[0]}); {otherwise}.")
        return None
    try:
        theirs = published_evaluation(repo_id, parent)
        verdict = None if ours is None or theirs is None else compare(ours, theirs)
        same = _published_identity(repo_id, parent) == identity(card) and (theirs is None or ours is not None)
    except (ControllerError, UnknownNameError) as error:
        if not replace:
            raise ConflictError(f"{repo_id} cannot be compared with: {error} {otherwise.capitalize()}.") from error
        return None
    if replace or same or (verdict is not None and verdict.better):  # the page of the same one may be made anew
        return verdict
    if verdict is None:
        raise ConflictError(
            f"{repo_id} at {parent} and this controller were not measured on a common store, so it cannot be said that "
            f"this one is better; measure it on the stores of that one's {SUMMARY} (--store), {otherwise}."
        )
    raise ConflictError(f"this controller does not beat {repo_id} at {parent}: {verdict}; {otherwise}.")


def _published_identity(repo_id: str, revision: str) -> str:
    """Which controller a repo holds, as far as its card says; its code is not looked at."""
    path = client.download(repo_id, revision, CARD)
    return identity(parse_card(path.read_bytes(), f"{repo_id}/{CARD}"))


def published_evaluation(repo_id: str, revision: str, source: Source | None = None) -> dict[str, Any] | None:
    """What a repo says was measured, data of which nothing runs; None if it says nothing.

    Raises:
        ControllerError: it is damaged, too large, or of another controller than `source`.
        HubError: the repo cannot be asked.
    """
    path = client.cached(repo_id, revision, SUMMARY)
    if path is None and not client.offline():
        listed = client.listing(repo_id, revision).get(SUMMARY)
        if listed is not None and listed.size > LARGEST:
            raise ControllerError(f"{SUMMARY} of {repo_id} has {listed.size:,} bytes; at most {LARGEST:,} are read.")
        path = client.download(repo_id, revision, SUMMARY) if listed is not None else None
    return None if path is None else read_evaluation(path, f"{repo_id}/{SUMMARY}", source)
