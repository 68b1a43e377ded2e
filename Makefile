# `make demo` and `make test` do all the set-up on a machine with Python 3.11 or later.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
# of 20,000 modules one in eight is ever imported, and is compiled then, once
unexport PYTHONDONTWRITEBYTECODE
INSTALL = python -m pip --disable-pip-version-check install -q --no-compile
ELSEWHERE = build/elsewhere
DEMO_DATA ?= glyphs

.PHONY: demo test lint types unit wheel elsewhere on-wheel margins bench docs clean

demo: $(VENV)/.installed
	$(BIN)/manigeo demo --data $(DEMO_DATA) --force

# what takes one core, side by side; then what takes two
test: $(VENV)/.installed-dev
	$(MAKE) -j 2 lint types elsewhere
	$(MAKE) unit
	$(MAKE) on-wheel

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed-dev
	$(BIN)/mypy

# one BLAS and torch thread a worker: two workers of two threads each wait for one another; files in the order of conftest.py
unit: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder

wheel: elsewhere
	$(MAKE) on-wheel

# what a user installs: sdist -> wheel -> clean environment
elsewhere: $(VENV)/.installed-dev
	rm -rf $(ELSEWHERE) && mkdir -p $(ELSEWHERE)
	$(BIN)/python -m build --outdir $(ELSEWHERE) .
	$(PYTHON) -m venv $(ELSEWHERE)/venv
	$(ELSEWHERE)/venv/bin/$(INSTALL) -c constraints.txt \
	    "$$(ls $(ELSEWHERE)/*.whl)[dask]" beartype hypothesis pytest pytest-xdist

# a copy of the tests, far from the sources
on-wheel:
	rm -rf $(ELSEWHERE)/tests && cp -r tests $(ELSEWHERE)/tests
	cd $(ELSEWHERE) && MANIGEO_SHARED=$(abspath ../shared) OMP_NUM_THREADS=1 venv/bin/python -m pytest -n 2 --dist loadfile \
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
	$(BIN)/$(INSTALL) -c constraints.txt -e .
	touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/$(INSTALL) "pip>=25.1"  # the first that knows dependency groups
	$(BIN)/$(INSTALL) -c constraints.txt -e . --group dev
	touch $@ $(VENV)/.installed $(VENV)/.installed-docs

$(VENV)/.installed-docs: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/$(INSTALL) "pip>=25.1"
	$(BIN)/$(INSTALL) -c constraints.txt -e . --group docs
	touch $@ $(VENV)/.installed
