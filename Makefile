# Two commands: `make bench` measures, `make test` tests. Both set everything up themselves, once.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
NAME   ?= $(shell hostname -s 2>/dev/null || echo machine)-$(shell git rev-parse --short HEAD 2>/dev/null || echo nogit)

.PHONY: bench test fuzz lint docs check clean help
.DEFAULT_GOAL := help

help:
	@echo "make bench   segment, check, measure and report (writes reports/)"
	@echo "make test    run the whole test suite"
	@echo "make fuzz    the property tests, at random and with 20 times the examples"
	@echo "make lint    ruff, mypy and import-linter"
	@echo "make docs    the documentation as a site (writes site/)"
	@echo "PYTHON=...   chooses the interpreter (3.11 or newer), VENV=... the environment's directory"

bench: $(VENV)/.installed
	$(BIN)/python -m pytest bench/ --benchmark-save=$(NAME) $(ARGS)

test: $(VENV)/.installed-test
	$(BIN)/python -m pytest -n logical --maxprocesses 4 --dist worksteal $(ARGS)

fuzz: $(VENV)/.installed-test
	$(BIN)/python -m pytest --hypothesis-profile=fuzz -m "not slow" $(ARGS)

lint: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(VENV)/.installed-test
	$(BIN)/python -m sphinx -W --keep-going -q docs site

check: lint test

# The stamps are made last, so an interrupted install is done again.
$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "segcore needs Python 3.11 or newer; found $$($(PYTHON) --version). Use: make PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --disable-pip-version-check -q -e '.[report,photos]'
	@touch $@

$(VENV)/.installed-test: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --disable-pip-version-check -q -e '.[test]'
	@touch $@ $(VENV)/.installed

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis
