# Each target sets up what it needs; only Python >= 3.11 and make must be there.

PYTHON ?= python3
BASE ?= HEAD~1
ARGS ?=

BIN := .venv/bin
INSTALLED := .venv/.installed
ASV := cd asv_benchmarks && ../$(BIN)/asv

.DEFAULT_GOAL := report
.PHONY: install report test check bench mutation asv asv-continuous clean help

help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /: /'

install: $(INSTALLED)  ## a virtual environment in .venv, from constraints.txt

# The package is installed in place, so only a change of what it needs asks for a new installation.
$(INSTALLED): constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(f"Python >= 3.11 is needed, but {sys.executable} is {sys.version.split()[0]}; write make PYTHON=python3.11" if sys.version_info < (3, 11) else 0)'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

report: $(INSTALLED)  ## verify and time the reference losses: reports/latest (ARGS="path/to/loss.py --device cpu,cuda")
	$(BIN)/loss-harness report $(ARGS)

test: $(INSTALLED)  ## all tests (ARGS="-k graph_distance")
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(ARGS)

check: $(INSTALLED)  ## format, lint, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: $(INSTALLED)  ## time the reference losses without verifying them
	$(BIN)/loss-harness bench losses $(ARGS)

mutation: $(INSTALLED)  ## which mutants of correct losses the rules catch (ARGS="--quick", ARGS="--loss contrastive --all")
	OMP_NUM_THREADS=1 $(BIN)/python -m property_tests.mutation $(ARGS)

asv: $(INSTALLED)  ## a quick run of asv over HEAD
	$(ASV) machine --yes >/dev/null
	$(ASV) run --quick $(ARGS) 'HEAD^!'

asv-continuous: $(INSTALLED)  ## compare HEAD with another commit (BASE=HEAD~1) by asv
	$(ASV) machine --yes >/dev/null
	$(ASV) continuous $(ARGS) $(BASE) HEAD

clean:  ## remove the environment and everything that was made, but no report
	rm -rf .venv build dist asv_benchmarks/.asv .mypy_cache .ruff_cache .hypothesis .loss-harness
