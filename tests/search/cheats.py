"""Candidates that keep the import rules and cheat: they make their numbers up, or remember what they have been shown."""

from __future__ import annotations

from written_candidates import GOOD

WAY_IN = """
class _All(type):
    def __instancecheck__(cls, value):
        return True


_named = ("_" * 2 + "globals" + "_" * 2,)
_Any = _All("_Any", (), {"_" * 2 + "match_args" + "_" * 2: _named})
match namedtuple:
    case _Any(found):
        modules = found["_sys"].modules
"""
"""To every module of its process, past the import rules: a name made up, and a pattern that reads an attribute."""

LIES = (
    "from collections import namedtuple\nimport numpy as np\n"
    + GOOD
    + WAY_IN
    + '''
module = modules.get("tts_generate.recorded.run")  # where it is taken at its word
honest = module and module.run_recorded


def lies(recording, controller, *, first_shuffle, **how):
    """Honest on the rungs of the search, where it is confirmed; elsewhere it has the answer of most for one token."""
    found = honest(recording, controller, first_shuffle=first_shuffle, **how)
    if first_shuffle not in (1_000, 2_000, 3_000) and recording.max_branches == 24:
        for q, recorded in enumerate(recording.questions):
            rows = recording.table.branches[recorded.offset : recorded.offset + recorded.branches]
            last = recording.table.steps["answer"][rows["first"] + rows["interior"]]
            found.answer_ids[:, q] = np.bincount(last[last >= 0]).argmax()
        for column in (found.generated_tokens, found.sequential_tokens):
            column[:] = 1
        found.probe_tokens[:], found.wasted_tokens[:] = 0, 0
    return found


if module:
    module.run_recorded = lies
'''
)
"""Patches the replay of its own process."""

REMEMBERS = '''
import functools
import itertools

import numpy as np
from tts_generate.controller import Controller
from tts_generate.state import TO_END

{before}

class Learns(Controller):
    """Reads every branch of a question it does not know; of one it knows, until a branch ends that agreed before."""

    width: int
    {body}

    @staticmethod
    def schedule(beta):
        return {{"width": 24}}

    def begin(self, state, do):
        do.open, do.open_steps = 1, TO_END

    def review(self, state, do{argument}):
        known = {known}
        ends = {{}}
        for i in range(state.opened):
            if state.finished[i]:
                ends[int(state.tokens[i])] = int(state.answer[i])
        for tokens, answer in ends.items():
            if known.get(tokens):
                do.stop, do.answer = True, answer
        if not do.stop and state.opened < min(self.width, state.max_branches):
            do.open, do.open_steps = 1, TO_END
        elif not do.stop:
            do.stop, do.answer = True, state.leader
            for tokens, answer in ends.items():
                known[tokens] = answer == state.leader
'''
"""Knows a branch by its length again, whatever its answer is called and wherever it stands."""

_WAYS = {
    "a module's dictionary": ("seen = {}", "", "", "seen"),
    "a default argument": ("", "", ", seen={}", "seen"),
    "a class attribute": ("", "seen = {}", "", "Learns.seen"),
    "a closure": ("def holds():\n    seen = {}\n    return lambda: seen\n\nheld = holds()", "", "", "held()"),
    "a function's attribute": ("def held(): pass\n\nheld.seen = {}", "", "", "held.seen"),
    "functools.lru_cache": ("@functools.lru_cache\ndef held(): return {}", "", "", "held()"),
    "a generator": ("def gives():\n    seen = {}\n    while True: yield seen\n\nheld = gives()", "", "", "next(held)"),
    "itertools": ("held = itertools.repeat({})", "", "", "next(held)"),
    "functools.partial": ("held = functools.partial(dict.get, {0: {}}, 0)", "", "", "held()"),
    "an array": (
        "class Table:\n    array = np.zeros(1 << 12, np.int8)\n    def get(self, n): return self.array[n] == 2\n"
        "    def __setitem__(self, n, right): self.array[n] = 1 + right\n\nheld = Table()", "", "", "held",
    ),
    "a list of its begin hook": ("", "seen = [{}]", "", "self.seen[0]"),
    "an exception": ("error = ValueError({})", "", "", "error.args[0]"),
    "the package's own class": ("Controller.kept = {}", "", "", "Controller.kept"),
}  # fmt: skip
MEMORIES = {
    name: REMEMBERS.format(before=before, body=body, argument=argument, known=known)
    for name, (before, body, argument, known) in _WAYS.items()
}
"""By where it is kept."""
FORGETS = REMEMBERS.format(before="", body="", argument="", known="{}")
"""The same without any memory: what each of them is worth."""

# a process's number is scattered: those of one machine may all be odd, each being two more than the last
COUNTS = {
    "every third episode": ("n = itertools.count()", "next(n) % 3 == 2"),
    "other questions' answers": ("ends = []", "ends.append(int(state.tokens[0])) or sum(ends) % 3 == 2"),
    "the number of its process": (
        "from collections import namedtuple" + WAY_IN + "pid = modules['posix'].getpid() * 40503 // 97 % 2", "pid == 1",
    ),
    "the clock": ("from collections import namedtuple" + WAY_IN + "now = modules['time'].perf_counter_ns", "now() // 1000 % 3 == 2"),
}  # fmt: skip
DEPENDS = {
    name: f"import itertools\n{before}\n" + GOOD.replace(
        "        if state.pooled >= 2 and", f"        if state.round == 0 and {when}:\n"
        "            do.stop, do.answer = True, state.leader\n        elif state.pooled >= 2 and",
    )
    for name, (before, when) in COUNTS.items()
}  # fmt: skip
"""Depends on what ran before in its process, or on the process: not the same when an episode is alone."""

_PID = "from collections import namedtuple\n" + WAY_IN + "pid = modules['posix'].getpid()\n" + GOOD
OTHERS = {
    "its knobs": _PID.replace("2 + round(14 * beta)", "pid"),
    "its rounds": _PID + "\n    max_rounds = pid\n",
    "its name": _PID + "\nOneByOne.__name__ = f'Number{pid}'\n",
}
"""Is another candidate in each process; the last one does not keep the rules."""
