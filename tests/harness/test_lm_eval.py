"""lm-eval: what it says of a controller is what our own evaluation of the same questions and seed says."""

from __future__ import annotations

import json
import logging
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
from forked import job_of, script
from harness_tasks import LENGTH, QUESTIONS, SEED, task
from harness_tasks import expected as known

pytest.importorskip("lm_eval", reason="pip install 'tts-generate[lm-eval]'")

from lm_eval.api.instance import Instance
from lm_eval.api.registry import model_registry
from lm_eval.evaluator import simple_evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from tts_generate import tiny
from tts_generate.engine.generate import EnabledGenerate
from tts_generate.errors import InputError, TTSError, UnknownNameError, UnsupportedError
from tts_generate.harness import lm_eval as harness
from tts_generate.harness.accounts import FORMAT
from tts_generate.harness.asking import repeat_seed
from tts_generate.harness.lm_eval_hf import EnabledHFLM
from tts_generate.harness.stopping import StopTexts

TASKS = TaskManager(include_defaults=False)  # reading lm-eval's thousands of own tasks takes seconds
KINDS = ("prompt_tokens", "generated_tokens", "probe_tokens", "wasted_tokens")


@pytest.fixture(scope="module", autouse=True)
def caches(tmp_path_factory: pytest.TempPathFactory) -> Any:
    patch = pytest.MonkeyPatch()
    patch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path_factory.mktemp("datasets"))
    patch.setattr("evaluate.config.HF_METRICS_CACHE", str(tmp_path_factory.mktemp("metrics")))
    patch.setattr("torch.utils.collect_env.get_pretty_env_info", lambda: "")  # seconds, for every result
    yield
    patch.undo()


def lm(tiny: tuple[Any, Any], **options: Any) -> harness.TTSLM:
    model, tokenizer = tiny
    given = {"controller": "cmc", "beta": 0.0, "seed": SEED, "batch_size": "auto", **options}
    return harness.TTSLM(model, tokenizer=tokenizer, **given)


def run(model: Any, *tasks: dict[str, Any], **options: Any) -> dict[str, Any]:
    given = {"limit": len(QUESTIONS), "bootstrap_iters": 0, "log_samples": True, "task_manager": TASKS, **options}
    results = harness.simple_evaluate(model, tasks=list(tasks or [task()]), **given)
    assert results is not None
    return results


def instances(count: int) -> list[Instance]:
    """Requests of the task, as lm-eval makes them."""
    how = {"until": ["Q:"], "max_gen_toks": LENGTH}
    return [
        Instance("generate_until", {}, (q.question, dict(how)), 0, ("tiny_digits", number, 1))
        for number, q in enumerate(QUESTIONS[:count])
    ]


def rows(results: dict[str, Any], name: str = "tiny_digits") -> list[dict[str, Any]]:
    """Accounts of the questions in their order, without what differs between two runs."""
    found = sorted(results["config"]["tts"]["tasks"][name]["by_question"], key=lambda row: row["doc_id"])
    return [{key: value for key, value in row.items() if key != "seconds"} for row in found]


def test_same_answers_and_same_tokens_as_our_own_evaluation(tiny: tuple[Any, Any]) -> None:
    results, expected = run(lm(tiny)), known()
    found = rows(results)
    assert [row["answer"] for row in found] == expected.answers
    assert [[row[kind] for kind in KINDS] for row in found] == [
        [getattr(cost, kind) for kind in KINDS] for cost in expected.cost
    ]
    beside = results["results"]["tiny_digits"]
    right = [answer == q.gold_answer for answer, q in zip(expected.answers, QUESTIONS, strict=True)]
    assert beside["exact_match,boxed"] == pytest.approx(sum(right) / len(right))
    assert sum(right) > 0
    tokens = [cost.generated_tokens + cost.probe_tokens for cost in expected.cost]
    assert beside["tts_tokens,none"] == pytest.approx(sum(tokens) / len(tokens))
    assert beside["tts_seconds,none"] > 0
    ends = [[b.tokens for b in branches if b.finish_reason is not None] for branches in expected.branches]
    asked = [(spent, 64 * sum(found) / len(found)) for spent, found in zip(tokens, ends, strict=True) if found]
    estimate = 1 - sum(spent for spent, _ in asked) / sum(reference for _, reference in asked)
    assert beside["tts_saving_estimate,none"] == pytest.approx(estimate)
    assert results["higher_is_better"]["tiny_digits"]["tts_tokens"] is False
    samples = sorted(results["samples"]["tiny_digits"], key=lambda sample: sample["doc_id"])
    assert [sample["tts"][0]["answer"] for sample in samples] == expected.answers


@pytest.mark.long
def test_batch_size_and_order_change_nothing(tiny: tuple[Any, Any]) -> None:
    """Questions have different lengths: more than one at once means left padding."""
    expected = rows(run(lm(tiny)))
    assert len({row["prompt_tokens"] for row in expected}) > 1
    assert rows(run(lm(tiny, batch_size=3))) == expected
    backwards = run(lm(tiny, batch_size=1), limit=None, samples={"tiny_digits": list(range(len(QUESTIONS)))[::-1]})
    by_answer = [(row["answer"], row["tokens"]) for row in rows(backwards)]
    assert sorted(by_answer) == sorted((row["answer"], row["tokens"]) for row in expected)


def test_saving_against_an_earlier_run(tiny: tuple[Any, Any], tmp_path: Path) -> None:
    options = {"controller": "self_consistency", "beta": None, "controller_kwargs": {"max_samples": 8}}
    baseline = run(lm(tiny, **options))
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "results_1.json").write_text(json.dumps(baseline, default=str))
    results = run(lm(tiny, beta=0.0, baseline=str(tmp_path)))
    ours, theirs = (found["results"]["tiny_digits"]["tts_tokens,none"] for found in (results, baseline))
    beside = results["results"]["tiny_digits"]
    assert beside["tts_saving,none"] == pytest.approx(1 - ours / theirs)
    assert beside["tts_time_saving,none"] < 1
    low, high = results["config"]["tts"]["tasks"]["tiny_digits"]["saving_ci"]
    assert low <= beside["tts_saving,none"] <= high
    with pytest.raises(InputError, match=f"lacks 1 of these questions, first question {len(QUESTIONS)}"):
        run(lm(tiny, baseline=str(tmp_path)), limit=len(QUESTIONS) + 1)


def test_stop_strings_end_branches_alone_and_are_cut(tiny: tuple[Any, Any]) -> None:
    stopping = task(generation_kwargs={"until": ["check", "Q:"]}, filter_list=None)
    model = lm(tiny, controller="self_consistency", beta=0.0)
    results = run(model, stopping)
    free = known(controller="self_consistency", beta=0.0)
    said = [sample["resps"][0][0] for sample in results["samples"]["tiny_digits"]]
    assert not any("check" in text for text in said)
    tokenizer = tiny[1]
    expected = 0
    for branches in free.branches or []:
        for branch in branches:
            text = [tokenizer.decode(list(branch.token_ids)[: n + 1]) for n in range(branch.tokens)]
            expected += next((n + 1 for n, part in enumerate(text) if "check" in part), branch.tokens)
    assert sum(row["generated_tokens"] for row in rows(results)) == expected
    assert expected < free.total_cost.generated_tokens


def test_stop_strings_do_not_count_in_the_thinking(tiny: tuple[Any, Any]) -> None:
    """The model says ";" all the time while it thinks; told where the thinking ends, that stops nothing."""
    stopping = task(generation_kwargs={"until": [";"]})
    results = run(lm(tiny, think_end_token="</think>"), stopping)
    assert [row["answer"] for row in rows(results)] == known().answers
    said = [sample["resps"][0][0] for sample in results["samples"]["tiny_digits"]]
    assert all(text.startswith("\\boxed{") for text in said)
    cut_short = run(lm(tiny), stopping)
    assert sum(row["tokens"] for row in rows(cut_short)) < sum(row["tokens"] for row in rows(results))


def test_a_stop_that_begins_in_the_prompt_is_none(tiny: tuple[Any, Any]) -> None:
    stop = StopTexts(tiny[1], ["<think> a"], [[33, 3]])
    import torch

    assert not stop(torch.tensor([[33, 3, 17]]), None).any()
    assert StopTexts(tiny[1], ["a ="], [[33, 3]])(torch.tensor([[33, 3, 17, 27]]), None).all()


def test_each_repeat_has_its_own_seed(tiny: tuple[Any, Any]) -> None:
    results = run(lm(tiny), task(repeats=2), limit=2)
    found = {(row["doc_id"], row["repeat"]): row["tokens"] for row in rows(results)}
    assert len(found) == 4
    once = known(seed=repeat_seed(SEED, 1))
    assert [found[n, 1] for n in range(2)] == [c.generated_tokens + c.probe_tokens for c in (once.cost or [])[:2]]
    assert found[0, 0] != found[0, 1]


@pytest.mark.long
def test_gen_kwargs_go_over_model_args(tiny: tuple[Any, Any]) -> None:
    results = run(lm(tiny, beta=1.0), gen_kwargs=f"strategy=autotts,beta=0.0,seed={SEED}")
    assert rows(results) == rows(run(lm(tiny)))
    assert rows(run(lm(tiny), task(generation_kwargs={"do_sample": True}))) == rows(results)
    warmer = run(lm(tiny), gen_kwargs="temperature=0.5,do_sample=True")
    expected = run(lm(tiny, temperature=0.5))
    assert rows(warmer) == rows(expected) != rows(results)


def test_greedy_tasks_are_sampled_and_told_so_once(tiny: tuple[Any, Any], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "tts_generate"):
        run(lm(tiny, batch_size=2))
    (warning,) = [record for record in caplog.records if record.name.startswith("tts_generate")]
    assert "tiny_digits asks for greedy decoding" in warning.getMessage()


def test_plain_hf_with_an_enabled_model() -> None:
    """lm-eval's own `hf`: its greedy default and its stopping criteria, which count rows of the prompt batch."""
    model, tokenizer = tiny.load()
    harness.enable_hf(model, tokenizer=tokenizer)
    hf = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=3)
    gen_kwargs = f"strategy=autotts,controller=cmc,beta=0.0,seed={SEED},do_sample=True,temperature=1.0"
    results = run(hf, gen_kwargs=gen_kwargs)
    expected = known()
    samples = sorted(results["samples"]["tiny_digits"], key=lambda sample: sample["doc_id"])
    assert [sample["filtered_resps"][0] for sample in samples] == [answer or "[invalid]" for answer in expected.answers]
    assert "tts" not in results["config"]
    plain = run(hf, limit=1)
    assert "exact_match,boxed" in plain["results"]["tiny_digits"]


def test_hf_by_its_name_is_enabled_when_a_strategy_is_asked_for() -> None:
    how: dict[str, Any] = {"model_args": {"pretrained": str(tiny.path()), "dtype": "float32"}, "device": "cpu"}
    gen_kwargs = f"strategy=autotts,controller=cmc,beta=0.0,seed={SEED},do_sample=True,temperature=1.0"
    results = run("hf", gen_kwargs=gen_kwargs, batch_size=3, **how)
    samples = sorted(results["samples"]["tiny_digits"], key=lambda sample: sample["doc_id"])
    said = [sample["filtered_resps"][0] for sample in samples]
    assert said == [answer or "[invalid]" for answer in known().answers]
    assert results["config"]["model"] == "hf"
    assert "tts" not in results["config"]
    model = EnabledHFLM(str(tiny.path()), dtype="float32", device="cpu", batch_size=3)
    greedy = run(model, limit=2)
    assert not isinstance(model.model.generate, EnabledGenerate)
    plain = run(HFLM(str(tiny.path()), dtype="float32", device="cpu", batch_size=3), limit=2)
    assert [s["resps"] for s in greedy["samples"]["tiny_digits"]] == [
        s["resps"] for s in plain["samples"]["tiny_digits"]
    ]


def test_by_the_name_alone_through_lm_evals_own_door() -> None:
    """As an lm-eval does that reads the entry point: the account is in `config`, and not beside the accuracy."""
    (point,) = [found for found in entry_points(group="lm_eval.models") if found.name == "tts"]
    assert point.load() is harness.TTSLM
    if point.name not in model_registry:
        model_registry.register(point.name, target=point.value)
    arguments = f"pretrained={tiny.path()},dtype=float32,controller=cmc,beta=0.0,seed={SEED}"
    how: dict[str, Any] = {"batch_size": "auto", "device": "cpu", "limit": 2, "bootstrap_iters": 0}
    results = simple_evaluate("tts", model_args=arguments, tasks=[task()], task_manager=TASKS, **how)
    assert results is not None
    expected = [cost.generated_tokens + cost.probe_tokens for cost in (known().cost or [])[:2]]
    assert [row["tokens"] for row in rows(results)] == expected
    assert not any(name.startswith("tts_") for name in results["results"]["tiny_digits"])


WORKER = """
import json, sys
from harness_tasks import task
from lm_eval.tasks import TaskManager
from tts_generate.harness.lm_eval import simple_evaluate
_, options, out = sys.argv
found = simple_evaluate(
    "tts", model_args=options, batch_size="auto", device="cpu", tasks=[task()], limit=3, bootstrap_iters=0,
    task_manager=TaskManager(include_defaults=False), log_samples=True,
)
if found is not None:
    open(out, "x").write(json.dumps(found, default=str))
"""


@pytest.mark.long
def test_two_processes_share_the_questions(tmp_path: Path) -> None:
    """lm-eval's data parallelism, on the CPU. Three questions for two processes: one is given a copy of its last."""
    (tmp_path / "worker.py").write_text(WORKER)
    model_args = f"pretrained={tiny.path()},dtype=float32,controller=cmc,beta=0.0,seed={SEED}"
    given = [model_args, str(tmp_path / "results.json")]
    job = job_of(2, script, str(tmp_path), str(tmp_path / "worker.py"), given, HF_HOME=str(tmp_path / "hf"))
    complaints = [child.communicate(timeout=240)[1] for child in job]
    assert [child.returncode for child in job] == [0, 0], complaints
    assert "answering (process 0 of 2): 100%" in complaints[0]
    results = json.loads((tmp_path / "results.json").read_text())
    found, expected = rows(results), known()
    assert [row["doc_id"] for row in found] == [0, 1, 2]
    assert [row["answer"] for row in found] == (expected.answers or [])[:3]
    tokens = [cost.generated_tokens + cost.probe_tokens for cost in (expected.cost or [])[:3]]
    assert [row["tokens"] for row in found] == tokens
    assert results["results"]["tiny_digits"]["tts_tokens,none"] == pytest.approx(sum(tokens) / 3)
    assert {sample["doc_id"]: sample["tts"][0]["tokens"] for sample in results["samples"]["tiny_digits"]} == dict(
        enumerate(tokens)
    )


def test_copies_that_even_out_processes_are_not_asked_again(tiny: tuple[Any, Any]) -> None:
    (instance, *_), model = instances(2), lm(tiny)
    texts = model.generate_until([instance, instance, instance])
    assert len(set(texts)) == 1
    assert len(model.accounts.rows) == 1


def test_likelihoods_are_those_of_hf(tiny: tuple[Any, Any]) -> None:
    config = task(output_type="multiple_choice", doc_to_choice=list("0123456789"), filter_list=None)
    config.pop("generation_kwargs")
    config["metric_list"] = [{"metric": "acc"}]
    results = run(lm(tiny), config, limit=3)
    plain = run(HFLM(pretrained=tiny[0], tokenizer=tiny[1]), config, limit=3)
    assert results["results"]["tiny_digits"]["acc,none"] == plain["results"]["tiny_digits"]["acc,none"]
    assert results["config"]["tts"]["tasks"] == {}


REFUSED: list[tuple[dict[str, Any], type[TTSError], str]] = [
    ({"controller": "cmcc"}, UnknownNameError, "did you mean 'cmc'"),
    ({"beta": 2}, InputError, "from 0"),
    ({"seed": 1.5}, InputError, "seed"),
    ({"baseline": "/nowhere"}, InputError, "results_"),
    ({"controller_kwargs": {"n_inti": 3}}, UnknownNameError, "did you mean 'n_init'"),
]


@pytest.mark.parametrize(("wrong", "error", "text"), REFUSED, ids=[next(iter(case[0])) for case in REFUSED])
def test_wrong_model_args_are_refused_at_once(
    tiny: tuple[Any, Any], wrong: dict[str, Any], error: type[TTSError], text: str
) -> None:
    with pytest.raises(error, match=text):
        lm(tiny, **wrong)


def test_what_cannot_be_honoured_is_refused(tiny: tuple[Any, Any], tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="use_cache"):
        run(lm(tiny), use_cache=str(tmp_path / "cache"))
    with pytest.raises(UnsupportedError, match="beam"):
        run(lm(tiny), gen_kwargs="num_beams=4", limit=1)
    with pytest.raises(InputError, match="no room for a prompt"):
        run(lm(tiny), gen_kwargs="max_gen_toks=600", limit=1)
    with pytest.raises(UnknownNameError, match="report_to"):
        run(lm(tiny, report_to="wandb"), limit=1)
    other = tmp_path / "results_other.json"
    other.write_text(json.dumps({"config": {}}))
    with pytest.raises(InputError, match="make it with the model tts"):
        lm(tiny, baseline=str(other))


def test_a_long_prompt_is_cut_from_the_left_with_room_for_a_probe(tiny: tuple[Any, Any]) -> None:
    long = task(doc_to_text="{{question}} " * 12 + "{{question}}")
    results = run(lm(tiny), long, limit=1)
    (row,) = rows(results)
    model = lm(tiny)
    assert row["prompt_tokens"] == model.max_length - LENGTH - model.asker.probe_tokens({})


def test_registering_twice_is_registering_once() -> None:
    harness.register()
    harness.register()
    assert model_registry.get("tts") is harness.TTSLM


def test_hf_gives_each_repeat_a_draw_of_its_own() -> None:
    """In one batch, or with a seed, all repeats of a prompt were one answer, several times."""
    model, tokenizer = tiny.load()
    repeated = task(repeats=4, filter_list=None)
    gen_kwargs = "strategy=autotts,controller=self_consistency,beta=0.0,do_sample=True,temperature=1.0"
    for size, seed in ((4, ""), (4, ",seed=3"), (1, ",seed=3")):
        harness.enable_hf(model, tokenizer=tokenizer)
        hf = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=size)
        (sample,) = run(hf, repeated, gen_kwargs=gen_kwargs + seed, limit=1)["samples"]["tiny_digits"]
        assert len(set(sample["resps"][0])) > 1


def test_another_run_of_the_same_model_tells_nothing_of_the_one_before(tiny: tuple[Any, Any]) -> None:
    config = task("choice", output_type="multiple_choice", doc_to_choice=list("0123456789"), filter_list=None)
    config.pop("generation_kwargs")
    config["metric_list"] = [{"metric": "acc"}]
    model = lm(tiny)
    assert rows(run(model, limit=1))
    results = run(model, config, limit=1)
    assert results["config"]["tts"]["tasks"] == {}
    assert not any(name.startswith("tts_") for name in results["results"]["choice"])


@pytest.mark.parametrize("wrong", [{"max_gen_toks": 32}, {"num_beams": 4}, {"controller": "cmcc"}], ids=str)
def test_what_a_later_task_asks_for_is_checked_before_the_first_is_asked(
    tiny: tuple[Any, Any], wrong: dict[str, Any]
) -> None:
    model = lm(tiny, interval_tokens=64)
    with pytest.raises(TTSError):
        run(model, task("one"), task("two", generation_kwargs=wrong), limit=1)
    assert not model.accounts.rows


def test_who_decided_is_told_as_it_was(tiny: tuple[Any, Any]) -> None:
    told = run(lm(tiny), gen_kwargs="controller=asc,beta=0.5,seed=4,temperature=0.5,do_sample=True", limit=1)
    account = told["config"]["tts"]
    assert (account["controller"]["controller"], account["controller"]["beta"]) == ("ASC", 0.5)
    assert (account["seed"], account["temperature"]) == (4, 0.5)
    mixed = run(lm(tiny), task("one"), task("two", generation_kwargs={"beta": 0.5}), limit=1)["config"]["tts"]
    assert [mixed["tasks"][name]["controller"]["beta"] for name in ("one", "two")] == [0.0, 0.5]


DAMAGED: dict[str, Any] = {
    "null": None, "no account": {"tts": []}, "no tasks": {"tts": {"format": FORMAT}}, "cut off": "{",
    "nested": "[" * 100_000, "a row of text": {"tokens": "x"}, "no token": {"tokens": 0}, "no number": {"doc_id": None},
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGED)
def test_a_baseline_that_is_damaged_is_one_clear_error_at_once(
    tiny: tuple[Any, Any], name: str, tmp_path: Path
) -> None:
    wrong, row = DAMAGED[name], {"doc_id": 0, "repeat": 0, "tokens": 7}
    whole = {"tts": {"format": FORMAT, "tasks": {"tiny_digits": {"seconds": 1.0, "by_question": [row]}}}}
    if isinstance(wrong, dict) and "tts" not in wrong:
        row |= wrong
        wrong = whole
    file = tmp_path / "results_1.json"
    file.write_text(wrong if isinstance(wrong, str) else json.dumps({"config": wrong}))
    with pytest.raises(InputError, match=r"baseline .*results_1\.json"):
        lm(tiny, baseline=str(file))
