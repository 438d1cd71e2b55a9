# From a clean checkout, with only Python (>= 3.11) and make:
#   make demo    the main job on real input, under a minute
#   make test    the tests, in less than ten minutes on two cores
#   make matrix  those that are many slow cases of one thing
#   make faults  every write killed, refused and out of room, with a table of what came of it
#   make check   ruff, mypy, import-linter, file cap
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready

.PHONY: demo test matrix faults fast check format bench clean

demo: $(READY)
	$(BIN)/llmartifacts demo

test: $(READY)
	$(BIN)/python -m pytest -n 2 --dist loadgroup -m "not matrix and not faults"

matrix: $(READY)
	$(BIN)/python -m pytest -n 2 --dist loadgroup -m matrix

faults: $(READY)
	$(BIN)/python -m pytest tests/faults -n 2 -m faults --faults-table docs/faults.md

# The tests that take a moment each; for use while writing.
fast: $(READY)
	$(BIN)/python -m pytest -n 2 -m "not slow and not matrix and not faults"

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tests/docs/file_cap.py

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(READY)
	$(BIN)/python -m benchmarks

$(READY): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "llmartifacts needs Python 3.11 or newer: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $(READY)

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache dist build
