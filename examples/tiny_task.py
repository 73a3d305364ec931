"""Last-digit programs, and the noisy pupil who solves them: the whole source of the tiny model's data.

A question is a short program in arithmetic modulo 10; the pupil works it out step by step on a scratchpad, and makes
two kinds of mistakes that call for different numbers of votes:

* **slips**: now and then any wrong digit; a few votes outvote them;
* **muddles**: for some facts (`7 * 8`, say) one favourite wrong digit, written nearly as often as the right one. Its
  rival answer trails the right one by a little, so it takes many votes to tell them apart; a few muddles beat the
  truth, and no number of votes helps.

The pupil also doubts (`wait`), checks whole passes (`check`), and some branches wander, so lengths vary.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field

LETTERS = "abcdefghij"
OPERATORS = "+-*"
OPERANDS = range(2, 10)

Fact = tuple[int, str, int]
"""(x, operator, y): one step of arithmetic, `x` the value so far and `y` the operand."""


def last_digit(x: int, operator: str, y: int) -> int:
    """The right value of a fact, modulo 10.

    >>> last_digit(7, "*", 8), last_digit(3, "-", 5)
    (6, 8)
    """
    value = {"+": x + y, "-": x - y, "*": x * y}[operator]
    return value % 10


@dataclass(frozen=True, slots=True)
class Program:
    """A question: a start digit and the steps applied to it, each modulo 10."""

    start: int
    steps: tuple[tuple[str, int], ...]

    def prompt(self) -> str:
        """The text given to the tokenizer as is.

        >>> Program(6, (("*", 3), ("-", 8))).prompt()
        'Q: a = 6 ; b = a * 3 ; c = b - 8 ; c ? <think>'
        """
        lines = [f"a = {self.start} ;"]
        for i, (operator, y) in enumerate(self.steps):
            lines.append(f"{LETTERS[i + 1]} = {LETTERS[i]} {operator} {y} ;")
        return " ".join(["Q:", *lines, LETTERS[len(self.steps)], "? <think>"])

    def answer(self) -> int:
        """The right answer, a digit."""
        value = self.start
        for operator, y in self.steps:
            value = last_digit(value, operator, y)
        return value


def sample_program(rng: random.Random) -> Program:
    """A random question: three in five are short with few products, the others long with more of them."""
    short = rng.random() < 0.6
    length = rng.randint(2, 5) if short else rng.randint(7, 9)
    products = 0.2 if short else 0.4
    steps = (("*" if rng.random() < products else rng.choice("+-"), rng.choice(OPERANDS)) for _ in range(length))
    return Program(rng.randint(0, 9), tuple(steps))


def sample_muddles(seed: int, close: int, hopeless: int) -> dict[Fact, tuple[int, float]]:
    """Facts with a favourite wrong digit and its share: `close` ones trail the truth, `hopeless` ones beat it."""
    rng = random.Random(seed)
    facts = [(x, o, y) for o in OPERATORS for x in range(10) for y in OPERANDS if not (o == "*" and x < 2)]
    muddles: dict[Fact, tuple[int, float]] = {}
    for rank, fact in enumerate(rng.sample(facts, close + hopeless)):
        wrong = (last_digit(*fact) + rng.choice((1, 2, 8, 9))) % 10
        muddles[fact] = (wrong, rng.uniform(0.25, 0.42) if rank < close else rng.uniform(0.80, 0.95))
    return muddles


@dataclass(frozen=True, slots=True)
class Pupil:
    """The noisy pupil: how often each kind of mistake and of doubt happens. All rates are probabilities."""

    muddles: dict[Fact, tuple[int, float]] = field(default_factory=lambda: sample_muddles(seed=11, close=6, hopeless=3))
    """The facts with a favourite wrong digit."""
    slip: dict[str, tuple[float, float]] = field(
        default_factory=lambda: {"+": (0.005, 0.05), "-": (0.01, 0.06), "*": (0.03, 0.18)}
    )
    """Slip rate per operator, of an easy and of a hard fact (with a carry, a borrow, two factors above 2)."""
    wander: float = 0.25
    """Share of long-winded branches, which slip more, doubt more and check more."""
    wander_slips: float = 2.0
    """Factor on the slip rates in a wandering branch."""
    doubt: tuple[float, float] = (0.04, 0.20)
    """Rate of `wait` after a right and after a wrong value."""
    wander_doubt: tuple[float, float] = (0.18, 0.40)
    """The same in a wandering branch."""
    first_check: float = 0.5
    """Rate of a check after the first conclusion."""
    agreed_check: float = 0.08
    """Rate of one more check when the last two conclusions agree."""
    disagreed_check: float = 0.5
    """Rate of one more check while they differ."""
    wander_check: float = 0.75
    """Least rate of one more check in a wandering branch."""
    max_trace_tokens: int = 236
    """No pass is begun that would likely overrun this."""

    def value(self, rng: random.Random, fact: Fact, wandering: bool) -> int:
        """What the pupil writes for a fact: the truth, its favourite wrong digit, or a slip."""
        wrong, share = self.muddles.get(fact, (0, 0.0))
        if rng.random() < share:
            return wrong
        x, operator, y = fact
        hard = {"+": x + y > 9, "-": x < y, "*": x > 2 and y > 2}[operator]
        slipped = rng.random() < self.slip[operator][hard] * (self.wander_slips if wandering else 1.0)
        return (last_digit(*fact) + (rng.randint(1, 9) if slipped else 0)) % 10

    def checks_again(self, rng: random.Random, conclusions: list[int], wandering: bool) -> bool:
        """Whether the pupil goes over the program once more."""
        if len(conclusions) == 1:
            rate = self.first_check
        else:
            rate = self.agreed_check if conclusions[-1] == conclusions[-2] else self.disagreed_check
        return rng.random() < (max(rate, self.wander_check) if wandering else rate)


@dataclass(slots=True)
class Scratchpad:
    """A trace as it is written: `said[k]` is what the pupil answers when stopped after `k` tokens.

    That is the latest conclusion, or before the first one the latest number written: something that can be read off
    the page, and that changes from step to step, so that early probes of many branches do not agree on the same junk.
    """

    said: list[int]
    tokens: list[str] = field(default_factory=list)
    conclusions: list[int] = field(default_factory=list)

    def write(self, text: str, latest: int) -> None:
        """Appends `text`, whose last token is (or follows) the number `latest`."""
        tokens = text.split()
        self.tokens += tokens
        self.said += [self.said[-1]] * (len(tokens) - 1)
        self.said.append(self.conclusions[-1] if self.conclusions else latest)

    def conclude(self, letter: str, value: int) -> None:
        """Writes the conclusion of a pass; from its digit on, `value` is what the pupil answers."""
        self.write(f"so {letter} = {value}", value)
        self.conclusions.append(value)
        self.said[-1] = value
        self.write(".", value)


def write_pass(pad: Scratchpad, rng: random.Random, pupil: Pupil, program: Program, wandering: bool) -> None:
    """One pass over the program: the draft, or a check of it."""
    doubts = pupil.wander_doubt if wandering else pupil.doubt
    pad.write(f"{'check ' if pad.conclusions else ''}a = {program.start}", program.start)
    pad.write(";", program.start)
    x = program.start
    for i, (operator, y) in enumerate(program.steps):
        fact = (x, operator, y)
        line = f"{LETTERS[i + 1]} = {x} {operator} {y} ="
        x = pupil.value(rng, fact, wandering)
        pad.write(f"{line} {x}", x)
        pad.write(";", x)
        for _ in range(3):
            if rng.random() >= doubts[x != last_digit(*fact)]:
                break
            x = pupil.value(rng, fact, wandering)
            pad.write(f"wait {line} {x}", x)
            pad.write(";", x)
    pad.conclude(LETTERS[len(program.steps)], x)


def write_trace(rng: random.Random, pupil: Pupil, program: Program) -> Scratchpad:
    """One branch of the pupil, without the closing `</think>`; its answer is the last conclusion."""
    pad = Scratchpad(said=[program.start])
    wandering = rng.random() < pupil.wander
    while True:
        write_pass(pad, rng, pupil, program, wandering)
        passes = len(pad.conclusions)
        next_length = len(pad.tokens) * (passes + 1) / passes
        if next_length > pupil.max_trace_tokens or not pupil.checks_again(rng, pad.conclusions, wandering):
            return pad


def example_tokens(rng: random.Random, pupil: Pupil, program: Program, probed: float) -> Iterator[tuple[str, bool]]:
    """One training example as (token, learned): a full trace, or with probability `probed` one cut anywhere and closed.

    The cut ones teach what a probe asks: answer now. Neither the question nor a forced `</think>` is learned.
    """
    pad = write_trace(rng, pupil, program)
    cut = rng.random() < probed
    length = rng.randint(0, len(pad.tokens)) if cut else len(pad.tokens)
    yield from ((token, False) for token in program.prompt().split())
    yield from ((token, True) for token in pad.tokens[:length])
    yield "</think>", not cut
    yield from ((token, True) for token in f"\\boxed{{ {pad.said[length]} }} <eos>".split())
