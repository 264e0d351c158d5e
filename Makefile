# Everything a person does with Hansa's source. Targets are thin; the work is in .ci/ and in Python modules.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.workspace
PEERS := .venv-bench/.peers
MANIFESTS := pyproject.toml constraints.txt .ci/workspace.py $(wildcard crds/pyproject.toml plugins/*/pyproject.toml core/pyproject.toml operator/pyproject.toml)

# The wheel carries pyright itself; without this it would ask the network for a newer one at every start.
export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1

# By another name, or `make -n test` would do it.
THIS := $(MAKE)

# Tests wait twice as long as they work: three times as many as there are processors.
JOBS ?= $(shell $(PYTHON) -c 'import os; print(max(2, (os.cpu_count() or 1) * 3))')

# Bytecode is kept, whatever the shell says: some hundred processes are started, and each would compile all that it imports.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup run cluster test kubernetes check lint rules generate platform constraints format bench chaos simulate isolation histories clean

help: ## Show this list
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

setup: $(STAMP) ## Make .venv and install everything, at the versions of constraints.txt

$(STAMP): $(MANIFESTS)
	@$(PYTHON) .ci/workspace.py setup
	@touch $@

run: setup ## Start Hansa, triage 50 reviews with a small local model, serve until Ctrl-C (ONCE=1: stop after the table)
	@$(BIN)/hansa demo $(if $(ONCE),--once)

cluster: setup ## Start a Kubernetes API server without a node to try things out with, until Ctrl-C (built once, in minutes, with Go)
	@PYTHONPATH=tests $(BIN)/python -m kubernetes build/cluster

# Tests that want the machine for themselves wait as much as they work, and have a higher priority than the checks beside them.
test: kubernetes setup ## Set-up, every check and every test (JOBS=n: so many at once); a skipped test is a failure
	@$(BIN)/python .ci/beside.py $(BIN)/pytest -m alone -- $(THIS) --no-print-directory lint
	@$(BIN)/pytest -n $(JOBS) -m 'not alone'

# Built once, in eleven minutes of a core, and kept in the user's cache: in the background, at low priority, while the other tests run. The tests
# that want a cluster come last, and wait for it. Needs Go; HANSA_KUBE_BIN names a folder that has the programs instead.
kubernetes:
	@mkdir -p build
	@nice -n 10 $(PYTHON) tests/kubernetes/binaries.py > build/kubernetes.log 2>&1 < /dev/null &

check: setup lint rules ## Every check, no test that starts a server

lint: setup
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/pyright
	@$(BIN)/lint-imports
	@$(BIN)/python .ci/workspace.py deptry

rules: setup
	@$(BIN)/pytest -q tests/rules

generate: setup ## Write what is generated: CRDs, JSON Schema, reference pages, the edition of SQL functions
	@$(BIN)/python -m hansa_crds.generate
	@$(BIN)/python .ci/reference.py
	@$(BIN)/python .ci/definitions.py

platform: generate ## Write what is generated below gitops/: definitions, schema of the chart, kustomize base (builds Helm, if need be)
	@PYTHONPATH=tests $(BIN)/python .ci/deployment.py

constraints: ## Pin in constraints.txt what .venv holds now
	@$(BIN)/python .ci/workspace.py constraints

format: setup ## Format the source, and mend what ruff can mend
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

bench: setup $(PEERS) ## Measure (ONLY=name: one bench), print a table, write bench.json
	@PYTHONPATH=$(CURDIR)/tests/bench/workload $(BIN)/pytest -q -s -o python_files='bench_*.py' -o timeout=900 $(if $(ONLY),-k '$(ONLY)') tests/bench

histories: setup ## Record runs of this version in tests/histories, before it is released
	@PYTHONPATH=tests $(BIN)/python -m histories.record

# What Hansa is measured against has an environment of its own: it is no dependency of anything here.
$(PEERS): tests/bench/requirements.txt
	@$(PYTHON) -m venv .venv-bench
	@.venv-bench/bin/python -m pip install --quiet --disable-pip-version-check --no-input --requirement $<
	@touch $@

chaos: setup ## Kill, freeze, cut and starve a whole platform under load, count the damage (SECONDS=60 SEED=1 CONTROL=nofence)
	@cd tests && ../$(BIN)/python -m chaos --seconds $(or $(SECONDS),60) --seed $(or $(SEED),1) $(if $(CONTROL),--control $(CONTROL)) $(if $(KINDS),--kinds $(KINDS)) $(if $(SHAPES),--shapes $(SHAPES))

simulate: setup ## Play many small worlds of workers and faults in virtual time, each from a seed (SEED=0 WORLDS=100000 CONTROL=nofence)
	@cd tests && ../$(BIN)/python -m simulation --seed $(or $(SEED),0) --worlds $(or $(WORLDS),100000) $(if $(CONTROL),--control $(CONTROL))

isolation: setup ## Ask the database as one tenant for whatever it might tell of another (STATEMENTS=10000 SEED=0 WITHOUT_POLICY=runs)
	@cd tests && ../$(BIN)/python -m isolation --seed $(or $(SEED),0) --statements $(or $(STATEMENTS),10000) $(if $(WITHOUT_POLICY),--without-policy $(WITHOUT_POLICY))

clean: ## Remove .venv and every cache; data folders (.hansa) stay
	@rm -rf .venv .venv-bench .cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis dist build
	@find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
