"""Recorded branches decoded by the engine's own loop on the clock of a profile: no model, every rule of a live run.

Rows are admitted, moved, widened, probed and left as live; only that a pass gives the tokens that were recorded, and
takes what the profile says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from transformers import LogitsProcessorList, StoppingCriteriaList

from tts_generate.answers import AnswerFormat
from tts_generate.engine.batch import Batch
from tts_generate.engine.cache import LayerPrefix, Prefix, SlotCache
from tts_generate.engine.loop import Loop
from tts_generate.engine.passes import Passes
from tts_generate.engine.plan import Feed
from tts_generate.engine.question import Running
from tts_generate.engine.sample import Sampler
from tts_generate.engine.settings import Settings
from tts_generate.engine.shapes import Shapes
from tts_generate.equivalence import Votes
from tts_generate.errors import ControllerError, StoreError
from tts_generate.live.branch import Branch, Probe, ProbeRecord
from tts_generate.live.reader import Reader
from tts_generate.live.task import Prompt, Task
from tts_generate.profile import Profile
from tts_generate.trajectories import Trajectory

_GOES_ON, _ENDS = 0, 1
"""The tokens of a recorded branch: none, and its last one."""

Recorded = Mapping[str, Mapping[int, Trajectory]]
"""Question id -> branch number -> what was recorded of it."""


class RecordedCache(SlotCache):
    """Rows and columns without anything in them; counts the columns that would be copied."""

    def __init__(self) -> None:
        super().__init__([])
        self.copied = 0

    def admit(self, prefix: Prefix, slots: Sequence[int]) -> None:
        """A prompt is written into each slot."""
        self.copied += len(slots) * sum(part.columns[0].shape[1] for part in prefix[:1])

    def save(self, slot: int, length: int) -> Prefix:
        """A row leaves, and comes back."""
        self.copied += 2 * length
        return []

    def move(self, sources: Sequence[int], targets: Sequence[int], length: int) -> None:
        """Rows are copied."""
        self.copied += len(sources) * length

    def resize(self, rows: int, capacity: int, length: int) -> None:
        """Rows that stay are copied into larger ones."""
        if (rows, capacity) != (self.rows, self.capacity):
            self.copied += min(rows, self.rows) * length
        super().resize(rows, capacity, length)


@dataclass
class RecordedModel:
    """Stands where the engine's `Decoder` does: says what passes look like, and counts the seconds that they take."""

    profile: Profile
    waited: float = 0.0
    """Seconds of passes and prompts."""
    passes: int = 0
    tokens: int = 0
    """Fed, those included that only fill a pass."""
    cache: RecordedCache = field(default_factory=RecordedCache)
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    static: None = None
    in_row: bool = False

    @property
    def seconds(self) -> float:
        """That it has taken so far."""
        return self.waited + self.cache.copied * self.profile.copied_column

    @property
    def shapes(self) -> Shapes:
        """As the profile has them."""
        return Shapes(self.profile.block, self.profile.min_tokens)

    def shares(self, prompt_tokens: int) -> bool:
        """Whether a prompt stands once."""
        return 0 < self.profile.shares_from <= prompt_tokens

    def prefill(self, prompt_ids: Sequence[int]) -> tuple[Prefix, Tensor]:
        """Read a prompt: what it takes of the cache, and logits of nothing."""
        self.waited += self.profile.prefill(len(prompt_ids))
        taken = torch.empty((1, len(prompt_ids), max(1, self.profile.column_bytes)), dtype=torch.uint8, device="meta")
        return [LayerPrefix((taken,))], torch.zeros(1)

    def took(self, plan: Feed, passes: int) -> None:
        """Count passes in a row, each one column further than the one before, in few calls; else of the same width."""
        fed = plan.plan
        rows, columns = fed.reading
        read = columns + rows * np.arange(passes) * fed.shapes.few_calls
        shared = int(np.sum(fed.offset[: fed.wanted])) if isinstance(fed.offset, np.ndarray) else 0
        self.waited += float(self.profile.passes(fed.wanted, read, shared, len(fed.spans)).sum())
        self.passes += passes
        self.tokens += passes * len(fed.slots)


class RecordedPasses(Passes):
    """Gives each branch the tokens that it has in the recording: some, and at its recorded length its end."""

    def __init__(self, batch: Batch, model: RecordedModel, recorded: Recorded, tasks: Sequence[Task]) -> None:
        sampler = Sampler(LogitsProcessorList())
        super().__init__(batch.rows, model, sampler, batch.settings, StoppingCriteriaList())  # type: ignore[arg-type]
        self.model, self.recorded, self.tasks = model, recorded, tasks

    def _length(self, slot: int) -> int:
        """Tokens at which the branch of a row ends; beyond all that it may have where it was cut."""
        branch = self.rows.branch[slot]
        found = self.recorded[self.tasks[branch.order[0]].question_id][branch.number]
        return found.tokens if found.finish_reason != "length" else self.settings.max_new_tokens + 1

    def _tokens(self, slots: np.ndarray, places: np.ndarray) -> np.ndarray:
        lengths = np.array([self._length(slot) for slot in slots.tolist()], np.int64)
        return np.where(places + 1 >= lengths, _ENDS, _GOES_ON)

    def begin(self, slots: np.ndarray, logits: Tensor) -> None:
        """The first token of each branch."""
        nothing = np.zeros(len(slots), np.int64)
        self._write(slots, nothing, self._tokens(slots, nothing), np.zeros(len(slots)))

    def until_due(self, plan: Feed, probe_tokens: int) -> int:
        """Passes until a branch comes to its end or its stop, a probe has said all, or other widths are read."""
        if any(not probe.said for _, probe in plan.probes):
            return 1
        due = [_total(probe) - len(probe.forced) - len(probe.said) for _, probe in plan.probes]
        slots = plan.slots
        if len(slots):
            fed = self.rows.fed(slots)
            lengths = np.array([self._length(slot) for slot in slots.tolist()])
            due += [int((self.rows.stop[slots] - fed).min()), int((lengths - 1 - fed).min())]
            due.append(int(self.settings.max_new_tokens - 1 - fed.max()))
        if not plan.plan.shapes.few_calls:
            due += [span.width - int(plan.plan.columns[span.tokens].max()) for span in plan.plan.spans]
        return max(1, min(due))

    def run(self, plan: Feed, passes: int) -> tuple[np.ndarray, ...]:
        """Take the time of these passes, and give what was recorded."""
        self.model.took(plan, passes)
        count, probes = len(plan.slots), len(plan.probes)
        first = self.rows.fed(plan.slots) + 1
        tokens = np.zeros((passes, count), np.int64)
        if count:
            tokens[-1] = self._tokens(plan.slots, first + passes - 1)
        said = np.zeros((passes, probes))
        return tokens, np.zeros((passes, count)), said.astype(np.int64), said

    def record(self, slots: np.ndarray, tokens: np.ndarray, logprobs: np.ndarray) -> tuple[list[int], int]:
        """Write down the last token of each row: until then nothing was due, and what was drawn nobody reads."""
        self._write(slots, self.rows.fed(slots) + len(tokens), tokens[-1], logprobs[-1])
        return slots[~self.rows.decoding[slots]].tolist(), 0


@dataclass(slots=True)
class RecordedProbe(Probe):
    """A probe of which is known what it will say."""

    total: int = 0
    """Tokens, the forced ones included."""
    answer: str | None = None


def _total(probe: Probe) -> int:
    assert isinstance(probe, RecordedProbe)
    return max(probe.total, len(probe.forced) + 1)


class RecordedReader(Reader):
    """Says of branches and probes what was recorded of them; texts there are none.

    Args:
        recorded: the branches.
        tasks: the questions, in the order asked.
        forced: tokens of a probe's suffix.
        most: tokens of a probe at most, the suffix included.
        force_answer: whether branches that were cut were asked.
        votes: which answers are one.
    """

    def __init__(
        self,
        recorded: Recorded,
        tasks: Sequence[Task],
        forced: int,
        most: int,
        force_answer: bool,
        votes: Votes,
    ) -> None:
        probed = max(1, most - forced)
        super().__init__(None, AnswerFormat(max_probe_tokens=probed, force_answer=force_answer, votes=votes))
        self.recorded, self.tasks, self.suffix = recorded, tasks, [_GOES_ON] * forced

    @property
    def max_tokens(self) -> int:
        """Upper bound of one probe's tokens."""
        return len(self.suffix) + self.max_probe_tokens

    def thought(self, prompt: Prompt) -> str:
        """Nothing is known of it."""
        return ""

    def _of(self, branch: Branch) -> Trajectory:
        return self.recorded[self.tasks[branch.order[0]].question_id][branch.number]

    def final_answer(self, branch: Branch) -> str | None:
        """As recorded; of one that was asked at its end, None until it is."""
        found = self._of(branch)
        return None if _asked_at_end(found) else found.final_answer

    def begin_probe(self, branch: Branch, position: int | None = None) -> Probe | ProbeRecord:
        """The probe recorded at this place; at once, where it took no token."""
        found, place = self._of(branch), len(branch.ids) if position is None else position
        if place not in found.probe_positions:
            raise StoreError(
                f"branch {found.branch} of question {found.question_id!r} was not probed after {place} tokens; record "
                "it with a probe at every step to predict this controller's seconds."
            )
        number = found.probe_positions.index(place)
        total, answer = found.probe_tokens[number], found.probe_answers[number]
        if not total:
            return ProbeRecord(place, answer, 0, None)
        forced = self.suffix[: max(1, total - 1)]
        base = branch.prompt_columns + place
        return RecordedProbe(place, forced, "", base, total=total, answer=answer)

    def at_end(self, branch: Branch) -> Probe | None:
        """The probe of a branch that was cut, where there was one."""
        if not (branch.cut and _asked_at_end(self._of(branch))):
            return None
        begun = self.begin_probe(branch)
        if isinstance(begun, ProbeRecord):
            return None
        begun.base, begun.again, begun.at_end = branch.prompt_columns + len(branch.ids) - 1, _GOES_ON, True
        return begun

    def probe_answer(self, probe: Probe, ended: bool) -> tuple[bool, str | None]:
        """Whether the probe has said all, and its answer if so."""
        assert isinstance(probe, RecordedProbe)
        complete = len(probe.forced) + len(probe.said) >= _total(probe)
        return complete, probe.answer if complete else None


def _asked_at_end(row: Trajectory) -> bool:
    return row.finish_reason == "length" and row.tokens in row.probe_positions


class RecordedLoop(Loop):
    """A loop in which nothing was paid for: what would end a question with the majority so far is raised."""

    def _fail(self, running: Running, why: Exception | str) -> None:
        raise why if isinstance(why, Exception) else ControllerError(why)


def loop_of(
    recorded: Recorded, tasks: Sequence[Task], settings: Settings, profile: Profile, votes: Votes = "equal"
) -> tuple[Loop, RecordedModel]:
    """The engine's loop over recorded branches, and the model that counts its seconds."""
    model = RecordedModel(profile)
    rows = [row for branches in recorded.values() for row in branches.values()]
    costs = [cost for row in rows for cost in row.probe_tokens if cost]
    forced = profile.suffix_tokens or max(1, min(costs, default=2) - 1)
    asked = any(map(_asked_at_end, rows))
    reader = RecordedReader(recorded, tasks, forced, max(costs, default=forced + 1), asked, votes)
    batch = Batch(model, Sampler(LogitsProcessorList()), reader, settings)  # type: ignore[arg-type]
    batch.passes = RecordedPasses(batch, model, recorded, tasks)
    return RecordedLoop(batch, tasks, settings), model
