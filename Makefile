# `make run` and `make test` need nothing but Python 3.11 with pip, and Java 17 (installed by apt where there is apt).
# Redis, which the tests of serving scaled out need, is installed there too; without it they are skipped and say so.
SHELL := /bin/bash
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.complete
APT := $(shell command -v apt-get)

PIPELINE := tests/jobs tests/dags

# Of what pip says: large files and the last steps.
TELLING := /(Downloading|Using cached) .*[0-9] [MG]B/ || /^(Building|Installing)/

.PHONY: setup promtool run test test-pipeline test-serving test-all bench check docs clean

setup: $(STAMP)
	@command -v java >/dev/null || { $(if $(APT),echo "installing Java 17" && apt-get update -qq && apt-get install -y -qq openjdk-17-jre-headless,false) ; } \
	  || { echo "Java 17 is missing: install a JRE (Debian: openjdk-17-jre-headless, macOS: brew install openjdk@17)" >&2; exit 1; }
	@command -v redis-server >/dev/null || { $(if $(APT),echo "installing redis-server" && apt-get update -qq && apt-get install -y -qq redis-server,false) ; } \
	  || echo "redis-server is missing, so tests of serving from Redis are skipped: install it (macOS: brew install redis)" >&2

# Of Debian's package, whose installation would start a server, this one program.
promtool: setup
	@command -v promtool >/dev/null || [ -x $(BIN)/promtool ] || { $(if $(APT),echo "fetching promtool: 19 MB" && apt-get update -qq \
	  && cd $(VENV) && apt-get download -qq -o APT::Sandbox::User=root prometheus \
	  && dpkg-deb --fsys-tarfile prometheus_*.deb | tar -x -C bin --strip-components=3 ./usr/bin/promtool && rm prometheus_*.deb,false) ; } \
	  || echo "promtool is missing, so tests of alerts are skipped: install Prometheus (macOS: brew install prometheus)" >&2

$(STAMP): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is missing: install Python 3.11, or name one with PYTHON=" >&2; exit 1; }
	@echo "1/3 making the environment $(VENV), 2.4 GB when it is done: 2 to 5 minutes for all steps, ten or more on a slow network"
	@$(PYTHON) -m venv $(VENV)
	@echo "2/3 installing the packages: finding versions, then downloads"
	@set -o pipefail; $(BIN)/pip install --progress-bar off --no-compile --disable-pip-version-check -c constraints.txt \
	  -e '.[cpu,pipeline,dev]' | awk '$(TELLING) {print "    " substr($$0, 1, 100); fflush()}'
	@echo "3/3 compiling the packages on all cores"
	@# Compiled on all cores, and also where PYTHONDONTWRITEBYTECODE is set: else every process compiles torch again.
	@$(BIN)/python -m compileall -q -j 0 -x '/tests?/' $(VENV)/lib >/dev/null 2>&1 || true
	@touch $@
	@echo "the environment is complete"

run: setup
	$(BIN)/python -m jobs.demo $(if $(ONCE),--once) $(if $(PORT),--port $(PORT))

test: setup promtool check
	@echo "testing in two halves at once, about 16 minutes on 2 cores; that of the pipeline goes to build/test-pipeline.log"
	@mkdir -p build; $(MAKE) --no-print-directory test-pipeline >build/test-pipeline.log 2>&1 & pipeline=$$!; \
	  $(MAKE) --no-print-directory test-serving; serving=$$?; \
	  wait $$pipeline; failed=$$(($$? || serving)); cat build/test-pipeline.log; exit $$failed

test-pipeline:
	$(BIN)/python -m pytest -m "not slow" $(PIPELINE)

# Those of docs/ are run by check.
test-serving:
	$(BIN)/python -m pytest -m "not slow" tests $(addprefix --ignore=,$(PIPELINE) tests/docs)

test-all: setup promtool check
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
