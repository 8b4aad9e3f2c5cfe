# Set-up is part of every target: `make demo` and `make test` work in a bare clone that has Python 3.11 and make.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip -qq --disable-pip-version-check --no-input
INSTALL := $(PIP) install -c constraints.txt
# On a terminal, a dot every ten seconds for as long as the rest of the recipe's line takes: pip itself says nothing.
DOTS := if [ -t 2 ]; then (while sleep 10 && kill -0 $$$$ 2>/dev/null; do printf . >&2; done) & trap "kill $$! 2>/dev/null; echo >&2" EXIT; fi
WORKERS ?= $(shell nproc 2>/dev/null || sysctl -n hw.ncpu 2>/dev/null || echo 2)
PYTEST := $(BIN)/python -m pytest -n $(WORKERS)
SHIPPED := pyproject.toml constraints.txt

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test test-slow check format format-check lint types docstrings imports docs bench-help clean

help:  ## list these targets
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 22

demo: $(VENV)/.core  ## train a character LSTM on tiny Shakespeare (two minutes), with a report
	@$(BIN)/unrolled demo

test: $(VENV)/.test $(VENV)/.browser  ## run the tests
	@$(PYTEST)

test-slow: $(VENV)/.test $(VENV)/.browser  ## run the slow tests as well
	@$(PYTEST) -m "slow or not slow"

check: format-check lint types docstrings imports docs test  ## everything that must hold before a change is proposed

format: $(VENV)/.check  ## format the code and mend what can be mended
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

format-check: $(VENV)/.check
	@echo "format"; $(BIN)/ruff format --check --quiet . || { echo "some files are not formatted; try: make format" >&2; exit 1; }

lint: $(VENV)/.check
	@echo "lint"; $(BIN)/ruff check --quiet .

types: $(VENV)/.check
	@echo "types"; $(BIN)/mypy --no-error-summary

docstrings: $(VENV)/.check
	@echo "docstrings against signatures"; \
	$(BIN)/pydoclint src > $(VENV)/docstrings.log 2>&1 || true; \
	! grep -E "DOC|Error" $(VENV)/docstrings.log | grep -vE "DOC50[23]"  # what a helper raises for its caller is no fault

imports: $(VENV)/.check
	@echo "import directions"; $(BIN)/lint-imports --no-cache > $(VENV)/imports.log || { cat $(VENV)/imports.log; exit 1; }

docs: $(VENV)/.docs  ## build the documentation into docs/_build/html
	@echo "documentation"; $(BIN)/sphinx-build -W --keep-going -q -b html docs docs/_build/html
	@echo "open docs/_build/html/index.html"

bench-help: $(VENV)/.core  ## list the measurements under benchmarks/
	@ls benchmarks/*.py 2>/dev/null | sed 's/^/  $(subst /,\/,$(BIN))\/python /' || true

clean:  ## remove what was built, the environment included; runs/ stays
	rm -rf $(VENV) docs/_build docs/reference/generated dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find src tests docs -name __pycache__ -type d -prune -exec rm -rf {} +

# --- Set-up: each stamp is a group of packages that is installed -------------------------------------------------------

$(BIN)/python:
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  found=`"$(PYTHON)" --version 2>/dev/null | head -n 1`; \
	  echo "unrolled needs Python 3.11 or newer, and '$(PYTHON)' is $${found:-not there}; try: make PYTHON=/path/to/python3.12" >&2; exit 2; }
	@"$(PYTHON)" -m venv $(VENV) || \
	  { rm -rf $(VENV); echo "Python's venv module is missing; on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 2; }

$(VENV)/.core: $(SHIPPED) | $(BIN)/python
	@echo "Installing unrolled and PyTorch into $(VENV)/ (once; several minutes where PyTorch must be downloaded, up to 5.5 GB) …"
	@$(DOTS); $(INSTALL) -e .
	@echo "Installed."
	@touch $@

$(VENV)/.test: $(VENV)/.core
	@echo "Installing what the tests need …"
	@$(INSTALL) -e '.[test]'
	@touch $@

$(VENV)/.check: $(VENV)/.core
	@echo "Installing what the checks need …"
	@$(INSTALL) -e '.[check,track]'
	@touch $@

$(VENV)/.docs: $(VENV)/.core
	@echo "Installing what the documentation needs …"
	@$(INSTALL) -e '.[docs]'
	@touch $@

# Page tests draw the report in Chromium and skip where there is none, so nothing here may fail.
$(VENV)/.browser: | $(BIN)/python
	@if ! command -v chromium >/dev/null && ! command -v chromium-browser >/dev/null && ! command -v google-chrome >/dev/null \
	    && [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  echo "Installing Chromium for the tests of report pages …"; \
	  { apt-get update && DEBIAN_FRONTEND=noninteractive timeout 600 apt-get install -y --no-install-recommends chromium; } \
	    >$(VENV)/browser.log 2>&1 </dev/null || echo "no Chromium could be installed; the tests of report pages skip"; \
	fi
	@touch $@
