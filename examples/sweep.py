"""Compare controllers over their budgets on recorded branches: no model runs.

python examples/record.py STORE
python examples/sweep.py STORE
"""

from __future__ import annotations

import sys

from tts_generate import Recording
from tts_generate.evaluate import Method, baselines, methods, sweep

recording = Recording.from_store(sys.argv[1])
branches = recording.max_branches
chosen = [
    *methods(["short_m_at_k"], [0.0, 0.2]),
    Method("esc", "esc", None, {"max_samples": branches}),  # a knob by hand: no more branches than were recorded
    Method("cmc", "cmc", None, {"max_branches": branches}),
]
found = sweep([recording], chosen, shuffles=20, against=baselines(branches))
reference = found.average[0].label
for row in found.average:
    low, high = row.accuracy_ci
    saved = row.against[reference]["saving"]
    print(
        f"{row.label:18} {row.accuracy:5.1f} % ({low:.1f} to {high:.1f}), {row.tokens:6.0f} tokens a question, "
        f"{saved:6.1%} fewer than {reference}"
    )
