"""The prompts: Markdown files beside this module, with `$names` filled in."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from string import Template

from tts_generate.loading import builtin_controllers
from tts_generate.recorded.recording import fewest_branches
from tts_generate.search.archive import Archive, Evaluation
from tts_generate.search.objective import Curve
from tts_generate.search.questions import Part
from tts_generate.search.written.standing import branches_of, same_behaviour
from tts_generate.trace import some

_FAILURES = 4


def read(name: str, **values: object) -> str:
    """A prompt with its names filled in.

    >>> read("round", round=3, set="", reference="cmc", curve="", archive="", failures="").splitlines()[0]
    'This is round 3.'
    """
    text = (files(__package__) / "prompts" / f"{name}.md").read_text("utf-8")
    return Template(text).substitute(values) if values else text


def system(reference: str, *, beta: bool, traces: bool) -> str:
    """What the model is told once: the task, the interface, how to work; `beta` and `traces` as in `Agent`."""
    objective = read("beta" if beta else "without_beta", reference=reference).strip()
    told = read("traces").rstrip() if traces else ""
    interface = read("interface", shipped=", ".join(builtin_controllers())).strip()
    return read("system", objective=objective, interface=interface, traces=told).strip()


def opening(number: int, part: Part, reference: str, curve: Curve, archive: Archive) -> str:
    """The first message of a round: the search set, what the reference does there, and what was tried before."""
    tokens, accuracy = curve.points(part.weights)
    rows = [
        f"beta {beta:g}: {spent:,.0f} tokens, {share:.2f} %"
        for beta, spent, share in zip(curve.betas, tokens, accuracy, strict=True)
    ]
    names = ", ".join(recording.name for recording in part.recordings)
    asked = (
        f"You learn from {part.count} recorded questions ({names}), {fewest_branches(part.recordings)} branches each "
        f"or more, in steps of {part.recordings[0].interval_tokens} tokens; others are set aside to choose by.\n"
        f"{branches_of(part)}"
    )
    before = [f"- {failure.problem[:600]}" for failure in archive.failures if failure.round == number - 1]
    failed = "\n".join(["What failed in the last round:", *before[-_FAILURES:]]) if before else ""
    told = {"set": asked, "reference": reference, "curve": "\n".join(rows), "failures": failed}
    return read("round", round=number + 1, archive=table(archive, number), **told).strip()


def table(archive: Archive, rounds: int, count: int = 10) -> str:
    """The best candidates of the first `rounds` rounds, those looked at closest first: a line a curve."""
    seen: list[Evaluation] = []
    for name, entry in archive.written.items():
        last = archive.last(name)
        if entry.round < rounds and last is not None:
            seen.append(last)
    ranked = sorted(seen, key=lambda e: (e.problem is not None, -e.rung, -e.score, e.candidate.name))
    alike: list[list[Evaluation]] = []
    for evaluation in ranked:
        same = next((row for row in alike if same_behaviour(row[0], evaluation)), None)
        if same is None:
            alike.append([evaluation])
        else:
            same.append(evaluation)
    told = []
    for first, *others in alike[:count]:
        named = f" The same curve: {some([e.candidate.name for e in others], 4)}." if others else ""
        told.append(f"{line(archive, first)}{named}")
    return "\n".join(told) or "(nothing was measured yet)"


def line(archive: Archive, evaluation: Evaluation) -> str:
    """A candidate as one line."""
    entry = archive.written[evaluation.candidate.name]
    head = f"{entry.candidate.name} (round {entry.round + 1}, from {entry.candidate.parent or 'nothing'})"
    if evaluation.problem is not None:
        return f"{head}: {_short(evaluation.problem)}"
    sure = ", confirmed" if evaluation.confirmed else ""
    return (
        f"{head}: rung {evaluation.rung + 1}, gain {evaluation.mean:+.2f}, worst {min(evaluation.gains):+.2f}, score "
        f"{evaluation.score:+.2f}, {min(evaluation.tokens):,.0f} to {max(evaluation.tokens):,.0f} tokens{sure}. "
        f"{_short(entry.candidate.idea)}"
    )


def shortened(text: str, most: int = 12_000) -> str:
    r"""Text of at most so many characters; what is left out is said.

    >>> shortened("a" * 30, 10)
    'aaaaaaaaaa\n... 20 characters left out'
    """
    return text if len(text) <= most else f"{text[:most]}\n... {len(text) - most} characters left out"


def joined(lines: Sequence[str]) -> str:
    """Lines as one text, shortened."""
    return shortened("\n".join(lines))


def _short(text: str) -> str:
    first = " ".join(text.split())
    return first if len(first) <= 240 else f"{first[:237]}..."
