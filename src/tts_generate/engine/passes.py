"""Forward passes, one after the other, and what they drew written into the rows; who asked for it is not known here."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from transformers import StoppingCriteriaList

from tts_generate.engine.decoder import Decoder
from tts_generate.engine.device import on_device
from tts_generate.engine.own import Own, met
from tts_generate.engine.plan import Feed
from tts_generate.engine.rows import BROKEN, EOS, GOES_ON, LENGTH, STOP, Rows
from tts_generate.engine.sample import Sampler
from tts_generate.engine.settings import Settings
from tts_generate.live.branch import LEAST_LIKELY, Branch


class Passes:
    """Runs what was planned: feeds, draws each branch's next token, and says which rows have come to something."""

    def __init__(
        self, rows: Rows, decoder: Decoder, sampler: Sampler, settings: Settings, criteria: StoppingCriteriaList
    ) -> None:
        self.rows, self.decoder, self.sampler = rows, decoder, sampler
        self.settings, self.criteria = settings, Own(criteria, first=1)
        self.unseen = settings.sync_every if not criteria and sampler.row_wise else 1
        """Passes at most before the host looks: 1 where something must look at every token."""
        self._eos = np.array(settings.eos_token_ids, np.int64)

    def begin(self, slots: np.ndarray, logits: Tensor) -> None:
        """Draw the first token of each branch from its prompt's logits (V,)."""
        nothing = np.zeros(len(slots), np.int64)
        tokens, logprobs = self._draw(logits.expand(len(slots), -1), slots, nothing)
        self._write(slots, nothing, tokens.cpu().numpy(), logprobs.cpu().numpy())

    def until_due(self, plan: Feed, probe_tokens: int) -> int:
        """Passes until something is due that is known now, at most those that may run before the host looks.

        Args:
            plan: what the first of them feeds.
            probe_tokens: tokens of a probe's answer at most.
        """
        if self.unseen == 1 or any(not probe.said for _, probe in plan.probes):
            return 1
        due = [probe_tokens - len(probe.said) for _, probe in plan.probes]
        if len(plan.slots):
            counts = self.rows.fed(plan.slots)
            due.append(int((self.rows.stop[plan.slots] - counts).min()))
            due.append(int(self.settings.max_new_tokens - 1 - counts.max()))
        return max(1, min(self.unseen, *due))

    def run(self, plan: Feed, passes: int) -> tuple[np.ndarray, ...]:
        """Run passes one after the other without looking at what they draw: each feeds the last one's tokens.

        Returns:
            Tokens and log-probabilities (passes, B) of the branches, then of the probes (passes, probes).
        """
        count, device = len(plan.slots), self.decoder.device
        tokens, last = (on_device(each, device) for each in (plan.tokens, plan.plan.last))
        slots, positions = plan.slots, self.rows.fed(plan.slots) + 1
        found: list[tuple[Tensor, ...]] = []
        done = False
        try:
            for number in range(passes):
                if number:
                    plan = plan.moved()
                    tokens = torch.zeros_like(tokens).index_copy_(0, last, torch.cat([found[-1][0], found[-1][2]]))
                logits = self.decoder.run(tokens, plan.plan)
                drawn, logprobs = self._draw(logits[:count], slots, positions + number)
                said = logits[count:].argmax(-1)
                found.append((drawn, logprobs, said, _logprob(logits[count:], said)))
            seen = tuple(torch.stack(column).cpu().numpy() for column in zip(*found, strict=True))
            done = True
        finally:
            self.decoder.settle(done)
        return seen

    def record(self, slots: np.ndarray, tokens: np.ndarray, logprobs: np.ndarray) -> tuple[list[int], int]:
        """Write down what was drawn (passes, B) in the rows `slots`.

        Returns:
            The rows whose branch has ended or reached its stop, and how many tokens came after an end.
        """
        rows, discarded = self.rows, 0
        for drawn, doubts in zip(tokens, logprobs, strict=True):
            alive = rows.decoding[slots]
            at = slots[alive]
            discarded += len(slots) - len(at)
            self._write(at, rows.fed(at) + 1, drawn[alive], doubts[alive])
        return slots[~rows.decoding[slots]].tolist(), discarded

    def _draw(self, logits: Tensor, slots: np.ndarray, positions: np.ndarray) -> tuple[Tensor, Tensor]:
        """A token for each row (B,), and its log-probability under the raw logits (B, V)."""
        device = logits.device
        keys = on_device(self.rows.key[slots], device)
        places = on_device(positions, device)
        drawn = self.sampler(logits, keys, places, lambda row: self._seen(slots[row], positions[row], device))
        return drawn, _logprob(logits, drawn)

    def _seen(self, slot: int, count: int, device: torch.device, *drawn: int) -> tuple[Branch, Tensor]:
        """The branch of a row; and (1, length) its prompt and first tokens, as processors and criteria see them."""
        branch: Branch = self.rows.branch[slot]
        prompt, last = (np.array(tokens, np.int64) for tokens in (branch.prompt_ids, drawn))
        return branch, on_device(np.concatenate([prompt, self.rows.ids[slot, :count], last])[None], device)

    def _write(self, slots: np.ndarray, places: np.ndarray, tokens: np.ndarray, logprobs: np.ndarray) -> None:
        """Write down the token drawn at a place of each row's branch, and whether and how it ends the branch."""
        ends = np.where(places + 1 >= self.settings.max_new_tokens, LENGTH, GOES_ON)
        eos, broken = (tokens[:, None] == self._eos).any(1), np.isnan(logprobs)
        if self.criteria.things:
            for row in np.flatnonzero(~(eos | broken)):
                branch, seen = self._seen(slots[row], places[row], self.decoder.device, tokens[row])
                if met(self.criteria.of(branch, seen), seen):
                    ends[row] = STOP
        ends[eos] = EOS
        ends[broken] = BROKEN
        self.rows.write(slots, places, tokens, logprobs, ends)


def _logprob(logits: Tensor, tokens: Tensor) -> Tensor:
    """(B,) log-probability of a token of each row under (B, V) logits; finite or NaN."""
    return (logits.gather(1, tokens[:, None])[:, 0] - logits.logsumexp(-1)).clamp(min=LEAST_LIKELY)
