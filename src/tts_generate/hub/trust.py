"""Whose code may run: nobody's, unless the caller says so."""

from __future__ import annotations

from collections.abc import Sequence

from tts_generate.errors import InputError, UntrustedCodeError
from tts_generate.hub.names import is_repo_id

Trust = bool | Sequence[str]
"""False: no foreign code; True: this call's; a list of repos: theirs, and no folder's."""


def check_trust(trust: Trust, repo_id: str | None, what: str, where: str) -> None:
    """Nothing, if the code may run.

    Raises:
        UntrustedCodeError: it may not.
        InputError: `trust` is neither true, false nor a list of repos.
    """
    if isinstance(trust, bool):
        if trust:
            return
        raise UntrustedCodeError(
            f"{what} is code that did not come with this package: read {where}, and pass trust_remote_code=True to run "
            "it, or sandbox=True to run it where it can reach nothing."
        )
    allowed = _repos(trust)
    if repo_id is None:
        raise UntrustedCodeError(
            f"{what} is code from this machine, and a list of trusted repos does not cover it; read {where}, and pass "
            "trust_remote_code=True to run it."
        )
    if repo_id not in allowed:
        raise UntrustedCodeError(
            f"{repo_id} is not among the trusted repos ({', '.join(allowed) or 'none'}); read {where}, and add it to "
            "trust_remote_code to run its code."
        )


def check_form(trust: Trust) -> None:
    """Nothing, if it can be trust at all, whether or not there is code to trust.

    Raises:
        InputError: it is neither true, false nor a list of repos.
    """
    if not isinstance(trust, bool):
        _repos(trust)


def _repos(trust: Sequence[str]) -> list[str]:
    if isinstance(trust, (str, bytes)) or not isinstance(trust, Sequence):
        raise InputError(
            f"trust_remote_code must be True, False or a list of repos such as ['user/name'], got {trust!r}."
        )
    for repo_id in trust:
        if not isinstance(repo_id, str) or not is_repo_id(repo_id):
            raise InputError(f"trust_remote_code lists {repo_id!r}, which is no repo, 'user/name'.")
    return list(trust)
