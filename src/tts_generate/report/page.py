"""One self-contained page of what was measured: frontiers, tokens by kind, every question, and a trace viewer.

The page asks the network for nothing, and says so to the browser (its content security policy allows no request).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from tts_generate.inert import inert
from tts_generate.report import chart
from tts_generate.report.frontier import AXES, Point
from tts_generate.report.lanes import parcel
from tts_generate.report.templating import fill, markup
from tts_generate.trace import Trace

_LONGEST = 4000
"""Characters of a question that are shown."""


@dataclass(frozen=True)
class SweepRows:
    """The rows of a sweep (`evaluate.as_dict`) on one store, or on the average of several.

    Of a live run without gold answers, `accuracy` and `accuracy_ci` are None, and what a trace does not tell is too.
    """

    title: str
    rows: Sequence[Mapping[str, Any]]

    def points(self, axis: str = "tokens") -> list[Point]:
        """The rows whose accuracy is known, one series a controller, over their tokens or their longest chain."""
        return [
            Point.of(row, axis, label=row["label"])
            for row in self.rows
            if row["accuracy"] is not None and (row[axis] or 0) > 0
        ]


class Told(NamedTuple):
    """What one method did on one question: accuracy in percent (None: no gold answer) and mean tokens."""

    accuracy: float | None
    tokens: float


@dataclass(frozen=True)
class Asked:
    """One question: what each of `Page.methods` did on it, and the traces of one episode each."""

    name: str
    text: str
    gold: str | None
    told: Sequence[Told | None]
    traces: Sequence[Trace | None]
    right: Sequence[str] | None = None
    """Of the answers that the traces show, those that count as the gold one; None: those of its very text."""


@dataclass(frozen=True)
class Page:
    """Everything a page says."""

    title: str
    facts: Mapping[str, str]
    """What was asked of what, in a few words each, in order."""
    measured: Sequence[SweepRows] = ()
    """What is plotted and tabulated, the first in full; the viewer stands with it."""
    baseline: str | None = None
    """Label of the row that the others are compared with (their `against`)."""
    methods: Sequence[str] = ()
    """Labels of the methods of which every question's result and trace is shown."""
    asked: Sequence[Asked] = ()
    notes: Sequence[str] = field(default_factory=list)


def render(page: Page) -> str:
    """The HTML of a page.

    Raises:
        TTSError: jinja2 is not installed.
    """
    parts = [
        {
            "title": measured.title,
            "rows": measured.rows,
            "frontiers": [
                chart.FrontierChart.of(points, label)
                for axis, label in AXES.items()
                if (points := measured.points(axis))
            ],
            "bars": chart.bars(measured.rows),
        }
        for measured in page.measured
    ]
    return fill("page.html", page=page, parts=parts, chart=chart, viewer=markup(viewer(page)))


def viewer(page: Page) -> str:
    """The trace viewer alone, with its style and script, to stand in any page; "" if nothing was traced."""
    watched = []
    for asked in page.asked:
        kept = [(label, trace) for label, trace in zip(page.methods, asked.traces, strict=True) if trace is not None]
        if kept:
            answers, data = parcel([trace for _, trace in kept])
            golds = [asked.gold] if asked.right is None else asked.right
            right = [number for number, answer in enumerate(answers) if answer in golds]
            answers = [inert(answer) for answer in answers]
            traces = [{"label": inert(label), "knobs": inert(trace.knobs)} for label, trace in kept]
            text = asked.text if len(asked.text) <= _LONGEST else asked.text[:_LONGEST] + " …"
            gold = None if asked.gold is None else inert(asked.gold)
            row = {"name": inert(asked.name), "text": inert(text), "gold": gold, "answers": answers, "traces": traces}
            watched.append({**row, "right": right, "data": data})
    return fill("viewer.html", watched=watched) if watched else ""
