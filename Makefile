# make setup · run · run-web · test · check · web · sim · torture · bench · image-test
# Needs Python 3.11 or later with its venv module, make and a C compiler. `make PYTHON=python3.12 …` chooses the Python.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --require-virtualenv --quiet
PYTEST := PYTHONASYNCIODEBUG=1 $(BIN)/python -m pytest
BENCHMARKS := commit recovery transfers fanout latency selective wire_bytes memory freshness web_client web_frames auth sign_in \
	query_uncached query_cached deploy_time cold_start validation action_concurrency scheduler

# Pyright runs on the Node.js of its wheel; the machine's own may be too old.
export PYRIGHT_PYTHON_GLOBAL_NODE := 0

.PHONY: setup run run-web test check web lint types-mypy types-pyright imports docs sim torture bench image-test clean

setup: $(VENV)/.project

$(VENV)/.dependencies: requirements.lock
	@sh tools/make_environment.sh "$(PYTHON)" $(VENV)
	@echo "setup: installing the dependencies of requirements.lock (a minute or two the first time)"
	@$(PIP) install --require-hashes -r requirements.lock
	@touch $@

$(VENV)/.project: $(VENV)/.dependencies pyproject.toml
	@echo "setup: installing Headwater, editable"
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

run: setup
	@$(BIN)/python -m examples.departures

# The departures in a browser, while `make run` goes on; http://localhost:5173.
run-web: setup
	@$(BIN)/python -m tools.web_example

test: check web
	@$(PYTEST) -m "not slow" -n 2 --dist loadgroup

# Two at a time, the slowest first; all of them run, so that one sees every mistake at once.
CHECKS := types-pyright types-mypy lint imports docs
check: setup
	@$(MAKE) --no-print-directory --keep-going -j2 --output-sync=target $(CHECKS)

types-pyright: setup
	@$(BIN)/python -m pyright --warnings

types-mypy: setup
	@$(BIN)/python -m mypy

lint: setup
	@$(BIN)/python -m ruff check
	@$(BIN)/python -m ruff format --check

imports: setup
	@$(BIN)/lint-imports --no-logo

# The TypeScript client: lint, types, tests. Skipped where there is no Node.js 20 or later.
web: setup
	@$(BIN)/python -m tools.web

docs: setup
	@$(BIN)/python -m tools.check_docs

# make sim SEED=17 replays one seed of both simulations; without it, new seeds are searched until one fails
# or MINUTES (2 by default) are over.
sim: setup
	@$(PYTEST) -n 0 -s --timeout=0 --minutes=$(or $(MINUTES),2) tests/sim $(if $(SEED),--seed=$(SEED) -k "random_histories and not at_length")

# make torture MINUTES=10 runs every long form for about ten minutes each and keeps the figures;
# ONLY=kills chooses by name, SEED=17 repeats one seed.
torture: setup
	@$(PYTEST) -m slow -n 0 -s --timeout=0 --record --minutes=$(or $(MINUTES),2) $(if $(ONLY),-k "$(ONLY)") $(if $(SEED),--seed=$(SEED))

bench: setup
	@for name in $(BENCHMARKS); do $(BIN)/python -m benchmarks.$$name --json || exit 1; done

image-test: setup
	@$(BIN)/python -m tools.image_test

clean:
	@rm -rf $(VENV) .mypy_cache .ruff_cache .import_linter_cache .hypothesis
