"""The prompts: Markdown files beside this module, with `$names` filled in."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from string import Template

from tts_generate.loading import builtin_controllers
from tts_generate.recorded.recording import fewest_branches
from tts_generate.search.archive import Archive, Evaluation
from tts_generate.search.loop import Judge
from tts_generate.search.objective import HELD, Objective
from tts_generate.search.written import niches
from tts_generate.search.written.standing import branches_of, same_behaviour
from tts_generate.trace import some

_FAILURES = 4
_WAITED = {
    "tokens": "It does not count in the score; it tells candidates apart, and who is the best of a kind goes on.",
    "sequential": "Here it is what is paid: wherever costs or tokens of budgets are told, they are chains.",
}
_HELD = (
    "It counts: a candidate loses ten points for each factor of e by which its chain, on average over its budgets, is "
    "longer than {share} of that of self-consistency with all branches."
)
"""By objective: how the longest chain counts."""


def read(name: str, **values: object) -> str:
    """A prompt with its names filled in.

    >>> read("chain", counts="It does not count.").splitlines()[-1]
    'It does not count.'
    """
    text = (files(__package__) / "prompts" / f"{name}.md").read_text("utf-8")
    return Template(text).substitute(values) if values else text


def system(reference: str, objective: Objective, *, beta: bool, traces: bool) -> str:
    """What the model is told once: the task, the interface, how to work; `beta` and `traces` as in `Agent`."""
    worth = read("beta" if beta else "without_beta", reference=reference).strip()
    waited = _WAITED.get(objective, _HELD).format(share=f"{HELD.get(objective, 1.0):.0%}")
    told = read("traces").rstrip() if traces else ""
    interface = read("interface", shipped=", ".join(builtin_controllers())).strip()
    return read(
        "system", objective=worth, chain=read("chain", counts=waited).strip(), interface=interface, traces=told
    ).strip()


def opening(number: int, judge: Judge, reference: str, archive: Archive) -> str:
    """The first message of a round: the search set, what the reference does there, what was tried, and parents."""
    part, curve = judge.part, judge.reference_curve(len(judge.rungs) - 1)
    tokens, accuracy = curve.points(part.weights)
    rows = budgets(curve.betas, tokens.tolist(), curve.chains(part.weights).tolist(), accuracy.tolist())
    if curve.bound:
        rows.append(f"A candidate's chain is held to {curve.held_to(part.weights):,.0f}.")
    names = ", ".join(recording.name for recording in part.recordings)
    asked = (
        f"You learn from {part.count} recorded questions ({names}), {fewest_branches(part.recordings)} branches each "
        f"or more, in steps of {part.recordings[0].interval_tokens} tokens; others are set aside to choose by.\n"
        f"{branches_of(part)}"
    )
    before = [
        f"- {' '.join(failure.problem.split())[:600]}" for failure in archive.failures if failure.round == number - 1
    ]
    failed = "\n".join(["What failed in the last round:", *before[-_FAILURES:]]) if before else ""
    told = {"set": asked, "reference": reference, "curve": "\n".join(rows), "failures": failed}
    told |= {"archive": table(archive, number), "parents": "\n".join(_from(judge, archive, number))}
    return read("round", round=number + 1, **told).strip()


def budgets(
    betas: Sequence[float], tokens: Sequence[float], chain: Sequence[float], accuracy: Sequence[float]
) -> list[str]:
    """A curve, a line a budget.

    >>> budgets((0.5,), (1000.0,), (400.0,), (60.0,))
    ['beta 0.5: 1,000 tokens, chain 400, 60.00 %']
    """
    return [
        f"beta {beta:g}: {spent:,.0f} tokens, chain {waited:,.0f}, {share:.2f} %"
        for beta, spent, waited, share in zip(betas, tokens, chain, accuracy, strict=True)
    ]


def _from(judge: Judge, archive: Archive, rounds: int) -> list[str]:
    """What to go on from, as lines; nothing before there is anything."""
    found = niches.parents(judge, archive, rounds)
    if not found:
        return []
    head = "Parents that differ, by tokens and longest chain (of the budgets that each has there) and by behaviour:"
    first = niches.first_of(found).name
    return [head, *niches.told(found), f"Make the first candidate of this round from {first}, or from nothing."]


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
    chain = f", chain {min(evaluation.chain):,.0f} to {max(evaluation.chain):,.0f}" if evaluation.chain else ""
    return (
        f"{head}: rung {evaluation.rung + 1}, gain {evaluation.mean:+.2f}, worst {min(evaluation.gains):+.2f}, score "
        f"{evaluation.score:+.2f}, {min(evaluation.tokens):,.0f} to {max(evaluation.tokens):,.0f} tokens{chain}{sure}. "
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
