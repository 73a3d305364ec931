# Two commands do all: `make demo` and `make test`. Each makes .venv first; only the package index is needed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export OMP_NUM_THREADS := 1
export HF_HUB_OFFLINE := 1
export HF_HUB_DISABLE_TELEMETRY := 1
export TOKENIZERS_PARALLELISM := false

.PHONY: demo test check lint docs bench test-matrix supply-chain clean
demo: $(VENV)/installed
	$(BIN)/tts-generate demo --out build/demo

test: $(VENV)/developing
	$(BIN)/python -m pytest -n 2 -q

check: lint test

lint: $(VENV)/developing
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

docs: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[docs]"
	$(BIN)/mkdocs build --quiet

bench: $(VENV)/installed demo
	cp build/demo/demo.json benchmarks/results/demo.json
	$(BIN)/python benchmarks/tiny_card.py
	$(BIN)/python benchmarks/replay_published.py
	$(BIN)/python benchmarks/replay.py benchmarks/results/replay.json
	$(BIN)/python benchmarks/engine.py benchmarks/results/engine_cpu.json --device cpu
	$(BIN)/python benchmarks/server.py benchmarks/results/server.json
	$(BIN)/python benchmarks/distributed.py benchmarks/results/distributed.json
	$(BIN)/python benchmarks/sandbox.py
	$(BIN)/python benchmarks/search_aime24.py thrift
	$(BIN)/python benchmarks/search_folds.py worth
	$(BIN)/python benchmarks/search_live.py
	$(BIN)/python benchmarks/hub.py
	$(BIN)/python benchmarks/search_agent.py
	$(BIN)/python benchmarks/harnesses.py benchmarks/results/harnesses.json
	$(BIN)/python benchmarks/reliability.py
	$(BIN)/python benchmarks/numbers_check.py --write

# An SBOM of the pins in build/, and whether what is installed is what is pinned.
supply-chain: $(VENV)/developing
	$(BIN)/python benchmarks/supply_chain.py build/sbom.cdx.json

# The oldest libraries that are supported, in an environment of their own: transformers 5.17 with huggingface_hub 1.
# What needs newer ones (the harnesses, trackio) is left out.
OLDEST := build/oldest
test-matrix:
	$(PYTHON) -m venv $(OLDEST)
	grep -viE '^(transformers|huggingface[-_]hub|tokenizers|safetensors)==' constraints.txt > $(OLDEST)/constraints.txt
	$(OLDEST)/bin/python -m pip install --quiet torch==2.13.0
	$(OLDEST)/bin/python -m pip install --quiet --constraint $(OLDEST)/constraints.txt "transformers==5.17.*" "huggingface_hub<2" --editable ".[dev,report,search,math]"
	$(OLDEST)/bin/python -m pytest -n 2 -q tests/core tests/engine tests/hub tests/replay tests/trajectories tests/test_cli.py tests/test_tiny.py

# torch comes first and pinned: on a machine whose index offers a CPU wheel of it, no CUDA packages are pulled.
$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet torch==2.13.0
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[report,search,math]"
	touch $@

$(VENV)/developing: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev,report,search,math,lm-eval,inspect,peft,trackio]"
	touch $@

clean:
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
