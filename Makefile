# Everything runs from a fresh clone with python3 ≥ 3.11 (with venv) and a C compiler:
# the environment is made on the first call and again when pyproject.toml has changed.
#
#     make run         the main job: compile, schedule, run, verify and compare one network
#     make figures     rebuild the tables and pictures of the docs from benchmarks/results
#     make test        formatting, types, layers and all tests
#     make test-full   the large networks as well
#     make docs        the documentation site, out/docs/index.html
#     make torch-test  the PyTorch door, in an environment of its own
#     make relay-env   an environment with a TVM that has Relay (0.17, Python 3.11)
#     make relay-test  the Relay door, in that environment
#     make gpu-test    what needs an NVIDIA GPU: tests, also those with Compute Sanitizer
#     make gpu-bundle  all that a GPU machine needs, without compiler, in out/gpu-bundle
#     make clean       remove environments and caches
#
# PYTHON=/path/to/python3 chooses the interpreter, ARGS='-k gantt' is handed to pytest or to
# the main job.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

VENV := .venv
TORCH_VENV := .venv-torch
RELAY_VENV := .venv-relay
BIN := $(VENV)/bin
STEP := tools/step.sh
RELAY_TITLE := pytest, Relay
SPHINX := $(BIN)/python -m sphinx -W --keep-going -q -b html docs out/docs
ARGS ?=

export PYTHON

.PHONY: help run figures test test-relay test-full docs torch-test relay-env relay-test relay-test-full gpu-test \
	gpu-bundle lint clean

help:
	@sed -n '4,18s/^# \{0,1\}//p' Makefile

$(VENV)/.ready: pyproject.toml tools/venv.sh
	@tools/venv.sh $(VENV) --editable '.[dev,docs]'
	@touch $@

$(TORCH_VENV)/.ready: pyproject.toml tools/venv.sh
	@tools/venv.sh $(TORCH_VENV) --editable '.[dev]' 'torch==2.13.0'
	@touch $@

$(RELAY_VENV)/.ready: pyproject.toml tools/relay_venv.sh tools/relay_env.sh tools/cuda_stub.c
	@tools/relay_venv.sh $(RELAY_VENV)
	@touch $@

run: $(VENV)/.ready
	@$(BIN)/python -m benchmarks.main_job $(ARGS)

figures: $(VENV)/.ready
	@$(BIN)/python -m benchmarks.tables
	@$(BIN)/python -m benchmarks.figures

lint: $(VENV)/.ready
	@$(STEP) '[1/8] ruff check' $(BIN)/ruff check --quiet .
	@$(STEP) '[2/8] ruff format' $(BIN)/ruff format --check --quiet .
	@$(STEP) '[3/8] mypy' $(BIN)/mypy
	@$(STEP) '[4/8] lint-imports' $(BIN)/lint-imports

test: lint
	@$(STEP) '[5/8] docs' $(SPHINX)
ifneq ($(strip $(ARGS)),)
	@$(STEP) -v 'pytest' $(BIN)/python -m pytest $(ARGS)
else
	@$(STEP) -v '[6/8] pytest, without devices' $(BIN)/python -m pytest tests/null -n 2 --dist worksteal
	@# The Relay tests have an environment of their own and run meanwhile; their lines come at the end.
	@mkdir -p out; $(MAKE) test-relay >out/relay-test.log 2>&1 & beside=$$!; devices=0; relay=0; \
		$(STEP) -v '[7/8] pytest, on devices' $(BIN)/python -m pytest --ignore tests/null || \
			devices=$$?; \
		wait $$beside || relay=$$?; cat out/relay-test.log; exit $$((devices + relay))
endif

test-relay:
	@tools/relay_venv.sh --check && $(MAKE) relay-test RELAY_TITLE='[8/8] pytest, Relay' || \
		{ code=$$?; [ $$code -eq 3 ] || exit $$code; echo '[8/8] pytest, Relay: NOT RUN, see above'; }

test-full: $(VENV)/.ready
	@$(STEP) -v 'pytest, large networks' $(BIN)/python -m pytest -m full $(ARGS)
ifeq ($(strip $(ARGS)),)
	@tools/relay_venv.sh --check && $(MAKE) relay-test-full || \
		{ code=$$?; [ $$code -eq 3 ] || exit $$code; echo 'pytest, Relay: NOT RUN, see above'; }
endif

docs: $(VENV)/.ready
	@$(STEP) 'docs' $(SPHINX)
	@echo 'open out/docs/index.html'

torch-test: $(TORCH_VENV)/.ready
	@$(STEP) -v 'pytest, PyTorch' $(TORCH_VENV)/bin/python -m pytest tests/pytorch $(ARGS)

relay-env: $(RELAY_VENV)/.ready

relay-test: $(RELAY_VENV)/.ready
	@$(STEP) -v '$(RELAY_TITLE)' tools/relay_env.sh $(RELAY_VENV) python -m pytest tests/relay $(ARGS)

relay-test-full: $(RELAY_VENV)/.ready
	@$(STEP) -v 'pytest, Relay, large networks' \
		tools/relay_env.sh $(RELAY_VENV) python -m pytest tests/relay -m full $(ARGS)

gpu-test: $(VENV)/.ready
	@$(STEP) -v 'pytest, GPU' $(BIN)/python -m pytest tests/gpu -rs $(ARGS)

gpu-bundle: $(VENV)/.ready
	@$(BIN)/python tools/gpu_bundle.py out/gpu-bundle $(ARGS)

clean:
	@rm -rf $(VENV) $(TORCH_VENV) $(RELAY_VENV) build dist out .mypy_cache .pytest_cache .ruff_cache \
		.import_linter_cache .hypothesis *.egg-info
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
	@echo 'removed environments, caches and out/'
