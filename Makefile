# Every target makes what it needs: `make test` on a fresh clone is enough. PYTHON=python3.12 picks the interpreter.

PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3.14 python3 python; do \
	if $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then command -v $$p; exit; fi; done; \
	for p in $$HOME/.pyenv/versions/3.1[1-9]*/bin/python; do [ -x $$p ] && echo $$p && exit; done)
VENV ?= .venv
# Test processes; 0 for none but pytest itself (to see output, or to debug).
JOBS ?= auto
# Which part of the full figures `make torture` does.
SHARE ?= 1
PY := $(VENV)/bin/python
COMPILED := setup.py pyproject.toml src/_fastlog.pyx $(wildcard src/_fastlog/*)

.PHONY: help demo test torture mutants bench lint types build clean
.DELETE_ON_ERROR:

help:
	@echo 'make demo    a word count and a loop that are killed thirty times and end with the right results'
	@echo 'make test    all tests (ARGS="-k journal" for some)'
	@echo 'make torture the crash tests in full, for hours (SHARE=0.1 for a tenth of it, ARGS="-k sigkill" for some)'
	@echo 'make mutants shows that wrong versions of the write path are noticed (ARGS=lock for those with it in their name)'
	@echo 'make bench   the speed table of the README, the loops, the peers (ARGS="..." for the peers)'
	@echo 'make lint    ruff          make types   mypy, stubtest, pyright'
	@echo 'make build   wheel and sdist in dist/          make clean   all of it away'

# A stamp a step, so that a changed dependency or a changed line of Cython rebuilds what it must.
$(VENV)/stamp.python:
	@[ -n "$(PYTHON)" ] || { echo 'make: no CPython 3.11 or newer found; say PYTHON=/path/to/python' >&2; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check --upgrade pip
	@touch $@

$(VENV)/stamp.built: $(VENV)/stamp.python $(COMPILED)
	$(PY) -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

$(VENV)/stamp.bench: $(VENV)/stamp.built
	$(PY) -m pip install --quiet --disable-pip-version-check --editable '.[dev,bench]'
	@touch $@

# Without a server its tests are skipped, so that its absence fails nothing here; asked again the next time.
$(VENV)/stamp.servers: $(VENV)/stamp.built tests/resources/install-servers
	@if tests/resources/install-servers; then touch $@; fi

demo: $(VENV)/stamp.built
	$(PY) examples/demo.py $(ARGS)

test: $(VENV)/stamp.built $(VENV)/stamp.servers
	$(PY) -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder $(ARGS)

# What was done is kept as a line of JSON each, and added up in a report.
torture: $(VENV)/stamp.built $(VENV)/stamp.servers
	RESUMABLE_SHARE=$(SHARE) RESUMABLE_FIGURES=$(CURDIR)/docs/torture/figures.jsonl $(PY) -m pytest tests/crash -s -o faulthandler_timeout=0 $(ARGS)
	$(PY) tests/crash/report.py docs/torture/figures.jsonl

# Wrong versions of the write path, each of which a test must notice: some minutes.
mutants: $(VENV)/stamp.built
	PYTHONPATH=tests $(PY) -m mutants $(ARGS)

bench: $(VENV)/stamp.bench
	$(PY) -m benchmarks.bars
	$(PY) -m benchmarks.loops
	$(PY) -m benchmarks.peers $(ARGS)

lint: $(VENV)/stamp.built
	$(PY) -m ruff check .

types: $(VENV)/stamp.built
	$(PY) -m mypy
	$(PY) -m pytest -q tests/typing

build: $(VENV)/stamp.built
	rm -rf dist
	$(PY) -m build --outdir dist $(ARGS) .

clean:
	rm -rf $(VENV) build dist src/*.egg-info src/resumable/*.so src/_fastlog.c src/_fastlog.html
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks
	find src tests benchmarks examples -name __pycache__ -type d -exec rm -rf {} +
