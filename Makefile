# Two commands do all: `make demo` and `make test`. Each makes .venv first; only the package index is needed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export OMP_NUM_THREADS := 1
export HF_HUB_OFFLINE := 1
export HF_HUB_DISABLE_TELEMETRY := 1
export TOKENIZERS_PARALLELISM := false
unexport PYTHONDONTWRITEBYTECODE # images that set it have every process of the tests compile our sources again

.PHONY: demo test test-long vllm check lint docs bench lock hashed audit mutants test-matrix supply-chain clean
demo: $(VENV)/installed
	$(BIN)/tts-generate demo --out build/demo

test: $(VENV)/developing
	$(BIN)/python -m pytest -n 2 --dist loadfile -q

# What takes five seconds and more: whole commands, examples, pages, attacks, sets over many models. Nothing lands without it.
test-long: $(VENV)/developing
	$(BIN)/python -m pytest -n 2 --dist worksteal -q -m long tests

# The server client against a real vLLM on this machine's CPU, in an environment of its own.
VLLM ?= build/vllm
vllm: $(VENV)/developing
	tools/vllm_env.sh $(VLLM)
	VLLM_PYTHON=$(abspath $(VLLM))/bin/python $(BIN)/python -m pytest -m vllm -q tests/server/test_vllm.py

check: lint test test-long

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
	$(BIN)/python benchmarks/search_aime24.py
	$(BIN)/python benchmarks/search_folds.py worth 8
	$(BIN)/python benchmarks/search_live.py
	$(BIN)/python benchmarks/hub.py
	$(BIN)/python benchmarks/search_agent.py
	$(BIN)/python benchmarks/harnesses.py benchmarks/results/harnesses.json
	$(BIN)/python benchmarks/reliability.py
	$(BIN)/python tools/frontier_picture.py
	$(BIN)/python tools/numbers_check.py --write

# An SBOM of the pins in build/, and whether what is installed is what is pinned.
supply-chain: $(VENV)/developing
	$(BIN)/python tools/supply_chain.py build/sbom.cdx.json

# Hashes of every file that the index has of each pin, for `make hashed`; after constraints.txt changed.
lock: $(VENV)/installed
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile constraints.txt --quiet --universal --no-deps --generate-hashes --no-annotate --custom-compile-command "make lock" \
		--python-version 3.11.5 --output-file requirements.lock

# An environment of which every file has the hash that was written down; torch is the CPU wheel where there is one.
hashed:
	$(PYTHON) -m venv build/hashed
	build/hashed/bin/python -m pip install --quiet --no-deps torch==2.13.0
	build/hashed/bin/python -m pip install --quiet --no-deps --require-hashes --requirement requirements.lock
	build/hashed/bin/python -m pip install --quiet --no-deps --editable .

# Known weaknesses of the pins. It needs a network on which PyPI's or OSV's service answers, and says where none does.
audit: $(VENV)/installed
	$(BIN)/python -m pip install --quiet pip-audit
	$(BIN)/python tools/audit.py

# Takes every safeguard away, one at a time; a test must fail for each.
mutants: $(VENV)/developing
	$(BIN)/python tools/mutants.py

# The suite on the oldest and the newest libraries and Pythons that are supported, in environments of their own.
test-matrix: $(VENV)/installed
	$(BIN)/python tools/test_matrix.py

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
