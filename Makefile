# Two commands do everything; each makes .venv when it is missing.
PYTHON ?= python3
BIN := .venv/bin

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
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt "torch==2.13.0"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[train,dashboard,dev]"
	touch $@
