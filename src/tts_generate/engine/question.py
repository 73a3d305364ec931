"""A question on its way through the engine: its episode, and what the model's layers hold of its prompt."""

from __future__ import annotations

from torch import Tensor

from tts_generate.engine.branch import CachedBranch
from tts_generate.engine.cache import Prefix
from tts_generate.engine.decoder import Decoder
from tts_generate.errors import TTSError
from tts_generate.live.episode import LiveEpisode


class Running(LiveEpisode[CachedBranch]):
    """An episode whose branches are decoded here."""

    prefix: Prefix
    logits: Tensor | None = None
    """(V,) float32 logits of the first token."""
    shared: bool = False
    """Whether the prompt stands in `prefix` only, and not in each branch's row."""

    def prefill(self, decoder: Decoder) -> None:
        """Have the prompt read, once for all branches.

        Raises:
            TTSError: the model makes nothing of it.
        """
        ids = self.task.prompt.ids
        self.prefix, self.logits = decoder.prefill(ids)
        self.shared = decoder.shares(len(ids))
        if bool(self.logits.isnan().any()):
            raise TTSError(
                f"the model gave NaN logits for the prompt of question {self.task.question_id!r}; check its weights "
                "and dtype."
            )

    def release(self) -> None:
        """Forget what the layers hold of the prompt, and the branches that the episode never opened."""
        del self.branches[self.episode.state.opened :]
        for branch in self.branches:
            branch.shared_prefix = None
        self.prefix, self.logits = [], None

    def new_branch(self, number: int, key: int, order: tuple[int, int]) -> CachedBranch:
        """A branch in need of a row."""
        prefix = self.prefix if self.shared else None
        return CachedBranch(number, key, self.task.prompt.ids, order, self.thought, shared_prefix=prefix)
