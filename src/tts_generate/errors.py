"""Every error this library raises on purpose: one clear message, one class a caller can catch."""

from __future__ import annotations

import difflib
import sys
import warnings
from collections.abc import Iterable

from tts_generate.inert import inert
from tts_generate.secret import clean_errors, without_secrets


def warn(text: str, kind: type[Warning] = RuntimeWarning, *, stacklevel: int = 1) -> None:
    """Warn as `warnings.warn` does, by a text that holds no secret and in which text of strangers is inert."""
    warnings.warn(inert(without_secrets(text)), kind, stacklevel=stacklevel + 1)


class NoAnswerWarning(UserWarning):
    """Questions ended without an answer; the text says what was looked for, where, and what to set."""


class TTSError(Exception):
    """An error of tts-generate; its message says what came, what was expected and what to do, and holds no secret.

    Text of strangers in it is inert, wherever it is shown. What it comes from holds no secret either.
    """

    def __init__(self, *told: object) -> None:
        super().__init__(*(inert(without_secrets(text)) if isinstance(text, str) else text for text in told))
        clean_errors(sys.exception())


class InputError(TTSError, ValueError):
    """An argument, prompt or setting is not usable as given."""


class UnknownNameError(InputError):
    """A name (controller, strategy, knob, keyword) is not one of those known."""

    @classmethod
    def of(cls, kind: str, name: object, known: Iterable[str], hint: str = "") -> UnknownNameError:
        """Say which names are known, nearest first.

        >>> str(UnknownNameError.of("controller", "cmcc", ["asc", "cmc"]))
        "unknown controller 'cmcc': did you mean 'cmc'? Known: 'asc', 'cmc'."
        """
        options = sorted(known)
        near = difflib.get_close_matches(str(name), options, n=1)
        guess = f" did you mean {near[0]!r}?" if near else ""
        listed = ", ".join(repr(option) for option in options) or "none"
        return cls(f"unknown {kind} {name!r}:{guess} Known: {listed}.{' ' + hint if hint else ''}")


class UnsupportedError(TTSError, ValueError):
    """A decoding mode or model family that the engine cannot honour was asked for."""


class ControllerError(TTSError):
    """A controller made a decision that cannot be carried out, or its folder is not usable."""


class UntrustedCodeError(ControllerError):
    """Controller code would have to run, and nobody said that it may."""


class ProcessError(TTSError):
    """Another process of a launched job ended early, or the processes do not do the same thing."""


class StoreError(TTSError):
    """A trajectory store cannot be read or written."""


class StoreFormatError(StoreError):
    """A trajectory store, or a file in it, has another format, model or settings than expected."""


class ServerError(TTSError):
    """A server cannot be reached, or refused or garbled what it was asked."""


class HubError(TTSError):
    """The Hub cannot be reached, or refuses what it is asked, or holds something else than expected."""


class ConflictError(HubError):
    """What would be published does not follow on what is there: somebody was faster, or it is no better."""


class SandboxUnavailable(TTSError):
    """This machine cannot lock a candidate's process as it must be locked."""


class CandidateError(ControllerError):
    """A candidate's code failed, broke a rule, or ran over a limit; nothing of ours did.

    `reason` is one of: `import` (the code does not load), `rules` (it breaks the import rules), `knobs` (its schedule
    is no budget), `raised` (a hook raised), `decision` (it decided what cannot be carried out), `time`, `slow` (its
    hooks do not compile, or take too long), `memory`, `crash`, `forbidden` (a system call that kills), `ended` (its
    process ended), `protocol` (it sent what no worker of ours sends), `different` (it looks ahead, or does not decide
    the same in strict mode). `output` is what it wrote, cleaned and cut: untrusted text.
    """

    def __init__(self, reason: str, message: str, *, line: int | None = None, output: str = "") -> None:
        super().__init__(message)
        self.reason = reason
        self.line = line
        self.output = output
