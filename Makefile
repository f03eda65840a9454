# Everything sets itself up: .venv/ in this folder, built tools and large environments in the user's cache folder, keyed by
# their locks. Needed on the machine: Python 3.11 or later, make, and the package registries.
PYTHON ?= python3
STACK ?= prod
BASE ?= origin/main
UV := 0.13.9
BIN := .venv/bin
READY := .venv/.ready

.DEFAULT_GOAL := help
.PHONY: help setup policy rehearse test lint format unit policy-tests rehearsal-tests serving-tests workflow-tests engine-tests
.PHONY: review mutation bench lock clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY) ## install the locked Python packages into .venv

policy: $(READY) ## install what `pulumi preview --policy-pack policy` runs
	@$(BIN)/python -m rehearsal.policy_environment

rehearse: $(READY) ## rehearse `pulumi up --stack $(STACK)` on a real control plane; STACK=dev, ARGS="--keep --set PATH=VALUE"
	@$(BIN)/python -m rehearsal up --stack $(STACK) $(ARGS)

test: lint unit policy-tests rehearsal-tests serving-tests workflow-tests engine-tests ## lint and every tier of tests

lint: $(READY) ## style and types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/basedpyright

format: $(READY) ## rewrite the code in its style
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

unit: $(READY) ## tiers unit, graph and policy: pure knowledge, the program under Pulumi's mocks, the pack under its analyzer
	@$(BIN)/python -m pytest

policy-tests: $(READY) ## tier policy again, with 10,000 generated pods
	@POD_SPECS=10000 $(BIN)/python -m pytest tests/policy/test_any_pod.py

rehearsal-tests: $(READY) ## tier rehearsal: the real control plane
	@$(BIN)/python -m pytest tests/rehearsal

serving-tests: $(READY) ## tier serving: the real vLLM on the CPU, the gate against it, and pins at a real registry
	@$(BIN)/python -m pytest tests/serving

workflow-tests: $(READY) ## tier workflows: what linters say of them, and their steps in a clone (actionlint is built on first use)
	@$(BIN)/python -m pytest tests/workflows

engine-tests: $(READY) ## tier engine: the real Pulumi CLI, where there is one
	@if command -v pulumi >/dev/null; then $(BIN)/python -m pytest tests/engine; \
	else echo "*** TIER engine DID NOT RUN: there is no pulumi on PATH. Install the Pulumi CLI to run it. ***"; fi

mutation: $(READY) ## every rule broken in every known way: what the table of workloads does not notice
	@$(BIN)/python -m tests.mutation

review: $(READY) ## what the work tree changes against $(BASE), as a pull request's comment says it; BASE=HEAD~1
	@folder=$$(mktemp -d) && trap 'rm -r "$$folder"' EXIT && scripts/render "$(BASE)" "$$folder" && \
	$(BIN)/python -m serving diff --base "$(BASE)" --rendered "$$folder"

bench: $(READY) ## how long a plan and a preview take, as ratios to their floor
	@$(BIN)/python -m tests.bench

lock: $(READY) ## resolve requirements*.in again
	@$(BIN)/uv pip compile -q --python-version 3.11 --universal --no-emit-index-url --generate-hashes requirements.in -o requirements.txt
	@$(BIN)/uv pip compile -q --python-version 3.11 --universal --no-emit-index-url --generate-hashes requirements-dev.in -o requirements-dev.txt
	@cd rehearsal/vllm_cpu && $(CURDIR)/$(BIN)/uv pip compile -q --python-version 3.11 --universal --no-emit-index-url --generate-hashes --excludes excludes.txt --overrides overrides.txt requirements.in -o requirements.txt
	@$(BIN)/uv pip compile -q --python-version 3.11 --universal --no-emit-index-url --generate-hashes policy/requirements.in -o policy/requirements.txt

clean: ## remove what was set up in this folder
	rm -rf .venv policy/.venv .pytest_cache .ruff_cache .hypothesis

$(READY): requirements-dev.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11 or later is needed, $(PYTHON) is " + sys.version.split()[0] + "; name another: make PYTHON=python3.11 ...")'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "installing the locked Python packages into .venv"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV)
	@$(BIN)/uv pip sync --quiet --python $(BIN)/python requirements-dev.txt
	@touch $@
