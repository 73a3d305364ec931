"""The candidate's end of `lockstep`: episodes of different questions side by side, each with a state of its own.

Runs in the child: no import of the host's part.
"""

from __future__ import annotations

from collections.abc import Mapping
from operator import index
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tts_generate.controller import Controller
from tts_generate.rules import clear_decision
from tts_generate.state import Decision, State

BEGIN = 0
HOOKS = ("begin", "plan", "review", "answer")
SCALARS = (
    "pooled", "leader", "leader_votes", "runner_up_votes", "opened", "live", "round", "generated_tokens",
    "probe_tokens", "sequential_tokens",
)  # fmt: skip
"""Of a state, in the order in which they are told."""
ROW, HEAD = 9, 4
"""Columns that tell of a branch: episode, branch, answer, depth, tokens, finished + 2 pruned, rank, shown, depth
before. Numbers of a decision: open, open_steps, stop, answer."""


MOST_OWN = 16
"""Numbers of a controller's own that are told."""


class Together:
    """Episodes that go on together.

    Args:
        kind: of the controller.
        message: `shapes` (what a `State` takes) of each episode, `beta`, `knobs`, `logprobs`.
    """

    def __init__(self, kind: type[Controller], message: Mapping[str, Any]) -> None:
        shapes = message["shapes"]
        most = [max(sizes) for sizes in zip(*shapes, strict=True)]
        self.columns = _side_by_side(State(*most), len(shapes))
        self.chosen = _side_by_side(Decision(most[0]), len(shapes))
        self.logprobs = bool(message["logprobs"])
        controller = kind.from_beta(message["beta"], **message["knobs"])
        self.knobs = controller.knobs
        self.controllers = [controller.for_episode(shape[0]) for shape in shapes]
        self.states = [State(*shape) for shape in shapes]
        self.dos = [Decision(shape[0]) for shape in shapes]
        for e, (count, depth, *_) in enumerate(shapes):
            for names, one in ((self.columns, self.states[e]), (self.chosen, self.dos[e])):
                for name, array in names.items():
                    setattr(one, name, array[e, :count] if array.ndim == 2 else array[e, :count, :depth])
        self.given = [vars(do).copy() for do in self.dos]

    def turn(self, counts: list[int], raw: bytes) -> bytes:
        """Let the states see what was revealed, and ask every hook that is asked; the decisions."""
        asked, rows, pool, width, probed = counts
        shapes = ((2, asked), (asked, len(SCALARS)), (rows, ROW), (pool, 3))
        parts, place = [], 0
        for shape in shapes:
            parts.append(np.frombuffer(raw, "<i8", shape[0] * shape[1], place).reshape(shape))
            place += 8 * shape[0] * shape[1]
        who, scalars, branches, joined = parts
        self._see(branches, joined, np.frombuffer(raw, "<f8", -1, place))
        heads = np.empty((asked, HEAD), "<i8")
        for k, (e, hook) in enumerate(who.T.tolist()):
            state = self.states[e]
            for name, value in zip(SCALARS, scalars[k].tolist(), strict=True):
                setattr(state, name, value)
            heads[k] = self._hook(e, HOOKS[hook], state)
        those = who[0]
        steps, prune = (self.chosen[name][those, :width] for name in ("steps", "prune"))
        probe = self.chosen["probe"][those, :probed]
        return (
            heads.tobytes() + steps.astype("<i8").tobytes() + prune.astype("u1").tobytes()
            + probe.astype("u1").tobytes()
        )  # fmt: skip

    def _see(self, rows: NDArray[np.int64], joined: NDArray[np.int64], logprobs: NDArray[np.float64]) -> None:
        at, columns = (rows[:, 0], rows[:, 1]), self.columns
        for place, name in ((2, "answer"), (3, "depth"), (4, "tokens"), (6, "finish_rank")):
            columns[name][at] = rows[:, place]
        columns["finished"][at] = rows[:, 5] & 1
        columns["pruned"][at] = rows[:, 5] >> 1
        moved = rows[rows[:, 3] > rows[:, 8]]
        columns["answers"][moved[:, 0], moved[:, 1], moved[:, 3] - 1] = moved[:, 7]
        columns["pool"][joined[:, 0], joined[:, 1]] = joined[:, 2]
        if self.logprobs and len(rows):
            counts = rows[:, 3] - rows[:, 8]
            depths = np.arange(len(logprobs)) - np.repeat(np.cumsum(counts) - counts - rows[:, 8], counts)
            columns["logprobs"][np.repeat(at[0], counts), np.repeat(at[1], counts), depths] = logprobs

    def _hook(self, e: int, hook: str, state: State) -> tuple[int, int, bool, int]:
        """One decision, its arrays left where `turn` finds them."""
        mine, do = self.controllers[e], self.dos[e]
        if hook == "answer":
            return 0, 0, False, index(mine.answer(state))
        clear_decision(do)
        getattr(mine, hook)(state, do)
        check_decision(do, state.opened)
        for name, array in self.chosen.items():
            if getattr(do, name) is not self.given[e][name]:  # replaced by another array
                own = getattr(do, name)[: array.shape[1] if name == "probe" else state.opened]
                array[e, : len(own)] = own
        return index(do.open), index(do.open_steps), bool(do.stop), index(do.answer)


def _side_by_side(one: State | Decision, count: int) -> dict[str, NDArray[Any]]:
    """The arrays of `count` states or decisions like this one, by name, as one array each."""
    return {
        name: np.full((count, *array.shape), array.flat[0] if array.size else 0, array.dtype)
        for name, array in vars(one).items()
        if isinstance(array, np.ndarray)
    }


def check_decision(do: Decision, opened: int) -> None:
    """Refuse a decision that is none.

    Raises:
        TypeError: it holds anything but truths and arrays of numbers.
    """
    if not isinstance(do.stop, (bool, np.bool_)):
        raise TypeError(f"do.stop must be True or False, got {do.stop!r}")
    for name in ("steps", "prune", "probe"):
        array = getattr(do, name)
        if not isinstance(array, np.ndarray) or array.dtype.kind not in "bi" or array.shape[0] < opened:
            raise TypeError(f"do.{name} must stay the array it is; fill it by index")
