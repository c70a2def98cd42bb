# Needs Python 3.11 to 3.13 with pip, and make. `make demo` and `make test` install what they need first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: install demo test test-all lint format bench notebooks docs clean
.DEFAULT_GOAL := install

install: $(STAMP)

# the stamp makes this idempotent; a venv without pip is a venv whose making was interrupted, and is made again
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 11) <= v < (3, 14) else "pyroqmri needs Python 3.11 to 3.13 and $(PYTHON) is %d.%d: name another, make PYTHON=python3.12" % v)'
	$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --constraint constraints.txt --editable ".[test,dev,notebooks,docs]"
	@touch $@

demo: install
	$(BIN)/pyroqmri demo --out out/demo --overwrite

# one thread a process: two threads on a busy machine can be ten times slower than one
test: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow or kept"

# the slow statistical ones too
test-all: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# files that can be run; the others are what they share
bench: install
	@for script in $$(grep -l __main__ benchmarks/*.py); do \
		name=$$(basename $$script .py); echo "== benchmarks.$$name"; \
		OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.$$name || exit 1; \
	done

notebooks: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --nbmake --nbmake-timeout=600 notebooks

docs: install
	$(BIN)/sphinx-build -W --keep-going -b html docs docs/_build/html

clean:
	rm -rf build dist out docs/_build .pytest_cache .ruff_cache .hypothesis
