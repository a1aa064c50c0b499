# Two commands do everything; each makes .venv when it is missing.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
# Without a GPU, PyTorch's own index has a CPU build; the default one pulls gigabytes of CUDA.
TORCH_INDEX := $(shell command -v nvidia-smi >/dev/null || echo --retries 1 --timeout 15 --extra-index-url https://download.pytorch.org/whl/cpu)

.PHONY: quickstart test install

quickstart: install  ## run the main job on tiny models: gkd and grpo, then a table
	$(BIN)/atlas submit specs/quickstart/gkd.yaml specs/quickstart/grpo.yaml

test: install  ## lint, types, all tests
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
