# Every command sets up what it needs: Python 3.11 or newer and pip are enough on a fresh machine.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PATH := $(CURDIR)/$(BIN):$(PATH)

.DEFAULT_GOAL := help
.PHONY: help setup protos check test test-all demo serve eval-models bench-gpu clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

setup: $(INSTALLED)  ## a virtual environment in .venv with everything in it

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Upbeat needs Python 3.11 or newer; name one with PYTHON=...")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@printf 'Installing into %s, about a minute ' $(VENV)
	@$(BIN)/python -m pip install -q -c constraints.txt -e '.[dev]' & \
		while kill -0 $$! 2>/dev/null; do printf .; sleep 1; done; wait $$! && echo ' done'
	@touch $@

protos: setup  ## regenerate the Python stubs from protos/
	@$(BIN)/python protos/generate.py

check: setup  ## formatting, lint, types, freshness of the stubs: what CI checks before the tests
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/python protos/generate.py --check

test: setup  ## the tests, in a few minutes
	@$(BIN)/python -m pytest -m 'not slow'

test-all: setup  ## the tests and the long proofs
	@$(BIN)/python -m pytest

demo: setup  ## one stream, three modalities, interleaved; writes demo/answer.wav and demo/image.png
	@$(BIN)/upbeat demo

serve: setup  ## the server with the embedded models on localhost:50051
	@$(BIN)/python -m server

eval-models: setup  ## measure the embedded models on unseen prompts
	@$(BIN)/python -m training.eval_text
	@$(BIN)/python -m training.eval_image
	@$(BIN)/python -m training.eval_voice

bench-gpu:  ## on a machine with a GPU, torch and triton: equality, timings, JSON; ARGS=--dry-run without one
	@$(PYTHON) -m benchmarks.gpu $(ARGS)

clean:  ## remove what the commands above made
	@rm -rf $(VENV) demo build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
