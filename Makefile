# Everything runs from a fresh clone with python3 ≥ 3.11 (with venv) and a C compiler:
# the environment is made on the first call and again when pyproject.toml has changed.
#
#     make run         the main job: compile, schedule, run, verify and compare one network
#     make test        formatting, types, layers and all tests
#     make test-full   the large networks as well
#     make torch-test  the PyTorch door, in an environment of its own
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
BIN := $(VENV)/bin
STEP := tools/step.sh
ARGS ?=

export PYTHON

.PHONY: help run test test-full torch-test lint clean

help:
	@sed -n '4,13s/^# \{0,1\}//p' Makefile

$(VENV)/.ready: pyproject.toml tools/venv.sh
	@tools/venv.sh $(VENV) --editable '.[dev]'
	@touch $@

$(TORCH_VENV)/.ready: pyproject.toml tools/venv.sh
	@tools/venv.sh $(TORCH_VENV) --editable '.[dev]' 'torch==2.13.0'
	@touch $@

run: $(VENV)/.ready
	@$(BIN)/python -m benchmarks.main_job $(ARGS)

lint: $(VENV)/.ready
	@$(STEP) '[1/5] ruff check' $(BIN)/ruff check --quiet .
	@$(STEP) '[2/5] ruff format' $(BIN)/ruff format --check --quiet .
	@$(STEP) '[3/5] mypy' $(BIN)/mypy
	@$(STEP) '[4/5] lint-imports' $(BIN)/lint-imports

test: lint
	@$(STEP) -v '[5/5] pytest' $(BIN)/python -m pytest $(ARGS)

test-full: $(VENV)/.ready
	@$(STEP) -v 'pytest, large networks' $(BIN)/python -m pytest -m full $(ARGS)

torch-test: $(TORCH_VENV)/.ready
	@$(STEP) -v 'pytest, PyTorch' $(TORCH_VENV)/bin/python -m pytest tests/pytorch $(ARGS)

clean:
	@rm -rf $(VENV) $(TORCH_VENV) build dist out .mypy_cache .pytest_cache .ruff_cache \
		.import_linter_cache .hypothesis *.egg-info
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
	@echo 'removed environments, caches and out/'
