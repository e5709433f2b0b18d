# `make help` lists the targets. Each makes what it needs.

CHOICE ?=
SCENARIO ?= black-friday
BUNDLE ?=
PORT ?= 8080
VENV := .venv
BIN := $(VENV)/bin
UV := $(shell command -v uv 2>/dev/null)

.DEFAULT_GOAL := help
.PHONY: help install demo test check bench

help:  ## Show this
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-8s %s\n", $$1, $$2}'

$(VENV)/.demo: pyproject.toml constraints.txt
	@$(MAKE) --no-print-directory install EXTRA=console STAMP=$@

$(VENV)/.dev: pyproject.toml constraints.txt
	@$(MAKE) --no-print-directory install EXTRA=dev STAMP=$@

install:
ifdef UV
	@test -x $(BIN)/python || uv venv --quiet $(VENV)
	uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[$(EXTRA)]'
else
	@test -x $(BIN)/python || python3 -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[$(EXTRA)]'
endif
	@touch $(STAMP)

demo: $(VENV)/.demo  ## Break a shop, find the cause, repair it. CHOICE=1 asks nothing; SCENARIO=bad-deploy; BUNDLE=dir; PORT=0
	$(BIN)/autopilot demo --scenario $(SCENARIO) --port $(PORT) $(if $(CHOICE),--choice $(CHOICE)) $(if $(BUNDLE),--bundle $(BUNDLE))

test: $(VENV)/.dev  ## Run the tests (real Postgres, real processes)
	$(BIN)/pytest

check: $(VENV)/.dev  ## Lint, types, import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.dev  ## Measure; prints the tables of the README
	$(BIN)/python -m benchmarks
