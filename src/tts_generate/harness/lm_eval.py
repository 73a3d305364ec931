"""lm-eval: the model `tts` answers with a controller, and its tokens, saving and time stand beside the accuracy.

    python -m tts_generate.harness.lm_eval --model tts --model_args pretrained=MODEL,controller=cmc --tasks gsm8k

takes lm-eval's own arguments; under `accelerate launch` every process answers some of the questions. lm-eval's own `hf`
answers with a controller where `--gen_kwargs strategy=autotts,…` asks for it. From Python it is `simple_evaluate` of
this module, with lm-eval's own arguments too.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import lm_eval
from lm_eval._cli import HarnessCLI
from lm_eval.api.instance import Instance
from lm_eval.api.registry import model_registry
from lm_eval.evaluator import simple_evaluate as plain_evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.models.utils import normalize_gen_kwargs
from lm_eval.utils import setup_logging
from transformers import PreTrainedModel

from tts_generate.engine.processes import launched
from tts_generate.errors import InputError, UnknownNameError, UnsupportedError
from tts_generate.harness.accounts import Baseline, TaskAccounts, beside_accuracy
from tts_generate.harness.asking import OPTIONS, SAMPLING, Asker, PromptBatch, repeat_seed
from tts_generate.harness.lm_eval_hf import enable_hf
from tts_generate.tracking import Progress

logger = logging.getLogger(__name__)
__all__ = ["TTSLM", "enable_hf", "main", "register", "simple_evaluate"]
_TARGETS = {
    "tts": "tts_generate.harness.lm_eval:TTSLM",
    "hf-enabled": "tts_generate.harness.lm_eval_hf:EnabledHFLM",
}
_PLAIN = ("hf", "hf-auto", "huggingface")
"""lm-eval's names of its own `hf`."""
_LENGTHS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")


class TTSLM(HFLM):
    """lm-eval's model `tts`: `hf`, whose `generate_until` answers with a controller.

    Args:
        pretrained: as for `hf`: a name, a folder, or a model.
        controller, beta, controller_kwargs, interval_tokens, …: every argument of `AutoTTS`.
        temperature, top_p, …: how branches are sampled; else as the model's generation config says. A task that asks
            for a temperature above 0 gets it; one that asks for greedy decoding is told that branches are sampled.
        seed: a prompt's answer depends on it and on the prompt, not on the batch or the order; each of a task's
            `repeats` has a seed of its own.
        max_new_tokens: tokens of a branch where the task does not say; else as the model's generation config says.
        baseline: results of an earlier run on the same questions, a file or a folder of lm-eval's `--output_path`;
            what is saved is told against it.
        report_to: "trackio" logs the totals after every question.
        batch_size: questions answered at once; "auto": all, which is fastest: the engine decides how many rows decode.
        think_end_token: as for `hf`; stop strings then count in what follows it alone.
        kwargs: everything else that `hf` takes. Likelihoods are computed as `hf` does, without a controller.
    """

    def __init__(
        self,
        pretrained: str | PreTrainedModel,
        *,
        seed: int = 0,
        max_new_tokens: int | None = None,
        baseline: str | None = None,
        report_to: str | None = None,
        trust_remote_code: bool = False,
        batch_size: int | str | None = 1,
        **kwargs: Any,
    ) -> None:
        options = {name: kwargs.pop(name) for name in (*OPTIONS, *SAMPLING) if name in kwargs}
        automatic = str(batch_size).startswith("auto")
        if isinstance(pretrained, str) and kwargs.get("tp_plan") is None:
            launched()  # before `hf` sets accelerate up, which then takes a process without a GPU for the only one
        super().__init__(
            pretrained, trust_remote_code=trust_remote_code, batch_size=1 if automatic else batch_size, **kwargs
        )
        if hasattr(self, "accelerator"):  # of a job of several processes; `hf` knows them on several GPUs only
            self._rank, self._world_size = self.accelerator.process_index, self.accelerator.num_processes
        if self.world_size > 1 and report_to is not None:
            raise UnsupportedError(
                f"report_to={report_to!r} logs the totals of one process, but there are {self.world_size}; leave it "
                "out, or start one process."
            )
        if isinstance(seed, bool) or not isinstance(seed, int):
            raise InputError(f"seed must be a whole number, got {seed!r}.")
        self.at_once = None if automatic else int(batch_size or 1)
        self.seed, self.report_to = seed, report_to
        usual = self.model.generation_config.max_new_tokens or self.max_gen_toks
        self.max_new_tokens = usual if max_new_tokens is None else max_new_tokens
        self.asker = Asker(
            self.model, self.tokenizer, self.think_end_token, trust_remote_code=trust_remote_code, **options
        )
        self.baseline = None if baseline is None else Baseline.read(baseline)
        self.accounts = TaskAccounts()
        self._warned: set[str] = set()

    def set_cache_hook(self, cache_hook: Any) -> None:
        """Refuse `--use_cache`: a cached answer has no tokens, and its key knows neither controller nor seed."""
        raise UnsupportedError(
            "the model tts cannot be used with use_cache: lm-eval would hand out answers of other controllers, "
            "budgets and seeds, without their tokens. Leave it out."
        )

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Answer requests with the controller; their texts, in order. Everything is checked before the first one.

        Of several processes each is given its own questions, and the first has the account of all of them afterwards.
        """
        repeats = _before(id(instance) for instance in requests)  # a task's repeats are one object, several times
        asked = [place for place, repeat in enumerate(repeats) if repeat < requests[place].repeats]
        askings = _before((requests[place].task_name, requests[place].doc_id) for place in asked)
        keys = {
            place: (requests[place].task_name, requests[place].doc_id, asking)
            for place, asking in zip(asked, askings, strict=True)
        }
        texts = [""] * len(requests)
        self.accounts = TaskAccounts(self.baseline)
        places_of_batches = self._batches(asked, requests, repeats)
        batches = [(places, self._request(requests, places, repeats)) for places in places_of_batches]
        self.accounts.expect(keys.values())
        self._check(requests, batches)
        with Progress(
            len(asked),
            "answering" if self.world_size == 1 else f"answering (process 0 of {self.world_size})",
            shown=not disable_tqdm and self.rank == 0,
            report_to=self.report_to,
            config=self.accounts.common or {"controller": self.asker.controller, "seed": self.seed},
        ) as progress:
            for places, request in batches:
                with self.accounts.timed(requests[places[0]].task_name):
                    for number, found in self.asker.ask(request):
                        place = places[number]
                        texts[place] = found.text
                        progress.add(found.cost, found.branches, self.accounts.add(keys[place], found))
        everyone = self.gather_object(self.accounts)
        if everyone is not None:
            self.accounts = TaskAccounts.merged(everyone)
        return _filled(texts, requests, asked)

    def _check(self, requests: Sequence[Instance], batches: Iterable[tuple[list[int], PromptBatch]]) -> None:
        """Have the engine look at one request of each kind, and note who decides on each task."""
        kinds: dict[str, tuple[str, PromptBatch]] = {}
        for places, request in batches:
            first = requests[places[0]]
            kinds.setdefault(repr((first.task_name, first.args[1])), (str(first.task_name), request))
        for task, request in kinds.values():
            self.asker.begun(request)
            self.accounts.how.setdefault(task, self.asker.how(request))

    def _batches(
        self, asked: Iterable[int], requests: Sequence[Instance], repeats: Sequence[int]
    ) -> Iterator[list[int]]:
        """Places of the requests that are asked in one call: of one task, one repeat and the same settings."""
        groups: dict[str, list[int]] = {}
        for place in asked:
            instance = requests[place]
            groups.setdefault(repr((instance.task_name, repeats[place], instance.args[1])), []).append(place)
        for places in groups.values():
            size = self.at_once or len(places)
            for first in range(0, len(places), size):
                yield places[first : first + size]

    def _request(self, requests: Sequence[Instance], places: Sequence[int], repeats: Sequence[int]) -> PromptBatch:
        """One call of the engine, from what the task asks for."""
        asked = dict(requests[places[0]].args[1])
        strategy = asked.pop("strategy", "autotts")
        if strategy != "autotts":
            raise UnknownNameError.of("strategy", strategy, ["autotts"])
        seed = asked.pop("seed", self.seed)
        wanted = normalize_gen_kwargs(asked, self.max_new_tokens)
        length, until = wanted.pop("max_gen_toks"), wanted.pop("until", [])
        options = {name: value for name, value in wanted.items() if name not in (*_LENGTHS, "do_sample")}
        if not options.get("temperature"):
            options.pop("temperature", None)
            if asked.get("do_sample") is False or "temperature" in asked:
                self._warn_greedy(str(requests[places[0]].task_name))
        room = self.max_length - length - self.asker.probe_tokens(options)
        if room < 1:
            raise InputError(
                f"max_gen_toks={length} leaves no room for a prompt in the model's context of {self.max_length}; pass "
                "less by --gen_kwargs, or max_length if the model takes more."
            )
        input_ids, mask = self.tok_batch_encode([requests[place].args[0] for place in places], left_truncate_len=room)
        return PromptBatch(
            input_ids.to(self.device),
            mask.to(self.device),
            length,
            repeat_seed(seed, repeats[places[0]]),
            [until] if isinstance(until, str) else until,
            options,
        )

    def _warn_greedy(self, task: str) -> None:
        if task not in self._warned:
            self._warned.add(task)
            logger.warning(
                "task %s asks for greedy decoding, in which all branches would be the same; branches are sampled, as "
                "model_args or the model's generation config say",
                task,
            )

    def get_model_info(self) -> dict[str, Any]:
        """What goes into the results' `config`: as of `hf`, and the account of the run as `tts`."""
        options = {name: value for name, value in self.asker.options.items() if name in SAMPLING}
        how = self.accounts.common or {"controller": self.asker.controller, "seed": self.seed, **options}
        return {**super().get_model_info(), "tts": {**how, **self.accounts.to_dict()}}


def _before(names: Iterable[Hashable]) -> list[int]:
    """How often each name stood in the list before."""
    seen: Counter[Hashable] = Counter()
    found = []
    for name in names:
        found.append(seen[name])
        seen[name] += 1
    return found


def _filled(texts: list[str], requests: Sequence[Instance], asked: Iterable[int]) -> list[str]:
    """The texts, with those of copies: lm-eval repeats a process's last request until all have as many."""
    said = {id(requests[place]): texts[place] for place in asked}
    real = set(asked)
    return [text if place in real else said[id(requests[place])] for place, text in enumerate(texts)]


def register() -> None:
    """Make `tts` known to lm-eval, unless an entry point has; nothing is registered by importing this module."""
    for name, target in _TARGETS.items():
        if name not in model_registry:
            model_registry.register(name, target=target)


def simple_evaluate(model: Any, *args: Any, **kwargs: Any) -> dict[str, Any] | None:
    """lm-eval's `simple_evaluate`, with the model `tts` known, and its account beside the accuracy of each task.

    `model="hf"` answers with a controller where `gen_kwargs`, or a task, say `strategy=autotts`.
    """
    register()
    plain = isinstance(model, str) and model in _PLAIN
    if isinstance(model, TTSLM):
        model.accounts = TaskAccounts()  # of an earlier run
    results: dict[str, Any] | None = plain_evaluate("hf-enabled" if plain else model, *args, **kwargs)
    if results is None:
        return None
    if plain:
        results["config"]["model"] = model
    return beside_accuracy(results)


@contextmanager
def _ours() -> Iterator[None]:
    """lm-eval's command line with our `simple_evaluate`: it has no other place where results can be added to."""
    lm_eval.simple_evaluate = simple_evaluate
    try:
        yield
    finally:
        del lm_eval.simple_evaluate  # found lazily again


def main() -> None:
    """lm-eval's command line."""
    setup_logging()
    register()
    parser = HarnessCLI()
    with _ours():
        parser.execute(parser.parse_args())


if __name__ == "__main__":
    from tts_generate.harness import lm_eval as module  # the one that lm-eval imports by name, not `__main__`

    module.main()
