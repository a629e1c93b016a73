# `make run` and `make test` are all that a fresh machine needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: run test test-slow check format plan clean help

help:
	@echo "make run        set up, then the whole loop in the built-in world: leaderboard and report"
	@echo "make test       set up, then the default tests"
	@echo "make check      style, types and import contracts"
	@echo "make test-slow  the tests that take minutes"
	@echo "make format     let ruff rewrite what it can"

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; assert (3, 11) <= sys.version_info < (3, 14), "Pasture needs Python 3.11 to 3.13, this is " + sys.version.split()[0] + ". Name another: make PYTHON=python3.12 run"'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[train,dev]'
	@touch $(STAMP)

run: $(STAMP)
	$(BIN)/pasture run recipes/meadow/loop.toml

plan: $(STAMP)
	$(BIN)/pasture plan recipes/meadow/loop.toml

test: $(STAMP)
	$(BIN)/python -m pytest -n 2

test-slow: $(STAMP)
	$(BIN)/python -m pytest -m slow

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
