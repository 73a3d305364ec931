"""The five ways to a controller give the same tokens, and calls after the first ask the Hub nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hub_checks import put, read
from local_hub import HubServer
from test_publish import FORMATS

import tts_generate
from tts_generate import load_controller, tiny
from tts_generate.errors import ControllerError, InputError, UnknownNameError
from tts_generate.hub.pin import MovingRevisionWarning
from tts_generate.recipe import answer

OPTIONS = {"seed": 3, "max_new_tokens": 60}


@pytest.fixture(scope="module")
def enabled() -> tuple[Any, Any, dict[str, Any]]:
    """The shipped model, its tokenizer and two questions; enabled, as `custom_generate` by name needs not be."""
    model, tokenizer = tiny.load()
    texts = [question.question for question in tiny.questions("test")[:2]]
    batch = tokenizer(texts, return_tensors="pt", padding=True, padding_side="left")
    tts_generate.enable(model, tokenizer=tokenizer)
    return model, tokenizer, {name: batch[name] for name in ("input_ids", "attention_mask")}


def in_a_clean_process(hub: HubServer, home: Path, calls: list[dict[str, Any]]) -> list[Any]:
    """What a stock model answers with repos' recipes, in a process that has loaded nothing of ours by itself."""
    code = f"""
import json, sys
from transformers import AutoModelForCausalLM, AutoTokenizer
model = AutoModelForCausalLM.from_pretrained({str(tiny.path())!r})
tokenizer = AutoTokenizer.from_pretrained({str(tiny.path())!r})
texts, calls = json.loads(sys.argv[1])
batch = tokenizer(texts, return_tensors="pt", padding=True, padding_side="left")
inputs = {{name: batch[name] for name in ("input_ids", "attention_mask")}}
assert not any(name.startswith("tts_generate") for name in sys.modules)
print(json.dumps([model.generate(**inputs, **how).tolist() for how in calls]))
"""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    given = json.dumps([[question.question for question in tiny.questions("test")[:2]], calls])
    done = subprocess.run(
        [sys.executable, "-c", code, given], capture_output=True, text=True, check=False,
        env={**kept, **hub.environ(home), "HF_MODULES_CACHE": str(home / "modules")},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: list[Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.long
def test_the_same_tokens(enabled: tuple[Any, Any, dict[str, Any]], hub: HubServer, tmp_path: Path) -> None:
    model, tokenizer, inputs = enabled
    shipped = load_controller("asc", beta=0.05)
    data = shipped.save_pretrained(tmp_path / "asc")
    asc = put(hub, "user/asc", read(data))
    ours = {"strategy": "autotts", **OPTIONS}
    of_data = {
        "name": model.generate(**inputs, **ours, controller="asc", beta=0.05),
        "folder": model.generate(**inputs, **ours, controller=data),
        "repo": model.generate(**inputs, **ours, controller="user/asc", revision=asc),
        "object": model.generate(**inputs, **ours, controller=shipped),
    }
    code = FORMATS / "code"
    few = put(hub, "user/few", read(code))
    mine = load_controller(code, trust_remote_code=True)
    named = {"controller": "user/few", "revision": few}
    confined = tts_generate.AutoTTS(f"user/few@{few}", tokenizer=tokenizer, seed=3, sandbox=True)
    of_code = {
        "object": model.generate(**inputs, **ours, controller=mine),
        "folder": model.generate(**inputs, **ours, controller=code, trust_remote_code=True),
        "repo": model.generate(**inputs, **ours, **named, trust_remote_code=["user/few"]),
        "sandbox": model.generate(**inputs, **ours, **named, sandbox=True),
        "callable": model.generate(**inputs, do_sample=True, max_new_tokens=60, custom_generate=confined),
    }
    for found in (of_data, of_code):
        for way, tokens in found.items():
            assert torch.equal(tokens, found["object"]), way
    recipes = [("user/asc", {"revision": asc}), ("user/few", {"revision": few}), (str(code), {})]
    calls = [{"custom_generate": name, "trust_remote_code": True, **how, **OPTIONS} for name, how in recipes]
    stock = in_a_clean_process(hub, tmp_path / "clean", calls)
    assert stock[0] == of_data["object"].tolist()
    assert stock[1] == stock[2] == of_code["object"].tolist()


def test_generate_with_a_cached_pinned_controller_asks_nobody(
    enabled: tuple[Any, Any, dict[str, Any]], hub: HubServer
) -> None:
    model, _, inputs = enabled
    commit = put(hub, "user/few", read(FORMATS / "code"))
    how = {"strategy": "autotts", "controller": "user/few", "trust_remote_code": True, **OPTIONS}
    load_controller("user/few", revision=commit, trust_remote_code=True)
    hub.forget_requests()
    for _ in range(2):
        model.generate(**inputs, **how, revision=commit)
    assert not hub.requests()
    with pytest.warns(MovingRevisionWarning):
        model.generate(**inputs, **how)
    hub.forget_requests()
    model.generate(**inputs, **how)  # a name that moves is asked for once a process
    assert not hub.requests()


class TestRecipe:
    def card(self, folder: str) -> str:
        return (FORMATS / folder / "controller.json").read_text()

    def test_code_that_is_not_the_cards(self, enabled: tuple[Any, Any, dict[str, Any]], tmp_path: Path) -> None:
        model, tokenizer, inputs = enabled
        (tmp_path / "controller.py").write_text("print('RAN')\n")
        with pytest.raises(ControllerError, match=r"controller\.py: it does not match controller\.json"):
            answer(model, self.card("code"), tmp_path / "controller.py", {**inputs, "tokenizer": tokenizer})

    def test_a_word_that_nobody_knows(self, enabled: tuple[Any, Any, dict[str, Any]]) -> None:
        model, tokenizer, inputs = enabled
        with pytest.raises(UnknownNameError, match="'betta': did you mean 'beta'"):
            answer(model, self.card("data"), None, {**inputs, "tokenizer": tokenizer, "betta": 1})

    def test_no_tokenizer(self, enabled: tuple[Any, Any, dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
        model, _, inputs = enabled
        monkeypatch.setattr(model.config, "_name_or_path", "/no/such/model")
        with pytest.raises(InputError, match="pass tokenizer=tokenizer"):
            answer(model, self.card("data"), None, inputs)

    def test_budget_and_knobs(self, enabled: tuple[Any, Any, dict[str, Any]]) -> None:
        model, tokenizer, inputs = enabled
        given = {**inputs, "tokenizer": tokenizer, "return_dict_in_generate": True, **OPTIONS}
        output = answer(model, self.card("data"), None, {**given, "beta": 1.0, "controller_kwargs": {"max_samples": 3}})
        knobs = output.trace[0].controller["knobs"]
        assert (knobs["max_samples"], knobs["threshold"]) == (3, 0.8)
