"""Models that accelerate has spread over devices, CPU and disk: the tokens are those of the model in one piece."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import dispatch_model
from engine_models import CONFIGS, QUESTIONS, Live, make_model, make_tokenizer
from test_generate import read
from test_live_replay import assert_same, written_down
from transformers import AutoModelForCausalLM

from tts_generate.engine import enable, record
from tts_generate.engine.device import input_device
from tts_generate.replay import replay
from tts_generate.trajectories import Question, TrajectoryStore

PARTS = ["model.embed_tokens", "model.layers.0", "model.layers.1", "model.norm", "model.rotary_emb", "lm_head"]
MAPS = {
    "a layer on disk": {"model.layers.1": "disk"},
    "embedding and head on disk": {"model.embed_tokens": "disk", "lm_head": "disk"},
    "all but a layer on disk": {**dict.fromkeys(PARTS, "disk"), "model.layers.0": "cpu", "model.rotary_emb": "cpu"},
}


def spread(folder: Path, family: str, device_map: Any) -> Live:
    """A model loaded with a device map from what `make_model` gives."""
    make_model(family).save_pretrained(folder / family)
    away = dict.fromkeys(PARTS, "cpu") | device_map if isinstance(device_map, dict) else device_map
    model = AutoModelForCausalLM.from_pretrained(
        folder / family, dtype=torch.float32, device_map=away, offload_folder=folder / "offload"
    )
    tokenizer = make_tokenizer()
    return Live(enable(model.eval(), tokenizer=tokenizer), tokenizer)


def whole(family: str) -> Live:
    tokenizer = make_tokenizer()
    return Live(enable(make_model(family), tokenizer=tokenizer), tokenizer)


def recorded(live: Live, out: Path) -> TrajectoryStore:
    questions = [Question(f"q{n}", text) for n, text in enumerate(QUESTIONS)]
    options: dict[str, Any] = {"branches": 3, "interval_tokens": 8, "max_new_tokens": 24, "progress": False}
    return record(live.model, live.tokenizer, questions, out, **options)


@pytest.mark.parametrize("family", sorted(CONFIGS))
def test_every_family_with_a_layer_on_disk(tmp_path: Path, family: str) -> None:
    live = spread(tmp_path, family, MAPS["a layer on disk"])
    assert live.model.hf_device_map["model.layers.1"] == "disk"
    output, expected = live.run(*QUESTIONS), whole(family).run(*QUESTIONS)
    # Weights read from a file lie at other addresses than those in memory: log-probabilities differ in the last bits.
    assert list(map(read, output.branches)) == list(map(read, expected.branches))
    assert output.cost == expected.cost


@pytest.mark.filterwarnings("ignore:You are calling .generate")  # transformers 5.17, of an embedding on disk
@pytest.mark.parametrize("device_map", ["auto", *MAPS])
def test_a_device_map_changes_no_token_and_no_manifest(tmp_path: Path, device_map: str) -> None:
    """A recording that was begun with the model in one piece is gone on with by one that is spread."""
    live, one_piece = spread(tmp_path, "qwen3", MAPS.get(device_map, device_map)), whole("qwen3")
    assert input_device(live.model) == torch.device("cpu")
    ours, theirs = recorded(live, tmp_path / "spread"), recorded(one_piece, tmp_path / "whole")
    assert read(ours.trajectories()) == read(theirs.trajectories())
    ours_card, theirs_card = dict(ours.manifest.model), dict(theirs.manifest.model)
    assert ours_card.pop("name_or_path") != theirs_card.pop("name_or_path")
    assert ours_card == theirs_card
    assert live.run(*QUESTIONS).answers == one_piece.run(*QUESTIONS).answers


def test_another_model_on_disk_is_told_apart(tmp_path: Path) -> None:
    live = spread(tmp_path, "qwen3", MAPS["a layer on disk"])
    card = dict(recorded(live, tmp_path / "s").manifest.model)
    hook = live.model.model.layers[1].mlp.down_proj._hf_hook
    hook.weights_map = {"weight": hook.weights_map["weight"] + 1.0}
    other = dict(recorded(live, tmp_path / "t").manifest.model)
    assert card.pop("weights_sample") != other.pop("weights_sample")
    assert card == other


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
@pytest.mark.parametrize("family", sorted(CONFIGS))
def test_a_layer_on_the_gpu_and_one_on_the_cpu(family: str) -> None:
    """Two devices that both compute: each layer's keys and values stay where the layer is."""
    places: dict[str, Any] = {name: "cpu" if name in PARTS[2:4] else 0 for name in PARTS}
    model = dispatch_model(make_model(family), places, main_device="cpu", force_hooks=True)
    assert {weight.device.type for weight in model.parameters()} == {"cpu", "cuda"}
    live = Live(enable(model, tokenizer=make_tokenizer()), make_tokenizer(), str(input_device(model)))
    output = live.run(*QUESTIONS)
    assert_same(output, replay(written_down(output), "cmc", beta=0.5, shuffles=0, traces=True))
