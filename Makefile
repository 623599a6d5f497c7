# `make run` and `make test` need nothing but Python 3.11 with pip, and Java 17 (installed by apt where there is apt).
# Redis, which the tests of serving scaled out need, is installed there too; without it they are skipped and say so.
SHELL := /bin/bash
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.complete
APT := $(shell command -v apt-get)

.PHONY: setup run test test-all bench check docs clean

setup: $(STAMP)
	@command -v java >/dev/null || { $(if $(APT),apt-get update -qq && apt-get install -y -qq openjdk-17-jre-headless,false) ; } \
	  || { echo "Java 17 is missing: install a JRE (Debian: openjdk-17-jre-headless, macOS: brew install openjdk@17)" >&2; exit 1; }
	@command -v redis-server >/dev/null || { $(if $(APT),apt-get update -qq && apt-get install -y -qq redis-server,false) ; } \
	  || echo "redis-server is missing, so tests of serving from Redis are skipped: install it (macOS: brew install redis)" >&2

$(STAMP): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is missing: install Python 3.11, or name one with PYTHON=" >&2; exit 1; }
	@echo "installing the packages into $(VENV), 2.4 GB: 2 to 5 minutes"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -qq --no-compile --disable-pip-version-check -c constraints.txt -e '.[cpu,pipeline,dev]'
	@# Compiled on all cores, and also where PYTHONDONTWRITEBYTECODE is set: else every process compiles torch again.
	$(BIN)/python -m compileall -q -j 0 -x '/tests?/' $(VENV)/lib >/dev/null 2>&1 || true
	touch $@

run: setup
	$(BIN)/python -m jobs.demo $(if $(ONCE),--once)

test: setup check
	$(BIN)/python -m pytest -m "not slow"

test-all: setup check
	$(BIN)/python -m pytest

bench: setup
	$(BIN)/python -m benchmarks.pipeline
	$(BIN)/python -m benchmarks.index
	$(BIN)/python -m benchmarks.lookup
	$(BIN)/python -m benchmarks.blend

docs: setup
	$(BIN)/python -m tests.docs.reference

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest tests/docs

clean:
	rm -rf $(VENV) run build *.egg-info
