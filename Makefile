# `make demo` and `make test` do all the set-up on a machine with Python 3.11 or later.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
PIP = $(BIN)/python -m pip --disable-pip-version-check
DEMO_DATA ?= glyphs

.PHONY: demo test lint types unit wheel margins bench docs clean

demo: $(VENV)/.installed
	$(BIN)/manigeo demo --data $(DEMO_DATA) --force

test: lint types unit wheel

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed-dev
	$(BIN)/mypy

# one BLAS and torch thread a worker: two workers of two threads each wait for one another; files in the order of conftest.py
unit: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder

# what a user installs: sdist -> wheel -> clean environment, and a copy of the tests far from the sources
wheel: $(VENV)/.installed-dev
	rm -rf build/elsewhere && mkdir -p build/elsewhere
	$(BIN)/python -m build --outdir build/elsewhere .
	$(PYTHON) -m venv build/elsewhere/venv
	build/elsewhere/venv/bin/python -m pip --disable-pip-version-check install -q -c constraints.txt \
	    "$$(ls build/elsewhere/*.whl)[dask]" beartype hypothesis pytest pytest-xdist
	cp -r tests build/elsewhere/tests
	cd build/elsewhere && MANIGEO_SHARED=$(abspath ../shared) OMP_NUM_THREADS=1 venv/bin/python -m pytest -n 2 --dist loadfile \
	    -c tests/installed.ini --rootdir . tests

# tests of trained networks alone: five other seeds of all trainings, each instruction set of the processor, 1 and 2 threads
margins: $(VENV)/.installed-dev
	$(BIN)/python -m tests.margins

# times beside those of other programs, in one table (docs/performance.md), then all benchmarks
bench: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.bench.table
	OMP_NUM_THREADS=1 $(BIN)/pytest -o addopts="" tests/bench --benchmark-only

# pages that open from files: build/docs/index.html
docs: $(VENV)/.installed-docs
	OMP_NUM_THREADS=1 $(BIN)/sphinx-build -q -W --keep-going -b html -d build/doctrees docs build/docs

clean:
	rm -rf $(VENV) build dist docs/notebooks

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) install -q -c constraints.txt -e .
	touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) install -q "pip>=25.1"  # the first that knows dependency groups
	$(PIP) install -q -c constraints.txt -e . --group dev
	touch $@ $(VENV)/.installed $(VENV)/.installed-docs

$(VENV)/.installed-docs: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) install -q "pip>=25.1"
	$(PIP) install -q -c constraints.txt -e . --group docs
	touch $@ $(VENV)/.installed
