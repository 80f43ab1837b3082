# Each target sets up what it needs; only Python >= 3.11 and make must be there.

PYTHON ?= python3
BASE ?= HEAD~1
PROFILE ?= fast
PORT ?= 8080
ARGS ?=
WORKERS ?= 3
HOURS ?= 1

BIN := .venv/bin
INSTALLED := .venv/.installed
COMPARE := .venv-compare
COMPARED := $(COMPARE)/.installed
SURVEY := .venv-survey
SURVEYED := $(SURVEY)/.installed
ASV := cd asv_benchmarks && LOSS_HARNESS_ASV_PROFILE=$(PROFILE) ../$(BIN)/asv

# What a process has compiled, the many others that the tests start need not compile again.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := report
.PHONY: cluster coverage faults fuzz gpu install leaks range report site test speed check bench mutation compare survey asv asv-continuous asv-times asv-compare asv-publish asv-preview clean help

help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /: /'

install: $(INSTALLED)  ## a virtual environment in .venv, from constraints.txt

# The package is installed in place, so only a change of what it needs asks for a new installation.
$(INSTALLED): constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(f"Python >= 3.11 is needed, but {sys.executable} is {sys.version.split()[0]}; write make PYTHON=python3.11" if sys.version_info < (3, 11) else 0)'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

report: $(INSTALLED)  ## verify and time the losses, two at a time, 5 s of timing each: reports/latest (ARGS="path/to/loss.py --device cpu,cuda")
	$(BIN)/loss-harness report --budget 5 --workers 2 $(ARGS)

# A file stays in one process, whose rules share the cases that were drawn, and the longest begin.
SHARED := --dist loadfile --no-loadscope-reorder

# pytest-benchmark times nothing beside others.
test: $(INSTALLED)  ## all tests (ARGS="-k graph_distance"; WORKERS=0 runs them in one process)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) $(SHARED) --benchmark-disable --harness-profile quick -m "not cluster" $(ARGS)

range: $(INSTALLED)  ## those tests with Python 3.11 to 3.13, oldest and newest versions (ARGS="-s 'tests(python3.12)' -- -k cli")
	$(BIN)/nox $(ARGS)

# One test is left out: it forks at every call, and each copy would write what it has traced.
UNTRACED := --deselect "property_tests/runs/test_jobs.py::test_a_loss_that_only_harms_its_surroundings_is_checked_to_the_end[forks]"

# The report names the files under 95 %, also where a test has failed.  What stays after combining is a file that a process
# was writing when it was killed.
coverage: $(INSTALLED)  ## lines and branches of harness that the tests run, at least 95 %; half an hour (ARGS="-k journal")
	rm -rf .coverage && mkdir .coverage
	OMP_NUM_THREADS=1 $(BIN)/coverage run -m pytest -n $(WORKERS) $(SHARED) --benchmark-disable -m "not cluster" $(UNTRACED) $(ARGS); tests=$$?; \
	$(BIN)/coverage combine --quiet && rm -f .coverage/data.* && \
	$(BIN)/coverage report --sort cover --fail-under 0 | awk 'NR <= 2 || $$1 == "TOTAL" || $$6 + 0 < 95' && \
	$(BIN)/coverage report --format total && exit $$tests

speed: $(INSTALLED)  ## pytest-benchmark over the losses (ARGS="--benchmark-autosave", ARGS="--benchmark-compare")
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest property_tests/pytest_plugin/test_speed.py --benchmark-only $(ARGS)

gpu: $(INSTALLED)  ## on a GPU, nine minutes: tests, rules, times, launches, memory, bandwidth: reports/cuda (ARGS="--minutes 5")
	OMP_NUM_THREADS=1 $(BIN)/python -m property_tests.tools.gpu $(ARGS)

fuzz: $(INSTALLED)  ## the losses and installed catalogs with new seeds, thoroughly, HOURS=1; goes on where the last run ended
	OMP_NUM_THREADS=1 $(BIN)/python -m property_tests.tools.fuzz --hours $(HOURS) --workers $(WORKERS) $(ARGS)

check: $(INSTALLED)  ## format, lint, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

site: $(INSTALLED)  ## the pages as a site with a search: build/site; any warning fails
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet --strict $(ARGS)

bench: $(INSTALLED)  ## time the reference losses without verifying them
	$(BIN)/loss-harness bench losses $(ARGS)

mutation: $(INSTALLED)  ## which mutants of correct losses the rules catch (ARGS="--quick", ARGS="--loss contrastive --all")
	OMP_NUM_THREADS=1 $(BIN)/python -m property_tests.tools.mutation $(ARGS)

cluster: $(INSTALLED)  ## the tests on real dask clusters of several processes, whose workers are killed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m cluster property_tests/runs/test_jobs_cluster.py $(ARGS)

leaks: $(INSTALLED)  ## memory over 10,000 examples, flat within 5 %, and that a planted leak is seen (ARGS="--profile ci")
	OMP_NUM_THREADS=1 $(BIN)/python -m property_tests.tools.leaks $(ARGS)

faults: $(INSTALLED)  ## what a crash, a hang, a full disk or a kill costs: nothing but itself (ARGS="segfault")
	$(BIN)/python -m property_tests.tools.faults $(ARGS)

# An environment of its own on top of .venv, so that no third-party package changes what the tests run with.
$(COMPARED): $(INSTALLED) property_tests/tools/comparison/constraints.txt
	test -x $(COMPARE)/bin/python || $(BIN)/python -m venv $(COMPARE)
	$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' > "$$($(COMPARE)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/host.pth"
	$(COMPARE)/bin/python -m pip install --quiet --constraint constraints.txt --constraint property_tests/tools/comparison/constraints.txt --editable '.[compare]'
	@touch $@

compare: $(COMPARED)  ## the losses beside their usual forms and third-party packages: reports/latest/losses (ARGS="--only focal")
	OMP_NUM_THREADS=1 $(COMPARE)/bin/python -m property_tests.tools.comparison --out reports/latest/losses $(ARGS)

$(SURVEYED): $(INSTALLED) property_tests/tools/survey/constraints.txt
	test -x $(SURVEY)/bin/python || $(BIN)/python -m venv $(SURVEY)
	$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' > "$$($(SURVEY)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/host.pth"
	$(SURVEY)/bin/python -m pip install --quiet --constraint constraints.txt --constraint property_tests/tools/survey/constraints.txt --editable '.[survey]'
	@touch $@

# It looks at other people's code and is no gate: findings (exit code 1) are its result, anything else is a failure.
survey: $(SURVEYED)  ## verify the losses of well-known packages: reports/latest/survey (ARGS="--profile ci")
	OMP_NUM_THREADS=1 $(SURVEY)/bin/loss-harness report harness.catalogs --profile quick --costs-only --out reports/latest/survey $(ARGS) || test $$? -eq 1

asv: $(INSTALLED)  ## asv over HEAD (PROFILE=fast|regular|large)
	$(ASV) machine --yes >/dev/null
	$(ASV) run $(ARGS) 'HEAD^!'

asv-continuous: $(INSTALLED)  ## compare HEAD with another commit (BASE=HEAD~1): fails where an exact cost has grown
	$(ASV) machine --yes >/dev/null
	$(ASV) continuous --bench '^exact_costs' --factor 1 $(ARGS) $(BASE) HEAD

# Evidence only: on a busy machine equal commits differ by more than most commits do.
asv-times: $(INSTALLED)  ## times of HEAD and another commit (BASE=HEAD~1), in turn
	$(ASV) machine --yes >/dev/null
	$(ASV) continuous --bench '^times' --attribute rounds=2 --factor 1.5 $(ARGS) $(BASE) HEAD || true

asv-compare: $(INSTALLED)  ## what asv has stored of two commits, side by side (BASE=HEAD~1); measures nothing
	$(ASV) compare --factor 1.1 --only-changed $(ARGS) $(BASE) HEAD

asv-publish: $(INSTALLED)  ## web pages of everything that asv has stored
	$(ASV) publish $(ARGS)

# `asv preview` would listen on every network interface.
asv-preview: asv-publish  ## serve those pages to this machine alone (PORT=8080)
	$(BIN)/python -m http.server --bind 127.0.0.1 --directory asv_benchmarks/.asv/html $(PORT)

clean:  ## remove the environment and everything that was made, but no report
	rm -rf .venv .nox .venv-compare .venv-survey build dist asv_benchmarks/.asv .mypy_cache .ruff_cache .hypothesis .loss-harness .coverage
