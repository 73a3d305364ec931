"""The controller: hooks on the decisions of one episode, in the manner of transformers' `LogitsProcessor`."""

from __future__ import annotations

import copy
import sys
from collections.abc import Mapping
from numbers import Real
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, get_args, get_origin, get_type_hints

from tts_generate.above import HANDED
from tts_generate.errors import ControllerError, InputError, UnknownNameError
from tts_generate.state import Decision, State, leading_answer

Knob = int | float | bool | str
BRANCH_KNOBS = ("max_branches", "max_samples", "num_chains", "n_init", "widen")
"""Knobs that count branches: at most, first (`n_init`), and at a time (`widen`)."""
Probing = Literal["every_step", "on_demand", "never"]


def check_budget(beta: Any, name: str = "beta", ends: str = "0 (few tokens) to 1 (many)") -> None:
    """Refuse what is no budget, and no latency.

    Raises:
        InputError: it is not a number from 0 to 1.
    """
    try:
        inside = not isinstance(beta, (bool, str)) and 0.0 <= float(beta) <= 1.0
    except (TypeError, ValueError, OverflowError):  # of a whole number that no float holds
        inside = False
    if not inside:
        raise InputError(f"{name} must be a number from {ends}, got {beta!r}.")


class Controller:
    """Decides which branches to open, how far to continue each, where to probe, what to prune and when to answer.

    A subclass names its knobs in `schedule` and annotates them (`int`, `float`, `bool` or a `Literal` of names),
    allocates what it remembers within an episode in `memory`, and writes the hooks `begin`, `plan`, `review` and, where
    the majority of the pool is not what it wants, `answer`. The same object runs in replay and live; it is
    configuration only, the runner works on a copy per episode. Hooks that are plain loops over numbers and arrays
    compile, and replay then runs them about a hundred times faster; take logarithms and the like from `math`.

    Source: AutoTTS (arXiv 2605.08083), the verbs branch, continue, probe, prune and answer.

    >>> class FirstThree(Controller):
    ...     "Reads `width` branches to their end and lets them vote."
    ...     probing = "never"
    ...     width: int
    ...     @staticmethod
    ...     def schedule(beta): return {"width": 1 + round(4 * beta)}
    ...     def begin(self, state, do): do.open, do.open_steps = self.width, 1 << 20
    >>> FirstThree.from_beta(0.5)
    FirstThree(beta=0.5, width=3)
    """

    probing: ClassVar[Probing] = "every_step"
    """When a live run probes: at the end of every advance, only where `Decision.probe` says so, or never."""
    max_rounds: ClassVar[int] = 1_000_000
    """Rounds after which an episode ends with the `answer` hook."""

    reads_logprobs: ClassVar[bool] = False
    """Whether it reads `State.logprobs`; a recording without them is then refused. Who does not say so sees NaN."""
    compiles: ClassVar[bool] = True
    """False for a controller that is known not to compile: it runs interpreted without a warning."""

    latency: ClassVar[float | None] = None
    """Where its schedule stands between few tokens (0) and a short chain (1), if chosen; see `load_controller`."""

    beta: float | None

    def __init__(self, **knobs: Any) -> None:
        known = set(self.schedule(0.5))
        for name in knobs:
            if name not in known:
                raise UnknownNameError.of(f"knob of {type(self).__name__}", name, known)
        missing = known - set(knobs)
        if missing:
            raise InputError(
                f"{type(self).__name__} needs every knob; missing: {', '.join(sorted(missing))}. "
                "Use from_beta(beta, knob=value) to change some and take the others from beta."
            )
        self.beta = None
        kinds = get_type_hints(type(self))
        for name in self.schedule(0.5):
            setattr(self, name, _knob_value(type(self).__name__, name, kinds.get(name, float), knobs[name]))

    @staticmethod
    def schedule(beta: float) -> Mapping[str, Knob]:
        """Every knob at budget `beta` in [0, 1], each number monotone in beta."""
        raise NotImplementedError

    @classmethod
    def from_beta(cls, beta: float = 0.5, **knobs: Any) -> Self:
        """Set every knob from the one budget knob; named ones are taken as given.

        Args:
            beta: the budget, 0 (few tokens) to 1 (many).
            **knobs: knobs of `schedule` to set by hand.

        Raises:
            InputError: beta outside [0, 1], or a knob of the wrong type.
            UnknownNameError: a knob that this controller does not have.
        """
        check_budget(beta)
        controller = cls(**{**cls.schedule(float(beta)), **knobs})
        controller.beta = float(beta)
        return controller

    @property
    def knobs(self) -> dict[str, Knob]:
        """Name and value of every knob, in the order of `schedule`."""
        return {name: getattr(self, name) for name in self.schedule(0.5)}

    @property
    def most_branches(self) -> int | None:
        """Branches that an episode opens at most, as far as knobs say so.

        `widen` is what is opened at a time, and `n_init` what is opened first: more than the limit, if it is more.
        """
        limits = {name: int(self.knobs[name]) for name in BRANCH_KNOBS if name in self.knobs and name != "widen"}
        return max(limits.values()) if limits.keys() - {"n_init"} else None

    def memory(self, max_branches: int) -> None:
        """Allocate what the hooks remember within one episode; called before `begin`."""

    def begin(self, state: State, do: Decision) -> None:
        """Say how many branches to open first (`do.open`), and how far to read them (`do.open_steps`)."""
        raise NotImplementedError

    def plan(self, state: State, do: Decision) -> None:
        """Before advancing: set `do.steps[i]`, `do.prune[i]`, `do.probe[i]` of the opened branches."""

    def review(self, state: State, do: Decision) -> None:
        """After advancing: open more (`do.open`), or end (`do.stop`, `do.answer`)."""

    def answer(self, state: State) -> int:
        """The answer id when nothing is left to advance: the majority of the pool, else of the latest answers."""
        return leading_answer(state)

    def for_episode(self, max_branches: int) -> Self:
        """A copy with fresh memory for one episode of at most `max_branches` branches."""
        mine = copy.copy(self)
        mine.memory(max_branches)
        return mine

    def save_pretrained(self, folder: str | Path, *, name: str | None = None, description: str | None = None) -> Path:
        """Write this controller as a folder that `load_controller` reads and `tts-generate publish` takes; its path.

        A shipped controller becomes data alone, its name and knobs. Of any other the file of its class is copied, which
        must keep the rules of published code (`tts_generate.import_rules`). Knobs set by hand are kept as they are.

        Args:
            folder: made where it does not exist.
            name: of the controller; its class's, or what it was loaded as, if left out.
            description: one sentence; the class's first line if left out.

        Raises:
            ControllerError: it has no file of its own, or one that breaks a rule.
            InputError: the folder holds a `controller.py` that would be lost.
        """
        saved: Path = HANDED["save"](self, Path(folder), name=name, description=description)
        return saved

    def push_to_hub(self, repo_id: str, *, name: str | None = None, description: str | None = None, **how: Any) -> Any:
        """Publish this controller as a repo of the Hub: one commit and a tag, or nothing.

        Args:
            repo_id: `user/name`; made where it does not exist.
            name: see `save_pretrained`.
            description: see `save_pretrained`.
            **how: see `tts_generate.publish.publish`, such as `stores=[...]` to measure it on, or `private=True`.

        Returns:
            A `tts_generate.publish.Published`: the commit, the tag, and how to load it.

        Raises:
            ControllerError: see `save_pretrained`.
            ConflictError: somebody committed meanwhile, or what is there is better.
            HubError: the Hub cannot be reached, or refuses.
        """
        return HANDED["push_controller"](self, repo_id, name=name, description=description, **how)

    def __repr__(self) -> str:
        beta = "" if self.beta is None else f"beta={self.beta:g}, "
        return f"{type(self).__name__}({beta}{', '.join(f'{k}={v}' for k, v in self.knobs.items())})"


def _knob_value(controller: str, name: str, kind: Any, value: Any) -> Knob:
    """`value` as the knob's annotated type; what would change it silently is refused."""
    most = sys.float_info.max  # numpy's numbers are numbers too
    number = isinstance(value, Real) and not isinstance(value, bool) and -most <= _real(value) <= most
    if kind is bool and isinstance(value, bool):
        return value
    if kind is int and number and value == int(value):
        return int(value)
    if kind is float and number:
        return float(value)
    if get_origin(kind) is Literal:
        if value in get_args(kind):
            return str(value)
        raise UnknownNameError.of(f"{name} of {controller}", str(value), get_args(kind))
    expected = {int: "a whole number", float: "a finite number", bool: "true or false"}.get(kind)
    if expected is None:
        raise ControllerError(
            f"{controller}.{name} is annotated {kind!r}; a knob is int, float, bool or a Literal of names."
        )
    raise InputError(f"knob {name} of {controller} must be {expected}, got {value!r}.")


def _real(value: Real) -> int | float:
    return value if isinstance(value, int) else float(value)


def held_to(knobs: Mapping[str, Knob], branches: int) -> dict[str, Knob]:
    """Those of the knobs that count more branches than there are, held to as many.

    >>> held_to({"num_chains": 64, "stability": 40}, 16)
    {'num_chains': 16}
    """
    counts = {name: knobs[name] for name in BRANCH_KNOBS if name in knobs}
    return {name: branches for name, count in counts.items() if not isinstance(count, str) and count > branches}


def by_hand(controller: Controller) -> dict[str, Knob]:
    """The knobs that beta alone would not give."""
    if controller.beta is None:
        return controller.knobs
    own = type(controller).from_beta(controller.beta).knobs
    return {name: value for name, value in controller.knobs.items() if value != own[name]}


def describe(controller: Controller) -> Mapping[str, Any]:
    """Class, beta, knobs and, if chosen, latency as plain JSON values, for traces and result files."""
    told = {"controller": type(controller).__name__, "beta": controller.beta, "knobs": dict(controller.knobs)}
    return told if controller.latency is None else {**told, "latency": controller.latency}
