# Everything a person or CI does here. `make help` lists it. A machine needs make, Python 3.11 and Java 17.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

PYTHON ?= python3.11
UV_VERSION := 0.13.9
PIP_AUDIT_VERSION := 2.10.1
UV := .tools/bin/uv
BIN := .venv/bin
READY := .venv/.ready
AIRFLOW_BIN := .venv-airflow/bin
AIRFLOW_READY := .venv-airflow/.ready
PEERS_BIN := .venv-peers/bin
PEERS_READY := .venv-peers/.ready
DEMO_FLAGS ?=
# Test processes at a time; each may hold a Spark session (2 GB) of its own.
TEST_WORKERS ?= 2
# Of tests that often wait, for a store that fails and is asked again, or for a command to end.
WAITING_WORKERS ?= 4

# The environments of this Makefile are its own, whatever is active in the shell.
unexport VIRTUAL_ENV PYTHONPATH PYTHONHOME

.PHONY: help
help: ## list the tasks
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(UV):
	@command -v $(PYTHON) >/dev/null || { echo "error: $(PYTHON) is not on PATH: install Python 3.11, or name one: make PYTHON=/path/to/python3.11" >&2; exit 2; }
	$(PYTHON) -m venv .tools
	.tools/bin/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)

$(READY): requirements.lock pyproject.toml | $(UV)
	$(UV) venv --quiet --allow-existing --no-python-downloads --python $(PYTHON) .venv
	$(UV) pip sync --quiet --compile-bytecode --python $(BIN)/python --require-hashes requirements.lock
	$(UV) pip install --quiet --python $(BIN)/python --no-deps --editable .
	@touch $@

.PHONY: setup
setup: $(READY) ## make .venv from the lock (the others do it by themselves)

.PHONY: demo
demo: $(READY) ## make data, train and register a model, and run the job in ./demo
	$(BIN)/batchscore demo $(DEMO_FLAGS)

.PHONY: test
test: test-unit test-spark test-e2e ## all tests: unit first, then spark, then end to end

.PHONY: test-unit
test-unit: $(READY) ## unit tests and doctests: no Java
	$(BIN)/python -m pytest -q -n $(WAITING_WORKERS) --dist worksteal tests/unit tests/fuzz batchscore

.PHONY: test-spark
test-spark: $(READY) ## tests that share a Spark session
	$(BIN)/python -m pytest -q -n $(TEST_WORKERS) --dist loadfile tests/spark

.PHONY: test-e2e
test-e2e: $(READY) ## the commands as a user runs them
	$(BIN)/python -m pytest -q -n $(WAITING_WORKERS) --dist loadgroup tests/e2e

.PHONY: audit
audit: | $(UV) ## known vulnerabilities of what the locks pin; asks the service of the Python Packaging Index
	@set -euo pipefail; failed=0; \
	for lock in requirements.lock requirements-airflow.lock requirements-peers.lock; do \
	  echo "== $$lock"; \
	  $(UV) tool run --quiet --python $(PYTHON) --from 'pip-audit==$(PIP_AUDIT_VERSION)' \
	    pip-audit --requirement $$lock --require-hashes --disable-pip --strict --progress-spinner off || failed=1; \
	done; \
	[ $$failed = 0 ] || { echo "error: vulnerabilities were found, or the service did not answer for all packages: see above" >&2; exit 1; }

# Airflow and batchscore cannot share an environment: their pins exclude each other.
$(AIRFLOW_READY): requirements-airflow.lock | $(UV)
	$(UV) venv --quiet --allow-existing --no-python-downloads --python $(PYTHON) .venv-airflow
	$(UV) pip sync --quiet --compile-bytecode --python $(AIRFLOW_BIN)/python --require-hashes requirements-airflow.lock
	@touch $@

TORTURE_ROUNDS ?= 100
TORTURE_RESULTS := $(CURDIR)/.torture.json

.PHONY: torture
torture: $(READY) ## the long form of the proofs: an hour of kills, double runs, damaged files; writes docs/reliability.md
	rm -f $(TORTURE_RESULTS)
	BATCHSCORE_TORTURE_RESULTS=$(TORTURE_RESULTS) BATCHSCORE_TORTURE_ROUNDS=$(TORTURE_ROUNDS) \
	  $(BIN)/python -m pytest -q -n $(TEST_WORKERS) --dist worksteal -m torture tests/torture tests/fuzz tests/e2e
	$(BIN)/python -m tests.torture.report $(TORTURE_RESULTS)

.PHONY: airflow-test
airflow-test: $(READY) $(AIRFLOW_READY) ## the DAGs in a real Airflow, in an environment of its own
	BATCHSCORE_PYTHON=$(CURDIR)/$(BIN)/python $(AIRFLOW_BIN)/python -m pytest -q tests/airflow \
	  --override-ini addopts="--strict-markers --strict-config -ra"

.PHONY: lint
lint: $(READY) ## ruff: rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

.PHONY: types
types: $(READY) ## mypy, strict
	$(BIN)/mypy

.PHONY: layers
layers: $(READY) ## import-linter: who may import whom
	$(BIN)/lint-imports

$(PEERS_READY): requirements-peers.lock | $(UV)
	$(UV) venv --quiet --allow-existing --no-python-downloads --python $(PYTHON) .venv-peers
	$(UV) pip sync --quiet --compile-bytecode --python $(PEERS_BIN)/python --require-hashes requirements-peers.lock
	@touch $@

BENCH := $(BIN)/python -m benchmarks.speed --peers-python $(CURDIR)/$(PEERS_BIN)/python

.PHONY: bench
bench: $(READY) $(PEERS_READY) ## the headline figures, in 40 minutes on two cores
	$(BENCH) headline

.PHONY: bench-full
bench-full: $(READY) $(PEERS_READY) ## every case and every peer: hours; goes on where it was stopped
	$(BENCH) full
	$(BIN)/python -m benchmarks.cluster
	$(BIN)/python -m benchmarks.figures

.PHONY: bench-figures
bench-figures: $(READY) ## what is asked of the kept results, and what they say
	$(BIN)/python -m benchmarks.figures

.PHONY: bench-job
bench-job: $(READY) ## the demo's job with the model itself as engine: speed, memory, start-up times
	$(BIN)/python -m benchmarks.startup
	$(BIN)/python -m benchmarks.end_to_end
	$(BIN)/python -m benchmarks.memory

.PHONY: wheel-test
wheel-test: $(READY) ## build the wheel, install it into an empty environment, run the demo there
	@set -euo pipefail; \
	place=$$(mktemp -d); trap 'rm -rf "$$place"' EXIT; lock=$$PWD/requirements.lock; uv=$$PWD/$(UV); \
	"$$uv" build --quiet --wheel --python $(BIN)/python --out-dir "$$place/dist" .; \
	"$$uv" venv --quiet --no-python-downloads --python $(PYTHON) "$$place/venv"; \
	"$$uv" pip install --quiet --compile-bytecode --python "$$place/venv/bin/python" --constraints "$$lock" "$$place"/dist/*.whl; \
	cd "$$place"; \
	venv/bin/batchscore --version; \
	venv/bin/batchscore demo --runner local --rows 20000 --dir demo; \
	cd demo; \
	../venv/bin/batchscore run --runner local --model fraud_detection/Production

.PHONY: ci
ci: ## what CI runs
	.ci/run

.PHONY: lock
lock: | $(UV) ## pin all dependencies again, with hashes
	$(UV) pip compile --quiet --upgrade --universal --generate-hashes --no-header --no-annotate --python-version 3.11 \
	  pyproject.toml --group dev --output-file requirements.lock
	$(UV) pip compile --quiet --upgrade --universal --generate-hashes --no-header --no-annotate --python-version 3.11 \
	  airflow_dags/requirements.in --output-file requirements-airflow.lock
	$(UV) pip compile --quiet --upgrade --universal --generate-hashes --no-header --no-annotate --python-version 3.11 \
	  --group peers --output-file requirements-peers.lock

.PHONY: clean
clean: ## remove what the other tasks made
	rm -rf .venv .venv-* .tools dist build demo .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .benchmarks
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
